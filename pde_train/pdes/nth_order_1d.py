"""Equations of first to fourth order that differ in nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import pi

import torch
from torch import Tensor

from pde_train.derivatives import Jet
from pde_train.errors import UsageError
from pde_train.geometry import Box
from pde_train.pdes.base import PDE, on


@dataclass(frozen=True)
class NthOrder1D(PDE):
    """The equation u^(n) = f on [-1, 1], with u and its first n - 1 derivatives given at x = -1.

    The solution is u = sin(pi x + 1/2) for every n, so that a comparison of orders changes neither the solution, nor
    the domain, nor the kind of condition.

    Attributes:
        n: The order of the equation, 1 to 4.
        weights: See `PDE`.

    Raises:
        UsageError: It is another one.
    """

    n: int = 2
    weights: Mapping[str, float] = field(default_factory=dict)

    coordinates = ("x",)
    domain = Box((-1.0,), (1.0,))

    def __post_init__(self) -> None:
        if isinstance(self.n, bool) or self.n not in (1, 2, 3, 4):
            raise UsageError(f"pde.n={self.n} is no order of this equation: expected 1, 2, 3 or 4, choose one")
        super().__post_init__()

    def exact(self, d: Jet) -> Tensor:
        return self.derivative(d, 0)

    def derivative(self, d: Jet, k: int) -> Tensor:
        """The k-th derivative of the solution."""
        return pi**k * torch.sin((2 * pi * d.x + 1 + k * pi) / 2)

    @on("interior", needs="u_x", when=lambda pde: pde.n == 1)
    def first_order(self, d: Jet) -> Tensor:
        return d.u_x - self.derivative(d, 1)

    @on("interior", needs="u_xx", when=lambda pde: pde.n == 2)
    def second_order(self, d: Jet) -> Tensor:
        return d.u_xx - self.derivative(d, 2)

    @on("interior", needs="u_xxx", when=lambda pde: pde.n == 3)
    def third_order(self, d: Jet) -> Tensor:
        return d.u_xxx - self.derivative(d, 3)

    @on("interior", needs="u_xxxx", when=lambda pde: pde.n == 4)
    def fourth_order(self, d: Jet) -> Tensor:
        return d.u_xxxx - self.derivative(d, 4)

    @on("x_lower", needs="u")
    def value(self, d: Jet) -> Tensor:
        return d.u - self.derivative(d, 0)

    @on("x_lower", needs="u_x", when=lambda pde: pde.n > 1)
    def slope(self, d: Jet) -> Tensor:
        return d.u_x - self.derivative(d, 1)

    @on("x_lower", needs="u_xx", when=lambda pde: pde.n > 2)
    def curvature(self, d: Jet) -> Tensor:
        return d.u_xx - self.derivative(d, 2)

    @on("x_lower", needs="u_xxx", when=lambda pde: pde.n > 3)
    def third_derivative(self, d: Jet) -> Tensor:
        return d.u_xxx - self.derivative(d, 3)
