"""Convection in a periodic interval (benchmark P7)."""

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


@dataclass(frozen=True)
class Convection1D(PDE):
    """The equation u_t + beta u_x = 0 on [0, 2 pi] x [0, 1], periodic in x, with u(x, 0) = sin x.

    The exact solution is u = sin(x - beta t).

    Attributes:
        beta: The speed.
        weights: See `PDE`.
    """

    beta: float = 1.0
    weights: Mapping[str, float] = field(default_factory=dict)

    coordinates = ("x", "t")
    domain = Box((0.0, 0.0), (2 * pi, 1.0))

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.beta, Real) or not math.isfinite(self.beta):
            raise UsageError(f"pde.beta={self.beta} is no speed: expected a finite number, such as 1.0")

    def exact(self, d: Jet) -> Tensor:
        return torch.sin(d.x - self.beta * d.t)

    @fulfils("start")
    def ansatz(self, d: Jet, raw: Tensor) -> Tensor:
        return torch.sin(d.x) + d.t * raw

    @on("interior", needs="u_t u_x")
    def convection(self, d: Jet) -> Tensor:
        return d.u_t + self.beta * d.u_x

    @on("initial", needs="u")
    def start(self, d: Jet) -> Tensor:
        return d.u - torch.sin(d.x)

    @on("periodic", needs="u")
    def seam(self, d: Jet) -> Tensor:
        return d.u - d.across_u
