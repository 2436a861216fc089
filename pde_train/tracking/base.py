"""What every tracking store offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

Row = tuple[str, float, int]
"""A metric's name, value and step."""

PARENT = "PDE_TRAIN_PARENT_RUN"
"""Environment variable by which the launching process names the parent run to its jobs."""


class Tracker(ABC):
    """One run in a store. Logging never fails the run and never doubles a row."""

    @abstractmethod
    def prepare(self) -> None:
        """Make the store's tables and the experiment; called once, by the process that launches runs."""

    @abstractmethod
    def start(self, name: str, folder: Path, params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        """Open a new run, or the one that `folder` already belongs to."""

    @abstractmethod
    def metrics(self, rows: Sequence[Row]) -> bool:
        """Keep these rows; whether all of them arrived. Offered again, those that had arrived are passed over."""

    @abstractmethod
    def tags(self, tags: Mapping[str, str]) -> None:
        """Set tags of the run."""

    @abstractmethod
    def describe(self, markdown: str, pictures: Sequence[str]) -> None:
        """Show a text and pictures, named by their artifacts, on the run's page."""

    @abstractmethod
    def artifacts(self, files: Iterable[Path]) -> None:
        """Keep these files and folders."""

    @abstractmethod
    def finish(self, status: str) -> None:
        """Close the run as `finished`, `failed` or `interrupted`."""

    @property
    @abstractmethod
    def run_id(self) -> str | None:
        """The name that other processes may nest runs under."""

    @property
    @abstractmethod
    def how_to_look(self) -> str | None:
        """One line that says how to look at the runs."""
