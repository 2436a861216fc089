"""Operations of torch that are spelled out for the compiler, where its own code for them is slow in small networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Function = Callable[..., Any]

THIN = 2
"""The largest side of a matrix that makes a product thin."""

SMALL = 2**13
"""The most multiplications of a product for which a call of BLAS costs more than the numbers do."""


def _thin_product(a: Tensor, b: Tensor) -> Any:
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


def _thin_product_plus(c: Tensor, a: Tensor, b: Tensor, beta: float = 1, alpha: float = 1) -> Any:
    product = _thin_product(a, b)
    return product if product is NotImplemented else beta * c + alpha * product


SPELLED_OUT: dict[Any, Function] = {
    torch.ops.aten.mm.default: _thin_product,
    torch.ops.aten.addmm.default: _thin_product_plus,
    torch.ops.aten.bmm.default: _thin_product,
    torch.ops.aten.baddbmm.default: _thin_product_plus,
}
"""What the compiler gets in place of some of torch's operations."""
