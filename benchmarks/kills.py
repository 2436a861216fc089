"""`python -m benchmarks.kills`: a grid under random kill -9 of its launcher and workers ends as one left in peace."""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

WORDS = [
    "model=two_layer",
    "model.width=5",
    "sampler=uniform",
    "sampler.interior=16",
    "method.steps=300",
    "method.checkpoint_every=50",
    "method.compile=never",
    "diagnostics.when=[last]",
]

SAME = ("error_l2", "residual", "residual_exact", "loss", "spectrum/max", "spectrum/min", "entropy/1e-08")
"""Metrics that must be the same bits, kills or not."""


def launch(folder: Path, cells: int, launcher: Sequence[str], *more: str) -> subprocess.Popen[bytes]:
    """Begin the grid, or go on with it."""
    command = [sys.executable, "-m", "pde_train", "--multirun", *WORDS, f"seed=range({cells})", *launcher, *more]
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


def workers(group: int) -> list[int]:
    """The processes of a group but its leader, and those below it (joblib's stand in groups of their own)."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid=,pgid=,stat="], capture_output=True, text=True, check=True).stdout
    found = {group}
    rows = [line.split() for line in listed.splitlines()]
    for _ in range(5):
        found |= {int(pid) for pid, parent, pgid, _ in rows if int(parent) in found or int(pgid) in found}
    alive = {int(pid) for pid, _, _, state in rows if not state.startswith("Z")}
    return sorted((found & alive) - {group})


def tortured(folder: Path, cells: int, launcher: Sequence[str], kills: int, generator: random.Random) -> dict[str, int]:
    """Launch again and again, killing at random, until the grid is complete; what was killed how often."""
    done = {"launcher": 0, "workers": 0, "launches": 0}
    while True:
        process = launch(folder, cells, launcher)
        done["launches"] += 1
        while process.poll() is None and done["launcher"] + done["workers"] < kills:
            try:
                process.wait(generator.uniform(3.0, 12.0))
            except subprocess.TimeoutExpired:
                below = workers(process.pid)
                if below and generator.random() < 0.5:
                    os.kill(generator.choice(below), signal.SIGKILL)
                    done["workers"] += 1
                else:
                    for pid in (process.pid, *below) if generator.random() < 0.5 else (process.pid,):
                        try:
                            os.kill(pid, signal.SIGKILL)
                        except ProcessLookupError:
                            continue
                    done["launcher"] += 1
        if process.wait() == 0:
            return done


def results(folder: Path) -> dict[str, dict[str, Any]]:
    """What every cell has come to."""
    return {f.parent.name: json.loads(f.read_text()) for f in folder.glob("multirun/cells/*/result.json")}


def compare(disturbed: Path, peace: Path, cells: int, exact: bool) -> None:
    """Refuse a grid that is not complete, has a run or a row twice, or other numbers than the one left in peace."""
    from mlflow.tracking import MlflowClient

    found, expected = results(disturbed), results(peace)
    assert len(found) == cells, len(found)
    assert found.keys() == expected.keys()
    for name, result in found.items():
        assert result["status"] == "finished", result
        for key in SAME:
            one, other = result["metrics"][key], expected[name]["metrics"][key]
            assert one == other if exact else abs(one - other) <= 1e-3 * abs(other) or key == "spectrum/min", (
                name,
                key,
            )
    client = MlflowClient(f"sqlite:///{disturbed / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("pde_train")
    assert experiment is not None
    runs = [
        r
        for r in client.search_runs([experiment.experiment_id], max_results=5000)
        if "mlflow.parentRunId" in r.data.tags
    ]
    assert sorted(r.data.tags["config_hash"] for r in runs) == sorted(found), "a cell has no run, or two"
    for run in runs:
        assert run.info.status == "FINISHED"
        steps = [m.step for m in client.get_metric_history(run.info.run_id, "loss")]
        assert sorted(steps) == list(range(300)), f"{len(steps)} rows"


def main(arguments: Sequence[str] | None = None) -> None:
    """Torture a grid, launch it once in peace, compare."""
    parser = argparse.ArgumentParser("python -m benchmarks.kills", description=__doc__)
    parser.add_argument("--cells", type=int, default=200)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stacked", action="store_true", help="hydra/launcher=stacked in place of joblib")
    given = parser.parse_args(arguments)
    joblib = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    launcher = ["hydra/launcher=stacked"] if given.stacked else joblib
    with tempfile.TemporaryDirectory() as name:
        disturbed, peace = Path(name) / "disturbed", Path(name) / "peace"
        for folder in (disturbed, peace):
            folder.mkdir()
        began = time.monotonic()
        done = tortured(disturbed, given.cells, launcher, given.kills, random.Random(given.seed))
        minutes = (time.monotonic() - began) / 60
        assert launch(peace, given.cells, launcher, "tracking=none").wait() == 0
        compare(disturbed, peace, given.cells, exact=not given.stacked)
    print(
        f"{given.cells} cells, {done['launcher']} launchers and {done['workers']} workers killed, {done['launches']} "
        f"launches, {minutes:.1f} min: every cell finished, once, with every row, "
        + ("to rounding" if given.stacked else "with the same bits")
    )


if __name__ == "__main__":
    main()
