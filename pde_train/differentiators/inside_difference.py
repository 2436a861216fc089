"""Finite differences whose stencils stay inside a box: one-sided next to its faces, central everywhere else."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache

import torch
from torch import Tensor

from pde_train.derivatives import Axes, Field
from pde_train.differentiators.base import Differentiator
from pde_train.differentiators.finite_difference import FiniteDifference, check_step
from pde_train.differentiators.stencils import central_weights
from pde_train.errors import UsageError
from pde_train.geometry import Box, Domain


@dataclass(frozen=True)
class InsideDifference(Differentiator):
    """Finite differences of an accuracy p, whose stencils evaluate u inside a box alone.

    Next to a face, within `reach_of` steps of it, the n + p (or one more) equidistant points that are
    nearest to the face take the place of the central stencil. Their weights are those of the
    interpolating polynomial, so that the truncation error stays of order p. This is
    a control for `FiniteDifference`, which continues u beyond the boundary.

    Attributes:
        accuracy: The order p of the truncation error in h: 2, 4, 6 or 8.
        step: The policy `auto` or `grid`, or the step itself, see `FiniteDifference`.
        plain: The differences whose steps are taken, from `fitted`.
        box: The lower and the upper limits of the box, from `within`; without them stencils are
            central everywhere.

    Raises:
        UsageError: An argument is out of range.
    """

    accuracy: int = 2
    step: float | str = "auto"
    plain: FiniteDifference | None = None
    box: tuple[tuple[float, ...], tuple[float, ...]] | None = None

    exact = False

    def __post_init__(self) -> None:
        if self.step == "optimal":
            raise UsageError(
                "differentiator.step=optimal has no one-sided stencils: expected auto, grid or a positive number"
            )
        FiniteDifference(self.accuracy, self.step)  # refuses what is out of range

    @property
    def label(self) -> str:
        """Accuracy and step, such as `FD2 h=auto, inside`."""
        return f"{self.differences.label}, inside"

    @property
    def differences(self) -> FiniteDifference:
        """The finite differences whose steps are taken, which are those of `step` where that is replaced."""
        plain = FiniteDifference(self.accuracy, self.step)
        if self.plain is None:
            return plain
        return self.plain if self.plain.step is self.step else replace(self.plain, step=self.step)

    def fitted(self, spacing: tuple[float, ...], magnitude: float = 1.0, length: float = 1.0) -> InsideDifference:
        return replace(self, plain=self.differences.fitted(spacing, magnitude, length))

    def within(self, domain: Domain) -> InsideDifference:
        if not isinstance(domain, Box):
            raise UsageError(
                f"differentiator=finite_difference/inside keeps stencils inside a box, and the domain is a "
                f"{type(domain).__name__}: expected a PDE on a box, or differentiator=finite_difference"
            )
        return replace(self, box=(tuple(domain.lower), tuple(domain.upper)))

    def partials(self, u: Field, x: Tensor, axes: frozenset[Axes]) -> dict[Axes, Tensor]:
        return {a: self._partial(u, x, a) for a in sorted(axes)}

    def _partial(self, u: Field, x: Tensor, axes: Axes) -> Tensor:
        """One derivative (n, m) at the points (n, d)."""
        if not axes:
            return u(x)
        steps, orders = self.differences.steps(axes, x), Counter(axes)
        check_step(min(steps[i] for i in orders), x, self.differences.length)
        centres, lines = list(x.unbind(1)), {}
        for i, order in orders.items():
            reach = reach_of(order, self.accuracy)
            if self.box is not None:
                low, high = self.box[0][i] + reach * steps[i], self.box[1][i] - reach * steps[i]
                if low > high:
                    raise UsageError(
                        f"a step of {steps[i]:g} along coordinate {i} asks for {2 * reach + 1} points in a row, which "
                        f"a domain of length {self.box[1][i] - self.box[0][i]:g} has no room for: choose a smaller "
                        "differentiator.step"
                    )
                centres[i] = x[:, i].clamp(low, high)
            lines[i] = _weights(order, self.accuracy, (x[:, i] - centres[i]) / steps[i])  # (n, nodes)
        offsets = list(itertools.product(*(range(lines[i].shape[1]) for i in orders)))
        shifts = x.new_zeros(len(offsets), x.shape[1])
        for j, i in enumerate(orders):
            half = lines[i].shape[1] // 2
            shifts[:, i] = x.new_tensor([(k[j] - half) * steps[i] for k in offsets])
        points = torch.stack(centres, dim=1) + shifts.unsqueeze(1)  # (offsets, n, d)
        values = u(points.flatten(0, 1)).unflatten(0, (len(offsets), x.shape[0]))  # (offsets, n, m)
        columns = [torch.stack([lines[i][:, k[j]] for j, i in enumerate(orders)]).prod(0) for k in offsets]
        sums = (torch.stack(columns).unsqueeze(2) * values).sum(0)
        derivative: Tensor = sums / math.prod(steps[i] for i in axes)
        return derivative


def reach_of(order: int, accuracy: int) -> int:
    """The half width r of the stencils: the least one with 2 r + 1 >= order + accuracy points."""
    return (order + accuracy) // 2


def _weights(order: int, accuracy: int, place: Tensor) -> Tensor:
    """The weights of a derivative at places in the unit of the step, off the centre of nodes -r, ..., r.

    Args:
        order: The order of the derivative.
        accuracy: The accuracy; central weights have it at the place 0, where they are taken.
        place: The places (n,).

    Returns:
        The weights (n, 2 r + 1).
    """
    reach = reach_of(order, accuracy)
    polynomials = place.new_tensor(interpolating(order, reach))  # (2 r + 1, degree + 1)
    powers = torch.stack([place**k for k in range(polynomials.shape[1])])
    central = central_weights(order, accuracy)
    middle = place.new_tensor([float(central.get(k, 0)) for k in range(-reach, reach + 1)])
    return torch.where(place.unsqueeze(1) == 0, middle, (polynomials @ powers).T)


@lru_cache
def interpolating(order: int, reach: int) -> Sequence[Sequence[float]]:
    """The derivatives of Lagrange's polynomials on the nodes -r, ..., r.

    Args:
        order: The order of the derivative.
        reach: The half width r.

    Returns:
        The coefficients of each, (2 r + 1, 2 r + 1 - order), the constant first.
    """
    nodes = range(-reach, reach + 1)
    found = []
    for own in nodes:
        coefficients = [Fraction(1)]
        for other in nodes:
            if other != own:  # times (t - other) / (own - other)
                shifted = [Fraction(0), *coefficients]
                kept = [c * -other for c in coefficients] + [Fraction(0)]
                coefficients = [(s + k) / (own - other) for s, k in zip(shifted, kept, strict=True)]
        for _ in range(order):
            coefficients = [k * c for k, c in enumerate(coefficients)][1:]
        found.append([float(c) for c in coefficients])
    return found
