"""The vortices of Taylor and Green: an exact solution of the Navier-Stokes equations (benchmark P14)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import pi

import torch
from torch import Tensor

from pde_train.derivatives import Jet
from pde_train.geometry import Box
from pde_train.pdes.base import PDE, on
from pde_train.pdes.checks import check_positive


@dataclass(frozen=True)
class TaylorGreen2D(PDE):
    """u_t + u . grad u + grad p = viscosity lap u, div u = 0, for the velocity (u, v) and the pressure p.

    With e = exp(-2 viscosity t), u = -cos x sin y e, v = sin x cos y e and p = -(cos 2x + cos 2y) e^2 / 4 on
    [0, 2 pi]^2 x [0, 1]. Velocities are given on the boundary and at t = 0, and the pressure on the right side.
    Source: Taylor, Green, Proc. R. Soc. A 158 (1937), in two dimensions.

    Attributes:
        viscosity: The kinematic viscosity.
        weights: See `PDE`.

    Raises:
        UsageError: The viscosity is not positive.
    """

    viscosity: float = 0.01
    weights: Mapping[str, float] = field(default_factory=dict)

    coordinates = ("x", "y", "t")
    unknowns = ("u", "v", "p")
    domain = Box((0.0, 0.0, 0.0), (2 * pi, 2 * pi, 1.0))

    def __post_init__(self) -> None:
        check_positive(viscosity=self.viscosity)
        super().__post_init__()

    def exact(self, d: Jet) -> tuple[Tensor, Tensor, Tensor]:
        decay = torch.exp(-2 * self.viscosity * d.t)
        u = -torch.cos(d.x) * torch.sin(d.y) * decay
        v = torch.sin(d.x) * torch.cos(d.y) * decay
        return u, v, -(torch.cos(2 * d.x) + torch.cos(2 * d.y)) * decay**2 / 4

    @on("interior", needs="u v u_t u_x u_y p_x lap_u")
    def momentum_x(self, d: Jet) -> Tensor:
        return d.u_t + d.u * d.u_x + d.v * d.u_y + d.p_x - self.viscosity * d.lap_u

    @on("interior", needs="u v v_t v_x v_y p_y lap_v")
    def momentum_y(self, d: Jet) -> Tensor:
        return d.v_t + d.u * d.v_x + d.v * d.v_y + d.p_y - self.viscosity * d.lap_v

    @on("interior", needs="u_x v_y")
    def continuity(self, d: Jet) -> Tensor:
        return d.u_x + d.v_y

    @on("initial", needs="u")
    def start_x(self, d: Jet) -> Tensor:
        return d.u - self.exact(d)[0]

    @on("initial", needs="v")
    def start_y(self, d: Jet) -> Tensor:
        return d.v - self.exact(d)[1]

    @on("boundary", needs="u")
    def velocity_x(self, d: Jet) -> Tensor:
        return d.u - self.exact(d)[0]

    @on("boundary", needs="v")
    def velocity_y(self, d: Jet) -> Tensor:
        return d.v - self.exact(d)[1]

    @on("x_upper", needs="p")
    def pressure(self, d: Jet) -> Tensor:
        return d.p - self.exact(d)[2]
