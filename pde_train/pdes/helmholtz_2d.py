"""The Helmholtz equation on a square (benchmark P4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import pi

import torch
from torch import Tensor

from pde_train.derivatives import Jet
from pde_train.geometry import Box
from pde_train.pdes.base import PDE, fulfils, on
from pde_train.pdes.checks import check_positive, check_whole


@dataclass(frozen=True)
class Helmholtz2D(PDE):
    """The equation lap u + k^2 u = f on [-1, 1]^2 with u = 0 on the boundary.

    The exact solution is u = sin(a_1 pi x) sin(a_2 pi y), and f = (k^2 - (a_1^2 + a_2^2) pi^2) u.
    Source: Wang, Teng, Perdikaris, SIAM J. Sci. Comput. 43 (2021); also in PINA.

    Attributes:
        a_1: The number of waves along x.
        a_2: The number of waves along y.
        k: The wave number of the equation.
        weights: See `PDE`.

    Raises:
        UsageError: k is not positive, or a_1 or a_2 no positive integer.
    """

    a_1: int = 1
    a_2: int = 4
    k: float = 1.0
    weights: Mapping[str, float] = field(default_factory=dict)

    coordinates = ("x", "y")
    domain = Box((-1.0, -1.0), (1.0, 1.0))

    def __post_init__(self) -> None:
        check_positive(k=self.k)
        check_whole(a_1=self.a_1, a_2=self.a_2)
        super().__post_init__()

    def exact(self, d: Jet) -> Tensor:
        return torch.sin(self.a_1 * pi * d.x) * torch.sin(self.a_2 * pi * d.y)

    @fulfils("value")
    def ansatz(self, d: Jet, raw: Tensor) -> Tensor:
        return (1 - d.x**2) * (1 - d.y**2) * raw

    @on("interior", needs="u lap_u")
    def helmholtz(self, d: Jet) -> Tensor:
        return d.lap_u + self.k**2 * d.u - (self.k**2 - (self.a_1**2 + self.a_2**2) * pi**2) * self.exact(d)

    @on("boundary", needs="u")
    def value(self, d: Jet) -> Tensor:
        return d.u
