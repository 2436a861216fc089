"""Time of one optimisation step, as a ratio over a hand-written loop of the same round.

Every measurement is a process of its own, one after another, in turns.
`make bench-references` installs the other libraries; what is not there is left out. On a GPU, such as
`python -m benchmarks.steps --device cuda --precision float32 --here`, they may be those of this interpreter, and one
round before the others compiles what is kept on disk.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import results
from benchmarks.references.measure import DEVICES
from benchmarks.references.problems import PROBLEMS
from benchmarks.results import ROOT

LIMIT = 600
"""Seconds after which a measurement is given up."""

PRODUCT = "differentiator=finite_difference", "accelerator=ddp"
"""Further rows of the product."""

JAX_ON_GPU = {
    "JAX_PLATFORMS": "cuda",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    "JAX_COMPILATION_CACHE_DIR": f"{tempfile.gettempdir()}/pde_train-jax",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
}
"""Memory as it is used, and compiled code that the first round leaves to the others."""

COLUMNS = "problem", "who", "version", "variant", "rounds", "ms per step", "ratio", "min", "max", "peak MB"

Cells = dict[tuple[str, str], list[dict[str, Any]]]
"""What the rounds printed, by (who, problem); a `ratio` over the loop of the same round is added."""


@dataclass(frozen=True)
class Machine:
    """On what, and with what, is measured.

    seconds: Of the repeats of one measurement together.
    here: The other libraries are those of this interpreter, instead of those in `.bench`.
    """

    threads: int
    device: str
    precision: str
    seconds: float
    here: bool

    def __str__(self) -> str:
        if self.device == "cuda":
            import torch

            return f"{torch.cuda.get_device_name()}, {self.precision}"
        return f"{self.threads} thread{'s' if self.threads > 1 else ''}"

    @property
    def ahead(self) -> int:
        """Processes that start while one measures: beside a GPU they do not disturb it."""
        return 6 if self.device == "cuda" else 0

    @property
    def environment(self) -> dict[str, str]:
        """Variables by which libraries that choose a device by themselves choose this one."""
        if self.device == "cuda":
            return {**os.environ, **JAX_ON_GPU}
        return {**os.environ, "JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}


def python_of(library: str, here: bool = False) -> Path:
    """The interpreter of the environment of a library, or this one."""
    if library in ("loop", "product") or here:
        return Path(sys.executable)
    return ROOT / ".bench" / library / "bin" / "python"


def command(who: str, problem: str, on: Machine) -> list[str]:
    """How to measure `library`, `library:variant` or `product key=value ...` on a problem."""
    library, *words = who.split()
    library, _, variant = library.partition(":")
    places = {"loop": "benchmarks.references.loop", "product": "benchmarks.product_steps"}
    module = places.get(library, f"benchmarks.references.{library}_steps")
    base = [str(python_of(library, on.here)), "-m", module, "--wait", "--problem", problem]
    base += ["--threads", str(on.threads), "--seconds", str(on.seconds)]
    base += ["--device", on.device, "--precision", on.precision]
    return [*base, *(["--variant", variant] if variant else []), *(["--", *words] if words else [])]


class Measurement:
    """A process that measures, which has imported what it needs when it is asked."""

    def __init__(self, who: str, problem: str, on: Machine):
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command(who, problem, on), cwd=ROOT, env=on.environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True
        )

    def go(self) -> None:
        """Begin to measure."""
        if self.process.stdin is not None:
            self.process.stdin.close()
            self.process.stdin = None

    def line(self) -> dict[str, Any] | str:
        """The line that the script printed, or why there is none."""
        self.go()
        try:
            printed, said = self.process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            self.end()
            return f"no answer within {LIMIT} s"
        if self.process.returncode:
            return (said.strip().splitlines() or ["no message"])[-1]
        line: dict[str, Any] = json.loads(printed.splitlines()[-1])
        return line

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def rounds(whose: Sequence[str], problems: Sequence[str], on: Machine, count: int) -> Cells:
    """Measure everything `count` times, in turns, so that noise hits all alike; until somebody presses Ctrl-C."""
    cells: Cells = defaultdict(list)
    turns = deque(itertools.product(range(1, count + 1), problems, whose))
    ahead: deque[tuple[tuple[int, str, str], Measurement]] = deque()
    failed: set[tuple[str, str]] = set()
    try:
        if on.device == "cuda":
            compile_all(whose, problems, on)
        while turns or ahead:
            while turns and len(ahead) <= on.ahead:
                number, problem, who = turns.popleft()
                if (who, problem) not in failed:
                    ahead.append(((number, problem, who), Measurement(who, problem, on)))
            if not ahead:
                break
            (number, problem, who), measurement = ahead[0]
            line = measurement.line()
            ahead.popleft()
            if isinstance(line, str):
                failed.add((who, problem))
                print(f"{who} on {problem}: {line}", file=sys.stderr)
                continue
            line["seconds"], line["round"] = statistics.median(line["seconds_per_step"]), number
            loops = [other["seconds"] for other in cells["loop", problem] if other["round"] == number]
            if who != "loop" and not loops:
                continue
            line["ratio"] = line["seconds"] / (loops or [line["seconds"]])[0]
            cells[who, problem].append(line)
            print(f"round {number}, {problem}, {who}: {line['seconds']:.3e} s, ratio {line['ratio']:.3f}", flush=True)
    except KeyboardInterrupt:
        print("stopped: what was measured so far is kept", file=sys.stderr)
    finally:
        for _, measurement in ahead:
            measurement.end()
    return cells


def compile_all(whose: Sequence[str], problems: Sequence[str], on: Machine) -> None:
    """Measure everything at the same time, for the compiled code that is kept."""
    every = [Measurement(who, problem, on) for who, problem in itertools.product(whose, problems)]
    for measurement in every:
        measurement.go()
    for measurement in every:
        measurement.line()


def show(cells: Cells, whose: Sequence[str], problems: Sequence[str]) -> None:
    """Print the table of ratios: median (min ... max)."""
    table = Table("time of a step over the loop's", *problems)
    for who in whose:
        found = {p: [line["ratio"] for line in cells.get((who, p), [])] for p in problems}
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
        lines.append([*words, max(line["peak_mb"] for line in found)])
    return results.table(COLUMNS, lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, write the section of the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(PROBLEMS), help="problems: S1,S3")
    parser.add_argument(
        "--libraries", default="deepxde,pina,neurodiffeq,jax,product", help="beside the loop: jax,jax:jet_loop,product"
    )
    parser.add_argument("--product", action="append", help="a further row of the product: its overrides; '' for none")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=DEVICES, default="cpu")
    parser.add_argument("--precision", choices=("float64", "float32"), default="float64")
    parser.add_argument("--seconds", type=float, default=2.0, help="of the repeats of one measurement together")
    parser.add_argument("--here", action="store_true", help="the other libraries are those of this interpreter")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--results", type=Path, default=results.RESULTS)
    given = parser.parse_args(arguments)
    problems, asked = given.only.split(","), [name for name in given.libraries.split(",") if name != "loop"]
    on = Machine(given.threads, given.device, given.precision, given.seconds, given.here)
    there = [name for name in asked if python_of(name.partition(":")[0], on.here).exists()]
    for name in set(asked) - set(there):
        print(f"{name} is not installed: make bench-references", file=sys.stderr)
    further = PRODUCT if given.product is None else filter(None, given.product)
    whose = ["loop", *there, *(f"product {words}" for words in further)]
    cells = rounds(whose, problems, on, given.rounds)
    show(cells, whose, problems)
    ratio = "The ratio is over the hand-written loop (`references/loop.py`) of the same round."
    results.put(f"Time of a step, {on}", "python -m benchmarks.steps", f"{ratio}\n\n{rows(cells)}", given.results)


if __name__ == "__main__":
    main()
