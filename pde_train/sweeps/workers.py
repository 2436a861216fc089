"""Processes in which a launcher trains cells: they stop when it is told to, and none outlives it."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from types import FrameType
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig

from pde_train.errors import PdeTrainError, sentence
from pde_train.guards import guard_composition

STOPPED_BY = (signal.SIGINT, signal.SIGTERM)

POLL_SECONDS = 0.5
"""Between two looks of a worker whether its launcher lives."""

SAVE_SECONDS = 30.0
"""For how long a launcher that is told to stop waits for its workers to save."""


log = logging.getLogger(__name__)


class Task:
    """The task of a sweep's jobs, which knows whether it runs in a worker of the launcher."""

    def __init__(self, task: Callable[[DictConfig], Any]):
        self.task = task
        self.launcher = os.getpid()

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Arrive in another process, which composes the configuration of its jobs itself."""
        self.__dict__.update(state)
        guard_composition()

    def __call__(self, cfg: DictConfig) -> Any:
        if os.getpid() == self.launcher or os.getppid() != self.launcher:  # the second: on another machine
            return self.task(cfg)
        return _worker(self.launcher).work(self.task, cfg)


class Worker:
    """This process, as long as its launcher lives: a signal ends its job, and all that are handed to it afterwards."""

    def __init__(self, launcher: int):
        self.launcher = launcher
        self.busy = False
        self.stopped: int | None = None
        for number in STOPPED_BY:
            signal.signal(number, self._stop)
        threading.Thread(target=self._watch, daemon=True).start()

    def work(self, task: Callable[[DictConfig], Any], cfg: DictConfig) -> Any:
        """Do a job; SystemExit where the process has been told to stop."""
        self.busy = True
        try:
            if self.stopped is not None:
                raise SystemExit(128 + self.stopped)
            return task(cfg)
        except SystemExit as end:  # of a run that trained, whose own handler heard the signal
            if isinstance(end.code, int) and end.code > 128:
                self.stopped = end.code - 128
            raise
        finally:
            self.busy = False

    def _stop(self, number: int, frame: FrameType | None) -> None:
        """A run that trains has handlers of its own; whatever else is done is left."""
        self.stopped = number
        if self.busy:
            raise SystemExit(128 + number)

    def _watch(self) -> None:
        """End with the launcher, after the run that is under way has saved."""
        while os.getppid() == self.launcher:
            time.sleep(POLL_SECONDS)
        if self.busy:
            os.kill(os.getpid(), signal.SIGTERM)
        while self.busy:
            time.sleep(POLL_SECONDS)
        os._exit(1)


@cache
def _worker(launcher: int) -> Worker:
    return Worker(launcher)


@contextmanager
def told_to_stop(at_work: Callable[[], bool]) -> Iterator[None]:
    """While this context lasts, a signal to stop goes to the workers first, which save before it acts here.

    A second signal acts at once. Whatever a launcher makes of workers that stop, Ctrl-C ends as Ctrl-C.

    Args:
        at_work: Whether any worker still is.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed.
        SystemExit: SIGTERM was received.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in STOPPED_BY}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def stop(number: int, frame: FrameType | None) -> None:
        restore()
        received.append(number)
        workers = multiprocessing.active_children()
        for worker in workers:
            if worker.pid is not None:
                os.kill(worker.pid, signal.SIGTERM)
        until = time.monotonic() + SAVE_SECONDS
        while workers and at_work() and time.monotonic() < until:
            time.sleep(0.05)
        signal.raise_signal(number)

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    except SystemExit:
        if received == [signal.SIGINT]:
            raise KeyboardInterrupt from None
        raise
    finally:
        restore()


def failure(job: JobReturn) -> str | None:
    """What a job raised that Hydra kept to itself, in a sentence that is said here; None where it raised nothing."""
    if job.status is not JobStatus.FAILED:
        return None
    error = job._return_value
    told = sentence(error) if isinstance(error, PdeTrainError) else f"{type(error).__name__}: {sentence(error)}"
    log.error("a job ended with %s", told)
    return told
