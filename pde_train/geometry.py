"""The geometry of a PDE: points, domains with the parts of their boundaries, and boxes; `domains` has other shapes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

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
        given: Measured values (n, m) of m unknowns.
    """

    x: Tensor
    normals: Tensor | None = None
    across: Tensor | None = None
    factors: Tensor | None = None
    given: Tensor | None = None

    def to(self, *, dtype: torch.dtype, device: torch.device | str) -> Points:
        """The points in another precision and on another device."""
        return self._each(lambda t: t.to(device, dtype))

    def rows(self, start: int, stop: int) -> Points:
        """The points with indices start, ..., stop - 1."""
        return self._each(lambda t: t[start:stop])

    def at(self, rows: Tensor) -> Points:
        """The points with these indices (k,)."""
        return self._each(lambda t: t[rows])

    def some(self, count: int) -> Points:
        """At most so many of the points, from first to last: those of a face stand together."""
        total = len(self.x)
        return self if total <= count else self.at(torch.arange(count, device=self.x.device) * total // count)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Points:
        others = (self.normals, self.across, self.factors, self.given)
        return Points(change(self.x), *(None if t is None else change(t) for t in others))


Batch = Mapping[str, Points]
"""Points by region, see `faces_of`."""


def without_factors(batch: Batch) -> Batch:
    """The same points with the factor 1 for every residual."""
    return {region: replace(points, factors=None) for region, points in batch.items()}


NEAR = 1e-9
"""The distance from a boundary, relative to the size of the domain, at which its two sides are looked at."""

MOST_ROUNDS = 200
"""How often points in a box are drawn until enough of them lie in a domain."""

LOOKED_AT = 4096
"""The number of parameters at which the length of a curve is measured; 64 along each of two or three."""

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
    faces: dict[str, list[Face]] = {"interior": []}
    if space:
        faces["boundary"] = [(axis, side) for axis in space for side in (-1, 1)]
        faces["periodic"] = [(axis, -1) for axis in space]
    for axis, coordinate in enumerate(coordinates):
        faces |= {f"{coordinate}_lower": [(axis, -1)], f"{coordinate}_upper": [(axis, 1)]}
        if coordinate == TIME:
            faces["initial"] = [(axis, -1)]
    if region not in faces:
        named = ", ".join(name for name in ("interior", "boundary", "initial", "periodic") if name in faces)
        raise UsageError(
            f"{region!r} is no region of this PDE: expected {named}, "
            f"{coordinates[0]}_lower, {coordinates[0]}_upper, ..., name one of them in @on"
        )
    return faces[region]


@dataclass(frozen=True)
class Part:
    """A set of points as the image of a unit cube, such as a piece of a boundary.

    Attributes:
        parameters: The dimension p of the cube.
        place: The map from parameters (n, p) to points (n, d) and outward unit normals (n, d). Equal parts
            of the cube have images of equal length or area.
        size: The length or area of the image of the whole cube; 0 of a point, which is no part of `boundary`.
        keeps: Which of points (n, d) with their normals (n, d) belong to the set, as a mask (n,).
        closed: The parameters at whose two ends points of the cube have the same image, as at the start and the end
            of a circle or at a pole of a sphere.
        one_to_one: Whether points of the cube have different images away from those ends.
        across_time: Whether the set is a face across time, such as the initial one, which is no part of `boundary`.
    """

    parameters: int
    place: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    size: float
    keeps: Callable[[np.ndarray, np.ndarray], np.ndarray] = lambda x, normals: np.ones(len(x), dtype=bool)
    closed: frozenset[int] = frozenset()
    one_to_one: bool = True
    across_time: bool = False

    def share(self) -> float:
        """The length or area of what belongs to the set, from many equidistant parameters; random ones of many."""
        axis = (np.arange(LOOKED_AT) + 0.5) / LOOKED_AT if self.parameters == 1 else (np.arange(64) + 0.5) / 64
        if not self.parameters:
            unit = np.zeros((1, 0))
        elif self.parameters <= 3:
            unit = np.stack(np.meshgrid(*[axis] * self.parameters), axis=-1).reshape(-1, self.parameters)
        else:
            unit = np.random.default_rng(0).random((LOOKED_AT, self.parameters))
        return self.size * float(self.keeps(*self.place(unit)).mean())

    def draw(
        self, region: str, count: int, fill: Callable[[], np.ndarray], once: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw points of the set, again and again until there are enough.

        Args:
            region: The name of the set in an error.
            count: The number n of points.
            fill: Draws parameters (m, p).
            once: Whether `fill` gives the same each time, so that there are no more points than the first time.

        Returns:
            The points (n, d) and their normals (n, d), or fewer of both where they are drawn once.

        Raises:
            UsageError: There are too few.
        """
        found: list[tuple[np.ndarray, np.ndarray]] = []
        total = 0
        while total < count and len(found) < (1 if once else MOST_ROUNDS):
            x, normals = self.place(fill())
            kept = self.keeps(x, normals)
            found.append((x[kept], normals[kept]))
            total += int(kept.sum())
        if total < (1 if once else count):
            raise UsageError(
                f"{total} points were found in the region {region!r}, and {count} were asked for: expected a domain "
                "that fills more of the box around it, correct it or choose more points"
            )
        return np.concatenate([x for x, _ in found])[:count], np.concatenate([n for _, n in found])[:count]


class Domain(ABC):
    """A bounded set of points in d dimensions.

    Attributes:
        lower: The lower limits (d) of a box around it.
        upper: The upper limits (d) of that box.
    """

    lower: tuple[float, ...]
    upper: tuple[float, ...]

    @abstractmethod
    def contains(self, x: np.ndarray) -> np.ndarray:
        """Which of the points (n, d) lie in the domain, as a mask (n,)."""

    @abstractmethod
    def parts(self, coordinates: Sequence[str]) -> dict[str, Part]:
        """The pieces of the boundary by name.

        Args:
            coordinates: The names of the d coordinates.

        Returns:
            Every piece, and `initial` where the last coordinate is time.
        """

    def region(self, name: str, coordinates: Sequence[str]) -> list[Part]:
        """The pieces that make up a region in which equations hold.

        Args:
            name: `interior`, which has none; `boundary`, all but the initial time, other faces across time, those of
                holes and members included, and points; that of a piece; or that of a hole, whose pieces begin with it.
            coordinates: The names of the coordinates.

        Returns:
            The pieces.

        Raises:
            UsageError: There is no region of that name.
        """
        parts = self.parts(coordinates)
        if name == "interior":
            return []
        if name == "boundary":
            return [part for part in parts.values() if not part.across_time and part.size > 0]
        if name == "initial" and name not in parts and f"{TIME}_lower" in parts:  # of a box with time among its axes
            name = f"{TIME}_lower"
        found = [part for key, part in parts.items() if key == name or key.startswith(f"{name}_")]
        if not found:
            raise UsageError(
                f"{name!r} is no region of this PDE: expected interior, boundary, {', '.join(parts)}, name one of them "
                "in @on"
            )
        return found

    def covers(self, x: np.ndarray) -> np.ndarray:
        """Which of the points (n, d) lie in the domain or, up to rounding, on its boundary, that of a hole included."""
        shifts = NEAR * float(max(self.lengths)) * np.eye(self.dimension)
        near: np.ndarray = np.any([self.contains(x + shift) for shift in (0.0, *shifts, *-shifts)], axis=0)
        return near

    def interior(self) -> Part:
        """The domain itself: here what lies in it of the box around it. Its points have no normals."""
        size = float(np.prod(self.lengths))
        return Part(self.dimension, lambda unit: (self.place(unit), unit), size, lambda x, _: self.contains(x))

    @property
    def dimension(self) -> int:
        """The number d of coordinates."""
        return len(self.lower)

    @property
    def lengths(self) -> np.ndarray:
        """The lengths of the sides (d,) of the box around it."""
        return np.subtract(self.upper, self.lower)

    def place(self, unit: np.ndarray) -> np.ndarray:
        """Map points (n, d) of the unit cube to the box around the domain."""
        points: np.ndarray = np.asarray(self.lower) + unit * self.lengths
        return points


@dataclass(frozen=True)
class Box(Domain):
    """A box: the points with lower_i <= x_i <= upper_i; an interval for d = 1.

    Attributes:
        lower: The lower limits (d).
        upper: The upper limits (d).
    """

    lower: tuple[float, ...]
    upper: tuple[float, ...]

    def contains(self, x: np.ndarray) -> np.ndarray:
        inside: np.ndarray = np.all((x >= self.lower) & (x <= self.upper), axis=1)
        return inside

    def parts(self, coordinates: Sequence[str]) -> dict[str, Part]:
        found = {}
        for axis, side in self.faces():
            name = f"{coordinates[axis]}_{'lower' if side < 0 else 'upper'}"
            size = float(np.prod(np.delete(self.lengths, axis)))
            place, across_time = partial(self._on_face, axis, side), coordinates[axis] == TIME
            found[name] = Part(self.dimension - 1, place, size, across_time=across_time)
        return found

    def _on_face(self, axis: int, side: int, unit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x = self.place(np.insert(unit, axis, 0.0 if side < 0 else 1.0, axis=1))
        normals = np.zeros_like(x)
        normals[:, axis] = side
        return x, normals

    def faces(self) -> list[Face]:
        """All faces, axis by axis."""
        return [(axis, side) for axis in range(self.dimension) for side in (-1, 1)]

    def across(self, axis: int) -> Box:
        """The box of dimension d - 1 that is spanned by a face perpendicular to `axis`."""
        return Box(self.lower[:axis] + self.lower[axis + 1 :], self.upper[:axis] + self.upper[axis + 1 :])
