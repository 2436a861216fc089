"""DeepXDE with its PyTorch backend: Model.train, the same points as anchors and point sets.

Reverse mode, its default; its forward mode takes 2.5 to 5 times as long, and no fourth derivative under an operator
condition.
"""

from __future__ import annotations

import os

os.environ["DDE_BACKEND"] = "pytorch"

import deepxde as dde
import numpy as np
import torch
from torch import Tensor

from benchmarks.references import measure
from benchmarks.references.problems import LEARNING_RATE, VISCOSITY, Problem


def laplacian(u: Tensor, x: Tensor) -> Tensor:
    return sum(dde.grad.hessian(u, x, i=i, j=i) for i in range(x.shape[1]))


def source(problem: Problem, x: Tensor) -> Tensor:
    """`Problem.source` in torch."""
    power = {"poisson": 1, "biharmonic": 2}[problem.operator]
    return (problem.dimension * np.pi**2) ** power * torch.prod(torch.sin(np.pi * x), dim=1, keepdim=True)


def residual_of(problem: Problem):
    """The residual in the interior, as DeepXDE calls it: of inputs and outputs."""

    def poisson(x: Tensor, u: Tensor) -> Tensor:
        return laplacian(u, x) + source(problem, x)

    def biharmonic(x: Tensor, u: Tensor) -> Tensor:
        return laplacian(laplacian(u, x), x) - source(problem, x)

    def burgers(x: Tensor, u: Tensor) -> Tensor:
        u_x, u_t = dde.grad.jacobian(u, x, i=0, j=0), dde.grad.jacobian(u, x, i=0, j=1)
        return u_t + u * u_x - VISCOSITY * dde.grad.hessian(u, x, i=0, j=0)

    return {"poisson": poisson, "biharmonic": biharmonic, "burgers": burgers}[problem.operator]


def box(problem: Problem):
    """The geometry of a problem."""
    if problem.initial:
        return dde.geometry.GeometryXTime(dde.geometry.Interval(-1, 1), dde.geometry.TimeDomain(0, 1))
    if problem.dimension == 1:
        return dde.geometry.Interval(problem.lower[0], problem.upper[0])
    return dde.geometry.Rectangle(problem.lower, problem.upper)


def build(task: measure.Task) -> measure.Train:
    """Model.train of the problem."""
    dde.config.set_default_float(task.precision)
    torch.set_num_threads(task.threads)
    problem, points = task.problem, task.problem.points()
    conditions = [dde.icbc.PointSetBC(points["boundary"], 0.0)]
    if problem.operator == "biharmonic":
        moment = dde.icbc.PointSetOperatorBC(points["boundary"], 0.0, lambda x, u, _: laplacian(u, x))
        conditions.append(moment)
    if problem.initial:
        conditions.append(dde.icbc.PointSetBC(points["initial"], problem.source(points["initial"])))
    kind = dde.data.TimePDE if problem.initial else dde.data.PDE
    data = kind(box(problem), residual_of(problem), conditions, anchors=points["interior"])
    net = dde.nn.FNN(problem.sizes, "tanh", "Glorot uniform")
    place = {"device": task.device, "dtype": getattr(torch, task.precision)}
    for linear, (weight, bias) in zip(net.linears, problem.weights(), strict=True):
        linear.weight.data, linear.bias.data = torch.tensor(weight, **place), torch.tensor(bias, **place)
    model = dde.Model(data, net)
    model.compile("adam", lr=LEARNING_RATE)

    def train(steps: int) -> float:
        seen = len(model.losshistory.loss_train)
        model.train(iterations=steps)
        return float(np.sum(model.losshistory.loss_train[seen]))

    return train


if __name__ == "__main__":
    measure.main("deepxde", dde.__version__, build)
