"""Burgers' equation (benchmark P9)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import pi
from numbers import Real

import torch
from torch import Tensor

from pde_train.derivatives import Jet
from pde_train.errors import UsageError
from pde_train.geometry import Box
from pde_train.pdes.base import PDE, on

SPACING, TAIL = 0.1, 8.0
"""Of the nodes of the trapezoidal rule in z, and how far they reach beyond the integrand's last maximum, e^-64."""

BLOCK = 2**22
"""Values of the integrand that are held at once."""

VISCOSITIES = (0.0001 / pi, 0.2)
"""The viscosities for which the exact solution has at least 11 digits (tests/test_burgers.py)."""


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
        """u = -int sin(pi y) w dz / int w dz with w = exp(-z^2 - cos(pi y) / (2 pi nu)), y = x - 2 z sqrt(nu t).

        Hopf (Comm. Pure Appl. Math. 3, 1950), Cole (Quart. Appl. Math. 9, 1951); nu is the viscosity. As |u| <= 1,
        maxima of w lie at |z| <= sqrt(t / nu) / 2, and their width in z is at least 0.3 for t <= 1: the trapezoidal
        rule with spacing 0.1 is exact to rounding. Weights are normalised by their logarithms, free of overflow, and
        in float64 whatever the precision of the points.
        """
        reach = math.sqrt(float(d.t.detach().max()) / self.viscosity) / 2 + TAIL
        z = torch.arange(-reach, reach + SPACING, SPACING, dtype=torch.float64, device=d.x.device)
        rows = max(1, BLOCK // len(z))
        found = []
        for x, t in zip(d.x.double().split(rows), d.t.double().split(rows), strict=True):
            y = pi * (x - 2 * torch.sqrt(self.viscosity * t) * z)  # (rows, nodes)
            w = torch.softmax(-(z**2) - torch.cos(y) / (2 * pi * self.viscosity), dim=1)
            found.append(-(torch.sin(y) * w).sum(1, keepdim=True))
        return torch.cat(found).to(d.x.dtype)

    @on("interior", needs="u u_t u_x u_xx")
    def burgers(self, d: Jet) -> Tensor:
        return d.u_t + d.u * d.u_x - self.viscosity * d.u_xx

    @on("initial", needs="u")
    def start(self, d: Jet) -> Tensor:
        return d.u + torch.sin(pi * d.x)

    @on("boundary", needs="u")
    def walls(self, d: Jet) -> Tensor:
        return d.u
