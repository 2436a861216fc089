"""The base class of schedules of the learning rate."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pde_train.errors import UsageError


@dataclass(frozen=True)
class LearningRate(ABC):
    """Factors of the learning rate.

    Attributes:
        warm_up: The number of steps over which the factor rises linearly, from 1 / warm_up at the first one.

    Raises:
        UsageError: It is negative.
    """

    warm_up: int = 0

    def __post_init__(self) -> None:
        if self.warm_up < 0:
            raise UsageError(f"schedule.warm_up={self.warm_up} is no number of steps: expected 0 or a positive integer")

    @property
    def constant(self) -> bool:
        """Whether the factor is 1 at every step."""
        return False

    @abstractmethod
    def decay(self, steps: Tensor, total: int, losses: Sequence[float]) -> Tensor:
        """The factors without warm-up.

        Args:
            steps: Steps (k,) that were taken before each of the next k ones, in float64.
            total: The number of steps of the run.
            losses: The losses that were measured so far, the oldest first.

        Returns:
            The factors (k,).
        """

    def factors(self, first: int, count: int, total: int, losses: Sequence[float]) -> Tensor:
        """The factors (count,) of the steps from `first` on, see `decay`."""
        steps = torch.arange(first, first + count, dtype=torch.float64)
        factors = self.decay(steps, total, losses)
        return factors * ((steps + 1) / self.warm_up).clamp(max=1.0) if self.warm_up else factors


def check_part(name: str, value: float, least_is_allowed: bool = True) -> None:
    """Refuse a factor that is no part of 1.

    Args:
        name: The key of the configuration.
        value: Its value.
        least_is_allowed: Whether 0 is one.

    Raises:
        UsageError: It is none.
    """
    if not (0 <= value <= 1 and (value > 0 or least_is_allowed)):
        raise UsageError(f"{name}={value} is no part of the learning rate: expected a number of 0 to 1, such as 0.5")
