"""What the figures of the report share: bands over seeds, panels that stand two a row, and their titles in words."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pde_train.plots import Curve, bands

LEAST_TO_GREATEST = "lines: medians over seeds; bands: least to greatest"

MOST_NAMED = 3
"""The largest number of schemes that a note above the panels names; legends name all."""

WORDS = {
    "random_features": "random features",
    "two_layer": "two-layer network",
    "mlp": "network of several layers",
    "adam": "Adam",
    "ssbroyden": "SSBroyden",
    "adam_then_lbfgs": "Adam, then L-BFGS",
    "gauss_newton": "Gauss-Newton",
}
"""Models and optimisers as titles name them."""


def title(levels: Mapping[str, Any]) -> str:
    """The title of a panel from the levels of its factors: its PDE, its model, its optimiser, and what else it has."""
    own = dict(levels)
    steps = own.pop("steps", None)
    if own.pop("method", None) == "gauss_newton":
        own["optimizer"] = "gauss_newton"
    words = ", ".join(WORDS.get(str(level), str(level)) for level in own.values())
    return words if steps is None else f"{words},\nat most {int(steps)} steps"


def panels_of_bands(
    table: pd.DataFrame,
    titles: Sequence[str],
    schemes: Sequence[str],
    curve: Callable[[Mapping[str, object]], Curve],
    logarithmic: str,
    xlabel: str,
    ylabel: str,
    marks: str = "",
    held: bool = False,
) -> Figure | None:
    """Draw a curve of every run: a panel for each combination of levels, and in it a band for each scheme.

    Args:
        table: The runs.
        titles: The factors that divide them into panels.
        schemes: The schemes that are drawn, in this order.
        curve: The curve of a run, from its row of the table.
        logarithmic: Which axes are logarithmic, see `pde_train.plots.bands`.
        xlabel: The label of the x-axes.
        ylabel: The label of the y-axes.
        marks: Marks on the curves, see `bands`.
        held: Whether curves that end early keep their last value, see `bands`.

    Returns:
        The figure; None where no run has a curve.
    """
    by_title = {}
    for key, group in table.groupby(list(titles), sort=False):
        lines = {}
        for scheme in schemes:
            curves = [curve(run) for run in group[group["scheme"] == scheme].to_dict("records")]
            lines[scheme] = [c for c in curves if len(c[0]) > 1]
        if any(lines.values()):
            by_title[title(dict(zip(titles, key, strict=True)))] = lines
    if not by_title:
        return None
    shown = [scheme for scheme in schemes if any(lines[scheme] for lines in by_title.values())]
    note = f"derivatives by {', '.join(shown)}" if len(shown) <= MOST_NAMED else ""
    return bands(by_title, xlabel, ylabel, logarithmic, marks, note=note, held=held)


def panels(count: int, height: float, note: str) -> tuple[Figure, Iterable[Axes]]:
    """A figure with so many panels, two a row, each of that height in inches, and a note above them."""
    columns = min(2, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(4.6 * columns, height * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[count:]:
        axes.set_visible(False)
    figure.suptitle(textwrap.fill(note, 60 * columns), fontsize=9)
    return figure, grid[:count]


def band(axes: Axes, levels: Any, between: tuple[float, float], colour: str, label: str) -> None:
    """Draw the median of grouped numbers at each level, and a band between two of their quantiles."""
    low, middle, high = (levels.quantile(q) for q in (between[0], 0.5, between[1]))
    axes.plot(middle.index, middle, "o-", color=colour, ms=3.5, label=label)
    axes.fill_between(middle.index, low, high, color=colour, alpha=0.2, lw=0)
