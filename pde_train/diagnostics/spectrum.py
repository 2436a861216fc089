"""Singular values through training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pde_train.diagnostics.base import Diagnostics
from pde_train.errors import UsageError
from pde_train.geometry import Batch
from pde_train.problem import Problem
from pde_train.spectra import ResidualJacobian, Spectrum


@dataclass(frozen=True)
class SpectrumProbe(Diagnostics):
    """The spectrum of the system matrix (random features) or of the residual Jacobian (networks).

    when: of `first` (before training), `last` (after it), `log` (steps 1, 3, 10, 30, ...) and numbers of steps.
    max_dense: entries of the largest Jacobian taken dense; above it an adaptive randomised SVD, which the run says.
    """

    when: Sequence[str | int] = ("first", "log", "last")
    max_dense: int = 16_000_000

    def __post_init__(self) -> None:
        expected = "expected first, log, last or steps, as in [first,100,last]"
        if not isinstance(self.when, (list, tuple)):
            raise UsageError(f"diagnostics.when={self.when} is no list: {expected}")
        for word in self.when:
            if not (word in ("first", "log", "last") or (isinstance(word, int) and word >= 0)):
                raise UsageError(f"diagnostics.when has {word!r}: {expected}")

    def steps(self, total: int) -> frozenset[int]:
        decades = (m * 10**k for k in range(len(str(total))) for m in (1, 3))
        words = {"first": [0], "last": [total], "log": list(decades)}
        wanted = {step for word in self.when for step in (words[word] if isinstance(word, str) else [word])}
        return frozenset(step for step in wanted if step <= total)

    def spectrum(self, problem: Problem, batch: Batch) -> Spectrum:
        jacobian = ResidualJacobian(problem.model, lambda u: problem.residual_vector(u, batch))
        return jacobian.spectrum(self.max_dense)
