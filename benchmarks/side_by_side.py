"""The section "Side by side" of `benchmarks/ACCURACY.md`, from the runs of `benchmarks/accuracy_references.py`."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

RESULTS = Path(__file__).with_name("accuracy_references.jsonl")
BUDGETS = {"poisson_2d": (15, 30, 60), "beam": (15, 30)}
"""CPU seconds after which errors are read, by problem."""
TITLES = {
    "poisson_2d": "Poisson 2D, 2-64-1 tanh, 900 + 120 points",
    "beam": "biharmonic 1D, 1-50-1 tanh, 200 + 2 points",
}
WHO = {
    "pde_train ssbroyden": "SSBroyden; a step is one evaluation",
    "pde_train ssbroyden again": "the same, compiled by an earlier run",
    "scimba ssbroyden": "SS-Broyden",
    "scimba ssbroyden_restarted": "the same, H = I after each loss that is not finite",
    "jinns ssbroyden": "SSBroyden",
    "jinns natural_gradient": "natural gradient, regularisation 1e-5 (default)",
    "deepxde lbfgs": "500 steps of Adam, then L-BFGS",
    "pina lbfgs": "500 steps of Adam, then L-BFGS",
    "scimba ssbroyden own": "SS-Broyden, its own initial weights",
    "jinns natural_gradient_small own": "natural gradient, regularisation 1e-10, its own initial weights",
}
"""Library, method, and who draws the initial weights, with what they are."""
OF = {
    "poisson_2d": list(WHO),
    "beam": [who for who in WHO if "natural" not in who and not who.endswith("own")],
}
"""What is run of a problem."""


def results(file: Path = RESULTS) -> list[dict[str, Any]]:
    """Everything that was run, from a file with one run a line."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def spread(values: list[float]) -> str:
    """Median (smallest ... largest)."""
    return f"**{median(values):.1e}** ({min(values):.1e} ... {max(values):.1e})"


def row(who: str, runs: list[dict[str, Any]], budgets: tuple[int, ...]) -> str:
    """A line of the table."""
    good = [run for run in runs if "failed" not in run]
    seeds = f"{len(good)}" + (f", {len(runs) - len(good)} failed" if len(good) < len(runs) else "")
    library = who.partition(" ")[0]
    if not good:
        return f"| {library} | {WHO[who]} | {seeds} |{' - |' * (len(budgets) + 2)}"
    errors = [spread([float(run["errors"][str(budget)]) for run in good]) for budget in budgets]
    ended = sorted({f"{run['stopped']:.0f}" for run in good if run.get("stopped")}, key=int)
    count = sum(bool(run.get("stopped")) for run in good)
    stopped = f"{count} of {len(good)} after {' to '.join(dict.fromkeys((ended[0], ended[-1])))} s" if ended else "-"
    steps = f"{median(run['steps'] for run in good):.0f}"
    return f"| {library} {good[0]['version']} | {WHO[who]} | {seeds} | {' | '.join(errors)} | {steps} | {stopped} |"


def section() -> str:
    """The section; nothing where nothing was run."""
    found = results()
    if not found:
        return ""
    lines = ["", "## Side by side", "", *TEXT.strip().splitlines()]
    for problem, budgets in BUDGETS.items():
        runs = {who: [r for r in found if (r["problem"], r["who"]) == (problem, who)] for who in WHO}
        if not any(runs.values()):
            continue
        lines += [
            "",
            f"### {TITLES[problem]}",
            "",
            f"| library | method | seeds | {' | '.join(f'{budget} CPU s' for budget in budgets)} | steps | ended |",
            f"|---|---|---|{'---|' * (len(budgets) + 2)}",
            *(row(who, of, budgets) for who, of in runs.items() if of),
        ]
    return "\n".join(lines) + "\n"


TEXT = """
Our own package and other libraries on one machine, one run after another. Written by
`make accuracy-references`; every run stands in `accuracy_references.jsonl`, versions of JAX and torch in
`references/requirements-*.txt`. Relative L2 errors in float64 on 101 x 101 or 1001 test points after so many
CPU seconds of one core: median (smallest ... largest) over the seeds.
Seconds are counted from the built problem on, as above: tracing, compilation and measurements of the error are
part of them. An error is the first one that was measured after so many seconds; where compilation takes longer
than that, it is the error after compilation and the first steps. Other programs ran on the machine meanwhile.

**Equal:** the equation, the network, its initial weights (Glorot uniform, biases 0; our side draws them), the
training points (our side draws them, and they stay), and the loss, which is the mean of the squared residual in
the interior plus the mean of u^2 on the boundary, plus the mean of u''^2 there for the beam, all with weight 1.
Conditions are soft. Each script must have our loss at the initial weights up to a relative 1e-10, or its run
does not count. In rows with "its own initial weights" the library draws these itself, as it does by default,
from the same seed.

**Not equal:**

- What a step is: one evaluation of loss and gradient in our package, one iteration with one or more evaluations
  elsewhere.
- Derivatives: compiled Taylor mode in our package, nested forward mode in Scimba and jinns, nested reverse mode
  in DeepXDE and PINA.
- Compilation: our package compiles C++ code and keeps it for later runs, which therefore have a row of their
  own. Scimba and jinns compile with XLA, without JAX's persistent cache, which is off by default. DeepXDE and
  PINA compile nothing.
- Settings other than a library's defaults, so that the tasks are equal: Scimba draws new points in each step
  (here they stay) and gives the boundary the weight 10 (here 1). jinns adds up the mean squares of the faces of
  the boundary (here with the weight 1 / number of faces).
- Settings other than a library's defaults, for the sake of the library: DeepXDE and PINA have L-BFGS with a
  history of 100, a strong Wolfe search, tolerances of 0, and 25 iterations in a step, after which the error is
  measured.
- Networks: Scimba returns the best network so far, all others the last one.

A run that met a loss or a parameter that is not finite has ended by itself ("ended"). Its last finite error
then stands for the later seconds. The restarts of Scimba with H = I are an addition of its script; jinns has
none, because each call of its `solve` compiles anew. Our package restarts by itself.
"""
