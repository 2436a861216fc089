"""What every diagnostic offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from pde_train.errors import UsageError
from pde_train.geometry import Batch
from pde_train.problem import Problem
from pde_train.tracking.record import Record


class Diagnostics(ABC):
    """Looks at a run's model at some optimiser steps, beyond its loss and error."""

    when: Sequence[str | int] = ()

    def check_steps(self, total: int) -> None:
        """Refuse steps after the last one of a run, at which nothing would be measured.

        A method that takes no steps measures once, at 0, whatever steps are named beside a word that
        means it.

        Args:
            total: Optimiser steps of the run.

        Raises:
            UsageError: There is such a step.
        """
        late = [step for step in self.when if isinstance(step, int) and step > total]
        if late and (total or not self.steps(total)):
            raise UsageError(
                f"diagnostics.when has the step {late[0]}, and the run has {total} steps: expected steps of the run, "
                "or first, log and last"
            )

    @abstractmethod
    def steps(self, total: int) -> frozenset[int]:
        """The steps, of 0 (before training) ... total (after it), at which to measure."""

    @abstractmethod
    def measure(self, problem: Problem, batch: Batch, step: int, record: Record, matrix: Tensor | None = None) -> None:
        """Measure the model with its present parameters at the training points, and tell the record.

        Args:
            problem: With the model.
            batch: The training points.
            step: Optimiser steps that were taken.
            record: Takes what is measured.
            matrix: The system matrix of these points, where the method has made it.
        """


def check_when(when: object) -> None:
    """Refuse anything but a list of `first`, `last`, `log` and steps."""
    expected = "expected first, log, last or steps, as in [first,100,last]"
    if not isinstance(when, (list, tuple)):
        raise UsageError(f"diagnostics.when={when} is no list: {expected}")
    for word in when:
        if not (word in ("first", "log", "last") or (type(word) is int and word >= 0)):
            raise UsageError(f"diagnostics.when has {word!r}: {expected}")


def check_max_dense(entries: int) -> None:
    """Refuse a bound below which no matrix is dense."""
    if entries < 1:
        raise UsageError(f"diagnostics.max_dense={entries} is no number of entries: expected a positive integer")


ROWS = ("loss", "points")
"""How the rows of a residual Jacobian are scaled, see `Problem.jacobian`."""


def check_rows(rows: str) -> None:
    """Refuse another scaling of rows."""
    if rows not in ROWS:
        raise UsageError(f"diagnostics.rows={rows} is unknown: expected one of {', '.join(ROWS)}, choose one")


def steps_of(when: Sequence[str | int], total: int) -> frozenset[int]:
    """The steps of 0 ... total that a list of words and numbers means; `log` is 1, 3, 10, 30, ..."""
    decades = (m * 10**k for k in range(len(str(total))) for m in (1, 3))
    words = {"first": [0], "last": [total], "log": list(decades)}
    wanted = {step for word in when for step in (words[word] if isinstance(word, str) else [word])}
    return frozenset(step for step in wanted if step <= total)
