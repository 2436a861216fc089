"""The nonlinear Schroedinger equation (benchmark P13)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import pi

import numpy as np
import torch
from torch import Tensor

from pde_train.derivatives import Jet
from pde_train.geometry import Box
from pde_train.pdes.base import PDE, on
from pde_train.references.base import Reference, certified
from pde_train.references.fourier import Semilinear

RESOLUTIONS = ((1024, pi / 6400), (2048, pi / 12800))
"""Fourier modes and the longest time step of the two solutions whose difference is the error."""


@dataclass(frozen=True)
class Schroedinger1D(PDE):
    """i h_t + h_xx / 2 + |h|^2 h = 0 on [-5, 5] x [0, pi/2] for h = u + i v, from h = 2 / cosh(x), periodic.

    Source: Raissi, Perdikaris, Karniadakis, J. Comput. Phys. 378 (2019), section 3.1.1. The two-soliton of the
    whole line differs from the periodic solution by 1e-2 at the end; the reference is a Fourier series.
    """

    weights: Mapping[str, float] = field(default_factory=dict)

    coordinates = ("x", "t")
    unknowns = ("u", "v")
    domain = Box((-5.0, 0.0), (5.0, pi / 2))

    @on("interior", needs="u v v_t u_xx")
    def real(self, d: Jet) -> Tensor:
        return -d.v_t + d.u_xx / 2 + (d.u**2 + d.v**2) * d.u

    @on("interior", needs="u v u_t v_xx")
    def imaginary(self, d: Jet) -> Tensor:
        return d.u_t + d.v_xx / 2 + (d.u**2 + d.v**2) * d.v

    @on("initial", needs="u")
    def start_real(self, d: Jet) -> Tensor:
        return d.u - 2 / torch.cosh(d.x)

    @on("initial", needs="v")
    def start_imaginary(self, d: Jet) -> Tensor:
        return d.v

    @on("periodic", needs="u")
    def seam_u(self, d: Jet) -> Tensor:
        return d.u - d.across_u

    @on("periodic", needs="v")
    def seam_v(self, d: Jet) -> Tensor:
        return d.v - d.across_v

    @on("periodic", needs="u_x")
    def seam_slope_u(self, d: Jet) -> Tensor:
        return d.u_x - d.across_u_x

    @on("periodic", needs="v_x")
    def seam_slope_v(self, d: Jet) -> Tensor:
        return d.v_x - d.across_v_x

    def reference(self, x: np.ndarray) -> Reference:
        equation = Semilinear(
            lower=-5.0,
            length=10.0,
            linear=lambda k: -0.5j * k**2,
            factor=lambda k: 1j * np.ones_like(k),
            product=lambda h: np.abs(h) ** 2 * h,
            start=lambda x: 2 / np.cosh(x),
        )

        def solve(resolution: tuple[int, float]) -> np.ndarray:
            h = equation.at(x, *resolution)
            return np.stack([h.real, h.imag], axis=1)

        return certified(solve, "schroedinger_1d", x, RESOLUTIONS)
