"""The geometry of a PDE: boxes, their faces, and the points that are drawn on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pde_train.derivatives import TIME
from pde_train.errors import UsageError


@dataclass(frozen=True)
class Points:
    """The points of one region.

    Attributes:
        x: The points (n, d).
        normals: The outward unit normals (n, d) of points on faces.
        across: The opposite points (n, d) of a periodic region.
        factors: Factors (n, k) of the residuals of the k equations of the region in the loss; None for 1.
    """

    x: Tensor
    normals: Tensor | None = None
    across: Tensor | None = None
    factors: Tensor | None = None

    def to(self, *, dtype: torch.dtype, device: torch.device | str) -> Points:
        """The points in another precision and on another device."""
        return self._each(lambda t: t.to(device, dtype))

    def rows(self, start: int, stop: int) -> Points:
        """The points with indices start, ..., stop - 1."""
        return self._each(lambda t: t[start:stop])

    def at(self, rows: Tensor) -> Points:
        """The points with these indices (k,)."""
        return self._each(lambda t: t[rows])

    def _each(self, change: Callable[[Tensor], Tensor]) -> Points:
        others = (self.normals, self.across, self.factors)
        return Points(change(self.x), *(None if t is None else change(t) for t in others))


Batch = Mapping[str, Points]
"""Points by region, see `faces_of`."""


def without_factors(batch: Batch) -> Batch:
    """The same points with the factor 1 for every residual."""
    return {region: replace(points, factors=None) for region, points in batch.items()}


Face = tuple[int, int]
"""A face of a box as (axis, side); side -1 is the lower face perpendicular to that axis, +1 the upper one."""


def faces_of(region: str, coordinates: Sequence[str]) -> list[Face]:
    """The faces of a box that make up a region in which equations hold.

    - `interior` has no faces.
    - `boundary` has every face that is perpendicular to a spatial coordinate.
    - `initial` is the lower face perpendicular to time.
    - `periodic` has the lower faces perpendicular to spatial coordinates; each point is paired with
      the opposite one.
    - `x_lower` and `x_upper` are one face each, for any coordinate x.

    Args:
        region: The name of the region.
        coordinates: The names of the coordinates.

    Returns:
        The faces.

    Raises:
        UsageError: There is no region of that name.
    """
    space = [axis for axis, coordinate in enumerate(coordinates) if coordinate != TIME]
    faces: dict[str, list[Face]] = {
        "interior": [],
        "boundary": [(axis, side) for axis in space for side in (-1, 1)],
        "periodic": [(axis, -1) for axis in space],
    }
    for axis, coordinate in enumerate(coordinates):
        faces |= {f"{coordinate}_lower": [(axis, -1)], f"{coordinate}_upper": [(axis, 1)]}
        if coordinate == TIME:
            faces["initial"] = [(axis, -1)]
    if region not in faces:
        initial = "initial, " if TIME in coordinates else ""
        raise UsageError(
            f"{region!r} is no region of this PDE: expected interior, boundary, {initial}periodic, "
            f"{coordinates[0]}_lower, {coordinates[0]}_upper, ..., name one of them in @on"
        )
    return faces[region]


@dataclass(frozen=True)
class Box:
    """A box: the points with lower_i <= x_i <= upper_i; an interval for d = 1.

    Attributes:
        lower: The lower limits (d).
        upper: The upper limits (d).
    """

    lower: tuple[float, ...]
    upper: tuple[float, ...]

    @property
    def dimension(self) -> int:
        """The number d of coordinates."""
        return len(self.lower)

    @property
    def lengths(self) -> np.ndarray:
        """The lengths of the sides (d,)."""
        return np.subtract(self.upper, self.lower)

    def place(self, unit: np.ndarray) -> np.ndarray:
        """Map points (n, d) of the unit cube to the box."""
        points: np.ndarray = np.asarray(self.lower) + unit * self.lengths
        return points

    def faces(self) -> list[Face]:
        """All faces, axis by axis."""
        return [(axis, side) for axis in range(self.dimension) for side in (-1, 1)]

    def across(self, axis: int) -> Box:
        """The box of dimension d - 1 that is spanned by a face perpendicular to `axis`."""
        return Box(self.lower[:axis] + self.lower[axis + 1 :], self.upper[:axis] + self.upper[axis + 1 :])
