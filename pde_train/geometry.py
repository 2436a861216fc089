"""Where an equation lives: boxes, their faces, and the points drawn on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pde_train.derivatives import TIME
from pde_train.errors import UsageError


@dataclass(frozen=True)
class Points:
    """Points x (n, d); on faces the outward unit normals (n, d), on a periodic region the opposite points (n, d)."""

    x: Tensor
    normals: Tensor | None = None
    across: Tensor | None = None

    def to(self, *, dtype: torch.dtype, device: torch.device | str) -> Points:
        return self._each(lambda t: t.to(device, dtype))

    def rows(self, start: int, stop: int) -> Points:
        """The points start ... stop - 1."""
        return self._each(lambda t: t[start:stop])

    def _each(self, change: Callable[[Tensor], Tensor]) -> Points:
        normals, across = (None if t is None else change(t) for t in (self.normals, self.across))
        return Points(change(self.x), normals, across)


Batch = Mapping[str, Points]
"""Points by region, see `faces_of`."""

Face = tuple[int, int]
"""A face of a box as (axis, side): side -1 is the lower one across that axis, +1 the upper one."""


def faces_of(region: str, coordinates: Sequence[str]) -> list[Face]:
    """The faces of a box that make up a region where equations hold; none for `interior`.

    `boundary`: every face but those across time. `initial`: the lower face across time. `periodic`: the lower faces
    across space, each point paired with the opposite one. `x_lower`, `x_upper`: one face, of any coordinate.
    """
    space = [axis for axis, coordinate in enumerate(coordinates) if coordinate != TIME]
    found: dict[str, list[Face]] = {
        "interior": [],
        "boundary": [(axis, side) for axis in space for side in (-1, 1)],
        "periodic": [(axis, -1) for axis in space],
    }
    for axis, coordinate in enumerate(coordinates):
        found |= {f"{coordinate}_lower": [(axis, -1)], f"{coordinate}_upper": [(axis, 1)]}
        if coordinate == TIME:
            found["initial"] = [(axis, -1)]
    if region not in found:
        initial = "initial, " if TIME in coordinates else ""
        raise UsageError(
            f"{region!r} is no region of this PDE: expected interior, boundary, {initial}periodic, "
            f"{coordinates[0]}_lower, {coordinates[0]}_upper, ..., name one of them in @on"
        )
    return found[region]


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

    def faces(self) -> list[Face]:
        """Every face, axis by axis."""
        return [(axis, side) for axis in range(self.dimension) for side in (-1, 1)]

    def across(self, axis: int) -> Box:
        """The box of dimension d - 1 that a face across `axis` spans."""
        return Box(self.lower[:axis] + self.lower[axis + 1 :], self.upper[:axis] + self.upper[axis + 1 :])
