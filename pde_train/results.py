"""What one run leaves behind in its folder for a sweep's table, for scripts, and for a later resume."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pde_train.errors import RunError

CELLS = "cells"
"""Folder of all cells of sweeps, by their names."""

RESULT_FILE = "result.json"
CHECKPOINT = "checkpoint.ckpt"
JOURNAL = "tracking.jsonl"
DELIVERED = "tracking.delivered"
RUN_ID_FILE = "mlflow_run_id"
OF_TRACKING = (RUN_ID_FILE, JOURNAL, DELIVERED)
OF_A_RUN = (CHECKPOINT, RESULT_FILE, "spectrum.csv", "spectrum.npz", "comparison.csv", "traceback.txt")

FIGURES = (
    "solution",
    "error",
    "loss_and_error",
    "singular_values",
    "entropy",
    "comparison",
    "compared_singular_values",
)
"""Names of the pictures of a run."""

MARK = "config_hash"
"""File that says which configuration the run of a folder has, see `pde_train.provenance.config_hash`."""

WRITTEN = ("config.yaml", "model.pt", "history.csv", "figures", CHECKPOINT, "spectrum.csv", "spectrum.npz")
"""What a run writes besides its result."""


def clear(folder: Path) -> None:
    """Remove what an older run left there; what its tracking store may not have yet moves to `earlier-1`, `-2`, ..."""
    for old in OF_A_RUN:
        (folder / old).unlink(missing_ok=True)
    for name in FIGURES:
        (folder / "figures" / f"{name}.png").unlink(missing_ok=True)
    for old_view in folder.glob("entropy-*/result.json"):
        old_view.unlink()
    kept = [folder / name for name in OF_TRACKING if (folder / name).exists()]
    if kept:
        earlier = folder / f"earlier-{1 + len(list(folder.glob('earlier-*')))}"
        earlier.mkdir()
        for file in kept:
            file.rename(earlier / file.name)


@dataclass(frozen=True)
class Result:
    """The outcome of one run: `finished`, `failed` with a sentence, or `interrupted`. Kept as `result.json`.

    notes: words about the metrics, such as how a spectrum was taken. entropy: the group by which entropies were taken.
    curves: the loss at some steps, as (step, value). folder: where it was read from.
    """

    status: str
    overrides: list[str] = field(default_factory=list)
    choices: dict[str, str] = field(default_factory=dict)
    config_hash: str = ""
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    error: str | None = None
    notes: Mapping[str, str] = field(default_factory=dict)
    entropy: Mapping[str, Any] = field(default_factory=dict)
    curves: Mapping[str, Sequence[tuple[int, float | None]]] = field(default_factory=dict)
    folder: Path | None = None

    @property
    def flags(self) -> str:
        """What a reader must know of the numbers, see `pde_train.flags`; empty where there is nothing."""
        return self.notes.get("flags", "").replace("none", "")

    def write(self, folder: Path) -> None:
        """Write it whole or not at all; numbers that JSON does not know (nan, inf) become null."""
        plain = {k: v for k, v in asdict(self).items() if k != "folder"} | {
            "metrics": {k: _finite(v) for k, v in self.metrics.items()},
            "curves": {k: [(step, _finite(v)) for step, v in curve] for k, curve in self.curves.items()},
        }
        beside = folder / f"{RESULT_FILE}.part"
        try:
            beside.write_text(json.dumps(plain, indent=1) + "\n")
            beside.replace(folder / RESULT_FILE)
        finally:
            beside.unlink(missing_ok=True)

    @classmethod
    def read(cls, folder: Path) -> Result | None:
        """The result in a folder, None where there is none."""
        file = folder / RESULT_FILE
        if not file.exists():
            return None
        try:
            return cls(**json.loads(file.read_text()), folder=folder)
        except (ValueError, TypeError) as error:
            raise RunError(
                f"{file} is not the result of a run ({error}): expected one, remove it to run again"
            ) from error


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
