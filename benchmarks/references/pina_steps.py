"""PINA: Trainer.train of a PINN, the same points as inputs of its conditions."""

from __future__ import annotations

import logging
from importlib.metadata import version

import numpy as np
import torch
from pina import Condition, LabelTensor, Trainer
from pina.equation import Equation
from pina.model import FeedForward
from pina.operator import grad, laplacian
from pina.optim import TorchOptimizer
from pina.problem import BaseProblem
from pina.solver import PINN

from benchmarks.references import measure
from benchmarks.references.problems import LEARNING_RATE, VISCOSITY, Problem


def value(x: LabelTensor, u: LabelTensor) -> LabelTensor:
    """u = 0."""
    return u


def moment(x: LabelTensor, u: LabelTensor) -> LabelTensor:
    """lap u = 0."""
    return laplacian(u, x)


def initial(x: LabelTensor, u: LabelTensor) -> LabelTensor:
    """u = -sin(pi x)."""
    return u + torch.sin(np.pi * x.extract(["x"]))


def residual_of(problem: Problem):
    """The residual in the interior, as PINA calls it: of inputs and outputs."""
    power = {"poisson": 1, "biharmonic": 2, "burgers": 0}[problem.operator]
    factor = (problem.dimension * np.pi**2) ** power

    def source(x: LabelTensor) -> torch.Tensor:
        return factor * torch.prod(torch.sin(np.pi * x.tensor), dim=1, keepdim=True)

    def poisson(x: LabelTensor, u: LabelTensor) -> LabelTensor:
        return laplacian(u, x) + source(x)

    def biharmonic(x: LabelTensor, u: LabelTensor) -> LabelTensor:
        lap = laplacian(u, x)
        lap.labels = ["lap"]
        return laplacian(lap, x) - source(x)

    def burgers(x: LabelTensor, u: LabelTensor) -> LabelTensor:
        first = grad(u, x)
        return first.extract(["dudt"]) + u * first.extract(["dudx"]) - VISCOSITY * laplacian(u, x, d=["x"])

    return {"poisson": poisson, "biharmonic": biharmonic, "burgers": burgers}[problem.operator]


def posed(problem: Problem) -> BaseProblem:
    """The problem in PINA's terms."""
    labels = ["x", "t"] if problem.initial else ["x", "y"][: problem.dimension]
    points = {region: LabelTensor(torch.from_numpy(p), labels) for region, p in problem.points().items()}
    equations = [("interior", residual_of(problem)), ("boundary", value)]
    if problem.operator == "biharmonic":
        equations.append(("boundary", moment))
    if problem.initial:
        equations.append(("initial", initial))

    class Posed(BaseProblem):
        input_variables = labels
        output_variables = ["u"]
        conditions = {
            equation.__name__: Condition(input=points[region], equation=Equation(equation))
            for region, equation in equations
        }

    return Posed()


def build(task: measure.Task) -> measure.Train:
    """Trainer.train of the problem; a new Trainer every time, as PINA counts epochs from its making."""
    measure.refuse_others(task)
    torch.set_num_threads(task.threads)
    torch.set_default_dtype(torch.float64)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    problem = task.problem
    net = FeedForward(problem.dimension, 1, layers=list(problem.hidden), func=torch.nn.Tanh)
    linears = [layer for layer in net.modules() if isinstance(layer, torch.nn.Linear)]
    for linear, (weight, bias) in zip(linears, problem.weights(), strict=True):
        linear.weight.data, linear.bias.data = torch.from_numpy(weight), torch.from_numpy(bias)
    optimizer = TorchOptimizer(torch.optim.Adam, lr=LEARNING_RATE)
    solver = PINN(posed(problem), net, optimizer=optimizer)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)

    def train(steps: int) -> float:
        trainer = Trainer(solver, max_epochs=steps, accelerator="cpu", **quiet)
        trainer.train()
        return trainer.logged_metrics["train_loss"].item()

    return train


if __name__ == "__main__":
    measure.main("pina", version("pina-mathlab"), build)
