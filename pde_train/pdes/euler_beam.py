"""The Euler-Bernoulli beam, clamped at one end and free at the other (benchmark P3a)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from pde_train.derivatives import Jet
from pde_train.geometry import Box
from pde_train.pdes.base import PDE, fulfils, on


@dataclass(frozen=True)
class EulerBeam(PDE):
    """The equation u'''' = -1 on [0, 1] with u = u' = 0 at x = 0 and u'' = u''' = 0 at x = 1.

    The exact solution is u = -x^4 / 24 + x^3 / 6 - x^2 / 4.

    Attributes:
        weights: See `PDE`.
    """

    weights: Mapping[str, float] = field(default_factory=dict)

    coordinates = ("x",)
    domain = Box((0.0,), (1.0,))

    def exact(self, d: Jet) -> Tensor:
        return -(d.x**4) / 24 + d.x**3 / 6 - d.x**2 / 4

    @fulfils("value", "slope")
    def ansatz(self, d: Jet, raw: Tensor) -> Tensor:
        return d.x**2 * raw

    @on("interior", needs="u_xxxx")
    def beam(self, d: Jet) -> Tensor:
        return d.u_xxxx + 1

    @on("x_lower", needs="u")
    def value(self, d: Jet) -> Tensor:
        return d.u

    @on("x_lower", needs="u_x")
    def slope(self, d: Jet) -> Tensor:
        return d.u_x

    @on("x_upper", needs="u_xx")
    def moment(self, d: Jet) -> Tensor:
        return d.u_xx

    @on("x_upper", needs="u_xxx")
    def shear(self, d: Jet) -> Tensor:
        return d.u_xxx
