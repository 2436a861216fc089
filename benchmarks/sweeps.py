"""`python -m benchmarks.sweeps`: the same grids by three launchers, from the shell to the last row in MLflow.

Start-up and compilation are included: each measurement has an empty store, and compiled code of its own.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import results

LAUNCHERS = {
    "basic": [],
    "joblib, 2 processes": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    "stacked": ["hydra/launcher=stacked"],
    "stacked, code kept": ["hydra/launcher=stacked"],
}

RATES = ",".join(f"{k}e-5" for k in range(20, 84))

GRIDS = {
    "64 networks, 64 seeds": (64, ["model=two_layer", "model.width=50", "method.steps=2000", "seed=range(64)"]),
    "64 networks, 64 learning rates": (
        64,
        ["model=two_layer", "model.width=50", "method.steps=2000", f"optimizer.lr={RATES}"],
    ),
    "256 random features": (
        256,
        ["model=random_features", "model.features=200", "sampler.interior=400", "seed=range(256)"],
    ),
}


def measure(words: Sequence[str], cells: int, folder: Path, cache: Path) -> float:
    """Seconds of a sweep; fails unless every cell has arrived in the store."""
    command = [sys.executable, "-m", "pde_train", "--multirun", "pde=poisson_1d", *words]
    environment = {**os.environ, "PDE_TRAIN_CACHE": str(cache)}
    began = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}")
    check(folder, cells)
    return seconds


def check(folder: Path, cells: int) -> None:
    """Refuse a store in which a run is missing, unfinished, or has other rows than its record."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("pde_train")
    assert experiment is not None
    runs = [
        r
        for r in client.search_runs([experiment.experiment_id], max_results=5000)
        if "mlflow.parentRunId" in r.data.tags
    ]
    assert len(runs) == cells, len(runs)
    assert {r.info.status for r in runs} == {"FINISHED"}
    for run in runs[:: max(1, cells // 8)]:
        history = folder / "multirun" / "cells" / run.data.tags["config_hash"] / "history.csv"
        histories = [line.partition(",")[0] for line in history.read_text().splitlines()[1:]]
        for key in set(histories):
            assert len(client.get_metric_history(run.info.run_id, key)) == histories.count(key), key


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table of medians over rounds, and ratios within a round; write it down."""
    parser = argparse.ArgumentParser("python -m benchmarks.sweeps", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--grids", nargs="*", default=[], help="some of them, by a part of their names")
    given = parser.parse_args(arguments)
    lines: list[list[object]] = []
    for grid, (cells, words) in GRIDS.items():
        if given.grids and not any(part in grid for part in given.grids):
            continue
        seconds: dict[str, list[float]] = {launcher: [] for launcher in LAUNCHERS}
        for _ in range(given.rounds):
            with tempfile.TemporaryDirectory() as name:
                for launcher, choice in LAUNCHERS.items():
                    folder = Path(name) / launcher.replace(" ", "_")
                    folder.mkdir()
                    cache = Path(name) / "code" / launcher.partition(",")[0]
                    seconds[launcher].append(measure([*words, *choice], cells, folder, cache))
                    shutil.rmtree(folder)
        for launcher, own in seconds.items():
            spread = f"{statistics.median(own):.0f} ({min(own):.0f} ... {max(own):.0f})"
            ratios = [
                statistics.median(b / a for a, b in zip(own, seconds[other], strict=True))
                for other in ("basic", "joblib, 2 processes")
            ]
            lines.append([grid, launcher, given.rounds, spread, f"{ratios[0]:.1f}", f"{ratios[1]:.1f}"])
            print(*lines[-1], sep=" | ", flush=True)
    columns = (
        "grid",
        "launcher",
        "rounds",
        "seconds: median (min ... max)",
        "basic takes, times as long",
        "joblib takes",
    )
    results.put("Sweeps", "python -m benchmarks.sweeps", results.table(columns, lines))


if __name__ == "__main__":
    main()
