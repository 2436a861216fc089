"""Bratu's equation with a source: a nonlinear problem of second order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import pi

import torch
from torch import Tensor

from pde_train.derivatives import Jet
from pde_train.geometry import Box
from pde_train.pdes.base import PDE, fulfils, on
from pde_train.pdes.checks import check_positive


@dataclass(frozen=True)
class Bratu2D(PDE):
    """lap u + strength e^u = f on [0, 1]^2 and u = 0 on the boundary, with f such that u = sin(pi x) sin(pi y).

    Without f it is the equation of combustion in a vessel (Bratu, Bull. Soc. Math. France 42, 1914).

    Attributes:
        strength: The factor of the exponential.
        weights: See `PDE`.

    Raises:
        UsageError: It is not positive.
    """

    strength: float = 1.0
    weights: Mapping[str, float] = field(default_factory=dict)

    coordinates = ("x", "y")
    domain = Box((0.0, 0.0), (1.0, 1.0))

    def __post_init__(self) -> None:
        check_positive(strength=self.strength)
        super().__post_init__()

    def exact(self, d: Jet) -> Tensor:
        return torch.sin(pi * d.x) * torch.sin(pi * d.y)

    @fulfils("value")
    def ansatz(self, d: Jet, raw: Tensor) -> Tensor:
        return d.x * (1 - d.x) * d.y * (1 - d.y) * raw

    @on("interior", needs="u lap_u")
    def bratu(self, d: Jet) -> Tensor:
        exact = self.exact(d)
        source = -2 * pi**2 * exact + self.strength * torch.exp(exact)
        return d.lap_u + self.strength * torch.exp(d.u) - source

    @on("boundary", needs="u")
    def value(self, d: Jet) -> Tensor:
        return d.u
