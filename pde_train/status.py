"""`python -m pde_train.status [FOLDER]`: what has become of the cells of a sweep, while it runs and after."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pde_train.errors import PdeTrainError, UsageError
from pde_train.overrides import common
from pde_train.run_folder import Status
from pde_train.sweeps.grid import Cell, Grid, grid_files

SHOWN = 40
"""Cells that are listed without --all."""

NOT_ENDED = (Status.RUNNING, Status.WAITING)
"""States of cells that somebody may still change."""

ORDER = (Status.FAILED, Status.INTERRUPTED, Status.RUNNING, Status.WAITING, Status.PRUNED, Status.FINISHED)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the counts of a grid's states and its cells, those in trouble first."""
    parser = argparse.ArgumentParser("python -m pde_train.status", description="The cells of a sweep and their states.")
    parser.add_argument("folder", type=Path, nargs="?", help="of a grid; by default the one launched last")
    parser.add_argument("--sweeps", type=Path, default=Path("multirun"), help="where grids lie (hydra.sweep.dir)")
    parser.add_argument("--all", action="store_true", help="list every cell")
    parser.add_argument("--watch", type=float, metavar="SECONDS", help="look again after so many, until all have ended")
    given = parser.parse_args(arguments)
    try:
        grid = Grid.read((given.folder or newest(given.sweeps)).absolute())
        show(grid, len(grid.cells) if given.all else SHOWN)
        while given.watch is not None and any(cell.status in NOT_ENDED for cell in grid.distinct):
            time.sleep(given.watch)
            show(grid, len(grid.cells) if given.all else SHOWN)
    except PdeTrainError as error:
        print(error, file=sys.stderr)
        return error.code
    return 0


def newest(sweeps: Path) -> Path:
    """The folder of the grid that was launched last."""
    grids = sorted(grid_files(sweeps), key=lambda file: file.stat().st_mtime)
    if not grids:
        raise UsageError(f"{sweeps} holds no sweep: expected one, start it with --multirun or name its folder")
    return grids[-1].parent


def show(grid: Grid, most: int) -> None:
    """One line of counts, then at most so many cells."""
    states = {cell.name: cell.status for cell in grid.distinct}
    counts = Counter(states[cell.name] for cell in grid.cells)
    print(f"{grid.folder.name}: {len(grid.cells)} cells: {', '.join(f'{counts[s]} {s}' for s in ORDER if counts[s])}")
    cells = sorted(grid.cells, key=lambda cell: ORDER.index(states[cell.name]))
    shared = common(cell.overrides for cell in cells) if len(cells) > 1 else frozenset()
    if shared:
        print(f"  all with {' '.join(word.text for word in cells[0].overrides if word in shared)}")
    for cell in cells[:most]:
        words = cell.overrides.swept(shared)
        print(f"  {states[cell.name]:<12}{cell.name}  {words}{_sentence(cell, states[cell.name])}")
    if len(cells) > most:
        print(f"  ... and {len(cells) - most} more: --all")


def _sentence(cell: Cell, status: Status) -> str:
    result = cell.result if status in (Status.FAILED, Status.INTERRUPTED, Status.PRUNED) else None
    return f": {result.error}" if result is not None and result.error else ""


if __name__ == "__main__":
    sys.exit(main())
