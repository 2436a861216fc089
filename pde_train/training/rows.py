"""Residual rows and their Jacobian as functions of the parameters, for steps that need more than a gradient.

The rows are scaled such that the sum of their squares is the loss. `EagerRows` computes them operation by operation,
`CompiledRows` by code compiled ahead of time, several times faster.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pde_train import residuals
from pde_train.geometry import Batch
from pde_train.optimizers.base import named, write
from pde_train.optimizers.conjugate_gradients import Product
from pde_train.problem import Problem
from pde_train.training.compiled_steps import Compiled, Layout
from pde_train.training.steps import split, trained

BLOCK_ROWS = 2048
"""Points of the interior in one compiled block: fewer make a second function to compile where one would do."""


class EagerRows:
    """The rows of a problem on a batch of points.

    Args:
        problem: The problem, whose model's parameters are changed by every call.
        batch: The training points.
    """

    def __init__(self, problem: Problem, batch: Batch):
        self.problem, self.batch = problem, batch
        self.parameters = trained(problem.model)

    def residual(self, x: Tensor) -> Tensor:
        write(self.parameters, x)
        with torch.no_grad():
            return self.problem.residual_vector(self.problem.model, self.batch).flatten()

    def jacobian(self, x: Tensor) -> Tensor:
        write(self.parameters, x)
        return self.problem.jacobian(self.batch).dense().detach()

    def products(self, x: Tensor) -> tuple[Product, Product]:
        write(self.parameters, x)
        operator = self.problem.jacobian(self.batch)

        def forward(vectors: Tensor) -> Tensor:
            columns = vectors if vectors.dim() == 2 else vectors.unsqueeze(1)
            return operator.columns(columns).detach().view(-1, *vectors.shape[1:])

        def back(vectors: Tensor) -> Tensor:
            columns = vectors if vectors.dim() == 2 else vectors.unsqueeze(1)
            return operator.rows(columns.T).detach().T.reshape(-1, *vectors.shape[1:])

        return forward, back


class CompiledRows(EagerRows):
    """The same by compiled code; products come from the matrix-free operator, operation by operation.

    Points of the interior beyond the first block come in blocks of one size, so that one compiled function serves all.
    """

    def __init__(self, problem: Problem, batch: Batch):
        super().__init__(problem, batch)
        self.names = {k: p for k, p in problem.model.named_parameters() if p.requires_grad}
        self.rows = {region: len(points.x) for region, points in batch.items()}
        first, blocks = split(batch, BLOCK_ROWS)
        x = torch.cat([p.detach().flatten() for p in self.parameters])
        parts = [first, *blocks[:1]]
        self.residuals = [Compiled(self._residual, [x], part, problem) for part in parts]
        self.jacobians = [Compiled(self._jacobian, [x], part, problem) for part in parts]
        self.place(batch)

    @property
    def compile_seconds(self) -> float:
        """What the compilation is expected to take; zero where an earlier process has done it."""
        return sum(part.traced.compile_seconds for part in (*self.residuals, *self.jacobians))

    def compile(self) -> None:
        """Load what is compiled, compile what is not."""
        for part in (*self.residuals, *self.jacobians):
            part.compile()

    def place(self, batch: Batch) -> None:
        """Take these points from now on, as many in each region as before, and what a differentiator has chosen."""
        self.batch = batch
        first, blocks = split(batch, BLOCK_ROWS)
        self.kept = [
            [functions[0].kept(first), *(functions[1].kept(block) for block in blocks)]
            for functions in (self.residuals, self.jacobians)
        ]

    def residual(self, x: Tensor) -> Tensor:
        return self._run(self.residuals, self.kept[0], x)

    def jacobian(self, x: Tensor) -> Tensor:
        return self._run(self.jacobians, self.kept[1], x)

    def _run(self, functions: list[Compiled], kept: list[list[Tensor]], x: Tensor) -> Tensor:
        parts = [functions[min(i, 1)].run([x, *tensors])[0] for i, tensors in enumerate(kept)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _residual(self, x: Tensor, *tensors: Tensor, layout: Layout) -> tuple[Tensor]:
        own = named(self.names, x)

        def u(points: Tensor) -> Tensor:
            values: Tensor = torch.func.functional_call(self.problem.model, own, (points,))
            return values

        differentiator = layout.differentiator(self.problem, tensors)
        values = residuals.evaluate(self.problem.pde, u, differentiator, layout.batch(tensors))
        return (self._scaled(values).flatten(),)

    def _jacobian(self, x: Tensor, *tensors: Tensor, layout: Layout) -> tuple[Tensor]:
        of, differentiator = self.problem, layout.differentiator(self.problem, tensors)
        blocks = residuals.jacobian_by_points(
            of.pde, of.model, named(self.names, x), differentiator, layout.batch(tensors)
        )
        return (self._scaled(blocks),)

    def _scaled(self, values: dict[str, Tensor]) -> Tensor:
        """All rows, those of an equation divided by the square root of their number in the whole batch."""
        counts = {e.name: self.rows[e.region] for e in self.problem.pde.equations()}
        return residuals.stacked({name: v / counts[name] ** 0.5 for name, v in values.items()})
