"""Where an equation lives: boxes, their faces, and the points drawn on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Points:
    """Points x (n, d); on a boundary also the outward unit normals (n, d)."""

    x: Tensor
    normals: Tensor | None = None

    def to(self, *, dtype: torch.dtype, device: torch.device | str) -> Points:
        normals = None if self.normals is None else self.normals.to(device, dtype)
        return Points(self.x.to(device, dtype), normals)

    def rows(self, start: int, stop: int) -> Points:
        """The points start ... stop - 1."""
        return Points(self.x[start:stop], None if self.normals is None else self.normals[start:stop])


Batch = Mapping[str, Points]
"""Points by region: "interior" and "boundary"."""


@dataclass(frozen=True)
class Box:
    """The box of the points with lower_i <= x_i <= upper_i; with d = 1 an interval."""

    lower: tuple[float, ...]
    upper: tuple[float, ...]

    @property
    def dimension(self) -> int:
        return len(self.lower)

    @property
    def lengths(self) -> np.ndarray:
        return np.subtract(self.upper, self.lower)

    def place(self, unit: np.ndarray) -> np.ndarray:
        """Points (n, d) of the unit cube, stretched over the box."""
        return np.asarray(self.lower) + unit * self.lengths

    def faces(self) -> list[tuple[int, int]]:
        """Every face as (axis, side): side -1 is the lower one, +1 the upper one."""
        return [(axis, side) for axis in range(self.dimension) for side in (-1, 1)]

    def across(self, axis: int) -> Box:
        """The box of dimension d - 1 that a face across `axis` spans."""
        return Box(self.lower[:axis] + self.lower[axis + 1 :], self.upper[:axis] + self.upper[axis + 1 :])
