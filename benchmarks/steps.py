"""Time of one optimisation step, as a ratio over a hand-written loop of the same round.

Every measurement is a process of its own, one after another, in turns.
`make bench-references` installs the other libraries; what is not there is left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import results
from benchmarks.references.problems import PROBLEMS
from benchmarks.results import ROOT

LIMIT = 600
"""Seconds after which a measurement is given up."""

PRODUCT = "differentiator=finite_difference", "accelerator=ddp"
"""Further rows of the product."""

COLUMNS = "problem", "who", "version", "variant", "rounds", "ms per step", "ratio", "min", "max", "peak MB"

Cells = dict[tuple[str, str], list[dict[str, Any]]]
"""What the rounds printed, by (who, problem); a `ratio` over the loop of the same round is added."""


def python_of(library: str) -> Path:
    """The interpreter of the environment of a library."""
    if library in ("loop", "product"):
        return Path(sys.executable)
    return ROOT / ".bench" / library / "bin" / "python"


def command(who: str, problem: str, threads: int) -> list[str]:
    """How to measure `library`, `library:variant` or `product key=value ...` on a problem."""
    library, *words = who.split()
    library, _, variant = library.partition(":")
    places = {"loop": "benchmarks.references.loop", "product": "benchmarks.product_steps"}
    module = places.get(library, f"benchmarks.references.{library}_steps")
    base = [str(python_of(library)), "-m", module, "--problem", problem, "--threads", str(threads)]
    return [*base, *(["--variant", variant] if variant else []), *(["--", *words] if words else [])]


def measure(who: str, problem: str, threads: int) -> dict[str, Any] | str:
    """The line that the script printed, or why there is none."""
    try:
        done = subprocess.run(
            command(who, problem, threads), cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {LIMIT} s"
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["no message"])[-1]
    printed: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return printed


def rounds(whose: Sequence[str], problems: Sequence[str], threads: int, count: int) -> Cells:
    """Measure everything `count` times, in turns, so that noise hits all alike."""
    cells: Cells = defaultdict(list)
    failed: set[tuple[str, str]] = set()
    for number in range(count):
        for problem in problems:
            loop = 0.0
            for who in whose:
                if (who, problem) in failed:
                    continue
                line = measure(who, problem, threads)
                if isinstance(line, str):
                    failed.add((who, problem))
                    print(f"{who} on {problem}: {line}", file=sys.stderr)
                    if who == "loop":
                        break
                    continue
                line["seconds"] = statistics.median(line["seconds_per_step"])
                loop = loop or line["seconds"]
                line["ratio"] = line["seconds"] / loop
                cells[who, problem].append(line)
                print(f"round {number + 1}, {problem}, {who}: {line['seconds']:.3e} s, ratio {line['ratio']:.3f}")
    return cells


def show(cells: Cells, whose: Sequence[str], problems: Sequence[str]) -> None:
    """Print the table of ratios: median (min ... max)."""
    table = Table("time of a step over the loop's", *problems)
    for who in whose:
        found = {p: [line["ratio"] for line in cells[who, p]] for p in problems}
        table.add_row(
            who,
            *(f"{statistics.median(r):.2f} ({min(r):.2f} ... {max(r):.2f})" if r else "-" for r in found.values()),
        )
    Console(width=140).print(table)


def rows(cells: Cells) -> str:
    """Every number, as a table in Markdown."""
    lines = []
    for (who, problem), found in sorted(cells.items(), key=lambda item: item[0][1]):
        ratios = [line["ratio"] for line in found]
        milliseconds = 1000 * statistics.median(line["seconds"] for line in found)
        words = [problem, who, found[0]["version"], found[0]["variant"], len(found), f"{milliseconds:.4g}"]
        words += [f"{number:.3f}" for number in (statistics.median(ratios), min(ratios), max(ratios))]
        lines.append([*words, max(line["peak_rss_mb"] for line in found)])
    return results.table(COLUMNS, lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, write the section of the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(PROBLEMS), help="problems: S1,S3")
    parser.add_argument(
        "--libraries", default="deepxde,pina,neurodiffeq,jax,product", help="beside the loop: jax,jax:jet_loop,product"
    )
    parser.add_argument("--product", action="append", help="a further row of the product: its overrides")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--results", type=Path, default=results.RESULTS)
    given = parser.parse_args(arguments)
    problems, asked = given.only.split(","), [name for name in given.libraries.split(",") if name != "loop"]
    there = [name for name in asked if python_of(name.partition(":")[0]).exists()]
    for name in set(asked) - set(there):
        print(f"{name} is not installed: make bench-references", file=sys.stderr)
    whose = ["loop", *there, *(f"product {words}" for words in given.product or PRODUCT)]
    cells = rounds(whose, problems, given.threads, given.rounds)
    show(cells, whose, problems)
    threads = f"{given.threads} thread{'s' if given.threads > 1 else ''}"
    ratio = "The ratio is over the hand-written loop (`references/loop.py`) of the same round."
    results.put(f"Time of a step, {threads}", "python -m benchmarks.steps", f"{ratio}\n\n{rows(cells)}", given.results)


if __name__ == "__main__":
    main()
