"""A hand-written loop: eager PyTorch, nested torch.autograd.grad. The denominator of every ratio."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.references import measure
from benchmarks.references.problems import LEARNING_RATE, VISCOSITY, Problem


def network(problem: Problem, place: dict[str, Any]) -> nn.Sequential:
    """The network with the problem's initial weights, with the dtype and on the device of `place`."""
    layers: list[nn.Module] = []
    for weight, bias in problem.weights():
        linear = nn.Linear(weight.shape[1], weight.shape[0])
        linear.weight.data, linear.bias.data = torch.tensor(weight, **place), torch.tensor(bias, **place)
        layers += [linear, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def gradient(u: Tensor, x: Tensor) -> Tensor:
    """Gradient (n, d) of a column (n, 1)."""
    return torch.autograd.grad(u, x, torch.ones_like(u), create_graph=True)[0]


def laplacian(u: Tensor, x: Tensor) -> Tensor:
    """Sum (n, 1) of the unmixed second derivatives."""
    first = gradient(u, x)
    return sum(gradient(first[:, i : i + 1], x)[:, i : i + 1] for i in range(x.shape[1]))


def mean_square(residual: Tensor) -> Tensor:
    return residual.square().mean()


def poisson(net: nn.Module, x: dict[str, Tensor], f: Tensor) -> Tensor:
    """Loss of -lap u = f, u = 0 on the boundary."""
    return mean_square(laplacian(net(x["interior"]), x["interior"]) + f) + mean_square(net(x["boundary"]))


def biharmonic(net: nn.Module, x: dict[str, Tensor], f: Tensor) -> Tensor:
    """Loss of lap lap u = f, u = lap u = 0 on the boundary."""
    inside, edge = x["interior"], x["boundary"]
    residual = laplacian(laplacian(net(inside), inside), inside) - f
    u = net(edge)
    return mean_square(residual) + mean_square(u) + mean_square(laplacian(u, edge))


def burgers(net: nn.Module, x: dict[str, Tensor], f: Tensor) -> Tensor:
    """Loss of u_t + u u_x = VISCOSITY u_xx, u = 0 on the walls, u = f initially."""
    inside = x["interior"]
    u = net(inside)
    first = gradient(u, inside)
    u_x, u_t = first[:, :1], first[:, 1:]
    residual = u_t + u * u_x - VISCOSITY * gradient(u_x, inside)[:, :1]
    return mean_square(residual) + mean_square(net(x["boundary"])) + mean_square(net(x["initial"]) - f)


LOSSES = {"poisson": poisson, "biharmonic": biharmonic, "burgers": burgers}


def build(task: measure.Task) -> measure.Train:
    """The training loop."""
    torch.set_num_threads(task.threads)
    problem, points = task.problem, task.problem.points()
    place = {"device": task.device, "dtype": getattr(torch, task.precision)}
    net, loss_of = network(problem, place), LOSSES[problem.operator]
    x = {region: torch.tensor(p, **place) for region, p in points.items()}
    differentiated = ("interior", "boundary") if problem.operator == "biharmonic" else ("interior",)
    for region in differentiated:
        x[region].requires_grad_()
    f = torch.tensor(problem.source(points.get("initial", points["interior"])), **place)
    optimizer = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE)

    def train(steps: int) -> float:
        for _ in range(steps):
            optimizer.zero_grad()
            loss = loss_of(net, x, f)
            loss.backward()
            optimizer.step()
        return loss.item()

    return train


if __name__ == "__main__":
    measure.main("loop", torch.__version__, build)
