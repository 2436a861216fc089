"""Independent uniform points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pde_train.geometry import Box
from pde_train.samplers.base import Sampler, number


@dataclass(frozen=True)
class Uniform(Sampler):
    """Independent points, uniform in the box."""

    def fill(self, box: Box, count: int | Sequence[int], generator: np.random.Generator) -> np.ndarray:
        return box.place(generator.random((number(count), box.dimension)))
