"""The base class of samplers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pde_train.errors import UsageError
from pde_train.geometry import Batch, Box, Domain, Face, Part, Points

MOST_SHARED = 6
"""The largest number of faces that share their points equally; with more faces, each point is drawn on a random face.

A box in three dimensions has that many.
"""

STREAM = 2
"""Distinguishes the generators of mini-batches from others of the same seed."""

Sizes = Callable[[np.ndarray], np.ndarray]
"""The size (n,) of the residual at points (n, d)."""


@dataclass(frozen=True)
class Sampler(ABC):
    """Draws points in a domain and on its boundary, from a generator that the caller owns.

    A subclass implements `fill`, which draws points in a box of any dimension. Those of another domain are what
    lies in it of points in the box around it. A sampler may also have a
    `draw` of its own, for equations that hold in a part of the box alone, and an `adapted`, for points
    that follow the residual.

    Attributes:
        interior: The number of points in the interior.
        boundary: The number of points on every other region: the same number on each face, or on
            random faces where the region has more than MOST_SHARED. An end of an interval is one
            point.
        seed: The seed of the run's training points.
        resample_every: The number of optimiser steps between two draws; 0 to draw once.
        initial: The number of points at the initial time of an equation that has one.
        batch_size: The number of interior points that an optimiser step sees, drawn at random for each
            step; 0 for all of them. Points of other regions are always all there.

    Raises:
        UsageError: A number of points is not positive, `resample_every` is negative or asks for other points of a
            sampler that repeats itself, or `batch_size` is no number between 0 and that of the interior points.
    """

    interior: int | Sequence[int]
    boundary: int
    seed: int = 0
    resample_every: int = 0
    initial: int = 80
    batch_size: int = 0

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
        if self.resample_every and self.repeats_itself:
            raise UsageError(
                f"sampler.resample_every={self.resample_every} asks for other points, and {type(self).__name__} has "
                "the same ones each time: expected 0, or a sampler that draws, such as sampler=uniform"
            )
        if type(self.batch_size) is not int or not 0 <= self.batch_size <= self.total:
            raise UsageError(
                f"sampler.batch_size={self.batch_size} cannot be drawn from {self.total} points of the interior: "
                "expected at most as many, or 0 for all of them"
            )

    @property
    def places_points(self) -> bool:
        """Whether this sampler has a `draw` of its own, so that the equation may hold in a part of the box alone."""
        return type(self).draw is not Sampler.draw

    @property
    def repeats_itself(self) -> bool:
        """Whether `fill` gives the same points each time."""
        return False

    @property
    def adapts(self) -> bool:
        """Whether points that are drawn in the place of others follow the residual."""
        return type(self).adapted is not Sampler.adapted

    @abstractmethod
    def fill(self, box: Box, count: int | Sequence[int], generator: np.random.Generator) -> np.ndarray:
        """Draw points in a box of d >= 1 dimensions.

        Args:
            box: The box.
            count: The number n of points; a sampler of grids also takes one number for each axis.
            generator: The source of all randomness.

        Returns:
            The points (n, d), in float64.
        """

    def spacing(self, box: Domain) -> tuple[float, ...]:
        """The distance between points along each coordinate if they formed a grid in the box around the domain."""
        per_axis = self.total ** (1 / box.dimension)
        return tuple(float(length) / max(per_axis - 1, 1) for length in box.lengths)

    @property
    def total(self) -> int:
        """The number of points in the interior."""
        return int(np.prod(self.interior))

    def draw(
        self,
        domain: Domain,
        generator: np.random.Generator,
        regions: Mapping[str, Sequence[Face] | Sequence[Part]] | None = None,
    ) -> Batch:
        """Draw the points of the interior and of other regions.

        Args:
            domain: The domain.
            generator: The source of all randomness.
            regions: The faces of each region of a box, or the pieces of the boundary of another domain; by
                default all faces of the box, as `boundary`.

        Returns:
            The points of each region in float64. Those on faces have outward normals, and those of
            the region `periodic` also the opposite points.

        Raises:
            UsageError: A region has no points, or no equal number of points on each face.
        """
        batch = {"interior": Points(torch.from_numpy(self.inside(domain, self.interior, generator)))}
        if regions is None:
            regions = {"boundary": domain.faces()} if isinstance(domain, Box) else {}
        for region, pieces in regions.items():
            count = self.initial if region == "initial" else self.boundary
            if isinstance(domain, Box):
                faces = [piece for piece in pieces if not isinstance(piece, Part)]
                x, normals = self._on(domain, faces, count, generator)
            else:
                parts = [piece for piece in pieces if isinstance(piece, Part)]
                x, normals = self._on_parts(region, parts, count, generator)
            across = None
            if region == "periodic":
                across = torch.from_numpy(np.where(normals < 0, domain.upper, x))
            batch[region] = Points(torch.from_numpy(x), torch.from_numpy(normals), across)
        return batch

    def inside(self, domain: Domain, count: int | Sequence[int], generator: np.random.Generator) -> np.ndarray:
        """Draw points in a domain.

        Args:
            domain: The domain.
            count: The number n of points.
            generator: The source of all randomness.

        Returns:
            The points (n, d); of a grid those that lie in the domain.

        Raises:
            UsageError: None lies in it.
        """
        if isinstance(domain, Box):
            return self.fill(domain, count, generator)
        return self._on_part("interior", domain.interior(), count, generator)[0]

    def _on_parts(
        self, region: str, parts: Sequence[Part], count: int, generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw points on pieces of a boundary, as many on each as it has of their length or area, at least one."""
        lengths = {part: part.share() if part.size > 0 else 1.0 for part in parts}
        lengths = {part: length for part, length in lengths.items() if length > 0}
        if not lengths:
            raise UsageError(f"the region {region!r} of the domain has no points: expected some, correct the domain")
        total = sum(lengths.values())
        counts = {part: max(1, int(count * length / total)) for part, length in lengths.items()}
        counts[max(counts, key=lambda part: counts[part])] += max(0, count - sum(counts.values()))
        found = []
        for part, n in counts.items():
            if self.repeats_itself and part.parameters and part.size > 0:
                n = self._on_whole(part, n * part.size / lengths[part], generator)
            found.append(self._on_part(region, part, n, generator))
        return np.concatenate([x for x, _ in found]), np.concatenate([normals for _, normals in found])

    def _on_whole(self, part: Part, count: float, generator: np.random.Generator) -> int:
        """About how many points a grid has on the whole of a piece, of which some belong to it, so that one is left."""
        axes = part.parameters
        root = max(1, round(count ** (1 / axes)))
        while not part.keeps(*part.place(self._parameters(part, root**axes, generator))).any():
            root += 1  # two points are both ends of a curve, of which neither need be left
        return int(root**axes)

    def _parameters(self, part: Part, count: int | Sequence[int], generator: np.random.Generator) -> np.ndarray:
        """Parameters (n, p) of points of a set; of a grid where the set is closed the middles of equal intervals.

        Args:
            part: The set.
            count: The number n of points.
            generator: The source of all randomness.

        Returns:
            The parameters.

        Raises:
            UsageError: A grid was asked for, several points of which would have the same image.
        """
        if self.repeats_itself and not part.one_to_one:
            raise UsageError(
                "a ball of more than three dimensions and its sphere have no grid: expected points off a grid, choose "
                "sampler=sobol or sampler=uniform"
            )
        half = 0.5 / round(float(np.prod(count)) ** (1 / part.parameters)) if self.repeats_itself else 0.0
        ends = [half if axis in part.closed else 0.0 for axis in range(part.parameters)]
        return self.fill(Box(tuple(ends), tuple(1 - end for end in ends)), count, generator)

    def _on_part(
        self, region: str, part: Part, count: int | Sequence[int], generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw points of a set; a grid gives what it has, and a point is one."""
        if not part.parameters:
            return part.place(np.zeros((1, 0)))
        return part.draw(
            region, int(np.prod(count)), lambda: self._parameters(part, count, generator), once=self.repeats_itself
        )

    def adapted(self, domain: Domain, generator: np.random.Generator, sizes: Sizes) -> np.ndarray:
        """Draw the points of the interior where the residual asks for them, in the place of earlier ones.

        Args:
            domain: The domain.
            generator: The source of all randomness.
            sizes: The size of the residual of the model as it is.

        Returns:
            As many points (n, d) as `draw` has drawn, in float64; here they follow no residual.
        """
        return self.inside(domain, self.interior, generator)

    def mini_batch(self, batch: Batch, step: int) -> Batch:
        """The points that one optimiser step sees.

        The subset is drawn without replacement by a generator of the seed and the step alone, so that
        a resumed run sees the same ones.

        Args:
            batch: All points of each region.
            step: The number of the step.

        Returns:
            The batch itself, or with `batch_size` points in the interior.
        """
        interior = batch["interior"]
        if not self.batch_size:
            return batch
        generator = np.random.default_rng([self.seed, step, STREAM])
        rows = generator.choice(len(interior.x), min(self.batch_size, len(interior.x)), replace=False)
        return {**batch, "interior": interior.at(torch.from_numpy(rows).to(interior.x.device))}

    def _on(
        self, box: Box, faces: Sequence[Face], count: int, generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw points (n, d) on faces, face by face, with their outward normals (n, d)."""
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
        """Draw points (n, d) on a face perpendicular to `axis`; their coordinate along that axis is left at 0."""
        x = np.zeros((1, 0)) if box.dimension == 1 else self.fill(box.across(axis), count, generator)
        return np.insert(x, axis, 0.0, axis=1)


def _share(count: int, faces: int) -> int:
    """The number of points on each face."""
    if count % faces:
        raise UsageError(
            f"sampler.boundary={count} cannot be shared by {faces} faces: "
            f"expected a multiple of {faces}, such as {max(faces, count // faces * faces)}"
        )
    return count // faces


def number(count: int | Sequence[int]) -> int:
    """The number of points of a sampler that forms no grid.

    Args:
        count: The number from the configuration.

    Returns:
        The same number.

    Raises:
        UsageError: It is a list, one number for each axis.
    """
    if isinstance(count, Sequence):
        raise UsageError(f"sampler.interior={list(count)} is for a grid: expected one number, {np.prod(count)} in all")
    return count


def fresh(generator: np.random.Generator) -> np.random.Generator:
    """A generator that is seeded by a draw from another one.

    scipy.stats.qmc spawns children of the generator that it gets, and counts them outside of that
    generator's state. With a fresh generator for each call, the state of the caller's generator
    determines all points, so a resumed run draws the same ones.

    Args:
        generator: The caller's generator, which advances by one draw.

    Returns:
        The new generator.
    """
    return np.random.default_rng(generator.integers(2**63))
