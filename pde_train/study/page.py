"""The page of the report: one HTML file that needs no network, and the sentences in it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jinja2

from pde_train.study import error_budget, frontier
from pde_train.study.hypotheses import Comparison, Hypothesis, Outcome, Word
from pde_train.study.pairs import text
from pde_train.study.statistics import Estimate
from pde_train.study.verdicts import SIDES, Stratum, Verdict
from pde_train.study.words import in_words, unit

HERE = Path(__file__).parent


class Picture(NamedTuple):
    """A figure on the page: what it shows, in a sentence, its PNG as a data address, and its width in CSS pixels."""

    shows: str
    address: str
    width: int


def render(
    verdicts: Sequence[Verdict],
    figures: Mapping[int, Sequence[Picture]],
    budget: Sequence[error_budget.Row],
    choices: Mapping[str, Sequence[frontier.Choice]],
    summary: Mapping[str, object],
) -> str:
    """The HTML text of the report.

    Args:
        verdicts: The verdict on each hypothesis.
        figures: The pictures of each hypothesis by its number; number 0 stands for the error
            budget.
        budget: The rows of the error budget.
        choices: The schemes on the frontier of error and time, by setting.
        summary: What is stated of the runs and of the making of the page.

    Returns:
        The text of `report.html`.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": number, "signed": signed, "labels": labels, "lost": lost, "hours": hours}
    environment.filters |= {"when": when, "interval": interval, "text": text, "in_words": in_words}
    functions = {"conditions": conditions, "described": described, "rule": rule, "unit": unit, "said": said}
    return environment.get_template("page.html").render(
        verdicts=verdicts, figures=figures, budget=budget, choices=choices, summary=summary, **functions
    )


def said(verdict: Verdict) -> str:
    """The verdict on a hypothesis in a sentence, with the counts or the smallest reachable p that explain it."""
    strata = verdict.primary
    if verdict.word is Word.TOO_FEW:
        known = [s for s in strata if s.estimate.n]
        most = max(known, key=lambda s: s.estimate.n)
        reach = f"{most.reachable:.3g}, adjusted over {len(strata)} strata {most.adjusted_reachable:.3g}"
        return f"{verdict.word} with {most.estimate.n} {_units(most)}; smallest reachable p = {reach}"
    counts = [(outcome, sum(s.outcome is outcome for s in strata)) for outcome in Outcome]
    return f"{verdict.word} ({', '.join(f'{outcome} {count}' for outcome, count in counts if count)})"


def conditions(verdict: Verdict) -> list[tuple[Comparison, list[tuple[Outcome, list[str]]]]]:
    """The names of the primary strata of each comparison that is tested, by what was decided."""
    decided = []
    for comparison in verdict.hypothesis.comparisons:
        strata = [s for s in verdict.of(comparison) if s.when]
        by_outcome = [(o, [f"{s.when}{_few(s)}" for s in strata if s.outcome is o]) for o in Outcome]
        if strata:
            decided.append((comparison, [(o, names) for o, names in by_outcome if names]))
    return decided


def _few(stratum: Stratum) -> str:
    if stratum.outcome is not Outcome.TOO_FEW:
        return ""
    reach = f"{stratum.reachable:.3g}, adjusted {stratum.adjusted_reachable:.3g}"
    return f" ({stratum.estimate.n} {_units(stratum)}; smallest reachable p = {reach})"


def _units(stratum: Stratum) -> str:
    return "seeds" if stratum.cells else "pairs"


def described(verdict: Verdict, comparison: Comparison) -> str:
    """Where the 95 % intervals of all strata of a comparison lie, in a sentence; empty for a ranking."""
    sides = verdict.sides(comparison)
    counts = ", ".join(f"{side} in {sides[side]}" for side in SIDES if side in sides)
    return f"{len(verdict.of(comparison))} strata, 95 % interval {counts}" if counts else ""


def rule(hypothesis: Hypothesis, comparison: Comparison) -> str:
    """The rule of a comparison in a sentence, made from its file."""
    size = f"{comparison.margin:g}{' decades' if comparison.scale == 'log10' else ''}"
    side = {
        "greater": f"greater than {size}",
        "less": f"less than -{size}",
        "same": f"smaller in size than {size}",
    }[comparison.expected]
    if comparison.kind == "ranking":
        return (
            f"claimed: no other absolute correlation exceeds that of {in_words(comparison.claimed)} by {size} or more"
        )
    what = {
        "paired": "the median over seeds of the paired difference FD - AD",
        "trend": f"the median over seeds of its slope by {comparison.over}",
        "correlation": "Spearman's correlation inside design cells, averaged over cells,",
    }[comparison.kind]
    level = f"level {hypothesis.alpha:g} over all primary strata of the hypothesis"
    return f"claimed: {what} is {side}; margin {size}, {level}"


def number(value: float | None) -> str:
    """A number with three digits; a dash for nan and None."""
    return "-" if value is None or value != value else f"{value:.3g}"


def signed(value: float | None) -> str:
    """A number with its sign and three digits; a dash for nan and None."""
    return "-" if value is None or value != value else f"{value:+.3g}"


def interval(estimate: Estimate) -> str:
    """Both ends of an interval; in words where so few seeds give none."""
    if estimate.n and math.isinf(estimate.low) and math.isinf(estimate.high):
        return f"none of {estimate.n}"
    return f"{signed(estimate.low)} … {signed(estimate.high)}" if estimate.n else "-"


def lost(stratum: Stratum) -> str:
    """The number of lost pairs by reason."""
    return ", ".join(f"{count} {why}" for why, count in stratum.lost.items()) or "0"


def labels(stratum: Stratum, strata: Sequence[Stratum] = ()) -> str:
    """The levels of a stratum in one line, without those that all of `strata` share."""
    shared = {f for f, level in stratum.labels.items() if strata and all(s.labels.get(f) == level for s in strata)}
    kept = {f: level for f, level in stratum.labels.items() if f not in shared} or stratum.labels
    return ", ".join(f"{factor} {in_words(text(level))}" for factor, level in kept.items())


def hours(seconds: float) -> str:
    """A duration in minutes, or in hours and minutes."""
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def when(seconds: float) -> str:
    """A time in seconds since 1970 as a date and time, UTC."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
