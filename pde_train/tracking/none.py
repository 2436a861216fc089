"""No tracking store: the run's own folder is all there is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pde_train.run_folder import Status
from pde_train.tracking.base import Row, Tracker


@dataclass
class NoTracker(Tracker):
    """Keeps nothing; takes an experiment's name all the same, so that every overlay works without a store."""

    experiment: str = ""
    how_to_look: str | None = field(default=None, init=False)

    def prepare(self, wait: bool = True) -> None:
        pass

    def start(
        self,
        name: str,
        folder: Path,
        params: Mapping[str, str],
        tags: Mapping[str, str],
        parent: Path | None = None,
    ) -> None:
        pass

    def metrics(self, rows: Sequence[Row]) -> None:
        pass

    def tags(self, tags: Mapping[str, str]) -> None:
        pass

    def describe(self, markdown: str, pictures: Sequence[str]) -> None:
        pass

    def artifacts(self, files: Iterable[Path]) -> None:
        pass

    def finish(self, status: Status) -> None:
        pass

    def discard(self) -> None:
        pass

    def drain(self, folders: Iterable[Path] = ()) -> None:
        pass

    def sibling(self) -> Tracker:
        return self
