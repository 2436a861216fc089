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
from pde_train.pdes.base import PDE, fulfils, on

SPACING, TAIL = 0.1, 8.0
"""The spacing of the trapezoidal rule in z, and its reach beyond the last maximum, where the
integrand is e^-64 of it.
"""

BLOCK = 2**22
"""The number of values of the integrand that are in memory at once."""

VISCOSITIES = (0.0001 / pi, 0.2)
"""The range of viscosities in which the exact solution has at least 11 digits (tests/test_burgers.py)."""


@dataclass(frozen=True)
class Burgers1D(PDE):
    """The equation u_t + u u_x = viscosity u_xx on [-1, 1] x [0, 1].

    The initial values are u(x, 0) = -sin(pi x), and u = 0 at x = -1 and x = 1.

    Attributes:
        viscosity: The viscosity, within VISCOSITIES.
        weights: See `PDE`.
    """

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
        """The solution by the transformation of Hopf and Cole, to at least 11 digits.

        u = -int sin(pi y) w dz / int w dz with w = exp(-z^2 - cos(pi y) / (2 pi nu)) and y = x - 2
        z sqrt(nu t), where nu is the viscosity (Hopf, Comm. Pure Appl. Math. 3, 1950; Cole, Quart.
        Appl. Math. 9, 1951). Because |u| <= 1, the maxima of w lie at |z| <= sqrt(t / nu) / 2.
        Their width in z is at least 0.3 for t <= 1, so the trapezoidal rule with spacing 0.1 is
        exact to rounding. The weights w are normalised through their logarithms, so that they
        cannot overflow, and in float64 whatever the precision of the points.

        Args:
            d: A jet with the coordinates x and t (n, 1).

        Returns:
            The solution (n, 1) in the precision of the coordinates.
        """
        reach = math.sqrt(float(d.t.detach().max()) / self.viscosity) / 2 + TAIL
        z = torch.arange(-reach, reach + SPACING, SPACING, dtype=torch.float64, device=d.x.device)
        rows = max(1, BLOCK // len(z))
        blocks = []
        for x, t in zip(d.x.double().split(rows), d.t.double().split(rows), strict=True):
            y = pi * (x - 2 * torch.sqrt(self.viscosity * t) * z)  # (rows, nodes)
            w = torch.softmax(-(z**2) - torch.cos(y) / (2 * pi * self.viscosity), dim=1)
            blocks.append(-(torch.sin(y) * w).sum(1, keepdim=True))
        return torch.cat(blocks).to(d.x.dtype)

    @fulfils("start", "walls")
    def ansatz(self, d: Jet, raw: Tensor) -> Tensor:
        return -torch.sin(pi * d.x) + d.t * (1 - d.x) * (1 + d.x) * raw

    @on("interior", needs="u u_t u_x u_xx")
    def burgers(self, d: Jet) -> Tensor:
        return d.u_t + d.u * d.u_x - self.viscosity * d.u_xx

    @on("initial", needs="u")
    def start(self, d: Jet) -> Tensor:
        return d.u + torch.sin(pi * d.x)

    @on("boundary", needs="u")
    def walls(self, d: Jet) -> Tensor:
        return d.u
