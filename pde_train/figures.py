"""Pictures of a run and of a sweep. Every function returns a matplotlib Figure and touches no global state."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pde_train.entropy import Entropy
from pde_train.geometry import Box
from pde_train.problem import Problem

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Okabe and Ito's palette, told apart by colour-blind readers."""

DASHES = ("-", "--", "-.", ":")
"""Styles of the lines of a panel in turn: where two agree, the one below shows in the gaps of the other."""

MOST_NUMBERS = 12
"""Columns of a map whose numbers are written into it."""

Curve = tuple[np.ndarray, np.ndarray]
"""x and y of a line, (k,) each."""


def spectra(by_step: Mapping[int, np.ndarray]) -> Figure:
    """Singular values against their index, one line a step."""
    figure, axes = _figure("index k", "singular value s_k", "Singular values")
    shades = colormaps["viridis"](np.linspace(0, 0.9, len(by_step)))
    for colour, (step, values) in zip(shades, sorted(by_step.items()), strict=True):
        axes.semilogy(
            np.arange(1, len(values) + 1), _positive(values), ".-", color=colour, ms=3, lw=1, label=f"step {step}"
        )
    if len(by_step) > 1:
        axes.legend(fontsize=7)
    return figure


def entropy_by_threshold(by_step: Mapping[int, np.ndarray], entropy: Entropy) -> Figure:
    """Truncated entropy against the threshold, at the first and the last step that has a spectrum."""
    how = "relative to s_1" if entropy.relative else "absolute"
    figure, axes = _figure(
        f"threshold a, {how}", f"truncated entropy ({entropy.normalisation})", "Entropy by threshold"
    )
    for colour, step in zip(COLOURS, sorted({min(by_step), max(by_step)}), strict=False):
        found = entropy.at_thresholds(by_step[step])
        axes.semilogx(
            [h.threshold for h in found], [h.normalised for h in found], "o-", color=colour, label=f"step {step}"
        )
    axes.legend()
    return figure


def history(series: Mapping[str, Mapping[int, float]]) -> Figure:
    """Loss at every step, relative errors where they were measured."""
    shown = [key for key in ("loss", "error_l2", "error_max") if series.get(key)]
    words = "loss, relative error" if len(shown) > 1 else "loss"
    figure, axes = _figure("optimiser step", words, "Loss and error" if len(shown) > 1 else "Loss")
    for colour, key in zip(COLOURS, shown, strict=False):
        points = sorted(series[key].items())
        style = "-" if key == "loss" else ".-"
        axes.semilogy([k for k, _ in points], _positive([v for _, v in points]), style, color=colour, lw=1, label=key)
    axes.legend()
    return figure


def solution(problem: Problem) -> Figure:
    """The model, beside the exact solution where it is known."""
    x, fields = _sampled(problem)
    if x.shape[1] > 1:
        return _maps(problem, x, fields)
    figure, axes = _figure(problem.pde.coordinates[0], "u", "Solution")
    order = np.argsort(x[:, 0])
    if "exact" in fields:
        axes.plot(x[order, 0], fields["exact"][order], color=COLOURS[1], lw=3, alpha=0.5, label="exact")
    axes.plot(x[order, 0], fields["model"][order], color=COLOURS[0], lw=1, label="model")
    axes.legend()
    return figure


def error(problem: Problem) -> Figure:
    """The difference between the model and the exact solution, which must be known."""
    x, fields = _sampled(problem)
    difference = fields["model"] - fields["exact"]
    if x.shape[1] > 1:
        return _maps(problem, x, {"u - exact": difference})
    figure, axes = _figure(problem.pde.coordinates[0], "u - exact", "Error")
    order = np.argsort(x[:, 0])
    axes.plot(x[order, 0], difference[order], color=COLOURS[0], lw=1)
    axes.axhline(0, color="grey", lw=0.5)
    return figure


def comparison(numbers: Mapping[str, Mapping[str, float]]) -> Figure:
    """The worst relative error of a derivative, and that of the gradient, against the time of one gradient."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    worst = {n: max((v for k, v in q.items() if k.startswith("error/")), default=np.nan) for n, q in numbers.items()}
    gradient = {n: q["gradient_error"] for n, q in numbers.items()}
    panels = {"worst relative error of a derivative": worst, "relative error of the gradient": gradient}
    for axes, (title, values) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        for i, (name, value) in enumerate(values.items()):
            colour, marker = COLOURS[i % len(COLOURS)], "o+x^vsdP*<>"[i % 11]
            seconds = 1e3 * numbers[name]["seconds"]
            axes.loglog(seconds, max(value, 1e-17), marker, color=colour, label=name)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(lambda v, _: f"{v:g}" if f"{v:e}"[0] in "25" else "")
        axes.set_xlabel("one loss and gradient (ms)")
        axes.set_title(title, fontsize=10)
        axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", fontsize=7)
    return figure


def bands(
    panels: Mapping[str, Mapping[str, Sequence[Curve]]],
    xlabel: str,
    ylabel: str,
    logarithmic: str,
    marks: str = "",
    note: str = "",
) -> Figure:
    """A panel for each title, in it for each label the median of its curves, and a band from the least to the greatest.

    logarithmic: the axes that are, of "x" and "y". marks: "o" for marks without lines, "o-" for both. The labels of
    many lines stand beside the panel.
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
            x, values = _aligned(curves)
            axes.plot(x, np.median(values, axis=0), marker + line, color=colour, ms=3.5, mfc="none", label=label)
            if len(curves) > 1:
                axes.fill_between(x, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.2, lw=0)
        for axis in logarithmic:
            getattr(axes, f"set_{axis}scale")("log", **({"nonpositive": "mask"}))
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
    figure.suptitle("; ".join(notes), fontsize=9)
    return figure


def heat_maps(
    panels: Mapping[str, np.ndarray], rows: tuple[str, Sequence[str]], columns: tuple[str, Sequence[str]], metric: str
) -> Figure:
    """A metric by two keys, colours by its decimal logarithm; rows and columns are a key and its values.

    Fields without a number are grey. In small maps the metric itself stands in each field.
    """
    size = (1.5 + 0.8 * len(columns[1])) * len(panels), 1.5 + 0.5 * len(rows[1])
    figure = Figure(figsize=(max(5, min(size[0], 16)), max(3, min(size[1], 12))), layout="constrained")
    logs = {title: np.log10(_positive(values.ravel())).reshape(values.shape) for title, values in panels.items()}
    finite = np.concatenate([values[np.isfinite(values)] for values in logs.values()])
    low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 1.0)
    if high - low < 0.1:  # fields that all but agree are not to look apart
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
    """The number in each field of a map, white on what is darker than the middle of the scale."""
    for (row, column), value in np.ndenumerate(logs):
        if np.isfinite(value):
            colour = "white" if value < middle else "black"
            axes.text(column, row, f"{10**value:.1e}", ha="center", va="center", fontsize=7, color=colour)


def _aligned(curves: Sequence[Curve]) -> tuple[np.ndarray, np.ndarray]:
    """Common x (k,) and values (curves, k): as many points as all curves have."""
    least = min(len(x) for x, _ in curves)
    return curves[0][0][:least], np.stack([values[:least] for _, values in curves])


def _figure(xlabel: str, ylabel: str, title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    axes.grid(alpha=0.3)
    return figure, axes


def _positive(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Values for a log axis; what cannot stand on it is left out."""
    array = np.asarray(values, dtype=float)
    return np.where(np.isfinite(array) & (array > 0), array, np.nan)


def _sampled(problem: Problem) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Points (n, d), and there the `model` and, where it is known, the `exact` solution, each (n,).

    Test points; where d > 2 those of the plane of the first two coordinates.
    """
    x = problem.test_batch["interior"].x
    if x.shape[1] > 2 and not problem.sampler.places_points:
        x = x.new_tensor(_plane(problem.pde.domain))
    with torch.no_grad():
        fields = {"model": problem.model(x)} | ({"exact": problem.exact(x)} if problem.pde.has_exact else {})
    return x.cpu().numpy(), {name: values.cpu().numpy()[:, 0] for name, values in fields.items()}


def _plane(box: Box) -> np.ndarray:
    """A grid of 101 x 101 points over the first two coordinates, with the others in the middle of the box."""
    unit = np.full((101**2, box.dimension), 0.5)
    unit[:, :2] = np.stack(np.meshgrid(*[np.linspace(0, 1, 101)] * 2, indexing="ij"), axis=-1).reshape(-1, 2)
    return box.place(unit)


def _maps(problem: Problem, x: np.ndarray, fields: Mapping[str, np.ndarray]) -> Figure:
    """Fields over the first two coordinates: on a square grid, or at the points of a sampler that places its own."""
    box, side = problem.pde.domain, round(len(x) ** 0.5)
    figure = Figure(figsize=(5 * len(fields), 4), layout="constrained")
    for axes, (title, values) in zip(figure.subplots(1, len(fields), squeeze=False)[0], fields.items(), strict=True):
        extent = (box.lower[0], box.upper[0], box.lower[1], box.upper[1])
        if problem.sampler.places_points:
            image = axes.scatter(x[:, 0], x[:, 1], c=values, s=8, cmap="viridis")
            axes.set(xlim=extent[:2], ylim=extent[2:])
        else:
            grid = values.reshape(side, side).T
            image = axes.imshow(grid, origin="lower", extent=extent, aspect="auto", cmap="viridis")
        axes.set(title=title, xlabel=problem.pde.coordinates[0], ylabel=problem.pde.coordinates[1])
        figure.colorbar(image, ax=axes)
    return figure
