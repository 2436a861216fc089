"""The tables that a run and a sweep end with."""

from __future__ import annotations

import csv
import io
import math
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from statistics import median

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from pde_train.overrides import common
from pde_train.runs.result import Result

COLUMNS = {
    "s_max": "spectrum/max",
    "s_min": "spectrum/min",
    "#>1e-12": "spectrum/count/1e-12",
    "H_A(1e-8)": "entropy/1e-08",
    "residual": "residual",
    "exact residual": "residual_exact",
    "error": "error_l2",
    "seconds": "seconds",
}
"""Headings and the metrics below them."""

OF_A_SWEEP = ("error_l2", "residual_exact", "entropy/1e-08", "seconds")
"""Metrics whose medians are metrics of the parent run of a sweep."""

SORTED_BY = ("error_l2", "residual_exact")
"""Those by the least of which sweeps are sorted."""

WIDE = 140
"""Characters that a terminal must have for the wide table, and that it gets where there is no terminal."""

Comparison = Mapping[str, Mapping[str, float | None]]
"""Numbers by differentiator and by quantity, see `pde_train.diagnostics.comparison`."""

Pairs = dict[str, dict[str, Result]]
"""Results by what they share, then by the way of taking derivatives."""


def groups(results: Sequence[Result]) -> dict[str, dict[str, list[Result]]]:
    """Finished results by what they share, then by the way of taking derivatives; seeds of one cell stand together."""
    shared = common(result.words for result in results)
    grouped: dict[str, dict[str, list[Result]]] = {}
    for result in results:
        if not result.is_finished:
            continue
        swept = result.words.swept(shared).without("seed")
        rest = [o.short for o in swept.without("differentiator")]
        label = ", ".join(o.short for o in swept if o.group == "differentiator")
        label = label or result.choices.get("differentiator", "")
        title = ", ".join(rest) or f"{result.choices.get('pde')}, {result.choices.get('model')}"
        grouped.setdefault(title, {}).setdefault(label, []).append(result)
    return grouped


def medians(grouped: Mapping[str, Mapping[str, Sequence[Result]]]) -> Pairs:
    """The same with one result in place of several seeds: the median of each metric over those that have it."""
    return {title: {label: _median(results) for label, results in lines.items()} for title, lines in grouped.items()}


def median_metrics(grouped: Pairs) -> dict[str, float]:
    """The metrics of the parent run of a sweep.

    Args:
        grouped: A result for each group, see `medians`.

    Returns:
        By name: `median/<metric>/<run> <derivatives>` of every group, without the run where there is only one, and
        `least/<metric>`, the least of them.
    """
    named = {
        re.sub(r"[^\w.: -]+", " ", label if len(grouped) == 1 else f"{title} {label}").strip(): result
        for title, lines in grouped.items()
        for label, result in lines.items()
    }
    found: dict[str, float] = {}
    for metric in OF_A_SWEEP:
        values = {name: value for name, r in named.items() if (value := r.metrics.get(metric)) is not None}
        found |= {f"median/{metric}/{name}": value for name, value in values.items()}
        if values and metric in SORTED_BY:
            found[f"least/{metric}"] = min(values.values())
    return found


def _median(results: Sequence[Result]) -> Result:
    if len(results) == 1:
        return results[0]
    names = dict.fromkeys(name for result in results for name in result.metrics)
    numbers = {name: [v for r in results if (v := r.metrics.get(name)) is not None] for name in names}
    counts = Counter(flag for r in results for flag in r.flags.split(", ") if flag)
    flags = ", ".join(f"{flag} {count} of {len(results)}" for flag, count in counts.items()) or "none"
    notes = {**results[0].notes, "flags": flags}
    return replace(results[0], metrics={k: median(v) for k, v in numbers.items() if v}, notes=notes)


def columns_of(grouped: Pairs) -> dict[str, str]:
    """Headings and metrics of a table: COLUMNS, and the numbers that some run has learnt."""
    results = [r for lines in grouped.values() for r in lines.values()]
    learnt = dict.fromkeys(name for r in results for name in r.metrics if name.startswith("number/"))
    return COLUMNS | {name.removeprefix("number/"): name for name in learnt}


def show(grouped: Pairs) -> None:
    """A row a pair; in every cell the ways of taking derivatives stand under each other.

    Where the terminal is too narrow for that: a table a pair, with a row a metric, the ways beside each other.
    """
    console = Console(width=None if sys.stdout.isatty() else WIDE)
    flagged = any(r.flags for lines in grouped.values() for r in lines.values())
    columns = columns_of(grouped)
    wide = Table("run", "derivatives", show_lines=True)
    for heading in columns:
        wide.add_column(heading, justify="right")
    if flagged:
        wide.add_column("flags")
    for title, lines in grouped.items():
        cells = ["\n".join(_number(r.metrics, metric) for r in lines.values()) for metric in columns.values()]
        cells += ["\n".join(r.flags or "-" for r in lines.values())] if flagged else []
        wide.add_row(escape(_rounded(title)), escape("\n".join(lines)), *cells)
    if console.width >= WIDE:
        console.print(wide)
        return
    for title, lines in grouped.items():
        narrow = Table(escape(_rounded(title)), *map(escape, lines))
        for heading, metric in columns.items():
            narrow.add_row(heading, *(_number(r.metrics, metric) for r in lines.values()))
        if flagged:
            narrow.add_row("flags", *(r.flags or "-" for r in lines.values()))
        console.print(narrow)


def _rounded(title: str) -> str:
    """A title with numbers of many digits, which a search chooses, in four; the files have all."""
    return re.sub(r"\d+\.\d{7,}(e[+-]?\d+)?", lambda number: f"{float(number[0]):.4g}", title)


def learnt_numbers(result: Result) -> list[str]:
    """A line for each number that a run has learnt, with its confidence interval where there is one."""
    found = []
    for metric, value in result.metrics.items():
        kind, _, name = metric.partition("/")
        if kind == "number" and value is not None:
            lower, upper = (result.metrics.get(f"interval/{name}/{end}") for end in ("lower", "upper"))
            between = "" if lower is None or upper is None else f", between {lower:.6g} and {upper:.6g} with 95 %"
            found.append(f"{name} = {value:.6g}{between}")
    return found


def markdown_table(grouped: Pairs) -> str:
    """The same for the page of the parent run: a row a run; nothing where no run is finished."""
    if not grouped:
        return ""
    columns = columns_of(grouped)
    lines = [f"| run | derivatives | {' | '.join(columns)} | flags |", "|" + "---|" * (len(columns) + 3)]
    for title, results in grouped.items():
        for label, result in results.items():
            cells = [*(_number(result.metrics, metric) for metric in columns.values()), result.flags or "-"]
            lines.append(f"| {title} | {label} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def markdown_unfinished(results: Sequence[Result], most: int) -> str:
    """The cells that did not finish, why and where they lie, for the same page; nothing where all did."""
    others = [r for r in results if not r.is_finished]
    if not others:
        return ""
    lines = ["", f"**{len(others)} of {len(results)} cells are not finished**", ""]
    lines += ["| state | cell | folder | why |", "|---|---|---|---|"]
    for result in others[:most]:
        words = (" ".join(result.overrides), result.folder.name if result.folder else "", result.error or "")
        overrides, name, why = (" ".join(text.split()).replace("|", "\\|") for text in words)
        lines.append(f"| {result.status} | `{overrides}` | `cells/{name}` | {why} |")
    if len(others) > most:
        lines += ["", f"... and {len(others) - most} more: `python -m pde_train.status`"]
    return "\n".join(lines) + "\n"


def csv_table(grouped: Mapping[str, Mapping[str, Sequence[Result]]]) -> str:
    """Every cell with every digit, as csv text: what was swept, the numbers, how it ended; the folder has all else."""
    every = [cell for results in grouped.values() for cells in results.values() for cell in cells]
    learnt = dict.fromkeys(n for cell in every for n in cell.metrics if n.startswith(("number/", "interval/")))
    columns = [*COLUMNS.values(), *learnt]
    shared = common(cell.words for cell in every)
    swept = dict.fromkeys(word.key for cell in every for word in cell.words.swept(shared) if word.key != "seed")
    rows: list[list[object]] = []
    for title, results in grouped.items():
        for label, cells in results.items():
            for cell in cells:
                numbers = [cell.metrics.get(metric) for metric in columns]
                chosen = [cell.words.value_of(key) for key in ("seed", *swept)]
                ended = [cell.status, cell.flags, cell.config_hash, cell.folder]
                rows.append([title, label, *chosen, *numbers, *ended])
    heading = ["run", "derivatives", "seed", *swept, *columns, "status", "flags", "config_hash", "folder"]
    return csv_text(heading, rows)


def show_comparison(comparison: Comparison) -> None:
    """A row a differentiator; where the terminal is too narrow for all columns, the others in further tables."""
    console = Console(width=None if sys.stdout.isatty() else WIDE)
    columns = _comparison_columns(comparison)
    widths = [max(map(len, [heading, *cells])) + 3 for heading, cells in columns.items()]
    names, *others = columns
    while others:
        count = max(1, sum(w < console.width for w in accumulate(widths)) - 1)
        table = Table(names, *(Column(heading, justify="right", no_wrap=True) for heading in others[:count]))
        for row in zip(columns[names], *(columns[heading] for heading in others[:count]), strict=True):
            table.add_row(*map(escape, row))
        console.print(table)
        others, widths = others[count:], [widths[0], *widths[1 + count :]]


def csv_comparison(comparison: Comparison) -> str:
    """Every number of a comparison, as csv text: a row a differentiator."""
    quantities = sorted({quantity for numbers in comparison.values() for quantity in numbers})
    rows = [[name, *map(numbers.get, quantities)] for name, numbers in comparison.items()]
    return csv_text(["differentiator", *quantities], rows)


def csv_text(heading: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Rows as csv text; numbers with all their digits, None as nothing."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heading)
    writer.writerows(rows)
    return text.getvalue()


def _comparison_columns(comparison: Comparison) -> dict[str, list[str]]:
    """Cells by heading; a number that a differentiator has not is a dash."""
    errors = sorted({q for numbers in comparison.values() for q in numbers if q.startswith("error/")})
    cells_by_heading = {"derivatives": list(comparison)}
    columns: list[tuple[str, str, Callable[[float], str]]] = [
        *((f"error of {e.removeprefix('error/')}", e, "{:.1e}".format) for e in errors),
        ("residual", "residual", "{:.3g}".format),
        ("1 - cosine", "gradient_cosine", lambda v: f"{max(0.0, 1 - v):.1e}"),
        ("|gradient| - 1", "gradient_ratio", lambda v: f"{v - 1:+.1e}"),
        ("s_min", "spectrum/min", "{:.1e}".format),
        ("#>1e-12", "spectrum/count/1e-12", "{:.0f}".format),
        ("H_A(1e-8)", "entropy/1e-08", "{:.4f}".format),
        ("ms", "seconds", lambda v: f"{1e3 * v:.2f}"),
        ("MB", "memory", lambda v: f"{v / 1e6:.2f}"),
    ]
    for heading, quantity, cell in columns:
        values = [numbers.get(quantity) for numbers in comparison.values()]
        cells_by_heading[heading] = ["-" if v is None or math.isnan(v) else cell(v) for v in values]
    return cells_by_heading


def _number(metrics: Mapping[str, float | None], metric: str) -> str:
    value = metrics.get(metric)
    if value is None or math.isnan(value):
        return "-"
    if metric.startswith("spectrum/count"):
        return f"{value:.0f}"
    if metric == "seconds":
        return f"{value:.2f}"
    if metric.startswith("entropy/"):
        return f"{value:.4f}"
    return f"{value:.3g}"
