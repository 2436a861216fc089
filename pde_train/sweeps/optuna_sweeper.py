"""A search in place of a grid: Optuna chooses the cells, trial by trial, from what the earlier ones came to.

`search.db` in the folder of the search, a storage of Optuna, keeps the trials that have ended. A sampler gets its seed
anew before each choice, so that the same trials before it make the same choice: a search that was stopped asks for the
same cells again, whose folders know how far they are.
"""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from omegaconf import open_dict

from pde_train.errors import Busy, RunError, UsageError
from pde_train.overrides import Overrides
from pde_train.run_folder import Status, lock
from pde_train.runs.result import Result
from pde_train.sweeps import compose
from pde_train.sweeps.grid import Cell, Grid
from pde_train.sweeps.search_space import Space
from pde_train.sweeps.sweeper import CellSweeper

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

    from pde_train.schema import Search
    from pde_train.sweeps.report import Report

STORAGE = "search.db"
"""Optuna's storage, in the folder of a search."""

BOUNDS = "bounds.json"
"""The numbers by which runs are pruned, beside it."""

PERCENT = {"median": 50, "quarter": 25}
"""The percentile of the finished trials that is the bound of a pruner."""

WITHOUT_ERRORS = ("loss", "residual", "residual_exact", "residual_held_out", "seconds", "seconds_total", "steps")
"""Metrics of every run that takes steps; others without a slash are errors."""

log = logging.getLogger(__name__)


class OptunaSweeper(CellSweeper):
    """Trains the cells that Optuna chooses, see `CellSweeper`.

    Args:
        params: What is searched by key, as the command line has it; words of the command line win.
        options: The other keys of `conf/hydra/sweeper/optuna.yaml`, which `pde_train.schema` checks.
    """

    options: Search
    space: Space
    objective: str

    def __init__(self, params: dict[str, Any] | None = None, **options: Any):
        super().__init__(params)

    def train(self, words: Sequence[str]) -> None:
        from pde_train.schema import check_search

        try:
            import optuna
        except ImportError as error:
            raise UsageError(
                f"hydra/sweeper=optuna needs Optuna ({error}): expected it, pip install 'pde_train[optuna]'"
            ) from error
        optuna.logging.set_verbosity(optuna.logging.ERROR)  # the sweep says itself what it does
        self.options = check_search(self.config)
        if self.config.sweep.optional:
            raise UsageError(
                f"?{self.config.sweep.optional[0]} is for the cells of a grid: expected a key that every trial has "
                "without the ?, or hydra/sweeper=grid"
            )
        self.space = Space.of(words, self.options.average, self.hydra_context.config_loader)
        (first, *_), *_ = self._trials([self.space.first])
        self.refuse_unused(cell for params in self.space.choices for (cell, *_) in self._trials([params]))
        self.objective = self._objective(first)
        folder = self.sweeps / f"{self.title('search')}-{self._name(first)}"
        with lock(folder) as mine:
            if not mine:
                raise Busy(folder)
            if self.config.sweep.fresh:
                (folder / STORAGE).unlink(missing_ok=True)
            study = optuna.create_study(
                storage=f"sqlite:///{folder / STORAGE}",
                study_name=folder.name,
                direction=self.options.direction,
                load_if_exists=True,
            )
            shared = frozenset(Overrides.parse(self.space.fixed))
            earlier = [cell for trial in self._trials([t.params for t in study.trials]) for cell in trial]
            grid = _with(Grid(self.title("search"), [], folder, shared), earlier)
            with self.reported(grid, loaded=[first]) as report:
                self._search(study, report)

    def _search(self, study: Study, report: Report) -> None:
        """Train batch after batch until there are as many trials as were asked for."""
        report.complete = False
        report.remark = self._remark(study)
        while (count := len(study.trials)) < self.options.trials:
            chosen = self._chosen(study, min(self.options.at_once, self.options.trials - count))
            batch = self._trials(chosen)
            own = [cell for cells in batch for cell in cells]
            before = {cell.name for cell in report.grid.cells}
            report.grid = _with(report.grid, own)
            report.grid.write(self.command)
            self.renew([cell for cell in own if cell.name not in before])
            self.finish(replace(report.grid, cells=own, bounds=self._bounds(study, report.grid.folder)))
            results = [[report.result(cell) for cell in cells] for cells in batch]
            folders = [[cell.folder for cell in cells] for cells in batch]
            ended = [self._ended(*trial) for trial in zip(chosen, results, folders, strict=True)]
            if any(trial is None for trial in ended):  # stopped by somebody else: the same command goes on with them
                return
            study.add_trials([trial for trial in ended if trial is not None])
            report.remark = self._remark(study)
            for number, trial in enumerate((t for t in ended if t is not None), count + 1):
                own_words = [f"{key}={value}" for key, value in trial.params.items()]
                came_to = trial.state.name.lower() if trial.value is None else f"{self.objective}={trial.value:.6g}"
                log.info("trial %d of %d, %s: %s", number, self.options.trials, " ".join(own_words), came_to)
        report.complete = any(trial.value is not None for trial in study.trials)

    def _trials(self, chosen: Sequence[Mapping[str, Any]]) -> list[list[Cell]]:
        """The cells of some trials by their parameters."""
        loader = self.hydra_context.config_loader
        combinations = [compose.combinations(self.space.words(params), loader) for params in chosen]
        cells = iter(self.cells([words for trial in combinations for words in trial]))
        return [[next(cells) for _ in trial] for trial in combinations]

    def _objective(self, first: Cell) -> str:
        """The metric that is optimised.

        Args:
            first: A cell of the search, from which its problem is built.

        Returns:
            Its name.

        Raises:
            UsageError: No run has it, or runs cannot be pruned by what was chosen.
        """
        from pde_train.experiment import build

        options, cfg = self.options, self.whole(first)
        with open_dict(cfg):
            cfg.tracking = {"_target_": "pde_train.tracking.none.NoTracker"}
            cfg.accelerator.update({"accelerator": "cpu", "processes": 1})  # whatever this machine has
        built = build(cfg)
        errors = built.problem.errors()
        known = sorted({*errors, *WITHOUT_ERRORS})
        objective = options.objective or ("error_l2" if "error_l2" in errors else "residual_exact")
        if objective not in known and "/" not in objective:
            raise UsageError(
                f"hydra.sweeper.objective={objective} is no metric of these runs: expected one of {', '.join(known)}, "
                "or one of docs/glossary.md with a slash, such as spectrum/min"
            )
        if options.pruner != "none":
            if built.method.total_steps == 0:
                raise UsageError(
                    f"hydra.sweeper.pruner={options.pruner} ends runs before their last step, and "
                    f"{type(built.method).__name__} takes no steps: expected hydra.sweeper.pruner=none, choose it"
                )
            if options.pruned_by not in (measured := ["residual_held_out", *errors]):
                raise UsageError(
                    f"hydra.sweeper.pruned_by={options.pruned_by} is not measured while these runs train: expected one "
                    f"of {', '.join(measured)}, choose one"
                )
        return objective

    def _name(self, first: Cell) -> str:
        """The hash of what is searched and for what; not of how many trials there are, or how they are chosen."""
        from optuna.distributions import distribution_to_json

        searched = {key: distribution_to_json(d) for key, d in self.space.searched.items()}
        what = [self.objective, self.options.direction, searched, sorted(self.space.averaged)]
        content = json.dumps([first.name, dict(first.entropy), *what], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:8]

    def _chosen(self, study: Study, count: int) -> list[dict[str, Any]]:
        """The parameters of the next trials, which follow from those before them alone."""
        import optuna

        trials = study.trials
        asked = optuna.create_study(sampler=self._sampler(len(trials)), direction=self.options.direction)
        asked.add_trials(trials)
        return [asked.ask(dict(self.space.searched)).params for _ in range(count)]

    def _sampler(self, number: int) -> BaseSampler:
        """What chooses the trial of a number."""
        import numpy as np
        from optuna import samplers

        seed = int(np.random.SeedSequence([self.options.seed, number]).generate_state(1)[0])
        if self.options.sampler == "random":
            return samplers.RandomSampler(seed=seed)
        if self.options.sampler == "gp":
            return samplers.GPSampler(seed=seed)
        return samplers.TPESampler(seed=seed, constant_liar=True)  # trials at once know of each other

    def _bounds(self, study: Study, folder: Path) -> Path | None:
        """Write what the finished trials had come to by each step; the file, None where no run is pruned."""
        import numpy as np
        from optuna.trial import TrialState

        from pde_train.training.stop import Bounds

        options = self.options
        finished = [t.intermediate_values for t in study.get_trials(states=(TrialState.COMPLETE,))]
        if options.pruner == "none" or len(finished) < options.warmup_trials:
            return None
        steps = sorted({step for values in finished for step in values if step >= options.warmup_steps})
        percent = PERCENT[options.pruner]
        largest = {step: float(np.percentile([v[step] for v in finished if step in v], percent)) for step in steps}
        whose = f"the {options.pruner} of {len(finished)} finished trials"
        Bounds(options.pruned_by, whose, largest).write(folder / BOUNDS)
        return folder / BOUNDS

    def _ended(
        self, params: Mapping[str, Any], results: Sequence[Result], folders: Sequence[Path]
    ) -> FrozenTrial | None:
        """What a trial has come to, by the results of its cells.

        A run that failed or was pruned is worse than any other; a trial with more than half of its runs finished still
        has a median.

        Args:
            params: Of the trial.
            results: Of its cells.
            folders: Of its cells.

        Returns:
            The trial as Optuna keeps it, None where a run was interrupted.

        Raises:
            RunError: Runs have no such metric.
        """
        from optuna.trial import TrialState, create_trial

        statuses = {result.status for result in results}
        if statuses & {Status.INTERRUPTED, Status.RUNNING}:
            return None
        for result in results:
            if result.is_finished and self.objective not in result.metrics:
                raise RunError(
                    f"hydra.sweeper.objective={self.objective} is no metric of these runs: expected one of "
                    f"{', '.join(sorted(result.metrics))}"
                )
        worst = math.inf if self.options.direction == "minimize" else -math.inf
        values = [result.metrics.get(self.objective) if result.is_finished else None for result in results]
        value = median(worst if v is None else v for v in values)
        histories = [_history(folder, self.options.pruned_by) for folder in folders]
        steps = set.intersection(*map(set, histories))
        state = TrialState.PRUNED if Status.PRUNED in statuses else TrialState.FAIL
        return create_trial(
            state=TrialState.COMPLETE if math.isfinite(value) else state,
            value=value if math.isfinite(value) else None,
            params=dict(params),
            distributions=dict(self.space.searched),
            intermediate_values={step: median(h[step] for h in histories) for step in sorted(steps)},
            user_attrs={"folders": [str(folder) for folder in folders]},
        )

    def _remark(self, study: Study) -> str:
        """The best trial as a command, and how many there were."""
        from optuna.trial import TrialState

        if not any(trial.state == TrialState.COMPLETE for trial in study.trials):
            return ""
        best, states = study.best_trial, [trial.state for trial in study.trials]
        counts = {"finished": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
        said = ", ".join(f"{states.count(state)} {name}" for name, state in counts.items() if state in states)
        words = Overrides.parse(self.space.words(best.params)).without("sweep").words
        own = [
            f"--config-dir={source.path}"
            for source in self.config.hydra.runtime.config_sources
            if source.provider == "command-line"
        ]
        many = ["--multirun"] if self.space.averaged else []
        command = shlex.join(["python", "-m", "pde_train", *many, *own, *words])
        return f"Best of {len(states)} trials ({said}): {self.objective}={best.value:.6g} by\n\n    {command}\n"


def _with(grid: Grid, more: Sequence[Cell]) -> Grid:
    """The grid with more cells, each once, however many trials chose it."""
    cells = list(grid.cells)
    for cell in more:
        if cell not in cells:
            cells.append(cell)
    return replace(grid, cells=cells)


def _history(folder: Path, metric: str) -> dict[int, float]:
    """The finite values of a metric by step that a run has kept; none where it has kept none."""
    file = folder / "history.csv"
    if not file.exists():
        return {}
    with file.open(newline="") as rows:
        found = {int(row["step"]): float(row["value"]) for row in csv.DictReader(rows) if row["metric"] == metric}
    return {step: value for step, value in found.items() if math.isfinite(value)}
