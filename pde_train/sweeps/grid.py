"""A grid of cells, each named by what decides its numbers, and each done once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pde_train.errors import UsageError
from pde_train.overrides import Override, Overrides, common
from pde_train.run_folder import CELLS, CHECKPOINT, RESULT_FILE, Status, is_locked, write_whole
from pde_train.runs import provenance
from pde_train.runs.result import Result

STACKS = "stacks"
"""Folder of the jobs in which cells train as one, beside that of all cells."""

GRID_FILE = "grid.json"

NOT_IN_A_LABEL = ("entropy", "figures", "hydra", "name", "tracking")
"""Keys that may be swept and are no part of a run's name: its training is shared."""

OF_DIFFERENCES = ("accuracy", "step", "part")
"""Keys of a differentiator that its short name contains: `FD2 auto`."""


@dataclass(frozen=True)
class Cell:
    """One run of a grid.

    Attributes:
        overrides: The words that make it.
        name: The hash of what decides its numbers.
        folder: Of the run, the same in every grid that contains it.
        entropy: Its entropy group, which does not decide how it is trained.
        config: Its resolved configuration, empty where the grid was read from its file.
        choices: The choice of every configuration group, likewise.
    """

    overrides: Overrides
    name: str
    folder: Path
    entropy: Mapping[str, Any]
    config: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    choices: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, overrides: Sequence[str], config: Mapping[str, Any], choices: Mapping[str, str], sweeps: Path) -> Cell:
        """The cell of a resolved configuration, below the folder of all sweeps."""
        name = provenance.config_hash(config)
        folder = sweeps / CELLS / name
        return cls(Overrides.parse(overrides), name, folder, config["entropy"], config, choices)

    @property
    def result(self) -> Result | None:
        """What the cell has come to, None before its end; a result that cannot be read is that of a failed run."""
        return Result.of_a_cell(self.folder)

    @property
    def status(self) -> Status:
        """What has become of it; interrupted, too, where there is a checkpoint and no result."""
        if is_locked(self.folder):
            return Status.RUNNING
        if (result := self.result) is not None:
            return result.status
        return Status.INTERRUPTED if (self.folder / CHECKPOINT).exists() else Status.WAITING


@dataclass(frozen=True)
class Grid:
    """The cells of one command line and the folder of what they show together; `grid.json` there keeps it.

    Attributes:
        title: The experiment, or what kind of sweep it is.
        cells: The runs.
        folder: Of the parent run.
        shared: Of cells that become more, the words that name none, as all have them; None where they are known.
        bounds: The file of the numbers by which a run is pruned; None where none is.
    """

    title: str
    cells: Sequence[Cell]
    folder: Path
    shared: frozenset[Override] | None = None
    bounds: Path | None = None

    @classmethod
    def of(cls, title: str, cells: Sequence[Cell], sweeps: Path) -> Grid:
        """The same cells make the same grid, whoever launches them and however often."""
        views = sorted(f"{cell.name} {json.dumps(cell.entropy, sort_keys=True)}" for cell in cells)
        name = f"{title}-{hashlib.sha256(json.dumps(views).encode()).hexdigest()[:8]}"
        return cls(title, cells, sweeps / name)

    def write(self, command: Sequence[str]) -> None:
        """Keep what the grid consists of, for `python -m pde_train.status`."""
        cells = [{"name": c.name, "overrides": c.overrides.words, "entropy": c.entropy} for c in self.cells]
        content = {"title": self.title, "command": list(command), "launched": time.time(), "cells": cells}
        write_whole(self.folder / GRID_FILE, f"{json.dumps(content, indent=1)}\n".encode())

    @classmethod
    def read(cls, folder: Path) -> Grid:
        """The grid that is kept in a folder."""
        try:
            content = json.loads((folder / GRID_FILE).read_text())
            sweeps = folder.parents[content["title"].count("/")]  # study/features lies one deeper than first_look
            cells = [
                Cell(Overrides.parse(c["overrides"]), c["name"], sweeps / CELLS / c["name"], c["entropy"])
                for c in content["cells"]
            ]
            return cls(content["title"], cells, folder)
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise UsageError(
                f"{folder} is no grid ({error}): expected the folder of a sweep with its {GRID_FILE}, such as "
                "multirun/first_look-1a2b3c4d"
            ) from error

    @property
    def distinct(self) -> list[Cell]:
        """One cell of each name: several may differ in how the entropy is taken and share their training."""
        return list({cell.name: cell for cell in reversed(self.cells)}.values())[::-1]

    @cached_property
    def parameters(self) -> dict[str, str]:
        """The parameters of the parent run: those of its cells, with every value that occurs; none where more come."""
        cells = self.cells if self.shared is None else []
        every = [provenance.parameters(cell.config, cell.choices) for cell in cells]
        keys = dict.fromkeys(key for own in every for key in own)
        return {key: ", ".join(dict.fromkeys(own[key] for own in every if key in own)) for key in keys}

    @cached_property
    def labels(self) -> dict[str, str]:
        """What was swept, by the name of a cell: `FD2 auto · lr 1e-3 · seed 3`."""
        shared = common(cell.overrides for cell in self.cells) if self.shared is None else self.shared
        return {cell.name: _label(cell, cell.overrides.swept(shared)) for cell in self.distinct}


def _label(cell: Cell, swept: Overrides) -> str:
    """What was swept of a cell in short, derivatives first, its seed last; nothing that decides no number."""
    words = [o for o in swept.without(*NOT_IN_A_LABEL) if o.value is not None and "$" not in o.value]
    words = sorted(words, key=lambda o: (o.group != "differentiator", o.key == "seed"))  # in their order otherwise
    differentiator = [word for word in words if word.group == "differentiator"]
    parts = {"differentiator" if word in differentiator else word.key: word for word in words}
    return " · ".join(
        _scheme(cell, differentiator) if key == "differentiator" else _in_short(word) for key, word in parts.items()
    )


def _in_short(override: Override) -> str:
    """`lr 1e-3` of `optimizer.lr=1e-3`, and `mlp` of `model=mlp`."""
    single = "." not in override.key and override.key != "seed"
    return str(override.value) if single else f"{override.last} {override.value}"


def _scheme(cell: Cell, swept: Sequence[Override]) -> str:
    """How a cell takes derivatives, in short: `taylor`, `FD2 auto`, `hybrid FD4 0.001`, and what else was swept."""
    choice, settings = cell.choices.get("differentiator", ""), cell.config.get("differentiator", {})
    kind, _, variant = choice.partition("/")
    if "accuracy" not in settings:
        words, named = [choice], []
    else:
        words = ["hybrid"] if kind == "hybrid" else []
        words += [f"FD{settings['accuracy']}", str(settings["step"])]
        words += [variant] if variant in ("inside", "rounding", "truncation") else []
        named = [*OF_DIFFERENCES]
    words += [f"{o.last} {o.value}" for o in swept if o.key != "differentiator" and o.last not in named]
    return " ".join(words)


def grid_files(sweeps: Path) -> list[Path]:
    """The file of every grid below the folder of sweeps, however deep; not among cells, of which there are many."""
    folders = [f for f in sweeps.glob("*") if f.name not in (CELLS, STACKS) and not f.name.startswith(".")]
    return [file for folder in folders for file in folder.rglob(GRID_FILE)]


def to_do(cells: Sequence[Cell], retry: bool, prunes: bool = False) -> list[Cell]:
    """The cells that are not done; failed ones are where they are not to be tried again, pruned ones where runs are."""
    done = {Status.FINISHED, *([] if retry else [Status.FAILED]), *([Status.PRUNED] if prunes else [])}
    return [cell for cell in cells if (result := cell.result) is None or result.status not in done]


def stale(cells: Sequence[Cell]) -> list[Cell]:
    """The cells that another version of this package's code has finished."""
    source = provenance.versions()["pde_train_source"]
    results = ((cell, cell.result) for cell in cells)
    return [c for c, r in results if r and r.is_finished and r.versions.get("pde_train_source") != source]


def forget(cells: Sequence[Cell]) -> None:
    """Remove how cells ended that will run again, so that a new end can be told from the old one."""
    for cell in cells:
        result = cell.result
        if result is not None and not result.is_finished:  # it may have finished just now
            with contextlib.suppress(OSError):
                (cell.folder / RESULT_FILE).unlink()


def settle(folder: Path, words: Sequence[str], error: str, status: Status = Status.FAILED) -> None:
    """Keep how a cell ended whose job left no word of it; nothing where there is a result, or a process at work."""
    if is_locked(folder) or Result.of_a_cell(folder) is not None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    Result(status, Overrides.parse(words).without("hydra", "sweep").words, error=error).write(folder)
