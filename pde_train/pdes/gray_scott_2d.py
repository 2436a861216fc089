"""The reaction and diffusion of Gray and Scott in the plane (benchmark P19)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from pde_train.derivatives import Jet
from pde_train.geometry import Box
from pde_train.pdes.base import PDE, fulfils, joined, on
from pde_train.pdes.checks import check_positive
from pde_train.references.base import Reference
from pde_train.references.fourier import Semilinear

RESOLUTIONS = ((320, 1 / 2), (400, 5 / 16))
"""Fourier modes along each coordinate and the time step of the two solutions whose difference is the error."""


@dataclass(frozen=True)
class GrayScott2D(PDE):
    """u_t = diffusivity_u lap u + feed (1 - u) - u v^2 and v_t = diffusivity_v lap v - decay v + u v^2, periodic.

    On [-1, 1]^2 x [0, 200] a drop of v that eats u grows into rings and spots. Both begin as Gaussians,
    u = 1 - exp(-80 ((x + 0.05)^2 + (y + 0.02)^2)) and v = exp(-80 ((x - 0.05)^2 + (y - 0.02)^2)), which are 1e-30
    at the boundary. Source: PINNacle (arXiv 2306.08827), whose code gives no condition on the boundary; Pearson,
    Science 261 (1993), for the equation in a periodic square.

    Attributes:
        diffusivity_u: The diffusivity of u.
        diffusivity_v: The diffusivity of v.
        feed: The rate at which u is brought in.
        decay: The rate at which v is taken out, which is Pearson's F + k.
        weights: See `PDE`.

    Raises:
        UsageError: A number is not positive.
    """

    diffusivity_u: float = 1e-5
    diffusivity_v: float = 5e-6
    feed: float = 0.04
    decay: float = 0.1
    weights: Mapping[str, float] = field(default_factory=dict)

    coordinates = ("x", "y", "t")
    unknowns = ("u", "v")
    domain = Box((-1.0, -1.0, 0.0), (1.0, 1.0, 200.0))

    def __post_init__(self) -> None:
        check_positive(
            diffusivity_u=self.diffusivity_u, diffusivity_v=self.diffusivity_v, feed=self.feed, decay=self.decay
        )
        super().__post_init__()

    def initial(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The values of u and v at t = 0."""
        u = 1 - torch.exp(-80 * ((x + 0.05) ** 2 + (y + 0.02) ** 2))
        v = torch.exp(-80 * ((x - 0.05) ** 2 + (y - 0.02) ** 2))
        return u, v

    @fulfils("start_u", "start_v")
    def ansatz(self, d: Jet, raw: Tensor) -> Tensor:
        return joined(self.initial(d.x, d.y)) + d.t / 200 * raw

    @on("interior", needs="u v u_t lap_u")
    def substrate(self, d: Jet) -> Tensor:
        return d.u_t - self.diffusivity_u * d.lap_u - self.feed * (1 - d.u) + d.u * d.v**2

    @on("interior", needs="u v v_t lap_v")
    def activator(self, d: Jet) -> Tensor:
        return d.v_t - self.diffusivity_v * d.lap_v + self.decay * d.v - d.u * d.v**2

    @on("initial", needs="u")
    def start_u(self, d: Jet) -> Tensor:
        return d.u - self.initial(d.x, d.y)[0]

    @on("initial", needs="v")
    def start_v(self, d: Jet) -> Tensor:
        return d.v - self.initial(d.x, d.y)[1]

    @on("periodic", needs="u")
    def seam_u(self, d: Jet) -> Tensor:
        return d.u - d.across_u

    @on("periodic", needs="v")
    def seam_v(self, d: Jet) -> Tensor:
        return d.v - d.across_v

    @on("periodic", needs="u_x u_y")
    def seam_slope_u(self, d: Jet) -> Tensor:
        return d.n_x * (d.u_x - d.across_u_x) + d.n_y * (d.u_y - d.across_u_y)

    @on("periodic", needs="v_x v_y")
    def seam_slope_v(self, d: Jet) -> Tensor:
        return d.n_x * (d.v_x - d.across_v_x) + d.n_y * (d.v_y - d.across_v_y)

    def reference(self, x: np.ndarray) -> Reference:
        def linear(k_x: np.ndarray, k_y: np.ndarray) -> np.ndarray:
            k = k_x**2 + k_y**2
            return np.stack([-self.diffusivity_u * k - self.feed, -self.diffusivity_v * k - self.decay])

        def reaction(values: np.ndarray) -> np.ndarray:
            u, v = values
            eaten = u * v**2
            return np.stack([self.feed - eaten, eaten])

        def start(x: np.ndarray, y: np.ndarray) -> np.ndarray:
            return torch.stack(self.initial(torch.from_numpy(x), torch.from_numpy(y))).numpy()

        equation = Semilinear(
            lower=-1.0,
            length=2.0,
            linear=linear,
            factor=lambda k_x, k_y: np.ones((2, *k_x.shape)),
            product=reaction,
            start=start,
            kept=1.0,  # diffusion damps the highest modes, so that little is aliased
            real=True,
        )
        numbers = f"{self.diffusivity_u}, {self.diffusivity_v}, {self.feed} and {self.decay}"
        return equation.reference(f"gray_scott_2d of {numbers}", x, RESOLUTIONS)
