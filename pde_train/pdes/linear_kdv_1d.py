"""The linear part of the Korteweg-de Vries equation in a periodic interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import pi

import torch
from torch import Tensor

from pde_train.derivatives import Jet
from pde_train.geometry import Box
from pde_train.pdes.base import PDE, fulfils, on


@dataclass(frozen=True)
class LinearKdV1D(PDE):
    """The equation u_t + u_xxx = 0 on [0, 2 pi] x [0, 1] with u(x, 0) = sin x and u, u_x and u_xx periodic in x.

    It is also called the Airy equation. The exact solution is u = sin(x + t). It is the equation of
    third order in a comparison of orders.

    Attributes:
        weights: See `PDE`.
    """

    weights: Mapping[str, float] = field(default_factory=dict)

    coordinates = ("x", "t")
    domain = Box((0.0, 0.0), (2 * pi, 1.0))

    def exact(self, d: Jet) -> Tensor:
        return torch.sin(d.x + d.t)

    @fulfils("start")
    def ansatz(self, d: Jet, raw: Tensor) -> Tensor:
        return torch.sin(d.x) + d.t * raw

    @on("interior", needs="u_t u_xxx")
    def linear_kdv(self, d: Jet) -> Tensor:
        return d.u_t + d.u_xxx

    @on("initial", needs="u")
    def start(self, d: Jet) -> Tensor:
        return d.u - torch.sin(d.x)

    @on("periodic", needs="u")
    def seam(self, d: Jet) -> Tensor:
        return d.u - d.across_u

    @on("periodic", needs="u_x")
    def seam_slope(self, d: Jet) -> Tensor:
        return d.u_x - d.across_u_x

    @on("periodic", needs="u_xx")
    def seam_curvature(self, d: Jet) -> Tensor:
        return d.u_xx - d.across_u_xx
