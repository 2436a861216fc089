"""The figures of the report. Each function returns a matplotlib Figure, or None where there are no runs to show."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pde_train.plots import COLOURS
from pde_train.study.drawing import band, panels
from pde_train.study.feature_figures import entropies, floors, spectra
from pde_train.study.hypotheses import Outcome
from pde_train.study.network_figures import answer, cross, frontier, levels, losses, ratios, training
from pde_train.study.pairs import paired
from pde_train.study.run_table import Runs
from pde_train.study.verdicts import Verdict
from pde_train.study.words import in_words, unit


def gaps(runs: Runs, verdict: Verdict) -> Figure | None:
    """The gap of each trend against the factor along which it is taken: the order, or the depth."""
    shown = []
    for comparison in verdict.hypothesis.comparisons:
        pairs = paired(runs, comparison, comparison.quantity[0])
        pairs = pairs[pairs["lost"] == ""]
        if len(pairs) and pairs[comparison.over].nunique() > 1:
            shown.append((comparison, pairs))
    if not shown:
        return None
    figure, grid = panels(len(shown), 3.4, "lines: medians over seeds; bands: middle half")
    for axes, (comparison, pairs) in zip(grid, shown, strict=True):
        for i, (label, group) in enumerate(_lines(pairs, comparison.strata)):
            band(axes, group.groupby(comparison.over)["gap"], (0.25, 0.75), COLOURS[i % len(COLOURS)], label)
        axes.axhline(0, color="0.5", lw=0.8)
        unit = "log10 FD / AD" if comparison.scale == "log10" else "FD - AD"
        axes.set(xlabel=comparison.over, ylabel=f"{in_words(comparison.quantity[0])}\n{unit}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(textwrap.fill(comparison.name, 60), fontsize=8)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=6)
    return figure


def predictors(runs: Runs, verdict: Verdict) -> Figure | None:
    """The correlation of every predictor of each ranking with its outcome."""
    shown = [
        (comparison, verdict.predictions[comparison.name])
        for comparison in verdict.hypothesis.comparisons
        if comparison.name in verdict.predictions
    ]
    if not shown:
        return None
    note = "the larger the number in size, the better it predicts; bars: 95 % intervals over seeds"
    figure, grid = panels(len(shown), 6.5, note)
    for axes, (comparison, by_label) in zip(grid, shown, strict=True):
        largest = {
            name: max(abs(correlations[name].value) for correlations in by_label.values() if name in correlations)
            for correlations in by_label.values()
            for name in correlations
        }
        names = sorted(largest, key=lambda name: largest[name])
        for i, (label, estimates) in enumerate(by_label.items()):
            rows = [(names.index(name), e) for name, e in estimates.items()]
            y = np.array([row for row, _ in rows]) + 0.15 * (len(by_label) / 2 - i)
            x = np.array([e.value for _, e in rows])
            spread = np.abs([[e.value - e.low for _, e in rows], [e.high - e.value for _, e in rows]])
            axes.errorbar(x, y, xerr=spread, fmt=".", color=COLOURS[i % len(COLOURS)], lw=0.8, ms=5, label=label)
        axes.axvline(0, color="0.5", lw=0.8)
        axes.set_xlim(-1.05, 1.05)
        axes.set_yticks(range(len(names)), [in_words(name) for name in names], fontsize=7)
        axes.set_xlabel(
            f"Spearman's correlation with\n{textwrap.fill(in_words(comparison.quantity[0]), 34)}", fontsize=8
        )
        axes.set_title(textwrap.fill(comparison.name, 36), fontsize=8)
        axes.grid(alpha=0.3)
    handles = max((axes.get_legend_handles_labels() for axes in figure.axes), key=lambda pair: len(pair[1]))
    figure.legend(*handles, loc="outside lower center", ncols=5, fontsize=7)
    return figure


def tested(runs: Runs, verdict: Verdict) -> Figure | None:
    """The estimates and intervals of the primary strata, with their margins and outcomes."""
    shown = [
        (comparison, [s for s in verdict.of(comparison) if s.when and np.isfinite(s.estimate.value)])
        for comparison in verdict.hypothesis.comparisons
    ]
    shown = [(comparison, strata) for comparison, strata in shown if strata]
    if not shown:
        return None
    heights = [len(strata) + 1.6 for _, strata in shown]
    figure = Figure(figsize=(9, 0.34 * sum(heights) + 0.4), layout="constrained")
    all_axes = figure.subplots(len(shown), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (comparison, strata) in zip(all_axes, shown, strict=True):
        ends = [(s.estimate.low, s.estimate.high) for s in strata]
        finite = [v for e, s in zip(ends, strata, strict=True) for v in (*e, s.estimate.value) if np.isfinite(v)]
        reach = max(*(abs(v) for v in finite), comparison.margin) * 1.15
        axes.axvspan(-comparison.margin, comparison.margin, color="0.85", lw=0)
        axes.axvline(0, color="0.5", lw=0.8)
        for row, (s, (low, high)) in enumerate(zip(strata, ends, strict=True)):
            colour = OUTCOME_COLOURS.get(s.outcome or Outcome.OPEN, "0.4")
            axes.plot(np.clip([low, high], -2 * reach, 2 * reach), [row, row], color=colour, lw=2)
            axes.plot(s.estimate.value, row, "o", color=colour, ms=5)
            axes.annotate(f" {s.outcome}", (1, row), xycoords=("axes fraction", "data"), fontsize=7, va="center")
        axes.set_yticks(range(len(strata)), [s.when for s in strata], fontsize=7)
        left = -reach if min(finite) < -comparison.margin else -2.5 * comparison.margin
        axes.set(ylim=(len(strata) - 0.4, -0.6), xlim=(-1, 1) if comparison.kind == "correlation" else (left, reach))
        axes.tick_params(axis="x", labelsize=7)
        axes.set_title(textwrap.fill(f"{comparison.name} ({unit(comparison)})", 110), fontsize=8, loc="left")
        axes.grid(alpha=0.3, axis="x")
    return figure


OUTCOME_COLOURS = {Outcome.CLAIMED: COLOURS[2], Outcome.OPPOSITE: COLOURS[1], Outcome.SAME: COLOURS[0]}
"""The colours of the outcomes that decide a stratum; all others are grey."""


class Drawing(NamedTuple):
    """A figure of the report: the function that draws it, and its caption."""

    draw: Callable[[Runs, Verdict], Figure | None]
    caption: str


FIGURES = {
    "tested": Drawing(tested, "Estimates with 95 % intervals, and what was decided; shaded: within the margin."),
    "floors": Drawing(floors, "Residual and error of random features, exact and by finite differences of every step."),
    "levels": Drawing(
        levels, "The error with FD over that with AD, at the step at which the run with AD reaches a residual."
    ),
    "answer": Drawing(answer, "The same for the biharmonic equation in one dimension and SSBroyden."),
    "frontier": Drawing(frontier, "What each scheme attains, and how long its steps take; compilation is extra."),
    "losses": Drawing(losses, "The loss at every step, a band over seeds for each scheme."),
    "ratios": Drawing(ratios, "The loss with FD over the loss with AD at the same step of the same pair."),
    "training": Drawing(training, "The entropy of the residual Jacobian while networks train."),
    "spectra": Drawing(spectra, "Singular values of the system, a band over seeds for each scheme."),
    "entropies": Drawing(
        entropies, "Truncated entropy against threshold, for every definition, a band over seeds for each scheme."
    ),
    "predictors": Drawing(predictors, "Rank correlations inside design cells, averaged over the cells of each PDE."),
    "gaps": Drawing(gaps, "The gap between FD and AD against order and against depth."),
    "cross": Drawing(cross, "The exact residual over the one that was trained, by the number of points."),
}
"""The figures that a hypothesis may name."""


def _lines(pairs: pd.DataFrame, strata: Sequence[str]) -> list[tuple[str, pd.DataFrame]]:
    dividing = [f for f in strata if pairs[f].nunique() > 1]
    if not dividing:
        return [(str(pairs["scheme"].iloc[0]), pairs)]
    return [
        (", ".join(v if isinstance(v, str) else f"{f} {v:g}" for f, v in zip(dividing, key, strict=True)), group)
        for key, group in pairs.groupby(dividing)
    ]
