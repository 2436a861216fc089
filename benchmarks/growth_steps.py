"""How time and memory of a compiled step, a Jacobian and its spectra grow with points, width and depth.

`python -m benchmarks.growth_steps`: a table with slopes, and docs/images/growth-steps.png. Poisson 2D, `taylor`,
float64, one thread. Every number is the median of 3 in a process of its own, whose largest resident memory stands
beside it.
"""

from __future__ import annotations

import json
import math
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from matplotlib.figure import Figure

from benchmarks import results
from benchmarks.growth import IMAGES
from pde_train.conf_dir import conf_dir
from pde_train.experiment import build
from pde_train.geometry import Batch
from pde_train.methods.gradient_descent import GradientDescent
from pde_train.plots import COLOURS
from pde_train.problem import Problem
from pde_train.training.compiled_steps import CompiledSteps
from pde_train.training.signals import StopSignals

REPEATS = 3

KINDS = "step", "Jacobian", "spectrum, dense", "spectrum, randomised"

POINTS = (100, 1000, 10_000, 100_000, 1_000_000)
AXES: dict[str, tuple[dict[str, tuple[int, ...]], Callable[[int], list[str]]]] = {
    "points (2-32-1)": (
        {"step": POINTS, "Jacobian": POINTS[:4], "spectrum, dense": POINTS[:4], "spectrum, randomised": POINTS[:4]},
        lambda n: ["model.hidden=[32]", f"sampler.interior={n}"],
    ),
    "points (2-64-64-64-1)": ({"step": POINTS}, lambda n: ["model.hidden=[64,64,64]", f"sampler.interior={n}"]),
    "width (two layers, 1000 points)": (
        {
            "step": (16, 32, 64, 128, 256),
            "Jacobian": (16, 32, 64, 128),
            "spectrum, dense": (16, 32, 64, 128),
            "spectrum, randomised": (16, 32, 64, 128),
        },
        lambda n: [f"model.hidden=[{n},{n}]", "sampler.interior=1000"],
    ),
    "depth (width 64, 1000 points)": (
        {"step": (1, 2, 4, 8), "Jacobian": (1, 2, 4, 8), "spectrum, randomised": (1, 2, 4, 8)},
        lambda n: [f"model.hidden=[{','.join(['64'] * n)}]", "sampler.interior=1000"],
    ),
}
"""By quantity: its values for each kind, and the words that set one."""


def posed(words: list[str]) -> tuple[Problem, GradientDescent, Batch]:
    """A problem, its method and its points."""
    given = ["tracking=none", "diagnostics=none", "pde=poisson_2d", "model=mlp", "sampler=uniform", "optimizer=adam"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        experiment = build(compose("config", [*given, "sampler.boundary=400", "differentiator=taylor", *words]))
    assert isinstance(experiment.method, GradientDescent)
    return experiment.problem, experiment.method, experiment.problem.draw(np.random.default_rng(0))


def measure(kind: str, words: list[str]) -> tuple[float, float]:
    """Seconds, and megabytes of this process at most."""
    problem, method, batch = posed(words)
    if kind == "step":
        optimizer = method.optimizer(problem.model.parameters())
        steps = CompiledSteps(problem, optimizer, StopSignals(), batch)
        steps.compile()

        def once() -> object:
            return steps.take(batch, 1)
    else:
        jacobian = problem.jacobian(batch)
        most = 0 if kind == "spectrum, randomised" else 2**60

        def once() -> object:
            return jacobian.dense() if kind == "Jacobian" else jacobian.spectrum(most)

    once()  # warms up
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        once()
        times.append(time.perf_counter() - began)
    return statistics.median(times), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def slope(found: dict[int, float]) -> float:
    """The growth between the last two sizes, as a power."""
    (a, before), (b, after) = list(found.items())[-2:]
    return math.log(after / before) / math.log(b / a)


Found = dict[tuple[str, str], dict[int, tuple[float, float]]]
"""Seconds and megabytes by size, of each quantity and kind."""


def draw(found: Found) -> None:
    """Draw docs/images/growth-steps.png."""
    figure = Figure(figsize=(14, 6.5), layout="constrained")
    grid = figure.subplots(2, len(AXES))
    for (quantity, kind), values in found.items():
        for row, label in enumerate(("seconds", "MB of the process, at most")):
            axes = grid[row][list(AXES).index(quantity)]
            heights = [value[row] for value in values.values()]
            axes.loglog(list(values), heights, "o-", ms=4, lw=1, color=COLOURS[KINDS.index(kind)], label=kind)
            axes.set(xlabel=quantity, ylabel=label)
            axes.set_xticks(sizes := list(AXES[quantity][0]["step"]), [f"{n:g}" for n in sizes])
            axes.minorticks_off()
            axes.grid(alpha=0.3)
    for axes in grid[1]:
        axes.set(yscale="linear", ylim=(0, None))
    figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=len(KINDS))
    figure.savefig(IMAGES / "growth-steps.png", dpi=110)


def main() -> None:
    """Measure everything, each in its process; write the table and the picture."""
    found: Found = {}
    for quantity, (sizes, words) in AXES.items():
        for kind in sizes:
            values = found.setdefault((quantity, kind), {})
            for size in sizes[kind]:
                command = [sys.executable, "-m", "benchmarks.growth_steps", kind, *words(size)]
                done = subprocess.run(command, cwd=results.ROOT, capture_output=True, text=True, check=True)
                seconds, memory = json.loads(done.stdout.splitlines()[-1])
                values[size] = seconds, memory
                print(quantity, kind, size, f"{1e3 * seconds:.3g} ms, {memory:.0f} MB", flush=True)
    rows: list[list[object]] = []
    for (quantity, kind), values in found.items():
        times = ", ".join(f"{n:g}: {1e3 * seconds:.3g} ({memory:.0f})" for n, (seconds, memory) in values.items())
        rows.append([quantity, kind, times, f"{slope({n: seconds for n, (seconds, _) in values.items()}):.2f}"])
    columns = "against", "of", "size: ms (MB of the process, at most)", "power at the end"
    told = "Poisson 2D, `taylor`, float64, one thread, 400 points on the boundary."
    results.put("Growth", "python -m benchmarks.growth_steps", f"{told}\n\n{results.table(columns, rows)}")
    draw(found)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        torch.set_num_threads(1)
        print(json.dumps(measure(sys.argv[1], sys.argv[2:])))
