"""What Lightning costs: training by chunks over the same steps without Lightning, as a ratio."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks import results
from pde_train.diagnostics.none import NoDiagnostics
from pde_train.differentiators.reverse import Reverse
from pde_train.entropy import Entropy
from pde_train.methods.gradient_descent import GradientDescent
from pde_train.models.two_layer import two_layer
from pde_train.pdes.poisson_1d import Poisson1D
from pde_train.problem import Problem
from pde_train.residuals import evaluate, loss
from pde_train.samplers.grid import Grid
from pde_train.tracking.none import NoTracker
from pde_train.tracking.record import Record

STEPS, RUNS = 2000, 5
CHUNKS = (1, 10, 50, 250, 1000)


def problem() -> Problem:
    """Poisson 1D, 1-50-1, 100 + 2 points."""
    return Problem(Poisson1D(), two_layer(1, 50, "tanh", 0), Reverse(), Grid(100, 2))


def bare() -> float:
    """Seconds of STEPS steps in a plain loop."""
    p = problem()
    batch = p.draw(np.random.default_rng(0))
    optimizer = torch.optim.Adam(p.model.parameters(), lr=1e-3)
    began = time.perf_counter()
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss(evaluate(p.pde, p.model, p.differentiator, batch)).backward()
        optimizer.step()
    return time.perf_counter() - began


def lightning(chunk: int) -> float:
    """Seconds of the same by the product, with its record, errors every 1000 steps and checkpoints every 1000."""
    method = GradientDescent(
        optimizer=lambda p: torch.optim.Adam(p, lr=1e-3), steps=STEPS, chunk=chunk, log_every=1000, compile="never"
    )
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        method.fit(problem(), Record(NoTracker(), Entropy([1e-8])), NoDiagnostics(), Path(folder))
        return time.perf_counter() - began


def main() -> None:
    """Print the ratio of the product over the plain loop, both in the same round, for every chunk; write it down."""
    lines = []
    torch.set_num_threads(1)
    bare(), lightning(1000)
    rounds = [(bare(), {chunk: lightning(chunk) for chunk in CHUNKS}) for _ in range(RUNS)]
    print(f"{'steps in a Lightning batch':30} {'time over plain loop':>22} {'min':>7} {'max':>7}")
    for chunk in CHUNKS:
        ratios = [product[chunk] / plain for plain, product in rounds]
        print(f"{chunk:30} {statistics.median(ratios):22.3f} {min(ratios):7.3f} {max(ratios):7.3f}")
        lines.append([chunk, *(f"{value:.3f}" for value in (statistics.median(ratios), min(ratios), max(ratios)))])
    columns = "steps in a Lightning batch", "time over a plain loop", "min", "max"
    results.put("Lightning", "python -m benchmarks.chunks", results.table(columns, lines))


if __name__ == "__main__":
    main()
