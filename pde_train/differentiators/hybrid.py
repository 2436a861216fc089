"""Finite differences of first derivatives by automatic differentiation."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cached_property

from torch import Tensor

from pde_train.derivatives import Axes, Field
from pde_train.differentiators.base import Differentiator
from pde_train.differentiators.finite_difference import FiniteDifference, difference_label
from pde_train.differentiators.reverse import Reverse
from pde_train.errors import UsageError


@dataclass(frozen=True)
class Hybrid(Differentiator):
    """Finite differences of order n - 1 of a first derivative by reverse mode, for a derivative of order n.

    The last coordinate of its axes is differentiated automatically and the others by stencils: u_x
    is exact, u_xx is (u_x(x + h) - u_x(x - h)) / 2h (coupled automatic-numerical differentiation,
    Chiu et al., CMAME 395, 2022). The attributes are those of the finite differences, see
    `FiniteDifference`; the step cannot be `"optimal"`.
    """

    accuracy: int = 2
    step: float | str | Tensor = "auto"
    richardson: int = 0
    spacing: tuple[float, ...] | None = None
    magnitude: float = 1.0
    length: float = 1.0

    exact = False

    def __post_init__(self) -> None:
        if isinstance(self.step, str) and self.step == "optimal":
            raise UsageError("differentiator.step=optimal is for finite_difference: expected auto, grid or a number")
        _ = self.differences  # its own checks

    @property
    def label(self) -> str:
        """The label of its finite differences after the word hybrid, such as `hybrid FD2 h=auto`."""
        return f"hybrid {difference_label(self.accuracy, self.step, self.richardson)}"

    @cached_property
    def differences(self) -> FiniteDifference:
        """What differentiates the first derivatives."""
        plain = FiniteDifference(self.accuracy, self.step, self.richardson)
        return plain if self.spacing is None else plain.fitted(self.spacing, self.magnitude, self.length)

    def fitted(self, spacing: tuple[float, ...], magnitude: float = 1.0, length: float = 1.0) -> Hybrid:
        return replace(self, spacing=spacing, magnitude=magnitude, length=length)

    def reach(self, axes: frozenset[Axes]) -> dict[int, float]:
        return self.differences.reach(frozenset(a[:-1] for a in axes))

    def partials(self, u: Field, x: Tensor, axes: frozenset[Axes]) -> dict[Axes, Tensor]:
        derivatives: dict[Axes, Tensor] = {(): u(x)} if () in axes else {}
        outer: dict[int, set[Axes]] = defaultdict(set)
        for a in axes - {()}:
            outer[a[-1]].add(a[:-1])
        for i, before in outer.items():

            def slope(y: Tensor, along: Axes = (i,)) -> Tensor:
                return Reverse().partials(u, y, frozenset([along]))[along]

            columns = self.differences.partials(slope, x, frozenset(before))
            derivatives |= {(*a, i): column for a, column in columns.items()}
        return derivatives
