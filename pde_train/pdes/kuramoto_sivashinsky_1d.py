"""A travelling shock of the generalised Kuramoto-Sivashinsky equation (benchmark P12)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pde_train.derivatives import Jet
from pde_train.geometry import Box
from pde_train.pdes.base import PDE, on


@dataclass(frozen=True)
class KuramotoSivashinsky1D(PDE):
    """The equation u_t + u u_x + u_xx + 4 u_xxx + u_xxxx = 0 on [-10, 10] x [0, 1], with u and u_x given at both ends.

    The exact solution is u = 11 + 15 T - 15 T^2 - 15 T^3 with T = tanh(t - x / 2).
    Source: an example of NeuralPDE.jl (Zubov et al., arXiv 2107.09443).

    Attributes:
        weights: See `PDE`.
    """

    weights: Mapping[str, float] = field(default_factory=dict)

    coordinates = ("x", "t")
    domain = Box((-10.0, 0.0), (10.0, 1.0))

    def exact(self, d: Jet) -> Tensor:
        shock = torch.tanh(d.t - d.x / 2)
        return 11 + 15 * shock - 15 * shock**2 - 15 * shock**3

    @on("interior", needs="u u_t u_x u_xx u_xxx u_xxxx")
    def kuramoto_sivashinsky(self, d: Jet) -> Tensor:
        return d.u_t + d.u * d.u_x + d.u_xx + 4 * d.u_xxx + d.u_xxxx

    @on("initial", needs="u")
    def start(self, d: Jet) -> Tensor:
        return d.u - self.exact(d)

    @on("boundary", needs="u")
    def value(self, d: Jet) -> Tensor:
        return d.u - self.exact(d)

    @on("boundary", needs="u_x")
    def slope(self, d: Jet) -> Tensor:
        shock = torch.tanh(d.t - d.x / 2)
        return d.u_x + (1 - shock**2) * (15 - 30 * shock - 45 * shock**2) / 2
