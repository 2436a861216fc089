"""Linear decay of the learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from pde_train.schedules.base import LearningRate, check_part


@dataclass(frozen=True)
class Linear(LearningRate):
    """A straight line from 1 to `final` over the run.

    Attributes:
        final: The factor at the end.

    Raises:
        UsageError: It is not between 0 and 1.
    """

    final: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_part("schedule.final", self.final)

    def decay(self, steps: Tensor, total: int, losses: Sequence[float]) -> Tensor:
        return 1 - (1 - self.final) * steps / total
