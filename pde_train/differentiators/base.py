"""What every way of taking derivatives offers."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod

from torch import Tensor

from pde_train.derivatives import Axes, Field, Jet, Request, coordinate_columns


class Differentiator(ABC):
    """A way of taking derivatives of a row-wise field at points.

    exact: whether it is exact to rounding.
    compilable: whether one evaluation does the same real operations as the next, so that it may be compiled once.
    adaptive: whether `adapted` has anything to choose.
    reach: a distance from a point, set by the user, at which u is evaluated for it; 0 where there is none.
    """

    exact: bool = True
    compilable: bool = True
    adaptive: bool = False
    reach: float = 0.0

    @property
    def label(self) -> str:
        """The name by which tables, reports and the tracking store show this differentiator, such as `complex_step`.

        By default it is the class name in lower case. A class whose settings change its results puts them into the
        label, so that two schemes that a study compares never share one: `FD4 h=0.001`.
        """
        return re.sub(r"(?<!^)(?=[A-Z])", "_", type(self).__name__).lower()

    @abstractmethod
    def partials(self, u: Field, x: Tensor, axes: frozenset[Axes]) -> dict[Axes, Tensor]:
        """Partial derivatives of u at x, each (n, m), for every entry of `axes`.

        u maps (n, d) to (n, m) row by row: row i of the values depends on row i of the points alone.
        The result is differentiable by whatever parameters u holds, also under torch.func.
        """

    def __call__(self, u: Field, x: Tensor, request: Request) -> Jet:
        """The coordinates (n, 1) and every requested name (n, m), as a Jet."""
        partials = self.partials(u, x, request.axes)
        columns = coordinate_columns(x, request.coordinates)
        for name, terms in request.terms.items():
            columns[name] = sum_of([partials[axes] if c == 1 else c * partials[axes] for axes, c in terms.items()])
        return Jet(columns)

    def fitted(self, spacing: tuple[float, ...], magnitude: float = 1.0, length: float = 1.0) -> Differentiator:
        """This differentiator for the points of a problem; most have no use for it.

        spacing: their distance along each coordinate. magnitude: the largest |coordinate|. length: the shortest side of
        the domain.
        """
        return self

    def adapted(self, u: Field, x: Tensor, axes: frozenset[Axes]) -> Differentiator:
        """This differentiator with what it chooses by itself, such as a step, chosen for a field as it is now."""
        return self

    def excess(self, u: Field, x: Tensor, axes: frozenset[Axes]) -> float:
        """How many times better the best choice of what is automatic is for a field as it is now; 1 if unknown."""
        return 1.0


def sum_of(columns: list[Tensor]) -> Tensor:
    """The sum of a non-empty list, without an addition to zero."""
    total = columns[0]
    for column in columns[1:]:
        total = total + column
    return total
