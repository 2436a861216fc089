"""What every way of choosing points offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pde_train.errors import UsageError
from pde_train.geometry import Batch, Box, Points


@dataclass(frozen=True)
class Sampler(ABC):
    """Chooses points in a box and on its faces, from a generator that the caller owns.

    interior: points in the interior. boundary: points on all faces together, the same number on each; the two ends
    in one dimension. resample_every: optimiser steps between two draws, 0 for never.
    """

    interior: int | Sequence[int]
    boundary: int
    seed: int = 0
    resample_every: int = 0

    def __post_init__(self) -> None:
        for name in ("interior", "boundary"):
            counts = getattr(self, name)
            each = counts if isinstance(counts, Sequence) else [counts]
            if not each or not all(isinstance(n, int) and n >= 1 for n in each):
                raise UsageError(f"sampler.{name}={counts} leaves no point: expected a positive number, choose one")
        if self.resample_every < 0:
            raise UsageError(
                f"sampler.resample_every={self.resample_every} is negative: expected a number of steps, or 0 for never"
            )

    @abstractmethod
    def fill(self, box: Box, count: int | Sequence[int], generator: np.random.Generator) -> np.ndarray:
        """Points (n, d) in a box of d >= 1 dimensions."""

    def spacing(self, box: Box) -> tuple[float, ...]:
        """The distance of points along each coordinate, as if they lay on a grid."""
        per_axis = self.total ** (1 / box.dimension)
        return tuple(float(length) / max(per_axis - 1, 1) for length in box.lengths)

    @property
    def total(self) -> int:
        return int(np.prod(self.interior))

    def draw(self, box: Box, generator: np.random.Generator) -> Batch:
        """Points of the interior and, with their outward normals, of the boundary; float64."""
        interior = Points(torch.from_numpy(self.fill(box, self.interior, generator)))
        faces = [self._face(box, axis, side, generator) for axis, side in box.faces()]
        x, normals = (torch.from_numpy(np.concatenate(parts)) for parts in zip(*faces, strict=True))
        return {"interior": interior, "boundary": Points(x, normals)}

    def _face(self, box: Box, axis: int, side: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        count = self._on_each_face(box)
        across = np.zeros((1, 0)) if box.dimension == 1 else self.fill(box.across(axis), count, generator)
        x = np.insert(across, axis, box.upper[axis] if side > 0 else box.lower[axis], axis=1)
        normals = np.zeros_like(x)
        normals[:, axis] = side
        return x, normals

    def _on_each_face(self, box: Box) -> int:
        faces = 2 * box.dimension
        if box.dimension > 1 and self.boundary % faces:
            raise UsageError(
                f"sampler.boundary={self.boundary} cannot be shared by {faces} faces: "
                f"expected a multiple of {faces}, such as {max(faces, self.boundary // faces * faces)}"
            )
        return self.boundary // faces


def number(count: int | Sequence[int]) -> int:
    """A count of points that lie on no axes."""
    if isinstance(count, Sequence):
        raise UsageError(f"sampler.interior={list(count)} is for a grid: expected one number, {np.prod(count)} in all")
    return count


def fresh(generator: np.random.Generator) -> np.random.Generator:
    """A generator seeded by a draw from `generator`, whose state then decides everything.

    scipy.stats.qmc spawns children of the generator that it is given, and counts them outside of its state.
    """
    return np.random.default_rng(generator.integers(2**63))
