"""The biharmonic equation on an interval: a beam."""

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
from pde_train.pdes.checks import check_boundary, check_frequency


@dataclass(frozen=True)
class Biharmonic1D(PDE):
    """The equation u'''' = f on [-1, 1] with the exact solution u = sin(k x), k = frequency pi.

    Attributes:
        frequency: The frequency in units of pi.
        boundary: `simply_supported` gives u and u'' at both ends, `clamped` gives u and u'.
        weights: See `PDE`.
    """

    frequency: float = 1.0
    boundary: str = "simply_supported"
    weights: Mapping[str, float] = field(default_factory=dict)

    coordinates = ("x",)
    domain = Box((-1.0,), (1.0,))

    def __post_init__(self) -> None:
        super().__post_init__()
        check_frequency(self.frequency)
        check_boundary(self.boundary)

    def exact(self, d: Jet) -> Tensor:
        return torch.sin(self.frequency * pi * d.x)

    @fulfils("value", "slope")
    def ansatz(self, d: Jet, raw: Tensor) -> Tensor:
        k, b = self.frequency * pi, (1 - d.x) * (1 + d.x)
        value, slope = math.sin(k), k * math.cos(k)
        if self.boundary == "clamped":  # the odd cubic with these values and slopes at both ends
            return (3 * value - slope) / 2 * d.x + (slope - value) / 2 * d.x**3 + b**2 * raw
        return value * d.x + b * raw

    @on("interior", needs="u_xxxx")
    def biharmonic(self, d: Jet) -> Tensor:
        k = self.frequency * pi
        return d.u_xxxx - k**4 * torch.sin(k * d.x)

    @on("boundary", needs="u")
    def value(self, d: Jet) -> Tensor:
        return d.u - self.exact(d)

    @on("boundary", needs="u_xx", when=lambda pde: pde.boundary == "simply_supported")
    def moment(self, d: Jet) -> Tensor:
        k = self.frequency * pi
        return d.u_xx + k**2 * torch.sin(k * d.x)

    @on("boundary", needs="u_x", when=lambda pde: pde.boundary == "clamped")
    def slope(self, d: Jet) -> Tensor:
        k = self.frequency * pi
        return d.u_x - k * torch.cos(k * d.x)
