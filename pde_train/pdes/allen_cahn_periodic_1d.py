"""The periodic benchmark of the Allen-Cahn equation (benchmark P10)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import pi

import numpy as np
import torch
from torch import Tensor

from pde_train.derivatives import Jet
from pde_train.geometry import Box
from pde_train.pdes.base import PDE, fulfils, on
from pde_train.pdes.checks import check_positive
from pde_train.references.base import Reference
from pde_train.references.fourier import Semilinear

RESOLUTIONS = ((2048, 1 / 400), (4096, 1 / 800))
"""Fourier modes and the time step of the two solutions whose difference is the error."""


@dataclass(frozen=True)
class AllenCahnPeriodic1D(PDE):
    """The equation u_t = diffusivity u_xx + 5 (u - u^3) on [-1, 1] x [0, 1], u and u_x periodic, from x^2 cos(pi x).

    At t = 0 the slope jumps by 4 where the ends meet; at all later times it does not.
    Source: Raissi, Perdikaris, Karniadakis, J. Comput. Phys. 378 (2019), section 3.2.1; jaxpi (arXiv 2308.08468).

    Attributes:
        diffusivity: The diffusivity.
        weights: See `PDE`.

    Raises:
        UsageError: The diffusivity is not positive.
    """

    diffusivity: float = 1e-4
    weights: Mapping[str, float] = field(default_factory=dict)

    coordinates = ("x", "t")
    domain = Box((-1.0, 0.0), (1.0, 1.0))

    def __post_init__(self) -> None:
        check_positive(diffusivity=self.diffusivity)
        super().__post_init__()

    def initial(self, x: Tensor) -> Tensor:
        """The values at t = 0."""
        return x**2 * torch.cos(pi * x)

    @fulfils("start")
    def ansatz(self, d: Jet, raw: Tensor) -> Tensor:
        return self.initial(d.x) + d.t * raw

    @on("interior", needs="u u_t u_xx")
    def allen_cahn(self, d: Jet) -> Tensor:
        return d.u_t - self.diffusivity * d.u_xx - 5 * (d.u - d.u**3)

    @on("initial", needs="u")
    def start(self, d: Jet) -> Tensor:
        return d.u - self.initial(d.x)

    @on("periodic", needs="u")
    def seam(self, d: Jet) -> Tensor:
        return d.u - d.across_u

    @on("periodic", needs="u_x")
    def seam_slope(self, d: Jet) -> Tensor:
        return d.u_x - d.across_u_x

    def reference(self, x: np.ndarray) -> Reference:
        equation = Semilinear(
            lower=-1.0,
            length=2.0,
            linear=lambda k: 5 - self.diffusivity * k**2,
            factor=lambda k: -5 * np.ones_like(k),
            product=lambda u: u**3,
            start=lambda x: self.initial(torch.from_numpy(x)).numpy(),
            real=True,
        )
        return equation.reference(f"allen_cahn_periodic_1d of diffusivity {self.diffusivity}", x, RESOLUTIONS)
