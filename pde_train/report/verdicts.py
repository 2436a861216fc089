"""Claims judged by runs: every comparison in every stratum, and the word that follows by the claim's own rule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pde_train.report import statistics
from pde_train.report.claims import Claim, Comparison
from pde_train.report.runs import LARGE, Runs
from pde_train.report.statistics import Estimate

LARGE_VALUES = "large singular values"
"""A quantity of a pair: the largest relative difference of singular values above LARGE s_1."""


@dataclass(frozen=True)
class Stratum:
    """One comparison in one stratum: its estimate, p (nan where there is no test), and whether it holds there.

    best: in a ranking, the predictor with the largest correlation, and that correlation.
    """

    comparison: str
    labels: Mapping[str, Any]
    estimate: Estimate
    p: float
    effect: float
    holds: bool
    reversed: bool = False
    best: str = ""


@dataclass(frozen=True)
class Verdict:
    """A claim's word, and all that it follows from; predictions: of each of its rankings, see `predictions`."""

    claim: Claim
    strata: Sequence[Stratum]
    predictions: Mapping[str, Mapping[str, Mapping[str, Estimate]]]

    @property
    def held(self) -> int:
        """In how many strata a comparison held."""
        return sum(s.holds for s in self.strata)

    @property
    def word(self) -> str:
        return self.claim.word(self.held, len(self.strata))

    def of(self, comparison: Comparison) -> list[Stratum]:
        """The strata of one comparison."""
        return [s for s in self.strata if s.comparison == comparison.name]

    def shares(self, comparison: Comparison) -> dict[str, dict[str, tuple[int, int]]]:
        """For each factor that divides a comparison, by its levels: in how many strata it held, and of how many."""
        found: dict[str, dict[str, tuple[int, int]]] = {}
        for stratum in self.of(comparison):
            for factor, level in stratum.labels.items():
                name = text(level)
                held, of = found.setdefault(factor, {}).get(name, (0, 0))
                found[factor][name] = held + stratum.holds, of + 1
        return {factor: levels for factor, levels in found.items() if len(levels) > 1}


def text(level: object) -> str:
    """A level of a factor in words: 200 and not 200.0."""
    return f"{level:g}" if isinstance(level, float) else str(level)


def judge(claim: Claim, runs: Runs) -> Verdict:
    """What the runs say of a claim; a comparison without runs has no strata."""
    strata = [s for one in claim.comparisons for s in _judged(one, claim.alpha, runs)]
    return Verdict(claim, strata, {c.name: predictions(c, runs) for c in claim.comparisons if c.kind == "ranking"})


def _judged(one: Comparison, alpha: float, runs: Runs) -> list[Stratum]:
    table = selected(runs.table, one.where)
    if one.kind == "correlation":
        return [s for labels, group in _groups(table, one.strata) for s in _correlations(one, labels, group)]
    if one.kind == "ranking":
        return [_ranking(one, labels, group) for labels, group in _groups(table, one.strata)]
    found: list[tuple[dict[str, Any], np.ndarray]] = []
    for quantity in one.quantity:
        pairs = paired(runs, table, one, quantity)
        if one.kind == "trend":
            pairs = _slopes(pairs, one)
        extra = {"quantity": quantity} if len(one.quantity) > 1 else {}
        found += [({**labels, **extra}, group["gap"].to_numpy()) for labels, group in _groups(pairs, one.strata)]
    if one.kind == "agree":
        return [_agreement(one, labels, gaps) for labels, gaps in found]
    return _tests(one, alpha, found)


def selected(table: pd.DataFrame, where: Mapping[str, Sequence[Any]]) -> pd.DataFrame:
    """The runs whose factors have one of the levels that are named."""
    for factor, levels in where.items():
        table = table[table[factor].isin(levels)]
    return table


def _groups(table: pd.DataFrame, strata: Sequence[str]) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """The runs of each stratum with its labels; a factor that all runs share, or none has, labels nothing."""
    dividing = [f for f in strata if table[f].nunique() > 1] if len(table) else []
    if not dividing:
        if len(table):
            yield {f: table[f].iloc[0] for f in strata[:1]}, table
        return
    for key, group in table.groupby(dividing, dropna=False):
        yield dict(zip(dividing, key, strict=True)), group


def paired(runs: Runs, table: pd.DataFrame, one: Comparison, quantity: str) -> pd.DataFrame:
    """A row a pair: the factors of the run with finite differences, and `gap`, FD minus AD of a quantity."""
    if quantity != LARGE_VALUES and quantity not in table:
        return table.iloc[:0].assign(gap=[])
    exact = table[table["way"] == one.exact].drop_duplicates("pair").set_index("pair")
    others = table[table["way"].isin(one.ways) & table["pair"].isin(exact.index)]
    reference = exact.loc[others["pair"]]
    if quantity == LARGE_VALUES:
        ids = zip(reference["id"], others["id"], strict=True)
        gaps = np.array([_large_gap(runs.spectrum(a)[1], runs.spectrum(b)[1]) for a, b in ids])
    else:
        ours, theirs = (t[quantity].to_numpy(dtype=float) for t in (others, reference))
        with np.errstate(divide="ignore", invalid="ignore"):
            gaps = np.log10(ours) - np.log10(theirs) if one.scale == "log10" else ours - theirs
    return others.assign(gap=gaps)[np.isfinite(gaps)]


def _large_gap(exact: np.ndarray, other: np.ndarray) -> float:
    large = exact > LARGE * exact[:1]
    return float(np.max(np.abs(other[large] / exact[large] - 1))) if len(exact) == len(other) > 0 else np.nan


def _slopes(pairs: pd.DataFrame, one: Comparison) -> pd.DataFrame:
    """A row for each seed of a stratum: `gap` is the least-squares slope of the gap by `over`."""
    dividing = [*(f for f in one.strata if pairs[f].nunique() > 1), "seed"]
    rows = []
    for _, group in pairs.groupby(dividing, dropna=False):
        if group[one.over].nunique() > 1:
            slope = np.polyfit(group[one.over].to_numpy(dtype=float), group["gap"].to_numpy(), 1)[0]
            rows.append(group.iloc[0].to_dict() | {"gap": float(slope)})
    return pd.DataFrame(rows, columns=pairs.columns)


def _tests(one: Comparison, alpha: float, found: Sequence[tuple[dict[str, Any], np.ndarray]]) -> list[Stratum]:
    tests = [statistics.paired(gaps) for _, gaps in found]
    strata = []
    for (labels, _), test, p in zip(found, tests, statistics.adjusted([t.p for t in tests]), strict=True):
        holds, opposite = _direction(one, test.median)
        clear = bool(p < alpha)
        strata.append(
            Stratum(one.name, labels, test.median, float(p), test.effect, clear and holds, clear and opposite)
        )
    return strata


def _direction(one: Comparison, estimate: Estimate) -> tuple[bool, bool]:
    """Whether an estimate of the least size that counts is clear of 0 with the expected sign, or with the other."""
    if not abs(estimate.value) >= one.least:
        return False, False
    above, below = estimate.low > 0, estimate.high < 0
    return (above, below) if one.expected == "greater" else (below, above)


def _agreement(one: Comparison, labels: dict[str, Any], gaps: np.ndarray) -> Stratum:
    estimate = statistics.bootstrap_median(gaps)
    return Stratum(one.name, labels, estimate, np.nan, np.nan, bool(estimate.high <= one.tolerance))


def _correlations(one: Comparison, labels: dict[str, Any], group: pd.DataFrame) -> list[Stratum]:
    names, found, _ = correlations(group, one.predictors, one.quantity[0])
    return [
        Stratum(one.name, {**labels, "predictor": name}, estimate, np.nan, np.nan, *_direction(one, estimate))
        for name, estimate in zip(names, found, strict=True)
    ]


def _ranking(one: Comparison, labels: dict[str, Any], group: pd.DataFrame) -> Stratum:
    names, found, drawn = correlations(group, one.predictors, one.quantity[0])
    if one.claimed not in names:
        nothing = Estimate(np.nan, np.nan, np.nan, len(group))
        return Stratum(one.name, labels, nothing, np.nan, np.nan, False, best="not measured")
    own = names.index(one.claimed)
    sizes = np.array([abs(f.value) for f in found])
    if not np.isfinite(sizes).any():
        return Stratum(one.name, labels, found[own], np.nan, np.nan, False, best="too few runs")
    best = int(np.nanargmax(sizes))
    ahead = np.nanquantile(np.abs(drawn[:, best]) - np.abs(drawn[:, own]), (1 - statistics.CONFIDENCE) / 2)
    holds = bool(best == own or ahead <= 0)
    return Stratum(one.name, labels, found[own], np.nan, np.nan, holds, best=f"{names[best]} {found[best].value:+.2f}")


def predictions(one: Comparison, runs: Runs) -> dict[str, dict[str, Estimate]]:
    """The correlations of a ranking, over all its runs (`all`) and inside each PDE, by predictor."""
    table = selected(runs.table, one.where)
    groups = {"all": table, **{str(pde): group for pde, group in table.groupby("pde")}}
    found = {}
    for label, group in groups.items():
        names, estimates, _ = correlations(group, one.predictors, one.quantity[0])
        found[label] = {n: e for n, e in zip(names, estimates, strict=True) if np.isfinite(e.value)}
    return {label: estimates for label, estimates in found.items() if estimates}


def correlations(
    group: pd.DataFrame, predictors: Sequence[str], outcome: str
) -> tuple[list[str], list[Estimate], np.ndarray]:
    """Names of the predictors that were measured, their correlations with an outcome, and all resamples (R, k)."""
    names = [p for p in predictors if p in group and group[p].notna().any()]
    known = group[[outcome, *names]].dropna() if outcome in group else group.iloc[:0]
    values = known[names].to_numpy(dtype=float).T if len(known) else np.empty((len(names), 0))
    found, drawn = statistics.rank_correlations(
        values, known[outcome].to_numpy(dtype=float) if len(known) else np.empty(0)
    )
    return names, found, drawn
