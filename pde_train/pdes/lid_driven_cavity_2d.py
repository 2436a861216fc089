"""The lid-driven cavity: stationary flow in a square, one side of which moves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from torch import Tensor

from pde_train.derivatives import Jet
from pde_train.domains import Away, Pinned
from pde_train.errors import UsageError
from pde_train.geometry import Box, Domain
from pde_train.pdes.base import PDE, on
from pde_train.pdes.checks import check_positive
from pde_train.references.base import Reference, certified
from pde_train.references.cavity import Cavity

LIDS = {"constant": (1.0, 0.0), "parabolic": (0.0, 4.0, -4.0)}
"""The velocity of each lid by powers of the distance from either corner."""

Distance = float
"""The type of a field that decides where points lie: unlike a `float`, it is neither learnt nor varied in a stack."""

DEGREES = (40, 48)
"""Degrees of the polynomials of the two solutions whose difference is the error."""


@dataclass(frozen=True)
class LidDrivenCavity2D(PDE):
    """u . grad u + grad p = lap u / R, div u = 0 on [0, 1]^2 for the velocity (u, v) and the pressure p.

    The lid at y = 1 has the velocity (lid(x), 0), and the other sides are at rest. The pressure is 0 at (0, 0).
    Sources: Ghia, Ghia, Shin, J. Comput. Phys. 48 (1982); `NS2D_LidDriven` of PINNacle (Hao et al., arXiv 2306.08827).

    Attributes:
        reynolds: The Reynolds number R.
        lid: `constant`, lid(x) = 1, or `parabolic`, lid(x) = 4 x (1 - x).
        away: The distance from both corners at the lid within which no points lie. The pressure is not bounded there,
            like 1 / r under a constant lid, and like ln r under the other one.
        weights: See `PDE`.

    Raises:
        UsageError: A number is not positive, or the lid is unknown.
    """

    reynolds: float = 100.0
    lid: str = "constant"
    away: Distance = 0.05
    weights: Mapping[str, float] = field(default_factory=dict)

    coordinates = ("x", "y")
    unknowns = ("u", "v", "p")

    def __post_init__(self) -> None:
        check_positive(reynolds=self.reynolds, away=self.away)
        if self.lid not in LIDS:
            raise UsageError(f"pde.lid={self.lid} is unknown: expected one of {', '.join(LIDS)}, choose one")
        super().__post_init__()

    @cached_property
    def domain(self) -> Domain:  # type: ignore[override]  # a constant of other equations
        square = Box((0.0, 0.0), (1.0, 1.0))
        return Pinned(Away(square, [(0.0, 1.0), (1.0, 1.0)], self.away), {"origin": (0.0, 0.0)})

    @on("interior", needs="u v u_x u_y p_x lap_u")
    def momentum_x(self, d: Jet) -> Tensor:
        return d.u * d.u_x + d.v * d.u_y + d.p_x - d.lap_u / self.reynolds

    @on("interior", needs="u v v_x v_y p_y lap_v")
    def momentum_y(self, d: Jet) -> Tensor:
        return d.u * d.v_x + d.v * d.v_y + d.p_y - d.lap_v / self.reynolds

    @on("interior", needs="u_x v_y")
    def continuity(self, d: Jet) -> Tensor:
        return d.u_x + d.v_y

    @on("boundary", needs="u")
    def velocity_x(self, d: Jet) -> Tensor:
        at_lid = (d.n_y > 0).to(d.u)
        return d.u - at_lid * (1 if self.lid == "constant" else 4 * d.x * (1 - d.x))

    @on("boundary", needs="v")
    def velocity_y(self, d: Jet) -> Tensor:
        return d.v

    @on("origin", needs="p")
    def pressure(self, d: Jet) -> Tensor:
        return d.p

    def reference(self, x: np.ndarray) -> Reference:
        flow = Cavity(self.reynolds, LIDS[self.lid])

        def solve(degree: int) -> np.ndarray:
            values = flow.at(np.concatenate([x, [[0.0, 0.0]]]), degree)
            values[:, 2] -= values[-1, 2]
            return values[:-1]

        return certified(solve, f"lid_driven_cavity_2d {self.reynolds} {self.lid}", x, DEGREES)
