"""What holes, corners and points leave of a domain, and unions of several."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from pde_train.domains.pieces import (
    Contains,
    bound,
    check_dimensions,
    check_names,
    is_outside,
    named,
    on_boundary,
    turned,
    with_pieces,
)
from pde_train.domains.shapes import Limits
from pde_train.errors import UsageError
from pde_train.geometry import Domain, Part


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
        check_names(self.holes)
        check_dimensions({"the whole": self.whole, **self.holes})
        bound(self, self.whole.lower, self.whole.upper)

    def contains(self, x: np.ndarray) -> np.ndarray:
        holes = [hole.contains(x) for hole in self.holes.values()]
        inside: np.ndarray = self.whole.contains(x) & ~np.any(holes, axis=0)
        return inside

    def parts(self, coordinates: Sequence[str]) -> dict[str, Part]:
        found, others = on_boundary(self, self.whole.parts(coordinates)), [self.whole.contains]
        for name, hole in self.holes.items():
            pieces = {key: turned(part) for key, part in named(name, hole.parts(coordinates)).items()}
            found = with_pieces(found, name, on_boundary(self, pieces, others))
            others = [*others, partial(is_outside, hole)]
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
        check_names(self.members)
        check_dimensions(self.members)
        limits = [[getattr(m, side) for m in self.members.values()] for side in ("lower", "upper")]
        bound(self, np.min(limits[0], axis=0), np.max(limits[1], axis=0))

    def contains(self, x: np.ndarray) -> np.ndarray:
        inside: np.ndarray = np.any([member.contains(x) for member in self.members.values()], axis=0)
        return inside

    def parts(self, coordinates: Sequence[str]) -> dict[str, Part]:
        found: dict[str, Part] = {}
        others: list[Contains] = []
        for name, member in self.members.items():
            found = with_pieces(found, name, on_boundary(self, named(name, member.parts(coordinates)), others))
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
        bound(self, self.shape.lower, self.shape.upper)

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
        check_names(self.points)
        for name, point in self.points.items():
            if len(point) != self.shape.dimension or not self.shape.covers(np.array([point])).all():
                raise UsageError(f"the point {name} at {point} lies outside of the domain: expected one inside of it")
        bound(self, self.shape.lower, self.shape.upper)

    def contains(self, x: np.ndarray) -> np.ndarray:
        return self.shape.contains(x)

    def parts(self, coordinates: Sequence[str]) -> dict[str, Part]:
        found = dict(self.shape.parts(coordinates))
        for name, point in self.points.items():
            found = with_pieces(found, name, {name: Part(0, partial(_at_point, np.array(point)), 0.0)})
        return found


def _at_point(point: np.ndarray, unit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.repeat(point[None, :], len(unit), axis=0), np.zeros((len(unit), len(point)))
