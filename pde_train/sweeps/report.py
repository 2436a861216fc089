"""What a grid shows together: its parent run, the table at the end, the overlays."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from pde_train.errors import sentence
from pde_train.instantiate import build_group
from pde_train.overrides import common
from pde_train.progress import waiting
from pde_train.run_folder import OUTBOX, Status
from pde_train.runs.result import Result
from pde_train.sweeps.grid import Cell, Grid
from pde_train.sweeps.views import seen
from pde_train.tracking.base import Tracker, drained
from pde_train.tracking.outbox import end_abandoned

SHOWN = 40
"""Cells that did not finish which the terminal names; `grid.json` and the status command know all."""


@dataclass
class Report:
    """The parent run of a grid while its cells are trained, and what is made of them in the end.

    Attributes:
        grid: Its cells, which may become more.
        config: Of the sweep.
        tracker: Of the parent run.
        remark: What is said below the table.
        complete: Whether the sweep has come to its end; None: where every cell is finished.
    """

    grid: Grid
    config: DictConfig
    tracker: Tracker
    remark: str = ""
    complete: bool | None = None

    @classmethod
    def opened(cls, grid: Grid, config: DictConfig, meanwhile: Callable[[], None]) -> Report:
        """Begin the parent run, or go on with it.

        Args:
            grid: What is trained.
            config: Of the sweep.
            meanwhile: What can be done while the store is being opened.

        Returns:
            The report of the grid, which `close` ends.
        """
        tracker = build_group(config, "tracking")
        tracker.prepare(wait=False)
        meanwhile()
        with waiting("opening the tracking store"):
            tracker.prepare()
            tags = {"sweep": grid.title, "cells": str(len(grid.cells))}
            tracker.start(grid.folder.name, grid.folder, grid.parameters, tags)
        return cls(grid, config, tracker)

    def refused(self) -> None:
        """End a parent run below which nothing was trained."""
        self.tracker.discard()
        with waiting("delivering to the tracking store"):
            drained(self.tracker)

    def close(self, interrupted: bool) -> bool:
        """Print the table and what is not finished, draw, end the parent run; whether the sweep is complete."""
        from pde_train.runs import tables

        end_abandoned(cell.folder for cell in self.grid.distinct if not _is_finished(cell))
        results = [self.result(cell) for cell in self.grid.cells]
        finished = [r for r in results if r.is_finished]
        groups = tables.groups(results)
        grouped = tables.medians(groups)
        if grouped:
            tables.show(grouped)
            many = max(len(cells) for lines in groups.values() for cells in lines.values())
            if many > 1:
                print(f"Medians over up to {many} seeds; every cell: {self.grid.folder / 'table.csv'}")
        _say(results)
        if self.remark:
            print(self.remark)
        files = self._files(results)
        counts = {
            "cells": len(results),
            "runs.finished": len(finished),
            "runs.not_finished": len(results) - len(finished),
        }
        self.tracker.tags({name: str(count) for name, count in counts.items()})
        self.tracker.renew([(name, value, len(results)) for name, value in tables.median_metrics(grouped).items()])
        text = self.remark + tables.markdown_table(grouped) + tables.markdown_unfinished(results, SHOWN)
        self.tracker.describe(text, [file.name for file in files if file.suffix == ".png"])
        self.tracker.artifacts(files)
        complete = len(finished) == len(results) if self.complete is None else self.complete
        self.tracker.finish(Status.FINISHED if complete else Status.INTERRUPTED if interrupted else Status.FAILED)
        with waiting("delivering to the tracking store"):  # also what died before it could
            drained(self.tracker, (f.parent for c in self.grid.distinct for f in c.folder.rglob(OUTBOX)))
        if self.tracker.how_to_look:
            print(f"See every run: {self.tracker.how_to_look}")
        return complete

    def result(self, cell: Cell) -> Result:
        """What a cell has come to, in words where there is no result."""
        words, status = cell.overrides.words, cell.status
        try:
            if (result := seen(cell, self.config, self.tracker, self.grid.folder)) is not None:
                return result
        except Exception as error:  # one bad cell among many: what its files hold is nobody's promise
            return Result(Status.FAILED, words, error=sentence(error), folder=cell.folder)
        return Result(status, words, error=NO_RESULT.get(status, DIED), folder=cell.folder)

    def _files(self, results: Sequence[Result]) -> list[Path]:
        """table.csv with every cell, and the overlays that its cells give."""
        from pde_train.runs import tables
        from pde_train.sweeps import overlays

        files = [self.grid.folder / "table.csv"]
        files[0].write_text(tables.csv_table(tables.groups(results)))
        for name, figure in overlays.draw(results).items():
            files.append(self.grid.folder / f"{name}.png")
            figure.savefig(files[-1], dpi=100)
        return files


def _is_finished(cell: Cell) -> bool:
    return (result := cell.result) is not None and result.is_finished


NO_RESULT = {
    Status.WAITING: "not begun",
    Status.RUNNING: "another process is at work on it",
    Status.INTERRUPTED: "stopped; the same command goes on from its checkpoint",
}
"""What is said of a cell that has no result."""

DIED = "its process died and left no word; the same command tries again"
"""The same of a cell that had one a moment ago."""


def _say(results: Sequence[Result]) -> None:
    """Name every cell that is not finished, by what was swept."""
    shared = common(result.words for result in results)
    others = [r for r in results if not r.is_finished]
    for result in others[:SHOWN]:
        words = result.words.swept(shared) if len(results) > 1 else result.words
        print(f"{result.status}: {words}: {result.error} ({result.folder})")
    if len(others) > SHOWN:
        print(f"... and {len(others) - SHOWN} more that are not finished: python -m pde_train.status", file=sys.stderr)
