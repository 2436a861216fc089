"""Ctrl-C, SIGTERM and a cluster's warning (SIGUSR2) as a wish to stop at the next step boundary."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

from pde_train.errors import Interrupted


class StopSignals:
    """Once installed, its signals set `received` to their number; a second one acts as it did before entering.

    They are SIGINT, SIGTERM and, where somebody handled it before, SIGUSR2: submitit does, and queues the job again.
    Enter before Lightning's `fit`, which puts handlers of its own in place, and install after it did.
    """

    _unanswered: int | None = None

    def __init__(self) -> None:
        self.received: int | None = None
        self._at_once = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
            if callable(warned := signal.getsignal(signal.SIGUSR2)):
                self._before[signal.SIGUSR2] = warned
        return self

    def install(self) -> None:
        """Take the place of whatever handlers there are."""
        for number in self._before:
            signal.signal(number, self._receive)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """While this context lasts nothing can be lost, and a signal stops what is being done: such as compilation.

        Raises:
            Interrupted: A signal was received.
            KeyboardInterrupt: Somebody else raised it.
        """
        self._at_once = True
        try:
            yield
        except KeyboardInterrupt:
            if self.received is None:
                raise
        finally:
            self._at_once = False
        if self.received is not None:
            raise Interrupted(self.received)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        answered = isinstance(error, (Interrupted, KeyboardInterrupt, SystemExit))
        StopSignals._unanswered = None if answered else self.received

    @staticmethod
    def answer() -> None:
        """Let the signal act that came after the last step of the runs before, which had nothing left to stop.

        A run of its own ends anyway; a sweep must not go on to its next run.
        """
        number, StopSignals._unanswered = StopSignals._unanswered, None
        if number is not None:
            signal.raise_signal(number)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        signal.signal(number, self._before[signal.Signals(number)])
        if self._at_once:
            raise KeyboardInterrupt(number)  # which no `except Exception` of a compiler keeps
        with contextlib.suppress(OSError):  # print may not be used in a handler that may interrupt it
            os.write(2, b"stopping after this step; the same signal again stops at once\n")
