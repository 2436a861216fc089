"""When training ends before its last step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pde_train.errors import UsageError


@dataclass(frozen=True)
class Stop:
    """Reasons to end a run early, judged every `method.log_every` steps; the first that holds ends it.

    Attributes:
        seconds: The time that steps may take, compilation included. Start-up, measurements and what a run keeps at its
            end do not count, so a cluster's limit must leave room for them.
        residual: The relative residual on held-out points that is small enough.
        patience: The number of steps over which the loss must fall.
        progress: The part by which it must fall over them.

    Raises:
        UsageError: A number is not positive.
    """

    seconds: float | None = None
    residual: float | None = None
    patience: int | None = None
    progress: float = 0.01

    def __post_init__(self) -> None:
        for name in ("seconds", "residual", "patience", "progress"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise UsageError(f"stop.{name}={value} ends no run: expected a positive number, or null for never")
        if not self.progress < 1:
            raise UsageError(f"stop.progress={self.progress} is no part of the loss: expected less than 1")

    def reason(self, seconds: float, residual: float, losses: Sequence[float]) -> str | None:
        """Why a run ends now; None where it goes on.

        Args:
            seconds: What its steps took so far, compilation included.
            residual: The relative residual on held-out points.
            losses: The loss before every step so far.

        Returns:
            The reason in words.
        """
        if self.seconds is not None and seconds >= self.seconds:
            return f"time: stop.seconds={self.seconds:g}"
        if self.residual is not None and residual <= self.residual:
            return f"tolerance: stop.residual={self.residual:g}"
        if self.patience is not None and len(losses) > self.patience:
            before = min(losses[: -self.patience])
            if min(losses) > (1 - self.progress) * before:
                return f"no progress: less than stop.progress={self.progress:g} in stop.patience={self.patience} steps"
        return None
