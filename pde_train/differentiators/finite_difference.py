"""Central finite differences of any order and accuracy 2, 4, 6, 8."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache

import torch
from torch import Tensor

from pde_train.derivatives import Axes, Field
from pde_train.differentiators.base import Differentiator
from pde_train.differentiators.stencils import ACCURACIES, central_weights, richardson_weights
from pde_train.differentiators.taylor import Taylor
from pde_train.errors import UsageError

Offset = tuple[float, ...]

SMALLEST_STEP = 100
"""A step below this many rounding errors of a coordinate moves the stencil points by more than a percent of itself."""


POLICIES = ("auto", "grid", "optimal")


MOST_BOUNDS = 50
"""Derivatives for which the best step is looked for only to compare another one with it."""


@dataclass(frozen=True)
class Bound:
    """The error T h^p + R / h^n of a finite difference by its step h."""

    truncation: float
    order: int
    rounding: float
    derivative: int

    def at(self, step: float) -> float:
        """The bound for a step."""
        return self.truncation * step**self.order + self.rounding / step**self.derivative

    @property
    def best(self) -> float:
        """The step of the least bound."""
        ratio = self.derivative * self.rounding / (self.order * self.truncation)
        return ratio ** (1 / (self.derivative + self.order))


@dataclass(frozen=True)
class FiniteDifference(Differentiator):
    """Central differences; mixed partials are products of one-dimensional stencils.

    accuracy: order of the truncation error in h; 2, 4, 6 or 8.
    step: `"auto"` takes h = L (eps max(1, |x| / L))^(1 / (n + p)) for a derivative of total order n with truncation
        error of order p, which balances truncation and rounding of a function of scale 1 at coordinates up to |x| on a
        domain of length L (1 where it is longer); `"optimal"` balances them for the function at hand,
        from the size of its next derivatives, again and again while it changes (see `adapted`); `"grid"` takes the
        distance of the sampler's points along each coordinate; a number is the step itself, in the units of the
        coordinates, for every derivative. A number may also be a scalar tensor, unchecked, so that `vmap` reaches it.
    richardson: extrapolations from h, h/2, ..., each of which adds 2 to the order of the truncation error.
    spacing: the distances that `"grid"` means; magnitude, length: |x| and L of `"auto"`. The composition root supplies
        them by `fitted`.
    chosen: the steps that `"optimal"` means, by derivative; `adapted` supplies them, until then they are those of auto.

    All stencils of a request share one stacked evaluation of u on their unique points.
    """

    accuracy: int = 2
    step: float | str | Tensor = "auto"
    richardson: int = 0
    spacing: tuple[float, ...] | None = None
    chosen: tuple[tuple[Axes, float], ...] = ()
    magnitude: float = 1.0
    length: float = 1.0

    exact = False

    def __post_init__(self) -> None:
        if self.accuracy not in ACCURACIES:
            raise UsageError(
                f"differentiator.accuracy={self.accuracy} has no central stencil: expected 2, 4, 6 or 8, choose one"
            )
        if not isinstance(self.richardson, int) or not 0 <= self.richardson <= 4:
            raise UsageError(
                f"differentiator.richardson={self.richardson} is no number of extrapolations: expected 0 to 4"
            )
        if isinstance(self.step, Tensor) or self.step in POLICIES:
            return
        if isinstance(self.step, bool) or not isinstance(self.step, (int, float)) or not 0 < self.step < math.inf:
            raise UsageError(
                f"differentiator.step={self.step} is no step: expected {', '.join(POLICIES)} or a positive number, "
                "such as 1e-3"
            )

    @property
    def label(self) -> str:
        """Accuracy, extrapolations and step, such as `FD4 h=0.001` or `FD2 Richardson 1 h=auto`."""
        return difference_label(self.accuracy, self.step, self.richardson)

    @property
    def adaptive(self) -> bool:  # type: ignore[override]
        return isinstance(self.step, str) and self.step == "optimal"

    @property
    def compilable(self) -> bool:  # type: ignore[override]
        return not self.adaptive

    @property
    def reach(self) -> float:  # type: ignore[override]
        return float(self.step) if isinstance(self.step, (int, float)) else 0.0

    @property
    def truncation(self) -> int:
        """The order of the truncation error in h, extrapolations included."""
        return self.accuracy + 2 * self.richardson

    def fitted(self, spacing: tuple[float, ...], magnitude: float = 1.0, length: float = 1.0) -> FiniteDifference:
        return replace(self, spacing=spacing, magnitude=magnitude, length=min(1.0, length))

    def adapted(self, u: Field, x: Tensor, axes: frozenset[Axes]) -> FiniteDifference:
        """With the step of least error bound (`_bounds`) for each derivative of u at x, where `step` is `"optimal"`."""
        if not self.adaptive:
            return self
        smallest = 2 * SMALLEST_STEP * 2**self.richardson * torch.finfo(x.dtype).eps
        smallest *= max(1.0, float(x.detach().abs().max()))
        chosen = []
        for a, bound in self._bounds(u, x, axes).items():
            chosen.append((a, min(max(bound.best, smallest), 1.0)))
        return replace(self, chosen=tuple(chosen))

    def excess(self, u: Field, x: Tensor, axes: frozenset[Axes]) -> float:
        if self.step != "auto" or len(axes) > MOST_BOUNDS:
            return 1.0
        with suppress(UsageError):  # of an operation without a Taylor rule
            bounds = self._bounds(u, x, axes)
            return max((b.at(self.steps(a, x)[0]) / b.at(b.best) for a, b in bounds.items()), default=1.0)
        return 1.0

    def _bounds(self, u: Field, x: Tensor, axes: frozenset[Axes]) -> dict[Axes, Bound]:
        """The error bound of each derivative of u at x by its step; none where it has no truncation or no rounding.

        It is T h^p + R / h^n: T from the root mean square of the next derivatives that the stencil leaves over (by
        Taylor mode) times its own moments, R = eps max(|u|, |x| |u'|) sum_k |w_k|, as points are rounded, too.
        """
        taken, dimension = sorted(a for a in axes if a), x.shape[1]
        left = {a: _left_over(a, self.accuracy, self.richardson, dimension) for a in taken}
        first = {(i,) for i in range(dimension)}
        needed = frozenset(b for moments in left.values() for b in moments) | {()} | first
        with torch.no_grad():
            try:
                found = Taylor().partials(u, x, needed)
            except UsageError as error:
                raise UsageError(f"differentiator.step=optimal measures this field by Taylor mode: {error}") from error
            sizes = {b: float(v.double().square().mean().sqrt()) for b, v in found.items()}  # float32 would overflow
            slopes = [float((x[:, i : i + 1] * found[(i,)]).abs().max()) for i in range(dimension)]
            largest = max(float(found[()].abs().max()), *slopes)
        bounds = {}
        for a in taken:
            truncation = sum(moment * sizes[b] for b, moment in left[a].items())
            unit = stencil(a, self.accuracy, (1.0,) * dimension, self.richardson)
            rounding = torch.finfo(x.dtype).eps * largest * sum(abs(w) for _, w in unit)
            if truncation and rounding:  # not before training, where a model may be 0
                bounds[a] = Bound(truncation, self.truncation, rounding, len(a))
        return bounds

    def steps(self, axes: Axes, x: Tensor) -> tuple[float, ...]:
        """The step along each of the d coordinates of x (n, d), for the derivative along `axes`; 1 for a tensor."""
        dimension = x.shape[1]
        if isinstance(self.step, Tensor):
            return (1.0,) * dimension
        if self.step in ("auto", "optimal"):
            rounding = torch.finfo(x.dtype).eps * max(1.0, self.magnitude / self.length)
            auto = self.length * rounding ** (1 / (max(len(axes), 1) + self.truncation))
            return (dict(self.chosen).get(axes, auto),) * dimension
        if self.step == "grid":
            if self.spacing is None:
                raise UsageError(
                    "differentiator.step=grid needs the spacing of a sampler: give a number or auto instead"
                )
            return self.spacing
        return (float(self.step),) * dimension

    def partials(self, u: Field, x: Tensor, axes: frozenset[Axes]) -> dict[Axes, Tensor]:
        steps = {a: self.steps(a, x) for a in sorted(axes)}
        taken = [h for a in steps if a for h in steps[a]]  # u itself takes no step
        if taken:
            _check(min(taken) / 2**self.richardson, x)
        stencils = {a: dict(stencil(a, self.accuracy, h, self.richardson)) for a, h in steps.items()}
        offsets = sorted({offset for weights in stencils.values() for offset in weights})
        unit = self.step if isinstance(self.step, Tensor) else None
        reach = x.new_tensor(offsets).unsqueeze(1)
        points = x + (reach if unit is None else reach * unit)  # (offsets, n, d)
        values = u(points.flatten(0, 1)).unflatten(0, (len(offsets), x.shape[0]))  # (offsets, n, m)
        weights = x.new_tensor([[s.get(offset, 0.0) for offset in offsets] for s in stencils.values()])
        sums = torch.tensordot(weights, values, dims=1)  # small rationals first, h^-n after: no rounding of the weights
        lengths = {a: math.prod(steps[a][j] for j in a) for a in stencils}
        return {a: sums[i] / (lengths[a] if unit is None else unit ** len(a)) for i, a in enumerate(stencils)}


def difference_label(accuracy: int, step: float | str | Tensor, richardson: int = 0) -> str:
    """The label of central differences of that accuracy, step and number of extrapolations."""
    extrapolated = f" Richardson {richardson}" if richardson else ""
    shown = step if isinstance(step, str) else "tensor" if isinstance(step, Tensor) else f"{float(step):g}"
    return f"FD{accuracy}{extrapolated} h={shown}"


@lru_cache(maxsize=1024)
def stencil(
    axes: Axes, accuracy: int, steps: tuple[float, ...], richardson: int = 0
) -> tuple[tuple[Offset, float], ...]:
    """Offsets and weights, without the factor h^-n, of one derivative: the product of one-dimensional stencils."""
    orders = Counter(axes)
    lines = [central_weights(orders[i], accuracy).items() for i in range(len(steps))]
    total: dict[Offset, Fraction] = {}
    for level, factor in enumerate(richardson_weights(accuracy, richardson)):
        for nodes in itertools.product(*lines):
            offset = tuple(k * h / 2**level for (k, _), h in zip(nodes, steps, strict=True))
            weight = factor * 2 ** (level * len(axes)) * math.prod(w for _, w in nodes)
            total[offset] = total.get(offset, Fraction(0)) + weight
    return tuple((offset, float(weight)) for offset, weight in total.items() if weight)


def _left_over(axes: Axes, accuracy: int, richardson: int, dimension: int) -> dict[Axes, float]:
    """The derivatives that remain in the truncation error of a stencil of unit step, and the size of their factors."""
    order = accuracy + 2 * richardson
    weights = stencil(axes, accuracy, (1.0,) * dimension, richardson)
    found = {}
    for i in set(axes):
        beyond = Counter(axes) + Counter({i: order})
        moment = sum(w * math.prod(k[j] ** n for j, n in beyond.items()) for k, w in weights)
        found[tuple(sorted(beyond.elements()))] = abs(moment) / math.prod(map(math.factorial, beyond.values()))
    return found


def _check(step: float, x: Tensor) -> None:
    try:
        reach = float(x.detach().abs().max())
    except RuntimeError:  # no values while a graph is traced; the same points were checked before that
        return
    smallest = SMALLEST_STEP * torch.finfo(x.dtype).eps * max(1.0, reach)
    if step < smallest:
        raise UsageError(
            f"differentiator.step={step:.0e} is lost in the rounding of {x.dtype} coordinates: "
            f"expected at least {smallest:.0e}, choose a larger step or auto"
        )
