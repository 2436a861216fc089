"""Nested reverse-mode automatic differentiation: the reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pde_train.derivatives import Axes, Field
from pde_train.differentiators.base import Differentiator

Columns = dict[Axes, Tensor]


@dataclass(frozen=True)
class Reverse(Differentiator):
    """Reverse mode over reverse mode, by torch.func.vjp; exact up to rounding.

    Each derivative is computed from that of one order less, u_xxxx from u_xxx, and derivatives with
    a common prefix share its computation. Order k is one pullback through the program that computes
    order k - 1.
    """

    def partials(self, u: Field, x: Tensor, axes: frozenset[Axes]) -> Columns:
        prefixes = {a[:k] for a in axes for k in range(len(a) + 1)}
        program = _evaluate(u)
        for order in range(1, max(map(len, prefixes)) + 1):
            program = _differentiate(program, [a for a in prefixes if len(a) == order])
        newest, older = program(x)
        columns = older | newest
        return {a: columns[a] for a in axes}


Program = Callable[[Tensor], tuple[Columns, Columns]]
"""A map from points to the columns of the highest order so far, and to all columns of lower order."""


def _evaluate(u: Field) -> Program:
    """The program of order 0."""
    return lambda x: ({(): u(x)}, {})


def _differentiate(program: Program, wanted: list[Axes]) -> Program:
    """Extend a program by the columns of the next order, whose prefixes are among its columns of highest order."""

    def extended(x: Tensor) -> tuple[Columns, Columns]:
        columns, pull_back, older = torch.func.vjp(program, x, has_aux=True)  # type: ignore[misc]  # typed as 2 or 3
        newest: Columns = {}
        for parent in sorted({a[:-1] for a in wanted}):
            children = sorted(a for a in wanted if a[:-1] == parent)
            gradients = _gradients(pull_back, columns, parent, x, [a[-1] for a in children])
            newest.update(zip(children, gradients, strict=True))
        return newest, older | columns

    return extended


def _gradients(
    pull_back: Callable[..., Any], columns: Columns, parent: Axes, x: Tensor, along: list[int]
) -> list[Tensor]:
    """The derivatives of column `parent` (n, m) along each of the coordinates `along`, each (n, m)."""
    zeros = {axes: torch.zeros_like(column) for axes, column in columns.items()}

    def gradient(cotangent: Tensor) -> Tensor:  # (n, m) -> (n, d)
        result: Tensor = pull_back(zeros | {parent: cotangent})[0]
        return result

    column = columns[parent]
    if column.shape[1] == 1:
        whole = gradient(torch.ones_like(column))
        return [whole[:, i : i + 1] for i in along]
    # The pullback is row-wise and linear in its cotangent, so its own transpose gives all m columns in one pass.
    _, transpose = torch.func.vjp(gradient, torch.zeros_like(column))  # type: ignore[misc]  # typed as 2 or 3
    units = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    return [transpose(units[i].expand_as(x))[0] for i in along]
