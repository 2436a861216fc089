"""Estimates, intervals and tests. The unit is a seed, which enters as one number or as one block of numbers.

Paired numbers use the sign test and the interval that inverts it. Both are exact for the median of
any distribution and for any number of seeds. Correlations inside cells use the delete-one jackknife
over seeds, because the runs of one seed in several cells are dependent; `scipy.stats.bootstrap`
resamples single observations and has no such blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
"""The confidence level of every interval that is shown."""

FEWEST = 10
"""The number of seeds that a correlation needs."""

ALMOST_ONE = 1 - 1e-9
"""The largest correlation to which Fisher's transformation is applied, as it is infinite at 1."""


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval.

    Attributes:
        value: The estimate, nan without data.
        low: The lower end, -inf where so few seeds give none.
        high: The upper end, inf where so few seeds give none.
        n: The number of seeds.
    """

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Tested:
    """One-sided p-values of three statements on a number g and its margin m, each against the other two statements.

    Attributes:
        greater: The p-value of g > m.
        less: The p-value of g < -m.
        same: The p-value of -m < g < m, by two one-sided tests (Schuirmann, J. Pharmacokinet.
            Biopharm. 15, 1987).
        reachable: The smallest value of `p` that a test of so many seeds can have.
    """

    greater: float
    less: float
    same: float
    reachable: float

    @property
    def p(self) -> float:
        """The two-sided p-value of the statement that is best supported.

        A decision at this level is wrong with at most this probability: twice the one-sided value
        covers the two statements that can be false together, which are `greater` and `less` inside
        the margin, and `same` and its neighbour on the margin itself.
        """
        return min(1.0, 2 * min(self.greater, self.less, self.same))

    @property
    def statement(self) -> str:
        """The statement that is best supported: `greater`, `less` or `same`."""
        return min(("greater", "less", "same"), key=lambda name: float(getattr(self, name)))


NOTHING = Estimate(np.nan, np.nan, np.nan, 0)

UNDECIDABLE = Tested(1.0, 1.0, 1.0, 1.0)


def median(values: np.ndarray, lost: int = 0, confidence: float = CONFIDENCE) -> Estimate:
    """The median of one number for each seed, with the exact interval between order statistics.

    Args:
        values: The numbers (n,).
        lost: The number of seeds without a number. The lower end of the interval treats them as
            smaller than all others and the upper end as larger, so that their absence cannot narrow
            the interval.
        confidence: The confidence level of the interval.

    Returns:
        The estimate; NOTHING where there is no number.
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
    """Sign tests of the median of one number for each seed against both ends of a margin.

    Args:
        values: The numbers (n,).
        margin: The margin m > 0.
        lost: The number of seeds without a number, which count against each of the three
            statements.

    Returns:
        The p-values; UNDECIDABLE where there is no number.
    """
    values = np.asarray(values, dtype=float)
    n = len(values) + lost
    if not len(values):
        return UNDECIDABLE

    def p(count: int) -> float:
        """The one-sided p-value where so many of the n seeds agree with a statement."""
        return float(stats.binomtest(count, n, alternative="greater").pvalue)

    same = max(p(int(np.sum(values < margin))), p(int(np.sum(values > -margin))))
    greater, less = p(int(np.sum(values > margin))), p(int(np.sum(values < -margin)))
    return Tested(greater, less, same, reachable=min(1.0, 2 * p(len(values))))


@dataclass(frozen=True)
class Cell:
    """The runs of one design cell.

    Attributes:
        seeds: The seed of each run (n,).
        predictors: The values of k predictors (k, n).
        outcome: The number that they may predict (n,).
    """

    seeds: np.ndarray
    predictors: np.ndarray
    outcome: np.ndarray


@dataclass(frozen=True)
class Correlations:
    """Spearman's correlation of k predictors with an outcome, inside cells.

    Attributes:
        by_cell: The correlations in each cell (cells, k).
        varies: Whether the predictors vary in any cell (k,); nothing is decided of one that does not.
        without: Their means over cells with one seed left out, for each of the n seeds (n, k).
    """

    by_cell: np.ndarray
    varies: np.ndarray
    without: np.ndarray

    @property
    def values(self) -> np.ndarray:
        """The correlations, averaged over cells (k,)."""
        means: np.ndarray = self.by_cell.mean(axis=0)
        return means

    @property
    def n(self) -> int:
        """The number of seeds."""
        return len(self.without)

    def estimate(self, k: int) -> Estimate:
        """The mean correlation of predictor k, with an interval on Fisher's scale by Student's quantiles."""
        z, spread = self._fisher(k)
        reach = spread * stats.t.ppf((1 + CONFIDENCE) / 2, self.n - 1)
        return Estimate(float(self.values[k]), float(np.tanh(z - reach)), float(np.tanh(z + reach)), self.n)

    def test(self, k: int, margin: float) -> Tested:
        """Test whether the correlation of predictor k lies beyond or within a margin."""
        if not self.varies[k]:
            return UNDECIDABLE
        z, spread = self._fisher(k)
        return self._test(z, spread, float(np.arctanh(margin)))

    def lead(self, other: int, claimed: int) -> Estimate:
        """By how much the absolute correlation of another predictor exceeds that of the claimed one."""
        value, spread = self._lead(other, claimed)
        reach = spread * stats.t.ppf((1 + CONFIDENCE) / 2, self.n - 1)
        return Estimate(value, float(value - reach), float(value + reach), self.n)

    def test_best(self, claimed: int, margin: float) -> Tested:
        """Test whether any other absolute correlation exceeds that of the claimed predictor by more than a margin.

        Args:
            claimed: The index of the claimed predictor.
            margin: The margin m > 0.

        Returns:
            `greater` is the p-value of "some other one does", by Bonferroni's correction over the
            others. `same` is that of "no other one does", the largest p-value over the others.
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
    """Correlations inside the cells that have at least FEWEST seeds, and outcomes that differ.

    Seeds are left out one at a time, each from all cells at once, because the runs of one seed in
    several cells are not independent.

    Args:
        cells: The runs of each design cell.

    Returns:
        The correlations, or None where there is no such cell.
    """
    cells = [cell for cell in cells if len(cell.seeds) >= FEWEST and len(np.unique(cell.outcome)) > 1]
    if not cells:
        return None
    seeds = np.unique(np.concatenate([cell.seeds for cell in cells]))
    without = [np.mean([_spearman(cell, cell.seeds != seed) for cell in cells], axis=0) for seed in seeds]
    varies = np.any([(cell.predictors != cell.predictors[:, :1]).any(axis=1) for cell in cells], axis=0)
    return Correlations(np.array([_spearman(cell) for cell in cells]), varies, np.array(without))


def _spearman(cell: Cell, kept: np.ndarray | slice = slice(None)) -> np.ndarray:
    """Spearman's correlation of each predictor (k,); 0 where the predictor or the outcome is constant."""
    # scipy.stats.spearmanr gives the same for one predictor at a time, and nan with a warning where one is constant.
    x, y = (stats.rankdata(a, axis=-1) for a in (cell.predictors[:, kept], cell.outcome[kept]))
    x, y = x - x.mean(axis=-1, keepdims=True), y - y.mean()
    scale = np.sqrt(np.sum(x**2, axis=-1) * np.sum(y**2))
    correlations: np.ndarray = np.divide(x @ y, scale, out=np.zeros_like(scale), where=scale > 0)
    return correlations


def _jackknife(without: np.ndarray) -> float:
    """The jackknife's standard error of a number, from its n values (n,) with one block left out."""
    n = len(without)
    return float(np.sqrt((n - 1) / n * np.sum((without - without.mean()) ** 2)))


def holm(p: Sequence[float]) -> list[float]:
    """Adjust the p-values of tests that are read together (Holm, Scand. J. Stat. 6, 1979), for any dependence.

    Args:
        p: The p-values.

    Returns:
        The adjusted p-values in the same order, at most 1.
    """
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.maximum.accumulate(np.asarray(p)[order] * np.arange(len(p), 0, -1))
    return [float(q) for q in np.minimum(adjusted, 1.0)]
