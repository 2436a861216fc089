"""The report: read a tracking store, judge every hypothesis, draw the figures, and write one page.

This is the command `python -m pde_train.report`.
"""

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

import numpy as np
from matplotlib.figure import Figure

from pde_train.errors import PdeTrainError, UsageError
from pde_train.runs import provenance
from pde_train.study import error_budget, frontier, published
from pde_train.study.feature_figures import draw_error_budget
from pde_train.study.figures import FIGURES
from pde_train.study.hypotheses import FOLDER, Hypothesis, read_hypotheses
from pde_train.study.page import Picture, render, said
from pde_train.study.run_table import Runs, plain_name, read
from pde_train.study.verdicts import Verdict, judge
from pde_train.sync import DEFAULT_URI
from pde_train.tracking.reading import Reader
from pde_train.tracking.uris import URI

EXPERIMENT = "study"

DRAWN = ("entropy/1e-08", "residual_held_out", "error_l2")
"""Metrics of networks that a figure shows at every step of training."""

DPI, CSS_PIXELS = 140, 96
"""The resolution of figures, and the pixels of an inch on the page."""

ERROR_BUDGET = 0
"""The number under which the page finds the figures of the error budget."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report into a folder, and attach it to the parent runs of the study.

    Args:
        arguments: The words of the command; by default those of this process.

    Returns:
        The exit code: 0, or that of the error whose sentence was printed.
    """
    parser = argparse.ArgumentParser("python -m pde_train.report", description=__doc__)
    parser.add_argument("--uri", help=f"of the tracking store; by default ${URI}, else {DEFAULT_URI}")
    parser.add_argument("--experiment", default=EXPERIMENT, help=f"its experiment ({EXPERIMENT})")
    parser.add_argument("--hypotheses", type=Path, default=FOLDER, help="a folder of YAML files (those of the study)")
    parser.add_argument("--folder", type=Path, default=Path("report"), help="where the page goes (report)")
    given = parser.parse_args(arguments)
    reader = Reader(given.uri or os.environ.get(URI) or DEFAULT_URI, given.experiment)
    try:
        page = write(reader, given.folder, read_hypotheses(given.hypotheses))
    except PdeTrainError as error:
        print(error, file=sys.stderr)
        return error.code
    print(f"The report: {page}")
    return 0


def write(reader: Reader, folder: Path, hypotheses: Sequence[Hypothesis]) -> Path:
    """Judge the hypotheses by the runs of a store, and write the report.

    The folder gets `report.html`, `verdicts.json` with every number, `runs.csv.gz` with the runs that
    they follow from, and each figure as .png and .pdf. It is then attached to the parent run of each
    sweep.

    Args:
        reader: The experiment in its tracking store.
        folder: Where the files go; made where it does not exist.
        hypotheses: The hypotheses that are judged.

    Returns:
        The file of the page.

    Raises:
        UsageError: A hypothesis names a figure that does not exist.
        RunError: The experiment has no finished run, or a seed occurs twice in a stratum.
    """
    began = time.monotonic()
    for hypothesis in hypotheses:
        if unknown := [name for name in hypothesis.figures if name not in FIGURES]:
            raise UsageError(
                f"hypothesis {hypothesis.number} names the figure {unknown[0]!r}: expected some of "
                f"{', '.join(FIGURES)}, correct it"
            )
    runs = read(reader, [*DRAWN, *_measured_at_steps(hypotheses)])
    verdicts = [judge(hypothesis, runs) for hypothesis in hypotheses]
    folder.mkdir(parents=True, exist_ok=True)
    figures = _draw(runs, verdicts, folder)
    for verdict in verdicts:
        print(f"hypothesis {verdict.hypothesis.number}: {said(verdict)}")
    summary = {
        **runs.summary,
        "this machine": provenance.machine(),
        "this commit": provenance.git_commit(),
        "seconds to make": round(time.monotonic() - began),
    }
    numbers = strict({"about": summary, "verdicts": [_numbers(v) for v in verdicts]})
    (folder / "verdicts.json").write_text(json.dumps(numbers, indent=1, allow_nan=False) + "\n")
    published.save(runs, folder / "runs.csv.gz", hypotheses)
    page = folder / "report.html"
    page.write_text(render(verdicts, figures, error_budget.rows(runs), frontier.rows(runs), summary))
    for sweep in runs.sweeps:
        reader.attach(sweep, folder)
    return page


def strict(value: object) -> object:
    """A value for strict JSON: plain Python numbers, and None in place of nan and infinite ones."""
    if isinstance(value, Mapping):
        return {str(k): strict(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [strict(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _numbers(verdict: Verdict) -> dict[str, object]:
    """Everything that a verdict follows from, as it is written to `verdicts.json`."""
    return {
        "number": verdict.hypothesis.number,
        "title": verdict.hypothesis.title,
        "word": verdict.word,
        "said": said(verdict),
        "strata": [asdict(s) for s in verdict.strata],
        "effects": {name: [asdict(e) for e in effects] for name, effects in verdict.effects.items()},
    }


def _measured_at_steps(hypotheses: Sequence[Hypothesis]) -> list[str]:
    """The metrics whose value before or during training some hypothesis asks for."""
    comparisons = [comparison for hypothesis in hypotheses for comparison in hypothesis.comparisons]
    asked = {name for comparison in comparisons for name in (*comparison.quantity, *comparison.predictors)}
    return sorted({plain_name(name) for name in asked if plain_name(name) != name})


def _draw(runs: Runs, verdicts: Sequence[Verdict], folder: Path) -> dict[int, list[Picture]]:
    """Draw the figures of every hypothesis and of the error budget, and write each as .png and .pdf."""
    pictures: dict[int, list[Picture]] = {}
    for verdict in verdicts:
        number = verdict.hypothesis.number
        drawn = [(name, FIGURES[name].draw(runs, verdict)) for name in verdict.hypothesis.figures]
        pictures[number] = [
            _written(figure, folder / f"{number}-{name}", FIGURES[name].caption) for name, figure in drawn if figure
        ]
    figure = draw_error_budget(runs)
    caption = "Each part of FD's error alone, higher accuracy with the best step, and contour integrals."
    pictures[ERROR_BUDGET] = [_written(figure, folder / "causes", caption)] if figure else []
    return pictures


def _written(figure: Figure, file: Path, caption: str) -> Picture:
    """Write a figure as .png and .pdf; the picture for the page, at its own size."""
    png = file.with_suffix(".png")
    figure.savefig(png, dpi=DPI)
    figure.savefig(file.with_suffix(".pdf"))
    address = f"data:image/png;base64,{base64.b64encode(png.read_bytes()).decode()}"
    return Picture(caption, address, round(CSS_PIXELS * figure.get_size_inches()[0]))
