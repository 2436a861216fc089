"""A sweep as a whole, in the process that launches it: the parent run, the table at the end, the exit code."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from pde_train.errors import PdeTrainError, sentence
from pde_train.results import Result
from pde_train.tracking.base import PARENT, Tracker

if TYPE_CHECKING:
    from pde_train.table import Pairs


class Sweep(Callback):
    """Opens one parent run before the jobs of a multirun; `close` ends it with a table and an overlay of spectra.

    Jobs may run anywhere: what they did is read from the `result.json` in their folders. Hydra tells no callback of the
    end of a sweep in which something failed, and swallows what a callback raises: the command itself calls `close`.
    """

    opened: ClassVar[Sweep | None] = None  # Hydra makes the callback; the command finds it here

    _folder: Path
    _tracker: Tracker

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        from pde_train.progress import waiting
        from pde_train.trust import build_group

        HydraConfig.instance().set_config(config)  # so that ${hydra:runtime.cwd} is known
        self._folder = Path(config.hydra.sweep.dir).absolute()
        chosen = config.hydra.runtime.choices.get("experiment") or "sweep"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with waiting("opening the tracking store"):
                tracker = build_group(config, "tracking")
                tracker.prepare()
                tracker.start(f"{chosen} {self._folder.name}", self._folder, {}, {"sweep": str(chosen)})
        except (PdeTrainError, OSError) as error:
            print(sentence(error), file=sys.stderr)
            raise SystemExit(getattr(error, "code", 1)) from None  # an Exception would be swallowed
        if tracker.run_id is not None:
            os.environ[PARENT] = tracker.run_id
        self._tracker = tracker
        Sweep.opened = self

    @classmethod
    def close(cls) -> bool:
        """Table, overlay and the end of the parent run, where there is a sweep; whether all of its runs finished."""
        if cls.opened is None:
            return True
        sweep, tracker, cls.opened = cls.opened, cls.opened._tracker, None
        os.environ.pop(PARENT, None)
        from pde_train import table

        results = sweep._results()
        finished = [r for r in results if r.status == "finished"]
        grouped = table.pairs(results)
        files = sweep._report(results, grouped)
        tracker.tags({"runs.finished": str(len(finished)), "runs.not_finished": str(len(results) - len(finished))})
        tracker.describe(table.markdown_table(grouped), [file.name for file in files if file.suffix == ".png"])
        tracker.artifacts(files)
        worst = next((s for s in ("interrupted", "failed") if any(r.status == s for r in results)), "finished")
        tracker.finish(worst)
        if tracker.how_to_look:
            print(f"See every run: {tracker.how_to_look}")
        return worst == "finished"

    def _results(self) -> list[Result]:
        """What every job folder says of its run; a folder without a result counts as failed."""
        jobs = sorted((f.parent for f in self._folder.rglob(".hydra")), key=lambda f: (len(f.name), f.name))
        nothing = "the run left no result"
        return [Result.read(job) or Result("failed", error=nothing, folder=job) for job in jobs]

    def _report(self, results: list[Result], grouped: Pairs) -> list[Path]:
        """Print the table and what did not finish; write table.csv and spectra.png."""
        from pde_train import figures, table

        if grouped:
            table.show(grouped)
        for result in results:
            if result.status != "finished":
                print(f"{result.status}: {' '.join(result.overrides)}: {result.error} ({result.folder})")
        files = [self._folder / "table.csv"]
        files[0].write_text(table.csv_table(grouped))
        panels = {title: {k: _spectrum(r) for k, r in lines.items()} for title, lines in grouped.items()}
        if any(values for lines in panels.values() for values in lines.values()):
            files.append(self._folder / "spectra.png")
            figures.overlays(panels).savefig(files[1], dpi=100)
        return files


def _spectrum(result: Result) -> list[float]:
    """The final singular values of a result, from its folder."""
    file = (result.folder or Path()) / "spectrum.csv"
    if not file.exists():
        return []
    return [float(line.partition(",")[2]) for line in file.read_text().splitlines()[1:]]
