"""Kovasznay's flow: an exact solution of the stationary Navier-Stokes equations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import pi

import torch
from torch import Tensor

from pde_train.derivatives import Jet
from pde_train.geometry import Box
from pde_train.pdes.base import PDE, on
from pde_train.pdes.checks import check_positive, sqrt


@dataclass(frozen=True)
class Kovasznay2D(PDE):
    """u . grad u + grad p = lap u / R, div u = 0, for the velocity (u, v) and the pressure p behind a grid.

    With l = R/2 - sqrt(R^2/4 + 4 pi^2), u = 1 - e^(l x) cos(2 pi y), v = l / (2 pi) e^(l x) sin(2 pi y) and
    p = (1 - e^(2 l x)) / 2. Velocities are given on the boundary, and the pressure on the right side.
    Source: Kovasznay, Math. Proc. Cambridge Phil. Soc. 44 (1948).

    Attributes:
        reynolds: The Reynolds number R.
        weights: See `PDE`.

    Raises:
        UsageError: It is not positive.
    """

    reynolds: float = 20.0
    weights: Mapping[str, float] = field(default_factory=dict)

    coordinates = ("x", "y")
    unknowns = ("u", "v", "p")
    domain = Box((-0.5, -0.5), (1.0, 1.5))

    def __post_init__(self) -> None:
        check_positive(reynolds=self.reynolds)
        super().__post_init__()

    @on("interior", needs="u v u_x u_y p_x lap_u")
    def momentum_x(self, d: Jet) -> Tensor:
        return d.u * d.u_x + d.v * d.u_y + d.p_x - d.lap_u / self.reynolds

    @on("interior", needs="u v v_x v_y p_y lap_v")
    def momentum_y(self, d: Jet) -> Tensor:
        return d.u * d.v_x + d.v * d.v_y + d.p_y - d.lap_v / self.reynolds

    @on("interior", needs="u_x v_y")
    def continuity(self, d: Jet) -> Tensor:
        return d.u_x + d.v_y

    @on("boundary", needs="u")
    def velocity_x(self, d: Jet) -> Tensor:
        return d.u - self.exact(d)[0]

    @on("boundary", needs="v")
    def velocity_y(self, d: Jet) -> Tensor:
        return d.v - self.exact(d)[1]

    @on("x_upper", needs="p")
    def outlet(self, d: Jet) -> Tensor:
        return d.p - self.exact(d)[2]

    def exact(self, d: Jet) -> tuple[Tensor, Tensor, Tensor]:
        rate = self.reynolds / 2 - sqrt(self.reynolds**2 / 4 + 4 * pi**2)
        decay = torch.exp(rate * d.x)
        u = 1 - decay * torch.cos(2 * pi * d.y)
        v = rate / (2 * pi) * decay * torch.sin(2 * pi * d.y)
        return u, v, (1 - decay**2) / 2
