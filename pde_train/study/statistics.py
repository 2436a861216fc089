"""Estimates, intervals and tests of claims. The unit is a seed: each of them enters as one number, or as one block.

Paired numbers use the sign test and the interval that inverts it, which are exact for the median of any distribution
and at any number of seeds. Correlations inside cells use the delete-one jackknife over seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
"""Of every interval that is shown."""

FEWEST = 10
"""Seeds that a correlation needs."""

ALMOST_ONE = 1 - 1e-9
"""The largest correlation that Fisher's transformation takes."""


@dataclass(frozen=True)
class Estimate:
    """A number and its interval, which is without an end on a side where so few seeds give none; n: seeds."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Tested:
    """p of each of three statements on a number g and its margin m; one-sided, each against the other two.

    greater: g > m. less: g < -m. same: -m < g < m, by two one-sided tests (Schuirmann 1987). reachable: the smallest
    value of `p` that a test of so many seeds can have.
    """

    greater: float
    less: float
    same: float
    reachable: float

    @property
    def p(self) -> float:
        """Of the statement that is best supported, two-sided.

        A decision is wrong with probability p at most: inside the margin the two false statements share it, on the
        margin itself `same` and its neighbour do.
        """
        return min(1.0, 2 * min(self.greater, self.less, self.same))

    @property
    def statement(self) -> str:
        """`greater`, `less` or `same`: the one that is best supported."""
        return min(("greater", "less", "same"), key=lambda name: float(getattr(self, name)))


NOTHING = Estimate(np.nan, np.nan, np.nan, 0)

UNDECIDABLE = Tested(1.0, 1.0, 1.0, 1.0)


def median(values: np.ndarray, lost: int = 0, confidence: float = CONFIDENCE) -> Estimate:
    """The median of one number a seed (n,), with the exact interval between order statistics.

    lost: seeds without a number. The lower end of the interval takes them for smaller than all others, the upper end
    for larger, so that nothing follows from their absence.
    """
    values = np.sort(np.asarray(values, dtype=float))
    if not len(values):
        return NOTHING
    n = len(values) + lost
    outside = int(stats.binom.ppf((1 - confidence) / 2, n, 0.5))  # P(fewer on one side) <= (1 - confidence) / 2
    place = outside - lost - 1
    low, high = (values[place], values[-1 - place]) if 0 <= place < len(values) else (-np.inf, np.inf)
    with np.errstate(invalid="ignore"):  # the mean of both infinities
        return Estimate(float(np.median(values)), float(low), float(high), len(values))


def sign_test(values: np.ndarray, margin: float, lost: int = 0) -> Tested:
    """Sign tests of the median of one number a seed (n,) against both ends of a margin; the lost count against all."""
    values = np.asarray(values, dtype=float)
    n = len(values) + lost
    if not len(values):
        return UNDECIDABLE

    def p(on_its_side: np.ndarray) -> float:
        return float(stats.binom.sf(on_its_side.sum() - 1, n, 0.5))

    same = max(p(values < margin), p(values > -margin))
    best = min(1.0, 2 * float(stats.binom.sf(len(values) - 1, n, 0.5)))
    return Tested(p(values > margin), p(values < -margin), same, best)


@dataclass(frozen=True)
class Cell:
    """Runs of one design cell: seeds (n,), predictors (k, n), and the outcome (n,)."""

    seeds: np.ndarray
    predictors: np.ndarray
    outcome: np.ndarray


@dataclass(frozen=True)
class Correlations:
    """Spearman's correlation of each predictor in each cell (cells, k); its mean without each seed (n, k)."""

    by_cell: np.ndarray
    without: np.ndarray

    @property
    def values(self) -> np.ndarray:
        """Means over cells (k,)."""
        means: np.ndarray = self.by_cell.mean(axis=0)
        return means

    @property
    def n(self) -> int:
        """Seeds."""
        return len(self.without)

    def estimate(self, k: int) -> Estimate:
        """Of predictor k, on Fisher's scale, with Student's quantiles."""
        z, spread = self._fisher(k)
        reach = spread * stats.t.ppf((1 + CONFIDENCE) / 2, self.n - 1)
        return Estimate(float(self.values[k]), float(np.tanh(z - reach)), float(np.tanh(z + reach)), self.n)

    def test(self, k: int, margin: float) -> Tested:
        """Whether the correlation of predictor k lies beyond or within a margin."""
        z, spread = self._fisher(k)
        return self._test(z, spread, float(np.arctanh(margin)))

    def lead(self, other: int, claimed: int) -> Estimate:
        """How far the absolute correlation of another predictor lies above that of the claimed one."""
        value, spread = self._lead(other, claimed)
        reach = spread * stats.t.ppf((1 + CONFIDENCE) / 2, self.n - 1)
        return Estimate(value, float(value - reach), float(value + reach), self.n)

    def test_best(self, claimed: int, margin: float) -> Tested:
        """Whether another predictor's absolute correlation exceeds that of the claimed one by more than a margin.

        `greater`: some other does, Bonferroni's p over the others. `same`: none does, the largest p of the others.
        """
        others = [k for k in range(len(self.values)) if k != claimed]
        tests = [self._test(*self._lead(k, claimed), margin) for k in others]
        some = min(1.0, len(tests) * min(t.greater for t in tests))
        return Tested(some, 1.0, max(1 - t.greater for t in tests), 0.0)

    def _lead(self, other: int, claimed: int) -> tuple[float, float]:
        sizes, without = np.abs(self.values), np.abs(self.without)
        return float(sizes[other] - sizes[claimed]), _jackknife(without[:, other] - without[:, claimed])

    def _fisher(self, k: int) -> tuple[float, float]:
        z, without = (np.arctanh(np.clip(r, -ALMOST_ONE, ALMOST_ONE)) for r in (self.values[k], self.without[:, k]))
        return float(z), _jackknife(without)

    def _test(self, value: float, spread: float, margin: float) -> Tested:
        if spread == 0:
            above, below = float(value <= margin), float(value >= -margin)
        else:
            above, below = (float(stats.t.sf(x / spread, self.n - 1)) for x in (value - margin, -margin - value))
        return Tested(above, below, max(1 - above, 1 - below), 0.0)


def correlations(cells: Sequence[Cell]) -> Correlations | None:
    """Correlations inside cells, averaged over the cells that have FEWEST seeds; None where none has.

    Seeds are left out one at a time, each from all cells at once: runs of one seed in several cells are no
    independent runs.
    """
    cells = [cell for cell in cells if len(cell.seeds) >= FEWEST]
    if not cells:
        return None
    seeds = np.unique(np.concatenate([cell.seeds for cell in cells]))
    without = [np.mean([_spearman(cell, cell.seeds != seed) for cell in cells], axis=0) for seed in seeds]
    return Correlations(np.array([_spearman(cell) for cell in cells]), np.array(without))


def _spearman(cell: Cell, kept: np.ndarray | slice = slice(None)) -> np.ndarray:
    """Spearman's correlation of each predictor (k,); 0 where one of both is constant, which predicts nothing."""
    x, y = (stats.rankdata(a, axis=-1) for a in (cell.predictors[:, kept], cell.outcome[kept]))
    x, y = x - x.mean(axis=-1, keepdims=True), y - y.mean()
    scale = np.sqrt(np.sum(x**2, axis=-1) * np.sum(y**2))
    return np.divide(x @ y, scale, out=np.zeros_like(scale), where=scale > 0)


def _jackknife(without: np.ndarray) -> float:
    """The standard error of a number, from its values (n,) without each block."""
    n = len(without)
    return float(np.sqrt((n - 1) / n * np.sum((without - without.mean()) ** 2)))


def holm(p: Sequence[float]) -> list[float]:
    """p-values of tests that are read together, in their order, adjusted by Holm (1979) for any dependence."""
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.maximum.accumulate(np.asarray(p)[order] * np.arange(len(p), 0, -1))
    return [float(q) for q in np.minimum(adjusted, 1.0)]
