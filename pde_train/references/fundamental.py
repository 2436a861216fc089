"""Laplace's equation and the screened one in polygons without discs, by sources outside of the domain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import k0

CROWDING = 4.0
"""How fast sources crowd at a corner: the nearest of n has the distance exp(-CROWDING (sqrt(n) - 1))."""

AROUND = 1.2
"""The radius of the circle of sources around the domain, relative to that of its corners."""

WITHIN = 0.7
"""The radius of the circle of sources in a disc, relative to that of the disc."""

Values = Callable[[np.ndarray], np.ndarray]
"""Values (n,) at points (n, 2)."""


@dataclass(frozen=True)
class Screened:
    """The equation lap u = k^2 u in a polygon without discs, with u given on its boundary.

    The solution is a combination of log|x - z|, or K_0(k |x - z|), for sources z outside of the domain, and a constant
    where k is 0, with coefficients by least squares on the boundary: the method of fundamental solutions. Sources lie
    on a circle around the domain, on circles in the discs and on a ray out of every corner, where they crowd so that
    singularities of corners are approximated, too (Gopal and Trefethen, SIAM J. Numer. Anal. 57, 2019). By the maximum
    principle no error in the domain is larger than the largest one on the boundary.

    Attributes:
        corners: The corners (c, 2) of the polygon, counter-clockwise.
        outer: The values of u on the polygon.
        discs: The center and the radius (x, y, r) of each disc.
        inner: The values of u on the circles.
        screening: The number k.
    """

    corners: Sequence[tuple[float, float]]
    outer: Values
    discs: Sequence[tuple[float, float, float]] = ()
    inner: Values = lambda x: np.zeros(len(x))
    screening: float = 0.0

    def solved(self, count: int) -> Values:
        """The solution with a number of sources at each corner, four times as many around and three times in a disc.

        Args:
            count: That number.

        Returns:
            The solution as a function.
        """
        sources = self._sources(count)

        def basis(x: np.ndarray) -> np.ndarray:
            distance = np.linalg.norm(x[:, None] - sources, axis=2)
            if self.screening:
                return np.asarray(k0(self.screening * distance))
            return np.column_stack([np.log(distance), np.ones(len(x))])

        x, values = self.boundary(4 * count)
        matrix = basis(x)
        scales = np.abs(matrix).max(axis=0)
        coefficients = np.linalg.lstsq(matrix / scales, values, rcond=1e-15)[0] / scales
        return lambda x: np.asarray(basis(x) @ coefficients)

    def boundary(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Points of the boundary, and u there.

        Args:
            count: The number of equidistant points of an edge and of a circle; as many crowd at each end of an edge.

        Returns:
            The points (n, 2) and the values (n,).
        """
        equidistant = (np.arange(count) + 0.5) / count
        crowded = 0.5 * np.exp(-2 * CROWDING * np.sqrt(count) * (np.arange(count) / count) ** 2)
        along = np.concatenate([equidistant, crowded, 1 - crowded])[:, None]
        ends = np.roll(self.corners, -1, axis=0)
        polygon = np.concatenate([start + along * (end - start) for start, end in zip(self.corners, ends, strict=True)])
        circles = [_circle(center, radius, count) for *center, radius in self.discs]
        values = [self.outer(polygon), *map(self.inner, circles)]
        return np.concatenate([polygon, *circles]), np.concatenate(values)

    def _sources(self, count: int) -> np.ndarray:
        corners = np.asarray(self.corners, dtype=float)
        middle = (corners.min(axis=0) + corners.max(axis=0)) / 2
        radius = np.linalg.norm(corners - middle, axis=1).max()
        distances = radius * np.exp(CROWDING * (np.sqrt(np.arange(1, count + 1)) - np.sqrt(count)))
        rays = []
        for before, corner, after in zip(
            np.roll(corners, 1, axis=0), corners, np.roll(corners, -1, axis=0), strict=True
        ):
            ahead, back = _unit(after - corner), _unit(before - corner)
            turn = ahead[0] * back[1] - ahead[1] * back[0]  # positive where the corner is convex
            rays.append(corner - np.sign(turn) * distances[:, None] * _unit(ahead + back))
        circles = [_circle(center, WITHIN * radius, 3 * count) for *center, radius in self.discs]
        return np.concatenate([_circle(middle, AROUND * radius, 4 * count), *rays, *circles])


def _circle(center: Sequence[float] | np.ndarray, radius: float, count: int) -> np.ndarray:
    """Equidistant points (count, 2) of a circle."""
    angle = 2 * np.pi * np.arange(count) / count
    return center + radius * np.column_stack([np.cos(angle), np.sin(angle)])


def _unit(vector: np.ndarray) -> np.ndarray:
    """A vector divided by its length."""
    unit: np.ndarray = vector / np.linalg.norm(vector)
    return unit
