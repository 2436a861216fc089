"""The heat equation (benchmark P5)."""

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
class Heat1D(PDE):
    """The equation u_t = diffusivity u_xx on [0, 1] x [0, 1] with u(x, 0) = sin(pi x), and u = 0 at x = 0 and x = 1.

    The exact solution is u = exp(-diffusivity pi^2 t) sin(pi x).
    Source: the example `heat` of DeepXDE (Lu et al., SIAM Review 63, 2021).

    Attributes:
        diffusivity: The diffusivity.
        weights: See `PDE`.

    Raises:
        UsageError: The diffusivity is not positive.
    """

    diffusivity: float = 0.4
    weights: Mapping[str, float] = field(default_factory=dict)

    coordinates = ("x", "t")
    domain = Box((0.0, 0.0), (1.0, 1.0))

    def __post_init__(self) -> None:
        check_positive(diffusivity=self.diffusivity)
        super().__post_init__()

    def exact(self, d: Jet) -> Tensor:
        return torch.exp(-self.diffusivity * pi**2 * d.t) * torch.sin(pi * d.x)

    @fulfils("start", "walls")
    def ansatz(self, d: Jet, raw: Tensor) -> Tensor:
        return torch.sin(pi * d.x) + d.t * d.x * (1 - d.x) * raw

    @on("interior", needs="u_t u_xx")
    def heat(self, d: Jet) -> Tensor:
        return d.u_t - self.diffusivity * d.u_xx

    @on("initial", needs="u")
    def start(self, d: Jet) -> Tensor:
        return d.u - torch.sin(pi * d.x)

    @on("boundary", needs="u")
    def walls(self, d: Jet) -> Tensor:
        return d.u
