"""The names of derivatives: what an equation asks for (`Request`) and what it gets (`Jet`).

Both sides use names such as `u_xx`. A request translates them once into `Axes`, the sorted
coordinate indices that differentiators understand, and a differentiator returns one column for each
of them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

Axes = tuple[int, ...]
"""Sorted coordinate indices of one partial derivative: () is u itself, (1, 1) two derivatives along coordinate 1."""

Field = Callable[[Tensor], Tensor]
"""A row-wise map of points (n, d) to values (n, m): a network (m = 1), or m random features."""

TIME = "t"
"""The coordinate that `lap_u` and `bih_u` leave out."""

COORDINATE = r"[A-Za-z]\d*"
"""The pattern of a coordinate's name: a letter, or a letter and a number, so that `u_x1x12` has one reading only."""


@dataclass(frozen=True)
class Request:
    """The derivatives that an equation needs, by name, over named coordinates.

    A name is `u`; `u_` and coordinates in any order (`u_xxy`, `u_x1x12`); `lap_u`, the sum of
    second derivatives over the spatial coordinates; or `bih_u`, the Laplacian of the Laplacian.
    `a | b` joins two requests, so that one pass of a differentiator serves both.

    Attributes:
        names: The names of the derivatives.
        coordinates: The names of the coordinates, in the order of the columns of points (n, d).

    Raises:
        ValueError: There is no name, or one that names no derivative over these coordinates.
    """

    names: frozenset[str]
    coordinates: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.names:
            raise ValueError("a request names no derivative: expected at least one, such as u")
        for name in self.names:
            _terms(name, self.coordinates)

    @classmethod
    def parse(cls, names: str, coordinates: tuple[str, ...]) -> Request:
        """Make a request from names that are separated by blanks, as in `"u u_xx"`."""
        return cls(frozenset(names.split()), coordinates)

    def __or__(self, other: Request) -> Request:
        return Request(self.names | other.names, self.coordinates)

    @cached_property
    def terms(self) -> dict[str, dict[Axes, float]]:
        """Each name as a weighted sum of partial derivatives."""
        return {name: _terms(name, self.coordinates) for name in sorted(self.names)}

    @cached_property
    def axes(self) -> frozenset[Axes]:
        """All partial derivatives that the names need."""
        return frozenset(axes for terms in self.terms.values() for axes in terms)

    @property
    def order(self) -> int:
        """The highest order of derivative among `axes`."""
        return max(map(len, self.axes), default=0)


def _terms(name: str, coordinates: tuple[str, ...]) -> dict[Axes, float]:
    """The partial derivatives whose weighted sum a name means."""
    space = [i for i, c in enumerate(coordinates) if c != TIME]
    if name == "u":
        return {(): 1.0}
    if name == "lap_u":
        return {(i, i): 1.0 for i in space}
    if name == "bih_u":
        return dict(Counter(tuple(sorted((i, i, j, j))) for i in space for j in space))
    along = re.findall(COORDINATE, name[2:])
    if not along or name != "u_" + "".join(along) or not set(along) <= set(coordinates):
        listed = coordinates if len(coordinates) <= 5 else (*coordinates[:3], "...", coordinates[-1])
        raise ValueError(
            f"{name!r} names no derivative over the coordinates {', '.join(listed)}: "
            f"expected u, u_{coordinates[0]}, u_{coordinates[0] * 2}, ..., lap_u or bih_u"
        )
    return {tuple(sorted(coordinates.index(c) for c in along)): 1.0}


class Jet:
    """Read-only named columns at n points: coordinates and normals (n, 1), u and its derivatives (n, m).

    Columns are attributes: `d.x`, `d.u`, `d.u_xx`, `d.lap_u`, and on a boundary `d.n_x`, a
    component of the outward unit normal. On a periodic region there are also `d.across_u` and the
    like, the same columns at the opposite points.

    Args:
        columns: The columns by name.
    """

    __slots__ = ("_columns",)

    def __init__(self, columns: Mapping[str, Tensor]):
        object.__setattr__(self, "_columns", dict(columns))

    def __getattr__(self, name: str) -> Tensor:
        columns: dict[str, Tensor] = object.__getattribute__(self, "_columns")
        if name not in columns:
            raise AttributeError(
                f"this jet has no {name!r}, only {', '.join(sorted(columns))}: add it to needs= in @on"
            )
        return columns[name]

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a jet is read-only")

    @property
    def columns(self) -> Mapping[str, Tensor]:
        """A new dictionary of all columns by name."""
        return dict(object.__getattribute__(self, "_columns"))


def coordinate_columns(x: Tensor, coordinates: Sequence[str]) -> dict[str, Tensor]:
    """The columns (n, 1) of points x (n, d) by the names of the coordinates."""
    return {c: x[:, i : i + 1] for i, c in enumerate(coordinates)}
