"""The process that delivers the runs of this one to a store, as this one sees it: it is started, asked and heard.

A process and not a thread, since MLflow is a second of imports and 0.1 ms of Python for every row, for which a thread
would take the interpreter from the training loop. What it does is in `pde_train.tracking.follower`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from pde_train.run_folder import lock
from pde_train.tracking.follower import ASKED, POLL_SECONDS, SAID, Answer
from pde_train.tracking.uris import URI, masked

LOADING_SECONDS = 60.0
"""For how long the process may load its libraries, on a busy machine."""

log = logging.getLogger(__name__)


class Uploader:
    """The process that delivers to one store, as seen by the process whose runs it delivers.

    Attributes:
        uri: Of the store.
        silent: Whether an answer was awaited in vain, and the store has taken nothing since.
    """

    def __init__(self, uri: str):
        self.uri = uri
        self.silent = False
        self._process: subprocess.Popen[bytes] | None = None
        self._open = contextlib.ExitStack()
        self._folder: Path
        self._followed: set[Path] = set()
        self._heard = Answer()
        self._warned = False

    def follow(self, folder: Path) -> None:
        """Have a run delivered from its outbox as it grows. Never waits; said once more, it is not written again."""
        if folder not in self._followed or not self._lives():
            self.request(folders=[folder])
        self._hear()

    def request(self, experiment: str | None = None, folders: Sequence[Path] = ()) -> int:
        """Ask for an experiment to be made, and for runs to be delivered now and as they grow.

        Args:
            experiment: Its name in the store.
            folders: Of the runs.

        Returns:
            The position that the answer has at least.
        """
        if not self._lives():
            self._start()
        self._followed.update(folders)
        with (self._folder / ASKED).open("ab") as file:
            file.write(f"{json.dumps([experiment, *map(str, folders)])}\n".encode())
            return file.tell()

    def ask(self, patience: float, experiment: str | None = None, folders: Sequence[Path] = ()) -> Answer:
        """Request, and wait for the answer as long as the store takes anything within `patience` seconds."""
        for _ in range(2):  # a process that had ended is replaced once
            position = self.request(experiment, folders)
            until = time.monotonic() + (patience if self._heard.time else LOADING_SECONDS)
            while self._lives() and time.monotonic() < until:
                if self._hear() and self._heard.error is None:
                    until = time.monotonic() + patience
                if self._heard.position >= position:
                    return self._heard
                time.sleep(POLL_SECONDS)
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
        """End the process by force: the outboxes have everything, and it can be stuck in a call."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = None
        self._open.close()

    def _start(self) -> None:
        self.close()
        with contextlib.ExitStack() as opened:
            self._folder = Path(tempfile.mkdtemp(prefix="pde_train-"))
            opened.callback(shutil.rmtree, self._folder, ignore_errors=True)
            opened.enter_context(lock(self._folder))
            self._heard = Answer()
            requests = [[None, str(folder)] for folder in self._followed]
            (self._folder / ASKED).write_text("".join(f"{json.dumps(request)}\n" for request in requests))
            # in a session of its own, where no Ctrl-C reaches it
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pde_train.sync", "--follow", str(self._folder)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                env={**os.environ, URI: self.uri},  # not on the command line, which may be seen: it may hold a password
            )
            self._open = opened.pop_all()

    def _lives(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _hear(self) -> bool:
        """Whether the process has said anything new."""
        try:
            answer = Answer(**json.loads((self._folder / SAID).read_bytes()))
        except OSError:  # it has not begun
            return False
        if answer.time == self._heard.time:
            return False
        self._heard = answer
        self.silent = self.silent and answer.error is not None
        if answer.error is not None and answer.folder is not None:
            self.warn(answer.error, answer.folder)
        return True


@cache
def uploader_to(uri: str, process: int) -> Uploader:
    """The uploader of a process to a store, shared by all its runs: one process loads MLflow, however many they are."""
    return Uploader(uri)
