"""Central finite differences of any order and accuracy 2, 4, 6, 8."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from pde_train.derivatives import Axes, Field
from pde_train.differentiators.base import Differentiator
from pde_train.differentiators.stencils import ACCURACIES, central_weights
from pde_train.errors import UsageError

Offset = tuple[float, ...]

SMALLEST_STEP = 100
"""A step below this many rounding errors of a coordinate moves the stencil points by more than a percent of itself."""


@dataclass(frozen=True)
class FiniteDifference(Differentiator):
    """Central differences; mixed partials are products of one-dimensional stencils.

    accuracy: order of the truncation error in h; 2, 4, 6 or 8.
    step: `"auto"` takes h = eps^(1 / (n + accuracy)) for a derivative of total order n, which balances truncation
        and rounding of a function of scale 1; `"grid"` takes the distance of the sampler's points along each
        coordinate; a number is the step itself, in the units of the coordinates, for every derivative.
    spacing: the distances that `"grid"` means; the composition root supplies them by `fitted`.

    All stencils of a request share one stacked evaluation of u on their unique points.
    """

    accuracy: int = 2
    step: float | str = "auto"
    spacing: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.accuracy not in ACCURACIES:
            raise UsageError(
                f"differentiator.accuracy={self.accuracy} has no central stencil: expected 2, 4, 6 or 8, choose one"
            )
        if self.step in ("auto", "grid"):
            return
        if isinstance(self.step, bool) or not isinstance(self.step, (int, float)) or not 0 < self.step < math.inf:
            raise UsageError(
                f"differentiator.step={self.step} is no step: expected auto, grid or a positive number, such as 1e-3"
            )

    def fitted(self, spacing: tuple[float, ...]) -> FiniteDifference:
        return replace(self, spacing=spacing)

    def steps(self, order: int, x: Tensor) -> tuple[float, ...]:
        """The step along each of the d coordinates of x (n, d), for a derivative of that total order."""
        dimension = x.shape[1]
        if self.step == "auto":
            return (torch.finfo(x.dtype).eps ** (1 / (max(order, 1) + self.accuracy)),) * dimension
        if self.step == "grid":
            if self.spacing is None:
                raise UsageError(
                    "differentiator.step=grid needs the spacing of a sampler: give a number or auto instead"
                )
            return self.spacing
        return (float(self.step),) * dimension

    def partials(self, u: Field, x: Tensor, axes: frozenset[Axes]) -> dict[Axes, Tensor]:
        steps = {a: self.steps(len(a), x) for a in sorted(axes)}
        taken = [h for a in steps if a for h in steps[a]]  # u itself takes no step
        if taken:
            _check(min(taken), x)
        stencils = {a: dict(stencil(a, self.accuracy, h)) for a, h in steps.items()}
        offsets = sorted({offset for weights in stencils.values() for offset in weights})
        points = x + x.new_tensor(offsets).unsqueeze(1)  # (offsets, n, d)
        values = u(points.flatten(0, 1)).unflatten(0, (len(offsets), x.shape[0]))  # (offsets, n, m)
        weights = x.new_tensor([[s.get(offset, 0.0) for offset in offsets] for s in stencils.values()])
        sums = torch.tensordot(weights, values, dims=1)  # small rationals first, h^-n after: no rounding of the weights
        return {a: sums[i] / math.prod(steps[a][j] for j in a) for i, a in enumerate(stencils)}


@lru_cache(maxsize=1024)
def stencil(axes: Axes, accuracy: int, steps: tuple[float, ...]) -> tuple[tuple[Offset, float], ...]:
    """Offsets and weights, without the factor h^-n, of one derivative: the product of one-dimensional stencils."""
    orders = Counter(axes)
    lines = [central_weights(orders[i], accuracy).items() for i in range(len(steps))]
    return tuple(
        (
            tuple(k * h for (k, _), h in zip(nodes, steps, strict=True)),
            math.prod(float(w) for _, w in nodes),
        )
        for nodes in itertools.product(*lines)
    )


def _check(step: float, x: Tensor) -> None:
    try:
        reach = float(x.abs().max())
    except RuntimeError:  # no values while a graph is traced; the same points were checked before that
        return
    smallest = SMALLEST_STEP * torch.finfo(x.dtype).eps * max(1.0, reach)
    if step < smallest:
        raise UsageError(
            f"differentiator.step={step:.0e} is lost in the rounding of {x.dtype} coordinates: "
            f"expected at least {smallest:.0e}, choose a larger step or auto"
        )
