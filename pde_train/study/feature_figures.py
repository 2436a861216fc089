"""The figures of random features. Each function returns a Figure, or None where there are no runs to show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pde_train.plots import COLOURS, Curve, set_logarithmic
from pde_train.study.drawing import LEAST_TO_GREATEST, band, panels_of_bands, title
from pde_train.study.error_budget import CENTRE, METRICS, PDES, SCHEMES
from pde_train.study.pairs import selected
from pde_train.study.run_table import Runs
from pde_train.study.verdicts import Verdict
from pde_train.study.words import in_words

FOUR = ("reverse", "FD2 h=auto", "FD2 h=grid", "FD2 h=0.001")


def floors(runs: Runs, verdict: Verdict) -> Figure | None:
    """Residual and error of random features against the step of finite differences."""
    table = selected(runs.trained, CENTRE)
    return _by_step(table, ("residual", "error_l2"), ("residual of the system", "error"))


def spectra(runs: Runs, verdict: Verdict) -> Figure | None:
    """The singular values of the system matrix of random features against their index."""
    table = selected(runs.trained, CENTRE)

    def curve(run: Mapping[str, object]) -> Curve:
        return runs.spectrum(str(run["id"]))

    return panels_of_bands(table, ["pde", "model"], FOUR, curve, "y", "index k", "singular value s_k", marks="o")


def entropies(runs: Runs, verdict: Verdict) -> Figure | None:
    """Truncated entropy of random features against the threshold, for every definition of it."""
    table = selected(runs.by_definition, CENTRE)
    thresholds = sorted((float(c.split("/")[1]), c) for c in table if c.startswith("entropy/"))

    def curve(run: Mapping[str, Any]) -> Curve:
        values = [(a, float(run[c])) for a, c in thresholds if np.isfinite(float(run[c]))]
        return np.array([a for a, _ in values]), np.array([v for _, v in values])

    kinds = table.assign(
        threshold=table["relative"].astype(str).map({"True": "relative threshold", "False": "absolute threshold"})
    )
    kinds = kinds[kinds["pde"].isin(PDES)].sort_values(["normalisation", "threshold", "pde"])
    titles, words = ["pde", "model", "threshold", "normalisation"], ("threshold a", "truncated entropy")
    return panels_of_bands(kinds, titles, FOUR, curve, "x", *words, marks="o-")


def draw_error_budget(runs: Runs) -> Figure | None:
    """Residual and error of random features for every scheme of the error budget."""
    table = selected(runs.trained, CENTRE)
    present = [scheme for scheme in ("reverse", *SCHEMES) if (table["scheme"] == scheme).any()]
    if len(present) < 3:
        return None
    figure = Figure(figsize=(9, 0.26 * len(present) + 1.6), layout="constrained")
    all_axes = figure.subplots(1, 2, sharey=True)
    for axes, metric in zip(all_axes, METRICS, strict=True):
        for i, pde in enumerate(PDES):
            for row, scheme in enumerate(present):
                values = table[(table["pde"] == pde) & (table["scheme"] == scheme)][metric].to_numpy()
                if len(values):
                    low, mid, high = np.quantile(values, [0, 0.5, 1])
                    axes.plot([low, high], [row, row], color=COLOURS[i], lw=3, alpha=0.4)
                    axes.plot(mid, row, "o", color=COLOURS[i], ms=4, label=pde if row == 0 else None)
        set_logarithmic(axes, "x")
        axes.set_yticks(range(len(present)), present, fontsize=7)
        axes.set_xlabel(in_words(metric))
        axes.grid(alpha=0.3)
    all_axes[0].invert_yaxis()
    all_axes[0].legend(fontsize=7)
    figure.suptitle("random features; dots: medians over seeds; bars: least to greatest", fontsize=9)
    return figure


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
                    band(axes, group.groupby("h")[metric], (0.0, 1.0), colour, f"FD{accuracy}")
            exact = own[own["scheme"] == "reverse"][metric]
            if len(exact):
                axes.axhline(exact.median(), color="0.2", ls="--", label="AD")
                axes.axhspan(exact.min(), exact.max(), color="0.2", alpha=0.15, lw=0)
            set_logarithmic(axes, "xy")
            axes.grid(alpha=0.3)
            if row == 0:
                axes.set_title(title({"pde": pde, "model": "random_features"}), fontsize=9)
            if column == 0:
                axes.set_ylabel(name)
                axes.legend(fontsize=7)
            if row == len(metrics) - 1:
                axes.set_xlabel("step h")
    figure.suptitle(LEAST_TO_GREATEST, fontsize=9)
    return figure
