"""The two parts of the error of finite differences, each alone: truncation and rounding."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

from pde_train.derivatives import Axes, Field
from pde_train.differentiators.base import Differentiator, sum_of
from pde_train.differentiators.finite_difference import FiniteDifference, Offset, difference_label
from pde_train.differentiators.stencils import central_weights
from pde_train.differentiators.taylor import Taylor
from pde_train.errors import UsageError

PARTS = ("truncation", "rounding")

BLOCK = 2**14
"""Points at which derivatives are taken in one pass."""


@dataclass(frozen=True)
class DifferenceError(Differentiator):
    """Exact derivatives plus one part of the error of central differences: D_h u = u^(n) + truncation + rounding.

    part: `"truncation"` is D_h u as exact arithmetic would give it, the weighted mean of exact derivatives
        integral K(s) u^(n)(x + s h) ds with the Peano kernel K of the stencil (see `kernel_rule`);
        `"rounding"` is u^(n)(x) + (D_h u as `FiniteDifference` computes it - that mean).
    accuracy, step, spacing: of the finite differences, see `FiniteDifference`.
    nodes: of the Gauss rule between two neighbours of the stencil. Of tanh(w x) and sin(w x), orders 1 to 4, accuracies
        2 to 8, 12 nodes leave at most 5e-15 of the largest derivative where w h = 1 (10 leave 4e-12), 6 nodes 1e-11
        where w h = 0.3, 4 nodes 5e-15 where w h = 0.03. A stencil from -r to r takes 2 r nodes points, and a mixed
        derivative the product of those along its axes.

    Exact derivatives by Taylor mode. Source: Davis, Interpolation and Approximation, section 3.7 (Peano's theorem).
    """

    part: str
    accuracy: int = 2
    step: float | str | Tensor = "auto"
    nodes: int = 12
    spacing: tuple[float, ...] | None = None
    magnitude: float = 1.0
    length: float = 1.0

    exact = False

    def __post_init__(self) -> None:
        if self.part not in PARTS:
            raise UsageError(
                f"differentiator.part={self.part} is no part of the error of finite differences: expected "
                f"{' or '.join(PARTS)}, choose one"
            )
        if isinstance(self.step, str) and self.step == "optimal":
            raise UsageError("differentiator.step=optimal is for finite_difference: expected auto, grid or a number")
        if not isinstance(self.nodes, int) or not 1 <= self.nodes <= 64:
            raise UsageError(f"differentiator.nodes={self.nodes} makes no rule: expected 1 to 64, 12 will do")
        _ = self.differences  # its own checks

    @property
    def label(self) -> str:
        """The label of the finite differences and the part of their error, such as `FD2 h=auto, rounding alone`."""
        return f"{difference_label(self.accuracy, self.step)}, {self.part} alone"

    @property
    def reach(self) -> float:  # type: ignore[override]
        return float(self.step) if isinstance(self.step, (int, float)) else 0.0

    @cached_property
    def differences(self) -> FiniteDifference:
        """The finite differences whose error this is."""
        plain = FiniteDifference(self.accuracy, self.step)
        return plain if self.spacing is None else plain.fitted(self.spacing, self.magnitude, self.length)

    def fitted(self, spacing: tuple[float, ...], magnitude: float = 1.0, length: float = 1.0) -> DifferenceError:
        return replace(self, spacing=spacing, magnitude=magnitude, length=length)

    def partials(self, u: Field, x: Tensor, axes: frozenset[Axes]) -> dict[Axes, Tensor]:
        found: dict[Axes, Tensor] = {(): u(x)} if () in axes else {}
        taken = axes - {()}
        means = {a: self._mean(u, x, a) for a in sorted(taken)}
        if self.part == "truncation" or not taken:
            return found | means
        exact = self._exactly(u, x, taken)
        computed = self.differences.partials(u, x, axes)  # all of them: another request would round otherwise
        return found | {a: exact[a] + (computed[a] - means[a]) for a in means}

    def _mean(self, u: Field, x: Tensor, axes: Axes) -> Tensor:
        """The weighted mean of the derivative along `axes` that its stencil makes in exact arithmetic, (n, m)."""
        offsets, weights = mean_rule(axes, self.accuracy, self.differences.steps(axes, x), self.nodes)
        reach = x.new_tensor(offsets).unsqueeze(1)  # (nodes, 1, d)
        points = x + (reach * self.step if isinstance(self.step, Tensor) else reach)
        size = max(1, BLOCK // x.shape[0])
        total: list[Tensor] = []
        for block, w in zip(points.split(size), x.new_tensor(weights).split(size), strict=True):
            values = self._exactly(u, block.flatten(0, 1), frozenset([axes]))[axes]  # (size n, m)
            total.append(torch.tensordot(w, values.unflatten(0, block.shape[:2]), dims=1))
        return sum_of(total)

    def _exactly(self, u: Field, x: Tensor, axes: frozenset[Axes]) -> dict[Axes, Tensor]:
        try:
            return Taylor().partials(u, x, axes)
        except UsageError as error:
            raise UsageError(f"differentiator.part={self.part} needs exact derivatives: {error}") from error


@lru_cache(maxsize=256)
def mean_rule(
    axes: Axes, accuracy: int, steps: tuple[float, ...], nodes: int
) -> tuple[tuple[Offset, ...], tuple[float, ...]]:
    """Offsets and weights of the weighted mean of one derivative: the product of one-dimensional rules."""
    orders = Counter(axes)
    pairs = list(itertools.product(*(kernel_rule(orders[i], accuracy, nodes) for i in range(len(steps)))))
    return (
        tuple(tuple(s * h for (s, _), h in zip(pair, steps, strict=True)) for pair in pairs),
        tuple(math.prod(weight for _, weight in pair) for pair in pairs),
    )


@lru_cache
def kernel_rule(order: int, accuracy: int, nodes: int) -> tuple[tuple[float, float], ...]:
    """Nodes s and weights of integral K(s) f(s) ds with the Peano kernel K of a central stencil, in units of its step.

    u(x + k h) is its Taylor polynomial of degree n - 1 and a remainder; the stencil sees the remainders alone, so
    h^-n sum_k w_k u(x + k h) = integral K(s) u^(n)(x + s h) ds, K(s) = sum_(k > s) w_k (k - s)^(n - 1) / (n - 1)!
    for s > 0, and K(-s) = K(s). K is a polynomial between integers: Gauss-Legendre rules there. Order 0: x itself.
    """
    if order == 0:
        return ((0.0, 1.0),)
    stencil = central_weights(order, accuracy)
    rule = []
    for piece in range(max(stencil)):
        for t, gauss in zip(*np.polynomial.legendre.leggauss(nodes), strict=True):
            s = piece + (1 + Fraction(float(t))) / 2  # rational: the terms of K cancel
            kernel = sum(w * (k - s) ** (order - 1) for k, w in stencil.items() if k > s) / math.factorial(order - 1)
            rule += [(sign * float(s), float(kernel) * float(gauss) / 2) for sign in (-1, 1)]
    return tuple(sorted(rule))
