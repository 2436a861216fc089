"""Finite differences with one part of their error alone: that of the step, or that of rounding."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
from torch import Tensor

from pde_train.derivatives import Axes, Field
from pde_train.differentiators.base import Differentiator
from pde_train.differentiators.finite_difference import FiniteDifference
from pde_train.differentiators.stencils import central_weights
from pde_train.differentiators.taylor import Taylor
from pde_train.errors import UsageError

PARTS = ("truncation", "rounding")

NODES = 10
"""Of the Gauss-Legendre rule along each leg of a stencil."""


@dataclass(frozen=True)
class DifferenceError(Differentiator):
    """Exact derivatives plus one of the two errors of the finite differences D_h u.

    part: `truncation` is D_h u in exact arithmetic; `rounding` is u^(n) + (D_h u as it is computed - D_h u in exact
    arithmetic). accuracy, step, spacing: of the finite differences, see `FiniteDifference`.

    Without rounding a finite difference is a weighted mean of exact derivatives near x: by Taylor's theorem with its
    integral remainder, as the stencil takes the lower terms to 0,

        h^-n sum_k w_k u(x + k h) = sum_k w_k k^n / (n - 1)! int_0^1 (1 - t)^(n - 1) u^(n)(x + t k h) dt

    (Peano's kernel). The integrals are taken by Gauss-Legendre, the derivatives by Taylor mode; mixed derivatives have
    the product of such sums.
    """

    part: str
    accuracy: int = 2
    step: float | str | Tensor = "auto"
    spacing: tuple[float, ...] | None = None

    exact = False

    def __post_init__(self) -> None:
        if self.part not in PARTS:
            raise UsageError(f"differentiator.part={self.part} is unknown: expected truncation or rounding, choose one")
        if isinstance(self.step, str) and self.step == "optimal":
            raise UsageError("differentiator.step=optimal is for finite_difference: expected auto, grid or a number")
        _ = self.differences  # its own checks

    @cached_property
    def differences(self) -> FiniteDifference:
        """The finite differences whose error is taken apart."""
        return FiniteDifference(self.accuracy, self.step, 0, self.spacing)

    def fitted(self, spacing: tuple[float, ...]) -> DifferenceError:
        return replace(self, spacing=spacing)

    def partials(self, u: Field, x: Tensor, axes: frozenset[Axes]) -> dict[Axes, Tensor]:
        means = {a: self._mean(u, x, a) for a in axes if a}
        plain = frozenset({()} & axes) if self.part == "truncation" else axes
        exact = Taylor().partials(u, x, plain) if plain else {}
        if self.part == "truncation":
            return exact | means
        computed = self.differences.partials(u, x, axes - {()}) if means else {}
        return {a: exact[a] + (computed[a] - means[a]) if a else exact[a] for a in axes}

    def _mean(self, u: Field, x: Tensor, along: Axes) -> Tensor:
        """The finite difference along `along` in exact arithmetic, (n, m)."""
        rules = [_rule(along.count(j), self.accuracy) for j in range(x.shape[1])]
        nodes = list(itertools.product(*rules))
        unit = x.new_tensor([[place for place, _ in node] for node in nodes])
        weights = x.new_tensor([math.prod(weight for _, weight in node) for node in nodes])
        step = self.step if isinstance(self.step, Tensor) else x.new_tensor(self.differences.steps(along, x))
        points = x + (unit * step).unsqueeze(1)  # (nodes, n, d)
        values = Taylor().partials(u, points.flatten(0, 1), frozenset([along]))[along]
        return (weights[:, None, None] * values.unflatten(0, (len(nodes), x.shape[0]))).sum(0)


@lru_cache
def _rule(order: int, accuracy: int) -> tuple[tuple[float, float], ...]:
    """Places, in steps, and weights of the mean of n-th derivatives that a stencil of that order is; their sum is 1."""
    if order == 0:
        return ((0.0, 1.0),)
    places, weights = np.polynomial.legendre.leggauss(NODES)
    t, w = (places + 1) / 2, weights / 2 * (1 - (places + 1) / 2) ** (order - 1) / math.factorial(order - 1)
    legs = [(k, float(factor) * k**order) for k, factor in central_weights(order, accuracy).items() if k]
    return tuple((float(k * ti), float(c * wi)) for k, c in legs for ti, wi in zip(t, w, strict=True))
