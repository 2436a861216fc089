"""Operations of torch that are spelled out for the compiler, where its own code for them is slow in small networks."""

from __future__ import annotations

import re
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
    if rows * inner * columns > SMALL or min(rows, inner, columns) > THIN or inner == 0:
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

TANH = r"""
#if INDUCTOR_USE_VECTOR_TYPES()
// tanh |x| = t / (t + 2) with t = exp(2 |x|) - 1. For 2 |x| = k ln 2 + r it is t = 2^k (exp(r) - 1) + (2^k - 1), and
// exp(r) - 1 a Taylor polynomial of degree 13, as |r| <= ln(2) / 2. Within 3 units in the last place.
static inline at::vec::Vectorized<double> fast_tanh(const at::vec::Vectorized<double>& x) {
  using V = at::vec::Vectorized<double>;
  using at::vec::fmadd;
  const V positive = x.abs(), sign = x ^ positive;  // copysign would be a call, before which all registers are saved
  const V y = at::vec::clamp_max(positive * V(2.0), V(44.0));  // a larger one is 1
  const V k = (y * V(1.4426950408889634)).round();
  const V r = fmadd(k, V(-0x1.ef35793c7673p-45), fmadd(k, V(-0x1.62e42fefa38p-1), y));  // ln 2 in two parts
  const V r2 = r * r, r4 = r2 * r2;
  const V a = fmadd(r2, fmadd(r, V(1.0 / 120), V(1.0 / 24)), fmadd(r, V(1.0 / 6), V(0.5)));
  const V b = fmadd(r2, fmadd(r, V(1.0 / 362880), V(1.0 / 40320)), fmadd(r, V(1.0 / 5040), V(1.0 / 720)));
  const V c = fmadd(r2, fmadd(r, V(1.0 / 6227020800.0), V(1.0 / 479001600)),
                    fmadd(r, V(1.0 / 39916800), V(1.0 / 3628800)));
  const V p = fmadd(r2, fmadd(r4, fmadd(r4, c, b), a), r);
  // the last bits of k + 2^52 + 1023 are the exponent of 2^k
  const auto bits = at::vec::cast<int64_t>(k + V(4503599627371519.0)) << at::vec::Vectorized<int64_t>(52);
  const V power = at::vec::cast<double>(bits);
  const V t = fmadd(power, p, power - V(1.0));
  return (t / (t + V(2.0))) ^ sign;
}
template <int N>
static inline at::vec::VectorizedN<double, N> fast_tanh(const at::vec::VectorizedN<double, N>& x) {
  return x.unary_op([](const at::vec::Vectorized<double>& part) { return fast_tanh(part); });
}
static inline double fast_tanh(double x) {
  alignas(64) double lanes[at::vec::Vectorized<double>::size()];
  fast_tanh(at::vec::Vectorized<double>(x)).store(lanes);
  return lanes[0];
}
#else
static inline double fast_tanh(double x) { return std::tanh(x); }
#endif
static inline float fast_tanh(float x) { return std::tanh(x); }
template <typename Other>
static inline Other fast_tanh(const Other& x) { return x.tanh(); }
"""
"""torch's own tanh of doubles, within 1 unit, takes three times as long: most of the time of a small network's step."""

SUM = r"""
#if INDUCTOR_USE_VECTOR_TYPES()
static inline double fast_sum(const at::vec::Vectorized<double>& x) {
  constexpr int size = at::vec::Vectorized<double>::size();
  alignas(64) double lanes[size];
  x.store(lanes);
  for (int half = size / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  }
  return lanes[0];
}
template <int N>
static inline double fast_sum(const at::vec::VectorizedN<double, N>& x) {
  at::vec::Vectorized<double> sum = x[0];
  for (int i = 1; i < N; ++i) sum = sum + x[i];
  return fast_sum(sum);
}
#endif
"""
"""torch's own sum of the lanes of a vector of doubles waits for memory eight times: a quarter of such a step."""

ITS_SUM = re.compile(r"at::vec::vec_reduce_all<double, \d+>\(\[\]\([^)]*\) *\{ return x \+ y; \}, (\w+)\)")


def with_fast_functions(kernels: str) -> str:
    """The compiler's code of kernels with calls of TANH and SUM, which stand before it, in place of torch's own.

    Args:
        kernels: In C++.

    Returns:
        The same with other calls.
    """
    calls = re.sub(r"(\w+)\.tanh\(\)", r"fast_tanh(\1)", kernels).replace("std::tanh(", "fast_tanh(")
    return ITS_SUM.sub(r"fast_sum(\1)", calls)
