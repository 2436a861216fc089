"""The report's statistics on made-up numbers whose truth is known, its rules on made-up runs, and its files."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from scipy import stats

from pde_train import plots
from pde_train.errors import RunError, UsageError
from pde_train.plots import Curve
from pde_train.study import docs, figures, frontier, network_figures, published, statistics
from pde_train.study.hypotheses import (
    MOST_PRIMARY,
    Comparison,
    Hypothesis,
    Outcome,
    Primary,
    Word,
    read_hypotheses,
    word,
)
from pde_train.study.page import conditions, described, said
from pde_train.study.pairs import LARGE_VALUES, LOST
from pde_train.study.report import _numbers, strict
from pde_train.study.run_table import NOTHING, Runs
from pde_train.study.statistics import Cell
from pde_train.study.verdicts import SIDES, judge
from pde_train.study.words import in_words

ALPHA = 0.01

Row = dict[str, Any]
"""The labels of a run and its numbers."""


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# --- Statistics

DRAWS = {
    "normal": (lambda r, n: r.normal(0.3, 1.0, n), 0.3),
    "skewed": (lambda r, n: np.exp(r.normal(0.0, 1.5, n)), 1.0),
    "heavy tails": (lambda r, n: r.standard_t(2, n), 0.0),
}


@pytest.mark.parametrize("n", [6, 20])
@pytest.mark.parametrize("name", DRAWS)
def test_the_interval_of_a_median_covers_it_whatever_the_distribution(name: str, n: int) -> None:
    draw, true = DRAWS[name]
    found = [statistics.median(draw(rng(k), n)) for k in range(1500)]
    covered = np.mean([e.low <= true <= e.high for e in found])
    # exact: 1 - 2 P(X <= 5) of Binomial(20, 1/2) is 0.959, of six values 0.969; 3.5 standard errors are 0.018
    assert covered == pytest.approx({6: 0.969, 20: 0.959}[n], abs=0.018)


def test_the_interval_is_the_set_of_medians_that_the_sign_test_does_not_reject() -> None:
    values = rng().normal(0.3, 1.0, 20)
    found = statistics.median(values)
    oracle = stats.quantile_test(values, p=0.5).confidence_interval(0.95)
    assert (found.low, found.high) == (oracle.low, oracle.high)
    assert found.value == np.median(values)
    for margin in (0.1, 0.4):
        one_sided = stats.quantile_test(values, q=margin, p=0.5, alternative="greater").pvalue
        assert statistics.sign_test(values, margin).greater == pytest.approx(one_sided)


@pytest.mark.parametrize("n", [0, 1, 4, 5])
def test_few_seeds_have_no_interval(n: int) -> None:
    found = statistics.median(rng().normal(size=n))
    assert found.n == n
    assert n == 0 or (found.low, found.high) == (-math.inf, math.inf)


@pytest.mark.parametrize(("n", "reachable"), [(4, 0.125), (8, 2**-7), (20, 2**-19)])
def test_the_smallest_reachable_p_is_that_of_pairs_that_all_agree(n: int, reachable: float) -> None:
    agreeing = statistics.sign_test(np.full(n, 7.0), 1.0)
    assert agreeing.p == agreeing.reachable == reachable


def test_the_small_study_has_seeds_enough_for_ten_primary_strata() -> None:
    from pde_train.study.parts import FEW, PARTS

    first, last = re.fullmatch(r"seed=range\((\d+),(\d+)\)", FEW).groups()
    few = int(last) - int(first)
    assert MOST_PRIMARY * statistics.sign_test(np.full(few, 7.0), 1.0).reachable < ALPHA
    assert MOST_PRIMARY * statistics.sign_test(np.full(few - 1, 7.0), 1.0).reachable > ALPHA / 2
    assert few >= statistics.FEWEST
    assert all(FEW in part.small for part in PARTS.values() if part.small is not None)


def decisions(
    true: float, spread: float, n: int, margin: float = 0.3, alpha: float = 0.05, repeats: int = 2000
) -> dict[str, float]:
    """Shares of each statement that is decided at a level, for gaps around a true median."""
    tests = [statistics.sign_test(rng(k).normal(true, spread, n), margin) for k in range(repeats)]
    found = [t.statement for t in tests if t.p < alpha]
    return {name: found.count(name) / repeats for name in ("greater", "less", "same")}


@pytest.mark.parametrize("n", [4, 20])
@pytest.mark.parametrize("true", [0.0, 0.3, -0.3])
@pytest.mark.parametrize("spread", [0.1, 1.0])
def test_wrong_decisions_are_no_more_than_the_level_inside_and_on_the_margin(
    n: int, true: float, spread: float
) -> None:
    shares = decisions(true, spread, n)
    right = "same" if true == 0 else "neither"  # on the margin itself every decision is wrong
    wrong = sum(share for name, share in shares.items() if name != right)
    assert wrong <= 0.05 + 0.015  # 3 standard errors of 2000 draws
    if n == 4:
        assert sum(shares.values()) == 0  # p = 0.125 at best


def test_power_at_20_seeds_within_ten_primary_strata() -> None:
    def power(true: float, spread: float, statement: str) -> float:
        return decisions(true, spread, 20, alpha=ALPHA / MOST_PRIMARY, repeats=500)[statement]

    assert power(0.3 + 2.0, 1.0, "greater") > 0.95  # two standard deviations beyond the margin: 0.99
    assert 0.25 < power(0.3 + 1.0, 1.0, "greater") < 0.5  # one is not enough: 0.37
    assert power(0.0, 0.15, "same") > 0.95  # no difference, where the margin is two standard deviations: 0.98
    assert power(0.0, 1.0, "same") < 0.01  # where it is a third of one nothing can be said


def test_what_was_lost_counts_against_every_statement() -> None:
    values = np.full(18, 1.0)
    for margin in (0.5, 2.0):
        whole, less = statistics.sign_test(values, margin), statistics.sign_test(values, margin, lost=2)
        other = -1.0 if margin == 0.5 else 5.0
        replaced = statistics.sign_test(np.append(values, [other, other]), margin)
        assert less.p == replaced.p > whole.p
    assert statistics.median(values, lost=14) == statistics.Estimate(1.0, -math.inf, math.inf, 18)
    assert statistics.sign_test(values, 0.5, lost=14).reachable > ALPHA


def test_a_gap_without_end_counts_with_its_sign() -> None:
    assert statistics.sign_test(np.full(20, np.inf), 0.3).statement == "greater"
    assert statistics.sign_test(np.full(20, np.inf), 0.3).p == 2**-19


def cells(rho: float, seed: int, n: int = 20, count: int = 4, shift: float = 0.0) -> list[Cell]:
    """Cells whose runs of one seed are dependent, as those of two schemes are; shift moves each cell as a whole."""
    draw = rng(seed)
    shared = draw.normal(size=(2, n))
    found = []
    for cell in range(count):
        x, e = (shared + draw.normal(size=(2, n))) / np.sqrt(2)
        y = rho * x + np.sqrt(1 - rho**2) * e
        found.append(Cell(np.arange(n), x[None] + shift * cell, y + shift * cell))
    return found


@pytest.mark.parametrize("rho", [0.0, 0.5])
def test_correlations_inside_cells_cover_the_truth_and_reject_as_often_as_they_may(rho: float) -> None:
    true = 6 / np.pi * np.arcsin(rho / 2)  # Spearman's of normal numbers
    found = [statistics.correlations(cells(rho, k, count=3)) for k in range(400)]
    estimates = [c.estimate(0) for c in found]
    covered = np.mean([e.low <= true <= e.high for e in estimates])
    assert covered == pytest.approx(0.95, abs=0.035)
    tests = [c.test(0, 0.5) for c in found]
    wrong = [t.statement == "greater" and t.p < 0.05 for t in tests]
    assert np.mean(wrong) < 0.05 + 0.03
    if rho == 0.0:
        assert np.mean([t.statement == "same" and t.p < 0.05 for t in tests]) > 0.6  # power to say: smaller than 0.5


def test_correlations_are_spearmans_of_one_cell() -> None:
    (cell,) = cells(0.5, 0, count=1)
    found = statistics.correlations([cell]).estimate(0)
    assert found.value == pytest.approx(stats.spearmanr(cell.predictors[0], cell.outcome).statistic, abs=1e-12)
    assert found.low < found.value < found.high


def test_differences_between_cells_do_not_make_a_correlation() -> None:
    apart = cells(0.0, 1, shift=100.0)
    pooled = stats.spearmanr(
        np.concatenate([c.predictors[0] for c in apart]), np.concatenate([c.outcome for c in apart])
    )
    assert pooled.statistic > 0.9
    inside = statistics.correlations(apart).estimate(0)
    assert inside.low < 0 < inside.high
    assert inside == statistics.correlations(cells(0.0, 1, shift=-100.0)).estimate(0)


def test_a_constant_predicts_nothing_and_few_seeds_neither() -> None:
    n = statistics.FEWEST
    constant = statistics.correlations([Cell(np.arange(n), np.ones((1, n)), np.arange(n))])
    assert constant.values == [0.0]
    assert constant.test(0, 0.3) == statistics.UNDECIDABLE
    without_end = Cell(np.arange(n), np.arange(n)[None], np.full(n, np.inf))  # such as of a tolerance nobody reaches
    assert statistics.correlations([without_end]) is None
    perfect = Cell(np.arange(n), np.arange(n)[None], np.arange(n))
    assert statistics.correlations([perfect, without_end]).values == [1.0]
    assert statistics.correlations([Cell(np.arange(n - 1), np.ones((1, n - 1)), np.arange(n - 1))]) is None


def test_holm_is_holms_procedure() -> None:
    # sorted 0.005, 0.01, 0.03, 0.04: x4 = 0.02, x3 = 0.03, x2 = 0.06, x1 = 0.04 -> 0.06 as it may not fall
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([]) == []
    wrong = [min(statistics.holm(list(rng(k).uniform(size=10)))) < 0.05 for k in range(2000)]
    assert np.mean(wrong) == pytest.approx(0.05, abs=0.015)


# --- Rules


def comparison(kind: str = "paired", primary: Sequence[str] = ("a",), **more: Any) -> Comparison:
    about = {
        "name": "c",
        "kind": kind,
        "quantity": ["q"],
        "strata": ["pde"],
        "margin": 0.5,
        "exact": "reverse",
        "schemes": ["FD2 h=auto"],
    }
    levels = {"predictor": "x"} if kind == "correlation" else {}
    return Comparison(**{**about, "primary": [Primary(f"at {p}", {"pde": p, **levels}) for p in primary], **more})


def hypothesis(*comparisons: Comparison) -> Hypothesis:
    return Hypothesis(1, "t", "s", ["p"], ALPHA, list(comparisons))


def runs(rows: list[Row], spectra: dict[str, Curve] | None = None, unfinished: Sequence[Row] = (), **more: Any) -> Runs:
    table = pd.DataFrame(rows)
    first = {"view": np.nan, "relative": "True", "normalisation": "log_cutoff"}
    named = table.assign(**{k: v for k, v in first.items() if k not in table}, id=[f"r{i}" for i in range(len(table))])
    if "config" not in named:
        named["config"] = named["id"]
    found: Any = (spectra or {}).get
    nothing: Any = {}.get
    return Runs(named, found, nothing, [], {}, pd.DataFrame(list(unfinished)), **more)


def pairs(gaps_by_pde: dict[str, float], seed: int = 0, seeds: int = 20, **more: Any) -> list[Row]:
    """Two runs a seed for each PDE, whose q differ by the gap and some noise."""
    noise, rows = rng(seed), []
    for pde, gap in gaps_by_pde.items():
        for k in range(seeds):
            q = noise.uniform(1, 2)
            same = {"pde": pde, "seed": k, "pair": f"{pde} {k} {more}", **more}
            rows += [
                {**same, "scheme": "reverse", "q": q},
                {**same, "scheme": "FD2 h=auto", "q": q + gap + noise.normal(0, 0.05)},
            ]
    return rows


@pytest.mark.parametrize(
    ("gaps", "outcomes", "word"),
    [
        ({"a": 1.0, "b": 1.0}, "as claimed, as claimed", "holds"),
        ({"a": 1.0, "b": 0.0}, "as claimed, within the margin", "only when"),
        ({"a": 1.0, "b": -1.0}, "as claimed, the opposite", "only when"),
        ({"a": 0.0, "b": 0.0}, "within the margin, within the margin", "does not hold"),
        ({"a": -1.0, "b": 0.1}, "the opposite, within the margin", "does not hold"),
        ({"a": 1.0, "b": 0.5}, "as claimed, not decided", "not decided"),
        ({"a": 0.5, "b": 0.5}, "not decided, not decided", "not decided"),
        ({"a": 1.0}, "as claimed, no data", "not decided"),
    ],
)
def test_the_word_of_a_hypothesis_follows_from_its_primary_strata(
    gaps: dict[str, float], outcomes: str, word: str
) -> None:
    verdict = judge(hypothesis(comparison(primary="ab")), runs(pairs(gaps)))
    assert ", ".join(str(s.outcome) for s in verdict.primary) == outcomes
    assert verdict.word == word
    assert {s.when: s.estimate.n for s in verdict.primary if s.estimate.n} == {f"at {pde}": 20 for pde in gaps}


def test_every_combination_of_outcomes_has_one_word_and_more_evidence_never_takes_a_decision_back() -> None:
    decided = [Outcome.CLAIMED, Outcome.OPPOSITE, Outcome.SAME]
    for first in decided:
        for second in decided:
            both = word([first, second])
            before = word([first, Outcome.OPEN])
            assert both in (Word.HOLDS, Word.SOMETIMES, Word.FAILS)
            assert before is Word.OPEN
            assert word([first, second, Outcome.OPEN]) in (Word.OPEN, both)


def test_where_it_holds_is_said_by_name() -> None:
    verdict = judge(hypothesis(comparison(primary="ab")), runs(pairs({"a": 1.0, "b": -1.0})))
    ((_, outcomes),) = conditions(verdict)
    assert outcomes == [(Outcome.CLAIMED, ["at a"]), (Outcome.OPPOSITE, ["at b"])]
    assert said(verdict) == "only when (as claimed 1, the opposite 1)"


def test_four_seeds_decide_nothing_and_say_what_they_could_reach() -> None:
    verdict = judge(hypothesis(comparison(primary="ab")), runs(pairs({"a": 9.0, "b": 9.0}, seeds=4)))
    assert verdict.word is Word.TOO_FEW
    assert said(verdict) == "not decidable with 4 pairs; smallest reachable p = 0.125, adjusted over 2 strata 0.25"
    ((_, ((outcome, names),)),) = conditions(verdict)
    assert outcome is Outcome.TOO_FEW
    assert names[0] == "at a (4 pairs; smallest reachable p = 0.125, adjusted 0.25)"
    assert verdict.primary[0].estimate.value == pytest.approx(9.0, abs=0.1)  # which is still shown


def test_a_hypothesis_without_runs_has_no_data() -> None:
    verdict = judge(hypothesis(comparison(where={"pde": ["elsewhere"]})), runs(pairs({"a": 1.0})))
    assert verdict.word is Word.NO_DATA
    assert [s.outcome for s in verdict.strata] == [Outcome.NO_DATA]


@pytest.mark.parametrize("seeds", [4, 20])
def test_under_a_true_null_hypotheses_are_wrong_as_seldom_as_they_may_be(seeds: int) -> None:
    # gaps on the margin itself, where every decision is wrong, in ten primary strata
    names = "abcdefghij"
    one = comparison(primary=names, margin=0.05)
    words = [
        judge(hypothesis(one), runs(pairs(dict.fromkeys(names, 0.05), seed=k, seeds=seeds))).strata for k in range(40)
    ]
    wrong = [any(s.outcome not in (Outcome.OPEN, Outcome.TOO_FEW) for s in strata) for strata in words]
    assert np.sum(wrong) <= 3  # P(more than 3 of 40 at 1 %) is 0.0007


def test_other_strata_are_described_and_not_tested() -> None:
    gaps = {"a": 0.0, "b": 9.0, "c": 0.1, "d": -9.0, "e": 0.5}
    one = comparison()
    verdict = judge(hypothesis(one), runs(pairs(gaps)))
    assert verdict.word is Word.FAILS  # b has no part in it
    alone = judge(hypothesis(one), runs(pairs({"a": 0.0})))
    assert alone.primary[0].adjusted == verdict.primary[0].adjusted
    for stratum in verdict.strata[1:]:
        assert (stratum.when, stratum.p, stratum.outcome) == ("", None, None)
    assert verdict.sides(one) == dict(zip(SIDES, (1, 2, 1, 1), strict=True))
    assert described(verdict, one) == (
        "5 strata, 95 % interval beyond the margin as claimed in 1, within the margin in 2, "
        "beyond it, the opposite in 1, across a margin in 1"
    )


def viewed(rows: list[Row], views: int) -> list[Row]:
    """The same runs, each seen under so many more definitions of entropy."""
    found = []
    for i, row in enumerate(rows):
        for k in range(views + 1):
            definition = {"relative": "True", "normalisation": f"n{k}"} if k else {}
            more = {"view": f"r{i}" if k else np.nan, "config": f"c{i}", "entropy/1e-08": row["q"] * (1 + k)}
            found.append({"relative": "True", "normalisation": "log_cutoff", **row, **more, **definition})
    return found


@pytest.mark.parametrize("seeds", [4, 20])
@pytest.mark.parametrize("gap", [0.0, 0.55, 1.0])
def test_views_of_the_same_runs_change_no_number(seeds: int, gap: float) -> None:
    rows = pairs({"a": gap, "b": 0.0}, seeds=seeds)
    found = [asdict(judge(hypothesis(comparison()), runs(viewed(rows, k)))) for k in (0, 1, 5)]
    assert found[0] == found[1] == found[2]
    assert found[0]["strata"][0]["estimate"]["n"] == seeds


def test_a_quantity_that_depends_on_the_definition_is_judged_for_each_of_them() -> None:
    one = comparison(
        quantity=["entropy/1e-08"],
        strata=["pde", "normalisation"],
        primary=[],
    )
    primary = [Primary("plain", {"pde": "a", "normalisation": "log_cutoff"})]
    one = Comparison(**{**one.__dict__, "primary": primary})
    rows = viewed(pairs({"a": 1.0}), 2)
    twice = [*rows, *({**row, "thresholds": "others"} for row in rows)]  # views of other thresholds
    for given in (rows, twice):
        verdict = judge(hypothesis(one), runs(given))
        found = {s.labels["normalisation"]: s.estimate for s in verdict.strata}
        assert {name: e.n for name, e in found.items()} == {"log_cutoff": 20, "n1": 20, "n2": 20}
        assert [round(e.value) for e in found.values()] == [1, 2, 3]


def test_a_seed_stands_in_a_stratum_once_or_the_report_is_refused() -> None:
    rows = [*pairs({"a": 1.0}, rate=1), *pairs({"a": 1.0}, rate=2)]
    settings = pd.DataFrame({"params.optimizer.lr": [str(row["rate"]) for row in rows]})
    settings.index = [f"r{i}" for i in range(len(rows))]
    said = r"'c' has 2 runs of seed 0 in the stratum pde a, which differ in optimizer.lr: expected one, as they are no"
    with pytest.raises(RunError, match=said) as caught:
        judge(hypothesis(comparison()), runs(rows, settings=settings))
    assert len(str(caught.value).splitlines()) == 1


def test_lost_pairs_are_counted_and_shown() -> None:
    rows = pairs({"a": 1.0})
    rows[1]["q"] = np.nan
    rows[3]["q"] = np.inf  # it has a sign
    gone = [rows.pop(5), rows.pop(5)]  # FD of seed 2, and AD of seed 3, neither of which finished
    rows[5]["pair"] = "of other points"  # FD of seed 3 has its partner among the unfinished
    rows[5]["pair"] = gone[1]["pair"]
    rows[7]["pair"] = "other points"  # FD of seed 4 has none
    unfinished = [{k: v for k, v in row.items() if k != "q"} for row in gone]
    verdict = judge(hypothesis(comparison()), runs(rows, unfinished=unfinished))
    (stratum,) = verdict.strata
    assert stratum.lost == dict(zip(LOST, (2, 1, 1), strict=True))
    assert stratum.estimate.n == 16
    assert stratum.p == pytest.approx(2 * stats.binom.sf(15, 19, 0.5))  # 16 of 19: three count against it
    assert stratum.p == stratum.reachable


def test_runs_that_are_no_pair_are_not_compared() -> None:
    rows = pairs({"a": 1.0})
    for row in rows[1::2]:
        row["pair"] += " of other points"
    (stratum,) = judge(hypothesis(comparison()), runs(rows)).strata
    assert (stratum.estimate.n, stratum.outcome, stratum.lost) == (0, Outcome.NO_DATA, {LOST[2]: 20})


def test_a_ratio_is_taken_in_decades() -> None:
    rows = pairs({"a": 0.0})
    for row in rows[1::2]:
        row["q"] = rows[rows.index(row) - 1]["q"] * 100
    (stratum,) = judge(hypothesis(comparison(scale="log10")), runs(rows)).strata
    assert stratum.estimate.value == pytest.approx(2.0)


def test_a_trend_is_the_slope_of_each_seed() -> None:
    rows = [row for depth in (1, 2, 3) for row in pairs({"a": 0.5 * depth, "b": 0.5}, seed=depth, depth=depth)]
    one = comparison("trend", over="depth", margin=0.1, primary="ab")
    verdict = judge(hypothesis(one), runs(rows))
    assert verdict.primary[0].estimate.value == pytest.approx(0.5, abs=0.05)
    assert [s.outcome for s in verdict.primary] == [Outcome.CLAIMED, Outcome.SAME]
    assert [s.estimate.n for s in verdict.primary] == [20, 20]
    rows[1]["q"] = np.nan
    assert judge(hypothesis(one), runs(rows)).primary[0].lost == {LOST[1]: 1}


@pytest.mark.parametrize(("off", "outcome"), [(0.005, Outcome.CLAIMED), (0.05, Outcome.OPPOSITE)])
def test_large_singular_values_agree_within_the_margin(off: float, outcome: Outcome) -> None:
    rows = pairs({"a": 0.0})
    s = np.geomspace(1, 1e-8, 20)
    # a small value may be anything
    other = np.where(s > 1e-4, s * (1 + off), 1e-5)
    spectra = {f"r{i}": (np.arange(20), s if i % 2 == 0 else other) for i in range(len(rows))}
    one = comparison(quantity=[LARGE_VALUES], expected="same", margin=0.01)
    (stratum,) = judge(hypothesis(one), runs(rows, spectra)).strata
    assert stratum.estimate.value == pytest.approx(off)
    assert stratum.outcome is outcome


def test_effects_compare_levels_with_all_else_equal_and_every_seed_as_one_block() -> None:
    # a star: b and 2 differ from the centre alone; b at 2 was not run
    rows = [*pairs({"a": 1.0, "b": 3.0}, size=1), *pairs({"a": 1.5}, seed=1, size=2)]
    one = comparison(strata=["pde", "size"], reference={"pde": "a", "size": 1}, primary=[])
    one = Comparison(**{**one.__dict__, "primary": [Primary("centre", {"pde": "a", "size": 1})]})
    effects = {(e.factor, e.level): e for e in judge(hypothesis(one), runs(rows)).effects["c"]}
    assert effects["pde", "b"].change.value == pytest.approx(2.0, abs=0.05)
    assert effects["size", 2].change.value == pytest.approx(0.5, abs=0.05)
    assert effects["pde", "a"].gap.value == pytest.approx(1.25, abs=0.05)  # mean of both sizes
    assert effects["pde", "a"].change.n == 0
    assert effects["pde", "b"].strata == effects["size", 2].strata == 1
    assert {e.gap.n for e in effects.values()} == {20}
    assert all(e.gap.low < e.gap.value < e.gap.high for e in effects.values())


def test_the_interval_of_an_effect_covers_it_where_strata_share_their_seeds() -> None:
    covered = 0
    for k in range(150):
        draw = rng(k)
        of_seed = draw.normal(0, 1.0, 20)  # what a seed adds to the gap of both strata
        rows = []
        for pde, gap in (("a", 0.0), ("b", 0.0)):
            for s in range(20):
                same = {"pde": pde, "seed": s, "pair": f"{pde} {s}"}
                rows += [
                    {**same, "scheme": "reverse", "q": 0.0},
                    {**same, "scheme": "FD2 h=auto", "q": gap + of_seed[s] + draw.normal(0, 0.2)},
                ]
        effects = judge(hypothesis(comparison(reference={"pde": "a"})), runs(rows)).effects["c"]
        change = next(e.change for e in effects if e.level == "b")
        assert change.high - change.low < 0.7  # what both strata of a seed share is no part of their difference
        covered += change.low <= 0 <= change.high
    assert covered / 150 == pytest.approx(0.959, abs=0.05)


def correlated(strength: float, n: int = 20, cells: int = 12, between: float = 0.0) -> list[Row]:
    """Runs of many cells whose q depends on x inside each; `between` moves both of a cell against one another."""
    rows = []
    for cell in range(cells):
        x, y = rng(cell).normal(size=(2, n))
        for k in range(n):
            about = {"pde": "a", "seed": k, "pair": f"{cell} {k}", "scheme": "w", "width": cell}
            rows.append({**about, "x": x[k] + between * cell, "y": y[k], "q": x[k] + strength * y[k] - between * cell})
    return rows


@pytest.mark.parametrize("between", [0.0, 100.0])
def test_a_correlation_is_judged_inside_cells(between: float) -> None:
    def outcome(strength: float, **more: Any) -> Outcome | None:
        one = comparison("correlation", predictors=["x"], cells=["width"], **more)
        (stratum,) = judge(hypothesis(one), runs(correlated(strength, between=between))).strata
        assert (stratum.cells, stratum.estimate.n) == (12, 20)
        return stratum.outcome

    assert outcome(0.2, expected="greater") is Outcome.CLAIMED
    assert outcome(0.2, expected="less") is Outcome.OPPOSITE
    assert outcome(9.0, expected="greater") is Outcome.SAME
    assert outcome(1.5, expected="greater") is Outcome.OPEN  # a correlation of 0.5


def test_a_correlation_of_few_seeds_is_not_decidable() -> None:
    one = comparison("correlation", predictors=["x"], cells=["width"])
    (stratum,) = judge(hypothesis(one), runs(correlated(0.2, n=4))).strata
    assert (stratum.outcome, stratum.estimate.n) == (Outcome.TOO_FEW, 4)


@pytest.mark.parametrize("finished", [True, False])
def test_no_correlation_is_decided_where_runs_are_lost(finished: bool) -> None:
    one = comparison("correlation", predictors=["x"], cells=["width"], expected="greater")
    rows = correlated(0.2)
    unfinished = []
    if finished:
        rows[3]["q"] = np.nan
    else:
        unfinished = [{k: v for k, v in rows.pop(3).items() if k not in ("q", "x", "y")}]
    (stratum,) = judge(hypothesis(one), runs(rows, unfinished=unfinished)).strata
    assert stratum.outcome is Outcome.TOO_FEW
    assert sum(stratum.lost.values()) == 1
    assert stratum.estimate.value > 0.9


@pytest.mark.parametrize(
    ("strength", "outcome"), [(0.2, Outcome.CLAIMED), (5.0, Outcome.OPPOSITE), (1.0, Outcome.OPEN)]
)
def test_a_predictor_is_best_only_where_all_others_are_shown_to_be_no_better(strength: float, outcome: Outcome) -> None:
    one = comparison("ranking", predictors=["x", "y"], claimed="x", cells=["width"], expected="same", margin=0.1)
    verdict = judge(hypothesis(one), runs(correlated(strength)))
    (stratum,) = verdict.strata
    assert stratum.outcome is outcome
    assert stratum.note.startswith("y ")
    assert set(verdict.predictions["c"]["a"]) == {"x", "y"}


def test_verdicts_are_strict_json() -> None:
    rows = pairs({"a": 1.0}, seeds=4)
    rows[1]["q"] = np.nan
    verdict = judge(hypothesis(comparison(primary="ab")), runs(rows))
    text = json.dumps(strict(asdict(verdict)), allow_nan=False)
    estimate = json.loads(text)["strata"][0]["estimate"]
    assert (estimate["low"], estimate["n"]) == (None, 3)


# --- Files


def test_the_hypotheses_can_be_read_and_name_parts_that_exist() -> None:
    from pde_train.study.parts import PARTS

    hypotheses = read_hypotheses()
    assert [c.number for c in hypotheses] == list(range(1, 11))
    assert {part for c in hypotheses for part in c.parts} <= set(PARTS)
    for one in hypotheses:
        named = [(comparison.name, str(dict(p.levels))) for comparison, p in one.primary]
        assert len(set(named)) == len(named) <= MOST_PRIMARY


def test_more_primary_strata_than_may_be_tested_are_refused() -> None:
    with pytest.raises(UsageError, match=r"hypothesis 1 names 11 primary strata: expected 1 to 10"):
        hypothesis(comparison(primary="abcdefghijk"))
    with pytest.raises(UsageError, match=r"hypothesis 1 names 0 primary strata"):
        hypothesis(comparison(primary=""))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("kind: paired", "kind: pared"), r"kind=pared is unknown: expected one of paired, trend"),
        (("alpha: 0.01", "alfa: 0.01"), r"is no hypothesis .*alfa.*: expected the keys number, title"),
        (("expected: greater", "expected: more"), r"expected=more: expected linear or log10, and one of greater, less"),
        (("margin: 0.301", "margin: 0"), r"has margin=0: expected the smallest size that counts, above 0"),
        (
            ("when: second order in 1D, pde: poisson_1d", "when: somewhere"),
            r"'somewhere' of .* names scheme, activation",
        ),
        (("primary:", "second:"), r"is no hypothesis .*second"),
        (("parts: [", "rule: {holds: 1}\nparts: ["), r"is no hypothesis .*rule"),
    ],
)
def test_a_hypothesis_that_is_written_wrongly_is_one_sentence(
    tmp_path: Path, change: tuple[str, str], said: str
) -> None:
    from pde_train.study.hypotheses import FOLDER

    text = (FOLDER / "1_random_features.yaml").read_text()
    assert change[0] in text
    (tmp_path / "1.yaml").write_text(text.replace(*change))
    with pytest.raises(UsageError, match=said) as caught:
        read_hypotheses(tmp_path)
    assert len(str(caught.value).splitlines()) == 1


# --- Figures


def test_errors_are_compared_where_the_exact_run_has_reached_a_residual() -> None:
    """The exact run falls a decade a step, in residual and error; the other one stops at an error of 1e-2."""
    steps = np.arange(7.0)
    exact = {
        "residual_held_out": (steps, 10.0**-steps),
        "error_l2": (steps, 10.0**-steps),
        "loss": (steps, 100.0**-steps),
    }
    stalled = {name: (steps[:4], np.maximum(values[:4], 1e-2)) for name, (_, values) in exact.items()}
    common = {"model": "two_layer", "width": 50, "interior": 200, "precision": "float64", "view": np.nan}
    common |= {"part": np.nan, "optimizer": "ssbroyden", "method": "gradient_descent", "pde": "poisson_1d"}
    common |= {"steps": 6}
    ids = {"taylor": exact, "FD2 h=auto": stalled}
    rows = [{**common, "id": i, "config": i, "pair": 0, "scheme": i, "seed": 0} for i in ids]
    found = Runs(pd.DataFrame(rows), lambda run: NOTHING, lambda run, metric: ids[run].get(metric, NOTHING), [], {})
    no_verdict: Any = None
    figure = network_figures.levels(found, no_verdict)
    assert figure is not None
    (line,) = figure.axes[0].get_lines()
    levels, ratio = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
    np.testing.assert_allclose(levels, 10.0 ** -np.arange(0, 6.5, 0.5))
    reached = np.ceil(np.arange(0, 6.5, 0.5))  # the step at which the exact run is below
    np.testing.assert_allclose(ratio, np.maximum(10.0**-reached, 1e-2) / 10.0**-reached)


def test_the_frontier_has_what_no_other_scheme_beats_in_both() -> None:
    numbers = {
        "fast": (1.0, 1e-2),
        "slow": (9.0, 1e-6),
        "worse": (5.0, 1e-2),
        "between": (4.0, 1e-4),
        "late": (9.5, 1e-6),
    }
    rows = [
        {"scheme": scheme, "seed": seed, "seconds": seconds * factor, "error_l2": error * factor}
        for scheme, (seconds, error) in numbers.items()
        for seed, factor in enumerate((0.9, 1.0, 1.1))
    ]
    found = frontier.pareto(pd.DataFrame(rows))
    assert list(found.index) == ["fast", "between", "slow"]
    assert list(found["seconds"]) == [1.0, 4.0, 9.0]


def test_the_frontier_has_a_setting_for_each_number_of_steps() -> None:
    common = {"model": "two_layer", "width": 50, "interior": 200, "precision": "float64", "view": np.nan}
    common |= {"part": np.nan, "optimizer": "adam", "method": "gauss_newton", "pde": "poisson_1d"}
    rows = [
        {**common, "scheme": scheme, "seed": seed, "steps": steps, "config": f"{scheme} {steps} {seed}"}
        | {"seconds": steps * factor, "error_l2": 1 / steps}
        for scheme, factor in (("taylor", 1.0), ("FD2 h=auto", 2.0))
        for steps in (400, 6000)
        for seed in range(3)
    ]
    found = frontier.rows(Runs(pd.DataFrame(rows), lambda run: NOTHING, lambda run, metric: NOTHING, [], {}))
    assert [(choice.scheme, choice.seconds, choice.seeds) for (choice,) in found.values()] == [
        ("taylor", 400.0, 3),
        ("taylor", 6000.0, 3),
    ]


@pytest.mark.parametrize(
    ("limits", "ticks"),
    [((1.0, 1.04), ["1.02"]), ((0.5, 0.9), ["0.6"]), ((7.5, 85.0), ["40"]), ((1e-6, 1e3), ["10^{"])],
)
def test_a_short_logarithmic_axis_has_plain_numbers(limits: tuple[float, float], ticks: list[str]) -> None:
    figure = Figure()
    axes = figure.subplots()
    axes.plot([1, 2], limits)
    plots.set_logarithmic(axes, "y")
    figure.canvas.draw()
    texts = [label.get_text() for which in ("major", "minor") for label in axes.yaxis.get_ticklabels(which=which)]
    assert all(any(tick in text for text in texts) for tick in ticks)
    if limits[1] < 100 * limits[0]:
        assert not any("10^" in text for text in texts)


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("start/entropy/1e-08", "truncated entropy at 1e-8, before training"),
        ("at/1000/spectrum/count/1e-12", "number of values above 1e-12, step 1000"),
        ("steps_to/0.1", "steps until the loss is 0.1 of the first"),
        ("speed/1000", "decades of loss in 1000 steps, from step 1000 to twice that"),
        ("error_l2", "error"),
        ("mine/x", "mine/x"),
    ],
)
def test_names_of_metrics_are_words(column: str, words: str) -> None:
    assert in_words(column) == words


def test_the_hypotheses_name_figures_and_metrics_that_have_words() -> None:
    for one in read_hypotheses():
        assert set(one.figures) <= set(figures.FIGURES)
        for comparison in one.comparisons:
            names = [*comparison.quantity, *comparison.predictors]
            assert all(in_words(name) != name or name in ("residual", LARGE_VALUES) for name in names)


# --- Documents

ROOT = Path(__file__).parents[1]
MENTION = re.compile(r"\(claim (\d+)(?:, ([^:()]+))?: ([a-z ]+)\)")
"""What prose says of a claim, or of one of its primary strata: `(claim 5, SSBroyden, h = auto: as claimed)`."""


def stored() -> docs.Numbers:
    """The verdicts that the documents state."""
    numbers: docs.Numbers = json.loads((ROOT / "docs" / "verdicts.json").read_text())
    return numbers


@pytest.mark.parametrize("page", docs.BLOCKS)
def test_the_verdicts_in_a_document_are_those_of_the_study(page: str) -> None:
    text = (ROOT / page).read_text()
    assert docs.with_block(text, docs.BLOCKS[page](stored())) == text


@pytest.mark.parametrize("page", docs.BLOCKS)
def test_what_prose_says_of_a_claim_is_its_verdict(page: str) -> None:
    verdicts = {str(v["number"]): v for v in stored()["verdicts"]}
    found = MENTION.findall(re.sub(r"\s+", " ", (ROOT / page).read_text()))
    assert found or page == "README.md"
    for number, stratum, outcome in found:
        if stratum:
            assert outcome in {s["outcome"] for s in verdicts[number]["strata"] if s["when"] == stratum}, (
                number,
                stratum,
            )
        else:
            assert outcome == verdicts[number]["word"], number


def test_the_stored_verdicts_are_those_of_the_hypotheses_and_follow_by_the_rule() -> None:
    for hypothesis, verdict in zip(read_hypotheses(), stored()["verdicts"], strict=True):
        assert (hypothesis.number, hypothesis.title) == (verdict["number"], verdict["title"])
        named = [(comparison.name, stratum.when) for comparison, stratum in hypothesis.primary]
        assert named == [(s["comparison"], s["when"]) for s in verdict["strata"]]
        assert verdict["word"] == word([Outcome(s["outcome"]) for s in verdict["strata"]])


def test_the_stored_verdicts_follow_from_the_published_runs() -> None:
    """Judged anew, in 20 s; singular values are not among what is published."""
    published_runs = published.load(ROOT / docs.RUNS)
    for hypothesis, stated in zip(read_hypotheses(), stored()["verdicts"], strict=True):
        comparisons = [c for c in hypothesis.comparisons if LARGE_VALUES not in c.quantity]
        again = judge(replace(hypothesis, comparisons=comparisons), published_runs).primary
        named = [s for s in stated["strata"] if s["comparison"] in {c.name for c in comparisons}]
        for stratum, said_of in zip(again, named, strict=True):
            assert (stratum.when, stratum.estimate.n) == (said_of["when"], said_of["estimate"]["n"])
            assert dict(stratum.lost) == said_of["lost"]
            for end, number in asdict(stratum.estimate).items():  # sums in another order of rows
                said_number = said_of["estimate"][end]
                assert (said_number is None) == (not math.isfinite(number))
                assert said_number is None or number == pytest.approx(said_number, rel=1e-9, abs=1e-12)
        if len(comparisons) == len(hypothesis.comparisons):
            assert [str(s.outcome) for s in again] == [s["outcome"] for s in named]


def test_a_run_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    names = {"config": [2**63 + k for k in range(2)], "pair": [2**63 + 5] * 2, "view": [np.nan] * 2}
    numbers = {"q": [1 / 3, np.inf], "seed": [3, 4], "pde": ["a", "b"], "relative": ["True"] * 2}
    table = pd.DataFrame({**names, **numbers, "step": ["auto", "0.001"], "id": ["12e3", "r"], "other": [1, 2]})
    unfinished = pd.DataFrame({"pde": ["a"], "seed": [5], "config": [7], "id": ["x"]})
    one = hypothesis(comparison())
    for file in ("first", "again"):
        written = Runs(table, lambda _: NOTHING, lambda _, __: NOTHING, [], {}, unfinished)
        published.save(written, tmp_path / file, [one])
    assert (tmp_path / "first").read_bytes() == (tmp_path / "again").read_bytes()
    found = published.load(tmp_path / "first")
    assert "other" not in found.table
    for column in ("q", "seed", "pde", "relative", "step", "id"):
        assert found.table[column].tolist() == table[column].tolist()
    assert found.table["config"].tolist() == [str(2**63), str(2**63 + 1)]
    assert found.unfinished[["pde", "seed", "id"]].to_numpy().tolist() == [["a", 5, "x"]]


def test_a_block_is_replaced_and_nothing_else() -> None:
    page = "a\n<!-- verdicts -->\nold\n<!-- /verdicts -->\nb\n"
    assert docs.with_block(page, "new \\1") == "a\n<!-- verdicts -->\nnew \\1\n<!-- /verdicts -->\nb\n"
    with pytest.raises(UsageError, match=r"a page has 0 blocks between .*: expected one"):
        docs.with_block("a\n", "new")


def test_the_documents_state_the_primary_strata_alone() -> None:
    rows = pairs({"a": 1.0, "b": 0.0, "c": 3.0})
    verdict = judge(hypothesis(comparison(primary="ab")), runs(rows))
    about = {"distinct": 120, "views": 0, "commits": ["0123456789"]}
    report: Any = strict({"about": about, "verdicts": [_numbers(verdict)]})
    numbers = docs.primary(report)
    text = docs.details(numbers)
    assert "120 runs, commits 0123456." in text
    assert "| 1. t | **only when** | 1 as claimed, 1 within the margin |" in text
    assert re.search(
        r"\| at a \| \+1\.\d\d \(\+[01]\.\d\d \.\.\. \+1\.\d\d\) \| 20 \| 0 \| \de-0\d \| as claimed \|", text
    )
    assert "+3." not in text
