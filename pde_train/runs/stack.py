"""The job in which runs of one shape train together, each with a life of its own.

They are opened side by side (`pde_train.runs.run.Run`), trained by one loop, and ended one by one. What cannot train
together trains one after another.
"""

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

from pde_train.errors import Busy, PdeTrainError, sentence
from pde_train.experiment import build
from pde_train.instantiate import locate
from pde_train.pdes.base import PDE
from pde_train.run_folder import Status
from pde_train.runs import provenance
from pde_train.runs.earlier_run import Resume
from pde_train.runs.result import Result
from pde_train.runs.run import INTERRUPTIONS, Run
from pde_train.training.signals import StopSignals

NUMBERS = {
    "": ("seed", "audit"),
    "model": ("seed", "weight_range", "start"),
    "sampler": ("seed",),
    "optimizer": ("lr", "betas", "eps"),
    "pde": ("weights",),
}
"""What may differ in a stack, by group; of a PDE also its fields that are `float`, and a step that is a number."""

MOST = 4096
"""Runs that are open at the same time, however many files may be."""

RESERVED = 128
"""Files that a process opens for other things: libraries, logs, pipes, checkpoints."""

log = logging.getLogger(__name__)


def shape(config: Mapping[str, Any]) -> str:
    """Names what runs must share to train together: all of their configuration but NUMBERS."""
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


def train(file: Path, job: DictConfig) -> Status:
    """Train the runs that the launcher wrote to a file; those that another process works on are left to it.

    Args:
        file: JSON, see `pde_train.sweeps.stacked_launcher`.
        job: The configuration of the job, whose tracking store every run takes.

    Returns:
        Finished, or failed where a run was not finished.
    """
    content = json.loads(file.read_text())
    stacks, most = content["stacks"], most_at_once()
    parts = [stack[start : start + most] for stack in stacks for start in range(0, len(stack), most)]
    memory, threads = content["memory_gb"] * 1e9, content["threads"] or processors()
    begun: list[Run] = []
    try:
        failed = [_train(part, memory, threads, job, begun) for part in parts]
    finally:
        for run in begun[-1:]:  # not after every stack: the next one trains while the store takes this one's runs
            run.drain()
    status = Status.FAILED if any(failed) else Status.FINISHED
    Result(status, notes={"cells": str(sum(map(len, stacks)))}).write(file.parent)
    return status


def most_at_once() -> int:
    """How many runs may be open at the same time, each of which holds a file open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    if soft == resource.RLIM_INFINITY:
        return MOST
    return max(1, min(MOST, soft - len(list(Path("/dev/fd").iterdir())) - RESERVED))


def _train(
    described: Sequence[Mapping[str, Any]], memory: float, threads: int, job: DictConfig, begun: list[Run]
) -> bool:
    """Train some runs, which are added to `begun`; whether one failed. What is raised is the end of all that go on."""
    opened: list[Run] = []
    to_train: list[Run] = []
    try:
        with contextlib.ExitStack() as contexts:
            for description in described:
                folder = Path(description["folder"])
                context = Run.open(
                    folder,
                    description["choices"],
                    description["overrides"],
                    Resume.WHERE_POSSIBLE,
                    figures=False,
                    drains=False,
                )
                try:
                    run = contexts.enter_context(context)
                except Busy as error:
                    log.info("%s", error)
                    continue
                opened.append(run)
                try:
                    if _begins(run, description, job, begun):
                        to_train.append(run)
                        begun.append(run)
                except INTERRUPTIONS:
                    raise
                except Exception as error:  # it is the end of this run alone
                    _fail(run, error)
            _fit(to_train, memory, threads)
    except INTERRUPTIONS:
        raise
    except PdeTrainError as error:
        log.error("%s", error)
    return any(run.result is not None and run.result.status is Status.FAILED for run in opened)


def _begins(run: Run, described: Mapping[str, Any], job: DictConfig, others: Sequence[Run]) -> bool:
    """Build and begin a run, whose tracker shares that of the others; whether it is to be trained."""
    config = described["config"]
    name = run.overrides.value_of("name") or config["sweep"]["label"]
    of_the_job = {"tracking": job.tracking, "trusted_modules": job.trusted_modules, "name": name}
    experiment = build(OmegaConf.create({**config, **of_the_job}))
    if others:
        experiment = replace(experiment, tracker=others[0].experiment.tracker.sibling())
    return run.begin(experiment)


def _fit(runs: Sequence[Run], memory: float, threads: int) -> None:
    """Train together what can be, and the others one by one."""
    why = _fit_together(runs, memory, threads)
    StopSignals.answer()
    alone = [run for run in runs if run.result is None]
    if alone:
        log.info("%d of %d cells train one by one: %s", len(alone), len(runs), why or "they could not begin together")
    for run in alone:
        try:
            run.train()
        except INTERRUPTIONS:
            raise
        except Exception as error:  # it is the end of this run alone
            _fail(run, error)
        StopSignals.answer()


def _fit_together(runs: Sequence[Run], memory: float, threads: int) -> str:
    """Train together the runs that can be; why the others cannot."""
    methods = [run.experiment.method for run in runs]
    if methods and not any(method.total_steps for method in methods):  # which need not load Lightning
        return f"{type(methods[0]).__name__} trains one run after another"
    from pde_train.methods.gradient_descent import GradientDescent
    from pde_train.training.select_stacked_steps import CannotStack
    from pde_train.training.stacked import train_together, why_not
    from pde_train.training.training import Training

    why = ""
    of: dict[Training, Run] = {}
    with StopSignals() as signals:
        for run in runs:
            method, problem = run.experiment.method, run.experiment.problem
            if not isinstance(method, GradientDescent):
                why = f"{type(method).__name__} trains one run after another"
                continue
            try:
                reason = why_not(problem, method.optimizer)
                if reason is None:
                    of[method.training(problem, run.record, run.experiment.diagnostics, run.folder)] = run
                why = reason or why
            except Exception as error:  # it says so when it is trained alone
                why = sentence(error)
        try:
            train_together(
                list(of),
                signals,
                ended=lambda training: of[training].finish(training.step, training.points.batch),
                failed=lambda training, error: _fail(of[training], error),
                memory=memory,
                threads=threads,
            )
        except CannotStack as error:
            why = str(error)
    return why


def _fail(run: Run, error: Exception) -> None:
    told = run.fail(error)
    log.error("%s: %s", run.overrides, told)


def processors() -> int:
    """As many as this process has, but one, which delivers to the tracking store meanwhile."""
    return max(1, int(os.environ.get("SLURM_CPUS_PER_TASK") or joblib.cpu_count()) - 1)
