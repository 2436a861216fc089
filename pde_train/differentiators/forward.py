"""Nested forward-mode automatic differentiation."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from pde_train.derivatives import Axes, Field
from pde_train.differentiators.base import Differentiator

Columns = dict[Axes, Tensor]


@dataclass(frozen=True)
class Forward(Differentiator):
    """Forward mode over forward mode, by torch.func.jvp; exact up to rounding.

    u_xxxx is the push-forward of u_xxx along x. One push-forward carries all derivatives whose last
    coordinate is the same, so derivatives with a common prefix share its computation. The cost
    doubles with each order (see docs/differentiators/forward.md).
    """

    def partials(self, u: Field, x: Tensor, axes: frozenset[Axes]) -> Columns:
        with warnings.catch_warnings():  # torch itself calls deprecated functions when it loads forward mode
            warnings.simplefilter("ignore", DeprecationWarning)
            return _columns(u, x, axes)


def _columns(u: Field, x: Tensor, axes: frozenset[Axes]) -> Columns:
    """The columns of `axes`: those with the same last coordinate by one push-forward of the columns before it."""
    columns: Columns = {}
    ends = sorted({a[-1] for a in axes if a})
    for end in ends:
        ending = frozenset(a for a in axes if a and a[-1] == end)
        before = frozenset(a[:-1] for a in ending) | (axes & {()} if end == ends[-1] else frozenset())
        direction = torch.zeros_like(x)
        direction[:, end] = 1
        push = partial(_columns, u, axes=before)
        values, slopes = torch.func.jvp(push, (x,), (direction,))  # type: ignore[misc]  # typed as 2 or 3
        columns |= {a: values[a] for a in before & axes} | {a: slopes[a[:-1]] for a in ending}
    return columns if ends else {a: u(x) for a in axes}
