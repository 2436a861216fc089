"""What a run has to tell a tracking store, written down in its folder before anybody is told."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pde_train.results import DELIVERED, JOURNAL
from pde_train.tracking.base import Row

BATCH = 1000
"""Rows of one entry; MLflow takes no more in one call."""

Entry = Mapping[str, Any]
"""One of `run` (what a run is opened with), `status`, `metrics`, `tags`, `note`, `artifacts`."""


class Journal:
    """The entries of one run, a JSON object a line, and how far into the file they have been delivered.

    One process writes (the run's own) and any may deliver, one at a time. Metrics carry the time at which they were
    measured, so that a store to which they are sent twice can tell that they are the same.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.file = folder / JOURNAL
        self._steps: dict[str, set[int]] = {}

    def take_up(self) -> bool:
        """Go on writing where an earlier process stopped; whether there was one."""
        if not self.file.exists():
            return False
        text = self.file.read_bytes()
        if not text.endswith(b"\n"):  # what a killed process left of a line
            with self.file.open("r+b") as file:
                file.truncate(text.rfind(b"\n") + 1)
        for entry, _ in self.entries():
            for key, _, step, _ in entry.get("metrics", ()):
                self._steps.setdefault(key, set()).add(step)
        return self.file.stat().st_size > 0

    def append(self, **entry: Any) -> None:
        """Write one entry; it survives the process."""
        with self.file.open("ab") as file:
            file.write(f"{json.dumps(entry)}\n".encode())

    def metrics(self, rows: Sequence[Row]) -> None:
        """Write the rows whose name and step have not been written before."""
        now, fresh = milliseconds(), []
        for key, value, step in rows:
            steps = self._steps.setdefault(key, set())
            if step not in steps:
                steps.add(step)
                fresh.append((key, value, step, now))
        for start in range(0, len(fresh), BATCH):
            self.append(metrics=fresh[start : start + BATCH])

    def entries(self, start: int = 0) -> Iterator[tuple[Entry, int]]:
        """Whole entries from a position on, each with the position behind it."""
        with self.file.open("rb") as file:
            file.seek(start)
            for line in file:
                if not line.endswith(b"\n"):  # it is being written
                    return
                start += len(line)
                yield json.loads(line), start

    @property
    def delivered(self) -> int | None:
        """The position up to which a store has everything; None before anything was tried."""
        file = self.folder / DELIVERED
        return int(file.read_text() or 0) if file.exists() else None

    @delivered.setter
    def delivered(self, position: int) -> None:
        beside = self.folder / f"{DELIVERED}.part"
        beside.write_text(str(position))
        beside.replace(self.folder / DELIVERED)

    @property
    def waiting(self) -> bool:
        """Whether there is something to deliver."""
        return self.file.exists() and self.file.stat().st_size > (self.delivered or 0)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While this context lasts no other process delivers this journal."""
        with self.file.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def milliseconds() -> int:
    """The time now, as MLflow has it."""
    return int(time.time() * 1000)
