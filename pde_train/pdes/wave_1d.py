"""The wave equation with two standing waves (benchmark P6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import pi

import torch
from torch import Tensor

from pde_train.derivatives import Jet
from pde_train.geometry import Box
from pde_train.pdes.base import PDE, fulfils, on
from pde_train.pdes.checks import check_positive, check_whole


@dataclass(frozen=True)
class Wave1D(PDE):
    """The equation u_tt = speed^2 u_xx on [0, 1] x [0, 1] of a string that is fixed at both ends and starts at rest.

    The initial values are u(x, 0) = sin(pi x) + sin(beta pi x) / 2 and u_t(x, 0) = 0. The exact solution is
    u = sin(pi x) cos(speed pi t) + sin(beta pi x) cos(speed beta pi t) / 2.
    Source: PINNacle (Hao et al., NeurIPS 2024, arXiv 2306.08827); first in Wang, Yu, Perdikaris, J. Comput. Phys. 449
    (2022).

    Attributes:
        speed: The speed of waves.
        beta: The number of half waves of the second wave in space.
        weights: See `PDE`.

    Raises:
        UsageError: The speed is not positive, or beta no positive integer.
    """

    speed: float = 2.0
    beta: int = 4
    weights: Mapping[str, float] = field(default_factory=dict)

    coordinates = ("x", "t")
    domain = Box((0.0, 0.0), (1.0, 1.0))

    def __post_init__(self) -> None:
        check_positive(speed=self.speed)
        check_whole(beta=self.beta)
        super().__post_init__()

    def exact(self, d: Jet) -> Tensor:
        first = torch.sin(pi * d.x) * torch.cos(self.speed * pi * d.t)
        second = torch.sin(self.beta * pi * d.x) * torch.cos(self.speed * self.beta * pi * d.t)
        return first + second / 2

    def initial(self, d: Jet) -> Tensor:
        """The values at t = 0."""
        return torch.sin(pi * d.x) + torch.sin(self.beta * pi * d.x) / 2

    @fulfils("start", "rest", "walls")
    def ansatz(self, d: Jet, raw: Tensor) -> Tensor:
        return self.initial(d) + d.t**2 * d.x * (1 - d.x) * raw

    @on("interior", needs="u_tt u_xx")
    def wave(self, d: Jet) -> Tensor:
        return d.u_tt - self.speed**2 * d.u_xx

    @on("initial", needs="u")
    def start(self, d: Jet) -> Tensor:
        return d.u - self.initial(d)

    @on("initial", needs="u_t")
    def rest(self, d: Jet) -> Tensor:
        return d.u_t

    @on("boundary", needs="u")
    def walls(self, d: Jet) -> Tensor:
        return d.u
