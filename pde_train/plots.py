"""Elements that all figures share: the palette, bands of curves, and heat maps. None of it needs torch."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterSciNotation

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Okabe and Ito's palette, told apart by colour-blind readers."""

DASHES = ("-", "--", "-.", ":")
"""The styles of the lines of a panel in turn, so that of two equal lines the lower one shows in the gaps."""

MOST_NUMBERS = 12
"""The largest number of columns of a heat map in which numbers are written."""

Curve = tuple[np.ndarray, np.ndarray]
"""The x and y values of a line, (k,) each."""


def bands(
    panels: Mapping[str, Mapping[str, Sequence[Curve]]],
    xlabel: str,
    ylabel: str,
    logarithmic: str,
    marks: str = "",
    note: str = "",
    held: bool = False,
) -> Figure:
    """Draw curves: a panel for each title, and in it for each label the median with a band from least to greatest.

    Args:
        panels: The curves by title and by label. Curves of one label are those of several seeds.
        xlabel: The label of the x-axes.
        ylabel: The label of the y-axes.
        logarithmic: Which axes are logarithmic: `x`, `y`, `xy`, or none.
        marks: `o` for marks without lines, `o-` for marks on lines; by default lines alone.
        note: A sentence above the panels.
        held: Whether curves that end early keep their last value to the end of the longest one of their label. By
            default all are cut where the shortest one ends.

    Returns:
        The figure. The labels of more than four lines are placed beside their panel.
    """
    many = max(map(len, panels.values())) > 4
    columns = 1 if many else min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(7.5, 4 * rows) if many else (4.2 * columns, 2.8 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (title, lines) in zip(grid, panels.items(), strict=False):
        for i, (label, curves) in enumerate(lines.items()):
            if not curves:
                continue
            colour, marker = COLOURS[i % len(COLOURS)], "o+x^vs"[i % 6] if marks else ""
            line = "" if marks == "o" else DASHES[i % len(DASHES)]
            x, values = _aligned(curves, held)
            axes.plot(x, np.median(values, axis=0), marker + line, color=colour, ms=3.5, mfc="none", label=label)
            if len(curves) > 1:
                axes.fill_between(x, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.2, lw=0)
        set_logarithmic(axes, logarithmic)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.set_title(textwrap.fill(title, 70 if many else 42), fontsize=10)
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=7, **({"loc": "center left", "bbox_to_anchor": (1.02, 0.5)} if many else {}))
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    seeds = max((len(curves) for lines in panels.values() for curves in lines.values()), default=0)
    notes = [note] if note else []
    if seeds > 1:
        notes.append(f"lines: medians over up to {seeds} seeds; bands: least to greatest")
    figure.suptitle(textwrap.fill("; ".join(notes), 60 * max(columns, 2 if many else 1)), fontsize=9)
    return figure


def heat_maps(
    panels: Mapping[str, np.ndarray], rows: tuple[str, Sequence[str]], columns: tuple[str, Sequence[str]], metric: str
) -> Figure:
    """Draw a metric by two keys, with colours by its decimal logarithm.

    Args:
        panels: The values of the metric (rows, columns) by title; nan where there is none.
        rows: The name of a key, and its values.
        columns: The name of the other key, and its values.
        metric: The name of the metric.

    Returns:
        The figure. Fields without a number are grey. Small maps have the number written in each
        field.
    """
    size = (1.5 + 0.8 * len(columns[1])) * len(panels), 1.5 + 0.5 * len(rows[1])
    figure = Figure(figsize=(max(5, min(size[0], 16)), max(3, min(size[1], 12))), layout="constrained")
    logs = {title: np.log10(positive(values.ravel())).reshape(values.shape) for title, values in panels.items()}
    finite = np.concatenate([values[np.isfinite(values)] for values in logs.values()])
    low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 1.0)
    if high - low < 0.1:  # fields that nearly agree should look alike
        low, high = low - 0.5, high + 0.5
    all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, values) in zip(all_axes, logs.items(), strict=True):
        image = axes.imshow(values, aspect="auto", cmap="viridis", vmin=low, vmax=high)
        axes.set(xlabel=columns[0], ylabel=rows[0], facecolor="0.85")
        axes.set_title(title, fontsize=10)
        axes.set_xticks(range(len(columns[1])), columns[1], rotation=45, ha="right", fontsize=8)
        axes.set_yticks(range(len(rows[1])), rows[1], fontsize=8)
        if len(columns[1]) * len(panels) <= MOST_NUMBERS:
            _write_numbers(axes, values, (low + high) / 2)
    figure.colorbar(image, ax=list(all_axes), label=f"log10 {metric}")
    grey = "; grey: none that finished" if any(np.isnan(values).any() for values in logs.values()) else ""
    figure.suptitle(f"{metric}, medians over seeds{grey}", fontsize=9)
    return figure


def _write_numbers(axes: Axes, logs: np.ndarray, middle: float) -> None:
    """Write the number into each field of a map, white on colours darker than the middle of the scale."""
    for (row, column), value in np.ndenumerate(logs):
        if np.isfinite(value):
            colour = "white" if value < middle else "black"
            axes.text(column, row, f"{10**value:.1e}", ha="center", va="center", fontsize=7, color=colour)


def set_logarithmic(axes: Axes, which: str) -> None:
    """Make axes logarithmic, with plain numbers at the ticks of a short axis.

    Args:
        axes: The axes.
        which: `x`, `y`, `xy`, or an empty text for none. Values that are not positive are left out.
    """
    for name in which:
        getattr(axes, f"set_{name}scale")("log", nonpositive="mask")
        axis = axes.xaxis if name == "x" else axes.yaxis
        axis.set_major_formatter(_Numbers())
        axis.set_minor_formatter(_Numbers(minor_thresholds=(1, 0.4)))


class _Numbers(LogFormatterSciNotation):
    """Powers of ten, and plain numbers where the axis spans less than a decade, such as 1.02, or two, such as 40."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        low, high = sorted(self.axis.get_view_interval())  # type: ignore[union-attr]  # has an axis when it is called
        text = str(super().__call__(x, pos))  # empty for ticks that would stand too close
        short = high < 10 * low or (low > 1e-3 and high < min(100 * low, 1e4))
        return f"{x:.4g}" if text and short else text


def _aligned(curves: Sequence[Curve], held: bool) -> tuple[np.ndarray, np.ndarray]:
    """The x (k,) and the values (curves, k) of curves, all of one length."""
    if held:
        longest = max((x for x, _ in curves), key=len)
        return longest, np.stack([np.pad(values, (0, len(longest) - len(values)), "edge") for _, values in curves])
    least = min(len(x) for x, _ in curves)
    return curves[0][0][:least], np.stack([values[:least] for _, values in curves])


IN_WORDS = {
    "loss": "loss",
    "error_l2": "relative L2 error",
    "error_max": "relative maximum error",
    "residual_held_out": "held-out residual",
}
"""What figures call metrics."""


def headed(figure: Figure, heading: str) -> Figure:
    """The figure with a line above all of its panels, which says what was run."""
    below = figure.get_suptitle()
    figure.suptitle("\n".join(filter(None, (textwrap.fill(heading, 90), below))), fontsize=9)
    return figure


def single(xlabel: str, ylabel: str, title: str) -> tuple[Figure, Axes]:
    """A figure with one panel, and its axes."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    axes.grid(alpha=0.3)
    return figure, axes


def positive(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """The values for a logarithmic axis, with nan in place of those that are not positive and finite."""
    array = np.asarray(values, dtype=float)
    return np.where(np.isfinite(array) & (array > 0), array, np.nan)
