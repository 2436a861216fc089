"""Poisson's equation on the unit square (benchmark P2)."""

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
class Poisson2D(PDE):
    """The equation -lap u = 2 pi^2 sin(pi x) sin(pi y) on [0, 1]^2 with u = 0 on the boundary.

    The exact solution is u = sin(pi x) sin(pi y).

    Attributes:
        weights: See `PDE`.
    """

    weights: Mapping[str, float] = field(default_factory=dict)

    coordinates = ("x", "y")
    domain = Box((0.0, 0.0), (1.0, 1.0))

    def exact(self, d: Jet) -> Tensor:
        return torch.sin(pi * d.x) * torch.sin(pi * d.y)

    @fulfils("value")
    def ansatz(self, d: Jet, raw: Tensor) -> Tensor:
        return d.x * (1 - d.x) * d.y * (1 - d.y) * raw

    @on("interior", needs="lap_u")
    def poisson(self, d: Jet) -> Tensor:
        return -d.lap_u - 2 * pi**2 * torch.sin(pi * d.x) * torch.sin(pi * d.y)

    @on("boundary", needs="u")
    def value(self, d: Jet) -> Tensor:
        return d.u
