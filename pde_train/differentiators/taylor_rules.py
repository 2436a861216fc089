"""What Taylor mode does to each function of one variable: its own Taylor coefficients, one small function each.

To add a function: return [f(z), f'(z), f''(z) / 2, ...] up to `order` at the entries of z, None where 0, under the
name of the torch function.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any, TypeVar

import torch
from torch import Tensor

from pde_train.differentiators.series import Coefficient, Series, composed, rule, rule_of
from pde_train.errors import UsageError

Coefficients = Callable[[Tensor, int], Sequence[Coefficient]]


Function = TypeVar("Function", bound=Coefficients)


def elementwise(*names: str) -> Callable[[Function], Function]:
    """Register Taylor coefficients a_m = f^(m)(z) / m!, m = 0 ... order, as the rule of torch functions."""

    def register(coefficients: Function) -> Function:
        def apply(z: Series, inplace: bool = False) -> Series:
            return composed(coefficients(z.value, len(z.rest)), z)

        rule(*names)(apply)
        return coefficients

    return register


@elementwise("tanh")
def tanh(z: Tensor, order: int) -> list[Tensor]:
    a = [torch.tanh(z)]  # y' = 1 - y^2
    for m in range(order):
        a.append((float(m == 0) - _cauchy(a, a, m)) / (m + 1))
    return a


@elementwise("sigmoid", "special_expit")
def sigmoid(z: Tensor, order: int) -> list[Tensor]:
    a = [torch.sigmoid(z)]  # y' = y - y^2
    for m in range(order):
        a.append((a[m] - _cauchy(a, a, m)) / (m + 1))
    return a


@elementwise("logsigmoid", "log_sigmoid")
def logsigmoid(z: Tensor, order: int) -> list[Tensor]:
    slope = sigmoid(-z, max(order - 1, 0))  # y'(z) = sigmoid(-z)
    return [torch.nn.functional.logsigmoid(z), *(a * ((-1) ** m / (m + 1)) for m, a in enumerate(slope[:order]))]


@elementwise("exp")
def exp(z: Tensor, order: int) -> list[Coefficient]:
    return _cyclic((torch.exp(z),), order)


@elementwise("sin")
def sin(z: Tensor, order: int) -> list[Coefficient]:
    y, slope = torch.sin(z), torch.cos(z)
    return _cyclic((y, slope, -y, -slope), order)


@elementwise("cos")
def cos(z: Tensor, order: int) -> list[Coefficient]:
    y, slope = torch.cos(z), -torch.sin(z)
    return _cyclic((y, slope, -y, -slope), order)


@elementwise("sinh")
def sinh(z: Tensor, order: int) -> list[Coefficient]:
    return _cyclic((torch.sinh(z), torch.cosh(z)), order)


@elementwise("cosh")
def cosh(z: Tensor, order: int) -> list[Coefficient]:
    return _cyclic((torch.cosh(z), torch.sinh(z)), order)


@elementwise("erf", "special_erf")
def erf(z: Tensor, order: int) -> list[Coefficient]:
    bell = [2 / math.sqrt(math.pi) * torch.exp(-z.square())]  # y' = b with b' = -2 z b
    for m in range(order - 1):
        bell.append(-2 / (m + 1) * (z * bell[m] + (bell[m - 1] if m else 0)))
    return [torch.erf(z), *(bell[m] / (m + 1) for m in range(order))]


@elementwise("log")
def log(z: Tensor, order: int) -> list[Coefficient]:
    return [torch.log(z), *(-((-1 / z) ** m) / m for m in range(1, order + 1))]


@elementwise("atan", "arctan")
def atan(z: Tensor, order: int) -> list[Coefficient]:
    scale = 1 / (1 + z.square())  # y' = b with b (1 + z^2) = 1
    bell: list[Tensor] = [scale]
    for m in range(1, order):
        bell.append(-scale * (2 * z * bell[m - 1] + (bell[m - 2] if m > 1 else 0)))
    return [torch.atan(z), *(bell[m] / (m + 1) for m in range(order))]


@elementwise("reciprocal")
def reciprocal(z: Tensor, order: int) -> list[Coefficient]:
    return _power(z, -1, order)


@elementwise("sqrt")
def sqrt(z: Tensor, order: int) -> list[Coefficient]:
    return _power(z, 0.5, order)


@elementwise("rsqrt")
def rsqrt(z: Tensor, order: int) -> list[Coefficient]:
    return _power(z, -0.5, order)


@elementwise("square")
def square(z: Tensor, order: int) -> list[Coefficient]:
    return _power(z, 2, order)


@elementwise("abs", "absolute")
def absolute(z: Tensor, order: int) -> list[Coefficient]:
    return [z.abs(), torch.sign(z), *[None] * (order - 1)]


@elementwise("relu")
def relu(z: Tensor, order: int) -> list[Coefficient]:
    return [torch.relu(z), (z > 0).to(z.dtype), *[None] * (order - 1)]


@rule("pow")
def power(base: Any, exponent: Any) -> Series:
    """base ** exponent, one of which is a number that does not depend on the points."""
    if isinstance(base, Series) and isinstance(exponent, Real):
        return composed(_power(base.value, float(exponent), len(base.rest)), base)
    if isinstance(exponent, Series) and isinstance(base, Real) and float(base) > 0:
        y, slope = float(base) ** exponent.value, math.log(base)
        return composed([y * (slope**m / math.factorial(m)) for m in range(len(exponent.rest) + 1)], exponent)
    raise UsageError("differentiator=taylor takes powers with a fixed number in them: expected x ** 3 or 2 ** x")


@rule("silu")
def silu(z: Series, inplace: bool = False) -> Series:
    return z * rule_of("sigmoid")(z)


@rule("gelu")
def gelu(z: Series, approximate: str = "none") -> Series:
    if approximate == "tanh":
        return 0.5 * z * (1 + rule_of("tanh")(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))
    return 0.5 * z * (1 + rule_of("erf")(z * math.sqrt(0.5)))


@rule("softplus")
def softplus(z: Series, beta: float = 1, threshold: float = 20) -> Series:
    """log(1 + e^(beta z)) / beta, and z itself where beta z > threshold, as torch has it."""
    smooth = logsigmoid(z.value * -beta, len(z.rest))
    straight = (z.value, torch.ones_like(z.value))
    zero = torch.zeros_like(z.value)
    return composed(
        [
            torch.where(z.value * beta > threshold, straight[m] if m < 2 else zero, a * (-((-beta) ** m) / beta))
            for m, a in enumerate(smooth)
        ],
        z,
    )


def _cauchy(a: list[Tensor], b: list[Tensor], degree: int) -> Tensor:
    """The coefficient of that degree of a product."""
    total = a[0] * b[degree]
    for i in range(1, degree + 1):
        total = total + a[i] * b[degree - i]
    return total


def _cyclic(derivatives: Sequence[Tensor], order: int) -> list[Coefficient]:
    """Coefficients of a function whose derivatives, itself the first, come round again."""
    return [derivatives[m % len(derivatives)] / math.factorial(m) for m in range(order + 1)]


def _power(z: Tensor, exponent: float, order: int) -> list[Coefficient]:
    """Coefficients binomial(exponent, m) z^(exponent - m)."""
    found: list[Coefficient] = []
    binomial = 1.0
    for m in range(order + 1):
        found.append(binomial * z ** (exponent - m) if binomial else None)
        binomial *= (exponent - m) / (m + 1)
    return found
