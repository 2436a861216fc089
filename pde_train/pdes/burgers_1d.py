"""Burgers' equation (benchmark P9)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import pi
from numbers import Real

import numpy as np
import torch
from torch import Tensor

from pde_train.derivatives import Jet
from pde_train.errors import UsageError
from pde_train.geometry import Box
from pde_train.pdes.base import PDE, on

NODES, VISCOSITIES = 160, (0.001, 0.2)
"""Nodes of the quadrature of the exact solution, and the viscosities for which they give 12 digits."""


@dataclass(frozen=True)
class Burgers1D(PDE):
    """u_t + u u_x = viscosity u_xx on [-1, 1] x [0, 1], u(x, 0) = -sin(pi x), u = 0 at x = -1 and 1."""

    viscosity: float = 0.01 / pi
    weights: Mapping[str, float] = field(default_factory=dict)

    coordinates = ("x", "t")
    domain = Box((-1.0, 0.0), (1.0, 1.0))

    def __post_init__(self) -> None:
        super().__post_init__()
        least, most = VISCOSITIES
        if not isinstance(self.viscosity, Real) or not least <= self.viscosity <= most:
            raise UsageError(
                f"pde.viscosity={self.viscosity} has no accurate reference: expected {least} to {most}, choose one"
            )

    def exact(self, d: Jet) -> Tensor:
        """u = -int sin(pi y) f(y) e^(-z^2) dz / int f(y) e^(-z^2) dz by Gauss-Hermite quadrature.

        y = x - sqrt(4 viscosity t) z, f(y) = exp(-cos(pi y) / (2 pi viscosity)): Hopf (Comm. Pure Appl. Math. 3, 1950),
        Cole (Quart. Appl. Math. 9, 1951). The softmax is f up to a factor that cancels, free of overflow.
        """
        z, weights = (d.x.new_tensor(a) for a in np.polynomial.hermite.hermgauss(NODES))
        y = pi * (d.x - torch.sqrt(4 * self.viscosity * d.t) * z)  # (n, NODES)
        f = weights * torch.softmax(-torch.cos(y) / (2 * pi * self.viscosity), dim=1)
        return -(torch.sin(y) * f).sum(1, keepdim=True) / f.sum(1, keepdim=True)

    @on("interior", needs="u u_t u_x u_xx")
    def burgers(self, d: Jet) -> Tensor:
        return d.u_t + d.u * d.u_x - self.viscosity * d.u_xx

    @on("initial", needs="u")
    def start(self, d: Jet) -> Tensor:
        return d.u + torch.sin(pi * d.x)

    @on("boundary", needs="u")
    def walls(self, d: Jet) -> Tensor:
        return d.u
