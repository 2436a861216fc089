"""The composition root: the only place that turns configuration into objects, and runs them."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from pde_train import artifacts, provenance
from pde_train.audit import Audit
from pde_train.claim import claim
from pde_train.diagnostics.base import Diagnostics
from pde_train.entropy import Entropy
from pde_train.errors import Busy, Interrupted, PdeTrainError, RunError, UsageError
from pde_train.methods.base import Method
from pde_train.problem import Problem
from pde_train.progress import waiting
from pde_train.record import Record
from pde_train.results import RESULT_FILE, Result, clear
from pde_train.tracking.base import PARENT, Tracker
from pde_train.trust import build_group

PRECISIONS = {"float64": torch.float64, "float32": torch.float32}

NOT_OF_THE_RUN = ("resume=", "tracking.uri=")
"""Overrides that are no part of what was run, or may hide a password."""

log = logging.getLogger(__name__)


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
    """Instantiate a composed configuration; facts (dimension, spacing, precision) are passed on in code."""
    if not (isinstance(cfg.seed, int) and cfg.seed >= 0):
        raise UsageError(f"seed={cfg.seed} is no seed: expected an integer >= 0, such as seed=0")
    dtype, device = _place(cfg)
    torch.manual_seed(cfg.seed)  # of the directions of differentiator=stochastic
    pde = build_group(cfg, "pde")
    sampler = build_group(cfg, "sampler")
    model = build_group(cfg, "model", dimension=pde.domain.dimension).to(device=device, dtype=dtype)
    smoothness = getattr(model, "smoothness", float("inf"))
    if pde.order > smoothness:
        raise UsageError(
            f"model.activation={cfg.model.get('activation')} has useful derivatives up to order {smoothness}, and "
            f"{type(pde).__name__} needs order {pde.order}: choose a smooth activation such as tanh, sin or gelu"
        )
    differentiator = build_group(cfg, "differentiator").fitted(sampler.spacing(pde.domain))
    return Experiment(
        name=str(cfg.name),
        problem=Problem(pde, model, differentiator, sampler, dtype, device),
        method=build_group(cfg, "method"),
        diagnostics=build_group(cfg, "diagnostics"),
        entropy=build_group(cfg, "entropy"),
        audit=build_group(cfg, "audit") if cfg.audit is not None else Audit(None),
        tracker=build_group(cfg, "tracking"),
        config=_public(OmegaConf.to_container(cfg, resolve=True)),  # type: ignore[arg-type]
    )


def run(experiment: Experiment, folder: Path, choices: Mapping[str, str] | None = None) -> Record:
    """Fit, measure and keep everything: in `folder`, and in the experiment's tracking store.

    choices: the group choices by name, kept as tags. A checkpoint that lies in `folder` is taken up.
    """
    folder.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    tracker, problem = experiment.tracker, experiment.problem
    tags = {
        **(choices or {}),
        "config_hash": experiment.config_hash,
        "precision": str(problem.dtype).removeprefix("torch."),
        "git_commit": provenance.git_commit(),
        **{f"version.{k}": v for k, v in provenance.versions().items()},
    }
    if PARENT not in os.environ:  # a sweep has prepared the store
        with waiting("opening the tracking store"):
            tracker.prepare()
    tracker.start(experiment.name, folder, provenance.flattened(experiment.config), tags)
    record = Record(tracker, experiment.entropy)

    def written() -> list[Path]:
        return artifacts.write(folder, experiment.config, problem, record, experiment.entropy)

    status, files = "failed", []
    try:
        steps, batch = experiment.method.fit(problem, record, experiment.diagnostics, folder)
        record.log(steps, {"steps": steps, "residual_exact": problem.residual_exact(), **problem.errors()})
        record.log(steps, experiment.audit.metrics(problem, batch, record.last()["residual"]))
        record.log(steps, {"seconds_total": time.perf_counter() - started})
        files = written()
        tracker.metrics(record.final_spectrum())
        status = "finished"
    except (Interrupted, KeyboardInterrupt, SystemExit):
        status = "interrupted"
        raise
    finally:
        if not files:
            with contextlib.suppress(Exception):  # a second failure must not hide the first
                files = written()
        record.flush()
        tracker.tags(record.tags)
        tracker.artifacts(files)
        tracker.finish(status)
        with waiting("delivering to the tracking store"):
            tracker.drain()
    return record


def run_config(cfg: DictConfig, folder: Path, choices: Mapping[str, str], overrides: list[str]) -> Result:
    """Build and run a configuration, and write `result.json` whatever comes of it; errors are raised after that.

    cfg.resume: take up what an interrupted run of the same configuration left in `folder`.
    """
    about: dict[str, Any] = {
        "overrides": [o for o in overrides if not o.startswith(NOT_OF_THE_RUN)],
        "choices": dict(choices),
        "versions": provenance.versions(),
    }
    with claim(folder) as mine:
        if not mine:
            raise Busy(folder)
        return _run_config(cfg, folder, about)


def _run_config(cfg: DictConfig, folder: Path, about: dict[str, Any]) -> Result:
    choices = about["choices"]
    owned = not (folder / RESULT_FILE).exists()  # a resume that is refused leaves the result of the other run alone
    try:
        with waiting("loading libraries"):
            experiment = build(cfg)
        about["config_hash"] = experiment.config_hash
        about["entropy"] = experiment.config["entropy"]
        done = _take_up(folder, experiment.config_hash, cfg.resume)
        if done is not None:
            log.info("%s holds this run, finished: nothing to resume", folder)
            return done
        owned = True
        record = run(experiment, folder, choices)
        curves = {"loss": record.thinned("loss")}
        result = Result("finished", metrics=record.last(), notes=record.tags, curves=curves, **about)
        result.write(folder)
    except (Interrupted, KeyboardInterrupt, SystemExit) as stop:
        _write(
            Result("interrupted", error=str(stop) if isinstance(stop, Interrupted) else "stopped by a signal", **about),
            folder,
        )
        raise
    except Exception as error:
        sentence = _sentence(error, folder)
        if owned:
            _write(Result("failed", error=str(sentence), **about), folder)
        raise sentence from error
    return result


def _write(result: Result, folder: Path) -> None:
    with contextlib.suppress(OSError):  # the disk may be full: the sentence about it comes first
        result.write(folder)


def _place(cfg: DictConfig) -> tuple[torch.dtype, str]:
    precision, accelerator, threads = (cfg.accelerator[key] for key in ("precision", "accelerator", "threads"))
    if accelerator not in ("cpu", "gpu"):
        raise UsageError(f"accelerator.accelerator={accelerator} is unknown: expected cpu or gpu, choose one")
    if not (isinstance(threads, int) and threads >= 1):
        raise UsageError(f"accelerator.threads={threads} is no number of threads: expected a positive integer")
    if precision not in PRECISIONS:
        raise UsageError(f"accelerator.precision={precision} is unknown: expected float64 or float32, choose one")
    if accelerator == "gpu" and not torch.cuda.is_available():
        raise UsageError("accelerator=gpu was asked for and torch sees no GPU: expected one, choose accelerator=cpu")
    torch.set_num_threads(threads)
    return PRECISIONS[precision], "cuda" if accelerator == "gpu" else "cpu"


def _take_up(folder: Path, config_hash: str, resume: bool) -> Result | None:
    """Make the folder ready for a run; a resume must find the same one, and gets its result where that had ended.

    Without `resume`, what an older run left there is cleared away.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / "config_hash"
    if not resume:
        clear(folder)
    elif mark.exists() and mark.read_text() != config_hash:
        raise UsageError(
            f"{folder} holds a run of another configuration ({mark.read_text()}, not {config_hash}): expected the same "
            "choices, resume with them or choose another hydra.run.dir"
        )
    mark.write_text(config_hash)
    result = Result.read(folder)
    return result if result is not None and result.status == "finished" else None


def _sentence(error: Exception, folder: Path) -> PdeTrainError:
    if isinstance(error, PdeTrainError):
        return error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return RunError(
            f"no space left on the disk of {folder}: expected room for checkpoints and results, free some and run "
            f"again with resume=true hydra.run.dir={folder}"
        )
    with contextlib.suppress(OSError):
        (folder / "traceback.txt").write_text(traceback.format_exc())
    return RunError(
        f"{type(error).__name__}: {str(error).strip() or 'no message'} (traceback in {folder}/traceback.txt)"
    )


def _public(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration without the tracking uri, which may hide a password."""
    tracking = {k: v for k, v in config["tracking"].items() if k != "uri"}
    return {**config, "tracking": tracking}
