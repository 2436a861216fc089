"""Verdicts: every comparison of a hypothesis, judged in every stratum of the runs.

The rule by which a verdict follows is stated in `pde_train.study.hypotheses`. This module applies
it: it divides the pairs of a comparison (`pde_train.study.pairs`) into strata, calls the tests of
`pde_train.study.statistics`, and adjusts the p-values of the primary strata together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from pde_train.study import statistics
from pde_train.study.effects import Effect, effects
from pde_train.study.hypotheses import Comparison, Hypothesis, Level, Outcome, Word, word
from pde_train.study.pairs import LOST, check_unique_seeds, gaps, groups, selected, text
from pde_train.study.run_table import Runs
from pde_train.study.statistics import NOTHING, UNDECIDABLE, Cell, Correlations, Estimate, Tested

SIDES = ("beyond the margin as claimed", "within the margin", "beyond it, the opposite", "across a margin")
"""Where the 95 % interval of a stratum may lie: a description of the interval, not a test."""


@dataclass(frozen=True)
class Stratum:
    """One comparison in one stratum.

    Attributes:
        comparison: The name of the comparison.
        labels: The level of each factor.
        estimate: The median gap, the correlation, or the lead of the best other predictor.
        lost: How many pairs or runs were lost, by reason (see LOST).
        side: Where the 95 % interval lies, one of SIDES; empty without an estimate.
        cells: The number of design cells of a correlation or ranking; 0 for pairs.
        note: For a correlation its range over the cells, for a ranking the two predictors that are
            compared.
        when: The name of a primary stratum. A descriptive stratum has an empty name, no p and no
            outcome.
        p: The p-value of the best supported statement, before Holm's adjustment.
        adjusted: The same after the adjustment over all primary strata of the hypothesis.
        reachable: The smallest p-value that so many pairs can have, before the adjustment.
        adjusted_reachable: The same after the adjustment.
        outcome: What the test decided.
    """

    comparison: str
    labels: Mapping[str, Level]
    estimate: Estimate
    lost: Mapping[str, int] = field(default_factory=dict)
    side: str = ""
    cells: int = 0
    note: str = ""
    when: str = ""
    p: float | None = None
    adjusted: float | None = None
    reachable: float | None = None
    adjusted_reachable: float | None = None
    outcome: Outcome | None = None


@dataclass(frozen=True)
class Verdict:
    """What the runs say of a hypothesis, and the numbers that it follows from.

    Attributes:
        hypothesis: The hypothesis that is judged.
        strata: Its comparisons in every stratum; the primary strata of each comparison come first.
        effects: What each level of each factor does, by the name of the comparison.
        predictions: For each ranking, the correlations inside cells by stratum and by predictor.
    """

    hypothesis: Hypothesis
    strata: Sequence[Stratum]
    effects: Mapping[str, Sequence[Effect]]
    predictions: Mapping[str, Mapping[str, Mapping[str, Estimate]]]

    @property
    def primary(self) -> list[Stratum]:
        """The strata that are tested, in the order of the hypothesis file."""
        return [s for s in self.strata if s.when]

    @property
    def word(self) -> Word:
        """The one-word verdict, see `hypotheses.word`."""
        return word([s.outcome for s in self.primary if s.outcome])

    def of(self, comparison: Comparison) -> list[Stratum]:
        """The strata of one comparison."""
        return [s for s in self.strata if s.comparison == comparison.name]

    def sides(self, comparison: Comparison) -> dict[str, int]:
        """The number of strata of a comparison, primary or not, by where their 95 % interval lies."""
        sides = [s.side for s in self.of(comparison)]
        return {side: sides.count(side) for side in SIDES if side in sides}


def judge(hypothesis: Hypothesis, runs: Runs) -> Verdict:
    """Judge a hypothesis by the runs.

    Args:
        hypothesis: The hypothesis, with its comparisons and primary strata.
        runs: The run table. A comparison without runs gets its primary strata alone, without data.

    Returns:
        The verdict with every stratum, effect and prediction.

    Raises:
        RunError: A seed occurs more than once in a stratum, so that its runs are not independent
            pairs.
    """
    strata: list[tuple[Stratum, Tested]] = []
    every_effect, predictions = {}, {}
    for comparison in hypothesis.comparisons:
        if comparison.kind in ("paired", "trend"):
            differences = gaps(comparison, runs)
            every_effect[comparison.name] = effects(comparison, differences)
            judged = [_paired(comparison, labels, group) for labels, group in groups(differences, comparison.factors)]
        else:
            judged, predictions[comparison.name] = _predicted(comparison, runs)
        strata += _primary_first(comparison, judged)
    return Verdict(hypothesis, _decided(hypothesis, strata), every_effect, {k: v for k, v in predictions.items() if v})


def _primary_first(comparison: Comparison, judged: list[tuple[Stratum, Tested]]) -> list[tuple[Stratum, Tested]]:
    """The strata of a comparison: first the primary ones in their order, with or without data, then all others."""
    named = []
    for primary in comparison.primary:
        match = next((s for s in judged if s[0].labels == dict(primary.levels)), None)
        if match:
            judged.remove(match)
        stratum, tested = match or (Stratum(comparison.name, primary.levels, NOTHING), UNDECIDABLE)
        named.append((replace(stratum, when=primary.when), tested))
    return named + judged


def _decided(hypothesis: Hypothesis, strata: list[tuple[Stratum, Tested]]) -> list[Stratum]:
    """The strata with the outcomes of the primary ones, whose p-values are adjusted over the whole hypothesis."""
    comparisons = {comparison.name: comparison for comparison in hypothesis.comparisons}
    tests = [tested for stratum, tested in strata if stratum.when]
    adjusted = iter(statistics.holm([t.p for t in tests]))
    reachable = iter(statistics.holm([t.reachable for t in tests]))
    decided = []
    for stratum, tested in strata:
        if stratum.when:
            p, least = next(adjusted), next(reachable)
            outcome = _outcome(
                comparisons[stratum.comparison], stratum, tested, p < hypothesis.alpha, least < hypothesis.alpha
            )
            stratum = replace(
                stratum,
                p=tested.p,
                adjusted=p,
                reachable=tested.reachable,
                adjusted_reachable=least,
                outcome=outcome,
            )
        decided.append(stratum)
    return decided


def _outcome(comparison: Comparison, stratum: Stratum, tested: Tested, clear: bool, possible: bool) -> Outcome:
    if not stratum.estimate.n:
        return Outcome.NO_DATA
    if not possible:
        return Outcome.TOO_FEW
    if not clear:
        return Outcome.OPEN
    if tested.statement == comparison.expected:
        return Outcome.CLAIMED
    return Outcome.SAME if tested.statement == "same" else Outcome.OPPOSITE


def _paired(comparison: Comparison, labels: dict[str, Level], group: pd.DataFrame) -> tuple[Stratum, Tested]:
    lost = _lost(group["lost"])
    against = lost.get(LOST[0], 0) + lost.get(LOST[1], 0)
    values = group["gap"][group["lost"] == ""].to_numpy(dtype=float)
    estimate = statistics.median(values, against)
    tested = statistics.sign_test(values, comparison.margin, against)
    return Stratum(comparison.name, labels, estimate, lost, _side(comparison, estimate)), tested


def _lost(reasons: pd.Series) -> dict[str, int]:
    return {why: int((reasons == why).sum()) for why in LOST if (reasons == why).any()}


def _side(comparison: Comparison, estimate: Estimate) -> str:
    """Where an interval lies: one of SIDES, or empty without an estimate."""
    if not estimate.n:
        return ""
    above, below = estimate.low > comparison.margin, estimate.high < -comparison.margin
    within = estimate.low > -comparison.margin and estimate.high < comparison.margin
    claimed = {"greater": above, "less": below, "same": within}[comparison.expected]
    return SIDES[0] if claimed else SIDES[1] if within else SIDES[2] if above or below else SIDES[3]


def _predicted(
    comparison: Comparison, runs: Runs
) -> tuple[list[tuple[Stratum, Tested]], dict[str, dict[str, Estimate]]]:
    """The strata of a correlation or a ranking with their tests; for a ranking also every predictor's correlation."""
    outcome, strata, predictions = comparison.quantity[0], [], {}
    table = runs.of([*comparison.quantity, *comparison.predictors])
    unfinished = selected(runs.unfinished, comparison.where) if len(runs.unfinished) else table.iloc[:0]
    for labels, group in groups(selected(table, comparison.where), comparison.strata):
        lost = {LOST[0]: len(selected(unfinished, {k: [v] for k, v in labels.items()}))}
        names = [p for p in comparison.predictors if p in group and group[p].notna().any()] if outcome in group else []
        known = group.dropna(subset=[outcome, *names]) if names else group.iloc[:0]
        lost = {why: count for why, count in (lost | {LOST[1]: len(group) - len(known)}).items() if count}
        cells = []
        for cell, rows in groups(known, comparison.cells):
            check_unique_seeds(comparison.name, labels | cell, rows, runs)
            x, y = rows[names].to_numpy(dtype=float).T, rows[outcome].to_numpy(dtype=float)
            cells.append(Cell(rows["seed"].to_numpy(), x, y))
        correlations = statistics.correlations(cells)
        none = Estimate(np.nan, -np.inf, np.inf, known["seed"].nunique())
        base = Stratum(comparison.name, labels, none, lost, cells=len(cells))
        if comparison.kind == "correlation":
            of_labels = [_correlation(comparison, base, p, names, correlations) for p in comparison.predictors]
        else:
            of_labels = [_ranking(comparison, base, names, correlations)]
        strata += [(stratum, UNDECIDABLE if lost else tested) for stratum, tested in of_labels]
        if comparison.kind == "ranking" and correlations:
            label = ", ".join(text(v) for v in labels.values())
            predictions[label] = {name: correlations.estimate(k) for k, name in enumerate(names)}
    return strata, predictions


def _correlation(
    comparison: Comparison, base: Stratum, predictor: str, names: Sequence[str], correlations: Correlations | None
) -> tuple[Stratum, Tested]:
    stratum = replace(base, labels={**base.labels, "predictor": predictor})
    if correlations is None or predictor not in names:
        return stratum, UNDECIDABLE
    k = names.index(predictor)
    estimate = correlations.estimate(k)
    low, high = correlations.by_cell[:, k].min(), correlations.by_cell[:, k].max()
    note = f"cells from {low:+.2f} to {high:+.2f}"
    return replace(stratum, estimate=estimate, side=_side(comparison, estimate), note=note), correlations.test(
        k, comparison.margin
    )


def _ranking(
    comparison: Comparison, base: Stratum, names: Sequence[str], correlations: Correlations | None
) -> tuple[Stratum, Tested]:
    if correlations is None or comparison.claimed not in names or len(names) < 2:
        return base, UNDECIDABLE
    own = names.index(comparison.claimed)
    best = max((k for k in range(len(names)) if k != own), key=lambda k: abs(correlations.values[k]))
    note = f"{names[best]} {correlations.values[best]:+.2f} against {correlations.values[own]:+.2f}"
    return replace(base, estimate=correlations.lead(best, own), note=note), correlations.test_best(
        own, comparison.margin
    )
