"""Derivatives from values of a function at complex points, which are exact up to rounding."""

from __future__ import annotations

import cmath
import math
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pde_train.derivatives import Axes, Field
from pde_train.differentiators.base import Differentiator, sum_of
from pde_train.differentiators.complex_points import ComplexPoints
from pde_train.differentiators.directions import Direction, polarised
from pde_train.errors import UsageError

LARGEST, SMALLEST, RATIO = 2.0, 0.005, 0.7
"""The largest and the smallest radius that `auto` tries, and the ratio of successive radii; see
`ComplexStep._tried`.
"""

SCALES = (1e-6, 1e3)
"""The range to which the estimated length scale of a field is limited."""

NODES = (16, 32, 64)
"""The numbers of nodes on the whole circle that `auto` tries; by symmetry half of them are evaluated."""

REFERENCE = 128
"""The number of nodes of the rule with which `auto` compares others."""

APART = 1000
"""The largest ratio of the distance of two successive radii's results to the least distance so far;
more is not rounding.
"""

AGREED = {torch.float64: 1e-6, torch.float32: 1e-2}
"""The relative distance up to which the results of two successive radii agree."""

Derivatives = dict[tuple[Direction, int], Tensor]
"""Derivatives (n, m) by direction and order."""


@dataclass(frozen=True)
class ComplexStep(Differentiator):
    """First derivatives by a complex step, higher ones by Cauchy's integral on a circle; for analytic fields.

    The first derivative is u_x = Im u(x + i h) / h with a step h so small that its error is below
    rounding; nothing cancels, because there is no difference (Squire and Trapp, SIAM Review 40,
    1998). The n-th derivative along v is n! / (N r^n) sum_k u(x + r z_k v) z_k^-n over N nodes z_k
    of the unit circle. This is the trapezoidal rule, whose error falls geometrically with N (Lyness
    and Moler, SIAM J. Numer. Anal. 4, 1967). u is real at real points, so half of the circle
    suffices. Mixed derivatives come from derivatives along directions by polarisation (see
    `directions`).

    Attributes:
        radius: The radius r, smaller than the distance to the nearest singularity of u (pi / 2|w|
            for a tanh unit), or `auto` to choose it by comparison with a finer rule (see
            `tuned_to`).
        nodes: The number N of nodes, a multiple of 4, or `auto` likewise.
        chosen: The radius and the number of nodes that `auto` has chosen.

    Raises:
        UsageError: An argument is out of range.
    """

    radius: float | str = "auto"
    nodes: int | str = "auto"
    chosen: tuple[float, int] = (0.12, 32)

    compilable = False  # compiled code has no complex numbers

    def __post_init__(self) -> None:
        if self.nodes != "auto" and not (isinstance(self.nodes, int) and self.nodes >= 16 and self.nodes % 4 == 0):
            raise UsageError(f"differentiator.nodes={self.nodes} makes no circle: expected auto, 16, 32 or the like")
        if self.radius != "auto" and not (isinstance(self.radius, (int, float)) and 0 < self.radius < math.inf):
            raise UsageError(f"differentiator.radius={self.radius} is no radius: expected auto or a positive number")

    @property
    def adaptive(self) -> bool:
        return "auto" in (self.radius, self.nodes)

    @property
    def circle(self) -> tuple[float, int]:
        """The radius and the number of nodes that are used."""
        radius = self.chosen[0] if isinstance(self.radius, str) else float(self.radius)
        return radius, self.chosen[1] if isinstance(self.nodes, str) else self.nodes

    def tuned_to(self, u: Field, x: Tensor, axes: frozenset[Axes]) -> ComplexStep:
        """Choose the radius and the nodes of `auto` whose derivatives are closest to those of a rule with many nodes.

        Among the rules within a factor 3 of the closest one, the one with the fewest nodes is
        taken. Radii are tried from the smallest upwards, as long as the results of successive radii
        agree: on a circle around a singularity the rule converges as well, but to something else.

        Args:
            u: The field, from points (n, d) to values (n, m).
            x: Some points (n, d) of the domain.
            axes: The derivatives that will be taken.

        Returns:
            The differentiator to use for this field.

        Raises:
            UsageError: No two successive radii agree, as next to a branch point.
        """
        higher = frozenset(a for a in axes if len(a) > 1)
        if not self.adaptive or not higher:
            return self
        counts = NODES if self.nodes == "auto" else (self.circle[1],)
        errors: dict[tuple[float, int], float] = {}
        with torch.no_grad():
            size = u(x).norm()
            fine, least = None, math.inf
            for radius in self._tried(u, x):
                before, fine = fine, ComplexStep(radius, REFERENCE).partials(u, x, higher)
                gap = _apart(fine, before or fine, size)
                if before and gap < least:  # gap may be nan, where a circle is too large for the field
                    least = gap
                if before and not gap <= APART * max(least, torch.finfo(x.dtype).eps):
                    break
                for nodes in counts:
                    errors[radius, nodes] = _apart(ComplexStep(radius, nodes).partials(u, x, higher), fine, size)
        if self.radius == "auto" and not least <= AGREED[x.dtype]:
            raise UsageError(
                f"differentiator=complex_step finds no circles that agree on the derivatives of this field (apart by "
                f"{least:.0e}): expected one that is analytic around every point, choose differentiator=taylor or a "
                "smaller model.weight_range"
            )
        best = min(errors.values(), default=math.nan)
        near = [c for c in errors if errors[c] <= 3 * best]
        return replace(self, chosen=min(near, key=lambda c: (c[1], errors[c]))) if near else self

    def _tried(self, u: Field, x: Tensor) -> list[float]:
        """The radii among which `auto` chooses.

        LARGEST is multiplied by the length scale |u| / |u'| of the field where that is above 1,
        SMALLEST where it is below 1.

        Args:
            u: The field.
            x: Some points (n, d) of the domain.

        Returns:
            The radii in ascending order, in the units of the coordinates.
        """
        if self.radius != "auto":
            return [self.circle[0]]
        units = [tuple(float(i == j) for j in range(x.shape[1])) for i in range(x.shape[1])]
        slope = max(float(d.abs().max()) for d in self._first(u, x, units).values())
        scale = float(u(x).abs().max()) / slope if slope > 0 else 1.0
        scale = min(max(scale, SCALES[0]), SCALES[1]) if scale > 0 else 1.0
        radii = [LARGEST * max(1.0, scale)]
        while radii[-1] > SMALLEST * min(1.0, scale):
            radii.append(RATIO * radii[-1])
        return radii[::-1]

    def reach(self, axes: frozenset[Axes]) -> dict[int, float]:
        return {} if isinstance(self.radius, str) else {i: self.radius for a in axes if len(a) > 1 for i in a}

    def partials(self, u: Field, x: Tensor, axes: frozenset[Axes]) -> dict[Axes, Tensor]:
        directions: dict[tuple[float, ...], set[int]] = defaultdict(set)
        for a in axes - {()}:
            for v, _ in polarised(a, x.shape[1]):
                directions[v].add(len(a))
        along = self._first(u, x, sorted(v for v in directions if 1 in directions[v]))
        along |= self._higher(u, x, {v: orders - {1} for v, orders in sorted(directions.items()) if orders - {1}})
        derivatives = {a: u(x) for a in axes if not a}
        for a in axes - {()}:
            derivatives[a] = sum_of([float(w) * along[v, len(a)] for v, w in polarised(a, x.shape[1])])
        return derivatives

    def _first(self, u: Field, x: Tensor, directions: list[Direction]) -> Derivatives:
        """First derivatives along directions, by one evaluation."""
        if not directions:
            return {}
        tiny = 1e-20 if x.dtype == torch.float64 else 1e-15
        shape = (len(directions), *x.shape)
        steps = tiny * x.new_tensor(directions).unsqueeze(1)
        values = _at(u, torch.complex(x.expand(shape), steps.expand(shape)))
        return {(v, 1): values[i].imag / tiny for i, v in enumerate(directions)}

    def _higher(self, u: Field, x: Tensor, orders: dict[Direction, set[int]]) -> Derivatives:
        """Derivatives of several orders along each direction, by one evaluation of u on all circles."""
        if not orders:
            return {}
        radius, nodes = self.circle
        half = nodes // 2
        circle = [cmath.exp(1j * math.pi * (k + 0.5) / half) for k in range(half)]
        units = [[c / math.hypot(*v) for c in v] for v in orders]
        shape = (len(orders), half, *x.shape)
        steps = x.new_tensor([[[(z * radius * c).real for c in v] for z in circle] for v in units]).unsqueeze(2)
        heights = x.new_tensor([[[(z * radius * c).imag for c in v] for z in circle] for v in units]).unsqueeze(2)
        values = _at(u, torch.complex(x + steps, heights.expand(shape)))
        derivatives = {}
        for i, v in enumerate(orders):
            for n in orders[v]:
                weights = torch.tensor([z**-n for z in circle], dtype=values.dtype, device=x.device)
                scale = math.factorial(n) / half * (math.hypot(*v) / radius) ** n
                derivatives[v, n] = torch.tensordot(weights, values[i], dims=1).real * scale
        return derivatives


def _at(u: Field, z: Tensor) -> Tensor:
    """The values of u at complex points (..., n, d), of shape (..., n, m)."""
    points: Any = ComplexPoints(z.flatten(0, -2))  # stands for a tensor
    values: Any = u(points)
    moved = isinstance(values, ComplexPoints)  # otherwise u does not depend on its points
    tensor = values.tensor if moved else torch.complex(values, torch.zeros_like(values))
    unflattened: Tensor = tensor.unflatten(0, z.shape[:-1])
    return unflattened


def _apart(columns: dict[Axes, Tensor], other: dict[Axes, Tensor], size: Tensor) -> float:
    """The largest relative distance of two sets of columns, relative to u where a derivative is smaller than u."""
    tiny = torch.finfo(size.dtype).tiny
    ratios = [(columns[a] - other[a]).norm() / torch.maximum(other[a].norm(), size).clamp_min(tiny) for a in other]
    return float(torch.stack(ratios).max())  # nan where any of them is nan
