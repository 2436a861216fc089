"""Laplace's equation on a square with four holes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from pde_train.derivatives import Jet
from pde_train.domains import Difference, Disc, Union
from pde_train.geometry import Box
from pde_train.pdes.base import PDE, on
from pde_train.references.base import Reference, certified
from pde_train.references.fundamental import Screened

CORNERS = ((-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5))

DISCS = ((-0.3, -0.3, 0.1), (0.3, -0.3, 0.1), (-0.3, 0.3, 0.1), (0.3, 0.3, 0.1))
"""Center and radius of each hole."""

COUNTS = (30, 40)
"""Sources at each corner of the two solutions whose difference is the error."""


@dataclass(frozen=True)
class PoissonHoles(PDE):
    """lap u = 0 on [-1/2, 1/2]^2 without four discs; u = 1 on the square and u = 0 on the discs.

    Source: `Poisson2D_Classic` of PINNacle (Hao et al., arXiv 2306.08827).

    Attributes:
        weights: See `PDE`.
    """

    weights: Mapping[str, float] = field(default_factory=dict)

    coordinates = ("x", "y")
    domain = Difference(
        Union({"square": Box(CORNERS[0], CORNERS[2])}),
        {f"disc_{i}": Disc((x, y), radius) for i, (x, y, radius) in enumerate(DISCS)},
    )

    @on("interior", needs="lap_u")
    def laplace(self, d: Jet) -> Tensor:
        return d.lap_u

    @on("square", needs="u")
    def outside(self, d: Jet) -> Tensor:
        return d.u - 1

    @on("disc", needs="u")
    def holes(self, d: Jet) -> Tensor:
        return d.u

    def reference(self, x: np.ndarray) -> Reference:
        harmonic = Screened(CORNERS, lambda x: np.ones(len(x)), DISCS, lambda x: np.zeros(len(x)))
        return certified(lambda count: harmonic.solved(count)(x)[:, None], "poisson_holes", x, COUNTS)
