"""The problem that a run solves: an equation, a model, a differentiator and the points."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pde_train import residual_checks, residuals
from pde_train.derivatives import Axes, Field
from pde_train.differentiators.base import Differentiator
from pde_train.differentiators.reverse import Reverse
from pde_train.differentiators.taylor import Taylor
from pde_train.errors import UsageError
from pde_train.geometry import Batch, Points
from pde_train.memory import check_memory
from pde_train.models.base import LinearForm, linear_form
from pde_train.pdes.base import DATA, PDE
from pde_train.samplers.base import Sampler
from pde_train.samplers.grid import Grid
from pde_train.samplers.sobol import Sobol
from pde_train.samplers.uniform import Uniform
from pde_train.spectra import ResidualJacobian

log = logging.getLogger(__name__)

TEST_POINTS: dict[int, Sampler] = {1: Grid(1001, 2), 2: Grid(101**2, 404, initial=101)}
"""Samplers of the points on which errors are measured, by dimension."""

MANY_DIMENSIONS = Sobol(4096, 960, initial=960)
"""The same from three dimensions on; up to 6 faces share the 960 points of the boundary."""

HELD_OUT = 2405
"""The seed of the held-out points, which no sampler of a user is likely to have."""

HELD_OUT_POINTS = 512
"""The number of held-out points of a region on which the residual is measured during training."""

TUNING_POINTS = 200
"""About how many points a differentiator gets when it is tuned to a field."""

MOST_COORDINATES = 2**16
"""The largest number of coordinates, of all points of a region together, at which exact residuals are measured."""


@dataclass
class Problem:
    """A PDE, the model of its solution, the differentiator and the sampler, in one precision on one device.

    Attributes:
        pde: The equation.
        model: The model of its solution, from points (n, d) to values (n, k) of the k unknowns.
        differentiator: What takes derivatives of the model.
        sampler: What draws the training points.
        dtype: The precision of points and parameters.
        device: The device of points and parameters.
        processes: The number of processes that share the training points; on GPUs each has a GPU of
            its own.
        meetings: Where the other tasks of a SLURM job wait to be these processes; None where they
            are started on this machine.
        excess: By what factor the error of an automatic step of finite differences exceeds that of
            the best step, before training; 1 where it is unknown.
    """

    pde: PDE
    model: nn.Module
    differentiator: Differentiator
    sampler: Sampler
    dtype: torch.dtype = torch.float64
    device: str = "cpu"
    processes: int = 1
    meetings: Path | None = None
    excess: float = field(default=1.0, init=False)
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
        """Prepare the first step on these points: tune the differentiator, and check every value.

        Args:
            batch: The training points of each region.
            u: The field to which the differentiator is tuned; by default `field`.

        Raises:
            UsageError: A region has no points, a value is not one finite number for each point (see
                `residual_checks.check`), or the exact solution is not finite at a test point, or has not the
                columns of the model.
        """
        if missing := set(self.pde.regions) - set(batch):
            raise UsageError(
                f"{type(self.sampler).__name__} draws no points of {', '.join(sorted(missing))}, where equations of "
                f"{type(self.pde).__name__} hold: expected points of every region, correct its `draw`"
            )
        self.tune(u or self.field, batch)
        self.excess = self.differentiator.excess(u or self.field, *self._tuning_data(batch))
        with steady_draws():
            residual_checks.check(self.pde, self.model, self.differentiator, batch)
        if self.pde.has_exact:
            self._check_exact()

    def _check_exact(self) -> None:
        x, remedy = self.test_batch["interior"].x, "correct `exact` or leave it out"
        exact = residual_checks.check_columns("the exact solution", lambda: self.exact_on_test_points, x, remedy)
        known = exact.shape[1]
        with torch.no_grad():
            columns = self.model(x[:1]).shape[1] - len(self.pde.learned)
        if known > columns or known != len(self.pde.unknowns) > 1:
            raise UsageError(
                f"the exact solution has {known} columns and the model {columns}: expected one for each unknown, "
                f"{', '.join(self.pde.unknowns)}, {remedy}"
            )
        if known < columns:
            log.warning("the model has %d columns, and errors are those of the first %d alone", columns, known)

    def draw(self, generator: np.random.Generator) -> Batch:
        """Training points from the sampler, and those with measured values."""
        drawn = self.sampler.draw(self.pde.domain, generator, self.pde.faces)
        return self.placed({**drawn, **self.pde.measured_points()})

    def redraw(self, generator: np.random.Generator) -> Batch:
        """Training points in the place of earlier ones, by a sampler that may follow the residual of the model."""
        batch = self.draw(generator)
        if not self.sampler.adapts or "interior" not in self.pde.regions:
            return batch
        x = self.sampler.adapted(self.pde.domain, generator, self.residual_sizes)
        return {**batch, **self.placed({"interior": Points(torch.from_numpy(x))})}

    def residual_sizes(self, x: np.ndarray) -> np.ndarray:
        """The size (n,) of the model's weighted residual at points (n, d) of the interior, by the differentiator."""
        batch = self.placed({"interior": Points(torch.from_numpy(x))})
        with torch.no_grad(), steady_draws():
            sizes = residuals.sizes(self.pde, self.model, self.differentiator, batch)
        values: np.ndarray = sizes.double().cpu().numpy()
        return values

    def held_out(self) -> Batch:
        """Held-out points: as many in each region as the sampler draws, but random and from another seed.

        They lie between the training points, whatever grid those form. A sampler with a `draw` of
        its own, which knows where the equation holds, draws them itself.

        Returns:
            The points of each region.
        """
        sampler: Sampler = self.sampler
        if not sampler.places_points:
            sampler = Uniform(sampler.total, sampler.boundary, initial=sampler.initial)
        return self.placed(sampler.draw(self.pde.domain, np.random.default_rng(HELD_OUT), self.pde.faces))

    @cached_property
    def test_batch(self) -> Batch:
        """The points on which errors and exact residuals are measured: 1001, 101 x 101, or 4096 Sobol points.

        With a sampler that has a `draw` of its own they are the held-out points, because the
        sampler alone knows where the equation holds.

        Returns:
            The points of each region.
        """
        if self.sampler.places_points:
            return self.held_out()
        sampler = TEST_POINTS.get(self.pde.domain.dimension, MANY_DIMENSIONS)
        return self.placed(sampler.draw(self.pde.domain, np.random.default_rng(0), self.pde.faces))

    def exact(self, x: Tensor) -> Tensor:
        """The exact solution (n, k) of the k unknowns at points (n, d), in float64 even if the points are not."""
        return self.pde.exact_at(x.double())

    @property
    def exact_on_test_points(self) -> Tensor:
        """The exact solution, or the reference, (n, k) on the test points, in float64."""
        return self._solution_on_test_points[0]

    @property
    def reference_error(self) -> float:
        """The relative L2 error of what errors are measured against; 0 of an exact solution."""
        return self._solution_on_test_points[1]

    @cached_property
    def _solution_on_test_points(self) -> tuple[Tensor, float]:
        return self.pde.solution(self.test_batch["interior"].x.double())

    def loss(
        self,
        batch: Batch,
        rows: Mapping[str, int] | None = None,
        u: Field | None = None,
        differentiator: Differentiator | None = None,
    ) -> Tensor:
        """The loss of the model, or of another field, on a batch.

        Args:
            batch: The points of each region.
            rows: The number of points of each region, where the batch holds some of them alone. The
                result is then the part that these points have in the loss.
            u: A field in place of the model.
            differentiator: Takes the derivatives in place of the problem's own.

        Returns:
            The loss, a scalar.
        """
        taken_by = self.differentiator if differentiator is None else differentiator
        weighted = residuals.evaluate(self.pde, self.model if u is None else u, taken_by, batch)
        return residuals.loss(weighted, rows and {e.name: rows[e.region] for e in self.pde.equations()})

    def residual_vector(self, u: Field, batch: Batch, rows: str = "loss") -> Tensor:
        """All weighted residuals of a field in one column (rows, 1), with rows scaled as in `jacobian`."""
        weighted = residuals.evaluate(self.pde, u, self.differentiator, batch)
        if rows == "loss":
            weighted = {name: r / len(r) ** 0.5 for name, r in weighted.items()}
        return residuals.stacked(weighted)

    def jacobian(self, batch: Batch, rows: str = "loss") -> ResidualJacobian:
        """The Jacobian J of the weighted residuals on a batch by the trainable parameters.

        Args:
            batch: The points of each region.
            rows: `loss` scales the n_e rows of equation e by 1 / sqrt(n_e). The sum of squares of
                all rows is then the loss (a sum of means), and J J^T the kernel of its gradient
                flow. `points` does not scale the rows.

        Returns:
            The Jacobian as an operator.
        """
        by_points = None
        if self.row_wise(batch):

            def by_points(parameters: dict[str, Tensor]) -> Tensor:
                jacobians = residuals.jacobian_by_points(self.pde, self.model, parameters, self.differentiator, batch)
                if rows == "loss":
                    jacobians = {name: block / len(block) ** 0.5 for name, block in jacobians.items()}
                return residuals.stacked(jacobians)

        return ResidualJacobian(self.model, lambda u: self.residual_vector(u, batch, rows), by_points)

    def row_wise(self, batch: Batch) -> bool:
        """Whether residuals at a point depend on the model at that point alone, found out once on some points."""
        if self._row_wise is None:
            self._row_wise = residuals.row_wise(self.pde, self.model, batch)
        return self._row_wise

    @property
    def linear_form(self) -> LinearForm | None:
        """The features and coefficients of the model; None where it is not linear in its parameters."""
        return linear_form(self.model)

    @property
    def field(self) -> Field:
        """The features (n, P) of a model that is linear in its parameters; otherwise the model (n, k) itself."""
        linear = self.linear_form
        return self.model if linear is None else linear.features

    def tune(self, u: Field, batch: Batch) -> None:
        """Let the differentiator choose its automatic settings, such as a step, for the field u as it is now."""
        if self.differentiator.adaptive:
            self.differentiator = self.differentiator.tuned_to(u, *self._tuning_data(batch))

    def _tuning_data(self, batch: Batch) -> tuple[Tensor, frozenset[Axes]]:
        """Some of the interior points and all derivatives that are needed, for which a differentiator is tuned."""
        points = batch["interior"].x
        axes = frozenset().union(*(request.axes for _, request in self.pde.regions.values()))
        return points[:: max(1, len(points) // TUNING_POINTS)], axes

    def errors(self) -> dict[str, float]:
        """The errors of the model against the exact solution u* on the test points, in float64.

        Returns:
            `error_l2` = |u - u*|_2 / |u*|_2 and `error_max` = max|u - u*| / max|u*|. Where u* is 0
            at all test points, the root mean square and the maximum of |u|. Of several unknowns, the
            same over all of them together, and of each by its name, as `error_l2/v`. Nothing where u*
            is not known. `number/<name>` is a number that is learnt. `error/<name>` is how far it is from
            the one of the configuration, relative to it, where u* is known and with it that number. Of a
            reference, `reference_error` is its own relative error, below which error_l2 says nothing.
            `misfit/<name>` is the relative L2 distance of an unknown from its measured values.
        """
        numbers = self._numbers() | self._misfits()
        if not self.pde.has_exact:
            return numbers
        exact = self.exact_on_test_points
        with torch.no_grad():
            difference = self.model(self.test_batch["interior"].x).double()[:, : exact.shape[1]] - exact
        errors = _errors(difference, exact)
        if self.reference_error:
            errors["reference_error"] = self.reference_error
        if exact.shape[1] > 1:
            for i, name in enumerate(self.pde.names_of_columns(exact.shape[1])):
                own = _errors(difference[:, i : i + 1], exact[:, i : i + 1])
                errors |= {f"{metric}/{name}": value for metric, value in own.items()}
        return errors | numbers

    def _numbers(self) -> dict[str, float]:
        """The numbers that are learnt, and their errors."""
        if not self.pde.learned:
            return {}
        with torch.no_grad():
            values = self.model(self.test_batch["interior"].x[:1])[0, -len(self.pde.learned) :].tolist()
        found = dict(zip(self.pde.learned, values, strict=True))
        numbers = {f"number/{name}": value for name, value in found.items()}
        if self.pde.has_exact:
            true = self.pde.numbers()
            numbers |= {f"error/{n}": abs(v - true[n]) / (abs(true[n]) or 1.0) for n, v in found.items()}
        return numbers

    def _misfits(self) -> dict[str, float]:
        """How far the unknowns are from their measured values."""
        measured = self.pde.measurements
        if measured is None:
            return {}
        with torch.no_grad():
            x = torch.from_numpy(measured.x).to(self.device, self.dtype)
            values = self.model(x).double().cpu()
        found = {}
        fitted = {equation.name for equation in self.pde.equations()}
        for i, name in enumerate(measured.names):
            if f"{DATA}_{name}" not in fitted:  # an equation of the PDE says what the values mean
                continue
            given = torch.from_numpy(measured.values[:, i : i + 1])
            column = self.pde.unknowns.index(name)
            found[f"misfit/{name}"] = _errors(values[:, column : column + 1] - given, given)["error_l2"]
        return found

    def residual(self, batch: Batch) -> float:
        """The relative residual of the model on the training points by the run's own differentiator."""
        with torch.no_grad():
            return residuals.relative_residual(self.pde, self.model, self.differentiator, batch)

    def residual_held_out(self) -> float:
        """The relative residual of the model on at most HELD_OUT_POINTS held-out points of each region.

        It is taken by the run's own differentiator. Where it is far above the residual on the training points, the
        model fits those points alone.

        Returns:
            The relative residual, see `residuals.relative_residual`.
        """
        with torch.no_grad(), steady_draws():
            return residuals.relative_residual(
                self.pde, self.model, self.differentiator, self._few_held_out, self._training_counts
            )

    @cached_property
    def _few_held_out(self) -> Batch:
        return {region: points.some(HELD_OUT_POINTS) for region, points in self.held_out().items()}

    def residual_exact(self, batch: Batch | None = None) -> float:
        """The relative residual of the model with exact derivatives.

        In many dimensions it is taken at some of the points and by Taylor mode, because nested
        reverse mode takes a minute at d = 1000.

        Args:
            batch: The points; by default the test points.

        Returns:
            The relative residual, see `residuals.relative_residual`.
        """
        most = MOST_COORDINATES // self.pde.domain.dimension
        batch = {region: points.some(most) for region, points in (batch or self.test_batch).items()}
        with torch.no_grad():
            exact = Reverse() if self.pde.domain.dimension <= 3 else Taylor()
            return residuals.relative_residual(self.pde, self.model, exact, batch, self._training_counts)

    @cached_property
    def _training_counts(self) -> dict[str, int]:
        """The number of training points of each region, as which other points count in relative residuals."""
        drawn = self.draw(np.random.default_rng(self.sampler.seed))
        return {region: len(points.x) for region, points in drawn.items()}

    def placed(self, batch: Batch) -> Batch:
        """The points in the run's precision and on its device."""
        return {region: points.to(dtype=self.dtype, device=self.device) for region, points in batch.items()}


def _errors(difference: Tensor, exact: Tensor) -> dict[str, float]:
    """The relative errors of some columns, see `Problem.errors`."""
    size, largest = float(torch.linalg.vector_norm(exact)), float(exact.abs().max())
    return {
        "error_l2": float(torch.linalg.vector_norm(difference)) / (size or exact.numel() ** 0.5),
        "error_max": float(difference.abs().max()) / (largest or 1.0),
    }


def fitted(differentiator: Differentiator, pde: PDE, sampler: Sampler) -> Differentiator:
    """Tell a differentiator the spacing of the points that a sampler draws, and the size of the domain of a PDE."""
    box = pde.domain
    magnitude = max(map(abs, (*box.lower, *box.upper)))
    return differentiator.fitted(sampler.spacing(box), float(magnitude), float(min(box.lengths))).within(box)


@contextmanager
def steady_draws() -> Iterator[None]:
    """A context in which torch's generator on the CPU starts from a fixed seed; afterwards it is as it was before.

    Diagnostics of a run whose differentiator draws random directions use it. Two measurements then
    draw the same directions, and the run draws those that it would have drawn without them.

    Yields:
        Nothing.
    """
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(0)
    try:
        yield
    finally:
        torch.set_rng_state(state)
