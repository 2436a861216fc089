"""The composition root: the only place that turns configuration into objects, and runs them."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from threadpoolctl import threadpool_limits

from pde_train import schema
from pde_train.diagnostics.audit import Audit
from pde_train.diagnostics.base import Diagnostics
from pde_train.entropy import Entropy
from pde_train.errors import Interrupted, UsageError
from pde_train.geometry import Batch
from pde_train.instantiate import build_group
from pde_train.methods.base import Method
from pde_train.models.base import smoothness_of
from pde_train.problem import Problem, fitted
from pde_train.progress import waiting
from pde_train.runs import artifacts, flags, provenance
from pde_train.tracking.base import PARENT, Tracker, drained
from pde_train.tracking.record import Record

PRECISIONS = {"float64": torch.float64, "float32": torch.float32}

LEAST_LIMIT = 8
"""Threads, or processes, that every machine may be asked for, however few processors it has."""

log = logging.getLogger(__name__)

INTERRUPTIONS = (Interrupted, KeyboardInterrupt, SystemExit)
"""What ends a run that may go on later."""


@dataclass(frozen=True)
class Experiment:
    """Everything of one run, built and checked."""

    name: str
    problem: Problem
    method: Method
    diagnostics: Diagnostics
    entropy: Entropy
    audit: Audit
    tracker: Tracker
    config: Mapping[str, Any]

    @property
    def config_hash(self) -> str:
        """Names what decides the numbers of this run, see `provenance.config_hash`."""
        return provenance.config_hash(self.config)


def build(cfg: DictConfig) -> Experiment:
    """Instantiate a composed configuration; facts (dimension, spacing, precision) are passed on in code.

    Raises UsageError for whatever no run can use: see `schema.check`, and the constructors.
    """
    schema.check(cfg)
    dtype, device, processes = _place(cfg)
    torch.manual_seed(cfg.seed)  # of the directions of differentiator=stochastic
    pde = build_group(cfg, "pde")
    pde.check()
    sampler = build_group(cfg, "sampler")
    model = build_group(cfg, "model", dimension=pde.domain.dimension).to(device=device, dtype=dtype)
    smoothness = smoothness_of(model)
    if pde.order > smoothness:
        raise UsageError(
            f"model.activation={cfg.model.get('activation')} has useful derivatives up to order {smoothness}, and "
            f"{type(pde).__name__} needs order {pde.order}: choose a smooth activation such as tanh, sin or gelu"
        )
    differentiator = fitted(build_group(cfg, "differentiator"), pde, sampler)
    if differentiator.reach > min(pde.domain.lengths):
        raise UsageError(
            f"{type(differentiator).__name__} evaluates u at a distance of {differentiator.reach:g}, and the shortest "
            f"side of the domain is {min(pde.domain.lengths):g}: expected a smaller differentiator.step or radius"
        )
    method = build_group(cfg, "method")
    diagnostics = build_group(cfg, "diagnostics")
    diagnostics.check_steps(method.total_steps)
    if processes > 1 and not method.shares_points:
        raise UsageError(
            f"{type(method).__name__} works in one process, and accelerator.processes={processes} were asked for: "
            "expected one, choose accelerator=cpu or gpu, or method=gradient_descent"
        )
    return Experiment(
        name=str(cfg.name),
        problem=Problem(pde, model, differentiator, sampler, dtype, device, processes),
        method=method,
        diagnostics=diagnostics,
        entropy=build_group(cfg, "entropy"),
        audit=build_group(cfg, "audit") if cfg.audit is not None else Audit(None),
        tracker=build_group(cfg, "tracking"),
        config=_public(OmegaConf.to_container(cfg, resolve=True)),  # type: ignore[arg-type]
    )


class Run:
    """An experiment at work in a folder: what it measures is kept there and in its tracking store.

    Opened by making it, closed by `finish` or `stop`; where its figures would take longer than itself, without them.
    """

    def __init__(self, experiment: Experiment, folder: Path, choices: Mapping[str, str], figures: bool = True):
        folder.mkdir(parents=True, exist_ok=True)
        self.experiment = experiment
        self.folder = folder
        self.figures = figures
        self.began = time.perf_counter()
        self.record = Record(experiment.tracker, experiment.entropy, experiment.config_hash)
        tags = {
            **choices,
            "config_hash": experiment.config_hash,
            "differentiator_label": experiment.problem.differentiator.label,
            "precision": str(experiment.problem.dtype).removeprefix("torch."),
            "order": str(experiment.problem.pde.order),
            "dimension": str(experiment.problem.pde.domain.dimension),
            "git_commit": provenance.git_commit(),
            "machine": provenance.machine(),
            **{f"version.{k}": v for k, v in provenance.versions().items()},
        }
        experiment.tracker.start(experiment.name, folder, provenance.flattened(experiment.config), tags)

    def finish(self, steps: int, batch: Batch) -> None:
        """Measure what a fit has come to, after so many steps and on its last points, and keep everything."""
        problem, record = self.experiment.problem, self.record
        if problem.excess > 1:
            record.log(steps, {"differentiator/excess": problem.excess})
        record.log(steps, {"steps": steps, "residual_exact": problem.residual_exact(), **problem.errors()})
        record.log(steps, self.experiment.audit.metrics(problem, batch, record.last()["residual"]))
        self._raise_flags(steps)
        record.log(steps, {"seconds_total": time.perf_counter() - self.began})
        files = self._written()
        self.experiment.tracker.metrics(record.final_spectrum())
        self._close("finished", files)

    def _raise_flags(self, steps: int) -> None:
        """Say what a reader must know of the numbers: in the log, as metrics `flag/...`, and as the tag `flags`."""
        at, losses = self.experiment, self.record.series.get("loss", {})
        first_loss = losses[min(losses)] if len(losses) > 1 else None
        precision = str(at.problem.dtype).removeprefix("torch.")
        exact = at.problem.differentiator.exact
        found = flags.raised(self.record.last(), first_loss, at.audit.factor, exact, precision)
        for name, why in found.items():
            log.warning("%s: %s", name, why)
        self.record.log(steps, {f"flag/{name}": float(name in found) for name in flags.NAMES})
        self.record.tags["flags"] = ", ".join(found) or "none"

    def stop(self, error: BaseException) -> None:
        """Keep what there is of a run that was interrupted, or failed."""
        files: list[Path] = []
        with contextlib.suppress(Exception):  # a second failure must not hide the first
            files = self._written()
        self._close("interrupted" if isinstance(error, INTERRUPTIONS) else "failed", files)

    def _written(self) -> list[Path]:
        at = self.experiment
        return artifacts.write(self.folder, at.config, at.problem, self.record, at.entropy, self.figures)

    def _close(self, status: str, files: list[Path]) -> None:
        self.record.flush()
        tracker = self.experiment.tracker
        tracker.tags(self.record.tags)
        tracker.artifacts(files)
        tracker.finish(status)


def run(experiment: Experiment, folder: Path, choices: Mapping[str, str] | None = None) -> Record:
    """Fit, measure and keep everything: in `folder`, and in the experiment's tracking store.

    choices: the group choices by name, kept as tags. A checkpoint that lies in `folder` is taken up.
    """
    if PARENT not in os.environ:  # a sweep has prepared the store
        with waiting("opening the tracking store"):
            experiment.tracker.prepare()
    current = Run(experiment, folder, choices or {})
    try:
        current.finish(*experiment.method.fit(experiment.problem, current.record, experiment.diagnostics, folder))
    except BaseException as error:
        current.stop(error)
        raise
    finally:
        with waiting("delivering to the tracking store"):
            drained(experiment.tracker)
    return current.record


def _place(cfg: DictConfig) -> tuple[torch.dtype, str, int]:
    """Precision, device and number of processes."""
    at = cfg.accelerator
    precision, accelerator, threads, processes = at.precision, at.accelerator, at.threads, at.get("processes", 1)
    if accelerator == "gpu" and not torch.cuda.is_available():
        raise UsageError("accelerator=gpu was asked for and torch sees no GPU: expected one, choose accelerator=cpu")
    for name, number in (("threads", threads), ("processes", processes)):
        if number > max(LEAST_LIMIT, os.cpu_count() or 1):
            raise UsageError(
                f"accelerator.{name}={number} is more than this machine has processors, {os.cpu_count()}: expected at "
                "most as many, choose fewer"
            )
    if accelerator == "gpu" and processes > torch.cuda.device_count():
        raise UsageError(
            f"accelerator.processes={processes} needs a GPU each, and torch sees {torch.cuda.device_count()}: expected "
            "at most as many, choose fewer"
        )
    torch.set_num_threads(threads)
    threadpool_limits(threads, "blas")  # of numpy: two threads on a busy machine wait for each other
    return PRECISIONS[precision], "cuda" if accelerator == "gpu" else "cpu", processes


def _public(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration without the tracking uri, which may hide a password."""
    tracking = {k: v for k, v in config["tracking"].items() if k != "uri"}
    return {**config, "tracking": tracking}
