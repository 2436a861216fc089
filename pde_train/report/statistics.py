"""The tests by which claims are judged: paired differences, rank correlations, and their bootstrap intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

RESAMPLES = 2000
"""Of every bootstrap."""

CONFIDENCE = 0.95
"""Of every interval."""


FEWEST = 10
"""Runs that a correlation needs."""


@dataclass(frozen=True)
class Estimate:
    """A number with its bootstrap interval (percentiles of RESAMPLES resamples), and of how many it was made."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Paired:
    """The median of paired differences, its interval, and whether it is one-sided at all.

    p: of Wilcoxon's signed-rank test, two-sided, zeros split between both signs. effect: the matched-pairs
    rank-biserial correlation, from -1 (every difference is negative) to 1.
    """

    median: Estimate
    p: float
    effect: float


def paired(differences: np.ndarray) -> Paired:
    """What differences (n,) say; with fewer than two of them p is 1 and the interval is the number itself."""
    differences = np.asarray(differences, dtype=float)
    median = bootstrap_median(differences)
    if len(differences) < 2 or not np.any(differences):
        return Paired(median, 1.0, float(np.sign(differences).mean()) if len(differences) else np.nan)
    p = float(stats.wilcoxon(differences, zero_method="zsplit").pvalue)
    ranks = stats.rankdata(np.abs(differences))
    return Paired(median, p, float(np.sum(np.sign(differences) * ranks) / ranks.sum()))


def bootstrap_median(values: np.ndarray) -> Estimate:
    """The median of values (n,), resampled with replacement."""
    if not len(values):
        return Estimate(np.nan, np.nan, np.nan, 0)
    drawn = values[_resamples(len(values))]
    return _estimate(float(np.median(values)), np.median(drawn, axis=1), len(values))


def rank_correlations(predictors: np.ndarray, outcome: np.ndarray) -> tuple[list[Estimate], np.ndarray]:
    """Spearman's correlation of each predictor (k, n) with an outcome (n,), and all resamples of it (RESAMPLES, k).

    Pairs are resampled together, the same ones for every predictor, so that resamples may be compared. With fewer than
    FEWEST runs all of it is nan.
    """
    n = len(outcome)
    if n < FEWEST:
        return [Estimate(np.nan, np.nan, np.nan, n)] * len(predictors), np.full((RESAMPLES, len(predictors)), np.nan)
    places = _resamples(n)
    y = stats.rankdata(outcome[places], axis=1)
    found, drawn = [], []
    for predictor in predictors:
        resampled = _correlation(stats.rankdata(predictor[places], axis=1), y)
        value = _correlation(stats.rankdata(predictor)[None], stats.rankdata(outcome)[None])[0]
        found.append(_estimate(float(value), resampled, n))
        drawn.append(resampled)
    return found, np.array(drawn).T


def _correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson's correlation along the last axis; 0 where one of both is constant, which predicts nothing."""
    x, y = x - x.mean(axis=-1, keepdims=True), y - y.mean(axis=-1, keepdims=True)
    scale = np.sqrt(np.sum(x**2, axis=-1) * np.sum(y**2, axis=-1))
    return np.divide(np.sum(x * y, axis=-1), scale, out=np.zeros_like(scale), where=scale > 0)


def _resamples(n: int) -> np.ndarray:
    """The same places (RESAMPLES, n) for the same n: a report made twice has the same digits."""
    return np.random.default_rng(n).integers(n, size=(RESAMPLES, n))


def _estimate(value: float, resampled: np.ndarray, n: int) -> Estimate:
    low, high = np.nanquantile(resampled, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(value, float(low), float(high), n)


def adjusted(p: list[float]) -> np.ndarray:
    """p-values of tests that are read together (Benjamini and Hochberg 1995)."""
    return stats.false_discovery_control(p) if p else np.array([])
