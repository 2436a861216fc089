"""What one run leaves behind in its folder for a sweep's table, for scripts, and for a later resume."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pde_train.errors import RunError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

CELLS = "cells"
"""Folder of all cells of sweeps, by their names."""

RESULT_FILE = "result.json"
CHECKPOINT = "checkpoint.ckpt"
JOURNAL = "tracking.jsonl"
DELIVERED = "tracking.delivered"
ENDS = ("finished", "failed", "interrupted")
OF_TRACKING = (JOURNAL, DELIVERED)
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
    set_aside(folder)


def set_aside(folder: Path) -> None:
    """Move what a tracking store may not have yet to `earlier-1`, `-2`, ..., from where it can still be delivered."""
    kept = [folder / name for name in OF_TRACKING if (folder / name).exists()]
    if kept:
        earlier = folder / f"earlier-{1 + len(list(folder.glob('earlier-*')))}"
        earlier.mkdir()
        for file in kept:
            file.rename(earlier / file.name)


def write_whole(file: Path, data: bytes) -> None:
    """Write a file whole or not at all, also where the machine loses power at any moment."""
    beside = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        with beside.open("wb") as opened:
            opened.write(data)
            opened.flush()
            os.fsync(opened.fileno())
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # of a file system that keeps folders in another way
            os.fsync(folder)
    finally:
        os.close(folder)


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
        write_whole(folder / RESULT_FILE, f"{json.dumps(plain, indent=1)}\n".encode())

    @classmethod
    def read(cls, folder: Path) -> Result | None:
        """The result in a folder, None where there is none. RunError where it cannot be read."""
        file = folder / RESULT_FILE
        if not file.exists():
            return None
        try:
            found = _adapter().validate_python(json.loads(file.read_text()))
            if found.status not in ENDS:
                raise ValueError(f"its status is {found.status!r}")
            return replace(found, folder=folder)
        except (OSError, ValueError, TypeError) as error:
            reason = "; ".join(str(error).strip().splitlines()[:2])
            raise RunError(
                f"{file} is not the result of a run ({reason}): expected one, remove it to run again"
            ) from error

    @classmethod
    def of_a_cell(cls, folder: Path) -> Result | None:
        """The same for one of many: a result that cannot be read is that of a run that has failed."""
        try:
            return cls.read(folder)
        except RunError as error:
            return cls("failed", error=str(error), folder=folder)


@cache
def _adapter() -> TypeAdapter[Result]:
    """What checks the fields of a result that is read."""
    from pydantic import TypeAdapter

    return TypeAdapter(Result)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
