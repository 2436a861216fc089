"""Latin hypercube points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pde_train.geometry import Box
from pde_train.samplers.base import Sampler, fresh, number


@dataclass(frozen=True)
class LatinHypercube(Sampler):
    """A Latin hypercube: n points with one in each of n equal slices along every coordinate (scipy.stats.qmc)."""

    def fill(self, box: Box, count: int | Sequence[int], generator: np.random.Generator) -> np.ndarray:
        from scipy.stats import qmc  # takes as long to load as all other scipy, and most runs do without

        return box.place(qmc.LatinHypercube(box.dimension, rng=fresh(generator)).random(number(count)))
