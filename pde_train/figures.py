"""`python -m pde_train.figures FOLDER ...`: draw the figures of finished runs that have none, as cells of a stack."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from pde_train.errors import PdeTrainError, UsageError
from pde_train.run_folder import CELLS, FIGURES_FOLDER, RESULT_FILE, Status
from pde_train.sweeps.grid import GRID_FILE, Grid


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw, and print the folder of each run's figures.

    Args:
        arguments: The words of the command; by default those of this process.

    Returns:
        The exit code: 0, or that of the error whose sentence was printed.
    """
    parser = argparse.ArgumentParser("python -m pde_train.figures", description="Draw the figures of finished runs.")
    parser.add_argument("runs", nargs="+", help="folders of runs or sweeps, or names of cells, as status lists them")
    parser.add_argument("--sweeps", type=Path, default=Path("multirun"), help="where cells lie (hydra.sweep.dir)")
    parser.add_argument("--again", action="store_true", help="also of runs that have figures")
    given = parser.parse_args(arguments)
    try:
        folders = [folder for run in given.runs for folder in _folders(run, given.sweeps)]
        from pde_train.runs.loaded import load_run

        for folder in folders:
            if given.again or not any((folder / FIGURES_FOLDER).glob("*.png")):
                print(load_run(folder).draw(), flush=True)
    except PdeTrainError as error:
        print(error, file=sys.stderr)
        return error.code
    return 0


def _folders(run: str, sweeps: Path) -> Iterator[Path]:
    """The folders of runs that a word names: of one run, or of all finished cells of a sweep."""
    if (Path(run) / GRID_FILE).exists():
        cells = Grid.read(Path(run).absolute()).distinct
        yield from (cell.folder for cell in cells if cell.status is Status.FINISHED)
        return
    places = [Path(run), sweeps / CELLS / run]
    found = [folder for folder in places if (folder / RESULT_FILE).exists()]
    if not found:
        raise UsageError(
            f"{run} is no run that has ended, nor a sweep: expected a folder with {RESULT_FILE} or {GRID_FILE}, or the "
            f"name of a cell below {sweeps}, see python -m pde_train.status"
        )
    yield found[0]


if __name__ == "__main__":
    sys.exit(main())
