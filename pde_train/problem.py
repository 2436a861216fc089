"""What is to be solved: an equation, a model, a way of taking derivatives and the points."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from pde_train import residuals
from pde_train.derivatives import Axes, Field, Jet, coordinate_columns
from pde_train.differentiators.base import Differentiator
from pde_train.differentiators.reverse import Reverse
from pde_train.differentiators.taylor import Taylor
from pde_train.errors import UsageError
from pde_train.geometry import Batch
from pde_train.memory import check_memory
from pde_train.pdes.base import PDE
from pde_train.samplers.base import Sampler
from pde_train.samplers.grid import Grid
from pde_train.samplers.sobol import Sobol
from pde_train.samplers.uniform import Uniform
from pde_train.spectra import ResidualJacobian

TEST_POINTS: dict[int, Sampler] = {1: Grid(1001, 2), 2: Grid(101**2, 404, initial=101)}
"""Points on which errors are measured, by dimension."""

MANY_DIMENSIONS = Sobol(4096, 960, initial=960)
"""The same from three dimensions on; up to 6 faces share 960 points."""

BETWEEN = 2405
"""Seed of the points between those of training, so that it is that of no sampler."""

ADAPT_POINTS = 200
"""About how many points a differentiator sees that adapts itself to a field."""

MOST_COORDINATES = 2**16
"""Coordinates of all points of a region, together, at which exact residuals are measured."""


@dataclass
class Problem:
    """A PDE, the model of its solution, the differentiator and the sampler, in one precision on one device.

    processes: those that share the training points; on GPUs each has its own.
    """

    pde: PDE
    model: nn.Module
    differentiator: Differentiator
    sampler: Sampler
    dtype: torch.dtype = torch.float64
    device: str = "cpu"
    processes: int = 1
    excess: float = field(default=1.0, init=False)
    """How many times worse a step of finite differences that is automatic is than the best one, before training."""
    _row_wise: bool | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        points = self.sampler.total + self.sampler.boundary + self.sampler.initial
        check_memory("sampler", points * self.pde.domain.dimension)
        if self.processes > self.sampler.total:
            raise UsageError(
                f"accelerator.processes={self.processes} cannot share the {self.sampler.total} points of the interior: "
                f"expected at most {self.sampler.total}, choose fewer"
            )

    def begin(self, batch: Batch, u: Field | None = None) -> None:
        """Get ready for the first step on these points: the differentiator adapts itself, and every value is checked.

        u: what it adapts itself to; by default `field`. Raises UsageError: see `residuals.check`; also for regions
        without points, and for an exact solution that is no finite number at a test point.
        """
        if missing := set(self.pde.regions) - set(batch):
            raise UsageError(
                f"{type(self.sampler).__name__} draws no points of {', '.join(sorted(missing))}, where equations of "
                f"{type(self.pde).__name__} hold: expected points of every region, correct its `draw`"
            )
        self.adapt(u or self.field, batch)
        self.excess = self.differentiator.excess(u or self.field, *self._adapting(batch))
        with steady_draws():
            residuals.check(self.pde, self.model, self.differentiator, batch)
        if self.pde.has_exact:
            x = self.test_batch["interior"].x
            residuals.check_column("the exact solution", lambda: self.exact(x), x, "correct `exact` or leave it out")

    def draw(self, generator: np.random.Generator) -> Batch:
        """Training points from the sampler."""
        return self._placed(self.sampler.draw(self.pde.domain, generator, self.pde.faces))

    def between(self) -> Batch:
        """As many points of each region as the sampler draws, at random: between its own, whatever grid they form.

        A sampler with a `draw` of its own, which knows where the equation holds, draws them itself.
        """
        sampler: Sampler = self.sampler
        if not sampler.places_points:
            sampler = Uniform(sampler.total, sampler.boundary, initial=sampler.initial)
        return self._placed(sampler.draw(self.pde.domain, np.random.default_rng(BETWEEN), self.pde.faces))

    @cached_property
    def test_batch(self) -> Batch:
        """The points on which errors and exact residuals are measured: 1001, 101 x 101, or 4096 Sobol points.

        Of a sampler with a `draw` of its own those of `between`: only it knows where the equation holds.
        """
        if self.sampler.places_points:
            return self.between()
        sampler = TEST_POINTS.get(self.pde.domain.dimension, MANY_DIMENSIONS)
        return self._placed(sampler.draw(self.pde.domain, np.random.default_rng(0), self.pde.faces))

    def exact(self, x: Tensor) -> Tensor:
        """The exact solution (n, 1) at points (n, d), in float64 whatever the precision of the points."""
        return self.pde.exact(Jet(coordinate_columns(x.double(), self.pde.coordinates)))

    @cached_property
    def _exact_on_test_points(self) -> Tensor:
        return self.exact(self.test_batch["interior"].x)

    def loss(self, batch: Batch, rows: Mapping[str, int] | None = None, u: Field | None = None) -> Tensor:
        """The loss of the model, or of a field u, on a batch, a scalar.

        rows: points of each region, where the batch holds some of them: the part that they have in the loss.
        """
        found = residuals.evaluate(self.pde, self.model if u is None else u, self.differentiator, batch)
        return residuals.loss(found, rows and {e.name: rows[e.region] for e in self.pde.equations()})

    def residual_vector(self, u: Field, batch: Batch, rows: str = "loss") -> Tensor:
        """All weighted residuals of a field under each other, (rows, 1), with rows as in `jacobian`."""
        found = residuals.evaluate(self.pde, u, self.differentiator, batch)
        if rows == "loss":
            found = {name: r / len(r) ** 0.5 for name, r in found.items()}
        return residuals.stacked(found)

    def jacobian(self, batch: Batch, rows: str = "loss") -> ResidualJacobian:
        """The Jacobian J of the weighted residuals on a batch by the trainable parameters.

        rows: `loss` scales the n_e rows of equation e by 1 / sqrt(n_e), so that the sum of squares of all rows is the
        loss (a sum of means) and J J^T the kernel of its gradient flow; `points` leaves each row as its residual.
        """
        by_points = None
        if self._row_wise is None:
            self._row_wise = residuals.row_wise(self.pde, self.model, batch)
        if self._row_wise:

            def by_points(parameters: dict[str, Tensor]) -> Tensor:
                found = residuals.jacobian_by_points(self.pde, self.model, parameters, self.differentiator, batch)
                if rows == "loss":
                    found = {name: block / len(block) ** 0.5 for name, block in found.items()}
                return residuals.stacked(found)

        return ResidualJacobian(self.model, lambda u: self.residual_vector(u, batch, rows), by_points)

    @property
    def field(self) -> Field:
        """The model, or all its features (n, m) where it is linear in its parameters."""
        return getattr(self.model, "bank", self.model)

    def adapt(self, u: Field, batch: Batch) -> None:
        """Let the differentiator choose what it chooses by itself, such as a step, for the field u as it is now."""
        if self.differentiator.adaptive:
            self.differentiator = self.differentiator.adapted(u, *self._adapting(batch))

    def _adapting(self, batch: Batch) -> tuple[Tensor, frozenset[Axes]]:
        """Some of the interior points, and all derivatives that are needed: what a differentiator adapts itself to."""
        points = batch["interior"].x
        axes = frozenset().union(*(request.axes for _, request in self.pde.regions.values()))
        return points[:: max(1, len(points) // ADAPT_POINTS)], axes

    def errors(self) -> dict[str, float]:
        """error_l2 = |u - u*|_2 / |u*|_2 and error_max = max|u - u*| / max|u*| on the test points, in float64.

        Where u* is 0 at all of them: the root mean square and the maximum of |u|. Nothing where u* is not known.
        """
        if not self.pde.has_exact:
            return {}
        x = self.test_batch["interior"].x
        exact = self._exact_on_test_points
        with torch.no_grad():
            difference = self.model(x).double() - exact
        size, largest = float(torch.linalg.vector_norm(exact)), float(exact.abs().max())
        return {
            "error_l2": float(torch.linalg.vector_norm(difference)) / (size or len(x) ** 0.5),
            "error_max": float(difference.abs().max()) / (largest or 1.0),
        }

    def residual(self, batch: Batch) -> float:
        """The relative residual of the model on the training points, as the run's own differentiator sees it."""
        with torch.no_grad():
            return residuals.relative_residual(self.pde, self.model, self.differentiator, batch)

    def residual_exact(self, batch: Batch | None = None) -> float:
        """The relative residual of the same function with exact derivatives, on the test points or those of a batch.

        In many dimensions on the first of them, and by Taylor mode: nested reverse mode takes a minute at d = 1000.
        """
        most = MOST_COORDINATES // self.pde.domain.dimension
        batch = {region: points.rows(0, most) for region, points in (batch or self.test_batch).items()}
        with torch.no_grad():
            exact = Reverse() if self.pde.domain.dimension <= 3 else Taylor()
            return residuals.relative_residual(self.pde, self.model, exact, batch)

    def _placed(self, batch: Batch) -> Batch:
        return {region: points.to(dtype=self.dtype, device=self.device) for region, points in batch.items()}


def fitted(differentiator: Differentiator, pde: PDE, sampler: Sampler) -> Differentiator:
    """The differentiator for the points that a sampler draws in the domain of a PDE."""
    box = pde.domain
    magnitude = max(map(abs, (*box.lower, *box.upper)))
    return differentiator.fitted(sampler.spacing(box), float(magnitude), float(min(box.lengths)))


@contextmanager
def steady_draws() -> Iterator[None]:
    """Inside, torch's generator (on the CPU) starts afresh from one seed; afterwards it is as it was.

    For looks at a run whose differentiator draws directions: two looks see the same ones, and the run its own.
    """
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(0)
    try:
        yield
    finally:
        torch.set_rng_state(state)
