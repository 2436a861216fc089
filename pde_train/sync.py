"""`python -m pde_train.sync [FOLDER ...]`: deliver to a tracking store what runs have kept for it, each thing once."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from pde_train.errors import PdeTrainError, UsageError
from pde_train.run_folder import OUTBOX
from pde_train.tracking.uris import URI, absolute, masked

DEFAULT_URI = "sqlite:///mlflow.db"


def main(arguments: Sequence[str] | None = None) -> int:
    """Deliver every outbox below the folders that has something to deliver, and say what came of it."""
    parser = argparse.ArgumentParser("python -m pde_train.sync", description="Deliver runs to an MLflow store.")
    parser.add_argument("folders", type=Path, nargs="*", help="of runs or sweeps; by default multirun and outputs")
    parser.add_argument(
        "--uri",
        help=f"of the store, which gets whatever it lacks; by default what no store has goes to that of the run, else "
        f"to ${URI}, else to {DEFAULT_URI} (passwords: ${URI})",
    )
    parser.add_argument(
        "--again", action="store_true", help="send everything once more, as to a store that was deleted or emptied"
    )
    parser.add_argument(
        "--follow",
        type=Path,
        metavar="FOLDER",
        help="deliver what runs write as they write it, until their process ends; a run starts this beside itself",
    )
    given = parser.parse_args(arguments)
    try:
        if given.follow is not None:
            from pde_train.tracking.follower import follow

            follow(given.follow, absolute(given.uri or os.environ.get(URI) or DEFAULT_URI))
        folders = given.folders or [f for f in (Path("multirun"), Path("outputs")) if f.exists()]
        return sync(folders, given.uri, given.again)
    except PdeTrainError as error:
        print(error, file=sys.stderr)
        return error.code


def sync(folders: Sequence[Path], uri: str | None, again: bool = False) -> int:
    """Deliver what lies below the folders; 1 where a run could not be delivered, which stops no other."""
    from pde_train.tracking.delivery import Store, first_line, is_unreachable

    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"{folder} is no folder: expected that of a run or a sweep, correct the path")
    stores: dict[str, Store] = {}
    refused: list[str] = []
    silent: dict[str, list[str]] = {}
    for folder in _folders(folders):
        where = uri or ""
        try:
            where = _store_of(folder, uri, again)
            if where in silent:
                silent[where].append(str(folder))
            elif where:
                stores.setdefault(where, Store(where, again)).deliver(folder)
        except Exception as error:  # of one run: the others are delivered all the same
            if is_unreachable(error, where):
                silent[where] = [first_line(error, where), str(folder)]
            else:
                refused.append(f"{folder}: {first_line(error, where)}")
    runs = sum(len(store.delivered) for store in stores.values())
    rows = sum(store.rows for store in stores.values())
    nothing = "" if runs or refused or silent else ": nothing was waiting"
    print(f"delivered {runs} runs with {rows} metric rows{nothing}")
    for sentence in refused:
        print(f"not delivered: {sentence}", file=sys.stderr)
    for where, (why, *kept) in silent.items():
        print(
            f"the tracking store {masked(where)} does not answer ({why}): expected one that does, start it or name "
            f"another by --uri; {len(kept)} runs are kept for it",
            file=sys.stderr,
        )
    return 1 if refused or silent else 0


def _folders(folders: Sequence[Path]) -> Iterator[Path]:
    """Every folder below these that holds an outbox."""
    yield from sorted({file.parent.resolve() for folder in folders for file in folder.rglob(OUTBOX)})


def _store_of(folder: Path, uri: str | None, again: bool) -> str:
    """The uri of the store that is to get what a folder has; empty where every store that is meant has it."""
    from pde_train.tracking.outbox import Outbox

    outbox = Outbox(folder)
    if next(outbox.entries(), None) is None:  # its process was killed before it had said anything
        return ""
    if uri is None and not again and not outbox.waits_for(None):
        return ""
    own = outbox.opening()["uri"]
    return absolute(uri or own or os.environ.get(URI) or DEFAULT_URI)


if __name__ == "__main__":
    sys.exit(main())
