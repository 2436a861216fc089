"""What an equation declares: where it lives, its residuals, its exact solution."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from pde_train.derivatives import Jet, Request
from pde_train.errors import UsageError
from pde_train.geometry import Box


@dataclass(frozen=True)
class Equation:
    """One residual of a PDE: its name, the region where it holds, what it needs, and its formula on a jet."""

    name: str
    region: str
    request: Request
    residual: Callable[[Jet], Tensor]
    weight: float


def on(region: str, needs: str, when: Callable[[Any], bool] = lambda pde: True) -> Callable:
    """Mark a method of a PDE as the residual of an equation on a region, `"interior"` or `"boundary"`.

    needs: names of derivatives, as in `"u u_t u_xx"`. when: whether the equation belongs to this instance.
    """

    def mark(method: Callable) -> Callable:
        method.equation = (region, needs, when)  # type: ignore[attr-defined]
        return method

    return mark


class PDE(ABC):
    """A differential equation with its conditions, on a box, for one unknown u.

    A subclass is a frozen dataclass of its parameters with methods marked by `@on`. Each takes a jet of columns (n, m)
    and returns the residual (n, m). `weights` multiplies the residuals of equations by name (1 where unsaid), in the
    loss and in the rows of a linear system alike.
    """

    coordinates: ClassVar[tuple[str, ...]]
    domain: Box
    weights: Mapping[str, float]

    @abstractmethod
    def exact(self, d: Jet) -> Tensor:
        """The exact solution (n, 1) at the coordinates of the jet."""

    def equations(self) -> tuple[Equation, ...]:
        """The equations of this instance, those of the interior first, in the order of their definition."""
        marked = {name: method.equation for name, method in vars(type(self)).items() if hasattr(method, "equation")}
        unknown = sorted(set(self.weights) - set(marked))
        if unknown:
            raise UsageError(
                f"pde.weights names {', '.join(unknown)}, but the equations of {type(self).__name__} are "
                f"{', '.join(marked)}: weight one of these"
            )
        found = [
            Equation(
                name,
                region,
                Request.parse(needs, self.coordinates),
                getattr(self, name),
                float(self.weights.get(name, 1.0)),
            )
            for name, (region, needs, when) in marked.items()
            if when(self)
        ]
        return tuple(sorted(found, key=lambda equation: equation.region != "interior"))

    @property
    def order(self) -> int:
        """The highest order of derivative that an equation of this instance asks for."""
        return max(equation.request.order for equation in self.equations())


BOUNDARIES = ("simply_supported", "clamped")


def check_boundary(boundary: str) -> None:
    """Refuse anything but the two ways of holding a plate or beam."""
    if boundary not in BOUNDARIES:
        raise UsageError(f"pde.boundary={boundary} is unknown: expected one of {', '.join(BOUNDARIES)}, choose one")
