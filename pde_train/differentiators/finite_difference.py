"""Central finite differences of any order and accuracy 2, 4, 6, 8."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache

import torch
from torch import Tensor

from pde_train.derivatives import Axes, Field
from pde_train.differentiators.base import STEP, Differentiator
from pde_train.differentiators.stencils import ACCURACIES, central_weights, richardson_weights
from pde_train.differentiators.taylor import Taylor
from pde_train.errors import UsageError

Offset = tuple[float, ...]

SMALLEST_STEP = 100
"""The smallest step in rounding errors of a coordinate; stencil points of a smaller one are off by
over a percent of it.
"""


POLICIES = ("auto", "grid", "optimal")


MOST_BOUNDS = 50
"""The largest number of derivatives for which the best step is computed only to compare another one with it."""


@dataclass(frozen=True)
class Bound:
    """The bound T h^p + R / h^n of the error of a finite difference with step h.

    Attributes:
        truncation: The factor T of the truncation error.
        order: Its order p.
        rounding: The factor R of the rounding error.
        derivative: The order n of the derivative.
    """

    truncation: float
    order: int
    rounding: float
    derivative: int

    def at(self, step: float) -> float:
        """The bound for a step."""
        return self.truncation * step**self.order + self.rounding / step**self.derivative

    @property
    def best(self) -> float:
        """The step with the least bound."""
        ratio = self.derivative * self.rounding / (self.order * self.truncation)
        return float(ratio ** (1 / (self.derivative + self.order)))


@dataclass(frozen=True)
class FiniteDifference(Differentiator):
    """Central finite differences; stencils of mixed derivatives are products of one-dimensional ones.

    All stencils of a request share one evaluation of u on their unique points. The step follows one
    of four policies:

    - `auto` takes h = L (eps max(1, |x| / L))^(1 / (n + p)) for a derivative of total order n with
      a truncation error of order p. This balances truncation and rounding for a function of scale 1
      at coordinates up to |x| on a domain of length L (1 where it is longer).
    - `optimal` balances them for the field itself, from the size of its next derivatives, and again
      as it changes during training (see `tuned_to`).
    - `grid` takes the distance between the sampler's points along each coordinate.
    - A number is the step itself, in the units of the coordinates, for every derivative.

    Attributes:
        accuracy: The order of the truncation error in h: 2, 4, 6 or 8.
        step: The policy or the number. A number may be a scalar tensor, which is not checked, so
            that `vmap` can vary it.
        richardson: The number of extrapolations from h, h/2, ...; each adds 2 to the order of the
            truncation error.
        spacing: The distances of `grid`, from `fitted`.
        chosen: The steps of `optimal` by derivative, from `tuned_to`; until then they are those of
            `auto`. They may be scalar tensors, see `with_numbers`.
        magnitude: The |x| of `auto`, from `fitted`.
        length: The L of `auto`, from `fitted`, by which the smallest step that is accepted is measured, too.

    Raises:
        UsageError: An argument is out of range.
    """

    accuracy: int = 2
    step: float | str | Tensor = "auto"
    richardson: int = 0
    spacing: tuple[float, ...] | None = None
    chosen: tuple[tuple[Axes, float | Tensor], ...] = ()
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
    def adaptive(self) -> bool:
        return isinstance(self.step, str) and self.step == "optimal"

    @property
    def compilable(self) -> bool:
        return True  # what it chooses are numbers

    @property
    def truncation(self) -> int:
        """The order of the truncation error in h, including extrapolations."""
        return self.accuracy + 2 * self.richardson

    def fitted(self, spacing: tuple[float, ...], magnitude: float = 1.0, length: float = 1.0) -> FiniteDifference:
        return replace(self, spacing=spacing, magnitude=magnitude, length=min(1.0, length))

    def tuned_to(self, u: Field, x: Tensor, axes: frozenset[Axes]) -> FiniteDifference:
        """With the step `optimal`: choose the step with the least error bound for each derivative of u at x."""
        if not self.adaptive:
            return self
        smallest = 2 * SMALLEST_STEP * 2**self.richardson * torch.finfo(x.dtype).eps
        smallest *= max(self.length, float(x.detach().abs().max()))
        auto = {a: replace(self, chosen=()).steps(a, x)[0] for a in sorted(axes) if a}
        best = {a: min(max(bound.best, smallest), 1.0) for a, bound in self._bounds(u, x, axes).items()}
        return replace(self, chosen=tuple((auto | best).items()))

    def numbers(self) -> dict[str, float]:
        return {f"{STEP} {a}": float(h) for a, h in self.chosen} if self.adaptive else super().numbers()

    def with_numbers(self, values: Mapping[str, Tensor]) -> Differentiator:
        if not self.adaptive or not values:
            return super().with_numbers(values)
        return replace(self, chosen=tuple((a, values[f"{STEP} {a}"]) for a, _ in self.chosen))

    def excess(self, u: Field, x: Tensor, axes: frozenset[Axes]) -> float:
        if self.step != "auto" or len(axes) > MOST_BOUNDS:
            return 1.0
        with suppress(UsageError):  # of an operation without a Taylor rule
            bounds = self._bounds(u, x, axes)
            return max((b.at(self.steps(a, x)[0]) / b.at(b.best) for a, b in bounds.items()), default=1.0)
        return 1.0

    def _bounds(self, u: Field, x: Tensor, axes: frozenset[Axes]) -> dict[Axes, Bound]:
        """The bound T h^p + R / h^n of the error of each derivative of u at x.

        T is the root mean square of the derivatives that the stencil leaves over, taken by Taylor
        mode, times the moments of the stencil. R is eps max(|u|, |x| |u'|) sum_k |w_k|; the second
        term is there because points are rounded, too.

        Args:
            u: The field.
            x: The points (n, d).
            axes: The derivatives.

        Returns:
            The bounds by derivative, without those that have no truncation error or no rounding
            error.

        Raises:
            UsageError: Taylor mode has no rule for an operation of the field.
        """
        taken, dimension = sorted(a for a in axes if a), x.shape[1]
        left = {a: _left_over(a, self.accuracy, self.richardson, dimension) for a in taken}
        first = {(i,) for i in range(dimension)}
        needed = frozenset(b for moments in left.values() for b in moments) | {()} | first
        with torch.no_grad():
            try:
                exact = Taylor().partials(u, x, needed)
            except UsageError as error:
                raise UsageError(f"differentiator.step=optimal measures this field by Taylor mode: {error}") from error
            sizes = {b: float(v.double().square().mean().sqrt()) for b, v in exact.items()}  # float32 would overflow
            slopes = [float((x[:, i : i + 1] * exact[(i,)]).abs().max()) for i in range(dimension)]
            largest = max(float(exact[()].abs().max()), *slopes)
        bounds = {}
        for a in taken:
            truncation = sum(moment * sizes[b] for b, moment in left[a].items())
            unit = stencil(a, self.accuracy, (1.0,) * dimension, self.richardson)
            rounding = torch.finfo(x.dtype).eps * largest * sum(abs(w) for _, w in unit)
            if truncation and rounding:  # before training a model may be 0, and so are its derivatives
                bounds[a] = Bound(truncation, self.truncation, rounding, len(a))
        return bounds

    def steps(self, axes: Axes, x: Tensor) -> tuple[float, ...]:
        """The steps of a derivative.

        Args:
            axes: The derivative.
            x: The points (n, d).

        Returns:
            The step along each of the d coordinates; 1 where the step is a tensor, by which the
            stencil is multiplied later.

        Raises:
            UsageError: The step is `grid`, and no spacing is known.
        """
        dimension = x.shape[1]
        if isinstance(self.step, Tensor):
            return (1.0,) * dimension
        if self.step in ("auto", "optimal"):
            rounding = torch.finfo(x.dtype).eps * max(1.0, self.magnitude / self.length)
            auto = self.length * rounding ** (1 / (max(len(axes), 1) + self.truncation))
            step = dict(self.chosen).get(axes, auto)
            return (1.0 if isinstance(step, Tensor) else step,) * dimension
        if self.step == "grid":
            if self.spacing is None:
                raise UsageError(
                    "differentiator.step=grid needs the spacing of a sampler: give a number or auto instead"
                )
            return self.spacing
        return (float(self.step),) * dimension

    def reach(self, axes: frozenset[Axes]) -> dict[int, float]:
        found: dict[int, float] = {}
        if isinstance(self.step, (int, float)):
            for i, order in (along for a in axes for along in Counter(a).items()):
                found[i] = max(found.get(i, 0.0), self.step * max(central_weights(order, self.accuracy)))
        return found

    def partials(self, u: Field, x: Tensor, axes: frozenset[Axes]) -> dict[Axes, Tensor]:
        steps = {a: self.steps(a, x) for a in sorted(axes)}
        taken = [h for a in steps if a for h in steps[a]]  # u itself takes no step
        if taken:
            check_step(min(taken) / 2**self.richardson, x, self.length)
        units = self._units()
        stencils = {
            a: {(offset, a if a in units and any(offset) else ()): weight for offset, weight in own}
            for a, own in ((a, stencil(a, self.accuracy, h, self.richardson)) for a, h in steps.items())
        }
        places = sorted({place for own in stencils.values() for place in own})  # offsets, and whose unit they have
        reach = x.new_tensor([offset for offset, _ in places]).unsqueeze(1)
        if units:
            reach = reach * torch.stack([units.get(of, x.new_ones(())) for _, of in places]).view(-1, 1, 1)
        points = x + reach  # (places, n, d)
        values = u(points.flatten(0, 1)).unflatten(0, (len(places), x.shape[0]))  # (places, n, m)
        weights = x.new_tensor([[s.get(place, 0.0) for place in places] for s in stencils.values()])
        sums = torch.tensordot(weights, values, dims=1)  # small rationals first, h^-n after: no rounding of the weights
        lengths: dict[Axes, float | Tensor] = {a: math.prod(steps[a][j] for j in a) for a in stencils}
        for a in stencils:
            if (unit := units.get(a, units.get(()))) is not None:
                lengths[a] = unit ** len(a)
        return {a: sums[i] / lengths[a] for i, a in enumerate(stencils)}

    def _units(self) -> dict[Axes, Tensor]:
        """The steps that are tensors: of a derivative alone, or of all of them by the name ()."""
        if isinstance(self.step, Tensor):
            return {(): self.step}
        return {a: h for a, h in self.chosen if isinstance(h, Tensor)}


def difference_label(accuracy: int, step: float | str | Tensor, richardson: int = 0) -> str:
    """The label of central differences of that accuracy, step and number of extrapolations."""
    extrapolated = f" Richardson {richardson}" if richardson else ""
    shown = step if isinstance(step, str) else "tensor" if isinstance(step, Tensor) else f"{float(step):g}"
    return f"FD{accuracy}{extrapolated} h={shown}"


@lru_cache(maxsize=1024)
def stencil(
    axes: Axes, accuracy: int, steps: tuple[float, ...], richardson: int = 0
) -> tuple[tuple[Offset, float], ...]:
    """The stencil of a derivative of order n, a product of one-dimensional stencils.

    Args:
        axes: The derivative.
        accuracy: The order of the truncation error.
        steps: The step h along each coordinate.
        richardson: The number of extrapolations.

    Returns:
        The offsets of the points and their weights, without the factor h^-n.
    """
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
    """The derivatives in the leading truncation error of a stencil of unit step, and the sizes of their factors."""
    order = accuracy + 2 * richardson
    weights = stencil(axes, accuracy, (1.0,) * dimension, richardson)
    factors = {}
    for i in set(axes):
        beyond = Counter(axes) + Counter({i: order})
        moment = sum(w * math.prod(k[j] ** n for j, n in beyond.items()) for k, w in weights)
        factors[tuple(sorted(beyond.elements()))] = abs(moment) / math.prod(map(math.factorial, beyond.values()))
    return factors


def check_step(step: float, x: Tensor, length: float = 1.0) -> None:
    """Refuse a step that is lost in the rounding of the coordinates.

    Args:
        step: The step.
        x: The points (n, d).
        length: The length of the domain, or 1 where it is longer: what coordinates are at least, as some x may be 0.

    Raises:
        UsageError: It is lost.
    """
    try:
        reach = float(x.detach().abs().max())
    except RuntimeError:  # tensors have no values while a graph is traced; the same points were checked before that
        return
    smallest = SMALLEST_STEP * torch.finfo(x.dtype).eps * max(length, reach)
    if step < smallest:
        raise UsageError(
            f"differentiator.step={step:.0e} is lost in the rounding of {x.dtype} coordinates: "
            f"expected at least {smallest:.0e}, choose a larger step or auto"
        )
