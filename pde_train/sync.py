"""`python -m pde_train.sync [FOLDER ...]`: deliver to a tracking store what runs have kept for it, each thing once."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from pde_train.errors import PdeTrainError, RunError, UsageError
from pde_train.results import JOURNAL

URI = "MLFLOW_TRACKING_URI"
"""MLflow's own environment variable."""

DEFAULT_URI = "sqlite:///mlflow.db"


def main(arguments: Sequence[str] | None = None) -> int:
    """Deliver every journal below the folders that has something to deliver, and say what came of it."""
    parser = argparse.ArgumentParser("python -m pde_train.sync", description="Deliver runs to an MLflow store.")
    parser.add_argument("folders", type=Path, nargs="*", help="of runs or sweeps; by default multirun and outputs")
    parser.add_argument(
        "--uri", help=f"of the store; by default that of the run, else ${URI}, else {DEFAULT_URI} (passwords: ${URI})"
    )
    given = parser.parse_args(arguments)
    try:
        return sync(given.folders or [f for f in (Path("multirun"), Path("outputs")) if f.exists()], given.uri)
    except PdeTrainError as error:
        print(error, file=sys.stderr)
        return error.code


def sync(folders: Sequence[Path], uri: str | None) -> int:
    """Deliver what lies below the folders; 1 where a run could not be delivered."""
    from pde_train.tracking.delivery import Store, absolute, away, first_line, masked

    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"{folder} is no folder: expected that of a run or a sweep, correct the path")
    stores: dict[str, Store] = {}
    runs = rows = 0
    refused: list[str] = []
    for folder, own_uri in _waiting(folders):
        where = absolute(uri or own_uri or os.environ.get(URI) or DEFAULT_URI)
        try:
            rows += stores.setdefault(where, Store(where)).deliver(folder)
            runs += 1
        except Exception as error:
            if away(error, where):
                raise RunError(
                    f"the tracking store {masked(where)} does not answer ({first_line(error)}): expected one that "
                    f"does, start it or name another by --uri; {runs} runs were delivered, the others are kept"
                ) from error
            refused.append(f"{folder}: {first_line(error)}")
    print(f"delivered {runs} runs with {rows} metric rows{'' if runs else ': nothing was waiting'}")
    for sentence in refused:
        print(f"not delivered: {sentence}", file=sys.stderr)
    return 1 if refused else 0


def _waiting(folders: Sequence[Path]) -> Iterator[tuple[Path, str | None]]:
    """Folders whose journals have something to deliver, and the uri that each was to be delivered to."""
    from pde_train.tracking.journal import Journal

    for file in sorted(file for folder in folders for file in folder.rglob(JOURNAL)):
        journal = Journal(file.parent.absolute())
        first = next(journal.entries(), None) if journal.waiting else None
        if first is not None:
            yield journal.folder, first[0]["run"]["uri"]


if __name__ == "__main__":
    sys.exit(main())
