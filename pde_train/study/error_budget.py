"""The error budget: the error of finite differences divided into truncation and rounding, against exact derivatives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pde_train.differentiators.stencils import central_weights
from pde_train.study.hypotheses import Level
from pde_train.study.pairs import check_unique_seeds, selected
from pde_train.study.run_table import Runs
from pde_train.study.statistics import Estimate, median

CENTRE: Mapping[str, Sequence[Level]] = {
    "model": ["random_features"],
    "activation": ["tanh"],
    "features": [100],
    "weight range": [3],
    "interior": [225],
    "precision": ["float64"],
}
"""The random features from which the other parts of the study each vary one factor."""

PDES = ("poisson_1d", "biharmonic_1d")

STEPS = ("auto", "0.01", "0.001", "0.0001")

ACCURACIES = {f"FD{p} h=optimal": p for p in (8, 6, 4, 2)} | {"FD4 h=auto": 4} | {f"FD2 h={h}": 2 for h in STEPS}
"""The accuracy of every plain finite-difference scheme of the budget."""

SCHEMES = (
    "complex_step",
    *(f"FD{p} h=optimal" for p in (8, 6, 4, 2)),
    "FD4 h=auto",
    *(f"FD2 h={h}{part}" for h in STEPS for part in ("", ", rounding alone", ", truncation alone")),
)
"""The schemes of the error budget, by their `Differentiator.label`, in the order of the page."""

METRICS = ("residual_exact", "error_l2")


@dataclass(frozen=True)
class Row:
    """One scheme of the error budget.

    Attributes:
        scheme: Its label.
        values: For each PDE, how many values of u it takes at a point; None where that number is
            not fixed.
        decades: For each PDE and metric, the median over seeds of log10 (this scheme / reverse
            mode).
    """

    scheme: str
    values: Mapping[str, int | None]
    decades: Mapping[tuple[str, str], Estimate]


def rows(runs: Runs) -> list[Row]:
    """The schemes that were run, each against reverse mode on the same features.

    Args:
        runs: The run table.

    Returns:
        A row for each scheme of SCHEMES that has runs.

    Raises:
        RunError: A seed occurs twice among the runs of a scheme and a PDE.
    """
    table = selected(runs.trained, CENTRE)
    table = table[table["pde"].isin(PDES)]
    for (pde, scheme), group in table.groupby(["pde", "scheme"]):
        check_unique_seeds("where the gap comes from", {"pde": pde, "scheme": scheme}, group, runs)
    budget = []
    for scheme in SCHEMES:
        decades = {}
        for pde in PDES:
            own = table[(table["pde"] == pde) & (table["scheme"] == scheme)].set_index("seed")
            exact = table[(table["pde"] == pde) & (table["scheme"] == "reverse")].set_index("seed")
            seeds = own.index.intersection(exact.index)
            for metric in METRICS if len(seeds) else ():
                ratio = own.loc[seeds, metric].to_numpy(dtype=float) / exact.loc[seeds, metric].to_numpy(dtype=float)
                gaps = np.log10(ratio)
                decades[pde, metric] = median(gaps[~np.isnan(gaps)], int(np.isnan(gaps).sum()))
        if decades:
            orders = {pde: int(table[table["pde"] == pde]["order"].iloc[0]) for pde, _ in decades}
            budget.append(Row(scheme, {pde: _values(scheme, order) for pde, order in orders.items()}, decades))
    return budget


def _values(scheme: str, order: int) -> int | None:
    """The values of u at a point for a derivative of that order, where the scheme takes nothing else."""
    return len(central_weights(order, ACCURACIES[scheme])) if scheme in ACCURACIES else None
