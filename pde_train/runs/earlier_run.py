"""Whether a run may have a folder, and what becomes of what an earlier one left there."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import yaml

from pde_train.errors import UsageError
from pde_train.run_folder import CELLS, CHECKPOINT, MARK, WRITTEN, Status, clear
from pde_train.runs import provenance
from pde_train.runs.result import Result
from pde_train.training import checkpoint

log = logging.getLogger(__name__)


class Resume(Enum):
    """Whether a run goes on with what an earlier one left in its folder."""

    NEVER = "never"
    """What lies there is cleared away."""
    WHERE_POSSIBLE = "where possible"
    """It goes on where there is something."""
    REQUIRED = "required"
    """There must be something."""


def check_folder(folder: Path, resume: Resume) -> None:
    """Refuse a folder with files that no run of ours wrote, and to resume where there is no run; writes nothing.

    Args:
        folder: Of the run.
        resume: Whether there must be a run.

    Raises:
        UsageError: The folder cannot be used.
    """
    if (folder / MARK).exists():
        return
    if resume is Resume.REQUIRED:
        raise UsageError(
            f"{folder} holds no run to resume: expected the folder of an interrupted run, correct hydra.run.dir or "
            "leave out resume=true"
        )
    if foreign := [name for name in WRITTEN if (folder / name).exists()]:
        raise UsageError(
            f"{folder} holds {', '.join(foreign)} of no run: expected a folder of its own for the run, which would "
            "overwrite them, choose another hydra.run.dir"
        )


def take_folder(folder: Path, resume: Resume, config: Mapping[str, Any], config_hash: str) -> None:
    """Make a folder that of a run: what lies there is cleared away, or the run goes on with it.

    Args:
        folder: Of the run.
        resume: Whether to go on with what lies there.
        config: The configuration of the run.
        config_hash: Its hash, which marks the folder from now on.

    Raises:
        UsageError: The folder holds this run, interrupted, and it is not to go on; or a run of another configuration;
            or the source of a user's module is another one than when a cell was named by it.
    """
    own = config["trusted_modules"]
    if own and folder.parent.name == CELLS and folder.name != config_hash:
        raise UsageError(
            f"the source of {', '.join(own)} has changed since {folder.name} "
            "was named by it: expected the same source from the launch of a sweep to its end, launch it again"
        )
    mark = folder / MARK
    if resume is Resume.NEVER:
        if mark.exists() and mark.read_text() == config_hash and _is_interrupted(folder):
            raise UsageError(
                f"{folder} holds this run, interrupted: expected resume=true to go on with it, or another "
                "folder (hydra.run.dir) to begin anew"
            )
        clear(folder)
    elif mark.exists() and (earlier := mark.read_text()) != config_hash:
        steps = _steps_before(folder, config, earlier)
        if steps is None:
            raise UsageError(
                f"{folder} holds a run of another configuration ({earlier}, not {config_hash}): expected the "
                "same choices, or the same with more method.steps, resume with them or choose another hydra.run.dir"
            )
        log.info("the run of %d steps in %s goes on to %d", steps, folder, config["method"]["steps"])
        if (folder / CHECKPOINT).exists():
            checkpoint.adopt(folder / CHECKPOINT, config_hash)
    mark.write_text(config_hash)


def _is_interrupted(folder: Path) -> bool:
    """Whether a folder holds a checkpoint of a run that has not ended."""
    result = Result.read(folder)
    ended = result is not None and result.status is not Status.INTERRUPTED
    return (folder / CHECKPOINT).exists() and not ended


def _steps_before(folder: Path, config: Mapping[str, Any], earlier: str) -> int | None:
    """The steps of the run in a folder, where it is this run with fewer of them.

    Args:
        folder: Of the run.
        config: The configuration of this run.
        earlier: The hash of the run in the folder.

    Returns:
        The steps; None where the runs differ in more than their number.
    """
    file = folder / "config.yaml"
    old = yaml.safe_load(file.read_text()) if file.exists() else {}
    steps, wanted = (c.get("method", {}).get("steps") for c in (old, config))
    if not (isinstance(steps, int) and isinstance(wanted, int) and steps < wanted):
        return None
    shorter = {**config, "method": {**config["method"], "steps": steps}}
    return steps if provenance.config_hash(shorter) == earlier else None
