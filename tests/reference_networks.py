"""Networks with known weights and their derivatives in 30 digits, which share no code with the package.

u(x) = sum_j a_j s(w_j . x + b_j); its bank has the three features as columns. Every derivative of a feature is
w^k s^(|k|)(z) in closed form, also by the weights.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import mpmath
import numpy as np
import sympy
import torch
from torch import Tensor

from pde_train.derivatives import Field, Request
from pde_train.differentiators.base import Differentiator
from pde_train.models.activations import ACTIVATIONS

DIGITS = 30
DTYPES = (torch.float64, torch.float32)
SMOOTH = [name for name, activation in ACTIVATIONS.items() if activation.smoothness == math.inf]
FUNCTIONS = {
    "tanh": mpmath.tanh,
    "sin": mpmath.sin,
    "gelu": lambda z: z * mpmath.ncdf(z),
    "softplus": lambda z: mpmath.log(1 + mpmath.exp(z)),
    "sigmoid": lambda z: 1 / (1 + mpmath.exp(-z)),
    "silu": lambda z: z / (1 + mpmath.exp(-z)),
    "gaussian": lambda z: mpmath.exp(-z * z),
}
LETTERS = ("x", "y", "z")
HIGHEST = 15
"""The highest derivative of an activation that anyone asks for."""

WEIGHTS = {
    1: [[1.3], [-0.7], [0.9]],
    2: [[1.1, -0.6], [-0.8, 1.2], [0.5, 0.9]],
    3: [[0.9, -0.6, 0.4], [-0.8, 0.7, 1.1], [0.5, 0.9, -0.7]],
}
BIASES = [0.3, -0.2, 0.8]
OUTER = [0.6, -1.1, 0.8]
POINTS = {1: [[-0.9], [0.1], [0.7]], 2: [[-0.4, 0.6], [0.3, -0.8]], 3: [[-0.4, 0.6, 0.2], [0.3, -0.8, 0.5]]}
NAMES = {
    1: ("u", "u_x", "u_xx", "u_xxx", "u_xxxx"),
    2: ("u", "u_x", "u_y", "u_yy", "u_xy", "lap_u", "u_xxy", "u_xyy", "u_xxxy", "u_xxyy", "bih_u"),
    3: ("u", "u_z", "u_xz", "lap_u", "u_xyz", "u_yyz", "u_xxyz", "u_yyzz", "bih_u"),
}


def points(dimension: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(POINTS[dimension], dtype=dtype)


def bank(activation: str, dimension: int, dtype: torch.dtype = torch.float64) -> Field:
    """The field of all features, (n, d) -> (n, 3)."""
    w, b = torch.tensor(WEIGHTS[dimension], dtype=dtype), torch.tensor(BIASES, dtype=dtype)
    return lambda x: ACTIVATIONS[activation].function(x @ w.T + b)


def network(activation: str, dimension: int, dtype: torch.dtype = torch.float64) -> Field:
    """The field of the network, (n, d) -> (n, 1)."""
    features, a = bank(activation, dimension, dtype), torch.tensor(OUTER, dtype=dtype).unsqueeze(1)
    return lambda x: features(x) @ a


def request(names: str, dimension: int) -> Request:
    return Request.parse(names, LETTERS[:dimension])


def one(differentiator: Differentiator, u: Field, x: Tensor, name: str) -> Tensor:
    return getattr(differentiator(u, x, request(name, x.shape[1])), name)


def eps(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps


def rounded(values: Sequence[Any], dtype: torch.dtype) -> np.ndarray:
    """Nested lists as a numpy array of exactly those numbers in many digits that `dtype` holds."""
    return np.vectorize(lambda v: mpmath.mpf(float(v)), otypes=[object])(torch.tensor(values, dtype=dtype).numpy())


@functools.cache
def derivatives(activation: str, z: mpmath.mpf) -> list[mpmath.mpf]:
    """s, s', ..., s^(15) at z."""
    with mpmath.workdps(DIGITS):
        return [c * math.factorial(k) for k, c in enumerate(mpmath.taylor(FUNCTIONS[activation], z, HIGHEST))]


@functools.cache
def sizes(activation: str, z: mpmath.mpf) -> list[float]:
    """|s|, |s'|, ... at z, as floats."""
    return [abs(float(v)) for v in derivatives(activation, z)]


@functools.cache
def partials_of(name: str, dimension: int) -> dict[tuple[int, ...], int]:
    """A name as {orders along each axis: coefficient}, from its definition by sympy."""
    symbols = sympy.symbols(LETTERS[:dimension])
    laplacian = sum(s**2 for s in symbols)
    symbol = {"u": sympy.Integer(1), "lap_u": laplacian, "bih_u": laplacian**2}.get(name)
    if symbol is None:
        symbol = sympy.prod(symbols[LETTERS.index(c)] for c in name[2:])
    return {orders: int(c) for orders, c in sympy.Poly(symbol, *symbols).terms()}


@functools.cache
def arguments(dimension: int, dtype: torch.dtype) -> tuple[np.ndarray, np.ndarray]:
    """The weights w (3, d) and the arguments z (n, 3) of the features, in many digits."""
    w, b, x = rounded(WEIGHTS[dimension], dtype), rounded(BIASES, dtype), rounded(POINTS[dimension], dtype)
    with mpmath.workdps(DIGITS):
        return w, x @ w.T + b


@functools.cache
def oracle(activation: str, dimension: int, dtype: torch.dtype, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The exact derivative of every feature at every point, and the size of what rounding can do to it, both (n, 3)."""
    w, z = arguments(dimension, dtype)
    exact, size = np.zeros(z.shape, dtype=object), np.zeros(z.shape)
    with mpmath.workdps(DIGITS):
        for i, j in np.ndindex(exact.shape):
            s = derivatives(activation, z.item(i, j))
            for orders, c in partials_of(name, dimension).items():
                power = c * math.prod(w[j] ** orders)
                exact[i, j] += power * s[sum(orders)]
                # z itself is rounded (one order more), and every lower derivative is an intermediate result
                size[i, j] += float(abs(power) * max(abs(v) for v in s[: sum(orders) + 2]) * (1 + abs(z[i, j])))
    return exact, size


def difference(found: Tensor, exact: np.ndarray) -> np.ndarray:
    """|found - exact| taken in many digits, so that the comparison itself rounds nothing."""
    with mpmath.workdps(DIGITS):
        return np.vectorize(lambda f, e: float(abs(mpmath.mpf(float(f)) - e)), otypes=[float])(found.numpy(), exact)


def through_outer(exact: np.ndarray, size: np.ndarray, dtype: torch.dtype) -> tuple[np.ndarray, np.ndarray]:
    """The oracle of the features as that of the network."""
    a = rounded(OUTER, dtype)
    with mpmath.workdps(DIGITS):
        return (exact @ a)[:, None], (size @ np.abs(a).astype(float))[:, None]


@functools.cache
def weights_of(order: int, accuracy: int) -> dict[int, sympy.Rational]:
    """Central weights by node, from sympy."""
    if order == 0:
        return {0: sympy.Integer(1)}
    reach = (order + 1) // 2 - 1 + accuracy // 2
    nodes = range(-reach, reach + 1)
    found = sympy.finite_diff_weights(order, list(nodes), 0)[order][-1]
    return {k: w for k, w in zip(nodes, found, strict=True) if w != 0}


def sum_of_weights(orders: tuple[int, ...], accuracy: int) -> float:
    """The sizes of the weights of a product of stencils, added up."""
    return math.prod(float(sum(map(abs, weights_of(n, accuracy).values()))) for n in orders)


def in_differences(
    activation: str,
    dimension: int,
    dtype: torch.dtype,
    name: str,
    accuracy: int,
    step: Callable[[tuple[int, ...]], float],
    richardson: int = 0,
    before: int = 0,
    shift: int = 0,
) -> np.ndarray:
    """What central differences can do to each feature, (n, 3): their truncation and their rounding.

    step: maps orders along each axis to h. before: how many derivatives, along the last axis of each, are exact.
    shift: of s^(shift) in place of the activation s, as the bias differentiates it.
    A stencil of accuracy p leaves over, along each of its axes, less than h^p times the p-th derivative of what it
    approximates, and terms of order p + 1 and p + 2 (the derivative may vanish just here); with p = accuracy + 2
    richardson. Its values are rounded once each, by eps of their size and by eps of z; divided by h^n. Richardson's
    last extrapolation divides by h / 2^richardson, and its weights add up to less than 2.
    """
    w, z = arguments(dimension, dtype)
    bound = np.zeros(z.shape)
    p = accuracy + 2 * richardson
    for orders, c in partials_of(name, dimension).items():
        last = max((i for i, n in enumerate(orders) if n), default=0)
        outer = tuple(n - before * (i == last) if n else 0 for i, n in enumerate(orders))
        n, h = sum(outer), step(orders)
        if not n:
            continue
        for i, j in np.ndindex(z.shape):
            s = sizes(activation, z.item(i, j))[shift:]
            size = [abs(float(v)) for v in w[j]]
            power = math.prod(v**k for v, k in zip(size, orders, strict=True))
            for v in (v for v, k in zip(size, outer, strict=True) if k):
                bound[i, j] += abs(c) * power * sum((v * h) ** q * s[sum(orders) + q] for q in range(p, p + 3))
            value = max(s[: before + 2]) * (1 + abs(float(z[i, j])))
            lost = eps(dtype) * 2 ** (richardson * n) * (2 if richardson else 1) * sum_of_weights(outer, accuracy)
            bound[i, j] += abs(c) * 2 * lost * value / h**n
    return bound
