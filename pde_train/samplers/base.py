"""What every way of choosing points offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pde_train.errors import UsageError
from pde_train.geometry import Batch, Box, Face, Points

MOST_SHARED = 6
"""Faces that share their points equally, those of a box in three dimensions; of more faces each point draws its own."""


@dataclass(frozen=True)
class Sampler(ABC):
    """Chooses points in a box and on its faces, from a generator that the caller owns.

    interior: points in the interior. boundary: points on every other region, the same number on each of its faces, or
    on faces drawn at random where it has more than 6; an end of an interval is one point. resample_every: optimiser
    steps between two draws, 0 for never. initial: points at the initial time, where there is one.
    """

    interior: int | Sequence[int]
    boundary: int
    seed: int = 0
    resample_every: int = 0
    initial: int = 80

    def __post_init__(self) -> None:
        for name in ("interior", "boundary", "initial"):
            counts = getattr(self, name)
            each = counts if isinstance(counts, Sequence) else [counts]
            if not each or not all(type(n) is int and n >= 1 for n in each):
                raise UsageError(f"sampler.{name}={counts} leaves no point: expected a positive number, choose one")
        if type(self.resample_every) is not int or self.resample_every < 0:
            raise UsageError(
                f"sampler.resample_every={self.resample_every} is no number of steps: expected an integer, or 0 "
                "for never"
            )

    @property
    def places_points(self) -> bool:
        """Whether this sampler has a `draw` of its own: the equation may then hold in a part of the box alone."""
        return type(self).draw is not Sampler.draw

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

    def draw(
        self, box: Box, generator: np.random.Generator, regions: Mapping[str, Sequence[Face]] | None = None
    ) -> Batch:
        """Points of the interior and, with their outward normals, of regions by their faces; float64.

        regions: by default all faces, as `boundary`. The points of `periodic` know those across the box.
        """
        batch = {"interior": Points(torch.from_numpy(self.fill(box, self.interior, generator)))}
        for region, faces in ({"boundary": box.faces()} if regions is None else regions).items():
            x, normals = self._on(box, faces, self.initial if region == "initial" else self.boundary, generator)
            across = torch.from_numpy(np.where(normals < 0, box.upper, x)) if region == "periodic" else None
            batch[region] = Points(torch.from_numpy(x), torch.from_numpy(normals), across)
        return batch

    def _on(
        self, box: Box, faces: Sequence[Face], count: int, generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Points (n, d) on faces, face by face, and their outward normals (n, d)."""
        if len(faces) > MOST_SHARED:
            x = self.fill(box, count, generator)
            on = np.asarray(faces)[generator.integers(len(faces), size=len(x))]
        else:
            share = _share(count, len(faces)) if box.dimension > 1 else 1
            on = np.repeat(faces, share, axis=0)
            x = np.concatenate([self._across(box, axis, share, generator) for axis, _ in faces])
        rows, axes, sides = np.arange(len(x)), on[:, 0], on[:, 1]
        x[rows, axes] = np.where(sides < 0, np.asarray(box.lower)[axes], np.asarray(box.upper)[axes])
        normals = np.zeros_like(x)
        normals[rows, axes] = sides
        return x, normals

    def _across(self, box: Box, axis: int, count: int, generator: np.random.Generator) -> np.ndarray:
        """Points (n, d) on a face, but for their coordinate `axis`."""
        x = np.zeros((1, 0)) if box.dimension == 1 else self.fill(box.across(axis), count, generator)
        return np.insert(x, axis, 0.0, axis=1)


def _share(count: int, faces: int) -> int:
    if count % faces:
        raise UsageError(
            f"sampler.boundary={count} cannot be shared by {faces} faces: "
            f"expected a multiple of {faces}, such as {max(faces, count // faces * faces)}"
        )
    return count // faces


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
