"""Pictures of a run. Every function returns a matplotlib Figure and touches no global state."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure

from pde_train.entropy import Entropy
from pde_train.geometry import Box, Domain
from pde_train.plots import COLOURS, IN_WORDS, positive, single
from pde_train.problem import Problem

LINES = 12
"""The largest number of spectra in one figure."""


def spectra(by_step: Mapping[int, np.ndarray]) -> Figure:
    """Singular values against their index, one line a step; of many steps, LINES spread by their logarithm."""
    steps = sorted(by_step)
    places = np.unique(np.geomspace(1, len(steps), LINES).round().astype(int)) - 1
    by_step = {steps[place]: by_step[steps[place]] for place in places}
    figure, axes = single("index k", "singular value s_k", "Singular values")
    shades = colormaps["viridis"](np.linspace(0, 0.9, len(by_step)))
    for colour, (step, values) in zip(shades, sorted(by_step.items()), strict=True):
        axes.semilogy(
            np.arange(1, len(values) + 1), positive(values), ".-", color=colour, ms=3, lw=1, label=f"step {step}"
        )
    if len(by_step) > 1:
        axes.legend(fontsize=7)
    return figure


def entropy_by_threshold(by_step: Mapping[int, np.ndarray], entropy: Entropy) -> Figure:
    """Truncated entropy against the threshold, at the first and the last step that has a spectrum."""
    how = "relative to s_1" if entropy.relative else "absolute"
    figure, axes = single(f"threshold a, {how}", f"truncated entropy ({entropy.normalisation})", "Entropy by threshold")
    for colour, step in zip(COLOURS, sorted({min(by_step), max(by_step)}), strict=False):
        entropies = entropy.at_thresholds(by_step[step])
        axes.semilogx(
            [h.threshold for h in entropies],
            [h.normalised for h in entropies],
            "o-",
            color=colour,
            label=f"step {step}",
        )
    axes.legend()
    return figure


def history(series: Mapping[str, Mapping[int, float]]) -> Figure:
    """Loss at every step, relative errors where they were measured."""
    shown = [key for key in IN_WORDS if series.get(key)]
    words = "loss, relative error" if len(shown) > 1 else "loss"
    figure, axes = single("optimiser step", words, "Loss and error" if len(shown) > 1 else "Loss")
    for colour, key in zip(COLOURS, shown, strict=False):
        points = sorted(series[key].items())
        style = "-" if key == "loss" else ".-"
        axes.semilogy(
            [k for k, _ in points], positive([v for _, v in points]), style, color=colour, lw=1, label=IN_WORDS[key]
        )
    if floor := series.get("reference_error"):
        axes.axhline(max(floor.values()), color="grey", ls=":", lw=1, label="error of the reference")
    axes.legend()
    return figure


def solution(problem: Problem) -> Figure:
    """The model, beside the exact solution where it is known; a row of panels for each unknown."""
    x, fields = _sampled(problem)
    names = problem.pde.names_of_columns(fields["model"].shape[1])
    if x.shape[1] > 1:
        titles = fields if len(names) == 1 else {f"{name}, {field}": () for name in names for field in fields}
        panels = [values[:, i] for i in range(len(names)) for values in fields.values()]
        return _maps(problem, x, dict(zip(titles, panels, strict=True)), len(fields))
    return _curves(
        problem, x, "Solution", {name: {f: v[:, i] for f, v in fields.items()} for i, name in enumerate(names)}
    )


def error(problem: Problem) -> Figure:
    """The difference between the model and the exact solution, which must be known; a panel for each unknown."""
    x, fields = _sampled(problem)
    known = _known(problem)
    differences = {
        f"{name} - {known}": fields["model"][:, i] - fields[known][:, i]
        for i, name in enumerate(problem.pde.names_of_columns(fields[known].shape[1]))
    }
    if x.shape[1] > 1:
        return _maps(problem, x, differences, 1)
    return _curves(problem, x, "Error", {name: {"model": values} for name, values in differences.items()})


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


def _sampled(problem: Problem) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The model and the exact solution at the test points; where d > 2, on the plane of the first two coordinates.

    Args:
        problem: With its trained model.

    Returns:
        Points (n, d), and by name ``exact`` or ``reference``, where it is known, and ``model``, with a column for each
        unknown.
    """
    x = problem.test_batch["interior"].x
    on_plane = x.shape[1] > 2 and not problem.sampler.places_points
    if on_plane:
        plane = _plane(problem.pde.domain)
        x = x.new_tensor(plane[problem.pde.domain.contains(plane)])
    with torch.no_grad():
        values = problem.model(x)
        fields = {"model": values[:, : values.shape[1] - len(problem.pde.learned)]}
        if problem.pde.has_exact:
            exact = problem.exact(x) if on_plane else problem.exact_on_test_points
            fields = {"model": fields["model"][:, : exact.shape[1]], _known(problem): exact}
    return x.cpu().numpy(), {name: values.cpu().numpy() for name, values in fields.items()}


def _known(problem: Problem) -> str:
    """What the model is compared with, in a word."""
    return "reference" if problem.reference_error else "exact"


def _plane(box: Domain) -> np.ndarray:
    """A grid of 101 x 101 points over the first two coordinates, with the others in the middle of the box."""
    unit = np.full((101**2, box.dimension), 0.5)
    unit[:, :2] = np.stack(np.meshgrid(*[np.linspace(0, 1, 101)] * 2, indexing="ij"), axis=-1).reshape(-1, 2)
    return box.place(unit)


def _curves(problem: Problem, x: np.ndarray, title: str, panels: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Lines over the only coordinate: by the label of a y-axis, the field of the model and what is known of it."""
    order = np.argsort(x[:, 0])
    figure = Figure(figsize=(6, 4 * len(panels)), layout="constrained")
    for axes, (label, lines) in zip(figure.subplots(len(panels), 1, squeeze=False)[:, 0], panels.items(), strict=True):
        axes.set(xlabel=problem.pde.coordinates[0], ylabel=label, title=title)
        axes.grid(alpha=0.3)
        for known in set(lines) - {"model"}:
            axes.plot(x[order, 0], lines[known][order], color=COLOURS[1], lw=3, alpha=0.5, label=known)
        axes.plot(x[order, 0], lines["model"][order], color=COLOURS[0], lw=1, label="model")
        if len(lines) > 1:
            axes.legend()
    return figure


def _maps(problem: Problem, x: np.ndarray, fields: Mapping[str, np.ndarray], columns: int) -> Figure:
    """Fields over the first two coordinates, on a grid or at scattered points; those of a row share their colours."""
    box, side = problem.pde.domain, round(len(x) ** 0.5)
    rows = len(fields) // columns
    figure = Figure(figsize=(5 * columns, 4 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    every = list(fields.values())
    for i, (axes, (title, values)) in enumerate(zip(panels, fields.items(), strict=True)):
        row = np.concatenate(every[i - i % columns : i - i % columns + columns], axis=None)
        finite = row[np.isfinite(row)]
        limits = {"vmin": finite.min(), "vmax": finite.max()} if len(finite) else {}
        extent = (box.lower[0], box.upper[0], box.lower[1], box.upper[1])
        if problem.sampler.places_points or not isinstance(box, Box):
            image = axes.scatter(x[:, 0], x[:, 1], c=values, s=8, cmap="viridis", **limits)
            axes.set(xlim=extent[:2], ylim=extent[2:])
        else:
            grid = values.reshape(side, side).T
            image = axes.imshow(grid, origin="lower", extent=extent, aspect="auto", cmap="viridis", **limits)
        axes.set(title=title, xlabel=problem.pde.coordinates[0], ylabel=problem.pde.coordinates[1])
        figure.colorbar(image, ax=axes)
    return figure
