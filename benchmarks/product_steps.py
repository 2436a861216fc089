"""pde_train itself in the step-time benchmark: composed, built and run in this process; overrides come after `--`."""

from __future__ import annotations

import logging
import sys
import tempfile
import warnings
from pathlib import Path

from hydra import compose, initialize_config_dir

from benchmarks.references import measure
from benchmarks.references.problems import LEARNING_RATE, Problem
from pde_train import __version__
from pde_train.conf_dir import conf_dir
from pde_train.experiment import build, run

PDES = {
    "S1": "poisson_1d",
    "S2": "poisson_2d",
    "S3": "biharmonic_1d",
    "S4": "biharmonic_2d",
    "S5": "burgers_1d",
}


def overrides(problem: Problem, threads: int) -> list[str]:
    """The problem in the product's words."""
    initial = [f"sampler.initial={problem.initial}"] if problem.initial else []
    return [
        *("name=steps", "tracking=none", "diagnostics=none", "sampler=uniform", "optimizer=adam"),
        f"pde={PDES[problem.name]}",
        *("model=mlp", f"model.hidden={list(problem.hidden)}".replace(" ", "")),
        *(f"sampler.interior={problem.interior}", f"sampler.boundary={problem.boundary}", *initial),
        *(f"optimizer.lr={LEARNING_RATE}", f"accelerator.threads={threads}"),
    ]


def main() -> None:
    """Measure, with what the command line says after `--` on top."""
    mark = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    sys.argv, further = sys.argv[:mark], sys.argv[mark + 1 :]
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")

    def prepared(task: measure.Task) -> measure.Train:
        words = [*overrides(task.problem, task.threads), *further]

        def train(steps: int) -> float:
            experiment = build(compose("config", [*words, f"method.steps={steps}"]))
            with tempfile.TemporaryDirectory() as folder:
                losses = run(experiment, Path(folder)).series["loss"]
            return losses[max(losses)]

        return train

    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        measure.main("pde_train", __version__, prepared, repeats=1)


if __name__ == "__main__":
    main()
