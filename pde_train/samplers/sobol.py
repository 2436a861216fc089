"""Scrambled Sobol points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pde_train.geometry import Box
from pde_train.samplers.base import Sampler, fresh, number


@dataclass(frozen=True)
class Sobol(Sampler):
    """The first n points of an Owen-scrambled Sobol sequence; balanced where n is a power of 2 (scipy.stats.qmc)."""

    def fill(self, box: Box, count: int | Sequence[int], generator: np.random.Generator) -> np.ndarray:
        from scipy.stats import qmc  # takes as long to load as all other scipy, and most runs do without

        n = number(count)
        sequence = qmc.Sobol(box.dimension, rng=fresh(generator)).random_base2((n - 1).bit_length())
        return box.place(sequence[:n])
