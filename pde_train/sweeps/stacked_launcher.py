"""Hands cells of one shape to another launcher as one job, in which they train as one."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from pde_train.errors import UsageError
from pde_train.sweeps import compose
from pde_train.sweeps.grid import STACKS, settle
from pde_train.sweeps.workers import failure

SUBDIR = "hydra.sweep.subdir="
"""The word by which the sweeper says where a cell lies."""

log = logging.getLogger(__name__)


class StackedLauncher(Launcher):
    """Sorts cells into stacks of one shape (`pde_train.runs.stack.shape`) and launches a job for each.

    through: the launcher of the jobs. size: cells of a job, at most. memory_gb: that the arrays of a step may take, in
    GB. threads: of a job; None for as many as it has cores, but one.
    """

    def __init__(self, through: DictConfig, size: int, memory_gb: float, threads: int | None):
        for name, value in (("size", size), ("memory_gb", memory_gb), ("threads", 1 if threads is None else threads)):
            if not isinstance(value, (int, float)) or not value > 0:
                raise UsageError(f"hydra.launcher.{name}={value} is no size: expected a positive number")
        self.through = through
        self.size = int(size)
        self.memory_gb = memory_gb
        self.threads = None if threads is None else int(threads)
        self.composed: Mapping[str, compose.Composed] = {}
        """The configuration of every cell by its name, which the sweeper has composed."""

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
        stacks: dict[str, list[dict[str, Any]]] = {}
        words = [[w for w in job if not w.startswith(SUBDIR)] for job in job_overrides]
        where = Path(self.config.hydra.sweep.dir).absolute()
        folders = [next(where / w.removeprefix(SUBDIR) for w in job if w.startswith(SUBDIR)) for job in job_overrides]
        for own, folder in zip(words, folders, strict=True):
            config, choices = self.composed[folder.name]
            about = {"folder": str(folder), "overrides": own, "config": config, "choices": choices}
            stacks.setdefault(self._shape(config), []).append(about)
        parts = [cells[i : i + self.size] for cells in stacks.values() for i in range(0, len(cells), self.size)]
        log.info("%d cells in %d stacks", len(job_overrides), len(parts))
        jobs = self.launcher.launch([self._job(part, where) for part in parts], initial_job_idx)
        for part, job in zip(parts, jobs, strict=False):  # none of a launcher that leaves it to others to say anything
            if error := failure(job):
                for cell in part:
                    settle(Path(cell["folder"]), cell["overrides"], error)
        return []

    def _shape(self, config: Mapping[str, Any]) -> str:
        from pde_train.runs.stack import shape

        return shape(config)

    def _job(self, cells: Sequence[Mapping[str, Any]], where: Path) -> list[str]:
        """Write down the cells of a job; the words that make it."""
        name = hashlib.sha256("".join(cell["folder"] for cell in cells).encode()).hexdigest()[:12]
        file = where / STACKS / name / "stack.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        about = {"memory_gb": self.memory_gb, "threads": self.threads, "cells": list(cells)}
        file.write_text(json.dumps(about, indent=1) + "\n")
        return [*cells[0]["overrides"], f"{SUBDIR}{STACKS}/{name}", f"sweep.stack={compose.quoted(file)}"]
