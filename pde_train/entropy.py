"""Truncated entropy and its relatives: pure functions of singular values. Definitions: arXiv 2405.14099 and docs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pde_train.errors import RunError, UsageError

NORMALISATIONS = ("log_cutoff", "raw", "log_n")


@dataclass(frozen=True)
class TruncatedEntropy:
    """What the singular values above one threshold say; see `truncated_entropy` for the definitions."""

    threshold: float
    cutoff: float
    raw: float
    normalised: float
    effective_rank: float
    condition: float


def truncated_entropy(
    values: np.ndarray, threshold: float, *, relative: bool = True, normalisation: str = "log_cutoff"
) -> TruncatedEntropy:
    """Entropy of the singular values s_1 >= ... >= s_n (shape (n,)) that exceed a threshold a.

    cutoff: the effective cut-off number N_a = #{k : s_k > a s_1}, or #{k : s_k > a} where not `relative`.
    raw: H = -sum_{k <= N_a} p_k log p_k with p_k = s_k / sum_{j <= N_a} s_j, in nats.
    normalised: H / log N_a (`log_cutoff`, 0 where N_a = 1; our choice, not a quotation), H (`raw`) or
        H / log n (`log_n`).
    effective_rank: exp(H) (Roy and Vetterli, EUSIPCO 2007), 0 where nothing is kept.
    condition: s_1 / s_{N_a}.
    Where nothing is kept, N_a = 0, entropies and the condition are nan: there is no distribution. Raises RunError: for
    an empty spectrum, and for values that are nan, infinite, negative or not descending.
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
    p = p[p > 0]  # p log p tends to 0
    raw = max(0.0, -float(np.sum(p * np.log(p))))
    scale = {"log_cutoff": np.log(cutoff), "raw": 1.0, "log_n": np.log(n)}[normalisation]
    normalised = raw / float(scale) if scale > 0 else 0.0
    return TruncatedEntropy(threshold, cutoff, raw, normalised, float(np.exp(raw)), float(kept[0] / kept[-1]))


@dataclass(frozen=True)
class Entropy:
    """How the entropy of a spectrum is taken: the thresholds, all at once, and what divides it."""

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
        """Every number that a run logs of its singular values, by the metric's name.

        resolution: values below this times s_1 are missing from `values`; what depends on them is nan.
        """
        named = dict(spectrum_summary(values, resolution))
        for h in self.at_thresholds(values):
            if (h.threshold if self.relative else h.threshold / (values[0] or 1.0)) < resolution:
                nan = float("nan")
                h = TruncatedEntropy(h.threshold, nan, nan, nan, nan, nan)
            short = f"{h.threshold:.0e}"
            at = short if float(short) == h.threshold else repr(h.threshold)
            named |= {
                f"cutoff/{at}": h.cutoff,
                f"entropy/{at}": h.normalised,
                f"entropy_raw/{at}": h.raw,
                f"effective_rank/{at}": h.effective_rank,
                f"condition/{at}": h.condition,
            }
        return named


def spectrum_summary(values: np.ndarray, resolution: float = 0.0) -> dict[str, float]:
    """Largest, smallest, s_1 / s_n, count above 1e-12 s_1, stable rank and decay rate of descending singular values.

    Stable rank is sum s_k^2 / s_1^2. The decay rate is minus the least-squares slope of log10 s_k against k over the
    values above 1e-12 s_1, in decades per index. With a resolution (see `Entropy.metrics`) the smallest value is nan.
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
