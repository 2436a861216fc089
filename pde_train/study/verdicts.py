"""Verdicts: every comparison of a hypothesis, judged in every stratum of the runs.

The rule by which a verdict follows is stated in `pde_train.study.hypotheses`. This module applies
it: it forms the pairs of a comparison, divides them into strata, calls the tests of
`pde_train.study.statistics`, and adjusts the p-values of the primary strata together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from pde_train.errors import RunError
from pde_train.study import statistics
from pde_train.study.hypotheses import Comparison, Hypothesis, Level, Outcome, Word, word
from pde_train.study.run_table import DEFINITION, LARGE, Runs, depends_on_definition
from pde_train.study.statistics import NOTHING, UNDECIDABLE, Cell, Correlations, Estimate, Tested

LARGE_VALUES = "large singular values"
"""Name of the quantity of a pair that is the largest relative difference of its singular values above LARGE s_1."""

LOST = ("not finished", "no number", "no partner")
"""Why a pair is lost: one of its runs did not finish; its difference is nan; the run with exact
derivatives was never made.

The first two count against every statement of a test. The third is a gap in the design of the
study: it is counted, and changes no test.
"""

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
class Effect:
    """What a level of a factor does to the gap, with every seed as one block.

    Both estimates are of the logarithm to base 10 where the gap is the relative difference of large
    singular values.

    Attributes:
        factor: The name of the factor.
        level: The level that is described.
        reference: The level with which it is compared.
        gap: The median over seeds of a seed's mean gap over all strata of the level.
        change: The median over seeds of a seed's mean difference from the reference level, over the
            strata that exist for both levels and agree in all other factors; NOTHING where there
            are none.
        strata: The number of those strata.
    """

    factor: str
    level: Level
    reference: Level | None
    gap: Estimate
    change: Estimate
    strata: int


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


def text(level: object) -> str:
    """A level of a factor as text: 200 rather than 200.0."""
    return f"{level:g}" if isinstance(level, float) else str(level)


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
    effects, predictions = {}, {}
    for comparison in hypothesis.comparisons:
        if comparison.kind in ("paired", "trend"):
            gaps = _gaps(comparison, runs)
            effects[comparison.name] = _effects(comparison, gaps)
            judged = [_paired(comparison, labels, group) for labels, group in _groups(gaps, comparison.factors)]
        else:
            judged, predictions[comparison.name] = _predicted(comparison, runs)
        strata += _primary_first(comparison, judged)
    return Verdict(hypothesis, _decided(hypothesis, strata), effects, {k: v for k, v in predictions.items() if v})


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


def selected(table: pd.DataFrame, where: Mapping[str, Sequence[Level]]) -> pd.DataFrame:
    """The rows whose factors each have one of the given levels."""
    for factor, levels in where.items():
        table = table[table[factor].isin(levels)]
    return table


def _groups(table: pd.DataFrame, factors: Sequence[str]) -> Iterator[tuple[dict[str, Level], pd.DataFrame]]:
    """Yield the labels of each stratum, and its rows."""
    for key, group in table.groupby(list(factors), dropna=False, sort=False):
        yield dict(zip(factors, key, strict=True)), group


def check_unique_seeds(
    name: str, labels: Mapping[str, Level], group: pd.DataFrame, runs: Runs, per: Sequence[str] = ()
) -> None:
    """Refuse a stratum in which a seed occurs twice, or twice with the same levels of `per`.

    Args:
        name: The comparison, as it is named in the error.
        labels: The level of each factor of the stratum.
        group: The rows of the stratum.
        runs: The run table, whose settings tell what two runs of a seed differ in.
        per: Factors of which each level may have a run of the same seed.

    Raises:
        RunError: A seed occurs twice. The sentence names the settings in which its runs differ.
    """
    again = group.duplicated(["seed", *per], keep=False)
    if not again.any():
        return
    first = group[again].iloc[0]
    same = group[(group[["seed", *per]] == first[["seed", *per]]).all(axis=1)]
    settings = runs.settings.reindex(same["id"])
    differ = [c.removeprefix("params.") for c in settings if settings[c].astype(str).nunique() > 1]
    where = ", ".join(f"{factor} {text(level)}" for factor, level in labels.items())
    raise RunError(
        f"{name!r} has {len(same)} runs of seed {text(first['seed'])} in the stratum {where}, which differ in "
        f"{', '.join(differ) or 'nothing that is known'}: expected one, as they are no independent pairs; add "
        "what they differ in to `where` or `strata` of the hypothesis, or keep these runs in another experiment"
    )


def paired(runs: Runs, comparison: Comparison, quantity: str) -> pd.DataFrame:
    """The pairs of a comparison: each run of one of its schemes with the run of the exact scheme.

    Args:
        runs: The run table.
        comparison: Which runs are compared, and with what.
        quantity: The metric whose difference is taken, or LARGE_VALUES.

    Returns:
        A row for each pair: the factors of the run with finite differences, `gap` (nan where the
        pair is lost), and `lost`, the reason (see LOST), which is empty where the pair is complete.
    """
    finished = selected(runs.of([quantity]), comparison.where)
    if quantity != LARGE_VALUES and quantity not in finished:
        return finished.iloc[:0].assign(gap=[], lost=[])
    unfinished = selected(runs.unfinished, comparison.where) if len(runs.unfinished) else finished.iloc[:0]
    table = pd.concat([finished.assign(done=True), unfinished.assign(done=False)], ignore_index=True)
    keys = ["pair", *DEFINITION] if depends_on_definition([quantity]) else ["pair"]
    exact, others = table[table["scheme"] == comparison.exact], table[table["scheme"].isin(comparison.schemes)]
    exact = exact[~exact.duplicated(keys) | exact["done"]]
    check_unique_seeds(comparison.name, {"scheme": comparison.exact}, exact, runs, keys)
    exact = exact[[*keys, "id", "done", *([quantity] if quantity in table else [])]]
    both = others.merge(exact, on=keys, how="left", suffixes=("", " exact"), indicator="partner")
    gap = _differences(runs, both, comparison, quantity)
    done = both["done"] & both["done exact"].eq(True)
    reasons = {LOST[2]: both["partner"] == "left_only", LOST[0]: ~done, LOST[1]: np.isnan(gap)}
    lost = np.select(list(reasons.values()), list(reasons), "")
    return both.assign(gap=np.where(lost == "", gap, np.nan), lost=lost)


def _differences(runs: Runs, both: pd.DataFrame, comparison: Comparison, quantity: str) -> np.ndarray:
    if quantity == LARGE_VALUES:
        ids = zip(both["id exact"], both["id"], both["done"] & both["done exact"].eq(True), strict=True)
        return np.array([_large_gap(runs.spectrum(a)[1], runs.spectrum(b)[1]) if k else np.nan for a, b, k in ids])
    ours, theirs = (both[f"{quantity}{end}"].to_numpy(dtype=float) for end in ("", " exact"))
    with np.errstate(divide="ignore", invalid="ignore"):
        gaps: np.ndarray = np.log10(ours) - np.log10(theirs) if comparison.scale == "log10" else ours - theirs
    return gaps


def _large_gap(exact: np.ndarray, other: np.ndarray) -> float:
    large = exact > LARGE * exact[:1]
    return float(np.max(np.abs(other[large] / exact[large] - 1))) if len(exact) == len(other) > 0 else np.nan


def _gaps(comparison: Comparison, runs: Runs) -> pd.DataFrame:
    """The pairs of a comparison for all its quantities; for a trend, the slopes."""
    per = [comparison.over] if comparison.over else []
    frames = []
    for quantity in comparison.quantity:
        pairs = paired(runs, comparison, quantity).assign(quantity=quantity)
        for labels, group in _groups(pairs, comparison.factors):
            check_unique_seeds(comparison.name, labels, group[group["lost"] != LOST[2]], runs, per)
        frames.append(_slopes(pairs, comparison) if comparison.kind == "trend" else pairs)
    return pd.concat(frames, ignore_index=True)


def _slopes(pairs: pd.DataFrame, comparison: Comparison) -> pd.DataFrame:
    """The least-squares slope of the gap by `over` for each seed of each stratum; lost where it lacks a level."""
    rows = []
    for _, stratum in _groups(pairs[pairs["lost"] != LOST[2]], comparison.factors):
        levels = stratum[comparison.over].nunique()
        for _, group in stratum.groupby("seed") if levels > 1 else ():
            known = group[np.isfinite(group["gap"])]
            row = group.iloc[0].to_dict()
            if len(known) == levels:
                slope = np.polyfit(known[comparison.over].to_numpy(dtype=float), known["gap"].to_numpy(dtype=float), 1)[
                    0
                ]
                rows.append(row | {"gap": float(slope), "lost": ""})
            else:
                why = group["lost"][group["lost"] != ""]
                rows.append(row | {"gap": np.nan, "lost": why.iloc[0] if len(why) else LOST[1]})
    return pd.DataFrame(rows, columns=pairs.columns)


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


def _effects(comparison: Comparison, gaps: pd.DataFrame) -> list[Effect]:
    """What each level of each factor does to the gap, for the factors that have several levels."""
    known = gaps[gaps["lost"] != LOST[2]]
    if known.empty:
        return []
    if comparison.quantity[0] == LARGE_VALUES:  # relative differences of all sizes have no common mean
        with np.errstate(divide="ignore"):
            known = known.assign(gap=np.log10(known["gap"].to_numpy(dtype=float)))
    index = [*comparison.factors, "seed"]
    wide = known.set_index(index)["gap"].unstack("seed")  # a row a stratum, a column a seed
    made = known.assign(made=1.0).set_index(index)["made"].unstack("seed").notna()
    some = wide.notna().any(axis=1)
    wide, made = wide[some], made[some]
    effects = []
    for factor in comparison.factors:
        levels = wide.index.get_level_values(factor)
        reference = comparison.reference.get(factor)
        for level in _sorted(levels.unique(), reference) if levels.nunique(dropna=False) > 1 else ():
            own = levels == level
            change, strata = _change(wide, made, factor, own, levels == reference)
            effects.append(Effect(factor, level, reference, _block_median(wide[own], made[own]), change, strata))
    return effects


def _sorted(levels: pd.Index, reference: Level | None) -> list[Level]:
    """The levels in ascending order, numbers before text, after the reference level."""
    return sorted(levels, key=lambda level: (level != reference, isinstance(level, str), level))


def _change(
    wide: pd.DataFrame, made: pd.DataFrame, factor: str, own: np.ndarray, reference: np.ndarray
) -> tuple[Estimate, int]:
    """The change from the strata of the reference level to those that differ from them in this factor alone.

    Args:
        wide: The gaps, a row for each stratum and a column for each seed.
        made: Whether the pair was meant to exist, in the same shape.
        factor: The factor whose level changes.
        own: Which rows have the level that is described.
        reference: Which rows have the reference level.

    Returns:
        The median change over seeds, and the number of strata over which each seed is averaged.
    """
    if wide.index.nlevels == 1:
        ours, theirs = (table.reset_index(drop=True) for table in (wide[own], wide[reference]))
        here, there = (table.reset_index(drop=True) for table in (made[own], made[reference]))
    else:
        ours, theirs, here, there = (
            t.droplevel(factor) for t in (wide[own], wide[reference], made[own], made[reference])
        )
    shared = ours.index.intersection(theirs.index)
    if not len(shared) or np.array_equal(own, reference):
        return NOTHING, 0
    change = _block_median(ours.loc[shared] - theirs.loc[shared], here.loc[shared] & there.loc[shared])
    return change, len(shared)


def _block_median(wide: pd.DataFrame, made: pd.DataFrame) -> Estimate:
    """The median over seeds (columns) of a seed's mean over strata (rows).

    Args:
        wide: The gaps; nan where a pair was lost, so that the seed counts as lost.
        made: Whether the pair was meant to exist. A seed that was not run in every stratum is left
            out.

    Returns:
        The estimate.
    """
    with np.errstate(invalid="ignore"):
        blocks = wide.to_numpy(dtype=float)[:, made.all(axis=0).to_numpy()].mean(axis=0)
    known = blocks[~np.isnan(blocks)]
    return statistics.median(known, len(blocks) - len(known))


def _predicted(
    comparison: Comparison, runs: Runs
) -> tuple[list[tuple[Stratum, Tested]], dict[str, dict[str, Estimate]]]:
    """The strata of a correlation or a ranking with their tests; for a ranking also every predictor's correlation."""
    outcome, strata, predictions = comparison.quantity[0], [], {}
    table = runs.of([*comparison.quantity, *comparison.predictors])
    unfinished = selected(runs.unfinished, comparison.where) if len(runs.unfinished) else table.iloc[:0]
    for labels, group in _groups(selected(table, comparison.where), comparison.strata):
        lost = {LOST[0]: len(selected(unfinished, {k: [v] for k, v in labels.items()}))}
        names = [p for p in comparison.predictors if p in group and group[p].notna().any()] if outcome in group else []
        known = group.dropna(subset=[outcome, *names]) if names else group.iloc[:0]
        lost = {why: count for why, count in (lost | {LOST[1]: len(group) - len(known)}).items() if count}
        cells = []
        for cell, rows in _groups(known, comparison.cells):
            check_unique_seeds(comparison.name, labels | cell, rows, runs)
            x, y = rows[names].to_numpy(dtype=float).T, rows[outcome].to_numpy(dtype=float)
            cells.append(Cell(rows["seed"].to_numpy(), x, y))
        correlations = statistics.correlations(cells)
        none = Estimate(np.nan, -np.inf, np.inf, known["seed"].nunique())
        base = Stratum(comparison.name, labels, none, lost, cells=len(cells))
        if comparison.kind == "correlation":
            strata += [_correlation(comparison, base, p, names, correlations) for p in comparison.predictors]
        else:
            strata.append(_ranking(comparison, base, names, correlations))
            if correlations:
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
