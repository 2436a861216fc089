"""neurodiffeq: Solver.fit, the same points; its conditions hold by construction, so ours enter as additional loss."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np
import torch
from neurodiffeq import diff
from neurodiffeq.conditions import NoCondition
from neurodiffeq.generators import PredefinedGenerator
from neurodiffeq.networks import FCNN
from neurodiffeq.solvers import GenericSolver
from torch import Tensor

from benchmarks.references import measure
from benchmarks.references.problems import LEARNING_RATE, VISCOSITY, Problem


def laplacian(u: Tensor, *x: Tensor) -> Tensor:
    return sum(diff(u, x_i, order=2) for x_i in x)


def residual_of(problem: Problem):
    """The residuals in the interior, as neurodiffeq calls them: of u and the coordinates."""
    power = {"poisson": 1, "biharmonic": 2, "burgers": 0}[problem.operator]
    factor = (problem.dimension * np.pi**2) ** power

    def source(*x: Tensor) -> Tensor:
        return factor * torch.prod(torch.sin(np.pi * torch.cat(x, dim=1)), dim=1, keepdim=True)

    def poisson(u: Tensor, *x: Tensor) -> list[Tensor]:
        return [laplacian(u, *x) + source(*x)]

    def biharmonic(u: Tensor, *x: Tensor) -> list[Tensor]:
        return [laplacian(laplacian(u, *x), *x) - source(*x)]

    def burgers(u: Tensor, x: Tensor, t: Tensor) -> list[Tensor]:
        u_x = diff(u, x)
        return [diff(u, t) + u * u_x - VISCOSITY * diff(u_x, x)]

    return {"poisson": poisson, "biharmonic": biharmonic, "burgers": burgers}[problem.operator]


class Solver(GenericSolver):
    """Adds the mean squares of the conditions at points of the boundary and of the start."""

    def __init__(self, problem: Problem, points: dict[str, Tensor], **others):
        super().__init__(**others)
        self.biharmonic = problem.operator == "biharmonic"
        self.edge = [column.requires_grad_(self.biharmonic) for column in points["boundary"].split(1, dim=1)]
        self.start = points.get("initial")

    def additional_loss(self, residual: Tensor, funcs: list[Tensor], coords: list[Tensor]) -> Tensor:
        net = self.nets[0]
        u = net(torch.cat(self.edge, dim=1))
        loss = (u**2).mean()
        if self.biharmonic:
            loss = loss + (laplacian(u, *self.edge) ** 2).mean()
        if self.start is not None:
            loss = loss + ((net(self.start) + torch.sin(np.pi * self.start[:, :1])) ** 2).mean()
        return loss


def build(task: measure.Task) -> measure.Train:
    """Solver.fit of the problem, without the validation that is made after every epoch by default."""
    measure.refuse_others(task)
    torch.set_num_threads(task.threads)
    torch.set_default_dtype(torch.float64)
    problem = task.problem
    points = {region: torch.from_numpy(p) for region, p in problem.points().items()}
    net = FCNN(problem.dimension, 1, hidden_units=problem.hidden, actv=torch.nn.Tanh)
    linears = [layer for layer in net.modules() if isinstance(layer, torch.nn.Linear)]
    for linear, (weight, bias) in zip(linears, problem.weights(), strict=True):
        linear.weight.data, linear.bias.data = torch.from_numpy(weight), torch.from_numpy(bias)
    interior = PredefinedGenerator(*points["interior"].split(1, dim=1))
    solver = Solver(
        problem,
        points,
        diff_eqs=residual_of(problem),
        conditions=[NoCondition()],
        nets=[net],
        train_generator=interior,
        valid_generator=interior,
        n_batches_valid=0,
        optimizer=torch.optim.Adam(net.parameters(), lr=LEARNING_RATE),
        n_input_units=problem.dimension,
        n_output_units=1,
    )

    def train(steps: int) -> float:
        solver.fit(max_epochs=steps, tqdm_file=None)
        return solver.metrics_history["train_loss"][-1]

    return train


if __name__ == "__main__":
    measure.main("neurodiffeq", version("neurodiffeq"), build)
