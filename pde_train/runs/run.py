"""The life of a run: one context manager, from its folder to its result.

    with Run.open(folder) as run:
        result = run.fit(build(cfg))

While the context lasts no other process works in the folder. However it ends, ``result.json`` says how, the tracking
store is told, and what was measured is kept; an error leaves the context as one sentence. Runs that train together are
opened side by side (`pde_train.runs.stack`).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from pde_train.diagnostics.interval import intervals
from pde_train.errors import Busy, Interrupted, PdeTrainError, Pruned, RunError, UsageError, sentence
from pde_train.experiment import Experiment, build
from pde_train.geometry import Batch
from pde_train.overrides import Overrides
from pde_train.progress import waiting
from pde_train.run_folder import CHECKPOINT, RESULT_FILE, Status, lock
from pde_train.runs import artifacts, flags, provenance
from pde_train.runs.earlier_run import Resume, check_folder, take_folder
from pde_train.runs.result import Result
from pde_train.tracking.base import drained
from pde_train.tracking.record import Record
from pde_train.training.signals import StopSignals

NOT_OF_THE_RUN = ("resume", "tracking.uri", "sweep")
"""Overrides that are no part of what was run, name it only, or may hide a password."""

INTERRUPTIONS = (Interrupted, KeyboardInterrupt, SystemExit)
"""What ends a run that may go on later."""

log = logging.getLogger(__name__)


class Run:
    """One run in its folder, made by `Run.open`.

    Attributes:
        folder: Where everything is kept.
        overrides: The words that made it.
        experiment: What is run, once it has begun.
        record: What has been measured, once it has begun.
        result: How the run ended, once it has.
    """

    experiment: Experiment
    record: Record

    def __init__(
        self,
        folder: Path,
        choices: Mapping[str, str],
        overrides: Sequence[str],
        resume: Resume,
        figures: bool,
    ):
        self.folder = folder
        self.result: Result | None = None
        self._resume = resume
        self._figures = figures
        self._began: float | None = None
        self.overrides = Overrides.parse(overrides).without(*NOT_OF_THE_RUN)
        self._description: dict[str, Any] = {
            "overrides": self.overrides.words,
            "choices": dict(choices),
            "versions": provenance.versions(),
        }

    @classmethod
    @contextmanager
    def open(
        cls,
        folder: Path,
        choices: Mapping[str, str] | None = None,
        overrides: Sequence[str] = (),
        resume: Resume = Resume.NEVER,
        figures: bool = True,
        drains: bool = True,
    ) -> Iterator[Run]:
        """A run in a folder, which is this process's alone while the context lasts.

        Args:
            folder: Of the run; it is made where it does not exist.
            choices: The choice of every configuration group, kept as tags.
            overrides: The words of the command, kept in the result.
            resume: Whether to go on with what lies there.
            figures: Whether to draw the figures of the run.
            drains: Whether to wait at the end until the tracking store has everything.

        Yields:
            The run, which `fit` begins, trains and ends.

        Raises:
            Busy: Another process works in the folder.
            UsageError: The folder holds other files, or nothing to resume.
            PdeTrainError: What went wrong inside, as one sentence.
        """
        with lock(folder) as mine:
            if not mine:
                raise Busy(folder)
            check_folder(folder, resume)
            run = cls(folder, choices or {}, overrides, resume, figures)
            try:
                yield run
            except BaseException as error:  # however a run ends, its result says so
                told = run.fail(error)
                if told is error:
                    raise
                raise told from error
            finally:
                if drains and run._began is not None:
                    run.drain()

    def drain(self) -> None:
        """Wait until the tracking store has everything of this run, and of those begun before it, or is away."""
        with waiting("delivering to the tracking store"):
            drained(self.experiment.tracker)

    def fit(self, experiment: Experiment) -> Result:
        """Begin, find the parameters by the experiment's method, and end; a run that had ended is not run again."""
        if self.begin(experiment):
            self.train()
        assert self.result is not None
        return self.result

    def begin(self, experiment: Experiment) -> bool:
        """Make the folder ready and open the run in the tracking store.

        Args:
            experiment: What to run.

        Returns:
            False where the folder holds the same run, finished: `result` is then that run's.

        Raises:
            UsageError: The folder holds a run of another configuration, or a user's module has changed.
        """
        config_hash = provenance.config_hash(experiment.config)
        self._description |= {"config_hash": config_hash, "entropy": experiment.config["entropy"]}
        take_folder(self.folder, self._resume, experiment.config, config_hash)
        result = Result.read(self.folder)
        if result is not None and result.is_finished and result.config_hash == config_hash:
            log.info("%s holds this run, finished: nothing to resume", self.folder)
            self.result = result
            return False
        self.experiment = experiment
        if experiment.parent is None:  # a sweep has prepared the store
            with waiting("opening the tracking store"):
                experiment.tracker.prepare()
        self._began = time.perf_counter()
        self.record = Record(experiment.tracker, experiment.entropy, config_hash)
        tags = {
            **self._description["choices"],
            "config_hash": config_hash,
            "differentiator_label": experiment.problem.differentiator.label,
            "precision": experiment.precision,
            "order": str(experiment.problem.pde.order),
            "dimension": str(experiment.problem.pde.domain.dimension),
            "git_commit": provenance.git_commit(),
            "machine": provenance.machine(),
            **{f"version.{k}": v for k, v in provenance.versions().items()},
        }
        choices = self._description["choices"]
        tags |= provenance.targets(experiment.config)
        params = provenance.parameters(experiment.config, choices)
        name = experiment.name or provenance.name_of(choices)
        experiment.tracker.start(name, self.folder, params, tags, experiment.parent)
        return True

    def train(self) -> None:
        """Find the parameters of a run that has begun by its experiment's method, and finish it."""
        of = self.experiment
        torch.manual_seed(of.config["seed"])  # of the directions of differentiator=stochastic, whatever was built since
        self.finish(*of.method.fit(of.problem, self.record, of.diagnostics, self.folder))

    def finish(self, steps: int, batch: Batch) -> None:
        """Measure what a fit has come to, and keep everything.

        Args:
            steps: Optimiser steps that were taken.
            batch: The last training points.
        """
        assert self._began is not None
        problem, record, audit = self.experiment.problem, self.record, self.experiment.audit
        if problem.excess > 1:
            record.log(steps, {"differentiator/excess": problem.excess})
        residuals = {"residual_exact": problem.residual_exact(), "residual_held_out": problem.residual_held_out()}
        record.log(steps, {"steps": steps, **residuals, **problem.errors()})
        record.log(steps, audit.metrics(problem, batch, record.last()["residual"]) | intervals(problem, batch))
        self._raise_flags(steps)
        record.log(steps, {"seconds_total": time.perf_counter() - self._began})
        files = self._written()
        self.experiment.tracker.renew(record.final_spectrum())  # a run that goes on to more steps has had one
        curves = {"loss": record.thinned("loss")}
        result = Result(
            Status.FINISHED,
            metrics=record.last(),
            notes=record.tags,
            curves=curves,
            comparison=artifacts.numbers(record),
            **self._description,
        )
        result.write(self.folder)
        self.result = result
        self._close(Status.FINISHED, [*files, self.folder / RESULT_FILE])

    def fail(self, error: BaseException) -> BaseException:
        """Keep how a run ended that did not finish, and what it had measured; nothing where it has ended already.

        What is refused before it has begun changes nothing of what an earlier run left in the folder: that may go on. A
        cell of a sweep is then interrupted, for a reason.

        Returns:
            The error to raise: a sentence, or an interruption.
        """
        told = error if isinstance(error, INTERRUPTIONS) else self._sentence(error)
        if self.result is not None:
            return told
        status = Status.INTERRUPTED if isinstance(error, INTERRUPTIONS) else Status.FAILED
        if isinstance(error, Pruned):
            status, self._figures = Status.PRUNED, False  # to save time is why it ends
        if self._began is None and any((self.folder / name).exists() for name in (RESULT_FILE, CHECKPOINT)):
            if self._resume is not Resume.WHERE_POSSIBLE or (self.folder / RESULT_FILE).exists():
                return told
            status = Status.INTERRUPTED
        why = str(told) if isinstance(told, PdeTrainError) else "stopped by a signal"
        result = Result(status, error=why, **self._description)
        self._keep(result)  # first, whatever else goes wrong
        if self._began is None:
            return told
        if isinstance(told, UsageError) and not self.record.series:
            self.experiment.tracker.discard()
            return told
        files: list[Path] = []
        with contextlib.suppress(Exception):  # a second failure must not hide the first
            files = self._written()
        self._close(status, [*files, self.folder / RESULT_FILE])
        return told

    def _raise_flags(self, steps: int) -> None:
        """Say what a reader must know of the numbers: in the log, as metrics `flag/...`, and as the tag `flags`."""
        experiment, losses = self.experiment, self.record.series.get("loss", {})
        same = len(losses) > 1 and "weighting" not in self.record.tags  # other weights make another loss
        first_loss = losses[min(losses)] if same else None
        exact = experiment.problem.differentiator.exact
        facts = flags.Facts(self.record.last(), first_loss, experiment.audit.factor, exact, experiment.precision)
        raised = flags.raised(facts)
        for name, why in raised.items():
            log.warning("%s: %s", name, why)
        self.record.log(steps, {f"flag/{name}": float(name in raised) for name in flags.NAMES})
        self.record.tags["flags"] = ", ".join(raised) or "none"

    def _written(self) -> list[Path]:
        of, choices = self.experiment, self._description["choices"]
        heading = artifacts.heading_of(of.problem, choices, of.config["seed"]) if self._figures else None
        return artifacts.write(self.folder, of.config, of.problem, self.record, of.entropy, heading)

    def _keep(self, result: Result) -> None:
        self.result = result
        with contextlib.suppress(OSError):  # the disk may be full: the sentence about it comes first
            result.write(self.folder)

    def _close(self, status: Status, files: list[Path]) -> None:
        """Tell the tracking store the rest; what goes wrong there changes nothing of how the run has ended."""
        tracker = self.experiment.tracker
        try:
            self.record.flush(last=True)
            tracker.tags(self.record.tags_of_store())
            tracker.artifacts([*files, *self.folder.glob("*.log")])
            tracker.finish(status)
        except Exception as error:  # no store may change how a run ended
            log.error("the tracking store is not told how %s ended: %s", self.folder, sentence(error))

    def _sentence(self, error: BaseException) -> PdeTrainError:
        if isinstance(error, PdeTrainError):
            return error
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return RunError(
                f"no space left on the disk of {self.folder}: expected room for checkpoints and results, free some and "
                f"run again with resume=true hydra.run.dir={self.folder}"
            )
        with contextlib.suppress(OSError):
            (self.folder / "traceback.txt").write_text("".join(traceback.format_exception(error)))
        return RunError(
            f"{type(error).__name__}: {str(error).strip() or 'no message'} (traceback in {self.folder}/traceback.txt)"
        )


def run(experiment: Experiment, folder: Path, choices: Mapping[str, str] | None = None) -> Record:
    """Run an experiment in a folder, going on with what an interrupted run left there.

    Args:
        experiment: What to run.
        folder: Where to keep everything.
        choices: The choice of every configuration group, kept as tags.

    Returns:
        Everything that was measured.
    """
    with Run.open(folder, choices, resume=Resume.WHERE_POSSIBLE) as current:
        current.fit(experiment)
    return current.record


def run_config(
    cfg: DictConfig, folder: Path, choices: Mapping[str, str], overrides: Sequence[str], of_a_sweep: bool = False
) -> Result:
    """Build and run a composed configuration.

    Args:
        cfg: The configuration; its key ``resume`` asks for what an interrupted run left in `folder`, and
            ``figures=false`` for no figures.
        folder: Where to keep everything.
        choices: The choice of every configuration group.
        overrides: The words of the command.
        of_a_sweep: Go on with what lies in `folder` where there is anything.

    Returns:
        The result, also of a run that had finished before.

    Raises:
        PdeTrainError: One sentence about what went wrong, which the result holds, too.
    """
    required = cfg.get("resume") is True
    resume = Resume.REQUIRED if required else Resume.WHERE_POSSIBLE if of_a_sweep else Resume.NEVER
    try:
        with Run.open(folder, choices, overrides, resume, figures=cfg.get("figures") is not False) as current:
            with waiting("loading libraries"):
                experiment = build(cfg)
            return current.fit(experiment)
    finally:  # however the run has ended, its result says so
        if of_a_sweep:
            StopSignals.answer()
