"""An unknown conductivity in Poisson's equation, from noisy values of its solution."""

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
class PoissonInverse2D(PDE):
    """div(a grad u) + f = 0 on [0, 1]^2 for u and the conductivity a, which is known on the boundary.

    u = sin(pi x) sin(pi y) is known by measured values (`pde.data`), and a = 1 / (1 + x^2 + y^2 + (x - 1)^2 +
    (y - 1)^2) is to be found. Source: PINNacle (arXiv 2306.08827), problem PInv, whose f has 2x + 1 and 2y + 1 in
    place of 2x - 1 and 2y - 1: u and a do not solve its equation.

    Attributes:
        weights: See `PDE`.
    """

    weights: Mapping[str, float] = field(default_factory=dict)

    coordinates = ("x", "y")
    unknowns = ("u", "a")
    domain = Box((0.0, 0.0), (1.0, 1.0))

    @on("interior", needs="u_x u_y lap_u a a_x a_y")
    def diffusion(self, d: Jet) -> Tensor:
        u, a = self.exact(d)
        slopes = (2 * d.x - 1) * torch.cos(pi * d.x) * torch.sin(pi * d.y)
        slopes = slopes + (2 * d.y - 1) * torch.sin(pi * d.x) * torch.cos(pi * d.y)
        source = 2 * pi**2 * u * a + 2 * pi * a**2 * slopes
        return d.a * d.lap_u + d.a_x * d.u_x + d.a_y * d.u_y + source

    @on("boundary", needs="a")
    def known(self, d: Jet) -> Tensor:
        return d.a - self.exact(d)[1]

    def exact(self, d: Jet) -> tuple[Tensor, Tensor]:
        u = torch.sin(pi * d.x) * torch.sin(pi * d.y)
        return u, 1 / (1 + d.x**2 + d.y**2 + (d.x - 1) ** 2 + (d.y - 1) ** 2)
