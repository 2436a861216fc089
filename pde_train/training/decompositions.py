"""Operations of torch that are spelled out for the compiler, where its own code for them is slow in small networks."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Function = Callable[..., Any]

THIN = 2
"""The largest side of a matrix that makes a product thin."""

SMALL = 2**13
"""The most multiplications of a product for which a call of BLAS costs more than the numbers do."""


def _thin_product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b as sums of products, where it is small and one of its three sizes is tiny.

    Such products stand at both ends of a small network; spelled out, the compiler fuses them with what
    surrounds them.

    Args:
        a: (..., n, k).
        b: (..., k, m).

    Returns:
        (..., n, m), or NotImplemented for a product that is left to BLAS.
    """
    rows, inner, columns = (*a.shape[-2:], b.shape[-1])
    if rows * inner * columns > SMALL or min(rows, inner, columns) > THIN:
        return NotImplemented
    if inner > THIN:
        return (a.unsqueeze(-1) * b.unsqueeze(-3)).sum(-2)
    total = a[..., :1] * b[..., :1, :]
    for k in range(1, inner):
        total = total + a[..., k : k + 1] * b[..., k : k + 1, :]
    return total


def _thin_product_plus(c: Tensor, a: Tensor, b: Tensor, beta: float = 1, alpha: float = 1) -> Tensor:
    product = _thin_product(a, b)
    return product if product is NotImplemented else beta * c + alpha * product


TANH_P = (-9.64399179425052238628e-1, -9.92877231001918586564e1, -1.61468768441708447952e3)
TANH_Q = (1.0, 1.12811678491632931402e2, 2.23548839060100448583e3, 4.84406305325125486048e3)
"""tanh x = x + x^3 P(x^2) / Q(x^2) up to 0.625, highest powers first (Cephes Mathematical Library, tanh.c)."""


def _tanh(x: Tensor) -> Tensor:
    """tanh on the CPU by a rational function or one exponential, within 3 units in the last place.

    torch's own, within 1 unit, takes more than twice as long, which is most of the time of a step of a
    small network.

    Args:
        x: Of any shape.

    Returns:
        tanh x, or NotImplemented on other devices and in other precisions than float64.
    """
    if x.device.type != "cpu" or x.dtype != torch.float64:
        return NotImplemented
    z = x * x
    p, q = (functools.reduce(lambda total, c: total * z + c, coefficients) for coefficients in (TANH_P, TANH_Q))
    return torch.where(z < 0.625**2, x + x * z * p / q, 1 - 2 / (torch.exp(2 * x) + 1))


SPELLED_OUT: dict[Any, Function] = {
    torch.ops.aten.tanh.default: _tanh,
    torch.ops.aten.mm.default: _thin_product,
    torch.ops.aten.addmm.default: _thin_product_plus,
    torch.ops.aten.bmm.default: _thin_product,
    torch.ops.aten.baddbmm.default: _thin_product_plus,
}
"""What the compiler gets in place of some of torch's operations."""
