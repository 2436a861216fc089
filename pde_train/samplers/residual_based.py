"""Points that follow the residual."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pde_train.errors import RunError, UsageError
from pde_train.geometry import Box, Domain
from pde_train.memory import check_memory
from pde_train.samplers.base import Sampler, Sizes, number


@dataclass(frozen=True)
class ResidualBased(Sampler):
    """Residual-based adaptive distribution (RAD): interior points drawn where the residual r is large.

    The first points are uniform, and so are those of all other regions. Whenever `resample_every` steps
    have passed, uniform candidates are drawn, and points are chosen among them without replacement,
    with probabilities proportional to |r|^k / mean(|r|^k) + c (see `density`). Source: Wu, Zhu, Tan,
    Kartha and Lu, Comput. Methods Appl. Mech. Eng. 403 (2023), arXiv 2207.10289, equation 2.

    Attributes:
        candidates: The number of candidates of each draw.
        k: The power of the residual; 0 for uniform points.
        c: The share of uniform points.

    Raises:
        UsageError: There are fewer candidates than points, or k or c is negative.
    """

    candidates: int = 10000
    k: float = 1.0
    c: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.candidates < self.total:
            raise UsageError(
                f"sampler.candidates={self.candidates} are fewer than the {self.total} points that are chosen among "
                "them: expected several times as many, choose more"
            )
        check_memory("sampler.candidates", self.candidates)
        for name in ("k", "c"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"sampler.{name}={getattr(self, name)} is negative: expected a number >= 0, such as 1")

    def fill(self, box: Box, count: int | Sequence[int], generator: np.random.Generator) -> np.ndarray:
        return box.place(generator.random((number(count), box.dimension)))

    def adapted(self, domain: Domain, generator: np.random.Generator, sizes: Sizes) -> np.ndarray:
        candidates = self.inside(domain, self.candidates, generator)
        p = density(sizes(candidates), self.k, self.c)
        points: np.ndarray = candidates[generator.choice(len(p), self.total, replace=False, p=p)]
        return points


def density(sizes: np.ndarray, k: float, c: float) -> np.ndarray:
    """The probabilities of candidates, proportional to |r|^k / mean(|r|^k) + c.

    Where c = 0, it is the machine epsilon in its place, so that there are always enough candidates.

    Args:
        sizes: The size |r| (n,) of the residual at the candidates.
        k: The power of the residual.
        c: The share of uniform points.

    Returns:
        The probabilities (n,), whose sum is 1.

    Raises:
        RunError: A residual is not finite.
    """
    if not np.isfinite(sizes).all():
        raise RunError(
            "the residual became nan or infinite at points that sampler=residual_based looked at: expected finite "
            "numbers, choose a smaller optimizer.lr"
        )
    largest = sizes.max()
    weights = (sizes / largest) ** k if largest > 0 else np.ones_like(sizes)  # which overflows for no k
    weights = weights / weights.mean() + max(c, float(np.finfo(sizes.dtype).eps))
    probabilities: np.ndarray = weights / weights.sum()
    return probabilities
