"""The nonlinear Klein-Gordon equation (benchmark P17)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pde_train.derivatives import Jet
from pde_train.geometry import Box
from pde_train.pdes.base import PDE, fulfils, on


@dataclass(frozen=True)
class KleinGordon1D(PDE):
    """The equation u_tt - u_xx + u^2 = -x cos t + x^2 cos^2 t on [-1, 1] x [0, 10] with u given at both ends.

    The initial values are u(x, 0) = x and u_t(x, 0) = 0, and the exact solution is u = x cos t.
    Source: the example `Klein_Gordon` of DeepXDE (Lu et al., SIAM Review 63, 2021).

    Attributes:
        weights: See `PDE`.
    """

    weights: Mapping[str, float] = field(default_factory=dict)

    coordinates = ("x", "t")
    domain = Box((-1.0, 0.0), (1.0, 10.0))

    def exact(self, d: Jet) -> Tensor:
        return d.x * torch.cos(d.t)

    @fulfils("start", "rest")
    def ansatz(self, d: Jet, raw: Tensor) -> Tensor:
        # A function with the values at both ends could only be the exact solution, or a disguise of it.
        return d.x + d.t**2 * raw

    @on("interior", needs="u u_tt u_xx")
    def klein_gordon(self, d: Jet) -> Tensor:
        exact = self.exact(d)
        return d.u_tt - d.u_xx + d.u**2 + exact - exact**2

    @on("initial", needs="u")
    def start(self, d: Jet) -> Tensor:
        return d.u - d.x

    @on("initial", needs="u_t")
    def rest(self, d: Jet) -> Tensor:
        return d.u_t

    @on("boundary", needs="u")
    def value(self, d: Jet) -> Tensor:
        return d.u - self.exact(d)
