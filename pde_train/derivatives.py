"""The names of derivatives: what an equation asks for (`Request`) and what it gets (`Jet`).

Both sides use names such as `u_xx`. A request translates them once into `Axes`, the sorted
coordinate indices that differentiators understand, and a differentiator returns one column for each
of them. A differentiator knows one field u. Where a PDE has several unknowns, they are the columns of that
field: `Request.of_field` asks for the derivatives of all columns at once, and `Request.split` hands them out
by the names of the unknowns.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from types import ModuleType
from typing import Any

from torch import Tensor

Axes = tuple[int, ...]
"""Sorted coordinate indices of one partial derivative: () is u itself, (1, 1) two derivatives along coordinate 1."""

Field = Callable[[Tensor], Tensor]
"""A row-wise map of points (n, d) to values (n, m): a network of m unknowns, or m random features."""

TIME = "t"
"""The coordinate that `lap_u` and `bih_u` leave out."""

COORDINATE = r"[A-Za-z]\d*"
"""The pattern of a coordinate's name: a letter, or a letter and a number, so that `u_x1x12` has one reading only."""

UNKNOWN = r"(?!(n|lap|bih|across)$)[A-Za-z][A-Za-z0-9]*"
"""The pattern of an unknown's name: letters and digits, but none of the words that begin other names."""

ACROSS = "across_"
"""Prefix of the columns at the opposite points of a periodic region."""

SUMS = ("lap", "bih")
"""What begins the names of sums of derivatives, such as `lap_u`."""

FIELD = "u"
"""The name of the field that a differentiator knows."""


@dataclass(frozen=True)
class Request:
    """The derivatives that an equation needs, by name, over named coordinates.

    A name is that of an unknown, `u`; `u_` and coordinates in any order (`u_xxy`, `u_x1x12`); `lap_u`, the
    sum of second derivatives over the spatial coordinates; or `bih_u`, the Laplacian of the Laplacian.
    `a | b` joins two requests, so that one pass of a differentiator serves both.

    Attributes:
        names: The names of the derivatives.
        coordinates: The names of the coordinates, in the order of the columns of points (n, d).
        unknowns: The names of the unknowns, in the order of the columns of the field (n, m). One alone
            takes all columns.

    Raises:
        ValueError: There is no name, or one that names no derivative of these unknowns over these
            coordinates, such as `lap_u` over time alone.

    Examples:
        >>> request = Request.parse("u u_xy lap_u", coordinates=("x", "y"))
        >>> sorted(request.axes), request.order
        ([(), (0, 0), (0, 1), (1, 1)], 2)
        >>> request.terms["lap_u"]
        {(0, 0): 1.0, (1, 1): 1.0}
    """

    names: frozenset[str]
    coordinates: tuple[str, ...]
    unknowns: tuple[str, ...] = (FIELD,)

    def __post_init__(self) -> None:
        if not self.names:
            raise ValueError(f"a request names no derivative: expected at least one, such as {self.unknowns[0]}")
        for name in self.names:
            self._parsed(name)

    @classmethod
    def parse(cls, names: str, coordinates: tuple[str, ...], unknowns: tuple[str, ...] = (FIELD,)) -> Request:
        """Make a request from names that are separated by blanks, as in `"u u_xx"`."""
        return cls(frozenset(names.split()), coordinates, unknowns)

    def __or__(self, other: Request) -> Request:
        return Request(self.names | other.names, self.coordinates, self.unknowns)

    @cached_property
    def of_field(self) -> Request:
        """The same derivatives of the whole field, whose name is `u`, for a differentiator."""
        if self.unknowns == (FIELD,):
            return self
        return Request(frozenset(of_field for _, of_field in self._columns.values()), self.coordinates)

    def split(self, columns: Mapping[str, Tensor], shared: bool = False) -> dict[str, Tensor]:
        """The columns of each unknown.

        Args:
            columns: The answer (n, m) to `of_field` by name, and coordinates.
            shared: Whether every unknown has all m columns, as those of features.

        Returns:
            The coordinates, and the column (n, 1) of every name; (n, m) where columns are shared, and of
            one unknown.
        """
        if self.unknowns == (FIELD,):
            return dict(columns)
        found = {c: columns[c] for c in self.coordinates}
        for name, (place, of_field) in self._columns.items():
            whole = columns[of_field]
            found[name] = whole if shared or len(self.unknowns) == 1 else whole[:, place : place + 1]
        return found

    @cached_property
    def _columns(self) -> dict[str, tuple[int, str]]:
        """The place of each name's unknown, and the name of the derivative of the field."""
        return {name: self._parsed(name) for name in sorted(self.names)}

    def _parsed(self, name: str) -> tuple[int, str]:
        unknown = unknown_of(name, self.unknowns)
        if unknown is None:
            raise ValueError(_no_derivative(name, self.coordinates, self.unknowns))
        is_last = name.rpartition("_")[0] in SUMS or not name.startswith(unknown)
        of_field = name[: -len(unknown)] + FIELD if is_last else FIELD + name[len(unknown) :]
        _terms(of_field, self.coordinates, unknown)
        return self.unknowns.index(unknown), of_field

    @cached_property
    def terms(self) -> dict[str, dict[Axes, float]]:
        """Each name as a weighted sum of partial derivatives of its unknown."""
        return {name: _terms(of_field, self.coordinates) for name, (_, of_field) in self._columns.items()}

    @cached_property
    def axes(self) -> frozenset[Axes]:
        """All partial derivatives that the names need."""
        return frozenset(axes for terms in self.terms.values() for axes in terms)

    @property
    def order(self) -> int:
        """The highest order of derivative among `axes`."""
        return max(map(len, self.axes), default=0)


def _terms(name: str, coordinates: tuple[str, ...], unknown: str = FIELD) -> dict[Axes, float]:
    """The partial derivatives whose weighted sum a name of a derivative of the field means; `unknown` is for errors."""
    space = [i for i, c in enumerate(coordinates) if c != TIME]
    if name == "u":
        return {(): 1.0}
    if name == "lap_u" and space:
        return {(i, i): 1.0 for i in space}
    if name == "bih_u" and space:
        return dict(Counter(tuple(sorted((i, i, j, j))) for i in space for j in space))
    along = re.findall(COORDINATE, name[2:])
    if not along or name != "u_" + "".join(along) or not set(along) <= set(coordinates):
        named = name[:-1] + unknown if name.rpartition("_")[0] in SUMS else unknown + name[1:]
        raise ValueError(_no_derivative(named, coordinates, (unknown,)))
    return {tuple(sorted(coordinates.index(c) for c in along)): 1.0}


def unknown_of(name: str, unknowns: Sequence[str]) -> str | None:
    """The unknown of which a column is a value or a derivative; None of a coordinate or a normal."""
    prefix, _, last = name.removeprefix(ACROSS).rpartition("_")
    unknown = last if prefix in SUMS else name.removeprefix(ACROSS).partition("_")[0]
    return unknown if unknown in unknowns else None


def _no_derivative(name: str, coordinates: tuple[str, ...], unknowns: tuple[str, ...]) -> str:
    listed = coordinates if len(coordinates) <= 5 else (*coordinates[:3], "...", coordinates[-1])
    among = "" if len(unknowns) == 1 else f"of {', '.join(unknowns)} "
    u, x = unknowns[0], coordinates[0]
    sums = f"lap_{u} or bih_{u}" if set(coordinates) != {TIME} else f"as lap_{u} and bih_{u} leave out {TIME}"
    return (
        f"{name!r} names no derivative {among}over the coordinates {', '.join(listed)}: "
        f"expected {u}, {u}_{x}, {u}_{x * 2}, ..., {sums}"
    )


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

    def __repr__(self) -> str:
        shapes = (f"{name}: {tuple(column.shape)}" for name, column in self.columns.items())
        return f"Jet({', '.join(shapes)})"

    @property
    def columns(self) -> Mapping[str, Tensor]:
        """A new dictionary of all columns by name."""
        return dict(object.__getattribute__(self, "_columns"))


def coordinate_columns(x: Tensor, coordinates: Sequence[str]) -> dict[str, Tensor]:
    """The columns (n, 1) of points x (n, d) by the names of the coordinates."""
    return {c: x[:, i : i + 1] for i, c in enumerate(coordinates)}


class _CallableModule(ModuleType):
    """This module, which as `pde_train.derivatives(...)` is the function of that name in `pde_train.api` as well."""

    def __call__(self, *arguments: Any, **named: Any) -> Jet:
        """Derivatives of a network at points, see `pde_train.api.derivatives`, whose arguments and errors it has.

        Args:
            arguments: `u, x, names, by, coordinates`.
            named: The same by name.

        Returns:
            The columns (n, m) by name.
        """
        jet: Jet = import_module("pde_train.api").derivatives(*arguments, **named)
        return jet


sys.modules[__name__].__class__ = _CallableModule
