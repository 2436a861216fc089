"""Taylor mode: one forward pass carries truncated Taylor series along all directions that a request needs.

The series themselves, and how functions act on them, are in `series`, `arithmetic_rules` and
`taylor_rules`. This module decides which directions are pushed, and makes derivatives of the
resulting coefficients.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from pde_train.derivatives import Axes, Field, Jet, Request, coordinate_columns
from pde_train.differentiators import arithmetic_rules, taylor_rules  # noqa: F401  their rules register themselves
from pde_train.differentiators.base import Differentiator
from pde_train.differentiators.directions import Combination, Direction, combination
from pde_train.differentiators.series import Coefficient, Directions, Series


@dataclass(frozen=True)
class Taylor(Differentiator):
    """Truncated Taylor series that are pushed through the field; exact up to rounding.

    Mixed partial derivatives come from derivatives along directions by polarisation (see
    `directions`). For a sum such as lap u, the highest coefficient is carried as one weighted sum
    over directions; for lap u this is the forward Laplacian (Li et al., arXiv 2307.08214). Source
    of the rules: Griewank and Walther, Evaluating Derivatives, chapter 13.
    """

    def partials(self, u: Field, x: Tensor, axes: frozenset[Axes]) -> dict[Axes, Tensor]:
        return push(u, x, _plan_of_axes(axes, x.shape[1]))

    def __call__(self, u: Field, x: Tensor, request: Request) -> Jet:
        columns = coordinate_columns(x, request.coordinates)
        return Jet(columns | push(u, x, _plan_of_request(request)))


Key = TypeVar("Key", bound=Hashable)
"""The name of a result."""


@dataclass(frozen=True)
class Plan(Generic[Key]):
    """Which directions are pushed, to which degree each, and how results are made of the coefficients.

    Attributes:
        directions: The directions, those that need the highest degree first.
        counts: How many of them, counted from the first, have a coefficient of degree 0, 1, ...
        sums: For each result its order n, and the weights w_v of sum_v w_v D_v^n by the index of v.
    """

    directions: tuple[Direction, ...]
    counts: tuple[int, ...]
    sums: dict[Key, tuple[int, dict[int, float]]]

    @classmethod
    def of(cls, wanted: Mapping[Key, tuple[int, Combination]]) -> Plan[Key]:
        """Make a plan.

        Args:
            wanted: For each result its order n, and the weights of n-th derivatives along
                directions.

        Returns:
            The plan.
        """
        orders: dict[Direction, int] = {}
        for order, weights in wanted.values():
            for direction in weights:
                orders[direction] = max(order, orders.get(direction, 0))
        directions = tuple(sorted(orders, key=lambda v: -orders[v]))
        place = {v: i for i, v in enumerate(directions)}
        highest = max(orders.values(), default=0)
        return cls(
            directions,
            tuple(sum(n >= degree for n in orders.values()) for degree in range(highest + 1)),
            {key: (n, {place[v]: w for v, w in weights.items()}) for key, (n, weights) in wanted.items()},
        )

    @property
    def order(self) -> int:
        """The highest degree of a coefficient."""
        return len(self.counts) - 1


@lru_cache(maxsize=256)
def _plan_of_axes(axes: frozenset[Axes], dimension: int) -> Plan[Axes]:
    return Plan.of({a: (len(a), combination({a: 1.0}, dimension)) for a in axes})


@lru_cache(maxsize=256)
def _plan_of_request(request: Request) -> Plan[str]:
    dimension = len(request.coordinates)
    return Plan.of({n: (len(next(iter(t))), combination(t, dimension)) for n, t in request.terms.items()})


def push(u: Field, x: Tensor, plan: Plan[Key]) -> dict[Key, Tensor]:
    """Push series through a field.

    Args:
        u: The field, from points (n, d) to values (n, m).
        x: The points (n, d).
        plan: What is wanted.

    Returns:
        Each result of the plan (n, m).
    """
    if plan.order == 0:
        return {key: u(x) for key in plan.sums}
    # Every operation is linear in the coefficient of the highest degree. If fewer results than directions need it, it
    # is collapsed: the series carries its weighted sums over directions, one for each result, in place of a coefficient
    # for each direction. For lap u in d dimensions that is one block of columns instead of d.
    top = [key for key, (order, _) in plan.sums.items() if order == plan.order]
    collapsed = len(top) < plan.counts[-1]
    weights = x.new_tensor([[plan.sums[k][1].get(i, 0.0) for i in range(plan.counts[-1])] for k in top])
    directions = Directions(plan.counts, (lambda c: weighted(c, weights)) if collapsed else (lambda c: c))
    first = x.new_tensor(plan.directions).unsqueeze(1)  # (directions, 1, d)
    points: Any = Series([x, first, *[None] * (plan.order - 1)], directions)  # stands for a tensor
    series: Any = u(points)
    if not isinstance(series, Series):  # the field does not depend on x
        return {key: series if order == 0 else torch.zeros_like(series) for key, (order, _) in plan.sums.items()}
    results = {}
    for key, (order, sum_weights) in plan.sums.items():
        if order == 0:
            results[key] = series.value
        elif order == plan.order and collapsed:
            results[key] = _derivative(series, order, {top.index(key): 1.0})
        else:
            results[key] = _derivative(series, order, sum_weights)
    return results


def weighted(coefficient: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums (sums, n, w) over directions of a coefficient (directions, n, w); weights (sums, directions)."""
    return (weights[:, :, None, None] * coefficient).sum(1)


def _derivative(series: Series, order: int, weights: dict[int, float]) -> Tensor:
    """The weighted sum of derivatives of that order (n, m), which are order! times the coefficients."""
    coefficient: Coefficient = series.rest[order - 1]
    if coefficient is None:
        return torch.zeros_like(series.value)
    factors = {i: math.factorial(order) * w for i, w in weights.items()}
    if len(factors) > 8:
        rows = coefficient.new_tensor([factors.get(i, 0.0) for i in range(coefficient.shape[0])])
        total = weighted(coefficient, rows.unsqueeze(0))[0]
    else:
        total = torch.stack([coefficient[i] * f for i, f in factors.items()]).sum(0)
    return total.expand(series.value.shape)
