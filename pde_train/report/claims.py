"""What is claimed, and by which rule it holds: read from files that were written before the runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from pde_train.errors import UsageError

FOLDER = Path(__file__).parent / "claims"

KINDS = ("paired", "agree", "trend", "correlation", "ranking")


@dataclass(frozen=True)
class Comparison:
    """One statement, judged once in each stratum: for each choice of `strata` among the runs that `where` selects.

    kind:
        paired: FD minus AD of `quantity` (of its log10 where scale=log10) in pairs of runs that differ in how
            derivatives are taken alone. Holds where Wilcoxon's signed-rank test rejects no difference at `alpha`
            (adjusted over the strata by Benjamini and Hochberg), the median has the sign that is `expected` (greater,
            less) and at least the size `least`, and its 95 % bootstrap interval does not reach 0.
        agree: holds where the upper end of that interval, of the relative difference in a pair, is within `tolerance`.
        trend: the same test as `paired`, of the least-squares slopes of that difference by `over`, a slope a seed.
        correlation: Spearman's, of each of `predictors` with `quantity`, over all runs. Holds where its 95 % bootstrap
            interval has the sign that is `expected`, and its size is at least `least`.
        ranking: holds where no other of `predictors` has a larger absolute correlation than the `claimed` one: where
            the 95 % bootstrap interval of the largest such difference reaches 0.
    exact: the way of taking derivatives that is the reference; ways: those that are compared with it.
    """

    name: str
    kind: str
    quantity: Sequence[str]
    strata: Sequence[str]
    where: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    scale: str = "linear"
    expected: str = "greater"
    least: float = 0.0
    tolerance: float = 0.0
    over: str = ""
    exact: str = ""
    ways: Sequence[str] = ()
    predictors: Sequence[str] = ()
    claimed: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"kind={self.kind} is unknown: expected one of {', '.join(KINDS)}, correct the claim")
        if self.scale not in ("linear", "log10") or self.expected not in ("greater", "less"):
            raise UsageError(
                f"{self.name!r} has scale={self.scale} and expected={self.expected}: expected linear or log10, and "
                "greater or less, correct the claim"
            )


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, the comparisons that judge it, and the rule.

    parts: of the study that it is judged by. rule: the share of all strata in which its comparisons must hold for the
    claim to hold, and the share up to which it fails; between both it holds only where its strata do.
    """

    number: int
    title: str
    source: str
    parts: Sequence[str]
    alpha: float
    rule: Mapping[str, float]
    comparisons: Sequence[Comparison]

    def word(self, held: int, of: int) -> str:
        """`holds`, `does not hold` or `only when`, of so many strata in which it held; `no data` of none."""
        if not of:
            return "no data"
        share = held / of
        if share >= self.rule["holds"]:
            return "holds"
        return "does not hold" if share <= self.rule["fails"] else "only when"


def read_claims(folder: Path = FOLDER) -> list[Claim]:
    """Every claim of a folder of YAML files, by number."""
    return sorted((_claim(file) for file in folder.glob("*.yaml")), key=lambda claim: claim.number)


def _claim(file: Path) -> Claim:
    try:
        about = yaml.safe_load(file.read_text())
        comparisons = [Comparison(**one) for one in about.pop("comparisons")]
        claim = Claim(**about, comparisons=comparisons)
        if not 0 <= claim.rule["fails"] < claim.rule["holds"] <= 1:
            raise ValueError(f"rule={claim.rule}")
        return claim
    except (TypeError, ValueError, KeyError, AttributeError, yaml.YAMLError) as error:
        keys = ", ".join(f.name for f in fields(Claim))
        raise UsageError(f"{file.name} is no claim ({error}): expected the keys {keys}, see Claim") from error
