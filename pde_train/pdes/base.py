"""What an equation declares: where it lives, its residuals, its exact solution."""

from __future__ import annotations

import math
import re
from abc import ABC
from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass
from functools import cached_property, reduce
from numbers import Real
from operator import or_
from types import MappingProxyType
from typing import Any

from torch import Tensor

from pde_train.derivatives import COORDINATE, Jet, Request
from pde_train.errors import UsageError
from pde_train.geometry import Box, Face, faces_of


@dataclass(frozen=True)
class Equation:
    """One residual of a PDE: its name, the region where it holds, what it needs, and its formula on a jet."""

    name: str
    region: str
    request: Request
    residual: Callable[[Jet], Tensor]
    weight: float


def on(region: str, needs: str, when: Callable[[Any], bool] = lambda pde: True) -> Callable:
    """Mark a method of a PDE as the residual of an equation on a region, such as `"interior"` or `"boundary"`.

    region: see `pde_train.geometry.faces_of`. needs: names of derivatives, as in `"u u_t u_xx"`. when: whether the
    equation belongs to this instance.
    """

    def mark(method: Callable) -> Callable:
        method.equation = (region, needs, when)  # type: ignore[attr-defined]
        return method

    return mark


class PDE(ABC):
    """A differential equation with its conditions, on a box, for one unknown u.

    A subclass is a frozen dataclass of its parameters with methods marked by `@on`. Each takes a jet of columns (n, m)
    and returns the residual (n, m). Equations are inherited: a method of the same name takes the place of the inherited
    formula, on the inherited region where it has no mark of its own, and `name = None` removes the equation. `weights`
    multiplies the residuals of equations by name (1 where unsaid), in the loss and in the rows of a linear system.
    """

    coordinates: tuple[str, ...]
    domain: Box
    weights: Mapping[str, float] = MappingProxyType({})

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Refuse a declaration that no run could use.

        Raises UsageError: for a class that is no dataclass, coordinates that are no names or do not fit the domain, an
        empty domain, no equation in the interior, unknown names in `needs`, and weights of no equation.
        """
        kind = type(self).__name__
        if not is_dataclass(self):
            raise UsageError(f"{kind} is no dataclass: expected @dataclass(frozen=True) above the class of a PDE")
        self._check_coordinates(kind)
        marked = self._marked()
        if not isinstance(self.weights, Mapping) or not set(self.weights) <= set(marked):
            raise UsageError(
                f"pde.weights={self.weights} does not fit {kind}: expected numbers by the names of its equations, "
                f"{', '.join(marked)}"
            )
        for name, weight in self.weights.items():
            if isinstance(weight, bool) or not isinstance(weight, Real) or not math.isfinite(weight):
                raise UsageError(f"pde.weights.{name}={weight} is no weight: expected a finite number, such as 1.0")
        if not any(equation.region == "interior" for equation in self._equations):
            raise UsageError(
                f'{kind} has no equation in the interior: expected a method marked by @on("interior", needs=...)'
            )

    def _check_coordinates(self, kind: str) -> None:
        for coordinate in self.coordinates:
            if not re.fullmatch(COORDINATE, coordinate) or coordinate == "u":
                raise UsageError(
                    f"{kind} has a coordinate {coordinate!r}: expected a letter other than u, or a letter and a "
                    "number, such as x, t or x12"
                )
        lower, upper = self.domain.lower, self.domain.upper
        if not len(self.coordinates) == len(set(self.coordinates)) == len(lower) == len(upper):
            raise UsageError(
                f"{kind} has the coordinates ({', '.join(self.coordinates)}) on a box with {len(lower)} lower and "
                f"{len(upper)} upper limits: expected as many of each, correct coordinates or domain"
            )
        for coordinate, low, high in zip(self.coordinates, lower, upper, strict=True):
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise UsageError(
                    f"the domain of {kind} goes from {coordinate}={low} to {high}: expected a finite lower limit below "
                    "a finite upper one, correct its Box"
                )

    def exact(self, d: Jet) -> Tensor:
        """The exact solution (n, 1) at the coordinates of the jet; a PDE without this method has none."""
        raise NotImplementedError(f"{type(self).__name__} has no exact solution")

    @property
    def has_exact(self) -> bool:
        """Whether the exact solution is known, so that errors can be measured."""
        return type(self).exact is not PDE.exact

    def equations(self) -> tuple[Equation, ...]:
        """The equations of this instance, those of the interior first, in the order of their definition."""
        return self._equations

    @cached_property
    def regions(self) -> dict[str, tuple[list[Equation], Request]]:
        """The equations of every region that has any, and all that they need, fused into one request."""
        found: dict[str, list[Equation]] = {}
        for equation in self._equations:
            found.setdefault(equation.region, []).append(equation)
        return {region: (here, reduce(or_, [e.request for e in here])) for region, here in found.items()}

    @cached_property
    def faces(self) -> dict[str, list[Face]]:
        """The faces of every region but the interior, where equations of this instance hold."""
        return {region: faces_of(region, self.coordinates) for region in self.regions if region != "interior"}

    @cached_property
    def _equations(self) -> tuple[Equation, ...]:
        found = [
            Equation(name, region, self._request(name, needs), getattr(self, name), float(self.weights.get(name, 1.0)))
            for name, (region, needs, when) in self._marked().items()
            if when(self)
        ]
        return tuple(sorted(found, key=lambda equation: equation.region != "interior"))

    def _request(self, name: str, needs: str) -> Request:
        try:
            return Request.parse(needs, self.coordinates)
        except ValueError as error:
            raise UsageError(f"needs={needs!r} of the equation {name!r} of {type(self).__name__}: {error}") from error

    def _marked(self) -> dict[str, tuple[str, str, Callable[[Any], bool]]]:
        """What `@on` said of each equation, those of base classes first, in the order of their definition."""
        found: dict[str, tuple[str, str, Callable[[Any], bool]]] = {}
        for base in reversed(type(self).__mro__):
            for name, method in vars(base).items():
                if hasattr(method, "equation"):
                    found[name] = method.equation
                elif name in found and method is None:
                    del found[name]
        return found

    @property
    def order(self) -> int:
        """The highest order of derivative that an equation of this instance asks for."""
        return max(equation.request.order for equation in self.equations())


BOUNDARIES = ("simply_supported", "clamped")


def check_boundary(boundary: str) -> None:
    """Refuse anything but the two ways of holding a plate or beam."""
    if boundary not in BOUNDARIES:
        raise UsageError(f"pde.boundary={boundary} is unknown: expected one of {', '.join(BOUNDARIES)}, choose one")


def check_frequency(frequency: float) -> None:
    """Refuse a frequency that makes no wave, or one whose fourth power is no number."""
    if isinstance(frequency, bool) or not isinstance(frequency, Real) or not 0 < abs(frequency) < 1e6:
        raise UsageError(f"pde.frequency={frequency} makes no wave: expected a number other than 0, such as 1.0")
