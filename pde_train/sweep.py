"""A sweep as a whole, in the process that launches it: the parent run, the table at the end, the exit code."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from pde_train.errors import PdeTrainError
from pde_train.tracking.base import Tracker


class Sweep(Callback):
    """Opens one parent run before the jobs of a multirun, and closes it with a table and an overlay of spectra.

    Jobs may run anywhere: what they did is read from the `result.json` in their folders. Exits with 1 if one failed.
    """

    _opened: ClassVar[Sweep | None] = None  # Hydra makes the callback itself; the command finds it here

    def __init__(self) -> None:
        self._tracker: Tracker | None = None
        self._folder = Path()

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        from pde_train.progress import waiting
        from pde_train.trust import build_group

        self._folder = Path(config.hydra.sweep.dir).absolute()
        self._folder.mkdir(parents=True, exist_ok=True)
        chosen = config.hydra.runtime.choices.get("experiment") or "sweep"
        try:
            with waiting("opening the tracking store"):
                tracker = build_group(config, "tracking")
                tracker.prepare()
                tracker.start(f"{chosen} {self._folder.name}", self._folder, {}, {"sweep": str(chosen)})
        except PdeTrainError as error:
            print(error, file=sys.stderr)
            raise SystemExit(error.code) from None
        if tracker.run_id is not None:
            os.environ["PDE_TRAIN_PARENT_RUN"] = tracker.run_id
        self._tracker = tracker
        Sweep._opened = self

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        if self._finish():
            raise SystemExit(1)

    @classmethod
    def close(cls) -> None:
        """End a sweep that was stopped before its end: what it did gets its table, too."""
        if cls._opened is not None:
            cls._opened._finish()

    def _finish(self) -> bool:
        """Table, overlay and the end of the parent run, once; whether a run failed."""
        if self._tracker is None:
            return False
        tracker, self._tracker = self._tracker, None
        from pde_train import figures, table
        from pde_train.results import Result

        folders = sorted((f for f in self._folder.iterdir() if f.is_dir()), key=lambda f: (len(f.name), f.name))
        found = {f: r for f in folders if (r := Result.read(f)) is not None}
        failed = {f: r for f, r in found.items() if r.status != "finished"}
        grouped = table.pairs(list(found.values()))
        if grouped:
            table.show(grouped)
        for folder, result in failed.items():
            print(f"{result.status}: {' '.join(result.overrides)}: {result.error} ({folder})")
        files = [self._folder / "table.csv"]
        files[0].write_text(table.csv_table(grouped))
        panels = {
            title: {label: _spectrum(found, result) for label, result in lines.items()}
            for title, lines in grouped.items()
        }
        if any(values for lines in panels.values() for values in lines.values()):
            files.append(self._folder / "spectra.png")
            figures.overlays(panels).savefig(files[1], dpi=100)
        tracker.metrics([("cells/finished", len(found) - len(failed), 0), ("cells/failed", len(failed), 0)])
        tracker.describe(table.markdown_table(grouped), [file.name for file in files if file.suffix == ".png"])
        tracker.artifacts(files)
        tracker.finish("failed" if failed else "finished")
        if tracker.how_to_look:
            print(f"See every run: {tracker.how_to_look}")
        return bool(failed)


def _spectrum(found: dict[Path, Any], result: Any) -> list[float]:
    """The final singular values of a result, from its folder."""
    file = next(f for f, r in found.items() if r is result) / "spectrum.csv"
    if not file.exists():
        return []
    return [float(line.partition(",")[2]) for line in file.read_text().splitlines()[1:]]
