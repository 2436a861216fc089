"""Unbiased estimates of lap u and lap lap u from a few random directions, for many dimensions."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor

from pde_train.derivatives import TIME, Axes, Field, Jet, Request, coordinate_columns
from pde_train.differentiators.base import Differentiator
from pde_train.differentiators.directions import Combination, combination
from pde_train.differentiators.taylor import Plan, Taylor, push
from pde_train.errors import UsageError

KINDS = ("random", "sparse")


@dataclass(frozen=True)
class Stochastic(Differentiator):
    """Taylor mode along random directions, which are drawn at each evaluation and are the same for all points.

    There are two kinds of directions:

    - `random`: lap u is the mean of D_v^2 u over v with entries +-1 (Hutchinson, Commun. Stat. 19,
      1990). bih u is d (d + 2) / 3 times the mean of D_v^4 u over unit vectors v, because the mean
      of (v . s)^4 is 3 |s|^4 / (d (d + 2)).
    - `sparse`: lap u is estimated from some of the coordinates without repetition, bih u from pairs
      (i, j) of coordinates, d^2 u_iijj each (STDE, Shi et al., NeurIPS 2024). With probes >= d, lap
      u is exact.

    The estimates are unbiased. The mean square of a residual that contains them, and so the loss,
    is too large by their variance. All other derivatives are exact. Directions come from torch's
    own generator.

    Attributes:
        probes: The number of directions.
        kind: `random` or `sparse`.
    """

    probes: int = 16
    kind: str = "random"

    exact = False
    deterministic = False
    compilable = False  # the directions change from step to step

    def __post_init__(self) -> None:
        if not isinstance(self.probes, int) or self.probes < 1:
            raise UsageError(f"differentiator.probes={self.probes} leaves no direction: expected a positive number")
        if self.kind not in KINDS:
            raise UsageError(f"differentiator.kind={self.kind} is unknown: expected one of {', '.join(KINDS)}")

    def partials(self, u: Field, x: Tensor, axes: frozenset[Axes]) -> dict[Axes, Tensor]:
        return Taylor().partials(u, x, axes)

    def __call__(self, u: Field, x: Tensor, request: Request) -> Jet:
        dimension = len(request.coordinates)
        space = [i for i, c in enumerate(request.coordinates) if c != TIME]
        estimates = {"lap_u": (2, self.laplacian), "bih_u": (4, self.bilaplacian)}
        wanted: dict[str, tuple[int, Combination]] = {}
        for name in request.names:
            if name in estimates:
                order, estimate = estimates[name]
                wanted[name] = order, estimate(space, dimension)
            else:
                ((axes, _),) = Request(frozenset([name]), request.coordinates).terms[name].items()
                wanted[name] = len(axes), combination({axes: 1.0}, dimension)
        columns = coordinate_columns(x, request.coordinates)
        return Jet(columns | push(u, x, Plan.of(wanted)))

    def laplacian(self, space: list[int], dimension: int) -> Combination:
        """Draw the directions and weights of an estimate of lap u.

        Args:
            space: The indices of the spatial coordinates.
            dimension: The number of all coordinates.

        Returns:
            The weights of second derivatives along directions.
        """
        d = len(space)
        if self.kind == "sparse":
            chosen = torch.randperm(d)[: self.probes].tolist()
            return {_vector({space[i]: 1.0}, dimension): d / len(chosen) for i in chosen}
        signs = torch.randint(0, 2, (self.probes, d)).mul(2).sub(1).tolist()
        return _mean([(dict(zip(space, v, strict=True)), 1.0) for v in signs], dimension)

    def bilaplacian(self, space: list[int], dimension: int) -> Combination:
        """The same for lap lap u and fourth derivatives."""
        d = len(space)
        if self.kind == "random":
            unit = torch.nn.functional.normalize(torch.randn(self.probes, d, dtype=torch.float64), dim=1).tolist()
            return _mean([(dict(zip(space, v, strict=True)), d * (d + 2) / 3) for v in unit], dimension)
        total: Combination = defaultdict(float)
        for i, j in torch.randint(0, d, (self.probes, 2)).tolist():
            axes = tuple(sorted((space[i], space[i], space[j], space[j])))
            for direction, weight in combination({axes: d * d / self.probes}, dimension).items():
                total[direction] += weight
        return dict(total)


def _mean(weighted: list[tuple[dict[int, float], float]], dimension: int) -> Combination:
    """The mean of derivatives along vectors, each times its weight; vectors may repeat."""
    total: Combination = defaultdict(float)
    for entries, weight in weighted:
        total[_vector(entries, dimension)] += weight / len(weighted)
    return dict(total)


def _vector(entries: dict[int, float], dimension: int) -> tuple[float, ...]:
    return tuple(float(entries.get(i, 0.0)) for i in range(dimension))
