"""The tables that a run and a sweep end with."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pde_train.results import Result

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

WIDE = 140
"""Characters that a terminal must have for the wide table, and that it gets where there is no terminal."""

Comparison = Mapping[str, Mapping[str, float]]
"""Numbers by differentiator and by quantity, see `pde_train.comparison`."""

Pairs = dict[str, dict[str, Result]]
"""Results by what they share, then by the way of taking derivatives."""


def pairs(results: Sequence[Result]) -> Pairs:
    """Finished results grouped so that those which differ only in the differentiator stand together."""
    everywhere = set.intersection(*(set(r.overrides) for r in results)) if results else set()
    grouped: Pairs = {}
    for result in results:
        if result.status != "finished":
            continue
        swept = [o for o in result.overrides if o not in everywhere]
        how = [o for o in swept if o.startswith("differentiator")]
        rest = [_short(o) for o in swept if o not in how]
        label = ", ".join(_short(o) for o in how) or result.choices.get("differentiator", "")
        grouped.setdefault(", ".join(rest) or f"{result.choices.get('pde')}, {result.choices.get('model')}", {})[
            label
        ] = result
    return grouped


def show(grouped: Pairs) -> None:
    """A row a pair; in every cell the ways of taking derivatives stand under each other.

    Where the terminal is too narrow for that: a table a pair, with a row a metric, the ways beside each other.
    """
    console = Console(width=None if sys.stdout.isatty() else WIDE)
    wide = Table("run", "derivatives", show_lines=True)
    for heading in COLUMNS:
        wide.add_column(heading, justify="right")
    for title, lines in grouped.items():
        cells = ["\n".join(_number(r.metrics, metric) for r in lines.values()) for metric in COLUMNS.values()]
        wide.add_row(escape(title), escape("\n".join(lines)), *cells)
    if console.width >= WIDE:
        console.print(wide)
        return
    for title, lines in grouped.items():
        narrow = Table(escape(title), *map(escape, lines))
        for heading, metric in COLUMNS.items():
            narrow.add_row(heading, *(_number(r.metrics, metric) for r in lines.values()))
        console.print(narrow)


def markdown_table(grouped: Pairs) -> str:
    """The same for the page of the parent run: a row a run."""
    lines = [f"| run | derivatives | {' | '.join(COLUMNS)} |", "|" + "---|" * (len(COLUMNS) + 2)]
    for title, results in grouped.items():
        for label, result in results.items():
            cells = [_number(result.metrics, metric) for metric in COLUMNS.values()]
            lines.append(f"| {title} | {label} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def csv_table(grouped: Pairs) -> str:
    """The same with every digit, as csv text."""
    lines = [",".join(["run", "derivatives", *COLUMNS.values()])]
    for title, results in grouped.items():
        for label, result in results.items():
            values = [result.metrics.get(metric) for metric in COLUMNS.values()]
            lines.append(",".join([f'"{title}"', f'"{label}"', *("" if v is None else repr(v) for v in values)]))
    return "\n".join(lines) + "\n"


def show_comparison(comparison: Comparison) -> None:
    """A row a differentiator."""
    headings, rows = _comparison_cells(comparison)
    found = Table()
    for i, heading in enumerate(headings):
        found.add_column(heading, justify="right" if i else "left", no_wrap=not i)
    for row in rows:
        found.add_row(*row)
    Console(width=None if sys.stdout.isatty() else WIDE).print(found)


def csv_comparison(comparison: Comparison) -> str:
    """Every number of a comparison, as csv text: a row a differentiator."""
    quantities = sorted({quantity for numbers in comparison.values() for quantity in numbers})
    lines = [",".join(["differentiator", *quantities])]
    for name, numbers in comparison.items():
        lines.append(",".join([name, *(repr(numbers[q]) if q in numbers else "" for q in quantities)]))
    return "\n".join(lines) + "\n"


def _comparison_cells(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    errors = sorted({q for numbers in comparison.values() for q in numbers if q.startswith("error/")})
    columns: dict[str, Callable[[Mapping[str, float]], str]] = {
        **{f"error of {e.removeprefix('error/')}": lambda n, e=e: f"{n[e]:.1e}" for e in errors},  # type: ignore[misc]
        "residual": lambda n: f"{n['residual']:.3g}",
        "1 - cosine": lambda n: f"{max(0.0, 1 - n['gradient_cosine']):.1e}",
        "|gradient| - 1": lambda n: f"{n['gradient_ratio'] - 1:+.1e}",
        "s_min": lambda n: f"{n['spectrum/min']:.1e}",
        "#>1e-12": lambda n: f"{n['spectrum/count/1e-12']:.0f}",
        "H_A(1e-8)": lambda n: f"{n['entropy/1e-08']:.4f}" if "entropy/1e-08" in n else "-",
        "ms": lambda n: f"{1e3 * n['seconds']:.2f}",
        "MB": lambda n: f"{n['memory'] / 1e6:.2f}",
    }
    rows = [[escape(name), *(cell(numbers) for cell in columns.values())] for name, numbers in comparison.items()]
    return ["derivatives", *columns], rows


def _short(override: str) -> str:
    """`model.activation=tanh` as `activation=tanh`, `pde=poisson_1d` as `poisson_1d`."""
    key, _, value = override.lstrip("+").partition("=")
    return value if "." not in key and key != "seed" else f"{key.rpartition('.')[2]}={value}"


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
