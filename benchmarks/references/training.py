"""What the scripts of the accuracy comparison share: the task, the CPU seconds, the errors. numpy only.

A task is a file of numbers that our own side writes (`benchmarks/accuracy_references.py`): training points, initial
weights, and the points and values by which errors are measured. The loss of every script is the sum over equations of
the mean square of the residual, as ours; at the initial weights it must be the number that our side has written.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Layers = Sequence[tuple[np.ndarray, np.ndarray]]
"""Weights (out, in) and biases (out,) of every layer."""

Train = Callable[["Task", "Watch"], float]
"""Trains until `Watch.see` says that time is over; returns the library's loss at the initial weights."""

XLA_FLAGS = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
TOLERANCE = 1e-10
"""Relative difference of two losses at the same weights that rounding may make."""


def network(layers: Layers, x: np.ndarray) -> np.ndarray:
    """Values (n, 1) of a tanh network at points (n, d)."""
    *hidden, (weight, bias) = layers
    for w, b in hidden:
        x = np.tanh(x @ w.T + b)
    return x @ weight.T + bias


def spent() -> float:
    """CPU seconds of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@dataclass(frozen=True)
class Task:
    """One problem with the points and the weights of one seed.

    problem: `poisson_2d`: -lap u = f on the unit square, u = 0 on the boundary. `beam`: u'''' = f on [-1, 1],
    u = u'' = 0 at both ends.
    interior, boundary: points (n, d). layers: initial weights. test, exact: points (k, d) and values (k, 1).
    loss: ours at the initial weights. budgets: CPU seconds. own: whether the library draws the initial weights itself,
    from the seed, as it does by default.
    """

    problem: str
    interior: np.ndarray
    boundary: np.ndarray
    layers: Layers
    test: np.ndarray
    exact: np.ndarray
    loss: float
    budgets: Sequence[float]
    seed: int
    own: bool

    @classmethod
    def read(cls, path: Path, budgets: Sequence[float] = (), own: bool = False) -> Task:
        with np.load(path) as file:
            layers = [(file[f"weight{i}"], file[f"bias{i}"]) for i in range(int(file["layers"]))]
            points = {name: file[name] for name in ("interior", "boundary", "test", "exact")}
            numbers: dict[str, Any] = {
                "loss": float(file["loss"]),
                "seed": int(file["seed"]),
                "budgets": budgets,
                "own": own,
            }
            return cls(str(file["problem"]), layers=layers, **points, **numbers)

    @property
    def sizes(self) -> list[int]:
        """Widths of all layers, input and output included."""
        return [self.layers[0][0].shape[1], *(len(bias) for _, bias in self.layers)]

    @property
    def parameters(self) -> int:
        return sum(weight.size + bias.size for weight, bias in self.layers)

    def source(self, x: Any, sin: Callable[[Any], Any]) -> Any:
        """f, of points with coordinates in the last axis, by the sine of any library; u = product of sin(pi x_i)."""
        factor = {"poisson_2d": 2 * math.pi**2, "beam": math.pi**4}[self.problem]
        value = factor * sin(math.pi * x[..., :1])
        return value if self.problem == "beam" else value * sin(math.pi * x[..., 1:])

    def error(self, layers: Layers) -> float:
        """The relative L2 error on the test points."""
        return float(np.linalg.norm(network(layers, self.test) - self.exact) / np.linalg.norm(self.exact))


class Watch:
    """Reads the error of a training whenever a budget of CPU seconds is spent, counted from `start`."""

    def __init__(self, task: Task):
        self.task = task
        self.left = list(task.budgets)
        self.errors: dict[str, float] = {}
        self.last = math.nan
        self.steps = 0
        self.seconds = 0.0
        self.began = math.nan

    def start(self) -> None:
        """Count from here: the problem stands, nothing has been traced or compiled."""
        self.began = spent()

    def see(self, layers: Layers, steps: int) -> bool:
        """Measure the error after so many steps; whether time is over. A network that is not finite is not taken."""
        error = self.task.error(layers)
        if math.isfinite(error):
            self.last, self.steps = error, steps
        self.seconds = spent() - self.began
        while self.left and self.seconds >= self.left[0]:
            self.errors[f"{self.left.pop(0):g}"] = self.last
        return not self.left

    def end(self) -> None:
        """It stopped before: what it had then is its error at later budgets."""
        for budget in self.left:
            self.errors[f"{budget:g}"] = self.last


def main(library: str, version: str, methods: dict[str, Train]) -> None:
    """Train as the command line asks, and print a line of JSON.

    methods: what --method may name.
    """
    parser = argparse.ArgumentParser(description=f"errors after so many CPU seconds: {library}")
    parser.add_argument("task", type=Path)
    parser.add_argument("--method", choices=methods, default=next(iter(methods)))
    parser.add_argument("--start", choices=("ours", "own"), default="ours", help="who draws the initial weights")
    parser.add_argument("--budgets", type=float, nargs="+", default=[15, 30, 60])
    given = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])  # also bounds the threads of XLA
    task = Task.read(given.task, given.budgets, own=given.start == "own")
    watch = Watch(task)
    with contextlib.redirect_stdout(sys.stderr):  # the libraries' own prints
        loss = methods[given.method](task, watch)
    if not task.own and not math.isclose(loss, task.loss, rel_tol=TOLERANCE):
        raise SystemExit(f"{library}, {task.problem}: the loss begins at {loss!r}, ours at {task.loss!r}")
    ended = len(watch.left) > 0
    watch.end()
    line = {
        "library": library,
        "version": version,
        "method": given.method,
        "start": given.start,
        "problem": task.problem,
        "errors": watch.errors,
        "steps": watch.steps,
        "parameters": task.parameters,
        "first_loss": loss,
        "stopped": round(watch.seconds, 1) if ended else None,
    }
    print(json.dumps(line))
