"""Exponential decay of the learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from pde_train.errors import UsageError
from pde_train.schedules.base import LearningRate, check_part


@dataclass(frozen=True)
class Exponential(LearningRate):
    """The factor rate^(step / every), which falls at every step.

    Attributes:
        rate: The factor after `every` steps.
        every: The number of steps.

    Raises:
        UsageError: A number is out of range.
    """

    rate: float = 0.9
    every: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        check_part("schedule.rate", self.rate, least_is_allowed=False)
        if self.every < 1:
            raise UsageError(f"schedule.every={self.every} is no number of steps: expected a positive integer")

    def decay(self, steps: Tensor, total: int, losses: Sequence[float]) -> Tensor:
        return self.rate ** (steps / self.every)
