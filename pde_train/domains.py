"""Domains other than boxes: discs, balls, polygons, what holes or corners leave of them, unions, all of them in time.

A domain says which points it contains, and describes the pieces of its boundary as images of unit cubes, so that every
sampler serves each of them (`pde_train.samplers.base`).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import shapely
from scipy import special

from pde_train.derivatives import TIME
from pde_train.errors import UsageError
from pde_train.geometry import NEAR, Box, Domain, Part

RESERVED = ("interior", "boundary", "initial", "periodic", "data")
"""Names of regions that no hole may have."""

CLOSEST = 2.0**-53
"""The least distance from 0 and 1 of uniform numbers in place of which there are normal ones."""

Limits = tuple[float, ...]

Contains = Callable[[np.ndarray], np.ndarray]
"""Which of points (n, d) belong to a set, as a mask (n,)."""


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
        _bound(self, np.subtract(self.center, self.radius), np.add(self.center, self.radius))

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
            return _named("sphere", Box(self.lower, self.upper).parts(coordinates))
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
        _bound(self, np.min(self.corners, axis=0), np.max(self.corners, axis=0))

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


@dataclass(frozen=True)
class Difference(Domain):
    """A domain without some holes.

    The boundary has the pieces of the domain outside of the holes. The pieces of a hole inside the domain
    have its name where it has one, and otherwise names that begin with it: `cylinder`, or `step_x_upper`. What several
    of them share belongs to the first one.

    Attributes:
        whole: The domain.
        holes: The holes by name.

    Raises:
        UsageError: The name of a hole is that of another region, or its dimension is not that of the domain.
    """

    whole: Domain
    holes: Mapping[str, Domain]
    lower: Limits = field(init=False)
    upper: Limits = field(init=False)

    def __post_init__(self) -> None:
        _check_names(self.holes)
        _check_dimensions({"the whole": self.whole, **self.holes})
        _bound(self, self.whole.lower, self.whole.upper)

    def contains(self, x: np.ndarray) -> np.ndarray:
        holes = [hole.contains(x) for hole in self.holes.values()]
        inside: np.ndarray = self.whole.contains(x) & ~np.any(holes, axis=0)
        return inside

    def parts(self, coordinates: Sequence[str]) -> dict[str, Part]:
        found, others = _on_boundary(self, self.whole.parts(coordinates)), [self.whole.contains]
        for name, hole in self.holes.items():
            pieces = {key: _turned(part) for key, part in _named(name, hole.parts(coordinates)).items()}
            found = _with(found, name, _on_boundary(self, pieces, others))
            others = [*others, partial(_is_outside, hole)]
        return found


@dataclass(frozen=True)
class Union(Domain):
    """All points of some domains; their pieces outside of the others have names as those of holes, see `Difference`.

    What pieces of several domains share belongs to the first one.

    Attributes:
        members: The domains by name.

    Raises:
        UsageError: The name of a domain is that of another region, there is none, or their dimensions differ.
    """

    members: Mapping[str, Domain]
    lower: Limits = field(init=False)
    upper: Limits = field(init=False)

    def __post_init__(self) -> None:
        _check_names(self.members)
        _check_dimensions(self.members)
        limits = [[getattr(m, side) for m in self.members.values()] for side in ("lower", "upper")]
        _bound(self, np.min(limits[0], axis=0), np.max(limits[1], axis=0))

    def contains(self, x: np.ndarray) -> np.ndarray:
        inside: np.ndarray = np.any([member.contains(x) for member in self.members.values()], axis=0)
        return inside

    def parts(self, coordinates: Sequence[str]) -> dict[str, Part]:
        found: dict[str, Part] = {}
        others: list[Contains] = []
        for name, member in self.members.items():
            found = _with(found, name, _on_boundary(self, _named(name, member.parts(coordinates)), others))
            others = [*others, member.contains]
        return found


@dataclass(frozen=True)
class Away(Domain):
    """What lies away from some points of a domain, such as corners where a solution is singular.

    The boundary has the pieces of the domain without what is near those points. No piece is added, so that no
    condition holds where points are left out.

    Attributes:
        shape: The domain.
        corners: The points (k, d).
        distance: The distance within which points are left out.

    Raises:
        UsageError: The distance is not positive, or a point has not as many coordinates as the domain.
    """

    shape: Domain
    corners: Sequence[tuple[float, ...]]
    distance: float
    lower: Limits = field(init=False)
    upper: Limits = field(init=False)

    def __post_init__(self) -> None:
        if isinstance(self.distance, bool) or not 0 < self.distance < math.inf:
            raise UsageError(
                f"points within {self.distance} of corners cannot be left out: expected a positive distance, such as "
                "0.05"
            )
        if any(len(corner) != self.shape.dimension for corner in self.corners):
            raise UsageError(
                f"the corners {self.corners} lie in no domain of {self.shape.dimension} dimensions: expected as many "
                "coordinates of each"
            )
        _bound(self, self.shape.lower, self.shape.upper)

    def contains(self, x: np.ndarray) -> np.ndarray:
        inside: np.ndarray = self.shape.contains(x) & self._is_away(x)
        return inside

    def parts(self, coordinates: Sequence[str]) -> dict[str, Part]:
        def kept(part: Part) -> Part:
            return replace(part, keeps=lambda x, normals: part.keeps(x, normals) & self._is_away(x))

        return {name: kept(part) for name, part in self.shape.parts(coordinates).items()}

    def _is_away(self, x: np.ndarray) -> np.ndarray:
        distances = [np.linalg.norm(x - np.asarray(corner), axis=1) for corner in self.corners]
        away: np.ndarray = np.all([d >= self.distance for d in distances], axis=0)
        return away


@dataclass(frozen=True)
class Pinned(Domain):
    """A domain in which some points are regions of their own, such as the one at which a pressure is given.

    They are no part of `boundary`, and whatever the sampler is, such a region is that one point.

    Attributes:
        shape: The domain.
        points: The points (d) by name.

    Raises:
        UsageError: The name of a point is that of another region, or a point lies outside of the domain.
    """

    shape: Domain
    points: Mapping[str, tuple[float, ...]]
    lower: Limits = field(init=False)
    upper: Limits = field(init=False)

    def __post_init__(self) -> None:
        _check_names(self.points)
        for name, point in self.points.items():
            if len(point) != self.shape.dimension or not self.shape.covers(np.array([point])).all():
                raise UsageError(f"the point {name} at {point} lies outside of the domain: expected one inside of it")
        _bound(self, self.shape.lower, self.shape.upper)

    def contains(self, x: np.ndarray) -> np.ndarray:
        return self.shape.contains(x)

    def parts(self, coordinates: Sequence[str]) -> dict[str, Part]:
        found = dict(self.shape.parts(coordinates))
        for name, point in self.points.items():
            found = _with(found, name, {name: Part(0, partial(_at_point, np.array(point)), 0.0)})
        return found


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
        _bound(self, (*self.shape.lower, self.start), (*self.shape.upper, self.end))

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


def _bound(domain: Domain, lower: Sequence[float] | np.ndarray, upper: Sequence[float] | np.ndarray) -> None:
    """Give a frozen domain the box around it."""
    object.__setattr__(domain, "lower", tuple(map(float, lower)))
    object.__setattr__(domain, "upper", tuple(map(float, upper)))


def _directions(unit: np.ndarray) -> np.ndarray:
    """Unit vectors (n, d), uniform on the sphere, from points (n, d) of the unit cube."""
    normal = special.ndtri(np.clip(unit, CLOSEST, 1 - CLOSEST))
    directions: np.ndarray = normal / np.linalg.norm(normal, axis=1, keepdims=True)
    return directions


def _check_names(names: Iterable[str]) -> None:
    for name in names:
        if not name.isidentifier() or name in RESERVED:
            raise UsageError(
                f"{name!r} names no piece of a boundary: expected a word other than {', '.join(RESERVED)}, such as hole"
            )
        if longer := [other for other in names if other.startswith(f"{name}_")]:
            raise UsageError(_AMBIGUOUS.format(name, longer[0]))


_AMBIGUOUS = (
    "@on cannot tell the pieces {} and {} of a domain apart: expected names that differ, none of which begins with "
    "another one and _, such as hole_1 and hole_2, choose others"
)


def _with(found: Mapping[str, Part], name: str, pieces: Mapping[str, Part]) -> dict[str, Part]:
    """Pieces of a boundary, and those of one more hole, member or point, each of which has a name of its own."""
    for other in found:
        if other == name or other.startswith(f"{name}_") or any(key.startswith(f"{other}_") for key in (name, *pieces)):
            raise UsageError(_AMBIGUOUS.format(name, other))
    return {**found, **pieces}


def _check_dimensions(domains: Mapping[str, Domain]) -> None:
    if len({domain.dimension for domain in domains.values()}) != 1:
        each = ", ".join(f"{name} has {domain.dimension}" for name, domain in domains.items()) or "there is none"
        raise UsageError(
            f"domains of different dimensions cannot be combined ({each}): expected the same, with InTime around all "
            "of them where there is time"
        )


def _at_point(point: np.ndarray, unit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.repeat(point[None, :], len(unit), axis=0), np.zeros((len(unit), len(point)))


def _on_edge(
    start: np.ndarray, along: np.ndarray, normal: np.ndarray, unit: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    return start + unit * along, np.repeat(normal[None, :], len(unit), axis=0)


def _named(name: str, parts: Mapping[str, Part]) -> dict[str, Part]:
    """The pieces of a hole under its name."""
    return {name if len(parts) == 1 else f"{name}_{key}": part for key, part in parts.items()}


def _turned(part: Part) -> Part:
    """A piece with its normals the other way."""

    def place(unit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x, normals = part.place(unit)
        return x, -normals

    return replace(part, place=place, keeps=lambda x, normals: part.keeps(x, -normals))


def _is_outside(domain: Domain, x: np.ndarray) -> np.ndarray:
    return ~domain.contains(x)


def _on_boundary(domain: Domain, parts: Mapping[str, Part], others: Sequence[Contains] = ()) -> dict[str, Part]:
    """What of some pieces lies on the boundary of a domain, and on that of none of some other sets.

    A boundary is where the set is on the one side and not on the other.

    Args:
        domain: The domain.
        parts: The pieces.
        others: The sets whose pieces of the same boundary are there already, so that what they share is there once.

    Returns:
        The pieces without the rest.
    """
    step = NEAR * float(max(domain.lengths))

    def kept(part: Part) -> Part:
        def keeps(x: np.ndarray, normals: np.ndarray) -> np.ndarray:
            inner, outer = x - step * normals, x + step * normals
            kept: np.ndarray = domain.contains(inner) & ~domain.contains(outer) & part.keeps(x, normals)
            for contains in others:
                kept &= ~contains(inner) | contains(outer)
            return kept

        return replace(part, keeps=keeps)

    return {name: kept(part) for name, part in parts.items()}
