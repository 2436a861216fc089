"""The periodic benchmark of the Korteweg-de Vries equation (benchmark P11)."""

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

RESOLUTIONS = ((384, 1 / 8000), (512, 1 / 16000))
"""Fourier modes and the time step of the two solutions whose difference is the error."""


@dataclass(frozen=True)
class KdVPeriodic1D(PDE):
    """The equation u_t + u u_x + delta^2 u_xxx = 0 on [-1, 1] x [0, 1], periodic with u_x and u_xx, from cos(pi x).

    The wave steepens until t = 1 / pi and then breaks up into a train of solitons.
    Source: Zabusky, Kruskal, Phys. Rev. Lett. 15 (1965), on an interval of the same length; jaxpi (arXiv 2308.08468).

    Attributes:
        delta: The square root of the dispersion.
        weights: See `PDE`.

    Raises:
        UsageError: delta is not positive.
    """

    delta: float = 0.022
    weights: Mapping[str, float] = field(default_factory=dict)

    coordinates = ("x", "t")
    domain = Box((-1.0, 0.0), (1.0, 1.0))

    def __post_init__(self) -> None:
        check_positive(delta=self.delta)
        super().__post_init__()

    def initial(self, x: Tensor) -> Tensor:
        """The values at t = 0."""
        return torch.cos(pi * x)

    @fulfils("start")
    def ansatz(self, d: Jet, raw: Tensor) -> Tensor:
        return self.initial(d.x) + d.t * raw

    @on("interior", needs="u u_t u_x u_xxx")
    def kdv(self, d: Jet) -> Tensor:
        return d.u_t + d.u * d.u_x + self.delta**2 * d.u_xxx

    @on("initial", needs="u")
    def start(self, d: Jet) -> Tensor:
        return d.u - self.initial(d.x)

    @on("periodic", needs="u")
    def seam(self, d: Jet) -> Tensor:
        return d.u - d.across_u

    @on("periodic", needs="u_x")
    def seam_slope(self, d: Jet) -> Tensor:
        return d.u_x - d.across_u_x

    @on("periodic", needs="u_xx")
    def seam_curvature(self, d: Jet) -> Tensor:
        return d.u_xx - d.across_u_xx

    def reference(self, x: np.ndarray) -> Reference:
        equation = Semilinear(
            lower=-1.0,
            length=2.0,
            linear=lambda k: 1j * self.delta**2 * k**3,
            factor=lambda k: -1j * k / 2,
            product=lambda u: u**2,
            start=lambda x: self.initial(torch.from_numpy(x)).numpy(),
            real=True,
        )
        return equation.reference(f"kdv_periodic_1d of delta {self.delta}", x, RESOLUTIONS)
