"""The figures of the report. Each function returns a matplotlib Figure, or None where there are no runs to show."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pde_train.plots import COLOURS, Curve, bands
from pde_train.study.error_budget import CENTRE, METRICS, PDES, SCHEMES
from pde_train.study.hypotheses import Comparison, Level, Outcome
from pde_train.study.run_table import Runs, plain_name
from pde_train.study.verdicts import LARGE_VALUES, Verdict, paired, selected

FOUR = ("reverse", "FD2 h=auto", "FD2 h=grid", "FD2 h=0.001")

THREE = ("taylor", "FD2 h=auto", "FD2 h=grid")

NETWORKS: Mapping[str, Sequence[Level]] = {"model": ["two_layer"], "width": [50]}

FLOOR: Mapping[str, Sequence[Level]] = {**NETWORKS, "interior": [200], "precision": ["float64"]}
"""Networks that are trained until nothing improves."""

OF_TRAINING = ("pde", "optimizer", "method")
"""What a panel of trained networks has in common."""

LEVELS = 10.0 ** -np.arange(0.0, 10.5, 0.5)
"""Residuals of the run with exact derivatives at which errors are compared."""


def floors(runs: Runs, verdict: Verdict) -> Figure | None:
    """Residual and error of random features against the step of finite differences."""
    table = selected(runs.trained, CENTRE)
    return _by_step(table, ("residual", "error_l2"), ("residual of the system", "error"))


def losses(runs: Runs, verdict: Verdict) -> Figure | None:
    """The loss of networks against the optimiser step."""
    table = selected(runs.trained, FLOOR).sort_values(["method", "optimizer", "pde"])
    return _bands(table, OF_TRAINING, THREE, _curve(runs, "loss"), "xy", "optimiser step + 1", "loss")


def ratios(runs: Runs, verdict: Verdict) -> Figure | None:
    """The ratio of the losses of a pair of networks against the optimiser step."""
    table, exact = _with_partners(runs)

    def ratio(run: Mapping[str, object]) -> Curve:
        (steps, ours), (_, theirs) = runs.curve(str(run["id"]), "loss"), runs.curve(exact[run["pair"]], "loss")
        both = min(len(ours), len(theirs))  # each run ends where nothing improves
        return steps[:both] + 1.0, ours[:both] / theirs[:both]

    schemes = [scheme for scheme in THREE if scheme != "taylor"]
    return _bands(table, OF_TRAINING, schemes, ratio, "xy", "optimiser step + 1", "loss, FD / AD")


def levels(runs: Runs, verdict: Verdict) -> Figure | None:
    """The ratio of the errors of a pair against the residual that the run with exact derivatives has reached."""
    table, exact = _with_partners(runs)

    def ratio(run: Mapping[str, object]) -> Curve:
        steps, residuals = runs.curve(exact[run["pair"]], "residual")
        reached = [float(steps[below[0]]) for level in LEVELS if len(below := np.flatnonzero(residuals <= level))]
        ours, theirs = (_at(runs.curve(str(i), "error_l2"), reached) for i in (run["id"], exact[run["pair"]]))
        return LEVELS[: len(reached)], ours / theirs

    schemes = [scheme for scheme in sorted(table["scheme"].unique()) if scheme != "taylor"]
    return _bands(table, OF_TRAINING, schemes, ratio, "xy", "residual of the run with AD", "error, FD / AD", "o-")


def _with_partners(runs: Runs) -> tuple[pd.DataFrame, pd.Series]:
    """The runs of FLOOR that have a partner with exact derivatives, and the ids of these by pair."""
    table = selected(runs.trained, FLOOR).sort_values(["method", "optimizer", "pde"])
    exact = table[table["scheme"] == "taylor"].drop_duplicates("pair").set_index("pair")["id"]
    return table[table["pair"].isin(exact.index)], exact


def _at(curve: Curve, steps: Sequence[float]) -> np.ndarray:
    """The last value of a curve at or before each of some steps."""
    places = np.searchsorted(curve[0], steps, side="right") - 1
    values: np.ndarray = curve[1][np.clip(places, 0, None)] if len(curve[1]) else np.full(len(steps), np.nan)
    return values


def frontier(runs: Runs, verdict: Verdict) -> Figure | None:
    """The error of networks against the seconds of their steps, a mark for each scheme."""
    table = selected(runs.trained, FLOOR)
    groups = [(key, g) for key, g in table.groupby(list(OF_TRAINING), sort=True) if g["scheme"].nunique() > 1]
    if not groups:
        return None
    figure = Figure(figsize=(9, 3.4 * -(-len(groups) // 2)), layout="constrained")
    grid = figure.subplots(-(-len(groups) // 2), 2, squeeze=False).ravel()
    for axes, (key, group) in zip(grid, groups, strict=False):
        for i, (scheme, own) in enumerate(group.groupby("scheme")):
            low, error, high = own["error_l2"].quantile([0, 0.5, 1])
            seconds, colour = own["seconds"].median(), COLOURS[i % len(COLOURS)]
            axes.plot([seconds, seconds], [low, high], color=colour, lw=3, alpha=0.3)
            axes.plot(seconds, error, "ox^vsD"[i % 6], color=colour, ms=5, label=scheme)
        axes.set(xscale="log", yscale="log", xlabel="seconds of all steps", ylabel="error")
        axes.set_title(", ".join(map(str, key)), fontsize=9)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=6)
    for axes in grid[len(groups) :]:
        axes.set_visible(False)
    figure.suptitle("dots: medians over seeds; bars: least to greatest", fontsize=9)
    return figure


def cross(runs: Runs, verdict: Verdict) -> Figure | None:
    """By how much the exact residual exceeds the trained one, against the number of points."""
    table = selected(runs.trained, {**NETWORKS, "optimizer": ["ssbroyden"], "precision": ["float64"]})
    table = table[table["scheme"].isin(THREE) & table["pde"].isin(PDES)]
    if table["interior"].nunique() < 2 or "audit/ratio" not in table:
        return None
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    pdes = sorted(table["pde"].unique())
    for axes, pde in zip(figure.subplots(1, len(pdes), squeeze=False)[0], pdes, strict=True):
        for i, scheme in enumerate(THREE):
            own = table[(table["pde"] == pde) & (table["scheme"] == scheme)]
            if len(own):
                _band(axes, own.groupby("interior")["audit/ratio"], (0.0, 1.0), COLOURS[i], scheme)
        axes.set(xscale="log", yscale="log", xlabel="points", ylabel="exact residual / trained residual", title=pde)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    figure.suptitle("lines: medians over seeds; bands: least to greatest", fontsize=9)
    return figure


def spectra(runs: Runs, verdict: Verdict) -> Figure | None:
    """The singular values of the system matrix of random features against their index."""
    table = selected(runs.trained, CENTRE)

    def curve(run: Mapping[str, object]) -> Curve:
        index, values = runs.spectrum(str(run["id"]))
        return index + 1.0, values

    return _bands(table, ["pde"], FOUR, curve, "y", "index k", "singular value s_k", marks="o")


def entropies(runs: Runs, verdict: Verdict) -> Figure | None:
    """Truncated entropy of random features against the threshold, for every definition of it."""
    table = selected(runs.by_definition, CENTRE)
    thresholds = sorted((float(c.split("/")[1]), c) for c in table if c.startswith("entropy/"))

    def curve(run: Mapping[str, Any]) -> Curve:
        values = [(a, float(run[c])) for a, c in thresholds if np.isfinite(float(run[c]))]
        return np.array([a for a, _ in values]), np.array([v for _, v in values])

    kinds = table.assign(threshold=table["relative"].astype(str).map({"True": "relative", "False": "absolute"}))
    kinds = kinds[kinds["pde"].isin(PDES)].sort_values(["normalisation", "threshold", "pde"])
    return _bands(
        kinds, ["pde", "threshold", "normalisation"], FOUR, curve, "x", "threshold a", "truncated entropy", marks="o-"
    )


def gaps(runs: Runs, verdict: Verdict) -> Figure | None:
    """The gap of each trend against the factor along which it is taken: the order, or the depth."""
    panels = []
    for comparison in verdict.hypothesis.comparisons:
        pairs = paired(runs, comparison, comparison.quantity[0])
        pairs = pairs[pairs["lost"] == ""]
        if len(pairs) and pairs[comparison.over].nunique() > 1:
            panels.append((comparison, pairs))
    if not panels:
        return None
    figure = Figure(figsize=(9, 3.2 * -(-len(panels) // 2)), layout="constrained")
    grid = figure.subplots(-(-len(panels) // 2), 2, squeeze=False).ravel()
    for axes, (comparison, pairs) in zip(grid, panels, strict=False):
        for i, (label, group) in enumerate(_lines(pairs, comparison.strata)):
            _band(axes, group.groupby(comparison.over)["gap"], (0.25, 0.75), COLOURS[i % len(COLOURS)], label)
        axes.axhline(0, color="0.5", lw=0.8)
        unit = "log10 FD / AD" if comparison.scale == "log10" else "FD - AD"
        axes.set(xlabel=comparison.over, ylabel=f"{comparison.quantity[0]}\n{unit}")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_title(textwrap.fill(comparison.name, 60), fontsize=8)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=6)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    figure.suptitle("lines: medians over seeds; bands: middle half", fontsize=9)
    return figure


def predictors(runs: Runs, verdict: Verdict) -> Figure | None:
    """The correlation of every predictor of each ranking with its outcome."""
    panels = [
        (comparison, verdict.predictions[comparison.name])
        for comparison in verdict.hypothesis.comparisons
        if comparison.name in verdict.predictions
    ]
    if not panels:
        return None
    figure = Figure(figsize=(9, 7), layout="constrained")
    for axes, (comparison, by_label) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
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
        axes.set_yticks(range(len(names)), [plain_name(name) for name in names], fontsize=7)
        axes.set_xlabel(f"Spearman's correlation with {comparison.quantity[0]}")
        axes.set_title(
            "random features" if "residual" in comparison.quantity[0] else "networks, before training", fontsize=9
        )
        axes.grid(alpha=0.3)
    handles = max((axes.get_legend_handles_labels() for axes in figure.axes), key=lambda pair: len(pair[1]))
    figure.legend(*handles, loc="outside lower center", ncols=5, fontsize=7)
    figure.suptitle(
        "the larger the number in size, the better it predicts; bars: 95 % intervals over seeds", fontsize=9
    )
    return figure


def tested(runs: Runs, verdict: Verdict) -> Figure | None:
    """The estimates and intervals of the primary strata, with their margins and outcomes."""
    panels = [
        (comparison, [s for s in verdict.of(comparison) if s.when and np.isfinite(s.estimate.value)])
        for comparison in verdict.hypothesis.comparisons
    ]
    panels = [(comparison, strata) for comparison, strata in panels if strata]
    if not panels:
        return None
    heights = [len(strata) + 1.6 for _, strata in panels]
    figure = Figure(figsize=(9, 0.34 * sum(heights) + 0.4), layout="constrained")
    all_axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (comparison, strata) in zip(all_axes, panels, strict=True):
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
        axes.set_title(f"{comparison.name} ({unit(comparison)})", fontsize=8, loc="left")
        axes.grid(alpha=0.3, axis="x")
    return figure


OUTCOME_COLOURS = {Outcome.CLAIMED: COLOURS[2], Outcome.OPPOSITE: COLOURS[1], Outcome.SAME: COLOURS[0]}
"""The colours of the outcomes that decide a stratum; all others are grey."""


def unit(comparison: Comparison) -> str:
    """The unit of the number of a comparison, in words."""
    if comparison.kind == "ranking":
        return "lead of the best other"
    if comparison.kind == "correlation":
        return "rank correlation, mean over cells"
    gap = (
        "relative difference"
        if comparison.quantity[0] == LARGE_VALUES
        else "log10 FD / AD"
        if comparison.scale == "log10"
        else "FD - AD"
    )
    return f"{gap}, slope by {comparison.over}" if comparison.kind == "trend" else gap


def draw_error_budget(runs: Runs) -> Figure | None:
    """Residual and error of random features for every scheme of the error budget."""
    table = selected(runs.trained, CENTRE)
    present = [scheme for scheme in ("reverse", *SCHEMES) if (table["scheme"] == scheme).any()]
    if len(present) < 3:
        return None
    figure = Figure(figsize=(9, 0.26 * len(present) + 1.6), layout="constrained")
    all_axes = figure.subplots(1, 2, sharey=True)
    for axes, metric, title in zip(all_axes, METRICS, ("exact residual", "error"), strict=True):
        for i, pde in enumerate(PDES):
            for row, scheme in enumerate(present):
                values = table[(table["pde"] == pde) & (table["scheme"] == scheme)][metric].to_numpy()
                if len(values):
                    low, mid, high = np.quantile(values, [0, 0.5, 1])
                    axes.plot([low, high], [row, row], color=COLOURS[i], lw=3, alpha=0.4)
                    axes.plot(mid, row, "o", color=COLOURS[i], ms=4, label=pde if row == 0 else None)
        axes.set_xscale("log")
        axes.set_yticks(range(len(present)), present, fontsize=7)
        axes.set_xlabel(title)
        axes.grid(alpha=0.3)
    all_axes[0].invert_yaxis()
    all_axes[0].legend(fontsize=7)
    figure.suptitle("random features; dots: medians over seeds; bars: least to greatest", fontsize=9)
    return figure


def training(runs: Runs, verdict: Verdict) -> Figure | None:
    """The entropy of the residual Jacobian of networks against the optimiser step."""
    table = selected(runs.trained, NETWORKS)
    table = table[table["optimizer"] == "adam"]
    words = "optimiser step + 1", "entropy of the Jacobian (1e-8)"
    return _bands(table, ["pde"], THREE, _curve(runs, "entropy/1e-08"), "x", *words, marks="o-")


class Drawing(NamedTuple):
    """A figure of the report: the name of its files, the function that draws it, and its caption."""

    name: str
    draw: Callable[[Runs, Verdict], Figure | None]
    caption: str


TESTED = Drawing("tested", tested, "Estimates with 95 % intervals, and what was decided; shaded: within the margin.")

FIGURES: dict[int, Sequence[Drawing]] = {
    1: [
        TESTED,
        Drawing(
            "floors", floors, "Residual and error of random features, exact and by finite differences of every step."
        ),
    ],
    2: [
        TESTED,
        Drawing(
            "levels",
            levels,
            "The error with FD over that with AD, at the step at which the run with AD reaches a residual.",
        ),
        Drawing("frontier", frontier, "What each scheme attains, and how long its steps take; compilation is extra."),
        Drawing("losses", losses, "The loss at every step, a band over seeds for each scheme."),
        Drawing("ratios", ratios, "The loss with FD over the loss with AD at the same step of the same pair."),
    ],
    3: [TESTED, Drawing("spectra", spectra, "Singular values of the system, a band over seeds for each scheme.")],
    4: [
        TESTED,
        Drawing(
            "entropies",
            entropies,
            "Truncated entropy against threshold, for every definition, a band over seeds for each scheme.",
        ),
        Drawing(
            "predictors",
            predictors,
            "Rank correlations inside design cells, averaged over the cells of each PDE.",
        ),
    ],
    5: [TESTED, Drawing("gaps", gaps, "The gap between FD and AD against order and against depth.")],
    6: [TESTED, Drawing("cross", cross, "The exact residual over the one that was trained, by the number of points.")],
    7: [TESTED],
    8: [TESTED],
    9: [
        TESTED,
        Drawing("predictors", predictors, "Rank correlations inside design cells, averaged over the cells of each PDE."),
        Drawing("training", training, "The entropy of the residual Jacobian while networks train."),
    ],
}
"""The figures of each hypothesis, by its number."""


def _curve(runs: Runs, metric: str) -> Callable[[Mapping[str, object]], Curve]:
    """A function that gives the curve of a metric of a run, with steps counted from 1 for a logarithmic axis."""

    def of(run: Mapping[str, object]) -> Curve:
        steps, values = runs.curve(str(run["id"]), metric)
        return steps + 1.0, values

    return of


def _bands(
    table: pd.DataFrame,
    titles: Sequence[str],
    schemes: Sequence[str],
    curve: Callable[[Mapping[str, object]], Curve],
    logarithmic: str,
    xlabel: str,
    ylabel: str,
    marks: str = "",
) -> Figure | None:
    panels = {}
    for key, group in table.groupby(list(titles), sort=False):
        lines = {}
        for scheme in schemes:
            curves = [curve(run) for run in group[group["scheme"] == scheme].to_dict("records")]
            lines[scheme] = [c for c in curves if len(c[0]) > 1]
        if any(lines.values()):
            panels[", ".join(map(str, key))] = lines
    return bands(panels, xlabel, ylabel, logarithmic, marks) if panels else None


def _band(axes: Axes, levels: Any, between: tuple[float, float], colour: str, label: str) -> None:
    """Draw the median of grouped numbers at each level, and a band between two of their quantiles."""
    low, middle, high = (levels.quantile(q) for q in (between[0], 0.5, between[1]))
    axes.plot(middle.index, middle, "o-", color=colour, ms=3.5, label=label)
    axes.fill_between(middle.index, low, high, color=colour, alpha=0.2, lw=0)


def _by_step(table: pd.DataFrame, metrics: Sequence[str], names: Sequence[str]) -> Figure | None:
    """Metrics against the step of finite differences by PDE and accuracy, and their level with exact derivatives."""
    plain = table["scheme"].str.startswith("FD") & table["part"].isna() & table["richardson"].isin([np.nan, 0])
    table = table.assign(h=pd.to_numeric(table["step"], errors="coerce").where(plain))
    pdes = list(table["pde"].unique())
    if not table["h"].notna().any():
        return None
    figure = Figure(figsize=(3 * len(pdes), 5), layout="constrained")
    grid = figure.subplots(len(metrics), len(pdes), squeeze=False, sharex=True)
    for column, pde in enumerate(pdes):
        own = table[table["pde"] == pde]
        for row, (metric, name) in enumerate(zip(metrics, names, strict=True)):
            axes = grid[row, column]
            for accuracy, colour in ((2, COLOURS[0]), (4, COLOURS[1])):
                group = own[(own["accuracy"] == accuracy) & own["h"].notna()]
                if len(group):
                    _band(axes, group.groupby("h")[metric], (0.0, 1.0), colour, f"FD{accuracy}")
            exact = own[own["scheme"] == "reverse"][metric]
            if len(exact):
                axes.axhline(exact.median(), color="0.2", ls="--", label="AD")
                axes.axhspan(exact.min(), exact.max(), color="0.2", alpha=0.15, lw=0)
            axes.set(xscale="log", yscale="log")
            axes.grid(alpha=0.3)
            if row == 0:
                axes.set_title(pde, fontsize=9)
            if column == 0:
                axes.set_ylabel(name)
                axes.legend(fontsize=7)
            if row == len(metrics) - 1:
                axes.set_xlabel("step h")
    figure.suptitle("lines: medians over seeds; bands: least to greatest", fontsize=9)
    return figure


def _lines(pairs: pd.DataFrame, strata: Sequence[str]) -> list[tuple[str, pd.DataFrame]]:
    dividing = [f for f in strata if pairs[f].nunique() > 1]
    if not dividing:
        return [(str(pairs["scheme"].iloc[0]), pairs)]
    return [
        (", ".join(v if isinstance(v, str) else f"{f} {v:g}" for f, v in zip(dividing, key, strict=True)), group)
        for key, group in pairs.groupby(dividing)
    ]
