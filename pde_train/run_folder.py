"""The folder of a run: one process at a time in it, the names of its files, and how old ones are cleared away."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

from pde_train.errors import UsageError


class Status(StrEnum):
    """What has become of a run."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    PRUNED = "pruned"

    @property
    def is_end(self) -> bool:
        """Whether the run has ended, and left a result."""
        return self not in (Status.WAITING, Status.RUNNING)


CELLS = "cells"
"""Folder of all cells of sweeps, by their names."""

RESULT_FILE = "result.json"
CHECKPOINT = "checkpoint.ckpt"
OUTBOX = "tracking.jsonl"
SPECTRA = "spectrum.npz"
DELIVERED = "tracking.delivered"
OF_TRACKING = (OUTBOX, DELIVERED)
OF_A_RUN = (CHECKPOINT, RESULT_FILE, "spectrum.csv", SPECTRA, "comparison.csv", "traceback.txt")

FIGURES_FOLDER = "figures"
FIGURES = (
    "solution",
    "error",
    "loss_and_error",
    "singular_values",
    "entropy",
    "comparison",
    "compared_singular_values",
)
"""Names of the pictures of a run, in FIGURES_FOLDER below its folder."""

MARK = "config_hash"
"""File that says which configuration the run of a folder has, see `pde_train.runs.provenance.config_hash`."""

WRITTEN = ("config.yaml", "model.pt", "history.csv", FIGURES_FOLDER, CHECKPOINT, "spectrum.csv", SPECTRA)
"""What a run writes besides its result."""


def clear(folder: Path) -> None:
    """Remove what an older run left there; what its tracking store may not have yet moves to `earlier-1`, `-2`, ..."""
    for old in OF_A_RUN:
        (folder / old).unlink(missing_ok=True)
    for name in FIGURES:
        (folder / FIGURES_FOLDER / f"{name}.png").unlink(missing_ok=True)
    for old_view in folder.glob("entropy-*/"):
        (old_view / RESULT_FILE).unlink(missing_ok=True)
        set_aside(old_view)
    set_aside(folder)


EARLIER = "earlier-"
"""Begins the names of folders in which outboxes of earlier runs lie, below the folder of the run."""


def set_aside(folder: Path) -> None:
    """Move what a tracking store may not have yet to `earlier-1`, `-2`, ..., from where it can still be delivered."""
    kept = [folder / name for name in OF_TRACKING if (folder / name).exists()]
    if kept:
        before = [int(n) for old in folder.glob(f"{EARLIER}*") if (n := old.name.removeprefix(EARLIER)).isdigit()]
        earlier = folder / f"{EARLIER}{max(before, default=0) + 1}"
        earlier.mkdir()
        for file in kept:
            file.rename(earlier / file.name)


def written_in(folder: Path) -> Path:
    """The folder in which the outbox of a folder was written: the one around it where it was set aside."""
    return folder.parent if folder.name.startswith(EARLIER) else folder


def write_whole(file: Path, data: bytes) -> None:
    """Write a file whole or not at all, also where the machine loses power at any moment."""
    beside = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        with beside.open("wb") as opened:
            opened.write(data)
            opened.flush()
            os.fsync(opened.fileno())
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # of a file system that keeps folders in another way
            os.fsync(folder)
    finally:
        os.close(folder)


LOCK = "lock"

LOOKS, LOOK_SECONDS = 5, 0.01
"""How often a lock that another process has is tried again, and after how long."""

NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
"""What a file system answers that has no locks: there nothing can be claimed, and nothing is refused."""


@contextmanager
def lock(folder: Path) -> Iterator[bool]:
    """Whether the folder is ours while this context lasts; it ends with the process, however that ends (flock)."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a") as file:
        for seconds in (0.0, *[LOOK_SECONDS] * LOOKS):  # another process may only look whether it is locked
            time.sleep(seconds)
            if mine := _locked(file.fileno()):
                break
        yield mine


def is_locked(folder: Path) -> bool:
    """Whether a process is at work in the folder; none is where there is no lock that could be opened."""
    try:
        with (folder / LOCK).open("r+") as file:
            return not _locked(file.fileno())
    except OSError:
        return False


def take_lock(descriptor: int, wait: bool = True) -> None:
    """Lock a file for this process alone (flock).

    Args:
        descriptor: Of the open file.
        wait: Whether to wait for another process that has it.

    Raises:
        BlockingIOError: Another process has it, and it is not waited for.
        OSError: The file system has no locks.
        UsageError: The operating system has no such locks.
    """
    try:
        import fcntl
    except ImportError as error:  # derivatives and spectra of any network work without
        raise UsageError(
            f"runs need the file locks of POSIX, which {sys.platform} does not have: expected Linux or macOS, choose "
            "WSL, the Windows Subsystem for Linux"
        ) from error
    fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def _locked(descriptor: int) -> bool:
    try:
        take_lock(descriptor, wait=False)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    return True
