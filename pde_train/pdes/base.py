"""The base class of PDEs: where the equations hold, their residuals, and the exact solution."""

from __future__ import annotations

import copy
import math
import re
from abc import ABC
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import cached_property, reduce
from numbers import Real
from operator import or_
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from pde_train.derivatives import COORDINATE, FIELD, UNKNOWN, Jet, Request, coordinate_columns
from pde_train.errors import UsageError
from pde_train.geometry import Box, Domain, Face, Part, Points, faces_of
from pde_train.pdes.equations import Equation, fulfils, on
from pde_train.pdes.inverse import Data, Learned, Measurements
from pde_train.references.base import Reference

__all__ = ["PDE", "Equation", "fulfils", "on"]

DATA = "data"
"""The region of measured points."""

WEIGHTS = "weights."
"""Prefix of the weights of equations among the numbers of a PDE."""


class PDE(ABC):
    """A differential equation, or a system of them, with its boundary and initial conditions on a domain.

    A subclass is a frozen dataclass of its parameters with methods marked by `@on`. Each method
    takes a jet of columns (n, 1) and returns the residual (n, 1), or several residuals as columns
    (n, k). Equations are inherited: a method of the same name replaces the inherited formula, on the
    inherited region where it has no mark of its own, and `name = None` removes the equation.

    Attributes:
        coordinates: The names of the coordinates, in the order of the columns of points (n, d).
        unknowns: The names of the unknowns, in the order of the model's columns. Of one unknown alone,
            `d.u` has all columns of the model.
        domain: Where the equation holds: a box, or one of `pde_train.domains`.
        weights: The factors of the residuals of equations, by name, in the loss and in the rows of
            a linear system; 1 where an equation is not named.
        learned: The numbers of this PDE, among its `float` fields, that are learnt with the network.
        data: Measured values. Without an equation in the region `data`, which has the columns
            `d.given_u`, there is one for each unknown that was measured: u - given u = 0.
    """

    coordinates: tuple[str, ...]
    unknowns: tuple[str, ...] = (FIELD,)
    domain: Domain
    weights: Mapping[str, float] = MappingProxyType({})
    learned: Mapping[str, Learned] = MappingProxyType({})
    data: Data | None = None

    _exact_conditions = False

    def __post_init__(self) -> None:
        self.check()
        _ = self.measurements

    def check(self) -> None:
        """Refuse a declaration that no run could use.

        Raises:
            UsageError: The class is no dataclass, coordinates or unknowns are no names, the coordinates do
                not fit the domain, the domain is empty, there is no equation in the interior, `needs` has
                unknown names, or a weight has no equation.
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
        self._check_learned(kind)
        if not any(equation.region == "interior" for equation in self._equations):
            raise UsageError(
                f'{kind} has no equation in the interior: expected a method marked by @on("interior", needs=...)'
            )

    def _check_learned(self, kind: str) -> None:
        for name in self.learned:
            if name not in self.number_fields():
                raise UsageError(
                    f"{kind} has no number {name!r} that could be learnt: expected one of "
                    f"{', '.join(self.number_fields()) or 'its float fields, of which it has none'}"
                )
        if self._given is None and any(region == DATA for region, _, _ in self._marked().values()):
            raise UsageError(f"{kind} has an equation for measured values and no file of them: expected pde.data.path")

    def _check_coordinates(self, kind: str) -> None:
        if isinstance(self.unknowns, str) or len(self.unknowns) != len(set(self.unknowns)) or not self.unknowns:
            raise UsageError(f'{kind} has the unknowns {self.unknowns!r}: expected different names, such as ("u", "v")')
        for unknown in self.unknowns:
            if not re.fullmatch(UNKNOWN, unknown):
                raise UsageError(
                    f"{kind} has an unknown {unknown!r}: expected letters and digits, such as u or psi, but not n, "
                    "lap, bih or across, with which other names begin"
                )
        for coordinate in self.coordinates:
            if not re.fullmatch(COORDINATE, coordinate) or coordinate in self.unknowns:
                raise UsageError(
                    f"{kind} has a coordinate {coordinate!r}: expected a letter other than "
                    f"{', '.join(self.unknowns)}, or a letter and a number, such as x, t or x12"
                )
        lower, upper = self.domain.lower, self.domain.upper
        if not len(self.coordinates) == len(set(self.coordinates)) == len(lower) == len(upper):
            raise UsageError(
                f"{kind} has the coordinates ({', '.join(self.coordinates)}) on a domain with {len(lower)} lower and "
                f"{len(upper)} upper limits: expected as many of each, correct coordinates or domain"
            )
        for coordinate, low, high in zip(self.coordinates, lower, upper, strict=True):
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise UsageError(
                    f"the domain of {kind} goes from {coordinate}={low} to {high}: expected a finite lower limit below "
                    "a finite upper one, correct its Box"
                )

    def exact(self, d: Jet) -> Tensor | tuple[Tensor, ...]:
        """The exact solution at the coordinates of a jet; a PDE without this method, or with `exact = None`, has none.

        Args:
            d: A jet with the coordinates (n, 1).

        Returns:
            The column (n, 1) of the unknown, or a column for each of several unknowns.
        """
        raise NotImplementedError(f"{type(self).__name__} has no exact solution")

    def reference(self, x: np.ndarray) -> Reference:
        """A computed solution with its measured error, for a PDE without an exact one.

        Args:
            x: The points (n, d).

        Returns:
            The unknowns at the points, see `pde_train.references.base.certified`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no reference")

    def solution(self, x: Tensor) -> tuple[Tensor, float]:
        """The exact solution or the reference at points.

        Args:
            x: The points (n, d).

        Returns:
            The values (n, k) of k unknowns, and their relative L2 error, which is 0 of the exact solution.
        """
        if self._knows("exact"):
            return joined(self.exact(Jet(coordinate_columns(x, self.coordinates)))), 0.0
        reference = self.reference(x.detach().double().cpu().numpy())
        return torch.from_numpy(reference.values).to(x), reference.error

    def exact_at(self, x: Tensor) -> Tensor:
        """The exact solution, or the reference, (n, k) of k unknowns at points (n, d)."""
        return self.solution(x)[0]

    @property
    def has_exact(self) -> bool:
        """Whether a solution is known, exactly or as a reference, so that errors can be measured."""
        return self._knows("exact") or self._knows("reference")

    def _knows(self, solution: str) -> bool:
        return getattr(type(self), solution) not in (None, getattr(PDE, solution))

    def ansatz(self, d: Jet, raw: Tensor) -> Tensor | tuple[Tensor, ...]:
        """A function that fulfils conditions whatever the model is.

        It is affine in the model, such as g(x) + b(x) raw, where g fulfils the conditions and b is 0 where they hold
        (Lagaris, Likas, Fotiadis, IEEE Trans. Neural Networks 9, 1998, section II). `@fulfils` names those conditions.

        Args:
            d: A jet with the coordinates (n, 1).
            raw: The model (n, k) of the k unknowns, or the features (n, P) of a linear one.

        Returns:
            u, of the shape of `raw`; or a column for each of several unknowns.
        """
        raise NotImplementedError(f"{type(self).__name__} has no ansatz")

    def ansatz_at(self, x: Tensor, raw: Tensor) -> Tensor:
        """The ansatz at points (n, d)."""
        return joined(self.ansatz(Jet(coordinate_columns(x, self.coordinates)), raw))

    @property
    def fulfilled(self) -> tuple[str, ...]:
        """The names of the equations of this instance that its ansatz fulfils."""
        names: tuple[str, ...] = getattr(type(self).ansatz, "fulfils", ())
        return tuple(name for name, (_, _, when) in self._marked().items() if name in names and when(self))

    @property
    def has_exact_conditions(self) -> bool:
        """Whether the equations that the ansatz fulfils are none of this instance's, see `with_exact_conditions`."""
        return self._exact_conditions

    def with_exact_conditions(self) -> Self:
        """This PDE without the equations that its ansatz fulfils."""
        exact = self._without_cache()
        vars(exact)["_exact_conditions"] = True  # the dataclass is frozen
        return exact

    def names_of_columns(self, count: int) -> tuple[str, ...]:
        """The names of the columns of a model: the unknowns, or of one unknown alone `u.0`, `u.1`, ..."""
        if count == len(self.unknowns):
            return self.unknowns
        return tuple(f"{self.unknowns[0]}.{i}" for i in range(count))

    def with_inverse(self, learned: Mapping[str, Learned], data: Data | None) -> Self:
        """This PDE with numbers that are learnt, and with measured values.

        Args:
            learned: The numbers by name.
            data: The values; None for those of the class.

        Returns:
            The PDE.

        Raises:
            UsageError: A number is none of its `float` fields, or the data cannot be used.
        """
        changed = self._without_cache()
        vars(changed).update(learned={**self.learned, **learned}, _data=data or self._given)  # the dataclass is frozen
        vars(changed).pop("_measurements", None)
        changed._check_learned(type(self).__name__)
        _ = changed.measurements  # read now, with the numbers of the configuration
        return changed

    @property
    def _given(self) -> Data | None:
        """The measured values of the configuration, or those of the class; an equation may have the name `data`."""
        declared = vars(self).get("_data") or self.data
        return declared if isinstance(declared, Data) else None

    @property
    def starts_and_bounds(self) -> list[tuple[float, float | None, float | None]]:
        """The start of each number that is learnt, and its bounds."""
        return [(number.start, number.lower, number.upper) for number in self.learned.values()]

    @property
    def measurements(self) -> Measurements | None:
        """The measured values, which are read once; None where there are none."""
        found: Measurements | None = vars(self).get("_measurements")  # no cached property: a varied PDE keeps them
        if found is None and self._given is not None:
            exact = self.exact_at if self.has_exact else None
            found = self._given.read(self.coordinates, self.unknowns, self.domain, exact)
            vars(self)["_measurements"] = found
        return found

    def measured_points(self) -> dict[str, Points]:
        """The points of the region `data` with their values, in float64; nothing where there are none."""
        measured = self.measurements
        if measured is None:
            return {}
        return {DATA: Points(torch.from_numpy(measured.x), given=torch.from_numpy(measured.values))}

    def equations(self) -> tuple[Equation, ...]:
        """The equations of this instance, those of the interior first, in the order of their definition."""
        return self._equations

    @classmethod
    def number_fields(cls) -> list[str]:
        """The names of the fields that are `float`: the parameters along which the PDE can be varied continuously."""
        own = fields(cls)  # type: ignore[arg-type]  # every PDE is a dataclass, see `check`
        return [field.name for field in own if field.type in ("float", float)]

    def numbers(self) -> dict[str, float]:
        """The numbers along which this PDE can be varied: its `float` fields, and the weight of every equation.

        Returns:
            The numbers by name; those of weights are `weights.<equation>`.
        """
        numbers = {name: float(getattr(self, name)) for name in self.number_fields()}
        return numbers | {f"{WEIGHTS}{equation.name}": float(equation.weight) for equation in self.equations()}

    def with_numbers(self, values: Mapping[str, Tensor]) -> Self:
        """This PDE with scalar tensors in place of some of its numbers, so that `vmap` can vary them.

        The values are not checked, because a tensor under `vmap` has no values that could be.

        Args:
            values: Scalar tensors by the names of `numbers`.

        Returns:
            The varied PDE.
        """
        varied = self._without_cache()
        weights = {name.removeprefix(WEIGHTS): v for name, v in values.items() if name.startswith(WEIGHTS)}
        parameters = {name: v for name, v in values.items() if not name.startswith(WEIGHTS)}
        vars(varied).update(parameters, weights={**self.weights, **weights})  # the dataclass is frozen
        return varied

    def _without_cache(self) -> Self:
        """A copy without its cached properties, such as the equations with their weights, which are computed anew."""
        return copy.copy(self)

    def __getstate__(self) -> dict[str, Any]:
        """What a copy has, and what is sent to other processes: all but cached properties."""
        bases = type(self).__mro__
        cached = {name for base in bases for name, value in vars(base).items() if isinstance(value, cached_property)}
        return {name: value for name, value in vars(self).items() if name not in cached}

    @cached_property
    def regions(self) -> dict[str, tuple[list[Equation], Request]]:
        """The equations of every region that has any, and one request for all derivatives that they need."""
        by_region: dict[str, list[Equation]] = {}
        for equation in self._equations:
            by_region.setdefault(equation.region, []).append(equation)
        return {region: (here, reduce(or_, [e.request for e in here])) for region, here in by_region.items()}

    @cached_property
    def faces(self) -> dict[str, list[Face] | list[Part]]:
        """The faces, or pieces of the boundary, of every region with equations of this instance but the interior."""
        drawn = [region for region in self.regions if region not in ("interior", DATA)]
        if isinstance(self.domain, Box):
            return {region: faces_of(region, self.coordinates) for region in drawn}
        return {region: self.domain.region(region, self.coordinates) for region in drawn}

    @cached_property
    def _equations(self) -> tuple[Equation, ...]:
        equations = []
        for name, (region, needs, when) in self._marked().items():
            if when(self) and not (self._exact_conditions and name in self.fulfilled):
                weight = self.weights.get(name, 1.0)
                weight = weight if isinstance(weight, Tensor) else float(weight)
                equations.append(Equation(name, region, self._request(name, needs), getattr(self, name), weight))
        if self._given is not None and not any(equation.region == DATA for equation in equations):
            measured = self.measurements
            equations += [self._fit(name, self._given.weight) for name in (measured.names if measured else ())]
        return tuple(sorted(equations, key=lambda equation: equation.region != "interior"))

    def _fit(self, unknown: str, weight: float) -> Equation:
        """The equation u - given u = 0 of measured values."""

        def misfit(d: Jet) -> Tensor:
            measured: Tensor = getattr(d, unknown) - getattr(d, f"given_{unknown}")
            return measured

        return Equation(f"{DATA}_{unknown}", DATA, self._request(DATA, unknown), misfit, weight)

    def _request(self, name: str, needs: str) -> Request:
        try:
            return Request.parse(needs, self.coordinates, self.unknowns)
        except ValueError as error:
            raise UsageError(f"needs={needs!r} of the equation {name!r} of {type(self).__name__}: {error}") from error

    def _marked(self) -> dict[str, tuple[str, str, Callable[[Any], bool]]]:
        """The arguments of `@on` of each equation, those of base classes first, in the order of their definition."""
        marks: dict[str, tuple[str, str, Callable[[Any], bool]]] = {}
        for base in reversed(type(self).__mro__):
            for name, method in vars(base).items():
                if hasattr(method, "equation"):
                    marks[name] = method.equation
                elif name in marks and method is None:
                    del marks[name]
        return marks

    @property
    def order(self) -> int:
        """The highest order of derivative that an equation of this instance asks for."""
        return max(equation.request.order for equation in self.equations())


def joined(columns: Tensor | tuple[Tensor, ...]) -> Tensor:
    """Columns (n, 1) beside each other, as (n, k)."""
    return torch.cat(columns, dim=1) if isinstance(columns, tuple) else columns
