"""Cosine decay of the learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import pi

from torch import Tensor

from pde_train.schedules.base import LearningRate, check_part


@dataclass(frozen=True)
class Cosine(LearningRate):
    """Half a wave of a cosine from 1 to `final` over the run (Loshchilov and Hutter, ICLR 2017, equation 5).

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
        return self.final + (1 - self.final) * (1 + (pi * steps / total).cos()) / 2
