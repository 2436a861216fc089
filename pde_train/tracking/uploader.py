"""A process that delivers outboxes to a store while their runs go on.

A process and not a thread, since MLflow is a second of imports and 0.1 ms of Python for every row, for which a thread
would take the interpreter from the training loop.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from itertools import count
from pathlib import Path
from typing import Any

from pde_train.tracking.delivery import Store, first_line, is_unreachable
from pde_train.tracking.uris import masked

RHYTHM_SECONDS = 1.0
"""Between two deliveries of a run that goes on: what it writes meanwhile goes in the same calls."""

RETRY_SECONDS = 10.0
"""Between two tries to reach a store that is away."""

SILENT_SECONDS = 1.0
"""A store that keeps us waiting for longer, and is away, is not asked again before RETRY_SECONDS have passed."""

IDLE_SECONDS = 60.0
"""After which an uploader ends that has nothing to do; the next word starts another."""

LOADING_SECONDS = 60.0
"""For how long the uploader may load its libraries, on a busy machine."""

STUCK_SECONDS = 120
"""A single call to the store that takes longer ends the uploader."""

PUSH_SECONDS = 0.1
"""Between two tries to write to an uploader that is too busy to read."""

STORE = "PDE_TRAIN_STORE"
"""Environment variable that tells the process the uri of its store."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """What came of a request: an error in words, and whether the store is away."""

    error: str | None = None
    unreachable: bool = False


class Words:
    """JSON values, one a line, out of a pipe."""

    def __init__(self, descriptor: int):
        self._descriptor = descriptor
        self._rest = b""
        self.closed = False

    def read(self, seconds: float) -> list[Any]:
        """What has come; waits for it so long. Nothing for ever once the other end is `closed`."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        if self.closed or not poll.poll(max(seconds, 0.0) * 1000):
            return []
        data = os.read(self._descriptor, 1 << 16)
        self.closed = not data
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines]


class Uploader:
    """The process that delivers to one store, as those see it that it works for."""

    def __init__(self, uri: str):
        self.uri = uri
        self._process: subprocess.Popen[bytes] | None = None
        self._words: Words
        self._unsent = b""
        self._numbers = count()
        self._loaded = False
        self._warned = False
        self.silent = False
        """Whether somebody waited in vain, and the store has said nothing since."""

    def nudge(self, folder: Path) -> None:
        """There is something new in this folder. Never waits: it is not said where the process has not read the rest.

        The outbox has everything, and `ask("drain")` names all folders again.
        """
        if self._unsent and self._lives():
            self._push()
        if not (self._unsent and self._lives()):
            self.tell("deliver", str(folder))
        self._hear(0.0)

    def tell(self, request: str, content: Any) -> int:
        """Send a request, to a new process where there is none; its number."""
        number = next(self._numbers)
        if not self._lives():
            self._start()
        try:
            self._send([request, number, content])
        except BrokenPipeError:  # it ended just now
            self._start()
            self._send([request, number, content])
        return number

    def ask(self, request: str, content: Any, patience: float) -> Answer:
        """Send a request and wait for the answer, for as long as the store says anything within `patience` seconds."""
        for _ in range(2):  # an uploader that had ended is replaced once
            number = self.tell(request, content)
            until = time.monotonic() + (patience if self._loaded else LOADING_SECONDS)
            while not self._words.closed and (left := until - time.monotonic()) > 0:
                try:
                    self._push()
                except BrokenPipeError:
                    break
                heard = self._hear(min(left, PUSH_SECONDS) if self._unsent else left)
                if number in heard:
                    return heard[number]
                if any(answer.error is None for answer in heard.values()):
                    until = time.monotonic() + patience
            if self._lives():
                self.silent = True
                return Answer(f"no answer within {patience:g} s", unreachable=True)
        return Answer("the process that delivers was ended", unreachable=True)

    def warn(self, error: str, what: str) -> None:
        """Say that something is kept; once."""
        if not self._warned:
            log.warning(
                "the tracking store %s did not take everything (%s): the run goes on, %s keeps what is missing, and "
                "python -m pde_train.sync delivers it",
                masked(self.uri),
                error,
                what,
            )
        self._warned = True

    def close(self) -> None:
        """End the process, by force where it is stuck in a call: the outboxes have everything."""
        if self._process is None:
            return
        with self._process:  # closes its pipes
            assert self._process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
            try:
                self._process.wait(0.0 if self.silent else SILENT_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process = None

    def _start(self) -> None:
        self.close()
        command = [sys.executable, "-m", "pde_train.tracking.uploader"]
        pipe, none = subprocess.PIPE, subprocess.DEVNULL
        # in a session of its own, where no Ctrl-C reaches it
        self._process = subprocess.Popen(
            command,
            stdin=pipe,
            stdout=pipe,
            stderr=none,
            start_new_session=True,
            bufsize=0,
            env={**os.environ, STORE: self.uri},  # not on the command line, which may be seen: it may hold a password
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdin.fileno(), False)
        self._unsent = b""
        self._words = Words(self._process.stdout.fileno())
        self._loaded = False

    def _lives(self) -> bool:
        return self._process is not None and not self._words.closed and self._process.poll() is None

    def _send(self, word: Any) -> None:
        self._unsent += f"{json.dumps(word)}\n".encode()
        self._push()

    def _push(self) -> None:
        """Write what fits into the pipe; the rest waits."""
        assert self._process is not None
        assert self._process.stdin is not None
        with contextlib.suppress(BlockingIOError):
            while self._unsent:
                self._unsent = self._unsent[os.write(self._process.stdin.fileno(), self._unsent) :]

    def _hear(self, seconds: float) -> dict[int, Answer]:
        """Answers by their number; -1 for any other sign of life."""
        heard: dict[int, Answer] = {}
        for number, error, is_away, folder in self._words.read(seconds):
            self._loaded = True
            heard[number] = Answer(error, is_away)
            self.silent = self.silent and error is not None
            if folder is not None:
                self.warn(error, folder)
        return heard


@cache
def uploader_to(uri: str, process: int) -> Uploader:
    """The uploader of a process to a store, shared by all its runs: one process loads MLflow, however many they are."""
    return Uploader(uri)


class Round:
    """The work of the process: requests come in, folders with news are delivered."""

    def __init__(self, store: Store, requests: Words, answers: int):
        self._store = store
        self._requests = requests
        self._answers = answers
        self._pending: dict[Path, None] = {}
        self._due = 0.0
        self._silent_until = 0.0
        self._said = 0.0
        store.answered = self._sign_of_life

    def work(self) -> None:
        """Until the other end is closed, or nothing has happened for IDLE_SECONDS."""
        self._sign_of_life()
        while True:
            wait = self._due - time.monotonic() if self._pending else IDLE_SECONDS
            requests = self._requests.read(wait)
            for request, number, content in requests:
                self._answer(request, number, content)
            if self._requests.closed or not (requests or self._pending):
                break
            if self._pending and time.monotonic() >= self._due:
                self._deliver()
        if time.monotonic() >= self._silent_until:
            self._deliver()  # of a run that was killed

    def _answer(self, request: str, number: int, content: Any) -> None:
        if request == "deliver":
            self._pending[Path(content)] = None
            return
        if request == "drain":
            self._pending |= dict.fromkeys(map(Path, content))
        if time.monotonic() < self._silent_until:
            self._say(number, Answer("it did not answer before", unreachable=True))
        elif request == "drain":
            self._say(number, self._deliver())
        elif request == "prepare":
            self._say(number, self._try(lambda: self._store.experiment_id(content)))

    def _deliver(self) -> Answer:
        """Everything that is pending, until the store is found to be away; what it refuses is left in its outbox."""
        refused = Answer()
        for folder in list(self._pending):
            answer = self._try(partial(self._store.deliver, folder))
            if answer.error is not None:
                self._say(-1, answer, folder)
                refused = answer
            if answer.unreachable:
                self._due = time.monotonic() + RETRY_SECONDS
                return answer
            del self._pending[folder]
        self._due = time.monotonic() + RHYTHM_SECONDS
        return refused

    def _try(self, task: Callable[[], object]) -> Answer:
        began = time.monotonic()
        signal.alarm(STUCK_SECONDS)
        try:
            task()
        except Exception as error:  # a store may answer with anything
            answer = Answer(first_line(error, self._store.uri), is_unreachable(error, self._store.uri))
            now = time.monotonic()
            if answer.unreachable and now - began > SILENT_SECONDS:
                self._silent_until = now + RETRY_SECONDS
            return answer
        finally:
            signal.alarm(0)
        return Answer()

    def _sign_of_life(self) -> None:
        now = time.monotonic()
        if now - self._said >= 1.0:
            self._said = now
            signal.alarm(STUCK_SECONDS)
            self._say(-1, Answer())

    def _say(self, number: int, answer: Answer, folder: Path | None = None) -> None:
        word = [number, answer.error, answer.unreachable, None if folder is None else str(folder)]
        with contextlib.suppress(BrokenPipeError):  # who asked was killed: its runs are delivered all the same
            os.write(self._answers, f"{json.dumps(word)}\n".encode())


def main() -> None:
    """Deliver for the process at the other end of stdin; the signals of a terminal or a cluster are its business."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    answers = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # libraries may print
    store = Store(os.environ[STORE])
    store.load()
    gc.freeze()  # SQLAlchemy makes a dozen objects of every row, among which the collector
    gc.set_threshold(50_000)  # would look for cycles for a quarter of the time
    Round(store, Words(0), answers).work()
    os._exit(0)  # without waiting for what libraries do at the end


if __name__ == "__main__":
    main()
