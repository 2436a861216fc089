"""A learning rate that falls where the loss does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pde_train.errors import UsageError
from pde_train.schedules.base import LearningRate, check_part


@dataclass(frozen=True)
class Plateau(LearningRate):
    """The factor is multiplied by `rate` where the least loss has not fallen over `patience` measurements.

    A loss counts as lower where it is below (1 - progress) times the least one before, as in
    torch.optim.lr_scheduler.ReduceLROnPlateau. The loss is measured every `method.log_every` steps.

    Attributes:
        rate: By what the factor is multiplied.
        patience: The number of measurements without a lower loss that are waited for.
        progress: The part by which a loss must be lower.
        least: The least factor.

    Raises:
        UsageError: A number is out of range.
    """

    rate: float = 0.5
    patience: int = 10
    progress: float = 1e-4
    least: float = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("rate", "progress", "least"):
            check_part(f"schedule.{name}", getattr(self, name), least_is_allowed=name != "rate")
        if self.patience < 1:
            raise UsageError(
                f"schedule.patience={self.patience} is no number of measurements: expected a positive integer"
            )

    def decay(self, steps: Tensor, total: int, losses: Sequence[float]) -> Tensor:
        factor, best, waited = 1.0, float("inf"), 0
        for loss in losses:
            better = loss < (1 - self.progress) * best
            best, waited = (loss, 0) if better else (best, waited + 1)
            if waited > self.patience:
                factor, waited = max(self.rate * factor, self.least), 0
        return torch.full_like(steps, factor)
