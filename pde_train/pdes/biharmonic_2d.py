"""The biharmonic equation on the unit square: a plate (benchmark P3b)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import pi

import torch
from torch import Tensor

from pde_train.derivatives import Jet
from pde_train.geometry import Box
from pde_train.pdes.base import PDE, fulfils, on
from pde_train.pdes.checks import check_boundary


@dataclass(frozen=True)
class Biharmonic2D(PDE):
    """The equation lap lap u = f on [0, 1]^2.

    Attributes:
        boundary: `simply_supported` has u = lap u = 0 on the boundary and the exact solution u =
            sin(pi x) sin(pi y); `clamped` has u = du/dn = 0 and u = sin(pi x)^2 sin(pi y)^2.
        weights: See `PDE`.
    """

    boundary: str = "simply_supported"
    weights: Mapping[str, float] = field(default_factory=dict)

    coordinates = ("x", "y")
    domain = Box((0.0, 0.0), (1.0, 1.0))

    def __post_init__(self) -> None:
        super().__post_init__()
        check_boundary(self.boundary)

    @property
    def clamped(self) -> bool:
        """Whether the plate is clamped."""
        return self.boundary == "clamped"

    def exact(self, d: Jet) -> Tensor:
        u = torch.sin(pi * d.x) * torch.sin(pi * d.y)
        return u**2 if self.clamped else u

    @fulfils("value", "slope")
    def ansatz(self, d: Jet, raw: Tensor) -> Tensor:
        b = d.x * (1 - d.x) * d.y * (1 - d.y)
        return (b**2 if self.clamped else b) * raw

    @on("interior", needs="bih_u")
    def biharmonic(self, d: Jet) -> Tensor:
        if self.clamped:
            c_x, c_y = torch.cos(2 * pi * d.x), torch.cos(2 * pi * d.y)
            return d.bih_u - 4 * pi**4 * (4 * c_x * c_y - c_x - c_y)
        return d.bih_u - 4 * pi**4 * torch.sin(pi * d.x) * torch.sin(pi * d.y)

    @on("boundary", needs="u")
    def value(self, d: Jet) -> Tensor:
        return d.u

    @on("boundary", needs="lap_u", when=lambda pde: not pde.clamped)
    def moment(self, d: Jet) -> Tensor:
        return d.lap_u

    @on("boundary", needs="u_x u_y", when=lambda pde: pde.clamped)
    def slope(self, d: Jet) -> Tensor:
        return d.n_x * d.u_x + d.n_y * d.u_y
