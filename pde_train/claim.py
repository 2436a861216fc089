"""One process at a time in the folder of a run."""

from __future__ import annotations

import errno
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = "lock"

NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
"""What a file system answers that has no locks: there nothing can be claimed, and nothing is refused."""


@contextmanager
def claim(folder: Path) -> Iterator[bool]:
    """Whether the folder is ours while this context lasts; it ends with the process, however that ends (flock)."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a") as file:
        yield _locked(file.fileno())


def claimed(folder: Path) -> bool:
    """Whether a process is at work in the folder; none is where there is no lock that could be opened."""
    try:
        with (folder / LOCK).open("r+") as file:
            return not _locked(file.fileno())
    except OSError:
        return False


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    return True
