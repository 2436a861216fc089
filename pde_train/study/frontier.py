"""The frontier of error and time: which scheme to take, when networks are trained until nothing improves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pde_train.study.drawing import title
from pde_train.study.hypotheses import Level
from pde_train.study.pairs import selected
from pde_train.study.run_table import Runs

FLOOR: Mapping[str, Sequence[Level]] = {
    "pde": ["poisson_1d", "biharmonic_1d", "poisson_2d", "biharmonic_2d"],
    "model": ["two_layer"],
    "width": [50, 64],
    "interior": [200, 900],
    "precision": ["float64"],
}
"""Networks that are trained until nothing improves, in one dimension and in two."""

OF_TRAINING = ("pde", "model", "optimizer", "method", "steps")
"""What a panel of trained networks has in common."""


@dataclass(frozen=True)
class Choice:
    """A scheme on the frontier.

    Attributes:
        scheme: Its label.
        seconds: The median over seeds of the seconds of all steps of a run; in a stack, its share of them.
        error: The median over seeds of the error at the end.
        seeds: The number of seeds.
    """

    scheme: str
    seconds: float
    error: float
    seeds: int


def trained_to_the_floor(runs: Runs) -> pd.DataFrame:
    """The runs of FLOOR; those by Adam alone end at a number of steps, and are left out."""
    table = selected(runs.trained, FLOOR).sort_values(["method", "optimizer", "pde"])
    return table[~((table["optimizer"] == "adam") & (table["method"] == "gradient_descent"))]


def pareto(runs: pd.DataFrame) -> pd.DataFrame:
    """The schemes that no other one beats in time and in error, by their medians over seeds.

    Args:
        runs: Runs that differ in their scheme and seed alone.

    Returns:
        A row for each such scheme, the fastest first: `seconds` and `error_l2`, by the name of the scheme.
    """
    medians = runs.groupby("scheme")[["seconds", "error_l2"]].median().sort_values(["seconds", "error_l2"])
    best_before = medians["error_l2"].cummin().shift(fill_value=np.inf)
    return medians[medians["error_l2"] < best_before]


def settings(runs: Runs) -> list[tuple[str, pd.DataFrame]]:
    """The title and the runs of each setting with several schemes; a part of an error alone is no choice."""
    table = trained_to_the_floor(runs)
    table = table[table["part"].isna()]
    groups = table.groupby(list(OF_TRAINING))
    return [
        (title(dict(zip(OF_TRAINING, key, strict=True))), group)
        for key, group in groups
        if group["scheme"].nunique() > 1
    ]


def rows(runs: Runs) -> dict[str, list[Choice]]:
    """The schemes on the frontier, the fastest first, by the title of each setting."""
    found = {}
    for name, group in settings(runs):
        seeds = group.groupby("scheme")["seed"].nunique()
        found[name] = [
            Choice(str(scheme), float(row["seconds"]), float(row["error_l2"]), int(seeds[scheme]))
            for scheme, row in pareto(group).iterrows()
        ]
    return found
