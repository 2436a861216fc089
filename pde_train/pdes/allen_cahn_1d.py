"""A travelling front of the Allen-Cahn equation (benchmark P10)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pde_train.derivatives import Jet
from pde_train.geometry import Box
from pde_train.pdes.base import PDE, on
from pde_train.pdes.checks import check_positive, sqrt


@dataclass(frozen=True)
class AllenCahn1D(PDE):
    """The equation u_t = diffusivity u_xx + 5 (u - u^3) on [-1, 1] x [0, 1] with u given at both ends and at t = 0.

    The exact solution is the front u = (1 - tanh(sqrt(5 / (8 diffusivity)) (x - s t))) / 2 with the speed
    s = 3 sqrt(5 diffusivity / 2), which leaves u = 1 behind it.
    Source: the front of a bistable reaction, such as Murray, Mathematical Biology I (2002), chapter 13.

    Attributes:
        diffusivity: The diffusivity.
        weights: See `PDE`.

    Raises:
        UsageError: The diffusivity is not positive.
    """

    diffusivity: float = 0.01
    weights: Mapping[str, float] = field(default_factory=dict)

    coordinates = ("x", "t")
    domain = Box((-1.0, 0.0), (1.0, 1.0))

    def __post_init__(self) -> None:
        check_positive(diffusivity=self.diffusivity)
        super().__post_init__()

    def exact(self, d: Jet) -> Tensor:
        speed = 3 * sqrt(5 * self.diffusivity / 2)
        return (1 - torch.tanh(sqrt(5 / (8 * self.diffusivity)) * (d.x - speed * d.t))) / 2

    @on("interior", needs="u u_t u_xx")
    def allen_cahn(self, d: Jet) -> Tensor:
        return d.u_t - self.diffusivity * d.u_xx - 5 * (d.u - d.u**3)

    @on("initial", needs="u")
    def start(self, d: Jet) -> Tensor:
        return d.u - self.exact(d)

    @on("boundary", needs="u")
    def value(self, d: Jet) -> Tensor:
        return d.u - self.exact(d)
