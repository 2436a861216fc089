"""The stationary sine-Gordon equation in a ball of any dimension (benchmark P16)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from pde_train.derivatives import Jet
from pde_train.domains import Ball
from pde_train.errors import UsageError
from pde_train.pdes.base import PDE, fulfils, on
from pde_train.pdes.checks import check_whole


@dataclass(frozen=True)
class SineGordonND(PDE):
    """The equation lap u + sin u = f in the unit ball, with u = 0 on the sphere.

    The exact solution is u = (1 - |x|^2) s(x) with s = sum over i < dimension of c_i sin(g_i), where
    g_i = x_i + cos x_(i+1) + x_(i+1) cos x_i, and f follows from it. The c_i are normal numbers.
    Source: Hu, Shi, Karniadakis, Kawaguchi (arXiv 2312.14499); Shi et al., NeurIPS 2024 (STDE, arXiv 2412.00088).

    Attributes:
        dimension: The number of coordinates, which are called x1, x2, ...
        seed: The seed of the c_i.
        weights: See `PDE`.

    Raises:
        UsageError: The dimension is no integer of at least 2.
    """

    dimension: int = 100
    seed: int = 0
    weights: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_whole(dimension=self.dimension)
        if self.dimension < 2:
            raise UsageError("pde.dimension=1 leaves no pair of coordinates in the solution: expected 2 or more")
        super().__post_init__()

    @cached_property
    def coordinates(self) -> tuple[str, ...]:  # type: ignore[override]  # a constant of other equations
        return tuple(f"x{i}" for i in range(1, self.dimension + 1))

    @cached_property
    def domain(self) -> Ball:  # type: ignore[override]  # a constant of other equations
        return Ball((0.0,) * self.dimension, 1.0)

    @cached_property
    def coefficients(self) -> np.ndarray:
        """The c_i (dimension - 1,)."""
        return np.random.default_rng(self.seed).standard_normal(self.dimension - 1)

    def pairs(self, d: Jet) -> tuple[Tensor, Tensor, Tensor]:
        """The points x (n, d), their x_i and their x_(i+1) (n, d - 1)."""
        x = torch.cat([getattr(d, coordinate) for coordinate in self.coordinates], dim=1)
        return x, x[:, :-1], x[:, 1:]

    def exact(self, d: Jet) -> Tensor:
        x, a, b = self.pairs(d)
        c = torch.as_tensor(self.coefficients, dtype=x.dtype, device=x.device)
        s = c * torch.sin(a + torch.cos(b) + b * torch.cos(a))
        return self.inside(d) * s.sum(dim=1, keepdim=True)

    def inside(self, d: Jet) -> Tensor:
        """The factor 1 - |x|^2 (n, 1)."""
        return 1 - (self.pairs(d)[0] ** 2).sum(dim=1, keepdim=True)

    def laplacian(self, d: Jet) -> Tensor:
        """The Laplacian of the exact solution, (1 - |x|^2) lap s - 4 x . grad s - 2 dimension s."""
        x, a, b = self.pairs(d)
        c = torch.as_tensor(self.coefficients, dtype=x.dtype, device=x.device)
        g = a + torch.cos(b) + b * torch.cos(a)
        g_a, g_b = 1 - b * torch.sin(a), torch.cos(a) - torch.sin(b)
        lap_g = -b * torch.cos(a) - torch.cos(b)
        lap_s = c * (torch.cos(g) * lap_g - torch.sin(g) * (g_a**2 + g_b**2))
        x_grad_s = c * torch.cos(g) * (a * g_a + b * g_b)
        terms = self.inside(d) * lap_s - 4 * x_grad_s - 2 * self.dimension * c * torch.sin(g)
        return terms.sum(dim=1, keepdim=True)

    @fulfils("value")
    def ansatz(self, d: Jet, raw: Tensor) -> Tensor:
        return self.inside(d) * raw

    @on("interior", needs="u lap_u")
    def sine_gordon(self, d: Jet) -> Tensor:
        return d.lap_u + torch.sin(d.u) - self.laplacian(d) - torch.sin(self.exact(d))

    @on("boundary", needs="u")
    def value(self, d: Jet) -> Tensor:
        return d.u
