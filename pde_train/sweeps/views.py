"""The same training under another entropy: recomputed from the singular values that a cell keeps."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig, ListConfig, OmegaConf

from pde_train.entropy import Entropy
from pde_train.instantiate import build_group, plain
from pde_train.run_folder import SPECTRA, Status, lock
from pde_train.runs import provenance
from pde_train.runs.result import Result
from pde_train.singular_values import load_spectra
from pde_train.sweeps.grid import Cell
from pde_train.tracking.base import Tracker

OF_AN_ENTROPY = ("cutoff/", "entropy/", "entropy_raw/", "effective_rank/", "condition/", "effective_dimension/")
"""What the metrics begin with that depend on thresholds, see `Entropy.metrics`."""


def seen(cell: Cell, config: DictConfig, tracker: Tracker, parent: Path) -> Result | None:
    """The result of a cell as a grid asks for it: with its overrides and its entropy.

    A view that is made for the first time is a run of its own in the store, nested in the sweep, and
    lies in a folder of its own below the cell's.

    Args:
        cell: Of the grid.
        config: Of the sweep.
        tracker: Of the sweep.
        parent: The folder of the grid.

    Returns:
        The result, None before the cell has ended.
    """
    trained = cell.result
    if trained is None:
        return None
    if trained.is_finished and trained.entropy != cell.entropy:
        trained = _view(cell, trained, config, tracker.sibling(), parent)
    return replace(trained, overrides=cell.overrides.words)


def _view(cell: Cell, trained: Result, config: DictConfig, tracker: Tracker, parent: Path) -> Result:
    mark = hashlib.sha256(json.dumps(cell.entropy, sort_keys=True).encode()).hexdigest()[:8]
    folder = cell.folder / f"entropy-{mark}"
    if (view := Result.read(folder)) is not None:
        return view
    group = OmegaConf.create({"entropy": dict(cell.entropy), "trusted_modules": config.trusted_modules})
    entropy: Entropy = build_group(group, "entropy")
    by_step = _metrics(cell, entropy)
    kept = {k: v for k, v in trained.metrics.items() if not _of_an_entropy(k)}
    last = by_step[max(by_step)] if by_step else {}
    result = replace(trained, metrics={**kept, **last}, entropy=dict(cell.entropy), folder=folder)
    with lock(folder) as mine:
        if mine:  # otherwise another sweep is keeping the same view
            _track(cell, result, by_step, config.trusted_modules, tracker, parent)
            result.write(folder)
    return result


def _metrics(cell: Cell, entropy: Entropy) -> dict[int, dict[str, float]]:
    """Every number of the cell's singular values under an entropy, by step."""
    spectra = load_spectra(cell.folder / SPECTRA)
    return {step: entropy.metrics(spectrum.values, spectrum.resolution) for step, spectrum in spectra.items()}


def _track(
    cell: Cell,
    result: Result,
    by_step: Mapping[int, Mapping[str, float]],
    trusted: ListConfig,
    tracker: Tracker,
    parent: Path,
) -> None:
    """Keep the view as a run: every metric of the cell's last step, and those of its spectra by step."""
    config = plain(OmegaConf.load(cell.folder / "config.yaml"))
    params = provenance.parameters({**config, "entropy": dict(cell.entropy)}, result.choices)
    folder = result.folder or cell.folder
    differentiator = {"differentiator": config["differentiator"], "trusted_modules": trusted}
    label = build_group(OmegaConf.create(differentiator), "differentiator").label
    tags = {
        **result.choices,
        **provenance.targets(config),
        "config_hash": cell.name,
        "differentiator_label": label,
        "view_of": cell.name,
    }
    name = config["name"] or provenance.name_of(result.choices)
    tracker.start(f"{name}, another entropy", folder, params, tags, parent)
    steps = int(result.metrics.get("steps") or 0)
    rows = {(key, steps): value for key, value in result.metrics.items() if value is not None}
    rows |= {(key, step): value for step, metrics in by_step.items() for key, value in metrics.items()}
    tracker.metrics([(key, value, step) for (key, step), value in rows.items()])
    tracker.finish(Status.FINISHED)


def _of_an_entropy(metric: str) -> bool:
    name = metric.split("/", 2)[2] if metric.startswith("compare/") else metric
    return name.startswith(OF_AN_ENTROPY)
