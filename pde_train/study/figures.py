"""The figures of the study's report, each from runs alone: a matplotlib Figure, or None where there is nothing."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pde_train.plots import COLOURS, Curve, bands
from pde_train.study.error_budget import CAUSES, CENTRE, METRICS, PDES
from pde_train.study.hypotheses import Comparison, Outcome
from pde_train.study.run_table import STARTS, Runs
from pde_train.study.verdicts import LARGE_VALUES, Verdict, paired, selected

FOUR = ("reverse", "FD2 h=auto", "FD2 h=grid", "FD2 h=0.001")

THREE = ("taylor", "FD2 h=auto", "FD2 h=grid")

NETWORKS: Mapping[str, Sequence[Any]] = {"model": ["two_layer"], "width": [50]}


def floors(runs: Runs, verdict: Verdict) -> Figure | None:
    """Claim 1: residual and error of random features, exact and by finite differences of every step."""
    table = selected(runs.trained, CENTRE)
    return _by_step(table, ("residual", "error_l2"), ("residual of the system", "error"))


def losses(runs: Runs, verdict: Verdict) -> Figure | None:
    """Claim 2: the loss at every step, a band over seeds for each way."""
    table = selected(runs.trained, NETWORKS).sort_values(["optimizer", "pde"])
    curve = _curve(runs, "loss")
    return _bands(table, ["pde", "optimizer"], THREE, curve, "xy", "optimiser step + 1", "loss")


def ratios(runs: Runs, verdict: Verdict) -> Figure | None:
    """Claim 2: the loss with FD over the loss with AD at the same step of the same pair."""
    table = selected(runs.trained, NETWORKS).sort_values(["optimizer", "pde"])
    exact = table[table["way"] == "taylor"].drop_duplicates("pair").set_index("pair")["id"]
    table = table[table["pair"].isin(exact.index)]

    def ratio(run: Mapping[str, object]) -> Curve:
        (steps, ours), (_, theirs) = runs.curve(str(run["id"]), "loss"), runs.curve(exact[run["pair"]], "loss")
        return steps + 1.0, ours / theirs

    ways = [way for way in THREE if way != "taylor"]
    return _bands(table, ["pde", "optimizer"], ways, ratio, "xy", "optimiser step + 1", "loss, FD / AD")


def spectra(runs: Runs, verdict: Verdict) -> Figure | None:
    """Claim 3: singular values of the system, a band over seeds for each way."""
    table = selected(runs.trained, CENTRE)

    def curve(run: Mapping[str, object]) -> Curve:
        index, values = runs.spectrum(str(run["id"]))
        return index + 1.0, values

    return _bands(table, ["pde"], FOUR, curve, "y", "index k", "singular value s_k", marks="o")


def entropies(runs: Runs, verdict: Verdict) -> Figure | None:
    """Claim 4: truncated entropy against threshold, for every definition, a band over seeds for each way."""
    table = selected(runs.by_definition, CENTRE)
    thresholds = sorted((float(c.split("/")[1]), c) for c in table if c.startswith("entropy/"))

    def curve(run: Mapping[str, object]) -> Curve:
        values = [(a, float(run[c])) for a, c in thresholds if np.isfinite(float(run[c]))]  # type: ignore[arg-type]
        return np.array([a for a, _ in values]), np.array([v for _, v in values])

    kinds = table.assign(threshold=table["relative"].astype(str).map({"True": "relative", "False": "absolute"}))
    kinds = kinds[kinds["pde"].isin(PDES)].sort_values(["normalisation", "threshold", "pde"])
    return _bands(
        kinds, ["pde", "threshold", "normalisation"], FOUR, curve, "x", "threshold a", "truncated entropy", marks="o-"
    )


def gaps(runs: Runs, verdict: Verdict) -> Figure | None:
    """Claim 5: the gap between FD and AD against order and against depth."""
    panels = []
    for one in verdict.claim.comparisons:
        pairs = paired(runs, one, one.quantity[0])
        pairs = pairs[pairs["lost"] == ""]
        if len(pairs) and pairs[one.over].nunique() > 1:
            panels.append((one, pairs))
    if not panels:
        return None
    figure = Figure(figsize=(9, 3.2 * -(-len(panels) // 2)), layout="constrained")
    grid = figure.subplots(-(-len(panels) // 2), 2, squeeze=False).ravel()
    for axes, (one, pairs) in zip(grid, panels, strict=False):
        for i, (label, group) in enumerate(_lines(pairs, one.strata)):
            _band(axes, group.groupby(one.over)["gap"], (0.25, 0.75), COLOURS[i % len(COLOURS)], label)
        axes.axhline(0, color="0.5", lw=0.8)
        unit = "log10 FD / AD" if one.scale == "log10" else "FD - AD"
        axes.set(xlabel=one.over, ylabel=f"{one.quantity[0]}\n{unit}")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_title(textwrap.fill(one.name, 60), fontsize=8)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=6)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    figure.suptitle("lines: medians over seeds; bands: middle half", fontsize=9)
    return figure


def predictors(runs: Runs, verdict: Verdict) -> Figure | None:
    """What predicts residual and speed: rank correlations inside design cells, averaged over the cells of each PDE."""
    panels = [
        (one, verdict.predictions[one.name]) for one in verdict.claim.comparisons if one.name in verdict.predictions
    ]
    if not panels:
        return None
    figure = Figure(figsize=(9, 7), layout="constrained")
    for axes, (one, by_label) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        largest = {
            name: max(abs(found[name].value) for found in by_label.values() if name in found)
            for found in by_label.values()
            for name in found
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
        axes.set_yticks(range(len(names)), [name.removeprefix(STARTS) for name in names], fontsize=7)
        axes.set_xlabel(f"Spearman's correlation with {one.quantity[0]}")
        axes.set_title("random features" if "residual" in one.quantity[0] else "networks, before training", fontsize=9)
        axes.grid(alpha=0.3)
    handles = max((axes.get_legend_handles_labels() for axes in figure.axes), key=lambda pair: len(pair[1]))
    figure.legend(*handles, loc="outside lower center", ncols=5, fontsize=7)
    figure.suptitle(
        "the larger the number in size, the better it predicts; bars: 95 % intervals over seeds", fontsize=9
    )
    return figure


def tested(runs: Runs, verdict: Verdict) -> Figure | None:
    """The primary strata: estimates with 95 % intervals, and what was decided; shaded: within the margin."""
    panels = [
        (one, [s for s in verdict.of(one) if s.when and np.isfinite(s.estimate.value)])
        for one in verdict.claim.comparisons
    ]
    panels = [(one, strata) for one, strata in panels if strata]
    if not panels:
        return None
    heights = [len(strata) + 1.6 for _, strata in panels]
    figure = Figure(figsize=(9, 0.34 * sum(heights) + 0.4), layout="constrained")
    all_axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (one, strata) in zip(all_axes, panels, strict=True):
        ends = [(s.estimate.low, s.estimate.high) for s in strata]
        finite = [v for e, s in zip(ends, strata, strict=True) for v in (*e, s.estimate.value) if np.isfinite(v)]
        reach = max(*(abs(v) for v in finite), one.margin) * 1.15
        axes.axvspan(-one.margin, one.margin, color="0.85", lw=0)
        axes.axvline(0, color="0.5", lw=0.8)
        for row, (s, (low, high)) in enumerate(zip(strata, ends, strict=True)):
            colour = TELLS.get(s.outcome or Outcome.OPEN, "0.4")
            axes.plot(np.clip([low, high], -2 * reach, 2 * reach), [row, row], color=colour, lw=2)
            axes.plot(s.estimate.value, row, "o", color=colour, ms=5)
            axes.annotate(f" {s.outcome}", (1, row), xycoords=("axes fraction", "data"), fontsize=7, va="center")
        axes.set_yticks(range(len(strata)), [s.when for s in strata], fontsize=7)
        left = -reach if min(finite) < -one.margin else -2.5 * one.margin
        axes.set(ylim=(len(strata) - 0.4, -0.6), xlim=(-1, 1) if one.kind == "correlation" else (left, reach))
        axes.tick_params(axis="x", labelsize=7)
        axes.set_title(f"{one.name} ({unit(one)})", fontsize=8, loc="left")
        axes.grid(alpha=0.3, axis="x")
    return figure


TELLS = {Outcome.CLAIMED: COLOURS[2], Outcome.OPPOSITE: COLOURS[1], Outcome.SAME: COLOURS[0]}
"""Colours of what was decided; what was not is grey."""


def unit(one: Comparison) -> str:
    """What the number of a comparison is, in short."""
    if one.kind == "ranking":
        return "lead of the best other"
    if one.kind == "correlation":
        return "rank correlation, mean over cells"
    gap = (
        "relative difference"
        if one.quantity[0] == LARGE_VALUES
        else "log10 FD / AD"
        if one.scale == "log10"
        else "FD - AD"
    )
    return f"{gap}, slope by {one.over}" if one.kind == "trend" else gap


def causes(runs: Runs) -> Figure | None:
    """Each part of FD's error alone, higher accuracy with the best step, and contour integrals."""
    table = selected(runs.trained, CENTRE)
    present = [way for way in ("reverse", *CAUSES) if (table["way"] == way).any()]
    if len(present) < 3:
        return None
    figure = Figure(figsize=(9, 0.26 * len(present) + 1.6), layout="constrained")
    all_axes = figure.subplots(1, 2, sharey=True)
    for axes, metric, title in zip(all_axes, METRICS, ("exact residual", "error"), strict=True):
        for i, pde in enumerate(PDES):
            for row, way in enumerate(present):
                values = table[(table["pde"] == pde) & (table["way"] == way)][metric].to_numpy()
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
    """The entropy of the residual Jacobian while networks train."""
    table = selected(runs.trained, NETWORKS)
    table = table[table["optimizer"] == "adam"]
    words = "optimiser step + 1", "entropy of the Jacobian (1e-8)"
    return _bands(table, ["pde"], THREE, _curve(runs, "entropy/1e-08"), "x", *words, marks="o-")


FIGURES: dict[int, Sequence[tuple[str, Callable[[Runs, Verdict], Figure | None]]]] = {
    1: [("tested", tested), ("floors", floors)],
    2: [("tested", tested), ("losses", losses), ("ratios", ratios), ("training", training)],
    3: [("tested", tested), ("spectra", spectra)],
    4: [("tested", tested), ("entropies", entropies), ("predictors", predictors)],
    5: [("tested", tested), ("gaps", gaps)],
}
"""The figures of each claim, by their names."""


def _curve(runs: Runs, metric: str) -> Callable[[Mapping[str, object]], Curve]:
    """The curve of a metric of a run with its steps from 1 on, for a logarithmic axis."""

    def of(run: Mapping[str, object]) -> Curve:
        steps, values = runs.curve(str(run["id"]), metric)
        return steps + 1.0, values

    return of


def _bands(
    table: pd.DataFrame,
    titles: Sequence[str],
    ways: Sequence[str],
    curve: Callable[[Mapping[str, object]], Curve],
    logarithmic: str,
    xlabel: str,
    ylabel: str,
    marks: str = "",
) -> Figure | None:
    panels = {}
    for key, group in table.groupby(list(titles), sort=False):
        lines = {}
        for way in ways:
            curves = [curve(run) for run in group[group["way"] == way].to_dict("records")]
            lines[way] = [c for c in curves if len(c[0]) > 1]
        if any(lines.values()):
            panels[", ".join(map(str, key))] = lines
    return bands(panels, xlabel, ylabel, logarithmic, marks) if panels else None


def _band(axes: Axes, levels: Any, between: tuple[float, float], colour: str, label: str) -> None:
    """The median of grouped numbers at each level, and a band between two quantiles."""
    low, middle, high = (levels.quantile(q) for q in (between[0], 0.5, between[1]))
    axes.plot(middle.index, middle, "o-", color=colour, ms=3.5, label=label)
    axes.fill_between(middle.index, low, high, color=colour, alpha=0.2, lw=0)


def _by_step(table: pd.DataFrame, metrics: Sequence[str], names: Sequence[str]) -> Figure | None:
    """Metrics against the step of finite differences, for each PDE and accuracy, and their level without any."""
    steps = table["way"].str.extract(r"^FD(\d) h=([\d.e-]+)$")
    table = table.assign(accuracy=steps[0], h=pd.to_numeric(steps[1]))
    pdes = list(table["pde"].unique())
    if not table["h"].notna().any():
        return None
    figure = Figure(figsize=(3 * len(pdes), 5), layout="constrained")
    grid = figure.subplots(len(metrics), len(pdes), squeeze=False, sharex=True)
    for column, pde in enumerate(pdes):
        own = table[table["pde"] == pde]
        for row, (metric, name) in enumerate(zip(metrics, names, strict=True)):
            axes = grid[row, column]
            for accuracy, colour in (("2", COLOURS[0]), ("4", COLOURS[1])):
                group = own[(own["accuracy"] == accuracy) & own["h"].notna()]
                if len(group):
                    _band(axes, group.groupby("h")[metric], (0.0, 1.0), colour, f"FD{accuracy}")
            exact = own[own["way"] == "reverse"][metric]
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
        return [(str(pairs["way"].iloc[0]), pairs)]
    return [
        (", ".join(v if isinstance(v, str) else f"{f} {v:g}" for f, v in zip(dividing, key, strict=True)), group)
        for key, group in pairs.groupby(dividing)
    ]
