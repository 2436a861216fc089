"""One run in its folder, from a composed configuration to its result."""

from __future__ import annotations

import contextlib
import errno
import logging
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from pde_train.errors import Busy, Interrupted, PdeTrainError, RunError, UsageError
from pde_train.experiment import INTERRUPTIONS, Experiment, build, run
from pde_train.progress import waiting
from pde_train.run_folder import CELLS, MARK, RESULT_FILE, WRITTEN, claim, clear
from pde_train.runs import provenance
from pde_train.runs.result import Result
from pde_train.tracking.record import Record

NOT_OF_THE_RUN = ("resume=", "tracking.uri=", "sweep.label=")
"""Overrides that are no part of what was run, name it only, or may hide a password."""

log = logging.getLogger(__name__)


def run_config(
    cfg: DictConfig, folder: Path, choices: Mapping[str, str], overrides: Sequence[str], of_a_sweep: bool = False
) -> Result:
    """Build and run a configuration, and write `result.json` whatever comes of it; errors are raised after that.

    cfg.resume: take up what an interrupted run of the same configuration left in `folder`. of_a_sweep: take it up where
    there is any.
    """
    with claim(folder) as mine:
        if not mine:
            raise Busy(folder)
        _check_folder(folder, cfg.get("resume") is True)
        attempt = Attempt(folder, choices, overrides)
        try:
            with waiting("loading libraries"):
                experiment = build(cfg)
            done = attempt.take_up(experiment, cfg.resume or of_a_sweep)
            return done or attempt.finished(run(experiment, folder, choices))
        except BaseException as error:
            told = attempt.stopped(error)
            if told is error:
                raise
            raise told from error


def _check_folder(folder: Path, resume: bool) -> None:
    """Refuse a folder with files that no run of ours wrote, and to resume where there is no run; writes nothing.

    Raises UsageError.
    """
    if (folder / MARK).exists():
        return
    if resume:
        raise UsageError(
            f"{folder} holds no run to resume: expected the folder of an interrupted run, correct hydra.run.dir or "
            "leave out resume=true"
        )
    if foreign := [name for name in WRITTEN if (folder / name).exists()]:
        raise UsageError(
            f"{folder} holds {', '.join(foreign)} of no run: expected a folder of its own for the run, which would "
            "overwrite them, choose another hydra.run.dir"
        )


class Attempt:
    """What becomes of a run: `result.json` says so, whatever it is."""

    def __init__(self, folder: Path, choices: Mapping[str, str], overrides: Sequence[str]):
        self.folder = folder
        self.about: dict[str, Any] = {
            "overrides": [o for o in overrides if not o.startswith(NOT_OF_THE_RUN)],
            "choices": dict(choices),
            "versions": provenance.versions(),
        }
        self.owned = not (folder / RESULT_FILE).exists()  # a resume that is refused leaves another run's result alone

    def take_up(self, experiment: Experiment, resume: bool) -> Result | None:
        """Make the folder ready for a run; a resume must find the same one, and gets its result where that had ended.

        Without `resume`, what an older run left there is cleared away.
        """
        self.about |= {"config_hash": experiment.config_hash, "entropy": experiment.config["entropy"]}
        own = experiment.config["trusted_modules"]
        if own and self.folder.parent.name == CELLS and self.folder.name != experiment.config_hash:
            raise UsageError(
                f"the source of {', '.join(own)} has changed since {self.folder.name} "
                "was named by it: expected the same source from the launch of a sweep to its end, launch it again"
            )
        mark = self.folder / MARK
        if not resume:
            clear(self.folder)
        elif mark.exists() and mark.read_text() != experiment.config_hash:
            raise UsageError(
                f"{self.folder} holds a run of another configuration ({mark.read_text()}, not "
                f"{experiment.config_hash}): expected the same choices, resume with them or choose another "
                "hydra.run.dir"
            )
        mark.write_text(experiment.config_hash)
        result = Result.read(self.folder)
        if result is not None and result.status == "finished":
            log.info("%s holds this run, finished: nothing to resume", self.folder)
            return result
        self.owned = True
        return None

    def finished(self, record: Record) -> Result:
        """The result of a run that has ended well."""
        curves = {"loss": record.thinned("loss")}
        result = Result("finished", metrics=record.last(), notes=record.tags, curves=curves, **self.about)
        result.write(self.folder)
        return result

    def stopped(self, error: BaseException) -> BaseException:
        """Keep how a run ended otherwise; the error to raise, which is a sentence or an interruption."""
        if isinstance(error, INTERRUPTIONS):
            why = str(error) if isinstance(error, Interrupted) else "stopped by a signal"
            self._write(Result("interrupted", error=why, **self.about))
            return error
        told = self._sentence(error)
        if self.owned:
            self._write(Result("failed", error=str(told), **self.about))
        return told

    def _write(self, result: Result) -> None:
        with contextlib.suppress(OSError):  # the disk may be full: the sentence about it comes first
            result.write(self.folder)

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
