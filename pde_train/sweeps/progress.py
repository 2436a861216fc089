"""How far a sweep has come, said while its cells are trained: on every launcher, by what lies in their folders."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pde_train.run_folder import Status
from pde_train.sweeps.grid import Cell

SECONDS = 10.0
"""Between two looks at the cells."""

SHARE = 0.02
"""The largest part of the time that looking may take: many folders on a slow file system are looked at less often."""

log = logging.getLogger(__name__)


@contextmanager
def said(cells: Sequence[Cell], done: int) -> Iterator[None]:
    """While this context lasts, a line is logged whenever cells have ended, at most every SECONDS.

    Args:
        cells: Those that are being trained.
        done: How many others of the sweep were done before.
    """
    over, before = threading.Event(), [(cell, cell.status) for cell in cells]
    thread = threading.Thread(target=_watch, args=(before, done, over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _watch(seen: list[tuple[Cell, Status]], done: int, over: threading.Event) -> None:
    """Say what has ended, where `seen` is what was seen of each cell at the last look.

    A cell that stays as an earlier launch left it, interrupted or failed, waits and has not ended again.
    """
    began, pause, total, ended = time.monotonic(), SECONDS, len(seen) + done, Counter[Status]()
    while not over.wait(pause):
        look = time.monotonic()
        states = [(cell, cell.status, before) for cell, before in seen]
        seen = [(cell, status) for cell, status, before in states if not status.is_end or status is before]
        new = Counter(status for _, status, before in states if status.is_end and status is not before)
        ended += new
        now = time.monotonic()
        pause = max(SECONDS, (now - look) / SHARE)
        running = sum(status is Status.RUNNING for _, status in seen)
        if not running and not ended:  # all wait in a queue
            began = now
        if new:
            log.info("%s", line(ended, running, total, done, now - began))


def line(ended: Counter[Status], running: int, total: int, done: int, seconds: float) -> str:
    """How far a sweep is, in words.

    Args:
        ended: How many cells have ended since it was launched, by their status.
        running: How many are being trained.
        total: The cells of the sweep.
        done: How many were done before it was launched.
        seconds: The time since then.

    Returns:
        Such as `12 of 48 cells done, 2 running, 1 failed, about 3 min left`.
    """
    others = [
        f"{ended[status]} {status}" for status in (Status.FAILED, Status.INTERRUPTED, Status.PRUNED) if ended[status]
    ]
    at_work = [f"{running} running"] if running else []
    left = seconds * (total - done - ended.total()) / ended.total()
    how_long = f"{left / 3600:.1f} h" if left > 5400 else f"{left / 60:.0f} min" if left > 90 else f"{left:.0f} s"
    counts = ", ".join([f"{done + ended[Status.FINISHED]} of {total} cells done", *at_work, *others])
    return f"{counts}, about {how_long} left"
