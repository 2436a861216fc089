"""Derivatives from function values at complex points: exact to rounding without differentiating anything."""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pde_train.derivatives import Axes, Field
from pde_train.differentiators.base import Differentiator
from pde_train.differentiators.directions import polarised
from pde_train.errors import UsageError

RADII = (2.0, 1.4, 1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.12, 0.08, 0.05, 0.03, 0.02, 0.01)
"""The radii that `"auto"` tries, in the units of the coordinates."""

NODES = (16, 32, 64)
"""The numbers of nodes on the whole circle that `"auto"` tries; by symmetry half of them are evaluated."""

REFERENCE = 128
"""Nodes of the rule against which `"auto"` compares."""


@dataclass(frozen=True)
class ComplexStep(Differentiator):
    """First derivatives by a complex step, higher ones by Cauchy's integral on a circle; for analytic fields.

    u_x = Im u(x + i h) / h with a step so small that nothing is lost (Squire and Trapp, SIAM Review 40, 1998). The n-th
    derivative along v is n! / (N r^n) sum_k u(x + r z_k v) z_k^-n over N nodes z_k of the unit circle, the trapezoidal
    rule, whose error falls geometrically (Lyness and Moler, SIAM J. Numer. Anal. 4, 1967); u is real on real points,
    so that half of the circle is enough. Mixed partials come by polarisation.
    radius: r, smaller than the distance of u's nearest singularity (for a tanh unit pi / 2|w|). nodes: N, a multiple
        of 4. `"auto"`: chosen by comparison with a finer rule (see `adapted`).
    chosen: the radius and nodes that `"auto"` means; `adapted` supplies them.
    """

    radius: float | str = "auto"
    nodes: int | str = "auto"
    chosen: tuple[float, int] = (0.12, 32)

    compilable = False  # compiled code has no complex numbers

    def __post_init__(self) -> None:
        if self.nodes != "auto" and not (isinstance(self.nodes, int) and self.nodes >= 16 and self.nodes % 4 == 0):
            raise UsageError(f"differentiator.nodes={self.nodes} makes no circle: expected auto, 16, 32 or the like")
        if self.radius != "auto" and not (isinstance(self.radius, (int, float)) and 0 < self.radius < math.inf):
            raise UsageError(f"differentiator.radius={self.radius} is no radius: expected auto or a positive number")

    @property
    def adaptive(self) -> bool:  # type: ignore[override]
        return "auto" in (self.radius, self.nodes)

    @property
    def circle(self) -> tuple[float, int]:
        """The radius and the number of nodes in use."""
        radius = self.chosen[0] if isinstance(self.radius, str) else float(self.radius)
        return radius, self.chosen[1] if isinstance(self.nodes, str) else self.nodes

    def adapted(self, u: Field, x: Tensor, axes: frozenset[Axes]) -> ComplexStep:
        """With the radius and nodes, where `"auto"`, that come closest to many nodes on u's higher derivatives at x.

        Of rules within a factor 3 of the closest, the one with the fewest nodes.
        """
        higher = frozenset(a for a in axes if len(a) > 1)
        if not self.adaptive or not higher:
            return self
        radii = RADII if self.radius == "auto" else (self.circle[0],)
        counts = NODES if self.nodes == "auto" else (self.circle[1],)
        errors = {}
        with torch.no_grad():
            for radius in radii:
                fine = ComplexStep(radius, REFERENCE).partials(u, x, higher)
                for nodes in counts:
                    found = ComplexStep(radius, nodes).partials(u, x, higher)
                    worst = max(float((found[a] - fine[a]).norm() / fine[a].norm().clamp_min(1e-300)) for a in higher)
                    errors[radius, nodes] = worst if math.isfinite(worst) else math.inf
        best = min(errors.values())
        chosen = min((c for c in errors if errors[c] <= 3 * best), key=lambda c: (c[1], errors[c]))
        return replace(self, chosen=chosen)

    def partials(self, u: Field, x: Tensor, axes: frozenset[Axes]) -> dict[Axes, Tensor]:
        directions: dict[tuple[float, ...], set[int]] = {}
        for a in axes - {()}:
            for v, _ in polarised(a, x.shape[1]):
                directions.setdefault(v, set()).add(len(a))
        along = {(v, n): d for v, orders in directions.items() for n, d in self._along(u, x, v, orders).items()}
        found = {a: u(x) for a in axes if not a}
        for a in axes - {()}:
            found[a] = torch.stack([float(w) * along[v, len(a)] for v, w in polarised(a, x.shape[1])]).sum(0)
        return found

    def _along(self, u: Field, x: Tensor, direction: tuple[float, ...], orders: set[int]) -> dict[int, Tensor]:
        """The derivatives of those orders along a direction, each (n, m)."""
        found = {}
        v = x.new_tensor(direction)
        if 1 in orders:
            tiny = 1e-20 if x.dtype == torch.float64 else 1e-15
            found[1] = self._at(u, torch.complex(x, (tiny * v).expand_as(x))).imag / tiny
        if orders - {1}:
            radius, nodes = self.circle
            radius /= math.sqrt(sum(c * c for c in direction))
            half = nodes // 2
            circle = [cmath.exp(1j * math.pi * (k + 0.5) / half) for k in range(half)]
            points = torch.stack([torch.complex(x + radius * z.real * v, radius * z.imag * v + 0 * x) for z in circle])
            values = self._at(u, points.flatten(0, 1)).unflatten(0, (half, x.shape[0]))
            for n in orders - {1}:
                weights = torch.tensor([z**-n for z in circle], dtype=values.dtype, device=x.device)
                found[n] = torch.tensordot(weights, values, dims=1).real * (math.factorial(n) / (half * radius**n))
        return found

    def _at(self, u: Field, z: Tensor) -> Tensor:
        values = u(ComplexPoints(z))  # type: ignore[arg-type]
        return values.tensor if isinstance(values, ComplexPoints) else torch.complex(values, torch.zeros_like(values))


class ComplexPoints:
    """Complex numbers on their way through a program that was written for real ones.

    Not a Tensor: torch's functions reach it by `__torch_function__`, with every real tensor beside it made complex.
    """

    def __init__(self, tensor: Tensor):
        self.tensor = tensor

    @property
    def shape(self) -> torch.Size:
        return self.tensor.shape

    @classmethod
    def __torch_function__(cls, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name = func.__name__.strip("_")
        if name in NOT_ANALYTIC:
            raise UsageError(
                f"differentiator=complex_step needs an analytic function, and {name} is not: choose a smooth "
                "activation such as tanh, sin or gelu, or another differentiator"
            )
        function = ANALYTIC.get(name, func)
        dtype = next(a.tensor.dtype for a in _flat(args) if isinstance(a, ComplexPoints))
        try:
            return cls(function(*_made_complex(args, dtype), **(kwargs or {})))
        except (RuntimeError, NotImplementedError) as error:
            raise UsageError(
                f"differentiator=complex_step cannot evaluate {name} at complex points "
                f"({str(error).splitlines()[0]}): add it to ANALYTIC in pde_train/differentiators/complex_step.py or "
                "choose differentiator=taylor"
            ) from error

    def __getattr__(self, name: str) -> Callable:
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *args, **kwargs: self.__torch_function__(getattr(torch.Tensor, name), (), (self, *args), kwargs)

    def __getitem__(self, index: Any) -> ComplexPoints:
        return ComplexPoints(self.tensor[index])


def _operator(name: str) -> Callable:
    return lambda self, *others: ComplexPoints.__torch_function__(getattr(torch.Tensor, name), (), (self, *others))


for _name in ("add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "pow", "neg", "matmul"):
    setattr(ComplexPoints, f"__{_name}__", _operator(f"__{_name}__"))


def _flat(args: Any) -> list[Any]:
    return [a for arg in args for a in (_flat(arg) if isinstance(arg, (list, tuple)) else [arg])]


def _made_complex(args: Any, dtype: torch.dtype) -> Any:
    def change(arg: Any) -> Any:
        if isinstance(arg, ComplexPoints):
            return arg.tensor
        if isinstance(arg, Tensor) and arg.is_floating_point():
            return arg.to(dtype)
        return type(arg)(map(change, arg)) if isinstance(arg, (list, tuple)) else arg

    return [change(arg) for arg in args]


NOT_ANALYTIC = {"relu", "abs", "sign", "where", "maximum", "minimum", "clamp", "leaky_relu", "elu", "max", "min"}


def _erf(z: Tensor) -> Tensor:
    """erf at complex numbers near the real line: erf(Re z) and the integral from there to z, by Gauss and Legendre."""
    nodes, weights = np.polynomial.legendre.leggauss(32)
    height = z.imag
    total = torch.zeros_like(z)
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        total = total + float(weight) * torch.exp(-torch.complex(z.real, float(node) * height).square())
    return torch.erf(z.real) + 2j / math.sqrt(math.pi) * height * total


def _logsigmoid(z: Tensor) -> Tensor:
    return -torch.log(1 + torch.exp(-z))


ANALYTIC: dict[str, Callable] = {
    "erf": _erf,
    "special_erf": _erf,
    "logsigmoid": _logsigmoid,
    "log_sigmoid": _logsigmoid,
    "softplus": lambda z, beta=1, threshold=20: -_logsigmoid(-beta * z) / beta,
    "silu": lambda z, inplace=False: z * torch.sigmoid(z),
    "gelu": lambda z, approximate="none": 0.5 * z * (1 + _erf(z * math.sqrt(0.5))),
}
"""Functions that torch does not evaluate at complex numbers."""
