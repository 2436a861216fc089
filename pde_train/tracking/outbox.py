"""What a run has to tell a tracking store, written down in its folder before anybody is told."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pde_train.errors import RunError
from pde_train.run_folder import DELIVERED, OUTBOX, Status, is_locked, take_lock
from pde_train.tracking.base import Row

BATCH = 1000
"""Rows of one entry; MLflow takes no more in one call."""

UNKNOWN = ""
"""The store of a mark that an earlier version of the package wrote without a name."""

Entry = Mapping[str, Any]
"""One of `run` (what a run is opened with), `status`, `metrics`, `tags`, `note`, `artifacts`, `discard`."""


@dataclass(frozen=True)
class Mark:
    """What one store has of an outbox: the id of its run there, and the position up to which it has everything."""

    run: str | None
    position: int

    def __post_init__(self) -> None:
        if type(self.position) is not int or not (self.run is None or isinstance(self.run, str)):
            raise TypeError("no mark")


class Outbox:
    """The entries of one run, a JSON object a line, and what each store has got of them.

    One process writes (the run's own) and any may deliver, one at a time. Metrics carry the time at which they were
    measured, so that a store to which they are sent twice can tell that they are the same: where a mark is lost, or
    cannot be read, everything is sent again and stands there once.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.file = folder / OUTBOX
        self._written: dict[str, dict[int, float]] = {}
        """The last value that was written, by the name of a metric and its step."""

    def take_up(self) -> bool:
        """Go on writing where an earlier process stopped; whether there was one. RunError where it is no outbox."""
        if not self.file.exists():
            return False
        text = self.file.read_bytes()
        if not text.endswith(b"\n"):  # what a killed process left of a line
            with self.file.open("r+b") as file:
                file.truncate(text.rfind(b"\n") + 1)
        if self.file.stat().st_size == 0:
            return False
        self.opening()
        for entry, _ in self.entries():
            for key, value, step, _ in entry.get("metrics", ()):
                self._written.setdefault(key, {})[step] = value
        return True

    def append(self, **entry: Any) -> None:
        """Write one entry; it survives the process."""
        with self.file.open("ab") as file:
            file.write(f"{json.dumps(entry)}\n".encode())

    def metrics(self, rows: Sequence[Row], renew: bool = False) -> None:
        """Write the rows whose name and step have not been written before; with `renew` also those of another value."""
        now, fresh = milliseconds(), []
        for key, value, step in rows:
            written = self._written.setdefault(key, {})
            if step not in written or (renew and written[step] != value):
                written[step] = value
                fresh.append((key, value, step, now))
        for start in range(0, len(fresh), BATCH):
            self.append(metrics=fresh[start : start + BATCH])

    def entries(self, start: int = 0) -> Iterator[tuple[Entry, int]]:
        """Whole entries from a position on, each with the position behind it. RunError where one is none."""
        with self.file.open("rb") as file:
            file.seek(start)
            for line in file:
                if not line.endswith(b"\n"):  # it is being written
                    return
                try:
                    entry = json.loads(line)
                    if not (isinstance(entry, dict) and entry):
                        raise ValueError("no JSON object")
                except ValueError as error:
                    raise RunError(
                        f"{self.file} has no entry of an outbox at byte {start} ({error}): expected what a run wrote, "
                        "remove that line"
                    ) from error
                start += len(line)
                yield entry, start

    def opening(self) -> Mapping[str, Any]:
        """What the run was opened with. RunError where that is not there."""
        entry, _ = next(self.entries(), ({}, 0))
        opening = entry.get("run")
        if not isinstance(opening, dict) or not opening.keys() >= OPENING:
            raise RunError(
                f"{self.file} does not begin with the opening of a run: expected what a run wrote, remove it"
            )
        return opening

    @property
    def status(self) -> Status | None:
        """How the run stands by its last word; None where it has said nothing."""
        status = None
        for entry, _ in self.entries() if self.file.exists() else ():
            if "run" in entry:
                status = Status.RUNNING
            elif "status" in entry:
                status = Status(entry["status"][0])
        return status

    @property
    def is_discarded(self) -> bool:
        """Whether the run is to be deleted from every store."""
        return any("discard" in entry for entry, _ in self.entries())

    @property
    def tried(self) -> bool:
        """Whether any store may have something of it."""
        return (self.folder / DELIVERED).exists()

    def mark(self, store: str) -> Mark:
        """What a store has got, by its name."""
        mark = self._marks().get(store, Mark(None, 0))
        return mark if self._begins_a_line(mark.position) else Mark(mark.run, 0)

    def keep(self, store: str, mark: Mark | None) -> None:
        """Write down what a store has got; None for what nobody knows any more."""
        marks = self._marks()
        if mark is None:
            marks.pop(store, None)
        else:
            marks[store] = mark
        beside = self.folder / f"{DELIVERED}.part"
        beside.write_text(json.dumps({name: asdict(kept) for name, kept in marks.items()}) + "\n")
        beside.replace(self.folder / DELIVERED)

    def waits_for(self, store: str | None) -> bool:
        """Whether there is something to deliver to a store by its name; None: something that no store has."""
        if not self.file.exists():
            return False
        positions = [self.mark(name).position for name in ([*self._marks()] if store is None else [store])]
        return self.file.stat().st_size > max(positions, default=0)

    def _marks(self) -> dict[str, Mark]:
        """What is kept of every store; nothing where it cannot be read, as everything may be sent again."""
        try:
            kept = json.loads((self.folder / DELIVERED).read_bytes() or b"{}")
            if isinstance(kept, int):
                return {UNKNOWN: Mark(None, kept)}
            return {str(name): Mark(**mark) for name, mark in kept.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def _begins_a_line(self, position: int) -> bool:
        if not 0 <= position <= self.file.stat().st_size:
            return False
        with self.file.open("rb") as file:
            file.seek(max(position - 1, 0))
            return position == 0 or file.read(1) == b"\n"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While this context lasts no other process delivers this outbox."""
        with self.file.open("rb") as file:
            take_lock(file.fileno())
            yield


OPENING = {"name", "experiment", "uri", "key", "parent", "user", "time", "tags", "params"}
"""What the first entry says of a run."""


def end_abandoned(folders: Iterable[Path]) -> None:
    """Say in these folders that their runs were interrupted, where a run is open and no process is at work."""
    for folder in folders:
        with contextlib.suppress(RunError, TypeError, LookupError):  # of an outbox that cannot be read
            if not is_locked(folder) and (outbox := Outbox(folder)).status == Status.RUNNING:
                outbox.append(status=(Status.INTERRUPTED, milliseconds()))


def milliseconds() -> int:
    """The time now, as MLflow has it."""
    return int(time.time() * 1000)
