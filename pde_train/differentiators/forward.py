"""Nested forward-mode automatic differentiation."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from pde_train.derivatives import Axes, Field
from pde_train.differentiators.base import Differentiator

Columns = dict[Axes, Tensor]


@dataclass(frozen=True)
class Forward(Differentiator):
    """Forward mode over forward mode, by torch.func.jvp; exact to rounding.

    u_xxxx is the push-forward of u_xxx along x, and one push-forward carries every derivative whose last step is along
    the same coordinate: all requests share their prefixes. Its cost doubles with the order (docs/differentiators.md).
    """

    def partials(self, u: Field, x: Tensor, axes: frozenset[Axes]) -> Columns:
        with warnings.catch_warnings():  # what torch loads for forward mode uses what torch deprecates
            warnings.simplefilter("ignore", DeprecationWarning)
            return _columns(u, x, axes)


def _columns(u: Field, x: Tensor, axes: frozenset[Axes]) -> Columns:
    """The wanted columns, those that end along one coordinate by one push-forward of what comes before them."""
    found: Columns = {}
    ends = sorted({a[-1] for a in axes if a})
    for end in ends:
        ending = frozenset(a for a in axes if a and a[-1] == end)
        before = frozenset(a[:-1] for a in ending) | (axes & {()} if end == ends[-1] else frozenset())
        direction = torch.zeros_like(x)
        direction[:, end] = 1
        values, slopes = torch.func.jvp(lambda y, b=before: _columns(u, y, b), (x,), (direction,))  # type: ignore[misc]
        found |= {a: values[a] for a in before & axes} | {a: slopes[a[:-1]] for a in ending}
    return found if ends else {a: u(x) for a in axes}
