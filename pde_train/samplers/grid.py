"""Equidistant points, including both ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pde_train.errors import UsageError
from pde_train.geometry import Box, Domain
from pde_train.samplers.base import Sampler


@dataclass(frozen=True)
class Grid(Sampler):
    """A tensor-product grid of equidistant points; `interior` may be a list with the number of points on each axis.

    Of a grid in the box around another domain, the points in the domain are left.
    """

    @property
    def repeats_itself(self) -> bool:
        return True

    def fill(self, box: Box, count: int | Sequence[int], generator: np.random.Generator) -> np.ndarray:
        axes = [
            np.linspace(low, high, n)
            for low, high, n in zip(box.lower, box.upper, _per_axis(count, box.dimension), strict=True)
        ]
        return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, box.dimension)

    def spacing(self, box: Domain) -> tuple[float, ...]:
        counts = _per_axis(self.interior, box.dimension)
        return tuple(float(length) / max(n - 1, 1) for length, n in zip(box.lengths, counts, strict=True))


def _per_axis(count: int | Sequence[int], dimension: int) -> list[int]:
    """The number of points on each axis; that of all points must be a power of the dimension."""
    if isinstance(count, Sequence):
        if len(count) != dimension:
            raise UsageError(
                f"sampler.interior={list(count)} has {len(count)} numbers: expected {dimension}, one for each axis"
            )
        return list(count)
    root = round(count ** (1 / dimension))
    if root**dimension != count and dimension > 3:
        raise UsageError(
            f"a grid of {count} points on {dimension} axes is not square, and those that are have very many points: "
            "expected points off a grid, choose sampler=sobol or sampler=uniform"
        )
    if root**dimension != count:
        lower = int(count ** (1 / dimension))
        raise UsageError(
            f"a grid of {count} points on {dimension} axes is not square: expected {lower**dimension}, "
            f"{(lower + 1) ** dimension} or a list of points per axis, such as "
            f"sampler.interior=[{','.join(('40', '25', '10')[:dimension])}]"
        )
    return [root] * dimension
