"""When training ends before its last step."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pde_train.errors import UsageError, sentence


@dataclass(frozen=True)
class Stop:
    """Reasons to end a run early, judged every `method.log_every` steps; the first that holds ends it.

    Attributes:
        seconds: The time that steps may take, compilation included. Start-up, measurements and what a run keeps at its
            end do not count, so a cluster's limit must leave room for them.
        residual: The relative residual on held-out points that is small enough.
        patience: The number of steps over which the loss must fall.
        progress: The part by which it must fall over them.

    With a patience, a run also ends where its loss has not changed at all for so many steps that it never will.

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

    def reason(
        self, seconds: float, residual: float, losses: Sequence[float], unchanged: int | None = None
    ) -> str | None:
        """Why a run ends now; None where it goes on.

        Args:
            seconds: What its steps took so far, compilation included.
            residual: The relative residual on held-out points.
            losses: The loss before every step so far.
            unchanged: The number of equal losses in a row after which it stays the same; None where it may change.

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
        if self.patience is not None and unchanged and len(losses) >= unchanged and len({*losses[-unchanged:]}) == 1:
            return f"no progress: the loss has not changed in {unchanged} steps"
        return None

    def pruned(self, step: int, series: Mapping[str, Mapping[int, float]]) -> str | None:
        """Why a search ends a run that has no reason of its own to end; None where it goes on.

        Args:
            step: At which the run is.
            series: The values of each metric by step.

        Returns:
            The reason in words.
        """
        return None


@dataclass(frozen=True)
class Bounds:
    """What the runs of a search had come to by some steps; a file of the search keeps it.

    Attributes:
        metric: What was measured, of which less is better.
        whose: Whose values these are, in words.
        largest: The values by step, up to which a run goes on.
    """

    metric: str
    whose: str
    largest: Mapping[int, float]

    def write(self, file: Path) -> None:
        """Keep them, as JSON."""
        file.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, file: Path) -> Bounds:
        """Those that a search has kept in a file.

        Args:
            file: The file.

        Returns:
            The bounds.

        Raises:
            UsageError: It holds none.
        """
        try:
            content = json.loads(file.read_text())
            return cls(content["metric"], content["whose"], {int(k): float(v) for k, v in content["largest"].items()})
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise UsageError(
                f"sweep.bounds={file} holds no bounds of a search ({sentence(error)}): expected what "
                "hydra/sweeper=optuna sets itself, leave it out"
            ) from error


@dataclass(frozen=True)
class Bounded(Stop):
    """The reasons of `Stop`, and bounds that prune a run whose best value exceeds them.

    Attributes:
        bounds: Of the search to which the run belongs.
    """

    bounds: Bounds = field(kw_only=True)

    def pruned(self, step: int, series: Mapping[str, Mapping[int, float]]) -> str | None:
        largest, values = self.bounds.largest.get(step), series.get(self.bounds.metric)
        if largest is None or not values or (best := min(values.values())) <= largest:
            return None
        return f"{self.bounds.metric}={best:.3g} at best, and {self.bounds.whose} is {largest:.3g}"
