"""Whether steps are compiled: where that is expected to cost less time than it saves."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol, TypeVar

from pde_train.errors import brief
from pde_train.progress import waiting

SAVED = 0.7
"""The part of an eager step's time that compiled code is expected to save; measured: 0.6 to 0.9."""

TRACE_SECONDS = 1.0
"""What it takes to look whether compiled code is there."""

log = logging.getLogger(__name__)


class Compilable(Protocol):
    """What has been traced, and can be compiled."""

    @property
    def compile_seconds(self) -> float:
        """What its compilation is expected to take; zero where an earlier process has done it."""
        ...

    def compile(self) -> None:
        """Load what is compiled, compile what is not."""
        ...


class TooLate(BaseException):
    """A compilation took too long; no `Exception`, which a compiler might keep for itself."""


@contextmanager
def deadline(seconds: float | None) -> Iterator[None]:
    """While this context lasts, the main thread of the process is stopped after so many seconds of wall time.

    Args:
        seconds: None for never. In other threads than the main one there is no deadline.

    Raises:
        TooLate: The time is over.
    """
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    lasts = True

    def stop(number: int, frame: FrameType | None) -> None:
        if lasts:
            raise TooLate

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
    try:
        yield
    finally:
        lasts = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def slowdown() -> float:
    """How many times longer work takes where more processes want to run than there are processors; 1 or more."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def seconds_of(action: Callable[[], object]) -> float:
    """Seconds of something, the best of two times."""
    times = []
    for _ in range(2):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return min(times)


C = TypeVar("C", bound=Compilable)


def compile_where_it_pays(
    mode: str, what: str, seconds: float, steps: int, trace: Callable[[], C], check: Callable[[C], object]
) -> tuple[C | None, str]:
    """Trace and compile, unless eager steps are expected to be done sooner.

    Code that an earlier run compiled costs next to nothing. A compilation that fails is one warning. With ``auto``
    one that takes longer than it is expected to and would save, together, is given up.

    Args:
        mode: ``auto``, or ``always`` whatever it takes.
        what: What is compiled, in words.
        seconds: What it takes in one eager step.
        steps: How many are to be taken.
        trace: Makes what can be compiled.
        check: Raises an error where the compiled code computes something else than eager code does.

    Returns:
        What was compiled, or None; and the choice in words with its reason.
    """
    saved = SAVED * seconds * steps
    estimate = f"{steps} steps of {seconds:.1e} s"
    if mode == "auto" and saved < TRACE_SECONDS:
        return None, f"eager: compiling {estimate} would save {saved:.1f} s"
    try:
        with waiting(f"tracing {what}"):
            traced = trace()
        cost = traced.compile_seconds * slowdown()
        if mode == "auto" and saved < cost:
            return None, f"eager: compiling {estimate} would save {saved:.0f} s and cost about {cost:.0f} s"
        began = time.perf_counter()
        with waiting(f"compiling {what}"), deadline(saved + cost if mode == "auto" and cost else None):
            traced.compile()
        check(traced)
    except TooLate:
        took = time.perf_counter() - began
        return None, f"eager: compiling {estimate} was given up after {took:.0f} s, as it would save {saved:.0f} s"
    except Exception as error:  # whatever the compiler says, eager steps serve
        log.warning("%s could not be compiled (%s): eager operations take its place", what, brief(error))
        return None, "eager: the compilation failed"
    how = f"compiled in {time.perf_counter() - began:.0f} s" if cost else "compiled by an earlier run"
    return traced, f"compiled: {how}, expected to save {saved:.0f} s over {estimate}"
