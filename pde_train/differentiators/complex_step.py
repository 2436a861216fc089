"""Derivatives from function values at complex points: exact to rounding without differentiating anything."""

from __future__ import annotations

import cmath
import math
from collections import defaultdict
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pde_train.derivatives import Axes, Field
from pde_train.differentiators.base import Differentiator, sum_of
from pde_train.differentiators.complex_points import ComplexPoints
from pde_train.differentiators.directions import Direction, polarised
from pde_train.errors import UsageError

LARGEST, SMALLEST, RATIO = 2.0, 0.005, 0.7
"""The radii that `"auto"` tries go by this ratio from the largest to the smallest; see `ComplexStep._tried`."""

SCALES = (1e-6, 1e3)
"""The least and the greatest scale of a field that is believed."""

NODES = (16, 32, 64)
"""The numbers of nodes on the whole circle that `"auto"` tries; by symmetry half of them are evaluated."""

REFERENCE = 128
"""Nodes of the rule against which `"auto"` compares."""

APART = 1000
"""How many times their least distance so far the results of two radii in turn may be apart; larger is no rounding."""

AGREED = {torch.float64: 1e-6, torch.float32: 1e-2}
"""The relative distance up to which the results of two radii in turn agree."""

Derivatives = dict[tuple[Direction, int], Tensor]
"""Derivatives, each (n, m), by direction and order."""


@dataclass(frozen=True)
class ComplexStep(Differentiator):
    """First derivatives by a complex step, higher ones by Cauchy's integral on a circle; for analytic fields.

    u_x = Im u(x + i h) / h with a step so small that nothing is lost (Squire and Trapp, SIAM Review 40, 1998). The n-th
    derivative along v is n! / (N r^n) sum_k u(x + r z_k v) z_k^-n over N nodes z_k of the unit circle, the trapezoidal
    rule, whose error falls geometrically (Lyness and Moler, SIAM J. Numer. Anal. 4, 1967); u is real on real points,
    so that half of the circle is enough. Mixed partials come by polarisation.
    radius: r, smaller than the distance of u's nearest singularity (for a tanh unit pi / 2|w|). nodes: N, a multiple
        of 4. `"auto"`: chosen by comparison with a finer rule (see `adapted`).
    chosen: the radius and nodes that `"auto"` means; `adapted` supplies them.
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
    def adaptive(self) -> bool:  # type: ignore[override]
        return "auto" in (self.radius, self.nodes)

    @property
    def reach(self) -> float:  # type: ignore[override]
        return 0.0 if isinstance(self.radius, str) else float(self.radius)

    @property
    def circle(self) -> tuple[float, int]:
        """The radius and the number of nodes in use."""
        radius = self.chosen[0] if isinstance(self.radius, str) else float(self.radius)
        return radius, self.chosen[1] if isinstance(self.nodes, str) else self.nodes

    def adapted(self, u: Field, x: Tensor, axes: frozenset[Axes]) -> ComplexStep:
        """With the radius and nodes, where `"auto"`, that come closest to many nodes on u's higher derivatives at x.

        Of rules within a factor 3 of the closest, the one with the fewest nodes. Radii count from the smallest up, as
        long as they agree: a circle around a singularity converges too, to something else. Raises UsageError where no
        two radii in turn agree, as next to a branch point.
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
        """The radii among which to choose, the smallest first, in the units of the coordinates.

        LARGEST is in units of the field's scale |u| / |u'| where that is above 1, SMALLEST where it is below 1.
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

    def partials(self, u: Field, x: Tensor, axes: frozenset[Axes]) -> dict[Axes, Tensor]:
        directions: dict[tuple[float, ...], set[int]] = defaultdict(set)
        for a in axes - {()}:
            for v, _ in polarised(a, x.shape[1]):
                directions[v].add(len(a))
        along = self._first(u, x, sorted(v for v in directions if 1 in directions[v]))
        along |= self._higher(u, x, {v: orders - {1} for v, orders in sorted(directions.items()) if orders - {1}})
        found = {a: u(x) for a in axes if not a}
        for a in axes - {()}:
            found[a] = sum_of([float(w) * along[v, len(a)] for v, w in polarised(a, x.shape[1])])
        return found

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
        """Derivatives of the orders that belong to each direction, all of them by one evaluation."""
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
        found = {}
        for i, v in enumerate(orders):
            for n in orders[v]:
                weights = torch.tensor([z**-n for z in circle], dtype=values.dtype, device=x.device)
                scale = math.factorial(n) / half * (math.hypot(*v) / radius) ** n
                found[v, n] = torch.tensordot(weights, values[i], dims=1).real * scale
        return found


def _at(u: Field, z: Tensor) -> Tensor:
    """The values of u at complex points (..., n, d), each (..., n, m)."""
    values = u(ComplexPoints(z.flatten(0, -2)))  # type: ignore[arg-type]
    found = values.tensor if isinstance(values, ComplexPoints) else torch.complex(values, torch.zeros_like(values))
    return found.unflatten(0, z.shape[:-1])


def _apart(found: dict[Axes, Tensor], other: dict[Axes, Tensor], size: Tensor) -> float:
    """The largest relative distance of two sets of columns, relative to u where a derivative is smaller than u is."""
    tiny = torch.finfo(size.dtype).tiny
    ratios = [(found[a] - other[a]).norm() / torch.maximum(other[a].norm(), size).clamp_min(tiny) for a in other]
    return float(torch.stack(ratios).max())  # nan where any is
