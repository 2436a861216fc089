"""The periodic benchmarks of the Kuramoto-Sivashinsky equation, regular and chaotic (benchmark P12)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import pi
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from pde_train.derivatives import Jet
from pde_train.geometry import Box
from pde_train.pdes.base import PDE, fulfils, on
from pde_train.pdes.checks import check_positive
from pde_train.references.base import Reference
from pde_train.references.fourier import Semilinear


@dataclass(frozen=True)
class KuramotoSivashinskyPeriodic1D(PDE):
    """The equation u_t + alpha u u_x + beta u_xx + gamma u_xxxx = 0 with u, u_x, u_xx and u_xxx periodic.

    Waves longer than 2 pi sqrt(gamma / beta) grow, shorter ones decay.

    Attributes:
        alpha: The factor of convection.
        beta: The factor of what makes long waves grow.
        gamma: The factor of what damps short ones.
        weights: See `PDE`.
        resolutions: Fourier modes and the time step of the two references whose difference is the error.

    Raises:
        UsageError: A factor is not positive.
    """

    alpha: float
    beta: float
    gamma: float
    weights: Mapping[str, float] = field(default_factory=dict)

    coordinates = ("x", "t")
    resolutions: ClassVar[tuple[tuple[int, float], tuple[int, float]]]

    def __post_init__(self) -> None:
        check_positive(alpha=self.alpha, beta=self.beta, gamma=self.gamma)
        super().__post_init__()

    @abstractmethod
    def initial(self, x: Tensor) -> Tensor:
        """The values at t = 0."""

    @fulfils("start")
    def ansatz(self, d: Jet, raw: Tensor) -> Tensor:
        return self.initial(d.x) + d.t * raw

    @on("interior", needs="u u_t u_x u_xx u_xxxx")
    def kuramoto_sivashinsky(self, d: Jet) -> Tensor:
        return d.u_t + self.alpha * d.u * d.u_x + self.beta * d.u_xx + self.gamma * d.u_xxxx

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

    @on("periodic", needs="u_xxx")
    def seam_third(self, d: Jet) -> Tensor:
        return d.u_xxx - d.across_u_xxx

    def reference(self, x: np.ndarray) -> Reference:
        equation = Semilinear(
            lower=self.domain.lower[0],
            length=float(self.domain.lengths[0]),
            linear=lambda k: self.beta * k**2 - self.gamma * k**4,
            factor=lambda k: -self.alpha / 2 * 1j * k,
            product=lambda u: u**2,
            start=lambda x: self.initial(torch.from_numpy(x)).numpy(),
            real=True,
        )
        name = f"{type(self).__name__} of {self.alpha}, {self.beta} and {self.gamma}"
        return equation.reference(name, x, self.resolutions)


@dataclass(frozen=True)
class KuramotoSivashinskyRegular1D(KuramotoSivashinskyPeriodic1D):
    """The equation on [-1, 1] x [0, 1] from -sin(pi x), without chaos. Source: jaxpi (arXiv 2308.08468)."""

    alpha: float = 5.0
    beta: float = 0.5
    gamma: float = 0.005

    domain = Box((-1.0, 0.0), (1.0, 1.0))
    resolutions = ((128, 1 / 8000), (256, 1 / 16000))

    def initial(self, x: Tensor) -> Tensor:
        return -torch.sin(pi * x)


@dataclass(frozen=True)
class KuramotoSivashinskyChaotic1D(KuramotoSivashinskyPeriodic1D):
    """The equation on [0, 2 pi] x [0, 1] from cos x (1 + sin x), which turns chaotic.

    It is u_t + u u_x + u_xx + u_xxxx = 0 on an interval of length 32 pi until t = 100, in other units.
    Source: jaxpi (arXiv 2308.08468), PINNacle (arXiv 2306.08827); Kassam, Trefethen, SIAM J. Sci. Comput. 26 (2005).
    """

    alpha: float = 100 / 16
    beta: float = 100 / 16**2
    gamma: float = 100 / 16**4

    domain = Box((0.0, 0.0), (2 * pi, 1.0))
    resolutions = ((384, 1 / 20000), (512, 1 / 40000))

    def initial(self, x: Tensor) -> Tensor:
        return torch.cos(x) * (1 + torch.sin(x))
