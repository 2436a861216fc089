"""Discs, balls and polygons."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import shapely
from scipy import special

from pde_train.derivatives import TIME
from pde_train.domains.pieces import bound, named
from pde_train.errors import UsageError
from pde_train.geometry import Box, Domain, Part

CLOSEST = 2.0**-53
"""The least distance from 0 and 1 of uniform numbers in place of which there are normal ones."""

Limits = tuple[float, ...]


@dataclass(frozen=True)
class Round(Domain):
    """The points within a distance of a center, in as many dimensions as it has.

    Attributes:
        center: The center (d).
        radius: The radius.

    Raises:
        UsageError: The radius is not positive, a number is not finite, or the center of a disc has not two.
    """

    center: tuple[float, ...]
    radius: float
    lower: Limits = field(init=False)
    upper: Limits = field(init=False)

    def __post_init__(self) -> None:
        if not (np.isfinite(self.center).all() and 0 < self.radius < math.inf):
            raise UsageError(
                f"a {type(self).__name__.lower()} at {self.center} of radius {self.radius} has no points: expected "
                "finite numbers, and a positive radius"
            )
        bound(self, np.subtract(self.center, self.radius), np.add(self.center, self.radius))

    def contains(self, x: np.ndarray) -> np.ndarray:
        inside: np.ndarray = np.linalg.norm(x - np.asarray(self.center), axis=1) <= self.radius
        return inside

    def _at(self, normals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The points of the boundary with some normals, and these."""
        return self.center + self.radius * normals, normals

    def _circle(self) -> Part:
        """The boundary in the plane, by the angle."""

        def place(unit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            angle = 2 * math.pi * unit[:, 0]
            return self._at(np.stack([np.cos(angle), np.sin(angle)], axis=1))

        return Part(1, place, 2 * math.pi * self.radius, closed=frozenset({0}))


@dataclass(frozen=True)
class Disc(Round):
    """A disc in the plane, whose boundary is `circle`."""

    center: tuple[float, float]

    def __post_init__(self) -> None:
        if len(self.center) != 2:
            raise UsageError(
                f"a disc has a center {self.center}: expected 2 coordinates; a Ball has as many as its center"
            )
        super().__post_init__()

    def parts(self, coordinates: Sequence[str]) -> dict[str, Part]:
        return {"circle": self._circle()}


@dataclass(frozen=True)
class Ball(Round):
    """A ball in any dimension, whose boundary is `sphere`; in one dimension its ends, `sphere_x_lower` and so on.

    In more than three dimensions directions are those of independent normal numbers (Muller, Commun. ACM 2, 1959), and
    distances from the center in d dimensions the d-th roots of uniform numbers: the ball fills too little of the box
    around it.
    """

    def parts(self, coordinates: Sequence[str]) -> dict[str, Part]:
        if self.dimension == 1:
            return named("sphere", Box(self.lower, self.upper).parts(coordinates))
        if self.dimension == 2:
            return {"sphere": self._circle()}
        if self.dimension == 3:
            return {"sphere": Part(2, self._by_height, 4 * math.pi * self.radius**2, closed=frozenset({0, 1}))}
        return {
            "sphere": Part(self.dimension, lambda unit: self._at(_directions(unit)), self._area(), one_to_one=False)
        }

    def interior(self) -> Part:
        if self.dimension <= 3:
            return super().interior()

        def place(unit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            directions = _directions(unit[:, 1:])
            return self.center + self.radius * unit[:, :1] ** (1 / self.dimension) * directions, directions

        return Part(self.dimension + 1, place, self._area() * self.radius / self.dimension, one_to_one=False)

    def _area(self) -> float:
        """The area of the sphere; of hundreds of dimensions, where it is smaller, the smallest positive number."""
        d = self.dimension
        logarithm = math.log(2) + d / 2 * math.log(math.pi) - math.lgamma(d / 2) + (d - 1) * math.log(self.radius)
        return max(math.exp(logarithm), sys.float_info.min)

    def _by_height(self, unit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Equal areas by the cylindrical projection of Archimedes."""
        height, angle = 2 * unit[:, 0] - 1, 2 * math.pi * unit[:, 1]
        across = np.sqrt(1 - height**2)
        return self._at(np.stack([across * np.cos(angle), across * np.sin(angle), height], axis=1))


@dataclass(frozen=True)
class Polygon(Domain):
    """A polygon in the plane, whose edges are `edge_0`, from the first corner to the second, `edge_1`, ...

    Attributes:
        corners: The corners (k, 2) in their order, either way round.

    Raises:
        UsageError: They are fewer than three, one follows itself, or the polygon intersects itself.
    """

    corners: Sequence[tuple[float, float]]
    lower: Limits = field(init=False)
    upper: Limits = field(init=False)

    def __post_init__(self) -> None:
        if len(self.corners) < 3 or any(len(c) != 2 for c in self.corners) or not np.isfinite(self.corners).all():
            raise UsageError(
                f"a polygon of the corners {self.corners} is none: expected three or more points (x, y) of finite "
                "numbers"
            )
        for corner, after in zip(self.corners, [*self.corners[1:], self.corners[0]], strict=True):
            if tuple(corner) == tuple(after):
                raise UsageError(
                    f"the corner {tuple(corner)} of a polygon follows itself: expected each corner once, also the "
                    "first, to which the last edge leads by itself"
                )
        shape = self._shape()
        if not shape.is_valid:
            raise UsageError(
                f"a polygon is not simple ({shapely.is_valid_reason(shape)}): expected corners in their order around "
                "it, correct them"
            )
        bound(self, np.min(self.corners, axis=0), np.max(self.corners, axis=0))

    def contains(self, x: np.ndarray) -> np.ndarray:
        inside: np.ndarray = shapely.intersects_xy(self._shape(), x[:, 0], x[:, 1])
        return inside

    def parts(self, coordinates: Sequence[str]) -> dict[str, Part]:
        corners = np.asarray(self.corners, dtype=float)
        around = 1.0 if shapely.is_ccw(self._shape().exterior) else -1.0
        found = {}
        for i, (start, end) in enumerate(zip(corners, np.roll(corners, -1, axis=0), strict=True)):
            along = end - start
            length = float(np.hypot(*along))
            normal = around * np.array([along[1], -along[0]]) / length
            place, space = partial(_on_edge, start, along, normal), [name != TIME for name in coordinates]
            found[f"edge_{i}"] = Part(1, place, length, across_time=not normal[space].any())
        return found

    def _shape(self) -> shapely.Polygon:
        return shapely.Polygon(self.corners)


def _directions(unit: np.ndarray) -> np.ndarray:
    """Unit vectors (n, d), uniform on the sphere, from points (n, d) of the unit cube."""
    normal = special.ndtri(np.clip(unit, CLOSEST, 1 - CLOSEST))
    directions: np.ndarray = normal / np.linalg.norm(normal, axis=1, keepdims=True)
    return directions


def _on_edge(
    start: np.ndarray, along: np.ndarray, normal: np.ndarray, unit: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    return start + unit * along, np.repeat(normal[None, :], len(unit), axis=0)
