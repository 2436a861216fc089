import math

import mpmath
import numpy as np
import pytest

from pde_train.entropy import NORMALISATIONS, Entropy, effective_dimension, spectrum_summary, truncated_entropy
from pde_train.errors import RunError, UsageError

# Logarithms and sums of at most a hundred terms, each rounded once, of results up to log 100 < 5.
ROUNDING = 1e-13


def random_spectrum(n: int = 60, seed: int = 0) -> np.ndarray:
    """Descending values over twelve decades."""
    return np.sort(10 ** np.random.default_rng(seed).uniform(-12, 0, n))[::-1]


@pytest.mark.parametrize("n", [2, 3, 10, 100])
@pytest.mark.parametrize("size", [1e-9, 1.0, 7e5])
def test_equal_values_have_the_entropy_of_log_n(n: int, size: float) -> None:
    found = truncated_entropy(np.full(n, size), 1e-8)
    assert found.cutoff == n
    assert found.raw == pytest.approx(math.log(n), abs=ROUNDING)
    assert found.normalised == pytest.approx(1, abs=ROUNDING)
    assert found.effective_rank == pytest.approx(n, rel=ROUNDING)
    assert found.condition == 1


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("values", [[3.0], [3.0, 1e-9], [3.0, 0.0, 0.0]], ids=str)
def test_one_kept_value_has_no_entropy(values: list[float], normalisation: str) -> None:
    found = truncated_entropy(np.array(values), 1e-8, normalisation=normalisation)
    assert (found.cutoff, found.raw, found.normalised, found.effective_rank, found.condition) == (1, 0, 0, 1, 1)


def test_two_values_by_hand() -> None:
    # p = 3/4, 1/4: H = log 4 - 3/4 log 3
    found = truncated_entropy(np.array([3.0, 1.0]), 0.0)
    raw = math.log(4) - 0.75 * math.log(3)
    assert found.raw == pytest.approx(raw, abs=ROUNDING)
    assert found.normalised == pytest.approx(raw / math.log(2), abs=ROUNDING)
    assert found.effective_rank == pytest.approx(4 / 3**0.75, abs=ROUNDING)
    assert found.condition == 3


@pytest.mark.parametrize("ratio", [0.9, 0.5, 0.1])
@pytest.mark.parametrize("n", [2, 8, 30])
def test_geometric_values_have_their_closed_form(ratio: float, n: int) -> None:
    # p_k = (1 - r) r^k / (1 - r^n): H = -log((1 - r) / (1 - r^n)) - <k> log r, <k> = r / (1 - r) - n r^n / (1 - r^n)
    mean = ratio / (1 - ratio) - n * ratio**n / (1 - ratio**n)
    raw = -math.log((1 - ratio) / (1 - ratio**n)) - mean * math.log(ratio)
    assert truncated_entropy(ratio ** np.arange(n), 0.0).raw == pytest.approx(raw, abs=ROUNDING)


def test_only_values_above_the_threshold_count() -> None:
    values = np.array([1.0, 1.0, 1.0, 1e-3, 1e-5])
    found = truncated_entropy(values, 1e-2)
    assert found.cutoff == 3
    assert found.raw == pytest.approx(math.log(3), abs=ROUNDING)
    assert found == truncated_entropy(values[:3], 1e-2)


def test_a_value_at_the_threshold_is_not_above_it() -> None:
    values = np.array([4.0, 2.0, 1.0])
    assert truncated_entropy(values, 0.5).cutoff == 1
    assert truncated_entropy(values, 2.0, relative=False).cutoff == 1
    assert truncated_entropy(values, 1.0).cutoff == 0
    assert truncated_entropy(np.array([1.0, 0.0]), 0.0).cutoff == 1


@pytest.mark.parametrize(
    ("threshold", "relative", "cutoff"), [(0.05, True, 2), (0.05, False, 3), (0.5, True, 1), (0.5, False, 2)]
)
def test_relative_thresholds_are_measured_by_the_largest_value(threshold: float, relative: bool, cutoff: int) -> None:
    values = np.array([10.0, 1.0, 0.1, 0.01])
    found = truncated_entropy(values, threshold, relative=relative)
    assert found.cutoff == cutoff
    assert found.condition == pytest.approx(10 ** (cutoff - 1))


def test_normalisations_divide_the_same_entropy() -> None:
    values = np.array([5.0, 3.0, 1.0, 1e-12, 1e-13, 0.0])
    by = {name: truncated_entropy(values, 1e-8, normalisation=name) for name in NORMALISATIONS}
    assert len({h.raw for h in by.values()}) == 1
    raw = by["raw"].raw
    assert by["raw"].normalised == raw > 0
    assert by["log_cutoff"].normalised == pytest.approx(raw / math.log(3), abs=ROUNDING)
    assert by["log_n"].normalised == pytest.approx(raw / math.log(6), abs=ROUNDING)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize(
    ("values", "threshold", "relative"),
    [([0.0, 0.0], 1e-8, True), ([0.0, 0.0], 0.0, False), ([2.0, 1.0], 5.0, False), ([2.0, 1.0], 1.5, True)],
)
def test_where_nothing_is_kept_there_is_no_entropy(
    values: list[float], threshold: float, relative: bool, normalisation: str
) -> None:
    found = truncated_entropy(np.array(values), threshold, relative=relative, normalisation=normalisation)
    assert (found.cutoff, found.effective_rank) == (0, 0)
    assert all(map(math.isnan, (found.raw, found.normalised, found.condition)))


@pytest.mark.parametrize("values", [[], [math.nan, 1.0], [1.0, math.nan], [math.inf, 1.0], [1.0, 2.0], [1.0, -1.0]])
def test_what_is_no_spectrum_is_refused(values: list[float]) -> None:
    with pytest.raises(
        RunError, match=rf"{len(values)} singular values .* are no spectrum: expected at least one, all"
    ):
        truncated_entropy(np.array(values), 1e-8)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("threshold", [1e-4, 1e-8, 1e-12])
def test_a_random_spectrum_has_the_entropy_of_thirty_digits(threshold: float, seed: int) -> None:
    values = random_spectrum(seed=seed)
    with mpmath.workdps(30):
        kept = [mpmath.mpf(v) for v in values if v > threshold * values[0]]
        p = [s / mpmath.fsum(kept) for s in kept]
        raw = -mpmath.fsum(q * mpmath.log(q) for q in p)
        expected = [raw, raw / mpmath.log(len(kept)), mpmath.exp(raw), kept[0] / kept[-1]]
    found = truncated_entropy(values, threshold)
    assert found.cutoff == len(kept)
    assert [found.raw, found.normalised, found.effective_rank, found.condition] == pytest.approx(
        [float(e) for e in expected], rel=ROUNDING
    )


@pytest.mark.parametrize("threshold", [1e-1, 1e-4])
def test_the_effective_dimension_is_the_trace_of_the_hat_matrix_of_ridge_regression(threshold: float) -> None:
    matrix = np.random.default_rng(0).normal(size=(20, 6)) * np.logspace(0, -5, 6)
    values = np.linalg.svd(matrix, compute_uv=False)
    ridge = (threshold * values[0]) ** 2
    hat = matrix @ np.linalg.solve(matrix.T @ matrix + ridge * np.eye(6), matrix.T)
    assert effective_dimension(values, threshold) == pytest.approx(np.trace(hat), rel=1e-8)
    assert effective_dimension(values, threshold * values[0], relative=False) == pytest.approx(np.trace(hat), rel=1e-8)


def test_the_effective_dimension_counts_what_is_far_above_the_threshold_and_not_what_is_far_below() -> None:
    values = np.array([4.0, 2.0, 1.0, 1e-12, 1e-13, 0.0])
    assert effective_dimension(values, 1e-6) == pytest.approx(3, abs=1e-9)
    assert effective_dimension(values, 0.0) == 5
    assert effective_dimension(np.zeros(3), 1e-6) == 0


@pytest.mark.parametrize("scale", [2.0**40, 2.0**-40])
@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_relative_entropy_does_not_see_the_scale(scale: float, normalisation: str) -> None:
    # powers of 2 round nothing, so not a bit may change
    values = random_spectrum()
    for threshold in (1e-4, 1e-8):
        of_values, of_scaled = (
            truncated_entropy(v, threshold, normalisation=normalisation) for v in (values, scale * values)
        )
        assert of_values == of_scaled


def test_absolute_entropy_sees_the_scale() -> None:
    values = random_spectrum()
    cutoffs = [truncated_entropy(scale * values, 1e-6, relative=False).cutoff for scale in (1, 1e3, 1e7)]
    assert cutoffs[0] < cutoffs[1] < cutoffs[2] == len(values)


@pytest.mark.parametrize("relative", [True, False])
def test_a_larger_threshold_keeps_no_more(relative: bool) -> None:
    values = random_spectrum(200)
    thresholds = np.geomspace(1e-14, 1, 40)
    found = [truncated_entropy(values, a, relative=relative) for a in thresholds]
    assert all(np.diff([h.cutoff for h in found]) <= 0)
    assert all(np.diff([h.raw for h in found if h.cutoff]) <= ROUNDING)
    assert found[0].cutoff == 200
    assert found[-1].cutoff == 0


@pytest.mark.parametrize("seed", range(3))
def test_entropy_lies_between_its_bounds(seed: int) -> None:
    values = random_spectrum(seed=seed)
    for threshold in (1e-2, 1e-6, 1e-10):
        found = truncated_entropy(values, threshold)
        assert 0 <= found.raw <= math.log(found.cutoff)
        assert 0 <= found.normalised <= 1
        assert 1 <= found.effective_rank <= found.cutoff


def test_every_threshold_is_taken_from_one_spectrum() -> None:
    values = random_spectrum()
    thresholds = [1e-4, 1e-8, 1e-12]
    found = Entropy(thresholds, relative=False, normalisation="log_n").at_thresholds(values)
    assert found == [truncated_entropy(values, a, relative=False, normalisation="log_n") for a in thresholds]


def test_metrics_have_their_names_and_values() -> None:
    values = np.array([4.0, 2.0, 1.0, 1e-10, 1e-13])
    found = Entropy([1e-8, 1e-12]).metrics(values)
    kept_3, kept_4 = truncated_entropy(values, 1e-8), truncated_entropy(values, 1e-12)
    of_entropy = {
        "entropy/1e-08": kept_3.normalised,
        "entropy/1e-12": kept_4.normalised,
        "entropy_raw/1e-08": kept_3.raw,
        "entropy_raw/1e-12": kept_4.raw,
        "cutoff/1e-08": 3,
        "cutoff/1e-12": 4,
        "effective_rank/1e-08": kept_3.effective_rank,
        "effective_rank/1e-12": kept_4.effective_rank,
        "condition/1e-08": 4,
        "condition/1e-12": kept_4.condition,
        "effective_dimension/1e-08": effective_dimension(values, 1e-8),
        "effective_dimension/1e-12": effective_dimension(values, 1e-12),
    }
    assert {name: value for name, value in found.items() if not name.startswith("spectrum/")} == of_entropy
    of_spectrum = {name for name in found if name.startswith("spectrum/")}
    named = {"max", "min", "condition", "count/1e-12", "stable_rank", "decay"}
    assert of_spectrum == {f"spectrum/{name}" for name in named}
    assert found["spectrum/max"] == 4
    assert found["spectrum/min"] == 1e-13
    assert found["spectrum/condition"] == pytest.approx(4e13)
    assert found["spectrum/count/1e-12"] == 4


def test_metrics_follow_the_choice_of_threshold_and_normalisation() -> None:
    values = np.array([4.0, 2.0, 1.0, 1e-8])
    absolute = Entropy([1.5], relative=False).metrics(values)
    assert absolute["cutoff/1.5"] == 2
    raw = Entropy([1e-4], normalisation="raw").metrics(values)
    assert raw["entropy/1e-04"] == raw["entropy_raw/1e-04"]


@pytest.mark.parametrize("thresholds", [[1e-8, 2e-8], [1e-8, 1.4e-8], [0.5, 0.25, 0.125]], ids=str)
def test_every_threshold_has_metrics_of_its_own(thresholds: list[float]) -> None:
    found = Entropy(thresholds).metrics(random_spectrum())
    assert len([name for name in found if name.startswith("entropy/")]) == len(thresholds)


def test_metrics_of_a_spectrum_of_zeros_are_numbers_or_say_that_there_is_none() -> None:
    found = Entropy([1e-8]).metrics(np.zeros(3))
    zero = {"max", "min", "count/1e-12", "stable_rank", "decay"}
    assert {found[f"spectrum/{name}"] for name in zero} == {0}
    assert found["spectrum/condition"] == math.inf
    assert found["cutoff/1e-08"] == found["effective_rank/1e-08"] == 0
    assert math.isnan(found["condition/1e-08"])
    assert math.isnan(found["entropy/1e-08"])


@pytest.mark.parametrize("decades", [0.25, 0.5, 2.0])
def test_the_decay_of_geometric_values_is_their_ratio(decades: float) -> None:
    # values below 1e-12 s_1 are rounding and must not count, whatever they are
    values = 10 ** (-decades * np.arange(6))
    found = spectrum_summary(np.append(values, [1e-30, 1e-31]))
    assert found["spectrum/decay"] == pytest.approx(decades, rel=1e-12)
    assert found["spectrum/count/1e-12"] == 6


def test_the_stable_rank_is_the_sum_of_squares_over_the_largest() -> None:
    assert spectrum_summary(np.array([2.0, 2.0, 1.0]))["spectrum/stable_rank"] == 2.25
    assert spectrum_summary(np.full(7, 3.0))["spectrum/stable_rank"] == pytest.approx(7)


@pytest.mark.parametrize("normalisation", ["log", "", "LOG_N", "none"])
def test_an_unknown_normalisation_is_refused(normalisation: str) -> None:
    with pytest.raises(
        UsageError, match=rf"entropy\.normalisation={normalisation} is unknown: .*log_cutoff, raw.* log_n"
    ):
        Entropy([1e-8], normalisation=normalisation)


@pytest.mark.parametrize("thresholds", [[], [-1e-8], [1e-8, -1.0]], ids=str)
def test_thresholds_must_be_numbers_that_are_not_negative(thresholds: list[float]) -> None:
    with pytest.raises(UsageError, match=r"entropy\.thresholds=\[.*\] is no list of thresholds: expected numbers >= 0"):
        Entropy(thresholds)
