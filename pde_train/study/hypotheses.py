"""The hypotheses of the study, and the rule by which they are judged.

Each hypothesis is a YAML file in `hypotheses/`. The file states its tests before the runs are made.

The rule, in full:

1. The unit is a *pair* of trained runs, one for each seed, that differ in how derivatives are taken
   and in nothing else. A *stratum* is one combination of choices, and each seed occurs in it once.
2. Each comparison has a *margin*, the smallest size that counts. In a stratum with the true median
   gap g (or correlation), one of three statements is true: g is beyond the margin as claimed,
   beyond it on the other side, or within it. A stratum is decided where a test at level `alpha`
   rejects the other two statements. So "no difference" is always the result of an equivalence test
   against the margin, and is called "within the margin". A test that rejects nothing decides
   nothing.
3. At most MOST_PRIMARY strata of a hypothesis are *primary*: named in its file, tested, and
   adjusted together (Holm 1979), so that with probability 1 - alpha no decision of a hypothesis is
   wrong. All other strata are *descriptive*: they get an estimate and a 95 % interval, no test, and
   no influence on the verdict.
4. A stratum whose pairs would not be significant even if they all agreed is "not decidable". The
   smallest p-value that so many pairs can reach is then stated. A run that did not finish, or a
   pair without a number, counts against every statement; no correlation is decided where there
   is one.
5. The verdict on a hypothesis follows from the outcomes of its primary strata, see `word`.
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

Level = str | float
"""A level of a factor."""

MOST_PRIMARY = 10
"""The largest number of strata of a hypothesis that are tested."""


class Outcome(StrEnum):
    """What the test of a primary stratum says."""

    CLAIMED = "as claimed"
    OPPOSITE = "the opposite"
    SAME = "within the margin"
    OPEN = "not decided"
    TOO_FEW = "not decidable"
    NO_DATA = "no data"


class Word(StrEnum):
    """The one-word verdict on a hypothesis."""

    HOLDS = "holds"
    SOMETIMES = "only when"
    FAILS = "does not hold"
    OPEN = "not decided"
    TOO_FEW = "not decidable"
    NO_DATA = "no data"


@dataclass(frozen=True)
class Primary:
    """A stratum that is tested.

    Attributes:
        when: Its name in words.
        levels: The level of every factor, so that the stratum is determined.
    """

    when: str
    levels: Mapping[str, Level]


@dataclass(frozen=True)
class Comparison:
    """One statement of a hypothesis, which is judged in each stratum of the runs that it selects.

    There are four kinds of statement:

    - `paired`: the median over seeds of FD minus AD of `quantity` (of its log10 where scale=log10).
    - `trend`: the median over seeds of the least-squares slope of that difference by `over`.
    - `correlation`: Spearman's correlation of each of `predictors` with `quantity`, inside the
      design cells that `cells` divides the runs into (such as width, scheme and budget), averaged
      over these cells. Runs of different cells are never pooled, because predictors differ between
      cells for other reasons than the one in question.
    - `ranking`: by how much the largest absolute correlation of any other predictor exceeds that of
      the `claimed` one, both inside cells. The outcome is as claimed where no other one exceeds it
      by the margin, and the opposite where some other one does.

    Attributes:
        name: The statement in words.
        kind: One of KINDS, see above.
        quantity: The metrics that are compared, correlated or predicted; the first one alone in the
            last two kinds.
        strata: The factors that divide the runs into strata.
        margin: The smallest size that counts, in the unit of the number.
        where: The levels that select runs, by factor.
        scale: `linear`, or `log10` for the difference of logarithms to base 10.
        expected: On which side of the margin the hypothesis puts the number: `greater` than the
            margin, `less` than minus the margin, or the `same` within it.
        over: The factor along which a trend is taken.
        exact: The scheme with exact derivatives, which is the reference of each pair.
        schemes: The schemes that are compared with it, by their `Differentiator.label`.
        reference: The level of each factor with which its other levels are compared in
            `Verdict.effects`.
        cells: The factors that divide the runs of a stratum into design cells.
        predictors: The metrics that may predict the quantity.
        claimed: The predictor that a ranking puts first.
        primary: The strata that are tested; each gives a level of all of `factors`.

    Raises:
        UsageError: The kind, scale or side is unknown, the margin is not positive, or a primary
            stratum does not give the level of each factor.
    """

    name: str
    kind: str
    quantity: Sequence[str]
    strata: Sequence[str]
    margin: float
    where: Mapping[str, Sequence[Level]] = field(default_factory=dict)
    scale: str = "linear"
    expected: str = "greater"
    over: str = ""
    exact: str = ""
    schemes: Sequence[str] = ()
    reference: Mapping[str, Level] = field(default_factory=dict)
    cells: Sequence[str] = ()
    predictors: Sequence[str] = ()
    claimed: str = ""
    primary: Sequence[Primary] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"kind={self.kind} is unknown: expected one of {', '.join(KINDS)}, correct the hypothesis")
        if self.scale not in ("linear", "log10") or self.expected not in EXPECTED:
            raise UsageError(
                f"{self.name!r} has scale={self.scale} and expected={self.expected}: expected linear or log10, and "
                f"one of {', '.join(EXPECTED)}, correct the hypothesis"
            )
        if not self.margin > 0:
            raise UsageError(
                f"{self.name!r} has margin={self.margin}: expected the smallest size that counts, above 0, as no "
                "difference can be shown to be none at all; state it"
            )
        for stratum in self.primary:
            if set(stratum.levels) != set(self.factors):
                raise UsageError(
                    f"the primary stratum {stratum.when!r} of {self.name!r} names "
                    f"{', '.join(stratum.levels) or 'nothing'}: expected a level of each of "
                    f"{', '.join(self.factors)}, as it is one stratum, correct the hypothesis"
                )

    @property
    def factors(self) -> tuple[str, ...]:
        """The names of all factors that divide the runs into strata."""
        predictor = ("predictor",) if self.kind == "correlation" else ()
        return (*self.strata, *(("quantity",) if len(self.quantity) > 1 else ()), *predictor)


@dataclass(frozen=True)
class Hypothesis:
    """A hypothesis taken from the paper, and the comparisons that judge it.

    Attributes:
        number: Its number in the report.
        title: The hypothesis in words.
        source: Where it comes from.
        parts: The parts of the study whose runs it needs, see `pde_train.study.parts`.
        alpha: The level of its tests, over all primary strata together.
        comparisons: The statements that it consists of.
        figures: The figures that show it on the page, see `pde_train.study.figures.FIGURES`.

    Raises:
        UsageError: There are too many primary strata or none, or `alpha` is no level.
    """

    number: int
    title: str
    source: str
    parts: Sequence[str]
    alpha: float
    comparisons: Sequence[Comparison]
    figures: Sequence[str] = ("tested",)

    def __post_init__(self) -> None:
        if not 1 <= len(self.primary) <= MOST_PRIMARY:
            raise UsageError(
                f"hypothesis {self.number} names {len(self.primary)} primary strata: expected 1 to {MOST_PRIMARY}, "
                "as all of them are tested together, choose those on which the hypothesis rests"
            )
        if not 0 < self.alpha < 0.5:
            raise UsageError(
                f"hypothesis {self.number} has alpha={self.alpha}: expected a level above 0 and below 0.5, correct it"
            )

    @property
    def primary(self) -> list[tuple[Comparison, Primary]]:
        """The strata that are tested with their comparisons, in the order of the file."""
        return [(comparison, stratum) for comparison in self.comparisons for stratum in comparison.primary]


def word(outcomes: Sequence[Outcome]) -> Word:
    """The verdict on a hypothesis that follows from the outcomes of its primary strata.

    - `holds`: every stratum is as claimed.
    - `only when`: at least one is as claimed, and at least one is decided otherwise. The conditions
      are the names of the strata in which it is as claimed; both lists are always shown beside the
      verdict.
    - `does not hold`: every stratum is decided, and none as claimed.
    - `not decided`: none of these. The open strata decide which of them it will be.
    - `not decidable`: no stratum with data has enough pairs to decide anything.
    - `no data`: no stratum has any.

    Args:
        outcomes: The outcomes of all primary strata.

    Returns:
        The verdict.
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


def read_hypotheses(folder: Path = FOLDER) -> list[Hypothesis]:
    """All hypotheses of a folder of YAML files, sorted by number.

    Args:
        folder: The folder.

    Returns:
        The hypotheses.

    Raises:
        UsageError: The folder has none, or a file is no hypothesis, or two have the same number.
    """
    found = sorted((_hypothesis(file) for file in folder.glob("*.yaml")), key=lambda hypothesis: hypothesis.number)
    if not found:
        raise UsageError(f"{folder} has no hypothesis: expected YAML files such as those in {FOLDER}")
    numbers = [hypothesis.number for hypothesis in found]
    if len(set(numbers)) < len(numbers):
        raise UsageError(f"the hypotheses in {folder} have the numbers {numbers}: expected each once, renumber them")
    return found


def _hypothesis(file: Path) -> Hypothesis:
    try:
        content = yaml.safe_load(file.read_text())
        content.pop("shared", None)  # YAML anchors, which the comparisons of the file have merged already
        comparisons = [_comparison(comparison) for comparison in content.pop("comparisons")]
        return Hypothesis(**content, comparisons=comparisons)
    except (TypeError, ValueError, KeyError, AttributeError, yaml.YAMLError) as error:
        keys = ", ".join(f.name for f in fields(Hypothesis))
        raise UsageError(f"{file.name} is no hypothesis ({error}): expected the keys {keys}, see Hypothesis") from error


def _comparison(content: dict[str, Any]) -> Comparison:
    strata = [dict(stratum) for stratum in content.pop("primary", ())]
    return Comparison(**content, primary=[Primary(stratum.pop("when"), stratum) for stratum in strata])
