"""Scimba, jinns, DeepXDE and PINA beside our own package: `python -m benchmarks.accuracy_references [--seeds 3]`.

The network, its initial weights, the training points, the loss, and the points of the error are the same for all: our
side writes them to a file, and the scripts of `benchmarks/references/` read them. Every run is a process of one thread
on the first core that this process may use. Its CPU seconds are counted from the built problem on, as in
`benchmarks/accuracy.py`. Results are kept in `benchmarks/accuracy_references.jsonl`, one line a run, and what stands
there is not run again. The section "Side by side" of `benchmarks/ACCURACY.md` is written from it.
`make accuracy-references` installs the libraries first.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import accuracy, side_by_side
from benchmarks.references.training import XLA_FLAGS
from benchmarks.results import ROOT
from benchmarks.steps import python_of

LIMIT = 900
"""Seconds on the clock after which a run is given up."""


def write_task(problem: str, seed: int, path: Path) -> None:
    """Points, initial weights and loss of our own row, for `benchmarks.references.training.Task`.

    The source and the data of the boundary are checked against those of the scripts: the residuals of the field 0.
    """
    import torch

    from benchmarks.references.training import Task
    from pde_train import residuals

    setup = accuracy.experiment_of(problem, seed).problem
    batch = setup.draw(np.random.default_rng(setup.sampler.seed))  # as `Training` draws them
    linears = [layer for layer in setup.model.modules() if isinstance(layer, torch.nn.Linear)]
    arrays = {region: batch[region].x for region in ("interior", "boundary")}
    arrays["test"] = setup.test_batch["interior"].x
    arrays["exact"] = setup.exact(arrays["test"])
    for i, layer in enumerate(linears):
        arrays |= {f"weight{i}": layer.weight.detach(), f"bias{i}": layer.bias.detach()}
    loss = setup.loss(batch).item()
    given: dict[str, Any] = {name: tensor.numpy() for name, tensor in arrays.items()}
    np.savez(path, problem=np.array(problem), seed=seed, layers=len(linears), loss=loss, **given)
    zero = residuals.evaluate(setup.pde, lambda x: 0 * x[:, :1], setup.differentiator, batch)
    task = Task.read(path)
    expected = {name: np.zeros_like(r) for name, r in zero.items()}
    expected[next(iter(expected))] = -task.source(task.interior, np.sin)
    for name, r in zero.items():
        np.testing.assert_allclose(r.numpy(), expected[name], rtol=1e-12, atol=1e-12, err_msg=f"{problem}: {name}")


def reference(who: str, problem: str, path: Path) -> dict[str, object]:
    """One run of another library; what its script printed, or why there is nothing."""
    library, method, *own = who.split()
    budgets = [str(budget) for budget in side_by_side.BUDGETS[problem]]
    command = [str(python_of(library)), "-m", f"benchmarks.references.{library}_accuracy", str(path)]
    command += ["--method", method, "--start", "own" if own else "ours", "--budgets", *budgets]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "XLA_FLAGS": XLA_FLAGS, "PYTHONWARNINGS": "ignore"}
    environment["PYTHONPATH"] = str(ROOT)
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"no answer within {LIMIT} s"}
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    line: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return line


def own(who: str, problem: str, seed: int) -> dict[str, object]:
    """One run of our own package."""
    if who.endswith("again"):
        with tempfile.TemporaryDirectory() as cache:
            accuracy.run(problem, seed, cache, budgets=(1,))  # compiles
            result = accuracy.run(problem, seed, cache)
    else:
        result = accuracy.run(problem, seed)
    if "failed" in result:
        return {"failed": result["failed"]}
    kept = {name: result[name] for name in ("errors", "steps", "parameters")}
    return {"library": "pde_train", "version": version("pde_train"), **kept}


def missing(given: argparse.Namespace) -> list[tuple[int, str, str]]:
    """Seed, problem and who of the runs that do not stand in the results, in turns."""
    known = {(r["seed"], r["problem"], r["who"]) for r in side_by_side.results()}
    return [
        (seed, problem, who)
        for seed in range(given.seeds)
        for problem in given.problems
        for who in given.who or side_by_side.OF[problem]
        if (seed, problem, who) not in known
    ]


def main(words: Sequence[str] | None = None) -> None:
    """Run what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", nargs="+", choices=side_by_side.BUDGETS, default=list(side_by_side.BUDGETS))
    parser.add_argument("--who", nargs="+", choices=side_by_side.WHO, help="by default those of the table")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args(words)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])  # for all processes that this one starts
    for seed, problem, who in missing(given):
        with tempfile.TemporaryDirectory() as folder:
            if who.startswith("pde_train"):
                result = own(who, problem, seed)
            else:
                path = Path(folder) / "task.npz"
                write_task(problem, seed, path)
                result = reference(who, problem, path)
        line = {"who": who, "problem": problem, "seed": seed, **result}
        print(line, flush=True)
        with side_by_side.RESULTS.open("a") as file:
            file.write(json.dumps(line) + "\n")
        accuracy.PAGE.write_text(accuracy.page())
    accuracy.PAGE.write_text(accuracy.page())


if __name__ == "__main__":
    main()
