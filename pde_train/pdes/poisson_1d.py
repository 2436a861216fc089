"""Poisson's equation on an interval (benchmark P1a)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import pi

import torch
from torch import Tensor

from pde_train.derivatives import Jet
from pde_train.geometry import Box
from pde_train.pdes.base import PDE, fulfils, on
from pde_train.pdes.checks import check_frequency


@dataclass(frozen=True)
class Poisson1D(PDE):
    """The equation -u'' = f on [-1, 1] with u given at both ends; the exact solution is u = sin(frequency pi x).

    Attributes:
        frequency: The frequency in units of pi.
        weights: See `PDE`.
    """

    frequency: float = 1.0
    weights: Mapping[str, float] = field(default_factory=dict)

    coordinates = ("x",)
    domain = Box((-1.0,), (1.0,))

    def __post_init__(self) -> None:
        super().__post_init__()
        check_frequency(self.frequency)

    def exact(self, d: Jet) -> Tensor:
        return torch.sin(self.frequency * pi * d.x)

    @fulfils("value")
    def ansatz(self, d: Jet, raw: Tensor) -> Tensor:
        return math.sin(self.frequency * pi) * d.x + (1 - d.x) * (1 + d.x) * raw

    @on("interior", needs="u_xx")
    def poisson(self, d: Jet) -> Tensor:
        k = self.frequency * pi
        return -d.u_xx - k**2 * torch.sin(k * d.x)

    @on("boundary", needs="u")
    def value(self, d: Jet) -> Tensor:
        return d.u - self.exact(d)
