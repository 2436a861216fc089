"""Claims judged by runs: every comparison in every stratum, and the word that follows. The rule: `hypotheses.py`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from pde_train.errors import RunError
from pde_train.study import statistics
from pde_train.study.hypotheses import Claim, Comparison, Outcome, Word, word
from pde_train.study.run_table import DEFINITION, LARGE, Runs, depends_on_definition
from pde_train.study.statistics import NOTHING, UNDECIDABLE, Cell, Correlations, Estimate, Tested

LARGE_VALUES = "large singular values"
"""A quantity of a pair: the largest relative difference of singular values above LARGE s_1."""

LOST = ("not finished", "no number", "no partner")
"""Why a pair is none: a run of it did not finish; a difference of both has no sign; the exact run was never made.

The first two count against every statement of a test. The third are no pairs by design, and are counted alone.
"""

SIDES = ("beyond the margin as claimed", "within the margin", "beyond it, the opposite", "across a margin")
"""Where the 95 % interval of a stratum lies: a description of it, not a test."""


@dataclass(frozen=True)
class Stratum:
    """One comparison in one stratum.

    labels: the level of each factor. side: one of SIDES. lost: how many pairs or runs were lost, by LOST. cells: of a
    correlation. note: the range of a correlation over its cells; in a ranking the two predictors that are compared.
    when: the name of a primary stratum; of a descriptive one it is empty, and there is no outcome and no p. p: before
    and after Holm's adjustment. reachable: the smallest p that so many pairs can have, before and after.
    """

    comparison: str
    labels: Mapping[str, Any]
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

    gap: the median over seeds of a seed's mean gap over all strata of that level. change: the same of the difference
    to the reference level, over the `strata` that have both levels and share all other ones; NOTHING where none does.
    Both are of the logarithm to base 10 where the gap is the relative difference of large singular values.
    """

    factor: str
    level: Any
    reference: Any
    gap: Estimate
    change: Estimate
    strata: int


@dataclass(frozen=True)
class Verdict:
    """A claim's word, and all that it follows from.

    effects: by comparison. predictions: of each ranking the correlations inside cells, by stratum and predictor.
    """

    claim: Claim
    strata: Sequence[Stratum]
    effects: Mapping[str, Sequence[Effect]]
    predictions: Mapping[str, Mapping[str, Mapping[str, Estimate]]]

    @property
    def primary(self) -> list[Stratum]:
        """The strata that are tested, in the order of the claim's file."""
        return [s for s in self.strata if s.when]

    @property
    def word(self) -> Word:
        """What is said of the claim, see `hypotheses.word`."""
        return word([s.outcome for s in self.primary if s.outcome])

    def of(self, comparison: Comparison) -> list[Stratum]:
        """The strata of one comparison."""
        return [s for s in self.strata if s.comparison == comparison.name]

    def sides(self, comparison: Comparison) -> dict[str, int]:
        """How many strata of a comparison, primary or not, have their interval on each side of the margin."""
        found = [s.side for s in self.of(comparison)]
        return {side: found.count(side) for side in SIDES if side in found}


def text(level: object) -> str:
    """A level of a factor in words: 200 and not 200.0."""
    return f"{level:g}" if isinstance(level, float) else str(level)


def judge(claim: Claim, runs: Runs) -> Verdict:
    """What the runs say of a claim; a comparison without runs has no strata but its primary ones, without data.

    Raises:
        RunError: a seed stands in a stratum more than once, so that its runs are no independent pairs.
    """
    strata: list[tuple[Stratum, Tested]] = []
    effects, predictions = {}, {}
    for one in claim.comparisons:
        if one.kind in ("paired", "trend"):
            gaps = _gaps(one, runs)
            effects[one.name] = _effects(one, gaps)
            found = [_paired(one, labels, group) for labels, group in _groups(gaps, one.factors)]
        else:
            found, predictions[one.name] = _predicted(one, runs)
        strata += _primary_first(one, found)
    return Verdict(claim, _decided(claim, strata), effects, {k: v for k, v in predictions.items() if v})


def _primary_first(one: Comparison, found: list[tuple[Stratum, Tested]]) -> list[tuple[Stratum, Tested]]:
    """The strata of a comparison: the primary ones by name, with or without data, and then all others."""
    named = []
    for primary in one.primary:
        match = next((s for s in found if s[0].labels == dict(primary.levels)), None)
        if match:
            found.remove(match)
        stratum, tested = match or (Stratum(one.name, primary.levels, NOTHING), UNDECIDABLE)
        named.append((replace(stratum, when=primary.when), tested))
    return named + found


def _decided(claim: Claim, strata: list[tuple[Stratum, Tested]]) -> list[Stratum]:
    """The same strata with the outcomes of the primary ones, adjusted over the claim."""
    comparisons = {one.name: one for one in claim.comparisons}
    tests = [tested for stratum, tested in strata if stratum.when]
    adjusted = iter(statistics.holm([t.p for t in tests]))
    reachable = iter(statistics.holm([t.reachable for t in tests]))
    decided = []
    for stratum, tested in strata:
        if stratum.when:
            p, least = next(adjusted), next(reachable)
            outcome = _outcome(comparisons[stratum.comparison], stratum, tested, p < claim.alpha, least < claim.alpha)
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


def _outcome(one: Comparison, stratum: Stratum, tested: Tested, clear: bool, possible: bool) -> Outcome:
    if not stratum.estimate.n:
        return Outcome.NO_DATA
    if not possible:
        return Outcome.TOO_FEW
    if not clear:
        return Outcome.OPEN
    if tested.statement == one.expected:
        return Outcome.CLAIMED
    return Outcome.SAME if tested.statement == "same" else Outcome.OPPOSITE


def selected(table: pd.DataFrame, where: Mapping[str, Sequence[Any]]) -> pd.DataFrame:
    """The runs whose factors have one of the levels that are named."""
    for factor, levels in where.items():
        table = table[table[factor].isin(levels)]
    return table


def _groups(table: pd.DataFrame, factors: Sequence[str]) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """The rows of each stratum with its labels."""
    for key, group in table.groupby(list(factors), dropna=False, sort=False):
        yield dict(zip(factors, key, strict=True)), group


def unique_seeds(
    name: str, labels: Mapping[str, Any], group: pd.DataFrame, runs: Runs, per: Sequence[str] = ()
) -> None:
    """Ask that each seed stands once in a stratum, or once for each level of `per`.

    Raises:
        RunError: it does not; the sentence names what its runs differ in.
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
        "what they differ in to `where` or `strata` of the claim, or keep these runs in another experiment"
    )


def paired(runs: Runs, one: Comparison, quantity: str) -> pd.DataFrame:
    """A row a pair: the factors of the run with finite differences, `gap` (nan where it is lost), and why: `lost`."""
    finished = selected(runs.of([quantity]), one.where)
    if quantity != LARGE_VALUES and quantity not in finished:
        return finished.iloc[:0].assign(gap=[], lost=[])
    unfinished = selected(runs.unfinished, one.where) if len(runs.unfinished) else finished.iloc[:0]
    table = pd.concat([finished.assign(done=True), unfinished.assign(done=False)], ignore_index=True)
    keys = ["pair", *DEFINITION] if depends_on_definition([quantity]) else ["pair"]
    exact, others = table[table["way"] == one.exact], table[table["way"].isin(one.ways)]
    exact = exact[~exact.duplicated(keys) | exact["done"]]
    unique_seeds(one.name, {"way": one.exact}, exact, runs, keys)
    exact = exact[[*keys, "id", "done", *([quantity] if quantity in table else [])]]
    both = others.merge(exact, on=keys, how="left", suffixes=("", " exact"), indicator="partner")
    gap = _differences(runs, both, one, quantity)
    done = both["done"] & both["done exact"].eq(True)
    reasons = {LOST[2]: both["partner"] == "left_only", LOST[0]: ~done, LOST[1]: np.isnan(gap)}
    lost = np.select(list(reasons.values()), list(reasons), "")
    return both.assign(gap=np.where(lost == "", gap, np.nan), lost=lost)


def _differences(runs: Runs, both: pd.DataFrame, one: Comparison, quantity: str) -> np.ndarray:
    if quantity == LARGE_VALUES:
        ids = zip(both["id exact"], both["id"], both["done"] & both["done exact"].eq(True), strict=True)
        return np.array([_large_gap(runs.spectrum(a)[1], runs.spectrum(b)[1]) if k else np.nan for a, b, k in ids])
    ours, theirs = (both[f"{quantity}{end}"].to_numpy(dtype=float) for end in ("", " exact"))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log10(ours) - np.log10(theirs) if one.scale == "log10" else ours - theirs


def _large_gap(exact: np.ndarray, other: np.ndarray) -> float:
    large = exact > LARGE * exact[:1]
    return float(np.max(np.abs(other[large] / exact[large] - 1))) if len(exact) == len(other) > 0 else np.nan


def _gaps(one: Comparison, runs: Runs) -> pd.DataFrame:
    """The pairs of a comparison in all its quantities; of a trend, the slopes."""
    per = [one.over] if one.over else []
    frames = []
    for quantity in one.quantity:
        pairs = paired(runs, one, quantity).assign(quantity=quantity)
        for labels, group in _groups(pairs, one.factors):
            unique_seeds(one.name, labels, group[group["lost"] != LOST[2]], runs, per)
        frames.append(_slopes(pairs, one) if one.kind == "trend" else pairs)
    return pd.concat(frames, ignore_index=True)


def _slopes(pairs: pd.DataFrame, one: Comparison) -> pd.DataFrame:
    """A row for each seed of a stratum: `gap` is the least-squares slope of the gap by `over`, lost without a level."""
    rows = []
    for _, stratum in _groups(pairs[pairs["lost"] != LOST[2]], one.factors):
        levels = stratum[one.over].nunique()
        for _, group in stratum.groupby("seed") if levels > 1 else ():
            known = group[np.isfinite(group["gap"])]
            row = group.iloc[0].to_dict()
            if len(known) == levels:
                slope = np.polyfit(known[one.over].to_numpy(dtype=float), known["gap"].to_numpy(dtype=float), 1)[0]
                rows.append(row | {"gap": float(slope), "lost": ""})
            else:
                why = group["lost"][group["lost"] != ""]
                rows.append(row | {"gap": np.nan, "lost": why.iloc[0] if len(why) else LOST[1]})
    return pd.DataFrame(rows, columns=pairs.columns)


def _paired(one: Comparison, labels: dict[str, Any], group: pd.DataFrame) -> tuple[Stratum, Tested]:
    lost = _lost(group["lost"])
    against = lost.get(LOST[0], 0) + lost.get(LOST[1], 0)
    values = group["gap"][group["lost"] == ""].to_numpy(dtype=float)
    estimate = statistics.median(values, against)
    tested = statistics.sign_test(values, one.margin, against)
    return Stratum(one.name, labels, estimate, lost, _side(one, estimate)), tested


def _lost(reasons: pd.Series) -> dict[str, int]:
    return {why: int((reasons == why).sum()) for why in LOST if (reasons == why).any()}


def _side(one: Comparison, estimate: Estimate) -> str:
    """One of SIDES, empty without an estimate."""
    if not estimate.n:
        return ""
    above, below = estimate.low > one.margin, estimate.high < -one.margin
    within = estimate.low > -one.margin and estimate.high < one.margin
    claimed = {"greater": above, "less": below, "same": within}[one.expected]
    return SIDES[0] if claimed else SIDES[1] if within else SIDES[2] if above or below else SIDES[3]


def _effects(one: Comparison, gaps: pd.DataFrame) -> list[Effect]:
    """What each level of each factor does, for factors with several levels."""
    known = gaps[gaps["lost"] != LOST[2]]
    if known.empty:
        return []
    if one.quantity[0] == LARGE_VALUES:  # relative differences of all sizes have no common mean
        with np.errstate(divide="ignore"):
            known = known.assign(gap=np.log10(known["gap"].to_numpy(dtype=float)))
    index = [*one.factors, "seed"]
    wide = known.set_index(index)["gap"].unstack("seed")  # a row a stratum, a column a seed
    made = known.assign(made=1.0).set_index(index)["made"].unstack("seed").notna()
    some = wide.notna().any(axis=1)
    wide, made = wide[some], made[some]
    found = []
    for factor in one.factors:
        levels = wide.index.get_level_values(factor)
        reference = one.reference.get(factor)
        for level in _sorted(levels.unique(), reference) if levels.nunique(dropna=False) > 1 else ():
            own = levels == level
            change, strata = _change(wide, made, factor, own, levels == reference)
            found.append(Effect(factor, level, reference, _block_median(wide[own], made[own]), change, strata))
    return found


def _sorted(levels: pd.Index, reference: Any) -> list[Any]:
    """Levels in their order, the reference first."""
    return sorted(levels, key=lambda level: (level != reference, isinstance(level, str), level))


def _change(
    wide: pd.DataFrame, made: pd.DataFrame, factor: str, own: np.ndarray, reference: np.ndarray
) -> tuple[Estimate, int]:
    """The change from strata of a reference level to those that differ from them in that level alone; how many."""
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

    A seed that was not made in some stratum has no part in it; one whose pair was lost in some is lost.
    """
    with np.errstate(invalid="ignore"):
        blocks = wide.to_numpy(dtype=float)[:, made.all(axis=0).to_numpy()].mean(axis=0)
    known = blocks[~np.isnan(blocks)]
    return statistics.median(known, len(blocks) - len(known))


def _predicted(one: Comparison, runs: Runs) -> tuple[list[tuple[Stratum, Tested]], dict[str, dict[str, Estimate]]]:
    """The strata of a correlation or a ranking, and all correlations of a ranking by stratum and predictor."""
    outcome, strata, predictions = one.quantity[0], [], {}
    table = runs.of([*one.quantity, *one.predictors])
    unfinished = selected(runs.unfinished, one.where) if len(runs.unfinished) else table.iloc[:0]
    for labels, group in _groups(selected(table, one.where), one.strata):
        lost = {LOST[0]: len(selected(unfinished, {k: [v] for k, v in labels.items()}))}
        names = [p for p in one.predictors if p in group and group[p].notna().any()] if outcome in group else []
        known = group.dropna(subset=[outcome, *names]) if names else group.iloc[:0]
        lost = {why: count for why, count in (lost | {LOST[1]: len(group) - len(known)}).items() if count}
        cells = []
        for cell, rows in _groups(known, one.cells):
            unique_seeds(one.name, labels | cell, rows, runs)
            x, y = rows[names].to_numpy(dtype=float).T, rows[outcome].to_numpy(dtype=float)
            cells.append(Cell(rows["seed"].to_numpy(), x, y))
        found = statistics.correlations(cells)
        none = Estimate(np.nan, -np.inf, np.inf, known["seed"].nunique())
        base = Stratum(one.name, labels, none, lost, cells=len(cells))
        if one.kind == "correlation":
            strata += [_correlation(one, base, p, names, found) for p in one.predictors]
        else:
            strata.append(_ranking(one, base, names, found))
            if found:
                label = ", ".join(text(v) for v in labels.values())
                predictions[label] = {name: found.estimate(k) for k, name in enumerate(names)}
    return strata, predictions


def _correlation(
    one: Comparison, base: Stratum, predictor: str, names: Sequence[str], found: Correlations | None
) -> tuple[Stratum, Tested]:
    stratum = replace(base, labels={**base.labels, "predictor": predictor})
    if found is None or predictor not in names:
        return stratum, UNDECIDABLE
    k = names.index(predictor)
    estimate = found.estimate(k)
    low, high = found.by_cell[:, k].min(), found.by_cell[:, k].max()
    note = f"cells from {low:+.2f} to {high:+.2f}"
    return replace(stratum, estimate=estimate, side=_side(one, estimate), note=note), found.test(k, one.margin)


def _ranking(
    one: Comparison, base: Stratum, names: Sequence[str], found: Correlations | None
) -> tuple[Stratum, Tested]:
    if found is None or one.claimed not in names or len(names) < 2:
        return base, UNDECIDABLE
    own = names.index(one.claimed)
    best = max((k for k in range(len(names)) if k != own), key=lambda k: abs(found.values[k]))
    note = f"{names[best]} {found.values[best]:+.2f} against {found.values[own]:+.2f}"
    return replace(base, estimate=found.lead(best, own), note=note), found.test_best(own, one.margin)
