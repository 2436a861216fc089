"""The rules of Taylor mode for sums, products, linear maps, comparisons and operations on columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pde_train.differentiators.series import Coefficient, Series, convolved, plus, rule, rule_of, times
from pde_train.errors import UsageError

Operand = Series | Tensor | float


@rule("add", "radd")
def add(a: Operand, b: Operand, alpha: float = 1) -> Series:
    """a + alpha b."""
    if alpha != 1:
        b = alpha * b
    if not isinstance(a, Series):
        a, b = b, a
    assert isinstance(a, Series)
    if not isinstance(b, Series):
        return Series([a.value + b, *a.rest], a.directions)
    return Series([a.value + b.value, *map(plus, a.rest, b.rest)], a.directions)


@rule("sub", "subtract")
def subtract(a: Operand, b: Operand, alpha: float = 1) -> Series:
    """a - alpha b."""
    return add(a, -(alpha * b) if alpha != 1 else -b)


@rule("neg", "negative")
def negative(a: Series) -> Series:
    """-a."""
    return a.map(lambda c: -c)


@rule("rsub")
def subtract_from(a: Operand, b: Operand) -> Series:
    """b - a."""
    return add(-a, b)


@rule("mul", "multiply", "rmul")
def multiply(a: Operand, b: Operand) -> Series:
    """The Cauchy product of two series, or the product of a series and a constant."""
    if not isinstance(a, Series):
        a, b = b, a
    assert isinstance(a, Series)
    if not isinstance(b, Series):
        factor = b
        return a.map(lambda c: c * factor)
    rest = [plus(times(a.value, b.rest[k - 1]), times(b.value, a.rest[k - 1])) for k in range(1, len(a.rest) + 1)]
    for k in range(2, len(rest) + 1):
        rest[k - 1] = plus(rest[k - 1], convolved(a.rest, b.rest, k, a.directions))
    return Series([a.value * b.value, *rest], a.directions)


@rule("div", "divide", "true_divide")
def divide(a: Operand, b: Operand) -> Series:
    """a / b."""
    return multiply(a, rule_of("reciprocal")(b) if isinstance(b, Series) else 1 / b)


@rule("linear")
def linear(z: Series, weight: Tensor, bias: Tensor | None = None) -> Series:
    """z weight^T + bias, by one matrix product for all coefficients that differ from point to point.

    With a single column, as in the last layer of a network, there is a product for each
    coefficient, so that a compiler can drop those that nothing uses.

    Args:
        z: The series (n, inputs).
        weight: The matrix (outputs, inputs).
        bias: The constants (outputs,).

    Returns:
        The series (n, outputs).
    """
    product = torch.nn.functional.linear
    if weight.shape[0] == 1:
        return z.map(lambda c: product(c, weight), product(z.value, weight, bias))
    rows = z.value.shape[0]
    full = [c for c in z.rest if c is not None and c.shape[1] == rows]
    stacked = torch.cat([z.value.unsqueeze(0), *full])
    value, *images = product(stacked, weight).split([1, *(c.shape[0] for c in full)])
    value = value.squeeze(0)
    through = iter(images)

    def image(c: Tensor) -> Tensor:
        return next(through) if c.shape[1] == rows else product(c, weight)

    return Series(
        [value if bias is None else value + bias, *(None if c is None else image(c) for c in z.rest)], z.directions
    )


@rule("matmul", "mm")
def matmul(z: Operand, matrix: Operand) -> Series:
    """The product z @ matrix, row by row."""
    if not isinstance(z, Series) or not isinstance(matrix, Tensor) or matrix.dim() != 2:
        raise UsageError("differentiator=taylor multiplies points by matrices from the right: expected x @ matrix")
    return linear(z, matrix.mT)


@rule("hstack")
def side_by_side(parts: Sequence[Operand]) -> Series:
    """The columns of several series side by side."""
    return concatenate(parts, dim=1)


@rule("cat", "concat")
def concatenate(parts: Sequence[Operand], dim: int = 0) -> Series:
    """The columns of several series side by side; tensors among them are constants."""
    series = next(p for p in parts if isinstance(p, Series))
    if dim not in (1, -1):
        raise UsageError(f"differentiator=taylor cannot concatenate along dimension {dim}: expected columns, dim=1")
    value = torch.cat([value_of(p) for p in parts], dim=-1)
    rest: list[Coefficient] = []
    for k in range(len(series.rest)):
        present = [p.rest[k] if isinstance(p, Series) else None for p in parts]
        shapes = [c.shape[:2] for c in present if c is not None]
        if not shapes:
            rest.append(None)
            continue
        rows = max(shape[1] for shape in shapes)
        filled = [
            value.new_zeros(shapes[0][0], rows, value_of(p).shape[-1]) if c is None else c.expand(-1, rows, -1)
            for c, p in zip(present, parts, strict=True)
        ]
        rest.append(torch.cat(filled, dim=-1))
    return Series([value, *rest], series.directions)


@rule("sum")
def sum_columns(z: Series, dim: int = 0, keepdim: bool = False) -> Series:
    """The sum over columns."""
    if dim not in (1, -1) or not keepdim:
        raise UsageError("differentiator=taylor sums over columns only: expected dim=1 and keepdim=True")
    return z.map(lambda c: c.sum(-1, keepdim=True))


@rule("mean")
def mean_columns(z: Series, dim: int = 0, keepdim: bool = False) -> Series:
    """The mean over columns."""
    return multiply(sum_columns(z, dim, keepdim), 1 / z.shape[1])


@rule("clone", "contiguous")
def same(z: Series, **_: object) -> Series:
    """z itself, because no rule changes anything in place."""
    return z


@rule("to")
def converted(z: Series, dtype: torch.dtype) -> Series:
    """z in another precision."""
    return z.map(lambda c: c.to(dtype))


@rule("detach")
def constant(z: Series) -> Tensor:
    """The values of z, as constants."""
    return z.value


@rule("ones_like")
def ones_like(z: Series, **options: Any) -> Tensor:
    """A constant 1 of the shape of z."""
    return torch.ones_like(z.value, **options)


@rule("zeros_like")
def zeros_like(z: Series, **options: Any) -> Tensor:
    """A constant 0 of the shape of z."""
    return torch.zeros_like(z.value, **options)


@rule("full_like")
def full_like(z: Series, fill_value: float, **options: Any) -> Tensor:
    """A constant of the shape of z."""
    return torch.full_like(z.value, fill_value, **options)


@rule("gt", "greater")
def greater(a: Operand, b: Operand) -> Tensor:
    """a > b, at the values."""
    holds: Tensor = value_of(a) > value_of(b)
    return holds


@rule("ge", "greater_equal")
def greater_equal(a: Operand, b: Operand) -> Tensor:
    """a >= b, at the values."""
    holds: Tensor = value_of(a) >= value_of(b)
    return holds


@rule("lt", "less")
def less(a: Operand, b: Operand) -> Tensor:
    """a < b, at the values."""
    holds: Tensor = value_of(a) < value_of(b)
    return holds


@rule("le", "less_equal")
def less_equal(a: Operand, b: Operand) -> Tensor:
    """a <= b, at the values."""
    holds: Tensor = value_of(a) <= value_of(b)
    return holds


@rule("where")
def where(condition: Tensor, a: Operand, b: Operand) -> Series:
    """a where the condition holds, otherwise b; each of both has its own derivatives."""
    series = a if isinstance(a, Series) else b
    assert isinstance(series, Series)
    value = torch.where(condition, value_of(a), value_of(b))
    rest: list[Coefficient] = []
    for k in range(len(series.rest)):
        one, other = (p.rest[k] if isinstance(p, Series) else None for p in (a, b))
        if one is None and other is None:
            rest.append(None)
            continue
        zero = value.new_zeros(())
        rest.append(torch.where(condition, zero if one is None else one, zero if other is None else other))
    return Series([value, *rest], series.directions)


@rule("maximum")
def maximum(a: Operand, b: Operand) -> Series:
    """The larger of a and b."""
    return where(greater(a, b), a, b)


@rule("minimum")
def minimum(a: Operand, b: Operand) -> Series:
    """The smaller of a and b."""
    return where(less(a, b), a, b)


@rule("clamp", "clip")
def clamp(z: Series, min: Operand | None = None, max: Operand | None = None) -> Series:
    """z between its bounds, and the bound itself beyond it."""
    above = z if min is None else maximum(z, min)
    return above if max is None else minimum(above, max)


@rule("squeeze", "flatten", "ravel", "unsqueeze", "view", "reshape")
def reshaped(z: Series, *shape: Any, **named: Any) -> Series:
    """Refuse operations that change the shape of columns.

    Raises:
        UsageError: Always.
    """
    raise UsageError(
        "differentiator=taylor carries columns (n, w), and squeeze, unsqueeze, view, reshape and flatten make other "
        "shapes: expected x[:, :1] for one column, torch.cat(..., dim=1) for several, or choose differentiator=reverse"
    )


def value_of(operand: Operand) -> Any:
    """The value of a series at the points; a tensor or a number as it is."""
    return operand.value if isinstance(operand, Series) else operand
