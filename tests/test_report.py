"""The report's statistics against their definitions, its rules on made-up runs, and its page."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pde_train.errors import UsageError
from pde_train.report import statistics
from pde_train.report.claims import Claim, Comparison, read_claims
from pde_train.report.page import summary
from pde_train.report.runs import Runs, way_of
from pde_train.report.verdicts import LARGE_VALUES, judge

ALPHA = 0.01


def rng(seed=0):
    return np.random.default_rng(seed)


# --- Statistics


def test_a_paired_test_is_wilcoxons_and_its_interval_covers_the_median():
    covered = 0
    for seed in range(200):
        found = statistics.paired(rng(seed).normal(0.3, 1.0, 40))
        covered += found.median.low <= 0.3 <= found.median.high
    assert covered / 200 == pytest.approx(statistics.CONFIDENCE, abs=0.05)  # 3 standard errors
    differences = rng().normal(0.3, 1.0, 40)
    found = statistics.paired(differences)
    assert found.median.value == np.median(differences)
    assert found.p == stats.wilcoxon(differences).pvalue
    assert found == statistics.paired(differences)


def test_the_effect_is_the_rank_biserial_correlation():
    assert statistics.paired(np.array([1.0, 2.0, 3.0])).effect == 1.0
    assert statistics.paired(np.array([-1.0, -2.0, -3.0])).effect == -1.0
    # ranks 1, 2, 3: (1 + 3 - 2) / 6
    assert statistics.paired(np.array([1.0, -2.0, 3.0])).effect == pytest.approx(1 / 3)


@pytest.mark.parametrize("differences", [[], [0.5], [0.0, 0.0, 0.0]])
def test_too_little_proves_nothing(differences):
    assert statistics.paired(np.array(differences)).p == 1.0


def test_rank_correlations_are_spearmans_with_intervals_that_cover():
    x = rng().normal(size=(2, 60))
    y = np.exp(x[0] + 0.5 * rng(1).normal(size=60))
    found, drawn = statistics.rank_correlations(x, y)
    for one, predictor in zip(found, x, strict=True):
        assert one.value == pytest.approx(stats.spearmanr(predictor, y).statistic, abs=1e-12)
        assert one.low < one.value < one.high
    assert drawn.shape == (statistics.RESAMPLES, 2)
    assert found[1].low < 0 < found[1].high  # it has nothing to do with y


def test_a_constant_predicts_nothing():
    found, _ = statistics.rank_correlations(np.ones((1, 10)), np.arange(10.0))
    assert found[0].value == 0


# --- Rules


def comparison(kind="paired", **more):
    about = {
        "name": "c",
        "kind": kind,
        "quantity": ["q"],
        "strata": ["pde"],
        "exact": "reverse",
        "ways": ["FD2 h=auto"],
    }
    return Comparison(**{**about, **more})


def claim(*comparisons, holds=1.0, fails=0.0):
    return Claim(1, "t", "s", ["p"], ALPHA, {"holds": holds, "fails": fails}, list(comparisons))


def runs(rows, spectra=None):
    table = pd.DataFrame(rows)
    named = table.assign(id=[f"r{i}" for i in range(len(table))], view=np.nan)
    return Runs(named, (spectra or {}).get, {}.get, [], {})


def pairs(gaps_by_pde, seed=0, **more):
    """Two runs a seed for each PDE, whose q differ by the gap and some noise."""
    noise, rows = rng(seed), []
    for pde, gap in gaps_by_pde.items():
        for k in range(20):
            q = noise.uniform(1, 2)
            same = {"pde": pde, "seed": k, "pair": f"{pde} {k} {more}", **more}
            rows += [
                {**same, "way": "reverse", "q": q},
                {**same, "way": "FD2 h=auto", "q": q + gap + noise.normal(0, 0.05)},
            ]
    return rows


@pytest.mark.parametrize(
    ("gaps", "word"),
    [
        ({"a": 1.0, "b": 1.0}, "holds"),
        ({"a": 1.0, "b": 0.0}, "only when"),
        ({"a": 0.0, "b": 0.0}, "does not hold"),
        ({"a": -1.0, "b": -1.0}, "does not hold"),
        ({"a": 0.1, "b": 0.1}, "does not hold"),  # clear, and smaller than what counts
    ],
)
def test_the_word_of_a_claim_follows_from_its_strata(gaps, word):
    verdict = judge(claim(comparison(least=0.5)), runs(pairs(gaps)))
    assert verdict.word == word
    assert [s.reversed for s in verdict.strata] == [gap < -0.5 for gap in gaps.values()]
    assert {s.labels["pde"]: s.estimate.n for s in verdict.strata} == dict.fromkeys(gaps, 20)


def test_where_it_holds_is_said():
    verdict = judge(claim(comparison(least=0.5)), runs(pairs({"a": 1.0, "b": -1.0})))
    assert summary(verdict) == ["c: in 1 of 2 strata, the opposite in 1; everywhere at pde a"]


def test_a_claim_without_runs_has_no_data():
    verdict = judge(claim(comparison(where={"pde": ["elsewhere"]})), runs(pairs({"a": 1.0})))
    assert verdict.word == "no data"
    assert summary(verdict) == ["c: no data"]


def test_noise_holds_as_often_as_alpha_says():
    held = [judge(claim(comparison()), runs(pairs({"a": 0.0}, seed=s))).word == "holds" for s in range(300)]
    assert np.mean(held) < 3 * ALPHA  # one of both signs is a half of alpha


def test_runs_that_are_no_pair_are_not_compared():
    rows = pairs({"a": 1.0})
    for row in rows[1::2]:
        row["pair"] += " of other points"
    assert judge(claim(comparison()), runs(rows)).strata == []


def test_a_ratio_is_taken_in_decades():
    rows = pairs({"a": 0.0})
    for row in rows[1::2]:
        row["q"] = rows[rows.index(row) - 1]["q"] * 100
    (stratum,) = judge(claim(comparison(scale="log10")), runs(rows)).strata
    assert stratum.estimate.value == pytest.approx(2.0)


def test_a_trend_is_the_slope_of_each_seed():
    rows = [row for depth in (1, 2, 3) for row in pairs({"a": 0.5 * depth, "b": 0.5}, seed=depth, depth=depth)]
    verdict = judge(claim(comparison("trend", over="depth", least=0.1)), runs(rows))
    found = {s.labels["pde"]: s for s in verdict.strata}
    assert found["a"].estimate.value == pytest.approx(0.5, abs=0.05)
    assert [found["a"].holds, found["b"].holds] == [True, False]


@pytest.mark.parametrize(("off", "holds"), [(0.005, True), (0.05, False)])
def test_large_singular_values_agree_within_the_tolerance(off, holds):
    rows = pairs({"a": 0.0})
    s = np.geomspace(1, 1e-8, 20)
    # a small value may be anything
    other = np.where(s > 1e-4, s * (1 + off), 1e-5)
    spectra = {f"r{i}": (np.arange(20), s if i % 2 == 0 else other) for i in range(len(rows))}
    one = comparison("agree", quantity=[LARGE_VALUES], tolerance=0.01)
    (stratum,) = judge(claim(one), runs(rows, spectra)).strata
    assert stratum.estimate.value == pytest.approx(off)
    assert stratum.holds == holds


def correlated(strength, n=200):
    noise = rng(3)
    x, y = noise.normal(size=n), noise.normal(size=n)
    q = x + strength * y
    return [{"pde": "a", "seed": k, "pair": k, "way": "w", "x": x[k], "y": y[k], "q": q[k]} for k in range(n)]


def test_a_correlation_needs_its_sign_and_its_size():
    def word(**more):
        one = comparison("correlation", predictors=["x"], **more)
        return judge(claim(one), runs(correlated(0.2))).word

    assert word(expected="greater", least=0.5) == "holds"
    assert word(expected="less", least=0.5) == "does not hold"
    assert word(expected="greater", least=0.999) == "does not hold"


@pytest.mark.parametrize(("strength", "holds"), [(0.2, True), (5.0, False), (1.0, True)])
def test_a_predictor_is_best_unless_another_is_clearly_better(strength, holds):
    one = comparison("ranking", predictors=["x", "y"], claimed="x")
    (stratum,) = judge(claim(one), runs(correlated(strength))).strata
    assert stratum.holds == holds
    if not holds:
        assert stratum.best.startswith("y ")


# --- Files


def test_the_five_claims_can_be_read_and_name_parts_that_exist():
    from pde_train.study import PARTS

    claims = read_claims()
    assert [c.number for c in claims] == [1, 2, 3, 4, 5]
    assert {part for c in claims for part in c.parts} <= set(PARTS)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("kind: paired", "kind: pared"), r"kind=pared is unknown: expected one of paired, agree"),
        (("alpha: 0.01", "alfa: 0.01"), r"is no claim .*alfa.*: expected the keys number, title"),
        (("holds: 1.0", "holds: 0.0"), r"is no claim \(rule="),
        (("expected: greater", "expected: more"), r"expected=more: expected linear or log10, and greater or less"),
    ],
)
def test_a_claim_that_is_written_wrongly_is_one_sentence(tmp_path, change, said):
    from pde_train.report.claims import FOLDER

    text = (FOLDER / "1_random_features.yaml").read_text()
    assert change[0] in text
    (tmp_path / "1.yaml").write_text(text.replace(*change))
    with pytest.raises(UsageError, match=said) as caught:
        read_claims(tmp_path)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("target", "own", "way"),
    [
        ("reverse.Reverse", {}, "reverse"),
        ("complex_step.ComplexStep", {"radius": "auto"}, "complex_step"),
        ("finite_difference.FiniteDifference", {"accuracy": "2", "step": "auto"}, "FD2 h=auto"),
        ("finite_difference.FiniteDifference", {"accuracy": "4", "step": "0.001"}, "FD4 h=0.001"),
        (
            "difference_error.DifferenceError",
            {"accuracy": "2", "step": "1e-05", "part": "rounding"},
            "FD2 h=1e-05, rounding alone",
        ),
    ],
)
def test_ways_of_taking_derivatives_are_named(target, own, way):
    params = {"_target_": f"pde_train.differentiators.{target}", **own, "radius": own.get("radius", math.nan)}
    assert way_of({f"params.differentiator.{k}": v for k, v in params.items()}) == way
