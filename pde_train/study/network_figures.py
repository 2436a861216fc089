"""The figures of trained networks. Each function returns a Figure, or None where there are no runs to show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pde_train.plots import COLOURS, Curve, set_logarithmic
from pde_train.study.drawing import LEAST_TO_GREATEST, band, panels, panels_of_bands, title
from pde_train.study.error_budget import PDES
from pde_train.study.frontier import OF_TRAINING, pareto, settings, trained_to_the_floor
from pde_train.study.pairs import selected
from pde_train.study.run_table import Runs
from pde_train.study.verdicts import Verdict

THREE = ("taylor", "FD2 h=auto", "FD2 h=grid")

LEVELS = 10.0 ** -np.arange(0.0, 12.5, 0.5)
"""Residuals of the run with exact derivatives at which errors are compared."""

MARKS = "ox^vsD*Ph+"
"""The marks of schemes, in turn."""


def losses(runs: Runs, verdict: Verdict) -> Figure | None:
    """The loss against the optimiser step; a run that has ended keeps its loss."""
    words = "optimiser step + 1", "loss"
    return panels_of_bands(
        trained_to_the_floor(runs), OF_TRAINING, THREE, _curve(runs, "loss"), "xy", *words, held=True
    )


def ratios(runs: Runs, verdict: Verdict) -> Figure | None:
    """The ratio of the losses of a pair against the optimiser step; a run that has ended keeps its loss."""
    table, exact = _with_partners(runs)

    def ratio(run: Mapping[str, object]) -> Curve:
        ours, theirs = (runs.curve(str(i), "loss") for i in (run["id"], exact[run["pair"]]))
        steps = max((ours[0], theirs[0]), key=len)
        return steps + 1.0, _at(ours, steps) / _at(theirs, steps)

    schemes = [scheme for scheme in THREE if scheme != "taylor"]
    words = "optimiser step + 1", "loss, FD / AD"
    return panels_of_bands(table, OF_TRAINING, schemes, ratio, "xy", *words, held=True)


def levels(runs: Runs, verdict: Verdict) -> Figure | None:
    """The ratio of the errors of a pair against the held-out residual that the run with AD has reached."""
    return _by_level(runs, *_with_partners(runs))


def answer(runs: Runs, verdict: Verdict) -> Figure | None:
    """The same for the biharmonic equation alone, and for schemes that can be chosen."""
    table, exact = _with_partners(runs)
    own = (table["pde"] == "biharmonic_1d") & (table["optimizer"] == "ssbroyden") & table["part"].isna()
    return _by_level(runs, table[own], exact)


def _by_level(runs: Runs, table: pd.DataFrame, exact: pd.Series) -> Figure | None:
    def ratio(run: Mapping[str, object]) -> Curve:
        steps, residuals = runs.curve(exact[run["pair"]], "residual_held_out")
        reached = [float(steps[below[0]]) for level in LEVELS if len(below := np.flatnonzero(residuals <= level))]
        ours, theirs = (_at(runs.curve(str(i), "error_l2"), reached) for i in (run["id"], exact[run["pair"]]))
        return LEVELS[: len(reached)], ours / theirs

    schemes = [scheme for scheme in sorted(table["scheme"].unique()) if scheme != "taylor"]
    words = "held-out residual of the run with AD", "error, FD / AD"
    figure = panels_of_bands(table, OF_TRAINING, schemes, ratio, "xy", *words, "o-")
    for axes in figure.axes if figure else ():
        axes.invert_xaxis()  # training goes to the right
    return figure


def frontier(runs: Runs, verdict: Verdict) -> Figure | None:
    """The error against the seconds of steps, a mark for each scheme; a line joins those that none beats in both."""
    groups = settings(runs)
    if not groups:
        return None
    note = "dots: medians over seeds; bars: least to greatest; dashed: what no other scheme beats in both"
    figure, grid = panels(len(groups), 3.6, note)
    schemes = sorted({scheme for _, group in groups for scheme in group["scheme"]})
    for axes, (name, group) in zip(grid, groups, strict=True):
        for scheme, own in group.groupby("scheme"):
            i = schemes.index(scheme)
            low, error, high = own["error_l2"].quantile([0, 0.5, 1])
            seconds, colour = own["seconds"].median(), COLOURS[i % len(COLOURS)]
            axes.plot([seconds, seconds], [low, high], color=colour, lw=3, alpha=0.3)
            axes.plot(seconds, error, MARKS[i % len(MARKS)], color=colour, ms=5, label=scheme)
        best = pareto(group)
        axes.plot(best["seconds"], best["error_l2"], "--", color="0.5", lw=0.8, drawstyle="steps-post", zorder=0)
        set_logarithmic(axes, "xy")
        axes.set(xlabel="seconds of all steps", ylabel="error")
        axes.set_title(name, fontsize=9)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=6)
    return figure


def cross(runs: Runs, verdict: Verdict) -> Figure | None:
    """By how much the exact residual exceeds the trained one, against the number of points."""
    table = selected(
        runs.trained, {"model": ["two_layer"], "width": [50], "optimizer": ["ssbroyden"], "precision": ["float64"]}
    )
    table = table[table["scheme"].isin(THREE) & table["pde"].isin(PDES)]
    if table["interior"].nunique() < 2 or "audit/ratio" not in table:
        return None
    pdes = sorted(table["pde"].unique())
    figure, grid = panels(len(pdes), 3.4, LEAST_TO_GREATEST)
    for axes, pde in zip(grid, pdes, strict=True):
        for i, scheme in enumerate(THREE):
            own = table[(table["pde"] == pde) & (table["scheme"] == scheme)]
            if len(own):
                band(axes, own.groupby("interior")["audit/ratio"], (0.0, 1.0), COLOURS[i], scheme)
        set_logarithmic(axes, "xy")
        axes.set(xlabel="points", ylabel="exact residual / trained residual")
        axes.set_title(title({"pde": pde, "model": "two_layer", "optimizer": "ssbroyden"}), fontsize=9)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    return figure


def training(runs: Runs, verdict: Verdict) -> Figure | None:
    """The entropy of the residual Jacobian of networks against the optimiser step."""
    table = selected(runs.trained, {"model": ["two_layer"], "width": [50], "precision": ["float64"]})
    table = table[table["optimizer"].isin(["adam", "ssbroyden"]) & (table["method"] == "gradient_descent")]
    table = table[table["interior"].isin([100, 200])].sort_values(["optimizer", "pde"])
    words = "optimiser step + 1", "truncated entropy of J at 1e-8"
    return panels_of_bands(table, OF_TRAINING, THREE, _curve(runs, "entropy/1e-08"), "x", *words, "o-")


def _with_partners(runs: Runs) -> tuple[pd.DataFrame, pd.Series]:
    """The runs of FLOOR that have a partner with exact derivatives, and the ids of these by pair."""
    table = trained_to_the_floor(runs)
    exact = table[table["scheme"] == "taylor"].drop_duplicates("pair").set_index("pair")["id"]
    return table[table["pair"].isin(exact.index)], exact


def _at(curve: Curve, steps: Sequence[float] | np.ndarray) -> np.ndarray:
    """The last value of a curve at or before each of some steps."""
    places = np.searchsorted(curve[0], steps, side="right") - 1
    values: np.ndarray = curve[1][np.clip(places, 0, None)] if len(curve[1]) else np.full(len(steps), np.nan)
    return values


def _curve(runs: Runs, metric: str) -> Callable[[Mapping[str, object]], Curve]:
    """A function that gives the curve of a metric of a run, with steps counted from 1 for a logarithmic axis."""

    def of(run: Mapping[str, object]) -> Curve:
        steps, values = runs.curve(str(run["id"]), metric)
        return steps + 1.0, values

    return of
