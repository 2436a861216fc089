"""Diffusion with a source of five frequencies (benchmark P5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import pi

import torch
from torch import Tensor

from pde_train.derivatives import Jet
from pde_train.geometry import Box
from pde_train.pdes.base import PDE, fulfils, on

WAVES = (1, 2, 3, 4, 8)
"""The wave numbers of the solution."""


@dataclass(frozen=True)
class DiffusionReaction1D(PDE):
    """The equation u_t = u_xx + exp(-t) sum_k (k - 1 / k) sin(k x) on [-pi, pi] x [0, 1] with u = 0 at both ends.

    The sum is over k in WAVES. The exact solution is u = exp(-t) sum_k sin(k x) / k, whose values at t = 0 are given.
    Source: the example `diffusion_reaction` of DeepXDE (Lu et al., SIAM Review 63, 2021).

    Attributes:
        weights: See `PDE`.
    """

    weights: Mapping[str, float] = field(default_factory=dict)

    coordinates = ("x", "t")
    domain = Box((-pi, 0.0), (pi, 1.0))

    def initial(self, d: Jet) -> Tensor:
        """The values at t = 0."""
        waves = [torch.sin(k * d.x) / k for k in WAVES]
        return sum(waves[1:], waves[0])

    def source(self, d: Jet) -> Tensor:
        """What the reaction adds."""
        waves = [(k**2 - 1) * torch.sin(k * d.x) / k for k in WAVES]
        return torch.exp(-d.t) * sum(waves[1:], waves[0])

    def exact(self, d: Jet) -> Tensor:
        return torch.exp(-d.t) * self.initial(d)

    @fulfils("start", "walls")
    def ansatz(self, d: Jet, raw: Tensor) -> Tensor:
        return self.initial(d) + d.t * (pi**2 - d.x**2) * raw

    @on("interior", needs="u_t u_xx")
    def diffusion_reaction(self, d: Jet) -> Tensor:
        return d.u_t - d.u_xx - self.source(d)

    @on("initial", needs="u")
    def start(self, d: Jet) -> Tensor:
        return d.u - self.initial(d)

    @on("boundary", needs="u")
    def walls(self, d: Jet) -> Tensor:
        return d.u
