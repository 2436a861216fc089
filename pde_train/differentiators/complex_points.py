"""Complex numbers that pass through a program of torch functions which was written for real ones.

`ComplexPoints` replaces the points (n, d) in the call of a model. A program that is analytic
computes the analytic continuation of u if its operations are applied to complex numbers. Functions
that are not analytic, such as |z| or comparisons, would give wrong derivatives without an error, so
only functions in ANALYTIC and EVALUATED are accepted.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pde_train.errors import UsageError


class ComplexPoints:
    """A complex tensor that a program for real tensors treats as one of them.

    It is no subclass of Tensor: torch functions reach it by `__torch_function__`, which also makes
    the other real operands complex. Its `dtype` is that of the real parts, so that a program which
    asks for it makes real constants.

    Args:
        tensor: The complex tensor.
    """

    __array_ufunc__ = None  # makes numbers of numpy leave arithmetic to this class

    def __init__(self, tensor: Tensor):
        self.tensor = tensor

    shape = property(lambda self: self.tensor.shape)
    dtype = property(lambda self: self.tensor.dtype.to_real())
    device = property(lambda self: self.tensor.device)
    ndim = property(lambda self: self.tensor.ndim)
    T = mT = property(lambda self: ComplexPoints(self.tensor.mT))

    def dim(self) -> int:
        """The number of dimensions, as that of a tensor."""
        return self.tensor.dim()

    def size(self, dim: int | None = None) -> Any:
        """The shape, or its entry `dim`, as that of a tensor."""
        return self.shape if dim is None else self.shape[dim]

    def __len__(self) -> int:
        return len(self.tensor)

    def __iter__(self) -> Iterator[ComplexPoints]:
        return map(ComplexPoints, self.tensor)

    def __getitem__(self, index: Any) -> ComplexPoints:
        return ComplexPoints(self.tensor[index])

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        name = func.__name__.strip("_")
        function = ANALYTIC.get(name, func if name in EVALUATED else None)
        if function is None:
            raise UsageError(
                f"differentiator=complex_step needs an analytic function, and {name} is not, or not known to be: "
                "choose a smooth activation such as tanh, sin or gelu, add it to ANALYTIC in "
                "pde_train/differentiators/complex_points.py, or choose differentiator=taylor"
            )
        operands = [*args, *(kwargs or {}).values()]
        dtype = next(a.tensor.dtype for a in _flat(operands) if isinstance(a, ComplexPoints))
        try:
            named = {key: _made_complex(a, dtype) for key, a in (kwargs or {}).items()}
            result = function(*(_made_complex(a, dtype) for a in args), **named)
        except (RuntimeError, NotImplementedError, TypeError) as error:
            raise UsageError(
                f"differentiator=complex_step cannot evaluate {name} at complex points "
                f"({str(error).splitlines()[0]}): choose differentiator=taylor or reverse"
            ) from error
        return type(result)(map(cls, result)) if isinstance(result, (list, tuple)) else cls(result)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *args, **kwargs: self.__torch_function__(getattr(torch.Tensor, name), (), (self, *args), kwargs)


def _operator(name: str) -> Callable[..., Any]:
    return lambda self, *others: ComplexPoints.__torch_function__(getattr(torch.Tensor, name), (), (self, *others))


OPERATORS = "add radd sub rsub mul rmul truediv rtruediv pow rpow neg matmul abs lt le gt ge setitem"
"""The names of the methods of Python's operators, which are those of torch's functions as well."""

for _name in OPERATORS.split():
    setattr(ComplexPoints, f"__{_name}__", _operator(f"__{_name}__"))


def _flat(args: Any) -> list[Any]:
    """The operands with those inside of lists and tuples."""
    return [a for arg in args for a in (_flat(arg) if isinstance(arg, (list, tuple)) else [arg])]


def _made_complex(arg: Any, dtype: torch.dtype) -> Any:
    """An operand for complex arithmetic: real tensors and dtypes are made complex, all else stays as it is."""
    if isinstance(arg, ComplexPoints):
        return arg.tensor
    if isinstance(arg, Tensor):
        return arg.to(dtype) if arg.is_floating_point() else arg
    if isinstance(arg, torch.dtype):
        return arg.to_complex() if arg.is_floating_point else arg
    return type(arg)(_made_complex(a, dtype) for a in arg) if isinstance(arg, (list, tuple)) else arg


def _erf(z: Tensor) -> Tensor:
    """The error function near the real line: erf(Re z) plus the integral from Re z to z by a Gauss-Legendre rule."""
    nodes, weights = np.polynomial.legendre.leggauss(32)
    height = z.imag
    total = torch.zeros_like(z)
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        total = total + float(weight) * torch.exp(-torch.complex(z.real, float(node) * height).square())
    return torch.erf(z.real) + 2j / math.sqrt(math.pi) * height * total


def _decaying(z: Tensor) -> tuple[Tensor, Tensor]:
    """Whether Re z > 0, and e^-z where it is, e^z elsewhere; neither can overflow."""
    positive = z.real > 0
    return positive, torch.exp(torch.where(positive, -z, z))


def _sigmoid(z: Tensor) -> Tensor:
    positive, decaying = _decaying(z)
    return torch.where(positive, torch.ones_like(z), decaying) / (1 + decaying)


def _logsigmoid(z: Tensor) -> Tensor:
    positive, decaying = _decaying(z)
    return torch.where(positive, torch.zeros_like(z), z) - torch.log(1 + decaying)  # torch's own log1p is nan next to 0


def _softplus(z: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    return -_logsigmoid(-beta * z) / beta


def _gelu(z: Tensor, approximate: str = "none") -> Tensor:
    if approximate == "tanh":
        return 0.5 * z * (1 + torch.tanh(math.sqrt(2 / math.pi) * z * (1 + 0.044715 * z * z)))
    return 0.5 * z * (1 + _erf(z * math.sqrt(0.5)))


def _power(base: Any, exponent: Any) -> Tensor:
    """base ** exponent, where whole powers are computed by repeated squaring."""
    # torch computes powers of complex numbers from their angle, in which the tiny step of a first derivative is lost.
    if not isinstance(base, Tensor):
        return torch.exp(exponent * math.log(base))
    if isinstance(exponent, Tensor) and exponent.dim() == 0 and not exponent.requires_grad:
        with contextlib.suppress(RuntimeError):  # under vmap it has no value that could be known
            exponent = exponent.item()
    if isinstance(exponent, (Tensor, complex)) or exponent != int(exponent):
        return torch.pow(base, exponent)
    if exponent < 0:
        return torch.reciprocal(_power(base, -exponent))
    result, square = torch.ones_like(base), base
    for digit in reversed(f"{int(exponent):b}"):
        result = result * square if digit == "1" else result
        square = square * square
    return result


ANALYTIC: dict[str, Callable[..., Any]] = {
    "erf": _erf,
    "special_erf": _erf,
    "sigmoid": _sigmoid,
    "special_expit": _sigmoid,
    "logsigmoid": _logsigmoid,
    "log_sigmoid": _logsigmoid,
    "softplus": _softplus,
    "silu": lambda z, inplace=False: z * _sigmoid(z),
    "mish": lambda z, inplace=False: z * torch.tanh(_softplus(z)),
    "gelu": _gelu,
    "log1p": lambda z: torch.log(1 + z),
    "pow": _power,
    "rpow": lambda exponent, base: _power(base, exponent),
}
"""Analytic functions that torch does not evaluate at complex numbers, or not to all digits, written out."""

EVALUATED = frozenset(
    """
    neg negative positive reciprocal square exp exp2 expm1 log log2 log10 sqrt rsqrt sin cos tan sinh cosh tanh asin
    acos atan asinh acosh atanh arcsin arccos arctan arcsinh arccosh arctanh tanhshrink
    add radd sub rsub subtract mul rmul multiply div divide true_divide truediv rtruediv rdiv matmul rmatmul mm mv bmm
    addmm addmv baddbmm addcmul addcdiv linear bilinear einsum tensordot dot inner outer lerp
    sum mean prod cumsum cumprod diff
    cat concat concatenate stack hstack vstack column_stack reshape reshape_as view view_as flatten unflatten ravel
    squeeze unsqueeze t transpose swapaxes swapdims permute movedim expand expand_as broadcast_to tile repeat
    repeat_interleave chunk split tensor_split unbind select narrow index_select gather take_along_dim flip roll
    clone contiguous detach to type_as dropout
    zeros_like ones_like full_like empty_like new_tensor new_zeros new_ones new_full new_empty
    """.split()  # noqa: SIM905
)
"""Functions that are analytic, or only rearrange numbers, and that torch evaluates at complex numbers."""
