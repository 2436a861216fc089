"""A learning rate that stays, after a warm-up where one is wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pde_train.schedules.base import LearningRate


@dataclass(frozen=True)
class Constant(LearningRate):
    """The factor 1."""

    @property
    def constant(self) -> bool:
        """Whether there is no warm-up."""
        return self.warm_up == 0

    def decay(self, steps: Tensor, total: int, losses: Sequence[float]) -> Tensor:
        return torch.ones_like(steps)
