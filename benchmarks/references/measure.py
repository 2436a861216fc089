"""What the scripts of the step-time benchmark share: arguments, threads, timing, and the line of JSON they print."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from benchmarks.references.problems import PROBLEMS, Problem

Train = Callable[[int], float]
"""Takes so many optimiser steps, end to end as a user would; returns a loss met on the way, for 1 step its own."""

DEVICES = "cpu", "cuda"


class Task(NamedTuple):
    """What a script is asked to train, and how."""

    problem: Problem
    variant: str
    threads: int
    device: str
    precision: str


def refuse_others(task: Task) -> None:
    """For scripts that know the CPU and float64 alone."""
    if (task.device, task.precision) != ("cpu", "float64"):
        raise SystemExit(f"not written for {task.device} and {task.precision}")


def wait(given: argparse.Namespace) -> None:
    """With --wait: nothing is computed until a line comes, so that a next process starts while one measures."""
    if given.wait:
        sys.stdin.readline()


def main(
    library: str,
    version: str,
    build: Callable[[Task], Train],
    variants: Sequence[str] = ("default",),
    repeats: int = 3,
) -> None:
    """Time one problem and print a line of JSON.

    variants: what --variant may name, its default first.
    """
    given = arguments(library, variants, repeats)
    wait(given)
    with contextlib.redirect_stdout(sys.stderr):  # the libraries' own prints
        train = build(Task(PROBLEMS[given.problem], given.variant, given.threads, given.device, given.precision))
        first = train(1)
        steps = given.steps or enough(train, given.seconds / given.repeats)
        seconds = [per_step(train, steps) for _ in range(given.repeats)]
        last = train(2)
    report(library, version, given, seconds, steps, (first, last))


def arguments(library: str, variants: Sequence[str], repeats: int) -> argparse.Namespace:
    """What the command line asks for; binds the process to as many cores as it asks threads, where these compute."""
    parser = argparse.ArgumentParser(description=f"seconds of one optimisation step: {library}")
    parser.add_argument("--problem", choices=PROBLEMS, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=DEVICES, default="cpu")
    parser.add_argument("--precision", choices=("float64", "float32"), default="float64")
    parser.add_argument("--wait", action="store_true", help="import, and measure when a line of input comes")
    parser.add_argument("--variant", choices=variants, default=variants[0])
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--steps", type=int, help="of the long run of a repeat; by default as many as fit in --seconds")
    parser.add_argument("--seconds", type=float, default=2.0, help="of all repeats together")
    given = parser.parse_args()
    if given.device == "cpu":
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: given.threads])  # also bounds the threads of XLA
    return given


def report(
    library: str,
    version: str,
    given: argparse.Namespace,
    seconds: Sequence[float],
    steps: int,
    losses: tuple[float, float],
) -> None:
    """Print the line of JSON; losses are an early and a late one, which must have fallen."""
    first, last = losses
    if not (math.isfinite(first) and last < first):
        raise SystemExit(f"{library} on {given.problem}: the loss went from {first} to {last}, it must fall")
    line = {
        "library": library,
        "version": version,
        "problem": given.problem,
        "variant": given.variant,
        "threads": given.threads,
        "device": given.device,
        "precision": given.precision,
        "seconds_per_step": list(seconds),
        "steps_per_repeat": steps,
        "peak_mb": peak_mb(library, given.device),
        "first_loss": first,
        "last_loss": last,
    }
    print(json.dumps(line))


def peak_mb(library: str, device: str) -> int:
    """The most memory that was held: of the process on the CPU, of the arrays on a GPU."""
    if device == "cpu":
        return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    if library == "jax":
        import jax

        return round(jax.local_devices()[0].memory_stats()["peak_bytes_in_use"] / 1e6)
    import torch

    return round(torch.cuda.max_memory_allocated() / 1e6)


def clock(train: Train, steps: int) -> float:
    """Seconds of `steps` steps, fixed costs of the call included."""
    began = time.perf_counter()
    train(steps)
    return time.perf_counter() - began


def per_step(train: Train, steps: int) -> float:
    """Seconds of a step: a long run less a short one, so that the fixed costs of a call cancel."""
    short = max(1, steps // 5)
    return (clock(train, steps) - clock(train, short)) / (steps - short)


def enough(train: Train, seconds: float) -> int:
    """Steps that take `seconds` or more, and no less than the fixed costs of a call, whose noise would drown them.

    The faster of two runs counts: a disturbed one would pass for enough.
    """
    fixed, steps = clock(train, 1), 5
    goal = max(seconds, fixed)
    while (spent := min(clock(train, steps) for _ in range(2)) - fixed) < goal:
        steps = math.ceil(steps * min(8.0, max(1.5, 1.1 * goal / max(spent, 1e-9))))
    return steps
