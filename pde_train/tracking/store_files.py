"""The files of a store: the database, alone in the hands of one process, and the folders of artifacts beside it."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pde_train.errors import RunError, UsageError
from pde_train.run_folder import take_lock
from pde_train.tracking.uris import encoded, is_database, sqlite_file

log = logging.getLogger(__name__)


@contextmanager
def alone(uri: str) -> Iterator[None]:
    """One process at a time, of all that use a database: those that make a new one's tables at once break it, or fail.

    By a lock beside a sqlite file, by one of PostgreSQL's that ends with the connection; a server locks for itself.
    """
    if (file := sqlite_file(uri)) is not None:
        with file.with_name(f"{file.name}.lock").open("w") as lock:
            take_lock(lock.fileno())
            yield
    elif uri.startswith("postgresql"):
        from sqlalchemy import NullPool, create_engine, text

        with create_engine(encoded(uri), poolclass=NullPool).connect() as connection:
            connection.execute(text("SELECT pg_advisory_lock(hashtext('pde_train'))"))
            yield
    else:
        yield


def check_file(uri: str) -> None:
    """Refuse a sqlite file that can never be a store, which MLflow would try to open for a minute.

    Args:
        uri: Of the store.

    Raises:
        RunError: It is no file of sqlite, or its folder does not exist.
    """
    file = sqlite_file(uri)
    if file is None or not file.exists():
        return
    expected = "expected a sqlite file that may be written, or none, correct tracking.uri"
    if not file.is_file():
        raise RunError(f"{file} is no file: {expected}")
    if not os.access(file, os.W_OK):
        raise RunError(f"{file} may not be written: {expected}")
    try:
        with contextlib.closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=0)) as opened:
            opened.execute("PRAGMA schema_version")
    except sqlite3.DatabaseError as error:
        if "locked" not in str(error):
            raise RunError(f"{file} is no sqlite file ({error}): {expected}") from error


def check_experiment(name: object) -> None:
    """Refuse the name of an experiment whose files would lie outside of the folder of all artifacts.

    Args:
        name: Of the experiment.

    Raises:
        UsageError: The name cannot be used.
    """
    if not isinstance(name, str) or not name.strip() or name.startswith("/") or {"..", "."} & {*name.split("/")}:
        raise UsageError(
            f"tracking.experiment={name} is no name of an experiment: expected words, with single slashes between at "
            "most, such as tracking.experiment=my_study"
        )


def own_file(folder: Path, name: object) -> Path:
    """A file or folder that a run names as its own.

    Args:
        folder: Of the run.
        name: Of the file, below it.

    Returns:
        Its path.

    Raises:
        RunError: It lies elsewhere, or leads there by a link.
    """
    file = folder / str(name)
    within = folder.resolve()
    for path in (file, *(file.rglob("*") if file.is_dir() else ())):
        if not path.resolve().is_relative_to(within) or path.resolve() == within:
            raise RunError(
                f"the outbox of {folder} names {name}, and {path} leads out of that folder: expected files of the "
                "run alone, remove what is not of it"
            )
    return file


def follow_a_move(uri: str) -> None:
    """Tell a sqlite store that was moved, with the files of its runs beside it, where these are now.

    MLflow keeps the whole path of each file's folder, and would write new ones to the old place.

    Args:
        uri: Of the store; nothing is done for any that is no file.
    """
    file = sqlite_file(uri)
    if file is None or not file.exists():
        return
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(file)) as db:
        for name, old in db.execute("SELECT name, artifact_location FROM experiments").fetchall():
            new = str(artifact_location(uri, name))
            ours = str(old).startswith("file:") and str(old).endswith(new.removeprefix(file.absolute().parent.as_uri()))
            if old == new or not ours or Path(unquote(urlsplit(old).path)).exists():
                continue
            log.info("the tracking store %s was moved: the files of %s are looked for in %s", file, name, new)
            with db:
                db.execute("UPDATE experiments SET artifact_location = ? WHERE name = ?", (new, name))
                moved = "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) WHERE artifact_uri LIKE ? || '/%'"
                db.execute(moved, (new, len(old) + 1, old))


def artifact_location(uri: str, experiment: str) -> str | None:
    """Where a new experiment keeps its files.

    Args:
        uri: Of the store.
        experiment: Its name.

    Returns:
        A folder beside a sqlite file, or in the working directory for another database. None for a
        server, which has a place of its own.
    """
    if (file := sqlite_file(uri)) is not None:
        folder = file.parent
    elif is_database(uri):
        folder = Path.cwd()
    else:
        return None
    return (folder.absolute() / "mlartifacts" / experiment).as_uri()
