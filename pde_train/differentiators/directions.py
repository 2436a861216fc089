"""Any partial derivative as a weighted sum of derivatives along directions."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache

from pde_train.derivatives import Axes

Direction = tuple[float, ...]
"""A vector of d components."""

Combination = dict[Direction, float]
"""Weights w_v of sum_v w_v D_v^n, the n-th derivatives along directions v."""


@lru_cache(maxsize=4096)
def polarised(axes: Axes, dimension: int) -> tuple[tuple[Direction, Fraction], ...]:
    """The partial derivative along `axes` as exact weights of n-th directional derivatives, n = len(axes) >= 1.

    Polarisation with repeated arguments (Kan, Journal of Multivariate Analysis 99, 2008, lemma 1): the product
    prod_i s_i^(a_i) is (2^-n / n!) sum_k prod_i (-1)^(k_i) binomial(a_i, k_i) (sum_i (a_i - 2 k_i) s_i)^n. Parallel
    directions are put together as primitive integer vectors, so that u_xxxx is the direction x alone.
    """
    counts = Counter(axes)
    order = len(axes)
    weights: dict[tuple[int, ...], Fraction] = defaultdict(Fraction)
    for ks in itertools.product(*(range(n + 1) for n in counts.values())):
        vector = [0] * dimension
        weight = Fraction(1, 2**order * math.factorial(order))
        for (axis, n), k in zip(counts.items(), ks, strict=True):
            vector[axis] = n - 2 * k
            weight *= (-1) ** k * math.comb(n, k)
        length = math.gcd(*vector)
        if not length:
            continue
        sign = 1 if next(v for v in vector if v) > 0 else -1
        weights[tuple(sign * v // length for v in vector)] += weight * (sign * length) ** order
    return tuple((tuple(map(float, v)), w) for v, w in sorted(weights.items(), reverse=True) if w)


def combination(terms: Mapping[Axes, float], dimension: int) -> Combination:
    """A weighted sum of partial derivatives of one order n >= 1, put together direction by direction."""
    if dimension == 2 and terms == BIHARMONIC_2D:
        return dict.fromkeys(TRIAD, 8 / 9)
    total: dict[Direction, Fraction] = defaultdict(Fraction)
    for axes, factor in terms.items():
        for direction, weight in polarised(axes, dimension):
            total[direction] += weight * Fraction(factor)
    return {direction: float(weight) for direction, weight in total.items() if weight}


BIHARMONIC_2D = {(0, 0, 0, 0): 1, (0, 0, 1, 1): 2, (1, 1, 1, 1): 1}

TRIAD: tuple[Direction, ...] = ((1.0, 0.0), (0.5, math.sqrt(0.75)), (-0.5, math.sqrt(0.75)))
"""Three directions 60 degrees apart: the mean of (v . s)^4 over them is 3/8 |s|^4, so lap lap u needs no fourth."""
