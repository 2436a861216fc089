"""How time and memory of one loss and gradient grow with order, dimension, width and points: figures and a table.

`python -m benchmarks.growth`. Eager mode, float64, one thread; every point is the median of 5 in one process, all
differentiators in turns. A line ends where a call takes more than LIMIT seconds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from pde_train.derivatives import Request
from pde_train.diagnostics.comparison import PeakMemory
from pde_train.differentiators.base import Differentiator
from pde_train.differentiators.complex_step import ComplexStep
from pde_train.differentiators.finite_difference import FiniteDifference
from pde_train.differentiators.forward import Forward
from pde_train.differentiators.hybrid import Hybrid
from pde_train.differentiators.reverse import Reverse
from pde_train.differentiators.stochastic import Stochastic
from pde_train.differentiators.taylor import Taylor
from pde_train.models.mlp import MLP
from pde_train.plots import COLOURS

IMAGES = Path(__file__).parents[1] / "docs" / "images"
LIMIT = 0.3
REPEATS = 5

EXACT: dict[str, Differentiator] = {
    "reverse": Reverse(),
    "forward": Forward(),
    "taylor": Taylor(),
    "complex_step": ComplexStep(radius=0.2, nodes=32),
    "hybrid": Hybrid(),
    "finite_difference 2": FiniteDifference(2),
    "finite_difference 8": FiniteDifference(8),
}

Case = tuple[MLP, Tensor, Request]


def by_order(order: int) -> Case:
    """u and its derivative of that order in 1D, network 1-50-50-1, 200 points."""
    return MLP(1, [50, 50], "tanh", 0), points(200, 1), Request.parse(f"u u_{'x' * order}", ("x",))


def by_dimension(dimension: int) -> Case:
    """lap u, two hidden layers of 64, 100 points."""
    coordinates = tuple(f"x{i}" for i in range(dimension))
    return MLP(dimension, [64, 64], "tanh", 0), points(100, dimension), Request.parse("lap_u", coordinates)


def by_width(width: int) -> Case:
    """bih u in 2D, two hidden layers, 200 points."""
    return MLP(2, [width, width], "tanh", 0), points(200, 2), Request.parse("bih_u", ("x", "y"))


def by_points(count: int) -> Case:
    """lap u in 2D, three hidden layers of 64."""
    return MLP(2, [64, 64, 64], "tanh", 0), points(count, 2), Request.parse("lap_u", ("x", "y"))


CASES: dict[str, tuple[Callable[[int], Case], tuple[int, ...], dict[str, Differentiator]]] = {
    "order of the derivative": (by_order, (1, 2, 3, 4, 5, 6, 7, 8), EXACT),
    "dimension (lap u)": (
        by_dimension,
        (1, 2, 4, 8, 16, 32, 64, 100),
        {**EXACT, "stochastic, 16 probes": Stochastic(16)},
    ),
    "width (bih u, 2D)": (by_width, (16, 32, 64, 128, 256), EXACT),
    "points (lap u, 2D)": (by_points, (100, 300, 1000, 3000, 10000), EXACT),
}


def points(count: int, dimension: int) -> Tensor:
    return torch.rand(count, dimension, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def gradient(differentiator: Differentiator, case: Case) -> None:
    """The mean square of the requested columns, and its gradient."""
    model, x, request = case
    jet = differentiator(model, x, request)
    loss = torch.stack([jet.columns[name].square().mean() for name in sorted(request.names)]).sum()
    torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)


def measured(differentiator: Differentiator, case: Case) -> tuple[float, float] | None:
    """Seconds, and the most megabytes of tensors alive at once; None where a call takes more than LIMIT."""
    times: list[float] = []
    while len(times) <= REPEATS:  # the first warms up
        began = time.perf_counter()
        gradient(differentiator, case)
        times.append(time.perf_counter() - began)
        if times[-1] > LIMIT:
            return None
    with PeakMemory() as memory:
        gradient(differentiator, case)
    return statistics.median(times[1:]), memory.peak / 1e6


def lines(
    build: Callable[[int], Case], sizes: Iterable[int], differentiators: dict[str, Differentiator]
) -> dict[str, dict[int, tuple[float, float]]]:
    """Time and memory by differentiator and size."""
    found: dict[str, dict[int, tuple[float, float]]] = {name: {} for name in differentiators}
    ended: set[str] = set()
    for size in sizes:
        case = build(size)
        for name, differentiator in differentiators.items():
            values = None if name in ended else measured(differentiator, case)
            if values is None:
                ended.add(name)
            else:
                found[name][size] = values
    return found


def main() -> None:
    """Measure, print a table, draw docs/images/growth.png."""
    torch.set_num_threads(1)
    gradient(Forward(), by_order(1))  # torch loads what forward mode needs
    figure = Figure(figsize=(13, 6), layout="constrained")
    grid = figure.subplots(2, len(CASES))
    for column, (title, (build, sizes, differentiators)) in enumerate(CASES.items()):
        found = lines(build, sizes, differentiators)
        print(f"\n{title}: ms (MB)")
        for i, (name, values) in enumerate(found.items()):
            print(f"  {name:22}", "  ".join(f"{k}: {1e3 * s:.2f} ({m:.1f})" for k, (s, m) in values.items()))
            for row, label in enumerate(("ms", "MB")):
                heights = [(1e3 * s, m)[row] for s, m in values.values()]
                axes = grid[row][column]
                axes.loglog(list(values), heights, "o+x^vsd*"[i] + "-", ms=4, lw=1, color=COLOURS[i % 7], label=name)
                axes.set(xlabel=title, ylabel=f"{label}, one loss and gradient")
                axes.set_xticks(sizes, [str(size) for size in sizes])
                axes.minorticks_off()
                axes.grid(alpha=0.3)
    figure.legend(*grid[0][1].get_legend_handles_labels(), loc="outside lower center", ncols=len(EXACT) + 1)
    figure.savefig(IMAGES / "growth.png", dpi=110)


if __name__ == "__main__":
    main()
