"""The names of metrics and of levels in words, as figures and the page show them."""

from __future__ import annotations

import re

from pde_train.study.hypotheses import Comparison
from pde_train.study.pairs import LARGE_VALUES

METRICS = {
    "residual": "residual",
    "residual_exact": "exact residual",
    "error_l2": "error",
    "audit/ratio": "exact residual / trained residual",
    "speed": "decades of loss in 1000 steps",
    "spectrum/max": "largest singular value",
    "spectrum/min": "smallest singular value",
    "spectrum/condition": "condition",
    "spectrum/stable_rank": "stable rank",
    "spectrum/decay": "decay of the spectrum",
}
"""Metrics of the run table that have no number in their names."""

WITH_NUMBER = {
    "entropy": "truncated entropy at {}",
    "entropy_raw": "entropy at {}, not normalised",
    "effective_rank": "effective rank at {}",
    "effective_dimension": "effective dimension at {}",
    "cutoff": "effective cut-off number at {}",
    "condition": "condition of the values above {}",
    "spectrum/count": "number of values above {}",
    "steps_to": "steps until the loss is {} of the first",
    "speed": "decades of loss in 1000 steps, from step {} to twice that",
}
"""Metrics of the run table whose names end in a threshold, a fraction or a step."""


def in_words(column: str) -> str:
    """The name of a column of the run table in words; a name that is not known as it is.

    Args:
        column: Such as `at/1000/entropy/1e-08`.

    Returns:
        Such as `truncated entropy at 1e-8, step 1000`.
    """
    if column.startswith("start/"):
        return f"{in_words(column.removeprefix('start/'))}, before training"
    if during := re.fullmatch(r"at/(\d+)/(.+)", column):
        return f"{in_words(during[2])}, step {during[1]}"
    if column in METRICS:
        return METRICS[column]
    kind, _, number = column.rpartition("/")
    return WITH_NUMBER[kind].format(re.sub(r"e-0?(\d+)", r"e-\1", number)) if kind in WITH_NUMBER else column


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
