"""The job in which cells of one shape train as one, each a run of its own."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import resource
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
from omegaconf import DictConfig, OmegaConf

from pde_train.errors import PdeTrainError, sentence
from pde_train.experiment import INTERRUPTIONS, Experiment, Run, build
from pde_train.geometry import Batch
from pde_train.instantiate import locate
from pde_train.pdes.base import PDE
from pde_train.run_folder import claim
from pde_train.runs import provenance
from pde_train.runs.result import Result
from pde_train.runs.run import Attempt
from pde_train.tracking.base import drained

NUMBERS = {
    "": ("seed", "audit"),
    "model": ("seed", "weight_range"),
    "sampler": ("seed",),
    "optimizer": ("lr", "betas", "eps"),
    "pde": ("weights",),
}
"""What may differ in a stack, by group; of a PDE also its fields that are `float`, and a step that is a number."""

MOST = 4096
"""Cells that are claimed at the same time, however many files may be open."""

RESERVED = 128
"""Files that a process opens for other things: libraries, logs, pipes, checkpoints."""

log = logging.getLogger(__name__)


def shape(config: Mapping[str, Any]) -> str:
    """Names what cells must share to be stacked: all of their configuration but NUMBERS."""
    kept = {key: dict(value) if isinstance(value, Mapping) else value for key, value in config.items()}
    kept["method"].pop("optimizer", None)  # it stands in its own group
    for group, names in NUMBERS.items():
        node = kept[group] if group else kept
        for name in names:
            node.pop(name, None)
    pde = locate(config["pde"]["_target_"], tuple(config["trusted_modules"]), "pde")
    varied = pde.number_fields() if isinstance(pde, type) and issubclass(pde, PDE) else []  # it may be a function
    for name in varied:
        kept["pde"].pop(name, None)
    step = kept["differentiator"].get("step")
    if isinstance(step, (int, float)):
        kept["differentiator"]["step"] = "a number"
    return provenance.config_hash(kept)


def train(file: Path, job: DictConfig) -> str:
    """Train the cells that a launcher wrote to a file; `finished`, or `failed` where one of them was not.

    Cells that another process is at work on are left to it.

    job: the configuration of the job, of which every cell takes the tracking store.
    """
    about = json.loads(file.read_text())
    cells = about["cells"]
    most = most_at_once()
    parts = [cells[start : start + most] for start in range(0, len(cells), most)]
    failed = [_train(part, about, job) for part in parts]
    status = "failed" if any(failed) else "finished"
    Result(status, notes={"cells": str(len(cells))}).write(file.parent)
    return status


def most_at_once() -> int:
    """How many cells may be claimed at the same time, each of which holds a file open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    if soft == resource.RLIM_INFINITY:
        return MOST
    return max(1, min(MOST, soft - len(list(Path("/dev/fd").iterdir())) - RESERVED))


def _train(abouts: Sequence[Mapping[str, Any]], stack: Mapping[str, Any], job: DictConfig) -> bool:
    """Train some cells of a stack; whether one of them failed. What is raised meanwhile is their result."""
    with contextlib.ExitStack() as claims:
        cells = [_Cell(about, job) for about in abouts if claims.enter_context(claim(Path(about["folder"])))]
        open_cells = [cell for cell in cells if cell.open(cells[0])]
        try:
            _fit(open_cells, stack["memory_gb"] * 1e9, stack["threads"] or threads())
        except BaseException as error:
            for cell in open_cells:
                cell.stop(error)
            if isinstance(error, INTERRUPTIONS):
                raise
        finally:
            started = [cell for cell in cells if cell.experiment is not None]
            if started:
                drained(started[0].tracker, [cell.folder for cell in started])
    return any(cell.failed for cell in cells)


def _fit(cells: list[_Cell], memory: float, threads: int) -> None:
    """Train what can be stacked as one, and the others one by one."""
    methods = {type(cell.method).__name__ for cell in cells if not hasattr(cell.method, "optimizer")}
    why = f"{', '.join(methods)} takes no optimiser steps" if methods else _stack(cells, memory, threads)
    alone = [cell for cell in cells if not cell.ended]
    if alone:
        log.info("%d of %d cells train one by one: %s", len(alone), len(cells), why or "they could not begin together")
    for cell in alone:
        cell.fit()


def _stack(cells: list[_Cell], memory: float, threads: int) -> str:
    """Train as one what can be; why the others cannot."""
    from pde_train.training.stacked import CannotStack, Member, fit_stack, why_not  # with Lightning: seconds

    members = []
    why = ""
    for cell in cells:
        at = cell.run.experiment
        member = Member(cell.method, at.problem, cell.run.record, at.diagnostics, cell.folder, cell.finish, cell.stop)
        try:
            reason = why_not(member)
        except Exception as error:  # its optimiser cannot be made, for instance: it says so when it is trained alone
            reason = sentence(error)
        if reason is None:
            members.append(member)
        else:
            why = reason
    try:
        fit_stack(members, memory, threads)
    except CannotStack as error:
        why = str(error)
    return why


def threads() -> int:
    """As many as this process has processors, but one, which delivers to the tracking store meanwhile."""
    return max(1, int(os.environ.get("SLURM_CPUS_PER_TASK") or joblib.cpu_count()) - 1)


class _Cell:
    """One cell of a stack, from its configuration to its result."""

    def __init__(self, about: Mapping[str, Any], job: DictConfig):
        self.folder = Path(about["folder"])
        self.choices = about["choices"]
        self.attempt = Attempt(self.folder, self.choices, about["overrides"])
        name = (
            " ".join(self.choices[group] for group in ("pde", "model", "differentiator"))
            + about["config"]["sweep"]["label"]
        )
        self.config = OmegaConf.create(
            {**about["config"], "tracking": job.tracking, "trusted_modules": job.trusted_modules, "name": name}
        )
        self.experiment: Experiment | None = None
        self.run: Run
        self.failed = self.ended = False

    def open(self, first: _Cell) -> bool:
        """Make it ready to be trained; whether it is to be. Its tracker shares that of the first cell."""
        try:
            experiment = build(self.config)
            if first.experiment is not None:
                experiment = replace(experiment, tracker=first.tracker.sibling())
            self.experiment = experiment
            if self.attempt.take_up(experiment, resume=True) is not None:
                return False
            self.run = Run(experiment, self.folder, self.choices, figures=False)
        except Exception as error:
            self._failed(error)
            return False
        return True

    @property
    def tracker(self) -> Any:
        assert self.experiment is not None
        return self.experiment.tracker

    @property
    def method(self) -> Any:
        return self.run.experiment.method

    def fit(self) -> None:
        """Train it alone."""
        at = self.run.experiment
        try:
            self.finish(*at.method.fit(at.problem, self.run.record, at.diagnostics, self.folder))
        except INTERRUPTIONS:
            raise
        except Exception as error:
            self.stop(error)

    def finish(self, steps: int, batch: Batch) -> None:
        self.run.finish(steps, batch)
        self.attempt.finished(self.run.record)
        self.ended = True

    def stop(self, error: BaseException) -> None:
        """End it, if it has no end yet; its result comes first, whatever else goes wrong."""
        if self.ended:
            return
        self._failed(error)
        try:
            self.run.stop(error)
        except Exception as second:
            log.error("what %s has measured could not be kept: %s", self.folder, sentence(second))

    def _failed(self, error: BaseException) -> None:
        told = self.attempt.stopped(error)
        self.ended = self.failed = True
        if isinstance(told, PdeTrainError):
            log.error("%s: %s", " ".join(self.attempt.about["overrides"]), told)
