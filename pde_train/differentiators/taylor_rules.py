"""The Taylor coefficients of functions of one variable, one small function each.

To add a function f, write a function of the values z and an order that returns [f(z), f'(z), f''(z)
/ 2!, ...] up to f^(order)(z) / order!, with None where a coefficient is 0, and decorate it with the
names of the torch function. Many functions y = f(z) satisfy a differential equation, such as y' = 1
- y^2. It gives their coefficients one after another by recursion: where a_m is the coefficient of
y, that of y' is (m + 1) a_(m + 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cache
from numbers import Real
from typing import Any, TypeVar

import torch
from numpy.polynomial import Polynomial
from torch import Tensor

from pde_train.differentiators.series import Coefficient, Series, composed, rule, rule_of
from pde_train.errors import UsageError

Coefficients = Callable[[Tensor, int], Sequence[Coefficient]]

Function = TypeVar("Function", bound=Coefficients)


def elementwise(*names: str) -> Callable[[Function], Function]:
    """Decorate a function that computes the Taylor coefficients a_m = f^(m)(z) / m!, m = 0, ..., order.

    Args:
        names: The names of the torch functions.

    Returns:
        The decorator, which registers the rule and leaves the function as it is.
    """

    def register(coefficients: Function) -> Function:
        def apply(z: Series, inplace: bool = False) -> Series:
            return composed(coefficients(z.value, len(z.rest)), z)

        rule(*names)(apply)
        return coefficients

    return register


@elementwise("tanh")
def tanh(z: Tensor, order: int) -> list[Tensor]:
    """The hyperbolic tangent."""
    y = torch.tanh(z)
    return [y, *_slopes_of_tanh(y, order)]


@elementwise("sigmoid", "special_expit")
def sigmoid(z: Tensor, order: int) -> list[Tensor]:
    """The logistic function (1 + tanh(z / 2)) / 2."""
    y = torch.sigmoid(z)
    return [y, *(a / 2 ** (m + 1) for m, a in enumerate(_slopes_of_tanh(2 * y - 1, order), 1))]


@elementwise("logsigmoid", "log_sigmoid")
def logsigmoid(z: Tensor, order: int) -> list[Tensor]:
    """The logarithm y of the logistic function, by y'(z) = sigmoid(-z)."""
    slope = sigmoid(-z, max(order - 1, 0))
    return [torch.nn.functional.logsigmoid(z), *(a * ((-1) ** m / (m + 1)) for m, a in enumerate(slope[:order]))]


@elementwise("exp")
def exp(z: Tensor, order: int) -> list[Coefficient]:
    """The exponential function."""
    return _cyclic((torch.exp(z),), order)


@elementwise("sin")
def sin(z: Tensor, order: int) -> list[Coefficient]:
    """The sine."""
    y, slope = torch.sin(z), torch.cos(z)
    return _cyclic((y, slope, -y, -slope), order)


@elementwise("cos")
def cos(z: Tensor, order: int) -> list[Coefficient]:
    """The cosine."""
    y, slope = torch.cos(z), -torch.sin(z)
    return _cyclic((y, slope, -y, -slope), order)


@elementwise("sinh")
def sinh(z: Tensor, order: int) -> list[Coefficient]:
    """The hyperbolic sine."""
    return _cyclic((torch.sinh(z), torch.cosh(z)), order)


@elementwise("cosh")
def cosh(z: Tensor, order: int) -> list[Coefficient]:
    """The hyperbolic cosine."""
    return _cyclic((torch.cosh(z), torch.sinh(z)), order)


@elementwise("erf", "special_erf")
def erf(z: Tensor, order: int) -> list[Coefficient]:
    """The error function y, by y' = b with b' = -2 z b."""
    bell = [2 / math.sqrt(math.pi) * torch.exp(-z.square())]
    for m in range(order - 1):
        bell.append(-2 / (m + 1) * (z * bell[m] + (bell[m - 1] if m else 0)))
    return [torch.erf(z), *(bell[m] / (m + 1) for m in range(order))]


@elementwise("log")
def log(z: Tensor, order: int) -> list[Coefficient]:
    """The natural logarithm."""
    return [torch.log(z), *(-((-1 / z) ** m) / m for m in range(1, order + 1))]


@elementwise("atan", "arctan")
def atan(z: Tensor, order: int) -> list[Coefficient]:
    """The arctangent y, by y' = b with b (1 + z^2) = 1."""
    scale = 1 / (1 + z.square())
    bell: list[Tensor] = [scale]
    for m in range(1, order):
        bell.append(-scale * (2 * z * bell[m - 1] + (bell[m - 2] if m > 1 else 0)))
    return [torch.atan(z), *(bell[m] / (m + 1) for m in range(order))]


@elementwise("reciprocal")
def reciprocal(z: Tensor, order: int) -> list[Coefficient]:
    """The reciprocal."""
    return _power(z, -1, order)


@elementwise("sqrt")
def sqrt(z: Tensor, order: int) -> list[Coefficient]:
    """The square root."""
    return _power(z, 0.5, order)


@elementwise("rsqrt")
def rsqrt(z: Tensor, order: int) -> list[Coefficient]:
    """The reciprocal of the square root."""
    return _power(z, -0.5, order)


@elementwise("square")
def square(z: Tensor, order: int) -> list[Coefficient]:
    """The square."""
    return _power(z, 2, order)


@elementwise("abs", "absolute")
def absolute(z: Tensor, order: int) -> list[Coefficient]:
    """The absolute value, whose second derivative counts as 0 everywhere."""
    return [z.abs(), torch.sign(z), *[None] * (order - 1)]


@elementwise("relu")
def relu(z: Tensor, order: int) -> list[Coefficient]:
    """The positive part, whose second derivative counts as 0 everywhere."""
    return [torch.relu(z), (z > 0).to(z.dtype), *[None] * (order - 1)]


@rule("pow")
def power(base: Any, exponent: Any) -> Series:
    """base ** exponent, where one of both is a number that does not depend on the points.

    Args:
        base: A series or a positive number.
        exponent: A number or a series.

    Returns:
        The power.

    Raises:
        UsageError: Both depend on the points, or the base is a number that is not positive.
    """
    if isinstance(base, Series) and isinstance(exponent, Real):
        return composed(_power(base.value, float(exponent), len(base.rest)), base)
    if isinstance(exponent, Series) and isinstance(base, Real) and float(base) > 0:
        y, slope = float(base) ** exponent.value, math.log(base)
        return composed([y * (slope**m / math.factorial(m)) for m in range(len(exponent.rest) + 1)], exponent)
    raise UsageError("differentiator=taylor takes powers with a fixed number in them: expected x ** 3 or 2 ** x")


@rule("silu")
def silu(z: Series, inplace: bool = False) -> Series:
    """z sigmoid(z)."""
    product: Series = z * rule_of("sigmoid")(z)
    return product


@rule("gelu")
def gelu(z: Series, approximate: str = "none") -> Series:
    """z Phi(z) with the normal distribution function Phi, or torch's approximation of it by tanh."""
    product: Series
    if approximate == "tanh":
        product = 0.5 * z * (1 + rule_of("tanh")(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))
    else:
        product = 0.5 * z * (1 + rule_of("erf")(z * math.sqrt(0.5)))
    return product


@rule("softplus")
def softplus(z: Series, beta: float = 1, threshold: float = 20) -> Series:
    """log(1 + e^(beta z)) / beta, and z itself where beta z > threshold, as torch defines it."""
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


def _slopes_of_tanh(y: Tensor, order: int) -> list[Tensor]:
    """The coefficients of degree 1 to `order` of tanh, from its value y.

    With q = y^2 and p_m of `_polynomial_of_tanh`, they are (1 - q) p_m(q) where m is odd, and y (q - 1) p_m(q) where it
    is even. That takes half of the operations of the recursion by y' = 1 - y^2, and their derivatives a third.

    Args:
        y: The value of tanh.
        order: The last degree.

    Returns:
        The coefficients, of the shape of y each.
    """
    if order == 0:
        return []
    q = y.square()
    slopes = [1 - q, y * (q - 1)][:order]
    for m in range(3, order + 1):
        *lower, _ = _polynomial_of_tanh(m)
        value = q + lower[-1]
        for coefficient in lower[-2::-1]:
            value = value * q + coefficient
        slopes.append(slopes[(m - 1) % 2] * value)
    return slopes


@cache
def _polynomial_of_tanh(m: int) -> tuple[float, ...]:
    """The coefficients, lowest first, of the polynomial p_m of `_slopes_of_tanh`; the last is 1.

    By m a_m = d a_(m - 1) / dz, where dy / dz = 1 - q and dq / dz = 2 y (1 - q).

    Args:
        m: The degree of the coefficient of tanh, at least 1.

    Returns:
        The coefficients of the polynomial.
    """
    q, p = Polynomial([Fraction(0), Fraction(1)]), Polynomial([Fraction(1)])
    for k in range(2, m + 1):
        slope = (1 - q) * p.deriv()
        p = (p - slope) * Fraction(2, k) if k % 2 == 0 else ((3 * q - 1) * p - 2 * q * slope) * Fraction(1, k)
    return tuple(float(c) for c in p.trim().coef)


def _cyclic(derivatives: Sequence[Tensor], order: int) -> list[Coefficient]:
    """The coefficients of a function whose derivatives repeat; the first of them is the function itself."""
    return [derivatives[m % len(derivatives)] / math.factorial(m) for m in range(order + 1)]


def _power(z: Tensor, exponent: float, order: int) -> list[Coefficient]:
    """The coefficients binomial(exponent, m) z^(exponent - m) of z^exponent."""
    coefficients: list[Coefficient] = []
    binomial = 1.0
    for m in range(order + 1):
        coefficients.append(binomial * z ** (exponent - m) if binomial else None)
        binomial *= (exponent - m) / (m + 1)
    return coefficients
