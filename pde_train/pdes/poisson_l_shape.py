"""Poisson's equation on an L, whose solution is singular at the corner that points inwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from torch import Tensor

from pde_train.derivatives import Jet
from pde_train.domains import Away, Difference
from pde_train.geometry import Box, Domain
from pde_train.pdes.base import PDE, on
from pde_train.references.base import Reference, certified
from pde_train.references.fundamental import Screened

CORNERS = ((-1.0, -1.0), (1.0, -1.0), (1.0, 0.0), (0.0, 0.0), (0.0, 1.0), (-1.0, 1.0))

COUNTS = (40, 60)
"""Sources at each corner of the two solutions whose difference is the error."""


@dataclass(frozen=True)
class PoissonLShape(PDE):
    """-lap u = 1 on [-1, 1]^2 without [0, 1]^2, and u = 0 on the boundary.

    At the corner (0, 0) the solution is like r^(2/3), and its gradient is not bounded. Source: the example
    `Poisson_Lshape` of DeepXDE.

    Attributes:
        away: The distance from that corner within which no points lie; None for 0.
        weights: See `PDE`.

    Raises:
        UsageError: The distance is not positive.
    """

    away: float | None = None
    weights: Mapping[str, float] = field(default_factory=dict)

    coordinates = ("x", "y")

    @cached_property
    def domain(self) -> Domain:  # type: ignore[override]  # a constant of other equations
        shape = Difference(Box((-1.0, -1.0), (1.0, 1.0)), {"step": Box((0.0, 0.0), (1.0, 1.0))})
        return shape if self.away is None else Away(shape, [CORNERS[3]], self.away)

    @on("interior", needs="lap_u")
    def poisson(self, d: Jet) -> Tensor:
        return -d.lap_u - 1

    @on("boundary", needs="u")
    def value(self, d: Jet) -> Tensor:
        return d.u

    def reference(self, x: np.ndarray) -> Reference:
        def particular(x: np.ndarray) -> np.ndarray:
            values: np.ndarray = -(x**2).sum(axis=1) / 4
            return values

        harmonic = Screened(CORNERS, outer=lambda x: -particular(x))

        def solve(count: int) -> np.ndarray:
            return (particular(x) + harmonic.solved(count)(x))[:, None]

        return certified(solve, "poisson_l_shape", x, COUNTS)
