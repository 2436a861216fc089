"""The linear Poisson-Boltzmann equation on a square with four holes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import pi

import numpy as np
import torch
from torch import Tensor

from pde_train.derivatives import Jet
from pde_train.domains import Difference, Disc, Union
from pde_train.geometry import Box
from pde_train.pdes.base import PDE, on
from pde_train.pdes.checks import check_positive, check_whole
from pde_train.references.base import Reference, certified
from pde_train.references.fundamental import Screened

CORNERS = ((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0))

DISCS = ((0.5, 0.5, 0.2), (0.4, -0.4, 0.4), (-0.2, -0.7, 0.1), (-0.6, 0.5, 0.3))
"""Center and radius of each hole."""

COUNTS = (40, 50)
"""Sources at each corner of the two solutions whose difference is the error."""


@dataclass(frozen=True)
class PoissonBoltzmann2D(PDE):
    """-lap u + k^2 u = f on [-1, 1]^2 without four discs, u given on the square and on the discs.

    The source is f = amplitude (a_1^2 + a_2^2 + x^2 + y^2) sin(a_1 pi x) sin(a_2 pi y). Source of the problem:
    `PoissonBoltzmann2D` of PINNacle (Hao et al., arXiv 2306.08827).

    Attributes:
        k: The inverse of the length over which charges are screened.
        a_1: The frequency of f along x.
        a_2: The frequency of f along y.
        amplitude: The factor of f.
        u_square: The value of u on the square.
        u_discs: The value of u on the discs.
        weights: See `PDE`.

    Raises:
        UsageError: k is not positive, or a frequency is no positive integer.
    """

    k: float = 8.0
    a_1: int = 1
    a_2: int = 4
    amplitude: float = 10.0
    u_square: float = 0.2
    u_discs: float = 1.0
    weights: Mapping[str, float] = field(default_factory=dict)

    coordinates = ("x", "y")
    domain = Difference(
        Union({"square": Box(CORNERS[0], CORNERS[2])}),
        {f"disc_{i}": Disc((x, y), radius) for i, (x, y, radius) in enumerate(DISCS)},
    )

    def __post_init__(self) -> None:
        check_positive(k=self.k)
        check_whole(a_1=self.a_1, a_2=self.a_2)
        super().__post_init__()

    @on("interior", needs="u lap_u")
    def poisson_boltzmann(self, d: Jet) -> Tensor:
        waves = torch.sin(self.a_1 * pi * d.x) * torch.sin(self.a_2 * pi * d.y)
        return -d.lap_u + self.k**2 * d.u - self.amplitude * (self.a_1**2 + self.a_2**2 + d.x**2 + d.y**2) * waves

    @on("square", needs="u")
    def outside(self, d: Jet) -> Tensor:
        return d.u - self.u_square

    @on("disc", needs="u")
    def holes(self, d: Jet) -> Tensor:
        return d.u - self.u_discs

    def particular(self, x: np.ndarray) -> np.ndarray:
        """A solution of the equation without its conditions.

        It is b_0 S + b_1 (x^2 + y^2) S + b_2 (x S_x + y S_y) for S = sin(a_1 pi x) sin(a_2 pi y), because
        lap((x^2 + y^2) S) = 4 S + 4 (x S_x + y S_y) + (x^2 + y^2) lap S, and lap(x S_x + y S_y) = 2 lap S +
        x lap S_x + y lap S_y.

        Args:
            x: The points (n, 2).

        Returns:
            The values (n,).
        """
        angles = np.array([self.a_1, self.a_2]) * pi * x
        waves = np.sin(angles).prod(axis=1)
        slopes = (angles * np.cos(angles) * np.sin(angles[:, ::-1])).sum(axis=1)
        frequency = self.a_1**2 + self.a_2**2  # -lap S = pi^2 frequency S
        factor = self.k**2 + pi**2 * frequency
        b_1 = self.amplitude / factor
        b_2 = 4 * b_1 / factor
        b_0 = (self.amplitude * frequency + 4 * b_1 - 2 * pi**2 * frequency * b_2) / factor
        values: np.ndarray = (b_0 + b_1 * (x**2).sum(axis=1)) * waves + b_2 * slopes
        return values

    def reference(self, x: np.ndarray) -> Reference:
        rest = Screened(
            CORNERS,
            lambda x: self.u_square - self.particular(x),
            DISCS,
            lambda x: self.u_discs - self.particular(x),
            self.k,
        )

        def solve(count: int) -> np.ndarray:
            return (self.particular(x) + rest.solved(count)(x))[:, None]

        numbers = f"{self.k} {self.a_1} {self.a_2} {self.amplitude} {self.u_square} {self.u_discs}"
        return certified(solve, f"poisson_boltzmann_2d {numbers}", x, COUNTS)
