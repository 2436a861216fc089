"""A clamped square plate under a force at its centre."""

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

COUNTS = (16, 24)
"""Harmonic polynomials of the two solutions whose difference is the error."""


@dataclass(frozen=True)
class ClampedPlate2D(PDE):
    """bih w = delta on [-1/2, 1/2]^2 and w = dw/dn = 0 on the boundary, for u = w - r^2 ln r / (8 pi).

    The deflection w under a unit force at the centre, of a plate of unit stiffness, is singular there: bih (r^2 ln r) =
    8 pi delta. What is left of it, u, solves bih u = 0, and has the values and slopes of -r^2 ln r / (8 pi) on the
    boundary. Source: Timoshenko and Woinowsky-Krieger, Theory of Plates and Shells (1959), section 44.

    Attributes:
        weights: See `PDE`.
    """

    weights: Mapping[str, float] = field(default_factory=dict)

    coordinates = ("x", "y")
    domain = Box((-0.5, -0.5), (0.5, 0.5))

    @on("interior", needs="bih_u")
    def biharmonic(self, d: Jet) -> Tensor:
        return d.bih_u

    @on("boundary", needs="u")
    def value(self, d: Jet) -> Tensor:
        square = d.x**2 + d.y**2
        return d.u + square * torch.log(square) / (16 * pi)

    @on("boundary", needs="u_x u_y")
    def slope(self, d: Jet) -> Tensor:
        factor = (torch.log(d.x**2 + d.y**2) + 1) / (8 * pi)
        return d.n_x * (d.u_x + d.x * factor) + d.n_y * (d.u_y + d.y * factor)

    def reference(self, x: np.ndarray) -> Reference:
        return certified(lambda count: deflection(x, count)[:, None], "clamped_plate_2d", x, COUNTS)


def deflection(x: np.ndarray, count: int) -> np.ndarray:
    """The regular part u of the deflection as a sum of biharmonic polynomials.

    They are Re z^4k and r^2 Re z^4k, which have the symmetries of the square, with coefficients by least squares of
    value and slope on half of a side.

    Args:
        x: The points (n, 2).
        count: The number of k = 0, 1, ...

    Returns:
        The values (n,).
    """
    k = 4 * np.arange(count)

    def harmonic(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Powers of 2 z and their derivatives along x, (n, count)."""
        z = 2 * (x[:, :1] + 1j * x[:, 1:])
        return np.real(z**k), np.real(2 * k * z ** np.maximum(k - 1, 0))

    y = 0.5 * np.sin(pi / 2 * (np.arange(8 * count) + 0.5) / (8 * count))
    side = np.stack([np.full_like(y, 0.5), y], axis=1)
    square = (side**2).sum(axis=1, keepdims=True)
    values, slopes = harmonic(side)
    matrix = np.block([[values, square * values], [slopes, 2 * side[:, :1] * values + square * slopes]])
    singular = np.concatenate([square * np.log(square) / 2, side[:, :1] * (np.log(square) + 1)])[:, 0] / (8 * pi)
    size = np.abs(matrix).max(axis=0)
    coefficients = np.linalg.lstsq(matrix / size, -singular, rcond=1e-15)[0] / size
    values = harmonic(x)[0]
    found: np.ndarray = np.hstack([values, (x**2).sum(axis=1, keepdims=True) * values]) @ coefficients
    return found
