"""The report: reads a tracking store, judges every claim, draws, and writes one page that needs no network."""

from __future__ import annotations

import argparse
import base64
import json
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import jinja2
import numpy as np
from matplotlib.figure import Figure

from pde_train.errors import PdeTrainError
from pde_train.runs import provenance
from pde_train.study import error_budget as causes
from pde_train.study.figures import FIGURES, unit
from pde_train.study.figures import causes as draw_causes
from pde_train.study.hypotheses import Claim, Comparison, Outcome, Word, read_claims
from pde_train.study.run_table import STARTS, read
from pde_train.study.statistics import Estimate
from pde_train.study.verdicts import SIDES, Stratum, Verdict, judge, text
from pde_train.sync import DEFAULT_URI, URI
from pde_train.tracking.reading import Reader

EXPERIMENT = "study"

LOOKS = ("entropy/1e-08",)
"""Metrics of networks that are drawn over their training."""

HERE = Path(__file__).parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report into a folder, and attach it to the parent runs of the study."""
    parser = argparse.ArgumentParser("python -m pde_train.report", description=__doc__)
    parser.add_argument("--uri", help=f"of the tracking store; by default ${URI}, else {DEFAULT_URI}")
    parser.add_argument("--experiment", default=EXPERIMENT, help=f"its experiment ({EXPERIMENT})")
    parser.add_argument("--folder", type=Path, default=Path("report"), help="where the page goes (report)")
    given = parser.parse_args(arguments)
    reader = Reader(given.uri or os.environ.get(URI) or DEFAULT_URI, given.experiment)
    try:
        page = write(reader, given.folder)
    except PdeTrainError as error:
        print(error, file=sys.stderr)
        return error.code
    print(f"The report: {page}")
    return 0


def write(reader: Reader, folder: Path) -> Path:
    """Judge and draw: `report.html`, `verdicts.json` with every number, and each figure as .png and .pdf."""
    began = time.monotonic()
    claims = read_claims()
    runs = read(reader, [*LOOKS, *_starts(claims)])
    verdicts = [judge(claim, runs) for claim in claims]
    folder.mkdir(parents=True, exist_ok=True)
    figures = {
        number: [
            kept
            for name, draw in FIGURES[number]
            for kept in _kept(draw(runs, verdict), f"{number}-{name}", draw.__doc__ or "", folder)
        ]
        for number, verdict in ((verdict.claim.number, verdict) for verdict in verdicts)
    }
    apart = causes.rows(runs)
    figures[0] = _kept(draw_causes(runs), "causes", draw_causes.__doc__ or "", folder)
    for verdict in verdicts:
        print(f"claim {verdict.claim.number}: {said(verdict)}")
    about = {
        **runs.about,
        "this machine": provenance.machine(),
        "this commit": provenance.git_commit(),
        "seconds to make": round(time.monotonic() - began),
    }
    (folder / "verdicts.json").write_text(
        json.dumps(strict({"about": about, "verdicts": [_numbers(v) for v in verdicts]}), indent=1, allow_nan=False)
        + "\n"
    )
    page = folder / "report.html"
    page.write_text(_rendered(verdicts=verdicts, figures=figures, apart=apart, about=about))
    for sweep in runs.sweeps:
        reader.attach(sweep, folder)
    return page


def _numbers(verdict: Verdict) -> dict[str, object]:
    """Everything that a verdict follows from."""
    return {
        "number": verdict.claim.number,
        "word": verdict.word,
        "said": said(verdict),
        "strata": [asdict(s) for s in verdict.strata],
        "effects": {name: [asdict(e) for e in effects] for name, effects in verdict.effects.items()},
    }


def strict(value: object) -> object:
    """The same for strict JSON: plain numbers, and null for what is no number or has no end."""
    if isinstance(value, Mapping):
        return {str(k): strict(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [strict(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _starts(claims: Sequence[Claim]) -> list[str]:
    """Metrics whose value before training some claim asks for."""
    asked = [name for c in claims for one in c.comparisons for name in (*one.quantity, *one.predictors)]
    return sorted({name.removeprefix(STARTS) for name in asked if name.startswith(STARTS)})


def _kept(figure: Figure | None, name: str, shows: str, folder: Path) -> list[tuple[str, str]]:
    """Write a figure into files; what it shows, and the picture as a data address. Nothing of no figure."""
    if figure is None:
        return []
    file = folder / f"{name}.png"
    figure.savefig(file, dpi=110)
    figure.savefig(file.with_suffix(".pdf"))
    first, _, rest = shows.partition("\n")[0].partition(": ")
    caption = rest or first
    picture = base64.b64encode(file.read_bytes()).decode()
    return [(caption[0].upper() + caption[1:], f"data:image/png;base64,{picture}")]


def _rendered(**found: object) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": number, "signed": signed, "labels": labels, "lost": lost, "hours": hours}
    environment.filters |= {"when": when, "interval": interval, "text": text}
    about = {"conditions": conditions, "described": described, "rule": rule, "unit": unit, "said": said}
    return environment.get_template("page.html").render(**about, **found)


def said(verdict: Verdict) -> str:
    """The word of a claim, with the numbers on which it rests."""
    strata = verdict.primary
    if verdict.word is Word.TOO_FEW:
        known = [s for s in strata if s.estimate.n]
        most = max(known, key=lambda s: s.estimate.n)
        reach = f"{most.reachable:.3g}, adjusted over {len(strata)} strata {most.adjusted_reachable:.3g}"
        return f"{verdict.word} with {most.estimate.n} {_units(most)}; smallest reachable p = {reach}"
    counts = [(outcome, sum(s.outcome is outcome for s in strata)) for outcome in Outcome]
    return f"{verdict.word} ({', '.join(f'{outcome} {count}' for outcome, count in counts if count)})"


def conditions(verdict: Verdict) -> list[tuple[Comparison, list[tuple[Outcome, list[str]]]]]:
    """For each comparison that is tested the names of its primary strata, by what was decided."""
    found = []
    for one in verdict.claim.comparisons:
        strata = [s for s in verdict.of(one) if s.when]
        by_outcome = [(o, [f"{s.when}{_few(s)}" for s in strata if s.outcome is o]) for o in Outcome]
        if strata:
            found.append((one, [(o, names) for o, names in by_outcome if names]))
    return found


def _few(stratum: Stratum) -> str:
    if stratum.outcome is not Outcome.TOO_FEW:
        return ""
    reach = f"{stratum.reachable:.3g}, adjusted {stratum.adjusted_reachable:.3g}"
    return f" ({stratum.estimate.n} {_units(stratum)}; smallest reachable p = {reach})"


def _units(stratum: Stratum) -> str:
    return "seeds" if stratum.cells else "pairs"


def described(verdict: Verdict, one: Comparison) -> str:
    """Where the intervals of all strata of a comparison lie; nothing of a ranking."""
    sides = verdict.sides(one)
    counts = ", ".join(f"{side} in {sides[side]}" for side in SIDES if side in sides)
    return f"{len(verdict.of(one))} strata, 95 % interval {counts}" if counts else ""


def rule(claim: Claim, one: Comparison) -> str:
    """The rule of a comparison in words, from its file."""
    size = f"{one.margin:g}{' decades' if one.scale == 'log10' else ''}"
    side = {
        "greater": f"greater than {size}",
        "less": f"less than -{size}",
        "same": f"smaller in size than {size}",
    }[one.expected]
    if one.kind == "ranking":
        return f"claimed: no other absolute correlation exceeds that of {one.claimed} by {size} or more"
    what = {
        "paired": "the median over seeds of the paired difference FD - AD",
        "trend": f"the median over seeds of its slope by {one.over}",
        "correlation": "Spearman's correlation inside design cells, averaged over cells,",
    }[one.kind]
    return f"claimed: {what} is {side}; margin {size}, level {claim.alpha:g} over all primary strata of the claim"


def number(value: float | None) -> str:
    """Three digits; a dash for what is no number."""
    return "-" if value is None or value != value else f"{value:.3g}"


def signed(value: float | None) -> str:
    """Three digits with the sign."""
    return "-" if value is None or value != value else f"{value:+.3g}"


def interval(estimate: Estimate) -> str:
    """Both ends; in words where so few seeds give none."""
    if estimate.n and math.isinf(estimate.low) and math.isinf(estimate.high):
        return f"none of {estimate.n}"
    return f"{signed(estimate.low)} … {signed(estimate.high)}" if estimate.n else "-"


def lost(stratum: Stratum) -> str:
    """How many pairs were lost, and why."""
    return ", ".join(f"{count} {why}" for why, count in stratum.lost.items()) or "0"


def labels(stratum: Stratum, strata: Sequence[Stratum] = ()) -> str:
    """A stratum's levels in one line, without those that all of some strata share."""
    shared = {f for f, level in stratum.labels.items() if strata and all(s.labels.get(f) == level for s in strata)}
    kept = {f: level for f, level in stratum.labels.items() if f not in shared} or stratum.labels
    return ", ".join(f"{factor} {text(level)}" for factor, level in kept.items())


def hours(seconds: float) -> str:
    """A length of time in minutes, or hours and minutes."""
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def when(seconds: float) -> str:
    """A time, UTC."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
