"""pde_train itself in the step-time benchmark: composed, built and run in this process; overrides come after `--`.

A run as a user has it: Lightning, the record of every loss, errors and checkpoints every 1000 steps. A
diagnostic reads the clock at some steps of it, so that everything between them counts.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir

from benchmarks.references import measure
from benchmarks.references.problems import LEARNING_RATE, PROBLEMS, Problem
from pde_train import __version__
from pde_train.conf_dir import conf_dir
from pde_train.diagnostics.base import Diagnostics
from pde_train.experiment import build
from pde_train.runs.run import run

PDES = {
    "S1": "poisson_1d",
    "S2": "poisson_2d",
    "S3": "biharmonic_1d",
    "S4": "biharmonic_2d",
    "S5": "burgers_1d",
}

PLACES = {"cpu": "cpu", "cuda": "gpu"}
"""Our words for a device."""


def overrides(problem: Problem, threads: int) -> list[str]:
    """The problem in the product's words."""
    initial = [f"sampler.initial={problem.initial}"] if problem.initial else []
    return [
        *("name=steps", "tracking=none", "diagnostics=none", "sampler=uniform", "optimizer=adam"),
        f"pde={PDES[problem.name]}",
        *("model=mlp", f"model.hidden={list(problem.hidden)}".replace(" ", "")),
        *(f"sampler.interior={problem.interior}", f"sampler.boundary={problem.boundary}", *initial),
        *(f"optimizer.lr={LEARNING_RATE}", f"accelerator.threads={threads}"),
        *("differentiator=taylor", "method.compile=always", "method.log_every=1000"),
    ]


@dataclass(frozen=True)
class Clock(Diagnostics):
    """The time at every so many steps."""

    every: int
    times: list[float] = field(default_factory=list)

    def steps(self, total: int) -> frozenset[int]:
        return frozenset(range(self.every, total + 1, self.every))

    def measure(self, *_: Any, **__: Any) -> None:
        self.times.append(time.perf_counter())


def trained(words: list[str], every: int, intervals: int) -> tuple[list[float], tuple[float, float], str]:
    """Seconds a step in each interval of `every` steps after the first, an early and the last loss, how it was done."""
    clock = Clock(every)
    experiment = build(compose("config", [*words, f"method.steps={every * (intervals + 1)}"]))
    with tempfile.TemporaryDirectory() as folder:
        record = run(replace(experiment, diagnostics=clock), Path(folder))
    losses = record.series["loss"]
    seconds = [(after - before) / every for before, after in zip(clock.times, clock.times[1:], strict=False)]
    return seconds, (losses[0], losses[max(losses)]), record.tags["steps"].partition(":")[0]


def main() -> None:
    """Measure, with what the command line says after `--` on top."""
    mark = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    sys.argv, further = sys.argv[:mark], sys.argv[mark + 1 :]
    given = measure.arguments("pde_train", ["default"], repeats=5)
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")
    measure.wait(given)
    place = [f"accelerator.accelerator={PLACES[given.device]}", f"accelerator.precision={given.precision}"]
    words = [*place, *overrides(PROBLEMS[given.problem], given.threads), *further]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        once = min(trained(words, 5, 3)[0])
        every = given.steps or max(5, round(given.seconds / given.repeats / once))
        seconds, losses, given.variant = trained(words, every, given.repeats)
    measure.report("pde_train", __version__, given, seconds, every, losses)


if __name__ == "__main__":
    main()
