"""Domains during an interval of time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from pde_train.derivatives import TIME
from pde_train.domains.pieces import bound
from pde_train.domains.shapes import Limits
from pde_train.errors import UsageError
from pde_train.geometry import Domain, Part


@dataclass(frozen=True)
class InTime(Domain):
    """A domain during an interval of time, which is the last coordinate.

    The pieces of the boundary are those of the domain at all times. `initial` is the domain at the start.

    Attributes:
        shape: The domain in space.
        start: The initial time.
        end: The final time.

    Raises:
        UsageError: The end is not after the start.
    """

    shape: Domain
    start: float
    end: float
    lower: Limits = field(init=False)
    upper: Limits = field(init=False)

    def __post_init__(self) -> None:
        if not -math.inf < self.start < self.end < math.inf:
            raise UsageError(f"time from {self.start} to {self.end} is no interval: expected a start before the end")
        bound(self, (*self.shape.lower, self.start), (*self.shape.upper, self.end))

    def contains(self, x: np.ndarray) -> np.ndarray:
        inside: np.ndarray = self.shape.contains(x[:, :-1]) & (x[:, -1] >= self.start) & (x[:, -1] <= self.end)
        return inside

    def interior(self) -> Part:
        return self._at_all_times(self.shape.interior())

    def parts(self, coordinates: Sequence[str]) -> dict[str, Part]:
        if coordinates[-1] != TIME:
            raise UsageError(
                f"a domain in time has the coordinates ({', '.join(coordinates)}): expected {TIME} as the last one"
            )
        found = {name: self._at_all_times(part) for name, part in self.shape.parts(coordinates[:-1]).items()}
        return {**found, "initial": self._at_start(self.shape.interior())}

    def _at_all_times(self, part: Part) -> Part:
        def place(unit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            x, normals = part.place(unit[:, :-1])
            times = self.start + unit[:, -1:] * (self.end - self.start)
            return np.hstack([x, times]), np.hstack([normals, np.zeros_like(times)])

        def keeps(x: np.ndarray, normals: np.ndarray) -> np.ndarray:
            return part.keeps(x[:, :-1], normals[:, :-1])

        size = part.size * (self.end - self.start)
        return replace(part, parameters=part.parameters + 1, place=place, size=size, keeps=keeps)

    def _at_start(self, inside: Part) -> Part:
        def place(unit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            x, _ = inside.place(unit)
            x = np.insert(x, x.shape[1], self.start, axis=1)
            normals = np.zeros_like(x)
            normals[:, -1] = -1
            return x, normals

        def keeps(x: np.ndarray, normals: np.ndarray) -> np.ndarray:
            return inside.keeps(x[:, :-1], normals[:, :-1])

        return replace(inside, place=place, keeps=keeps, across_time=True)
