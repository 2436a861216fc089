"""What every tracking store offers."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pde_train.errors import sentence
from pde_train.run_folder import Status

Row = tuple[str, float, int]
"""A metric's name, value and step."""

AS_TAGS = "audit/"
"""Begins the names of metrics that are measured once, after training: a store has them as tags."""

log = logging.getLogger(__name__)


class Tracker(ABC):
    """One run in a store. Nothing here fails the run or waits for the store, but `prepare` and `drain`."""

    @abstractmethod
    def prepare(self, wait: bool = True) -> None:
        """Make the store's tables and the experiment; called once, by the process that launches runs.

        A store that cannot be used is an error; one that is away is a warning. wait: False to begin with it, come back
        at once and say nothing.
        """

    @abstractmethod
    def start(
        self,
        name: str,
        folder: Path,
        params: Mapping[str, str],
        tags: Mapping[str, str],
        parent: Path | None = None,
    ) -> None:
        """Open a new run, or the one that `folder` already belongs to.

        Args:
            name: Shown by the store.
            folder: Of the run.
            params: The configuration, flattened. Those that have changed since a run was opened are its tags, too.
            tags: What else is known of the run.
            parent: Folder of the sweep under which the run is nested; None for a run of its own.
        """

    @abstractmethod
    def metrics(self, rows: Sequence[Row]) -> None:
        """Keep these rows, but those whose name and step the run has already."""

    def renew(self, rows: Sequence[Row]) -> None:
        """The same for what is measured anew as a whole: rows whose value the run has not are kept, too."""
        self.metrics(rows)

    @abstractmethod
    def tags(self, tags: Mapping[str, str]) -> None:
        """Set tags of the run."""

    @abstractmethod
    def describe(self, markdown: str, pictures: Sequence[str]) -> None:
        """Show a text and pictures, named by their artifacts, on the run's page."""

    @abstractmethod
    def artifacts(self, files: Iterable[Path]) -> None:
        """Keep these files and folders, which lie in the run's folder."""

    @abstractmethod
    def finish(self, status: Status) -> None:
        """Close the run: finished, failed or interrupted."""

    @abstractmethod
    def discard(self) -> None:
        """Close the run as failed and delete it: it was refused before it measured anything."""

    @abstractmethod
    def drain(self, folders: Iterable[Path] = ()) -> None:
        """Wait until the store has everything, of this run and of others by their folders, or is found to be away."""

    @abstractmethod
    def sibling(self) -> Tracker:
        """A tracker for another run in the same store; drained together with this one."""

    @property
    @abstractmethod
    def how_to_look(self) -> str | None:
        """One line that says how to look at the runs."""


def drained(tracker: Tracker, folders: Iterable[Path] = ()) -> None:
    """Drain; what goes wrong there is said, and changes nothing of how a run has ended."""
    try:
        tracker.drain(folders)
    except Exception as error:  # no store may change how a run ended
        log.warning(
            "delivery to the tracking store ended with %s: the folders of the runs keep what is missing, and "
            "python -m pde_train.sync delivers it",
            sentence(error),
        )
