"""DeepXDE with its PyTorch backend: 500 steps of Adam, then its L-BFGS, in `Model.train` with a callback."""

from __future__ import annotations

import os

os.environ["DDE_BACKEND"] = "pytorch"

import deepxde as dde
import torch
from torch import Tensor

from benchmarks.references import training
from benchmarks.references.training import Task, Watch

ADAM = 500
LEARNING_RATE = 1e-3
EVERY = 25
"""Iterations of L-BFGS between two measurements of the error: one step of DeepXDE; its default is 1000."""
FOREVER = 10**7


def laplacian(u: Tensor, x: Tensor) -> Tensor:
    return sum(dde.grad.hessian(u, x, i=i, j=i) for i in range(x.shape[1]))


def data_of(task: Task) -> dde.data.PDE:
    """Equation, conditions and points."""
    low, high = task.boundary.min(axis=0), task.boundary.max(axis=0)
    conditions = [dde.icbc.PointSetBC(task.boundary, 0.0)]
    if task.problem == "beam":
        conditions.append(dde.icbc.PointSetOperatorBC(task.boundary, 0.0, lambda x, u, _: laplacian(u, x)))
        box = dde.geometry.Interval(low[0], high[0])
    else:
        box = dde.geometry.Rectangle(low, high)

    def equation(x: Tensor, u: Tensor) -> Tensor:
        f = task.source(x, torch.sin)
        return laplacian(laplacian(u, x), x) - f if task.problem == "beam" else -laplacian(u, x) - f

    return dde.data.PDE(box, equation, conditions, anchors=task.interior)


class Measured(dde.callbacks.Callback):
    """Hands the weights out after every so many iterations, and ends the training."""

    def __init__(self, watch: Watch, linears):
        super().__init__()
        self.watch, self.linears = watch, linears

    def on_epoch_end(self):
        steps = self.model.train_state.step
        if self.model.opt_name != "adam" or steps % EVERY == 0:
            layers = [(w.weight.detach().numpy(), w.bias.detach().numpy()) for w in self.linears]
            self.model.stop_training = self.watch.see(layers, steps)


def lbfgs(task: Task, watch: Watch) -> float:
    """Adam, then L-BFGS; the loss at the initial weights."""
    dde.config.set_default_float("float64")
    torch.set_num_threads(1)
    torch.manual_seed(task.seed)
    net = dde.nn.FNN(task.sizes, "tanh", "Glorot uniform")
    if not task.own:
        for linear, (weight, bias) in zip(net.linears, task.layers, strict=True):
            linear.weight.data, linear.bias.data = torch.from_numpy(weight.copy()), torch.from_numpy(bias.copy())
    model = dde.Model(data_of(task), net)
    measured = Measured(watch, net.linears)
    watch.start()
    model.compile("adam", lr=LEARNING_RATE)
    model.train(iterations=ADAM, display_every=FOREVER, callbacks=[measured], verbose=0)
    dde.optimizers.set_LBFGS_options(maxcor=100, ftol=0, gtol=0, maxiter=FOREVER)
    dde.optimizers.config.LBFGS_options |= {"iter_per_step": EVERY, "fun_per_step": EVERY * 2}
    if watch.left:
        model.compile("L-BFGS")
        model.train(display_every=FOREVER, callbacks=[measured], verbose=0)
    return float(sum(model.losshistory.loss_train[0]))


if __name__ == "__main__":
    training.main("deepxde", dde.__version__, {"lbfgs": lbfgs})
