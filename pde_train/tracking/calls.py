"""What goes to an MLflow store in one call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

PARAMS = TAGS = 100
"""Parameters, and tags, that MLflow takes in one call; with the rows no more than `outbox.BATCH`."""

Call = tuple[Sequence[Sequence[Any]], Mapping[str, str], Mapping[str, str]]
"""Rows, parameters and tags."""

LONGEST_TAG = 8000
"""Characters of a tag that MLflow's tables have room for, a description included."""

LONGEST = 6000
"""Characters of a parameter; MLflow cuts them with a warning."""


@dataclass
class Waiting:
    """What may go in one call with at most so many rows, parameters and tags, as long as it is not sent."""

    limit: int
    rows: list[Sequence[Any]] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def take(self, kind: str, value: Any, run_id: str) -> bool:
        """Add an entry of an outbox; False for one that is a call of its own."""
        if kind == "metrics":
            self.rows += value
        elif kind == "run":
            self.params |= {key: text[:LONGEST] for key, text in value["params"].items()}
        elif kind == "tags":
            self.tags |= {key: text[:LONGEST_TAG] for key, text in value.items()}
        elif kind == "note":
            text, pictures = value
            shown = [f"![{name}](get-artifact?path={name}&run_uuid={run_id})" for name in pictures]
            room = LONGEST_TAG - sum(len(picture) + 2 for picture in shown)
            if len(text) > room:  # whole lines of it, where it has lines
                text = text[:room].rpartition("\n")[0] or text[:room]
            self.tags["mlflow.note.content"] = "\n\n".join([text, *shown])
        else:
            return False
        return True

    def full(self) -> Iterator[Call]:
        """Take out as many calls as can be filled."""
        while len(self.rows) >= self.limit:
            yield self._call()

    def all(self) -> Iterator[Call]:
        """Take out all calls."""
        while self.rows or self.params or self.tags:
            yield self._call()

    def _call(self) -> Call:
        params = {key: self.params.pop(key) for key in list(self.params)[:PARAMS]}
        tags = {key: self.tags.pop(key) for key in list(self.tags)[:TAGS]}
        room = self.limit - len(params) - len(tags)
        rows = self.rows[:room]
        del self.rows[:room]
        return rows, params, tags
