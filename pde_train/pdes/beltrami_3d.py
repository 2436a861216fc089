"""A flow of Beltrami type: an exact solution of the Navier-Stokes equations in three dimensions (benchmark P14)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pde_train.derivatives import Jet
from pde_train.geometry import Box
from pde_train.pdes.base import PDE, on
from pde_train.pdes.checks import check_positive


@dataclass(frozen=True)
class Beltrami3D(PDE):
    """u_t + u . grad u + grad p = lap u / R, div u = 0, for the velocity (u, v, w) and the pressure p.

    With s(x, y) = sin(a x + b y), c(x, y) = cos(a x + b y) and e = exp(-b^2 t / R), on [-1, 1]^3 x [0, 1],
    u = -a (e^(a x) s(y, z) + e^(a z) c(x, y)) e. The velocities v and w, and the pressure
    p = -a^2 / 2 (e^(2 a x) + 2 e^(a (y + z)) s(x, y) c(z, x) + ...) e^2, follow by turning x, y, z into y, z, x.
    Velocities are given on the boundary and at t = 0, and the pressure on the right side.
    Source: Ethier, Steinman, Int. J. Numer. Methods Fluids 19 (1994), where b is called d.

    Attributes:
        a: The wave number and rate of growth in space.
        b: The other wave number, which sets the decay.
        reynolds: The Reynolds number R.
        weights: See `PDE`.

    Raises:
        UsageError: A number is not positive.
    """

    a: float = 1.0
    b: float = 1.0
    reynolds: float = 1.0
    weights: Mapping[str, float] = field(default_factory=dict)

    coordinates = ("x", "y", "z", "t")
    unknowns = ("u", "v", "w", "p")
    domain = Box((-1.0, -1.0, -1.0, 0.0), (1.0, 1.0, 1.0, 1.0))

    def __post_init__(self) -> None:
        check_positive(a=self.a, b=self.b, reynolds=self.reynolds)
        super().__post_init__()

    def exact(self, d: Jet) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        a, b = self.a, self.b
        decay = torch.exp(-(b**2) * d.t / self.reynolds)
        turns = ((d.x, d.y, d.z), (d.y, d.z, d.x), (d.z, d.x, d.y))
        u, v, w = (
            -a * (torch.exp(a * x) * torch.sin(a * y + b * z) + torch.exp(a * z) * torch.cos(a * x + b * y)) * decay
            for x, y, z in turns
        )
        squares = [
            torch.exp(2 * a * x) + 2 * torch.exp(a * (y + z)) * torch.sin(a * x + b * y) * torch.cos(a * z + b * x)
            for x, y, z in turns
        ]
        return u, v, w, -(a**2) / 2 * sum(squares[1:], squares[0]) * decay**2

    @on("interior", needs="u v w u_t u_x u_y u_z p_x lap_u")
    def momentum_x(self, d: Jet) -> Tensor:
        return d.u_t + d.u * d.u_x + d.v * d.u_y + d.w * d.u_z + d.p_x - d.lap_u / self.reynolds

    @on("interior", needs="u v w v_t v_x v_y v_z p_y lap_v")
    def momentum_y(self, d: Jet) -> Tensor:
        return d.v_t + d.u * d.v_x + d.v * d.v_y + d.w * d.v_z + d.p_y - d.lap_v / self.reynolds

    @on("interior", needs="u v w w_t w_x w_y w_z p_z lap_w")
    def momentum_z(self, d: Jet) -> Tensor:
        return d.w_t + d.u * d.w_x + d.v * d.w_y + d.w * d.w_z + d.p_z - d.lap_w / self.reynolds

    @on("interior", needs="u_x v_y w_z")
    def continuity(self, d: Jet) -> Tensor:
        return d.u_x + d.v_y + d.w_z

    @on("initial", needs="u")
    def start_x(self, d: Jet) -> Tensor:
        return d.u - self.exact(d)[0]

    @on("initial", needs="v")
    def start_y(self, d: Jet) -> Tensor:
        return d.v - self.exact(d)[1]

    @on("initial", needs="w")
    def start_z(self, d: Jet) -> Tensor:
        return d.w - self.exact(d)[2]

    @on("boundary", needs="u")
    def velocity_x(self, d: Jet) -> Tensor:
        return d.u - self.exact(d)[0]

    @on("boundary", needs="v")
    def velocity_y(self, d: Jet) -> Tensor:
        return d.v - self.exact(d)[1]

    @on("boundary", needs="w")
    def velocity_z(self, d: Jet) -> Tensor:
        return d.w - self.exact(d)[2]

    @on("x_upper", needs="p")
    def pressure(self, d: Jet) -> Tensor:
        return d.p - self.exact(d)[3]
