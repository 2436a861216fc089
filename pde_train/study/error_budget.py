"""Where the gap between AD and finite differences comes from: their error taken apart, in numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pde_train.differentiators.stencils import central_weights
from pde_train.study.run_table import Runs
from pde_train.study.statistics import Estimate, median
from pde_train.study.verdicts import selected, unique_seeds

CENTRE: Mapping[str, Sequence[object]] = {
    "model": ["random_features"],
    "activation": ["tanh"],
    "features": [100],
    "weight range": [3],
    "interior": [225],
    "precision": ["float64"],
}
"""The random features from which the other parts of the study vary one thing each."""

PDES = ("poisson_1d", "biharmonic_1d")

ALONE = (", rounding alone", ", truncation alone")

CAUSES = (
    "complex_step",
    *(f"FD{p} h=optimal" for p in (8, 6, 4, 2)),
    "FD4 h=auto",
    *(f"FD2 h={h}{part}" for h in ("auto", "0.01", "0.001", "0.0001") for part in ("", *ALONE)),
)
"""Ways of taking derivatives by which the gap is taken apart, in the order of the page."""

METRICS = ("residual_exact", "error_l2")


@dataclass(frozen=True)
class Row:
    """A way of taking derivatives: how often it evaluates u at a point of each PDE, and how far it is from AD.

    values: by PDE; None where that is no fixed number. decades: by PDE and metric, the median over seeds of
    log10 (this way / reverse mode).
    """

    way: str
    values: Mapping[str, int | None]
    decades: Mapping[tuple[str, str], Estimate]


def rows(runs: Runs) -> list[Row]:
    """The ways that were run, each against reverse mode on the same features.

    Raises:
        RunError: a seed stands twice among the runs of a way and a PDE.
    """
    table = selected(runs.trained, CENTRE)
    table = table[table["pde"].isin(PDES)]
    for (pde, way), group in table.groupby(["pde", "way"]):
        unique_seeds("where the gap comes from", {"pde": pde, "way": way}, group, runs)
    found = []
    for way in CAUSES:
        decades = {}
        for pde in PDES:
            own = table[(table["pde"] == pde) & (table["way"] == way)].set_index("seed")
            exact = table[(table["pde"] == pde) & (table["way"] == "reverse")].set_index("seed")
            seeds = own.index.intersection(exact.index)
            for metric in METRICS if len(seeds) else ():
                ratio = own.loc[seeds, metric].to_numpy(dtype=float) / exact.loc[seeds, metric].to_numpy(dtype=float)
                gaps = np.log10(ratio)
                decades[pde, metric] = median(gaps[~np.isnan(gaps)], int(np.isnan(gaps).sum()))
        if decades:
            orders = {pde: int(table[table["pde"] == pde]["order"].iloc[0]) for pde, _ in decades}
            found.append(Row(way, {pde: _values(way, order) for pde, order in orders.items()}, decades))
    return found


def _values(way: str, order: int) -> int | None:
    """Function values at a point for a derivative of that order, where a way takes nothing else."""
    accuracy = re.fullmatch(r"FD(\d) h=[\w.-]+", way)
    return len(central_weights(order, int(accuracy[1]))) if accuracy else None
