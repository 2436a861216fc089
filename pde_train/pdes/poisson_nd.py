"""Poisson's equation on the unit cube of any dimension (benchmark P16, arXiv 2302.13163)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import pi

import torch
from torch import Tensor

from pde_train.derivatives import Jet
from pde_train.errors import UsageError
from pde_train.geometry import Box
from pde_train.pdes.base import PDE, on


@dataclass(frozen=True)
class PoissonND(PDE):
    """The equation -lap u = pi^2 sum_i sin(pi x_i) on [0, 1]^dimension with u given on the boundary.

    The exact solution is u = sum_i sin(pi x_i).

    Attributes:
        dimension: The number of coordinates, which are called x1, x2, ...
        weights: See `PDE`.
    """

    dimension: int = 5
    weights: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.dimension, int) or self.dimension < 1:
            raise UsageError(f"pde.dimension={self.dimension} is none: expected a positive integer, such as 5")
        super().__post_init__()

    @cached_property
    def coordinates(self) -> tuple[str, ...]:  # type: ignore[override]  # a constant of other equations
        return tuple(f"x{i}" for i in range(1, self.dimension + 1))

    @cached_property
    def domain(self) -> Box:  # type: ignore[override]  # a constant of other equations
        return Box((0.0,) * self.dimension, (1.0,) * self.dimension)

    def exact(self, d: Jet) -> Tensor:
        columns = [torch.sin(pi * getattr(d, x)) for x in self.coordinates]
        return sum(columns[1:], columns[0])

    @on("interior", needs="lap_u")
    def poisson(self, d: Jet) -> Tensor:
        return -d.lap_u - pi**2 * self.exact(d)

    @on("boundary", needs="u")
    def value(self, d: Jet) -> Tensor:
        return d.u - self.exact(d)
