"""Logistic reaction without diffusion (benchmark P8)."""

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
class Reaction1D(PDE):
    """The equation u_t = rho u (1 - u) on [0, 2 pi] x [0, 1], periodic in x.

    The initial values are g(x) = exp(-((x - pi) / (pi / 4))^2 / 2), and the exact solution is
    u = g / (g + (1 - g) exp(-rho t)).
    Source: Krishnapriyan et al., NeurIPS 2021 (arXiv 2109.01050).

    Attributes:
        rho: The rate of the reaction.
        weights: See `PDE`.

    Raises:
        UsageError: The rate is not positive.
    """

    rho: float = 5.0
    weights: Mapping[str, float] = field(default_factory=dict)

    coordinates = ("x", "t")
    domain = Box((0.0, 0.0), (2 * pi, 1.0))

    def __post_init__(self) -> None:
        check_positive(rho=self.rho)
        super().__post_init__()

    def initial(self, d: Jet) -> Tensor:
        """The values at t = 0."""
        return torch.exp(-8 * (d.x / pi - 1) ** 2)

    def exact(self, d: Jet) -> Tensor:
        g = self.initial(d)
        return g / (g + (1 - g) * torch.exp(-self.rho * d.t))

    @fulfils("start")
    def ansatz(self, d: Jet, raw: Tensor) -> Tensor:
        return self.initial(d) + d.t * raw

    @on("interior", needs="u u_t")
    def reaction(self, d: Jet) -> Tensor:
        return d.u_t - self.rho * d.u * (1 - d.u)

    @on("initial", needs="u")
    def start(self, d: Jet) -> Tensor:
        return d.u - self.initial(d)

    @on("periodic", needs="u")
    def seam(self, d: Jet) -> Tensor:
        return d.u - d.across_u
