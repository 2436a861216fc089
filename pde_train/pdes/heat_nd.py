"""The heat equation on the unit cube of any dimension."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import pi, prod

import torch
from torch import Tensor

from pde_train.derivatives import Jet
from pde_train.geometry import Box
from pde_train.pdes.base import PDE, fulfils, on
from pde_train.pdes.checks import check_positive, check_whole


@dataclass(frozen=True)
class HeatND(PDE):
    """The equation u_t = diffusivity lap u on [0, 1]^dimension x [0, 1] with u = 0 on the boundary.

    The initial values are u(x, 0) = prod_i sin(pi x_i), and the exact solution is
    u = exp(-diffusivity dimension pi^2 t) prod_i sin(pi x_i), which decays to 5e-5 at t = 1 by default.
    Source: the equation u_t = lap u / 4 of natural-gradient PINNs (Müller, Zeinhofer, ICML 2023, arXiv 2302.13163;
    Dangel, Müller, Zeinhofer, arXiv 2405.15603, in 4 + 1 dimensions). The product of sines is derived here from their
    solution in one dimension by separation of variables.

    Attributes:
        dimension: The number of coordinates of space, which are called x1, x2, ...
        diffusivity: The diffusivity.
        weights: See `PDE`.

    Raises:
        UsageError: The dimension is no positive integer, or the diffusivity not positive.
    """

    dimension: int = 4
    diffusivity: float = 0.25
    weights: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_whole(dimension=self.dimension)
        check_positive(diffusivity=self.diffusivity)
        super().__post_init__()

    @cached_property
    def space(self) -> tuple[str, ...]:
        """The coordinates other than time."""
        return tuple(f"x{i}" for i in range(1, self.dimension + 1))

    @cached_property
    def coordinates(self) -> tuple[str, ...]:  # type: ignore[override]  # a constant of other equations
        return (*self.space, "t")

    @cached_property
    def domain(self) -> Box:  # type: ignore[override]  # a constant of other equations
        return Box((0.0,) * (self.dimension + 1), (1.0,) * (self.dimension + 1))

    def initial(self, d: Jet) -> Tensor:
        """The values at t = 0."""
        first, *others = (torch.sin(pi * getattr(d, x)) for x in self.space)
        return prod(others, start=first)

    def exact(self, d: Jet) -> Tensor:
        return torch.exp(-self.diffusivity * self.dimension * pi**2 * d.t) * self.initial(d)

    @fulfils("start", "walls")
    def ansatz(self, d: Jet, raw: Tensor) -> Tensor:
        return self.initial(d) + prod((getattr(d, x) * (1 - getattr(d, x)) for x in self.space), start=d.t) * raw

    @on("interior", needs="u_t lap_u")
    def heat(self, d: Jet) -> Tensor:
        return d.u_t - self.diffusivity * d.lap_u

    @on("initial", needs="u")
    def start(self, d: Jet) -> Tensor:
        return d.u - self.initial(d)

    @on("boundary", needs="u")
    def walls(self, d: Jet) -> Tensor:
        return d.u
