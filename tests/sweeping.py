"""Sweeps in processes of their own, and what they leave in a tracking store."""

import json
import os
from pathlib import Path
from typing import Any

import forked
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from pde_train.tracking.record import is_for_store

SMALL = ["model=two_layer", "model.width=5", "sampler.interior=16", "method.steps=60", "method.compile=never"]


def started(folder: Path, *words: str, figures: bool = False) -> forked.Forked:
    """`python -m pde_train --multirun ...`, begun in a folder, in a process group of its own."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("HYDRA", "MLFLOW"))}
    environment = {**clean, "OMP_NUM_THREADS": "1"} | ({} if figures else {forked.WITHOUT_FIGURES: ""})
    return forked.started("-m", "pde_train", "--multirun", *words, folder=folder, environment=environment)


def swept(folder: Path, *words: str, code: int = 0, figures: bool = False) -> tuple[str, str]:
    """What a sweep that ran to its end said on stdout and stderr."""
    process = started(folder, *words, figures=figures)
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, out + err
    return out, err


def results(folder: Path) -> dict[str, dict[str, Any]]:
    """The result of every cell below `multirun`, by its name."""
    return {f.parent.name: json.loads(f.read_text()) for f in folder.glob("multirun/cells/*/result.json")}


def store(folder: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")


def runs(folder: Path) -> tuple[list[Run], list[Run]]:
    """Parent runs, and runs that nest under one."""
    client = store(folder)
    found = client.search_runs([client.get_experiment_by_name("pde_train").experiment_id], max_results=5000)
    parents = [r for r in found if "sweep" in r.data.tags]
    ids = {r.info.run_id for r in parents}
    return parents, [r for r in found if r.data.tags.get("mlflow.parentRunId") in ids]


def rows(folder: Path, run: Run, key: str = "loss") -> list[tuple[int, float]]:
    return sorted((m.step, m.value) for m in store(folder).get_metric_history(run.info.run_id, key))


def assert_losses_in_store(steps: list[int], trained: int, stops: int = 0) -> None:
    """A store has each loss once: all that `is_for_store` names and the last, and one more for each stop."""
    whole = {step for step in range(trained) if is_for_store("loss", step)} | {trained - 1}
    assert sorted(set(steps)) == sorted(steps)
    assert whole <= set(steps) <= {*range(trained)}
    assert len(steps) <= len(whole) + stops
