"""PINA: 500 steps of Adam, then torch's L-BFGS, each a `Trainer.train` of a PINN, with a callback."""

from __future__ import annotations

import logging
from importlib.metadata import version

import torch
from lightning.pytorch.callbacks import Callback
from pina import Condition, LabelTensor, Trainer
from pina.equation import Equation
from pina.model import FeedForward
from pina.operator import laplacian
from pina.optim import TorchOptimizer
from pina.problem import BaseProblem
from pina.solver import PINN

from benchmarks.references import training
from benchmarks.references.training import Task, Watch

ADAM = 500
LEARNING_RATE = 1e-3
EVERY = 25
"""Iterations between two measurements of the error; an epoch of L-BFGS has so many."""
FOREVER = 10**7
LBFGS = {"lr": 1.0, "max_iter": EVERY, "max_eval": EVERY * 2, "history_size": 100, "line_search_fn": "strong_wolfe"}


def value(x: LabelTensor, u: LabelTensor) -> LabelTensor:
    """u = 0."""
    return u


def moment(x: LabelTensor, u: LabelTensor) -> LabelTensor:
    """u'' = 0."""
    return laplacian(u, x)


def problem_of(task: Task) -> BaseProblem:
    """Equation, conditions and points in PINA's terms."""
    labels = ["x", "y"][: task.interior.shape[1]]
    points = {name: LabelTensor(torch.from_numpy(getattr(task, name)), labels) for name in ("interior", "boundary")}

    def poisson(x: LabelTensor, u: LabelTensor) -> LabelTensor:
        return -laplacian(u, x) - task.source(x.tensor, torch.sin)

    def beam(x: LabelTensor, u: LabelTensor) -> LabelTensor:
        lap = laplacian(u, x)
        lap.labels = ["lap"]
        return laplacian(lap, x) - task.source(x.tensor, torch.sin)

    equations = [("interior", beam if task.problem == "beam" else poisson), ("boundary", value)]
    if task.problem == "beam":
        equations.append(("boundary", moment))

    class Posed(BaseProblem):
        input_variables = labels
        output_variables = ["u"]
        conditions = {
            equation.__name__: Condition(input=points[region], equation=Equation(equation))
            for region, equation in equations
        }

    return Posed()


class Measured(Callback):
    """Hands the weights out after every so many iterations, and ends the training."""

    def __init__(self, watch: Watch, linears, every: int, steps: int):
        self.watch, self.linears, self.every, self.steps = watch, linears, every, steps
        self.first = None

    def on_train_epoch_end(self, trainer, solver):
        if self.first is None:
            self.first = trainer.callback_metrics["train_loss"].item()
        self.steps += EVERY if self.every == 1 else 1
        if self.every == 1 or self.steps % self.every == 0:
            layers = [(w.weight.detach().numpy(), w.bias.detach().numpy()) for w in self.linears]
            trainer.should_stop = self.watch.see(layers, self.steps)


def lbfgs(task: Task, watch: Watch) -> float:
    """Adam, then L-BFGS; the loss at the initial weights."""
    torch.set_num_threads(1)
    torch.manual_seed(task.seed)
    torch.set_default_dtype(torch.float64)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    net = FeedForward(task.sizes[0], 1, layers=task.sizes[1:-1], func=torch.nn.Tanh)
    linears = [layer for layer in net.modules() if isinstance(layer, torch.nn.Linear)]
    if not task.own:
        for linear, (weight, bias) in zip(linears, task.layers, strict=True):
            linear.weight.data, linear.bias.data = torch.from_numpy(weight.copy()), torch.from_numpy(bias.copy())
    problem = problem_of(task)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    quiet |= {"accelerator": "cpu", "max_epochs": FOREVER}
    watch.start()
    adam = TorchOptimizer(torch.optim.Adam, lr=LEARNING_RATE)
    first = Measured(watch, linears, every=EVERY, steps=0)
    Trainer(PINN(problem, net, optimizer=adam), callbacks=[first], **quiet | {"max_epochs": ADAM}).train()
    if watch.left:
        second = Measured(watch, linears, every=1, steps=ADAM)
        optimizer = TorchOptimizer(torch.optim.LBFGS, tolerance_grad=0.0, tolerance_change=0.0, **LBFGS)
        Trainer(PINN(problem, net, optimizer=optimizer), callbacks=[second], **quiet).train()
    return first.first


if __name__ == "__main__":
    training.main("pina", version("pina-mathlab"), {"lbfgs": lbfgs})
