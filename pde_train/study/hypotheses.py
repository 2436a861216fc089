"""What is claimed, and by which rule it is judged: read from files that name their tests before the runs.

The rule, in full:

1. The unit is a *pair* of trained runs, one for each seed, that differ in how derivatives are taken and in nothing
   else. A *stratum* is one combination of choices, and each seed stands in it once.
2. Each comparison has a *margin*, the smallest size that counts. In a stratum with the true median gap g (or
   correlation), one of three statements is true: g is beyond the margin as claimed, beyond it on the other side, or
   within it. A stratum is decided where a test at level `alpha` rejects the other two. So "no difference" is always
   an equivalence test against the margin, and is called "within the margin"; it never is the lack of a rejection.
3. At most MOST_PRIMARY strata of a claim are *primary*: named in its file, tested, and adjusted together (Holm 1979),
   so that with probability 1 - alpha no decision of a claim is wrong. All other strata are *descriptive*: an estimate
   and a 95 % interval, without a test and without a part in the verdict.
4. A stratum in which even pairs that all agree could not be significant is "not decidable", with the smallest p that
   so many pairs can reach. A run that did not finish, or a pair without a number, counts against every statement.
5. The word of a claim follows from the outcomes of its primary strata, see `Claim.word`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml

from pde_train.errors import UsageError

FOLDER = Path(__file__).parent / "hypotheses"

KINDS = ("paired", "trend", "correlation", "ranking")

EXPECTED = ("greater", "less", "same")

MOST_PRIMARY = 10
"""Strata of a claim that are tested."""


class Outcome(StrEnum):
    """What the test of a primary stratum says."""

    CLAIMED = "as claimed"
    OPPOSITE = "the opposite"
    SAME = "within the margin"
    OPEN = "not decided"
    TOO_FEW = "not decidable"
    NO_DATA = "no data"


class Word(StrEnum):
    """What is said of a claim."""

    HOLDS = "holds"
    SOMETIMES = "only when"
    FAILS = "does not hold"
    OPEN = "not decided"
    TOO_FEW = "not decidable"
    NO_DATA = "no data"


@dataclass(frozen=True)
class Primary:
    """A stratum that is tested: its name in words, and the level of every factor that makes it one stratum."""

    when: str
    levels: Mapping[str, Any]


@dataclass(frozen=True)
class Comparison:
    """One statement, judged in each stratum: for each choice of `strata` among the runs that `where` selects.

    kind:
        paired: the median over seeds of FD minus AD of `quantity` (of its log10 where scale=log10).
        trend: the median over seeds of the least-squares slope of that difference by `over`.
        correlation: Spearman's, of each of `predictors` with `quantity`, inside the design cells that `cells` names
            (such as width, way of taking derivatives and budget), averaged over these cells. Runs of different cells
            are never pooled: predictors differ between cells for other reasons than those that they are to predict.
        ranking: how far the largest absolute correlation of another of `predictors` lies above that of the `claimed`
            one, both inside cells. Not above the margin (for all of them) is as claimed, above it the opposite.
    expected: the side on which the claim puts the number: `greater` than the margin, `less` than minus the margin, or
        the `same` within it.
    margin: the smallest size that counts, in the unit of the number.
    exact: the way of taking derivatives that is the reference; ways: those that are compared with it.
    reference: the level of each factor against which its other levels are compared by `effects`.
    primary: the strata that are tested; each names a level of all of `factors`.
    """

    name: str
    kind: str
    quantity: Sequence[str]
    strata: Sequence[str]
    margin: float
    where: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    scale: str = "linear"
    expected: str = "greater"
    over: str = ""
    exact: str = ""
    ways: Sequence[str] = ()
    reference: Mapping[str, Any] = field(default_factory=dict)
    cells: Sequence[str] = ()
    predictors: Sequence[str] = ()
    claimed: str = ""
    primary: Sequence[Primary] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"kind={self.kind} is unknown: expected one of {', '.join(KINDS)}, correct the claim")
        if self.scale not in ("linear", "log10") or self.expected not in EXPECTED:
            raise UsageError(
                f"{self.name!r} has scale={self.scale} and expected={self.expected}: expected linear or log10, and "
                f"one of {', '.join(EXPECTED)}, correct the claim"
            )
        if not self.margin > 0:
            raise UsageError(
                f"{self.name!r} has margin={self.margin}: expected the smallest size that counts, above 0, as no "
                "difference can be shown to be none at all; state it"
            )
        for one in self.primary:
            if set(one.levels) != set(self.factors):
                raise UsageError(
                    f"the primary stratum {one.when!r} of {self.name!r} names {', '.join(one.levels) or 'nothing'}: "
                    f"expected a level of each of {', '.join(self.factors)}, as it is one stratum, correct the claim"
                )

    @property
    def factors(self) -> tuple[str, ...]:
        """What divides the runs into strata."""
        predictor = ("predictor",) if self.kind == "correlation" else ()
        return (*self.strata, *(("quantity",) if len(self.quantity) > 1 else ()), *predictor)


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, the comparisons that judge it, and the level of its tests; parts: of the study it needs."""

    number: int
    title: str
    source: str
    parts: Sequence[str]
    alpha: float
    comparisons: Sequence[Comparison]

    def __post_init__(self) -> None:
        if not 1 <= len(self.primary) <= MOST_PRIMARY:
            raise UsageError(
                f"claim {self.number} names {len(self.primary)} primary strata: expected 1 to {MOST_PRIMARY}, as all "
                "of them are tested together, choose those on which the claim rests"
            )
        if not 0 < self.alpha < 0.5:
            raise UsageError(f"claim {self.number} has alpha={self.alpha}: expected a level above 0 and below 0.5")

    @property
    def primary(self) -> list[tuple[Comparison, Primary]]:
        """The strata that are tested, in the order of the file."""
        return [(comparison, one) for comparison in self.comparisons for one in comparison.primary]


def word(outcomes: Sequence[Outcome]) -> Word:
    """What the outcomes of its primary strata say of a claim.

    - `holds`: every one is as claimed.
    - `only when`: at least one is as claimed, and at least one is decided otherwise. The conditions are the names of
      the strata in which it is as claimed; both lists always stand beside the word.
    - `does not hold`: every one is decided, and none as claimed.
    - `not decided`: none of these. The strata that are open decide which of them it will be.
    - `not decidable`: no stratum with data has enough pairs to decide anything.
    - `no data`: no stratum has any.
    """
    known = [o for o in outcomes if o is not Outcome.NO_DATA]
    if not known:
        return Word.NO_DATA
    claimed = sum(o is Outcome.CLAIMED for o in outcomes)
    otherwise = sum(o in (Outcome.OPPOSITE, Outcome.SAME) for o in outcomes)
    if claimed == len(outcomes):
        return Word.HOLDS
    if claimed and otherwise:
        return Word.SOMETIMES
    if otherwise == len(outcomes):
        return Word.FAILS
    return Word.TOO_FEW if all(o is Outcome.TOO_FEW for o in known) else Word.OPEN


def read_claims(folder: Path = FOLDER) -> list[Claim]:
    """Every claim of a folder of YAML files, by number."""
    return sorted((_claim(file) for file in folder.glob("*.yaml")), key=lambda claim: claim.number)


def _claim(file: Path) -> Claim:
    try:
        about = yaml.safe_load(file.read_text())
        about.pop("shared", None)  # what a file names once for several of its comparisons
        comparisons = [_comparison(one) for one in about.pop("comparisons")]
        return Claim(**about, comparisons=comparisons)
    except (TypeError, ValueError, KeyError, AttributeError, yaml.YAMLError) as error:
        keys = ", ".join(f.name for f in fields(Claim))
        raise UsageError(f"{file.name} is no claim ({error}): expected the keys {keys}, see Claim") from error


def _comparison(about: dict[str, Any]) -> Comparison:
    primary = [Primary(one["when"], {k: v for k, v in one.items() if k != "when"}) for one in about.pop("primary", ())]
    return Comparison(**about, primary=primary)
