"""Truncated Taylor series along several directions at once, pushed through row-wise programs of torch functions.

A `Series` replaces the points (n, d) in the call of a model. Whatever torch function the model
calls, `__torch_function__` finds its rule in RULES by name and applies it to the coefficients.
`arithmetic_rules` has the rules of sums, products and linear maps. `taylor_rules` has those of
functions of one variable, which `composed` builds from their derivatives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from pde_train.errors import UsageError

Coefficient = Tensor | None
"""A coefficient of a series; None where it is known to be 0, so that no operation is spent on it."""


@dataclass(frozen=True)
class Directions:
    """The directions of a series, those that need the highest degree first.

    Every operation is linear in the coefficient of the highest degree. A weighted sum of these
    coefficients over directions is therefore mapped as each of them would be, and can be carried in
    their place (for lap u this is the forward Laplacian, Li et al., arXiv 2307.08214; here for any
    degree).

    Attributes:
        counts: How many directions, counted from the first, have a coefficient of degree 0, 1, ...,
            order.
        collapse: The map from a coefficient (directions, n, w) of the highest degree to the
            weighted sums over directions (sums, n, w) that are carried in its place; the identity
            where nothing is collapsed.
    """

    counts: tuple[int, ...]
    collapse: Callable[[Tensor], Tensor]

    @property
    def order(self) -> int:
        """The highest degree of a coefficient."""
        return len(self.counts) - 1


Rule = Callable[..., Any]
"""A function of series, tensors and numbers."""

Function = TypeVar("Function", bound=Rule)

RULES: dict[str, Rule] = {}
"""The rules of torch functions for series, by the name of the function."""


def rule_of(name: str) -> Rule:
    """Look up the rule of a torch function.

    Args:
        name: The name of the function.

    Returns:
        The rule, a function of series.

    Raises:
        UsageError: The function works in place, or has no rule.
    """
    if name.endswith("_") and not name.startswith("__"):
        raise UsageError(
            f"differentiator=taylor changes nothing in place, as {name!r} would: expected {name.strip('_')!r}, whose "
            "result is new (inplace=False, torch.cat in place of assignments), or choose differentiator=reverse"
        )
    name = name.strip("_")
    if name not in RULES:
        raise UsageError(
            f"differentiator=taylor has no rule for the operation {name!r}: expected one of "
            f"{', '.join(sorted(RULES))}; add a rule in pde_train/differentiators/taylor_rules.py or choose "
            "differentiator=reverse"
        )
    return RULES[name]


def rule(*names: str) -> Callable[[Function], Function]:
    """Decorate a function of series that is the rule of the torch functions of these names."""

    def register(function: Function) -> Function:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


def _operator(name: str) -> Callable[..., Any]:
    """A method that applies the rule of an operator."""
    return lambda *operands: rule_of(name)(*operands)


def _reflected(name: str) -> Callable[..., Any]:
    """The same with operands exchanged, for 2 / x and 2**x."""
    return lambda self, other: rule_of(name)(other, self)


class Series:
    """A truncated Taylor series u(x + s v) = sum_k c_k s^k along directions v.

    c_0 has the shape (n, w), and c_k for k >= 1 the shape (directions, n or 1, w). A coefficient
    that is the same at all n points has one row, and one that is known to be 0 is None. The class
    is no subclass of Tensor: torch functions reach it by `__torch_function__`, and each acts
    through the rule of its name in RULES.

    Args:
        coefficients: c_0, c_1, ...
        directions: The directions.

    Attributes:
        value: The coefficient c_0, the value at the points (n, w).
        rest: The coefficients c_1, c_2, ...
        directions: The directions.

    Raises:
        UsageError: An operation has made values of another shape than columns (n, w).
    """

    def __init__(self, coefficients: Sequence[Coefficient], directions: Directions):
        value, *rest = coefficients
        assert value is not None
        if value.dim() != 2:
            raise UsageError(
                f"differentiator=taylor carries columns (n, w), and an operation made {tuple(value.shape)} of them: "
                "expected x[:, :1] rather than x[:, 0], or choose differentiator=reverse"
            )
        width = value.shape[-1]
        self.value = value
        self.rest = [c if c is None or c.shape[-1] == width else c.expand(*c.shape[:-1], width) for c in rest]
        self.directions = directions

    shape = property(lambda self: self.value.shape)
    dtype = property(lambda self: self.value.dtype)
    device = property(lambda self: self.value.device)
    ndim = 2

    def __array_ufunc__(self, function: Any, method: str, *operands: Any, **options: Any) -> Any:
        """Arithmetic with numbers of numpy; its other functions are refused, as they would lose the derivatives."""
        ours = {"add": "add", "subtract": "sub", "multiply": "mul", "true_divide": "div", "divide": "div"}
        name = ours.get(function.__name__)
        if name is None or method != "__call__":
            raise UsageError(
                f"differentiator=taylor has no rule for numpy.{function.__name__}: expected torch functions, such as "
                f"torch.{function.__name__}"
            )
        return rule_of(name)(*(o.item() if isinstance(o, np.generic) else o for o in operands))

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise UsageError(
            "differentiator=taylor was asked for a numpy array of its points: expected torch functions in place of "
            "numpy's"
        )

    def dim(self) -> int:
        """The number of dimensions, as that of a tensor."""
        return 2

    def size(self, dim: int | None = None) -> Any:
        """The shape, or its entry `dim`, as that of a tensor."""
        return self.shape if dim is None else self.shape[dim]

    def __len__(self) -> int:
        return len(self.value)

    def map(self, linear: Callable[[Tensor], Tensor], value: Tensor | None = None) -> Series:
        """Apply a linear map to every coefficient; `value` replaces the image of c_0 where the map is affine."""
        rest = [None if c is None else linear(c) for c in self.rest]
        return Series([linear(self.value) if value is None else value, *rest], self.directions)

    @classmethod
    def __torch_function__(
        cls, func: Rule, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        return rule_of(func.__name__ + "_" * bool(kwargs.get("inplace")))(*args, **kwargs)

    def __getattr__(self, name: str) -> Rule:
        if name.startswith("_"):
            raise AttributeError(name)
        rule = rule_of(name)
        return lambda *args, **kwargs: rule(self, *args, **kwargs)

    __add__ = __radd__ = _operator("add")
    __sub__, __rsub__ = _operator("sub"), _operator("rsub")
    __mul__ = __rmul__ = _operator("mul")
    __truediv__, __rtruediv__ = _operator("div"), _reflected("div")
    __pow__, __rpow__ = _operator("pow"), _reflected("pow")
    __matmul__, __abs__, __neg__ = _operator("matmul"), _operator("abs"), _operator("neg")
    __gt__, __lt__ = _operator("gt"), _operator("lt")
    __ge__, __le__ = _operator("ge"), _operator("le")

    def __getitem__(self, index: Any) -> Series:
        rows, *columns = index if isinstance(index, tuple) else (index,)
        if rows is Ellipsis or (isinstance(rows, slice) and rows == slice(None)):
            return self.map(lambda c: c[(..., *columns)])
        raise UsageError(f"differentiator=taylor cannot take rows {rows} out of its points: expected [:, columns]")

    def __setitem__(self, index: Any, value: Any) -> None:
        rule_of("setitem_")


def plus(a: Coefficient, b: Coefficient) -> Coefficient:
    """The sum of two coefficients, of which each may be None."""
    if a is None or b is None:
        return b if a is None else a
    return a + b


def times(a: Coefficient, b: Coefficient) -> Coefficient:
    """The product of two coefficients, each of which may be None, for the directions that both have."""
    if a is None or b is None:
        return None
    if a.dim() == b.dim() == 3 and a.shape[0] != b.shape[0]:
        count = min(a.shape[0], b.shape[0])
        return a[:count] * b[:count]
    return a * b


def convolved(a: Sequence[Coefficient], b: Sequence[Coefficient], degree: int, directions: Directions) -> Coefficient:
    """The inner part of the coefficient of a product: the sum of a_i b_(degree - i) over 0 < i < degree.

    The two outer terms, which contain a_degree and b_degree, are left to the caller: those
    coefficients are collapsed already where the degree is the highest, while the sum here is
    collapsed at the end.

    Args:
        a: The coefficients of degree 1, 2, ... of the first factor.
        b: Those of the second factor; the same object for a square, which halves the work.
        degree: The degree.
        directions: The directions of both.

    Returns:
        The sum.
    """
    total: Coefficient = None
    for i in range(1, degree):
        j = degree - i
        if a is b and i > j:
            break
        term = _for_degree(times(a[i - 1], b[j - 1]), degree, directions)
        total = plus(total, 2 * term if a is b and i < j and term is not None else term)
    return directions.collapse(total) if total is not None and degree == directions.order else total


def _for_degree(coefficient: Coefficient, degree: int, directions: Directions) -> Coefficient:
    """The coefficient for the directions that have a coefficient of this degree."""
    count = directions.counts[degree]
    if coefficient is None or coefficient.shape[0] == count:
        return coefficient
    return coefficient[:count]


def composed(outer: Sequence[Coefficient], z: Series) -> Series:
    """The series of f(z) = sum_m a_m (z - z_0)^m, from the Taylor coefficients a_m of f at the value z_0 of z.

    Args:
        outer: a_m = f^(m)(z_0) / m! for m = 0, 1, ..., (n, w) each; None where it is 0.
        z: The series.

    Returns:
        The series of f(z).
    """
    directions, order = z.directions, len(z.rest)
    rest: list[Coefficient] = [times(outer[1], c) for c in z.rest]
    power = z.rest  # the coefficients of (z - z_0)^m, which begin at degree m; here m = 1
    for m in range(2, order + 1):
        below, power = power, [None] * order
        for degree in range(m, order + 1):
            power[degree - 1] = convolved(below, z.rest, degree, directions)
            rest[degree - 1] = plus(rest[degree - 1], times(outer[m], power[degree - 1]))
    assert outer[0] is not None
    return Series([outer[0], *rest], directions)
