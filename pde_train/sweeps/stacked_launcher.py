"""Hands cells of one shape to another launcher as one job, in which they train as one."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from pde_train.errors import UsageError
from pde_train.sweeps import compose
from pde_train.sweeps.grid import STACKS, Cell, Grid, settle
from pde_train.sweeps.workers import failure

log = logging.getLogger(__name__)


class StackedLauncher(Launcher):
    """Sorts cells into stacks of one shape (`pde_train.runs.stack.shape`) and launches jobs that train them.

    Args:
        through: The configuration of the launcher of these jobs.
        size: Cells of a stack, at most.
        stacks: Stacks of a job, at most, which trains one after another.
        memory_gb: What the arrays of one step may take, in GB.
        threads: Of a job; None for as many as it has cores, but one.

    Raises:
        UsageError: A size that is no positive number.
    """

    def __init__(self, through: DictConfig, size: int, stacks: int, memory_gb: float, threads: int | None):
        given = {"size": size, "stacks": stacks, "memory_gb": memory_gb, "threads": 1 if threads is None else threads}
        for name, value in given.items():
            counts = name != "memory_gb"
            if not isinstance(value, (int, float)) or not value > 0 or (counts and value < 1):
                least = ", at least 1" if counts else ""
                raise UsageError(f"hydra.launcher.{name}={value} is no size: expected a positive number{least}")
        self.through = through
        self.size, self.stacks = int(size), int(stacks)
        self.memory_gb = memory_gb
        self.threads = None if threads is None else int(threads)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config = config
        inner = copy.deepcopy(config)
        with open_dict(inner):
            inner.hydra.launcher = self.through
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=inner
        )

    @property
    def knows_jobs(self) -> bool:
        """See `pde_train.sweeps.slurm.SlurmLauncher`."""
        return getattr(self.launcher, "knows_jobs", False)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Not used: the sweeper launches cells, whose configurations it has composed, by `launch_cells`."""
        raise UsageError(
            "hydra/launcher=stacked needs a sweeper of pde_train: expected hydra/sweeper=grid or optuna, choose one"
        )

    def launch_cells(self, cells: Sequence[Cell], grid: Grid) -> None:
        """Train cells in as few stacks as can be.

        Args:
            cells: What to train.
            grid: To which they belong.
        """
        stacks: dict[str, list[Cell]] = {}
        for cell in cells:
            stacks.setdefault(self._shape(cell.config), []).append(cell)
        parts = [own[i : i + self.size] for own in stacks.values() for i in range(0, len(own), self.size)]
        of_jobs = [parts[i : i + self.stacks] for i in range(0, len(parts), self.stacks)]
        log.info("%d cells in %d stacks, %d jobs", len(cells), len(parts), len(of_jobs))
        jobs = self.launcher.launch([self._job(job, grid) for job in of_jobs], initial_job_idx=0)
        for own, job in zip(of_jobs, jobs, strict=False):  # none of a launcher that leaves it to others to say anything
            if error := failure(job):
                for cell in chain.from_iterable(own):
                    settle(cell.folder, cell.overrides.words, error)

    def _shape(self, config: Mapping[str, Any]) -> str:
        from pde_train.runs.stack import shape

        return shape(config)

    def _job(self, stacks: Sequence[Sequence[Cell]], grid: Grid) -> list[str]:
        """Write down the stacks of a job; the words that make it."""
        every = list(chain.from_iterable(stacks))
        name = hashlib.sha256("".join(str(cell.folder) for cell in every).encode()).hexdigest()[:12]
        file = Path(self.config.hydra.sweep.dir).absolute() / STACKS / name / "stack.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        described = [[_described(cell, grid) for cell in stack] for stack in stacks]
        content = {"memory_gb": self.memory_gb, "threads": self.threads, "stacks": described}
        file.write_text(json.dumps(content, indent=1) + "\n")
        return [
            *every[0].overrides.words,
            f"sweep.parent={compose.quoted(grid.folder)}",
            f"hydra.sweep.subdir={STACKS}/{name}",
            f"sweep.stack={compose.quoted(file)}",
        ]


def _described(cell: Cell, grid: Grid) -> dict[str, Any]:
    """What a job must know of a cell, see `pde_train.runs.stack.train`."""
    bounds = None if grid.bounds is None else str(grid.bounds)
    own = {"parent": str(grid.folder), "bounds": bounds, "label": grid.labels[cell.name]}
    return {
        "folder": str(cell.folder),
        "overrides": cell.overrides.words,
        "config": {**cell.config, "sweep": {**cell.config["sweep"], **own}},
        "choices": cell.choices,
    }
