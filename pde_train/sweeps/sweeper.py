"""What happens between a `--multirun` line and its table: queue what is not done, wait, show, and say what failed.

`CellSweeper` trains cells; which there are, is decided by a grid (`GridSweeper`) or by a search
(`pde_train.sweeps.optuna_sweeper`).
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from pde_train.errors import UsageError, sentence
from pde_train.guards import refuse_secrets, refuse_trust
from pde_train.run_folder import CELLS, clear, is_locked, lock
from pde_train.sweeps import compose, progress
from pde_train.sweeps.grid import Cell, Grid, forget, settle, stale, to_do
from pde_train.sweeps.stacked_launcher import StackedLauncher
from pde_train.sweeps.workers import Task, failure, told_to_stop

TRIES = 3
"""How often a cell is launched whose process dies and leaves no word."""

POLL_SECONDS = 1.0
"""Between two looks at cells that another process trains."""

if TYPE_CHECKING:
    from pde_train.sweeps.report import Report

log = logging.getLogger(__name__)


class CellSweeper(Sweeper):
    """Trains every cell once, wherever and whenever it is launched, and ends with what they show together.

    Args:
        params: Choices by key, as the command line has them; words of the command line win.
    """

    config: DictConfig
    hydra_context: HydraContext
    launcher: Launcher
    command: Sequence[str]

    def __init__(self, params: dict[str, Any] | None = None):
        self.params = params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.hydra_context = config, hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=Task(task_function), config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Train what is not done; ends the command with code 1 where the sweep is not complete in the end."""
        HydraConfig.instance().set_config(self.config)  # so that ${hydra:runtime.cwd} is known
        from pde_train.schema import check_sweep

        check_sweep(self.config)
        own = [f"{key}={value}" for key, value in self.params.items()]  # of a file, as words
        refuse_secrets(own)
        refuse_trust(own)
        if self.config.hydra.launcher.get("n_jobs") == 0:
            raise UsageError(
                "hydra.launcher.n_jobs=0 is no number of processes: expected a positive one, or -1 for one a processor"
            )
        self.command = arguments
        self.train([*own, *arguments])

    @abstractmethod
    def train(self, words: Sequence[str]) -> None:
        """Train what the words ask for.

        Args:
            words: Of the configuration's `params`, and after them those of the command line.
        """

    @property
    def sweeps(self) -> Path:
        """The folder of all sweeps."""
        return Path(self.config.hydra.sweep.dir).absolute()

    def title(self, otherwise: str) -> str:
        """The name of the experiment; that of the kind of sweep where there is none."""
        return self.config.hydra.runtime.choices.get("experiment") or otherwise

    def cells(self, combinations: Sequence[Sequence[str]]) -> list[Cell]:
        """The cells that have these overrides."""
        configs = compose.composed(combinations, self.hydra_context.config_loader, self.config)
        sweeps = self.sweeps
        return [
            Cell.of(words, config, choices, sweeps)
            for words, (config, choices) in zip(combinations, configs, strict=True)
        ]

    def whole(self, cell: Cell) -> DictConfig:
        """The configuration of a cell with the keys that decide no number, checked for keys that are missing."""
        from pde_train.schema import check_keys

        whole = OmegaConf.create({**cell.config, "name": "", "tracking": self.config.tracking})
        check_keys(whole)
        return whole

    def refuse_unused(self, cells: Iterable[Cell]) -> None:
        """Refuse words that change nothing, unless one of the cells uses all of its own.

        Args:
            cells: Of every method that is trained; some may use what others do not.

        Raises:
            UsageError: Every cell has a word that its method does not use.
        """
        wrong = None
        for cell in cells:
            if (said := cell.overrides.unused(cell.config.get("method"))) is None:
                return
            wrong = wrong or said
        if wrong is not None:
            raise UsageError(wrong)

    def renew(self, cells: Sequence[Cell]) -> None:
        """Clear the cells that are to start over, by `sweep.fresh` or `sweep.stale`."""
        if self.config.sweep.fresh:
            _clear(cells)
        elif old := stale(cells):
            again = self.config.sweep.stale == "rerun"
            what = "they are trained again" if again else "they are kept, sweep.stale=rerun trains them again"
            log.warning("%d finished cells are of another version of pde_train's code: %s", len(old), what)
            if again:
                _clear(old)

    @contextmanager
    def reported(self, grid: Grid, loaded: Sequence[Cell]) -> Iterator[Report]:
        """The parent run of cells that are trained inside this context, which ends with their table.

        Args:
            grid: The cells.
            loaded: Those whose libraries are imported meanwhile.

        Yields:
            The report.

        Raises:
            SystemExit: The sweep is not complete.
            UsageError: A launcher refuses to train.
        """
        from pde_train.sweeps.report import Report

        report = Report.opened(grid, self.config, meanwhile=lambda: self._load(loaded))
        try:
            yield report
        except UsageError:  # of the launcher, mostly before anything was trained
            if any(cell.result is not None for cell in report.grid.cells):
                report.close(interrupted=True)
            else:
                report.refused()
            raise
        except BaseException:  # Ctrl-C, too: what was trained is shown
            report.close(interrupted=True)
            raise
        if not report.close(interrupted=False):
            raise SystemExit(1)

    def _load(self, cells: Sequence[Cell]) -> None:
        """Import what cells need, seconds of libraries, where this process trains some of them."""
        here = isinstance(getattr(self.launcher, "launcher", self.launcher), BasicLauncher)
        if here and any(cell.result is None for cell in cells):
            from pde_train.progress import waiting

            with waiting("loading libraries"):
                import pde_train.runs.stack  # noqa: F401
                from pde_train.instantiate import locate

                for method in {str(cell.config.get("method", {}).get("_target_")) for cell in cells}:
                    with contextlib.suppress(UsageError):  # which is said when the cell is built
                        locate(method, tuple(self.config.trusted_modules), "method")

    def finish(self, grid: Grid) -> None:
        """Launch until every cell has an end of its own, or died too often."""
        waiting = to_do(grid.distinct, self.config.sweep.retry, prunes=grid.bounds is not None)
        log.info("%d cells, %d of them done", len(grid.distinct), len(grid.distinct) - len(waiting))
        forget([cell for cell in waiting if not is_locked(cell.folder)])
        launched: Counter[str] = Counter()
        known = getattr(self.launcher, "knows_jobs", False)
        tries = 1 if known else TRIES
        while waiting:
            free = [c for c in waiting if not is_locked(c.folder) or (known and not launched[c.name])]
            if free:
                with progress.said(free, done=len(grid.distinct) - len(waiting)):
                    self._launch(free, grid)
                launched.update(cell.name for cell in free)
            else:
                time.sleep(POLL_SECONDS)
            waiting = [c for c in waiting if c.result is None and (launched[c.name] < tries or is_locked(c.folder))]

    def _launch(self, cells: Sequence[Cell], grid: Grid) -> None:
        try:
            with told_to_stop(at_work=lambda: any(is_locked(cell.folder) for cell in cells)):
                if isinstance(self.launcher, StackedLauncher):
                    self.launcher.launch_cells(cells, grid)
                    return
                returned = self.launcher.launch([_words(cell, grid) for cell in cells], initial_job_idx=0)
        except BrokenProcessPool as error:  # a worker process was killed, and the others ended with it
            print(f"a process of the launcher died: {sentence(error)}", file=sys.stderr)
            return
        for cell, job in zip(cells, returned, strict=False):  # a launcher may leave it to others to say anything
            if said := failure(job):
                settle(cell.folder, cell.overrides.words, said)


class GridSweeper(CellSweeper):
    """Trains the product of all choices of a command line, see `CellSweeper`."""

    def train(self, words: Sequence[str]) -> None:
        loader = self.hydra_context.config_loader
        combinations = compose.combinations([w for w in words if not w.startswith("sweep.optional=")], loader)
        if optional := [str(word) for word in self.config.sweep.optional]:
            combinations = compose.fitted(combinations, optional, loader, self.config)
        grid = Grid.of(self.title("sweep"), self.cells(combinations), self.sweeps)
        self.whole(grid.cells[0])
        self.refuse_unused(grid.cells)
        grid.folder.mkdir(parents=True, exist_ok=True)
        grid.write(self.command)
        with self.reported(grid, loaded=grid.cells):  # the store can be used: nothing is cleared in vain
            self.renew(grid.distinct)
            self.finish(grid)


def _words(cell: Cell, grid: Grid) -> list[str]:
    """The words of the job that runs a cell."""
    return [
        *cell.overrides.words,
        *([] if grid.bounds is None else [f"sweep.bounds={compose.quoted(grid.bounds)}"]),
        f"sweep.label={compose.quoted(grid.labels[cell.name])}",
        f"sweep.parent={compose.quoted(grid.folder)}",
        f"hydra.sweep.subdir={CELLS}/{cell.name}",
    ]


def _clear(cells: Sequence[Cell]) -> None:
    """Remove what earlier runs left, but where a process is at work."""
    for cell in cells:
        with lock(cell.folder) as mine:
            if mine:
                clear(cell.folder)
