"""Weights of single points that grow where residuals are large."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pde_train.errors import UsageError
from pde_train.geometry import Batch
from pde_train.problem import Problem
from pde_train.weighting.base import Weighting, Weights, column, plain_residuals


@dataclass(frozen=True)
class SelfAdaptive(Weighting):
    """Gradient ascent of the loss by one number l for each point, whose square is its weight.

    l <- l + rate 2 l r^2 (McClenny, Braga-Neto, J. Comput. Phys. 474, 2023, equations 6 to 11, with m(l) = l^2).
    The factor 1/n of the mean is left out. Weights grow only, and stay where the residual vanishes.

    Attributes:
        rate: The rate of the ascent.
        largest: The largest weight of a point.

    Raises:
        UsageError: A number is out of range, or the points do not stay.
    """

    rate: float = 1e-3
    largest: float = 1e4

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("rate", "largest"):
            if not getattr(self, name) > 0:
                raise UsageError(f"weighting.{name}={getattr(self, name)} is of no use: expected a positive number")

    def check(self, problem: Problem, redrawn: bool) -> None:
        if redrawn:
            raise UsageError(
                "weighting=self_adaptive has a weight for each point, and sampler.resample_every or method.redraw "
                "draws other points: expected points that stay, choose sampler.resample_every=0 and method.redraw=null"
            )

    def update(self, problem: Problem, batch: Batch, weights: Weights) -> Weights:
        with torch.no_grad():
            updated = {}
            for name, residual in plain_residuals(problem, batch).items():
                number = column(problem, batch, weights[name], name).sqrt()
                number = number * (1 + 2 * self.rate * residual.square().sum(dim=1, keepdim=True))
                updated[name] = number.square().clamp(max=self.largest)
            return updated
