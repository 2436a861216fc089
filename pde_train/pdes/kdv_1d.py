"""A soliton of the Korteweg-de Vries equation (benchmark P11)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pde_train.derivatives import Jet
from pde_train.geometry import Box
from pde_train.pdes.base import PDE, on
from pde_train.pdes.checks import check_positive, sqrt


@dataclass(frozen=True)
class KdV1D(PDE):
    """The equation u_t + u u_x + delta^2 u_xxx = 0 on [-1, 1] x [0, 1] with one soliton.

    The exact solution is u = 3 speed / cosh^2(sqrt(speed) / (2 delta) (x - speed t + 1/4)). Given are u at t = 0, u at
    both ends, and u_x at x = 1, as many as the equation on an interval takes (Bona, Sun, Zhang, Comm. Partial
    Differential Equations 28, 2003). They come from the solution, because a soliton is periodic in no interval:
    so they hold exactly at every width and speed.
    Source: Zabusky, Kruskal, Phys. Rev. Lett. 15 (1965), with their equation and other initial values.

    Attributes:
        delta: The square root of the dispersion; the soliton is the wider the larger it is.
        speed: The speed, a third of the amplitude.
        weights: See `PDE`.

    Raises:
        UsageError: delta or the speed is not positive.
    """

    delta: float = 0.1
    speed: float = 0.5
    weights: Mapping[str, float] = field(default_factory=dict)

    coordinates = ("x", "t")
    domain = Box((-1.0, 0.0), (1.0, 1.0))

    def __post_init__(self) -> None:
        check_positive(delta=self.delta, speed=self.speed)
        super().__post_init__()

    def phase(self, d: Jet) -> Tensor:
        """The distance from the crest in units of the width."""
        return sqrt(self.speed) / (2 * self.delta) * (d.x - self.speed * d.t + 1 / 4)

    def exact(self, d: Jet) -> Tensor:
        return 3 * self.speed / torch.cosh(self.phase(d)) ** 2

    @on("interior", needs="u u_t u_x u_xxx")
    def kdv(self, d: Jet) -> Tensor:
        return d.u_t + d.u * d.u_x + self.delta**2 * d.u_xxx

    @on("initial", needs="u")
    def start(self, d: Jet) -> Tensor:
        return d.u - self.exact(d)

    @on("boundary", needs="u")
    def value(self, d: Jet) -> Tensor:
        return d.u - self.exact(d)

    @on("x_upper", needs="u_x")
    def slope(self, d: Jet) -> Tensor:
        return d.u_x + sqrt(self.speed) / self.delta * torch.tanh(self.phase(d)) * self.exact(d)
