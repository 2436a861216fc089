"""An unknown conductivity in the heat equation, from noisy values of its solution."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import pi

import torch
from torch import Tensor

from pde_train.derivatives import Jet
from pde_train.geometry import Box
from pde_train.pdes.base import PDE, on


@dataclass(frozen=True)
class HeatInverse2D(PDE):
    """u_t = div(a grad u) + f on [-1, 1]^2 x [0, 1] for u and the conductivity a, which is known on the boundary.

    u = e^(-t) sin(pi x) sin(pi y) is known by measured values (`pde.data`), and a = 2 + sin(pi x) sin(pi y), which does
    not change in time, is to be found. Source: PINNacle (arXiv 2306.08827), problem HInv.

    Attributes:
        weights: See `PDE`.
    """

    weights: Mapping[str, float] = field(default_factory=dict)

    coordinates = ("x", "y", "t")
    unknowns = ("u", "a")
    domain = Box((-1.0, -1.0, 0.0), (1.0, 1.0, 1.0))

    @on("interior", needs="u_t u_x u_y lap_u a a_x a_y")
    def heat(self, d: Jet) -> Tensor:
        s, slopes = torch.sin(pi * d.x) * torch.sin(pi * d.y), self.slopes(d)
        source = torch.exp(-d.t) * ((4 * pi**2 - 1) * s + 2 * pi**2 * s**2 - slopes)
        return d.u_t - d.a * d.lap_u - d.a_x * d.u_x - d.a_y * d.u_y - source

    @on("interior", needs="a_t")
    def steady(self, d: Jet) -> Tensor:
        return d.a_t

    @on("boundary", needs="a")
    def known(self, d: Jet) -> Tensor:
        return d.a - self.exact(d)[1]

    def slopes(self, d: Jet) -> Tensor:
        """The square of the gradient of sin(pi x) sin(pi y)."""
        in_x = pi * torch.cos(pi * d.x) * torch.sin(pi * d.y)
        in_y = pi * torch.sin(pi * d.x) * torch.cos(pi * d.y)
        return in_x**2 + in_y**2

    def exact(self, d: Jet) -> tuple[Tensor, Tensor]:
        s = torch.sin(pi * d.x) * torch.sin(pi * d.y)
        return torch.exp(-d.t) * s, 2 + s
