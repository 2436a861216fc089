"""The cells of a grid in one picture each: curves, spectra and entropies by what was swept, and a map of two keys."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from pde_train import plots
from pde_train.errors import RunError
from pde_train.plots import Curve
from pde_train.run_folder import SPECTRA
from pde_train.runs import tables
from pde_train.runs.result import Result
from pde_train.singular_values import load_spectra

MOST_PANELS = 12
"""Groups of cells that are drawn; the table has all."""

OF_A_HEADING = ("pde", "model", "differentiator")
"""Groups whose choices the heading of an overlay names where all cells share them."""

MAPPED = "error_l2"
"""The metric of the map."""


def draw(results: Sequence[Result]) -> dict[str, Figure]:
    """Every overlay that cells give, by its name; seeds of a cell make a band, the map shows what is missing."""
    groups = tables.groups(results)
    shown = dict(itertools.islice(groups.items(), MOST_PANELS))
    left_out = f"the first {MOST_PANELS} of {len(groups)} groups" if len(groups) > MOST_PANELS else ""
    drawn = {}
    overlays: list[tuple[str, Callable[[Result], Curve], dict[str, Any]]] = [
        ("loss", _loss, {"xlabel": "optimiser step + 1", "ylabel": "loss", "logarithmic": "xy"}),
        ("spectra", _spectrum, {"xlabel": "index k", "ylabel": "singular value s_k", "logarithmic": "y", "marks": "o"}),
        ("entropy", _entropy, {**_of_entropy(results), "logarithmic": "x", "marks": "o-"}),
    ]
    for name, curve_of, words in overlays:
        panels = {
            title: {label: [c for r in cells if len((c := curve_of(r))[0]) > 1] for label, cells in lines.items()}
            for title, lines in shown.items()
        }
        if any(curves for lines in panels.values() for curves in lines.values()):
            drawn[name] = plots.bands(panels, note=left_out, **words)
    drawn |= _maps(results)
    return {name: plots.headed(figure, _shared(results)) for name, figure in drawn.items()}


def _shared(results: Sequence[Result]) -> str:
    """The PDE, the model and the differentiator that all results share, as far as they do."""
    every = [{r.choices.get(group, "") for r in results if r.choices} for group in OF_A_HEADING]
    return ", ".join(choices.pop() for choices in every if len(choices) == 1)


def _loss(result: Result) -> Curve:
    points = [(step + 1, value) for step, value in result.curves.get("loss", ()) if value is not None]
    return np.array([s for s, _ in points], dtype=float), np.array([v for _, v in points])


def _spectrum(result: Result) -> Curve:
    """The final singular values of a result, from its folder or, of a view, from that of its cell.

    Args:
        result: Of a cell.

    Returns:
        Indices from 1 and singular values, both empty where no file can be read.
    """
    for folder in (result.folder or Path(), (result.folder or Path()).parent):
        with contextlib.suppress(RunError):
            if spectra := load_spectra(folder / SPECTRA):
                values = spectra[max(spectra)].values
                return np.arange(1, len(values) + 1, dtype=float), values
    return np.array([]), np.array([])


def _entropy(result: Result) -> Curve:
    entropies = {float(k.removeprefix("entropy/")): v for k, v in result.metrics.items() if k.startswith("entropy/")}
    points = sorted((a, v) for a, v in entropies.items() if v is not None and a > 0)
    return np.array([a for a, _ in points]), np.array([v for _, v in points])


def _of_entropy(results: Sequence[Result]) -> dict[str, str]:
    """Labels of the axes: thresholds and normalisation are named where all results share them."""
    relative = {r.entropy.get("relative") for r in results if r.is_finished}
    normalisations = {r.entropy.get("normalisation") for r in results if r.is_finished}
    how = ", relative to s_1" if relative == {True} else ", absolute" if relative == {False} else ""
    norm = normalisations.pop() if len(normalisations) == 1 else None
    return {"xlabel": f"threshold a{how}", "ylabel": f"entropy ({norm})" if norm else "truncated entropy"}


def _in_order(values: Sequence[str]) -> list[str]:
    """Numbers by their size, words as they came."""
    try:
        return sorted(values, key=float)
    except ValueError:
        return list(values)


def _maps(results: Sequence[Result]) -> dict[str, Figure]:
    """The median error over seeds by two swept keys; with three, of which one takes derivatives, a map for each way."""
    chosen = [{o.key: o.value for o in r.words if o.value is not None} for r in results]
    values: dict[str, list[str]] = {}
    for words in chosen:
        for key, value in words.items():
            values.setdefault(key, [])
            if value not in values[key]:
                values[key].append(value)
    swept = [key for key, found in values.items() if len(found) > 1 and key != "seed"]
    ways = "differentiator" if len(swept) == 3 and "differentiator" in swept else None
    axes = [key for key in swept if key != ways]
    if len(axes) != 2:
        return {}
    rows, columns = axes
    values = {key: _in_order(found) for key, found in values.items()}
    cells: dict[str, dict[tuple[str, str], list[float]]] = {}
    for words, result in zip(chosen, results, strict=True):
        if (number := result.metrics.get(MAPPED)) is not None and rows in words and columns in words:
            panel = words.get(ways, "") if ways else ""
            cells.setdefault(panel, {}).setdefault((words[rows], words[columns]), []).append(number)
    panels = {
        panel: np.array([[np.median(found.get((a, b), [np.nan])) for b in values[columns]] for a in values[rows]])
        for panel, found in cells.items()
    }
    if not panels:
        return {}
    return {"map": plots.heat_maps(panels, (rows, values[rows]), (columns, values[columns]), plots.IN_WORDS[MAPPED])}
