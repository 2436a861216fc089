"""The process that delivers outboxes to a store while their runs go on: `python -m pde_train.sync --follow FOLDER`.

It looks at the sizes of the files of a temporary folder and of outboxes, so that neither side ever waits for the other.
The process whose runs are delivered (`pde_train.tracking.uploader`) holds the folder's lock, and appends to `asked` the
folders of its runs. This one delivers what was added, and replaces `said`, which tells up to where in `asked`
everything is done. It ends once nobody holds the lock, whatever became of the holder.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from pde_train.errors import UsageError
from pde_train.run_folder import LOCK, OUTBOX, is_locked
from pde_train.tracking.delivery import Store, first_line, is_unreachable

RHYTHM_SECONDS = 1.0
"""Between two deliveries of a run that goes on: what it writes meanwhile goes in the same calls."""

RETRY_SECONDS = 10.0
"""Between two tries to reach a store that is unreachable."""

SILENT_SECONDS = 1.0
"""A store that takes longer to be found unreachable is not asked again before RETRY_SECONDS have passed."""

IDLE_SECONDS = 60.0
"""After which the process ends that has nothing to do; the next entry of an outbox starts another."""

STUCK_SECONDS = 120
"""A single call to the store that takes longer ends the process."""

POLL_SECONDS = 0.02
"""Between two looks at the files of the temporary folder."""

ASKED, SAID = "asked", "said"
"""Names of the two files: requests, a JSON list a line, and the last `Answer`."""


@dataclass(frozen=True)
class Answer:
    """What has come of all requests up to a position.

    Attributes:
        error: What went wrong last, in words.
        unreachable: Whether the store did not answer.
        folder: Of the run that was not delivered, where the error is that of a run.
        position: Bytes of `asked` that have been dealt with.
        time: When this was written, in nanoseconds of the monotonic clock.
    """

    error: str | None = None
    unreachable: bool = False
    folder: str | None = None
    position: int = 0
    time: int = 0


class Follower:
    """Delivers the runs that are named in a folder, for as long as a process holds its lock."""

    def __init__(self, store: Store, folder: Path):
        self._store = store
        self._folder = folder
        self._read = self._done = 0
        """Bytes of `asked` that have been read, and that have been dealt with."""
        self._experiments: set[str] = set()
        self._sizes: dict[Path, int] = {}
        """Of each outbox, when it was delivered or refused."""
        self._due = self._silent_until = self._said = 0.0
        store.answered = self._sign_of_life

    def work(self) -> None:
        """Until nobody holds the lock, or nothing has happened for IDLE_SECONDS."""
        self._say(Answer())
        idle_since = time.monotonic()
        while is_locked(self._folder):
            self._take_requests()
            if time.monotonic() >= self._due and self._deliver():
                idle_since = time.monotonic()
            if time.monotonic() > idle_since + IDLE_SECONDS:
                return
            time.sleep(POLL_SECONDS)
        self._take_requests()
        self._deliver()  # what a process has left that was killed
        for name in (ASKED, SAID, LOCK):
            (self._folder / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # it holds another file, or is gone
            self._folder.rmdir()

    def _take_requests(self) -> None:
        file = self._folder / ASKED
        if _size(file) <= self._read:
            return
        with file.open("rb") as opened:
            opened.seek(self._read)
            for line in opened:
                if not line.endswith(b"\n"):  # it is being written
                    break
                experiment, *folders = json.loads(line)
                if experiment is not None:
                    self._experiments.add(experiment)
                self._sizes |= dict.fromkeys(map(Path, folders), 0)
                self._read += len(line)
                self._due = 0.0

    def _deliver(self) -> bool:
        """Make the experiments, deliver what was added and say what came of it; whether there was anything to do."""
        asked, position = self._read > self._done, self._read
        grown = {folder: size for folder, old in self._sizes.items() if (size := _size(folder / OUTBOX)) != old}
        answer = Answer()
        if asked and time.monotonic() < self._silent_until:
            answer = Answer("it did not answer before", unreachable=True)
        for experiment in () if answer.unreachable else self._experiments:
            answer = self._try(partial(self._store.experiment_id, experiment), answer)
        for folder, size in grown.items():
            if not answer.unreachable:
                answer = self._try(partial(self._store.deliver, folder), answer, str(folder))
            if not answer.unreachable:
                self._sizes[folder] = size
        self._due = time.monotonic() + (RETRY_SECONDS if answer.unreachable else RHYTHM_SECONDS)
        self._done = position
        if asked or grown:
            self._say(answer)
        return asked or bool(grown)

    def _try(self, task: Callable[[], object], before: Answer, folder: str | None = None) -> Answer:
        """What came of a task; of one that succeeds, the answer before it."""
        began = time.monotonic()
        signal.alarm(STUCK_SECONDS)
        try:
            task()
        except Exception as error:  # a store may answer with anything
            unreachable = is_unreachable(error, self._store.uri)
            if unreachable and time.monotonic() - began > SILENT_SECONDS:
                self._silent_until = time.monotonic() + RETRY_SECONDS
            return Answer(first_line(error, self._store.uri), unreachable, folder)
        finally:
            signal.alarm(0)
        return before

    def _sign_of_life(self) -> None:
        if time.monotonic() > self._said + 1.0:
            signal.alarm(STUCK_SECONDS)
            self._say(Answer())

    def _say(self, answer: Answer) -> None:
        self._said = time.monotonic()
        beside = self._folder / f"{SAID}.part"
        with contextlib.suppress(OSError):  # who asked is gone: its runs are delivered all the same
            beside.write_text(json.dumps(asdict(replace(answer, position=self._done, time=time.monotonic_ns()))))
            beside.replace(self._folder / SAID)


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


def follow(folder: Path, uri: str) -> None:
    """Deliver what a process asks for in a folder; the signals of a terminal or a cluster are that process's business.

    Args:
        folder: Made by an `Uploader`.
        uri: Of the store.

    Raises:
        UsageError: It is no such folder.
    """
    if not (folder / ASKED).exists():
        raise UsageError(f"{folder} names no runs to follow: expected a folder that a run has made, leave --follow out")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    store = Store(uri)
    store.load()
    gc.freeze()  # SQLAlchemy makes a dozen objects of every row, among which the collector
    gc.set_threshold(50_000)  # would look for cycles for a quarter of the time
    Follower(store, folder).work()
    os._exit(0)  # without waiting for what libraries do at the end
