"""The report: reads a tracking store, judges every claim, draws, and writes one page that needs no network."""

from __future__ import annotations

import argparse
import base64
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import jinja2
from matplotlib.figure import Figure

from pde_train import provenance
from pde_train.errors import PdeTrainError
from pde_train.report import causes
from pde_train.report.claims import Claim, Comparison, read_claims
from pde_train.report.figures import FIGURES
from pde_train.report.figures import causes as draw_causes
from pde_train.report.runs import STARTS, read
from pde_train.report.verdicts import Stratum, Verdict, judge, text
from pde_train.sync import DEFAULT_URI, URI
from pde_train.tracking.reading import Reader

EXPERIMENT = "study"

LOOKS = ("entropy/1e-08",)
"""Metrics of networks that are drawn over their training."""

NAMED = 3
"""Strata in which a comparison holds that are named one by one in the first table; of more only what they share."""

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
        print(f"claim {verdict.claim.number}: {verdict.word} ({verdict.held} of {len(verdict.strata)} strata)")
    about = {
        **runs.about,
        "this machine": provenance.machine(),
        "this commit": provenance.git_commit(),
        "seconds to make": round(time.monotonic() - began),
    }
    numbers = [{"number": v.claim.number, "word": v.word, "strata": [asdict(s) for s in v.strata]} for v in verdicts]
    (folder / "verdicts.json").write_text(
        json.dumps({"about": about, "verdicts": numbers}, indent=1, default=lambda scalar: scalar.item()) + "\n"
    )
    page = folder / "report.html"
    page.write_text(_rendered(verdicts=verdicts, figures=figures, apart=apart, about=about))
    for sweep in runs.sweeps:
        reader.attach(sweep, folder)
    return page


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
    environment.filters |= {"number": number, "labels": labels, "hours": hours, "when": when}
    return environment.get_template("page.html").render(summary=summary, rule=rule, **found)


def summary(verdict: Verdict) -> list[str]:
    """Where a claim holds, a sentence for each comparison."""
    sentences = []
    for one in verdict.claim.comparisons:
        strata = verdict.of(one)
        held, against = sum(s.holds for s in strata), sum(s.reversed for s in strata)
        if not strata:
            sentences.append(f"{one.name}: no data")
            continue
        opposite = f", the opposite in {against}" if against else ""
        always = [
            f"{factor} {level}"
            for factor, levels in verdict.shares(one).items()
            for level, (h, of) in levels.items()
            if h == of
        ]
        where = f"; everywhere at {', '.join(always)}" if always and held < len(strata) else ""
        if not always and 0 < held <= NAMED:
            where = f"; at {'; at '.join(labels(s) for s in strata if s.holds)}"
        sentences.append(f"{one.name}: in {held} of {len(strata)} strata{opposite}{where}")
    return sentences


def rule(claim: Claim, one: Comparison) -> str:
    """The rule of a comparison in words, from its file."""
    size = f" by at least {one.least:g}{' decades' if one.scale == 'log10' else ''}"
    if one.kind == "agree":
        return f"agrees where the median relative difference in a pair is below {one.tolerance:g}, with its interval"
    if one.kind == "correlation":
        return f"holds where Spearman's correlation is {one.expected} than 0{size}, with its interval clear of 0"
    if one.kind == "ranking":
        return f"holds where no other correlation is larger in size than that of {one.claimed}, beyond its interval"
    what = f"slopes by {one.over} of the paired difference" if one.kind == "trend" else "paired difference FD - AD"
    return (
        f"holds where the {what} is {one.expected} than 0{size} (median), p < {claim.alpha:g} (Wilcoxon, adjusted), "
        "with its interval clear of 0"
    )


def number(value: float | None) -> str:
    """Three digits; a dash for what is no number."""
    return "-" if value is None or value != value else f"{value:.3g}"


def labels(stratum: Stratum) -> str:
    """A stratum's levels in one line."""
    return ", ".join(f"{factor} {text(level)}" for factor, level in stratum.labels.items())


def hours(seconds: float) -> str:
    """A length of time in minutes, or hours and minutes."""
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def when(seconds: float) -> str:
    """A time, UTC."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
