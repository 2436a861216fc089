"""Truncated entropy and related numbers: pure functions of singular values (arXiv 2405.14099, docs/concepts.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pde_train.errors import RunError, UsageError

NORMALISATIONS = ("log_cutoff", "raw", "log_n")


@dataclass(frozen=True)
class TruncatedEntropy:
    """The numbers that follow from the singular values above one threshold, see `truncated_entropy`.

    Attributes:
        threshold: The threshold a.
        cutoff: The effective cut-off number N_a, the count of the singular values that are kept.
        raw: The entropy H of the values that are kept, in nats.
        normalised: H divided as the normalisation says.
        effective_rank: exp(H), or 0 where nothing is kept.
        condition: s_1 / s_{N_a}.
    """

    threshold: float
    cutoff: float
    raw: float
    normalised: float
    effective_rank: float
    condition: float


def truncated_entropy(
    values: np.ndarray, threshold: float, *, relative: bool = True, normalisation: str = "log_cutoff"
) -> TruncatedEntropy:
    """The entropy of the singular values s_1 >= ... >= s_n that exceed a threshold a.

    The effective cut-off number is N_a = #{k : s_k > a s_1}, or #{k : s_k > a} if not `relative`.
    The entropy is H = -sum_{k <= N_a} p_k log p_k with p_k = s_k / sum_{j <= N_a} s_j, in nats. The
    effective rank is exp(H) (Roy and Vetterli, EUSIPCO 2007).

    Args:
        values: The singular values (n,) in descending order.
        threshold: The threshold a.
        relative: Whether the threshold is relative to s_1.
        normalisation: What divides H: `log_cutoff` divides by log N_a and gives 0 for N_a = 1 (our
            choice, not a quotation of the paper), `raw` by 1, `log_n` by log n.

    Returns:
        The numbers. Where nothing is kept there is no distribution: the entropies and the condition
        are nan.

    Raises:
        RunError: There are no values, or they are nan, infinite, negative or not in descending
            order.

    Examples:
        >>> entropy = truncated_entropy(np.array([1.0, 1.0, 1e-9]), 1e-8)
        >>> entropy.cutoff, round(entropy.raw, 4), round(entropy.effective_rank, 4)
        (2, 0.6931, 2.0)
    """
    n = len(values)
    if not n or not np.isfinite(values).all() or values[-1] < 0 or np.any(np.diff(values) > 0):
        shown = ", ".join(f"{v:g}" for v in values[:3])
        raise RunError(
            f"{n} singular values ({shown}, ...) are no spectrum: expected at least one, all finite, >= 0 and "
            "descending, train again"
        )
    kept = values[values > (threshold * values[0] if relative else threshold)]
    cutoff = len(kept)
    if cutoff == 0:
        nan = float("nan")
        return TruncatedEntropy(threshold, 0, nan, nan, 0.0, nan)
    p = kept / kept.sum()
    p = p[p > 0]  # p log p tends to 0 with p
    raw = max(0.0, -float(np.sum(p * np.log(p))))
    scale = {"log_cutoff": np.log(cutoff), "raw": 1.0, "log_n": np.log(n)}[normalisation]
    normalised = raw / float(scale) if scale > 0 else 0.0
    return TruncatedEntropy(threshold, cutoff, raw, normalised, float(np.exp(raw)), float(kept[0] / kept[-1]))


def effective_dimension(values: np.ndarray, threshold: float, *, relative: bool = True) -> float:
    """The effective dimension d(t) = sum_k s_k^2 / (s_k^2 + t^2) of all singular values.

    This is the number of degrees of freedom that ridge regression with the penalty t^2 leaves
    (Hastie, Tibshirani and Friedman, The Elements of Statistical Learning, 2009, equation 3.50). It
    counts values as the effective cut-off number does, with a soft edge in place of a hard one.

    Args:
        values: The singular values (n,).
        threshold: The threshold t.
        relative: Whether the threshold is relative to s_1.

    Returns:
        The effective dimension, between 0 and n.

    Examples:
        >>> round(effective_dimension(np.array([1.0, 0.1]), 0.1), 4)
        1.4901
    """
    squares = values[values > 0] ** 2
    return float(np.sum(squares / (squares + (threshold * values[0] if relative else threshold) ** 2)))


@dataclass(frozen=True)
class Entropy:
    """The definition of the entropy that a run uses.

    Attributes:
        thresholds: The thresholds, for each of which the entropy is computed.
        relative: Whether thresholds are relative to s_1.
        normalisation: What divides the entropy, see `truncated_entropy`.

    Raises:
        UsageError: The normalisation is unknown, or a threshold is negative, or not below 1 where
            it is relative.
    """

    thresholds: Sequence[float]
    relative: bool = True
    normalisation: str = "log_cutoff"

    def __post_init__(self) -> None:
        if self.normalisation not in NORMALISATIONS:
            raise UsageError(
                f"entropy.normalisation={self.normalisation} is unknown: expected one of {', '.join(NORMALISATIONS)}"
            )
        most = 1.0 if self.relative else np.inf
        given = self.thresholds
        if not isinstance(given, Sequence) or not given or not all(0 <= a < most for a in given):
            raise UsageError(
                f"entropy.thresholds={given} is no list of thresholds: expected numbers >= 0, and < 1 where they are "
                "relative to s_1, such as [1e-8,1e-12]"
            )

    def at_thresholds(self, values: np.ndarray) -> list[TruncatedEntropy]:
        """The truncated entropy of the singular values at every threshold."""
        return [
            truncated_entropy(values, a, relative=self.relative, normalisation=self.normalisation)
            for a in self.thresholds
        ]

    def metrics(self, values: np.ndarray, resolution: float = 0.0) -> dict[str, float]:
        """All metrics that a run logs of its singular values.

        Args:
            values: The singular values (n,) in descending order.
            resolution: The size relative to s_1 below which values are missing. Metrics that depend
                on them are nan.

        Returns:
            The metrics by name.
        """
        named = dict(spectrum_summary(values, resolution))
        for h in self.at_thresholds(values):
            dimension = effective_dimension(values, h.threshold, relative=self.relative)
            if (h.threshold if self.relative else h.threshold / (values[0] or 1.0)) < resolution:
                nan = dimension = float("nan")
                h = TruncatedEntropy(h.threshold, nan, nan, nan, nan, nan)
            short = f"{h.threshold:.0e}"
            at = short if float(short) == h.threshold else repr(h.threshold)
            named |= {
                f"cutoff/{at}": h.cutoff,
                f"entropy/{at}": h.normalised,
                f"entropy_raw/{at}": h.raw,
                f"effective_rank/{at}": h.effective_rank,
                f"condition/{at}": h.condition,
                f"effective_dimension/{at}": dimension,
            }
        return named


def spectrum_summary(values: np.ndarray, resolution: float = 0.0) -> dict[str, float]:
    """Metrics of a spectrum that need no threshold of the user.

    The stable rank is sum s_k^2 / s_1^2. The decay rate is minus the least-squares slope of log10
    s_k against k over the values above 1e-12 s_1, in decades per index.

    Args:
        values: The singular values (n,) in descending order.
        resolution: The size relative to s_1 below which values are missing, see `Entropy.metrics`.

    Returns:
        The largest and smallest value, their quotient, the count above 1e-12 s_1, the stable rank
        and the decay rate.
    """
    largest, smallest = float(values[0]), float("nan") if resolution else float(values[-1])
    above = values[values > 1e-12 * largest]
    decay = -float(np.polyfit(np.arange(len(above)), np.log10(above), 1)[0]) if len(above) > 1 else 0.0
    return {
        "spectrum/max": largest,
        "spectrum/min": smallest,
        "spectrum/condition": largest / smallest if smallest else float("inf"),
        "spectrum/count/1e-12": float("nan") if resolution > 1e-12 else len(above),
        "spectrum/stable_rank": float(np.sum((values / (largest or 1.0)) ** 2)),
        "spectrum/decay": decay,
    }
