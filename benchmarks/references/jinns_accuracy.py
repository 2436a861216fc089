"""jinns: SSBroyden, and natural gradient with two regularisations; one `jinns.solve`, watched by its validation.

Derivatives are nested jvp along the coordinates. jinns adds the mean squares of the faces of the boundary, so that its
weight of the boundary is one over their number.
"""

from __future__ import annotations

import itertools
import os

from benchmarks.references import training

os.environ["XLA_FLAGS"] = training.XLA_FLAGS

from importlib.metadata import version

import equinox as eqx
import jax
import jax.numpy as jnp
import jinns
import numpy as np
import optax
from jax import Array
from jax.experimental import io_callback
from jinns.loss import BoundaryConditionAbstract, LossPDEStatio, LossWeightsPDEStatio, PDEStatio
from jinns.solver import GetJinnsVariableName
from jinns.validation._validation import AbstractValidationModule

from benchmarks.references.training import Task, Watch

jax.config.update("jax_enable_x64", True)
STEPS = 100_000
"""More than any budget has time for; jinns keeps the losses of all of them."""
EVERY = 25
"""Iterations between two measurements of the error."""
SMALL = 1e-10
"""A regularisation of the Gram matrix beside the default 1e-5."""


def second(u, axis: int):
    """The second derivative of a function of one point (d,)."""

    def value(x: Array) -> Array:
        direction = jnp.zeros_like(x).at[axis].set(1.0)
        first = lambda at: jax.jvp(u, (at,), (direction,))[1]  # noqa: E731
        return jax.jvp(first, (x,), (direction,))[1]

    return value


def equation_of(task: Task) -> PDEStatio:
    """The residual in the interior."""

    class Equation(PDEStatio):
        def equation(self, x, u, params):
            v = lambda at: u(at, params)  # noqa: E731
            f = task.source(x, jnp.sin)
            if task.problem == "beam":
                return second(second(v, 0), 0)(x) - f
            return -second(v, 0)(x) - second(v, 1)(x) - f

    return Equation()


def condition_of(task: Task) -> BoundaryConditionAbstract:
    """The residuals on the boundary: of points (d, faces), one for each face; for the beam u and u''."""

    class Condition(BoundaryConditionAbstract):
        def equation_u(self, inputs, u, params):
            v = lambda at: u(at, params)  # noqa: E731
            faces = [inputs[..., face] for face in range(inputs.shape[-1])]
            values = [v(x) for x in faces]
            if task.problem == "beam":
                values += [second(v, 0)(x) for x in faces]
            return tuple(values)

        def equation_f(self, inputs, params, gridify=False):
            count = inputs.shape[-1] * (2 if task.problem == "beam" else 1)
            return tuple(jnp.zeros(1) for _ in range(count))

    return Condition()


def data_of(task: Task):
    """A generator that gives all points at every iteration."""
    d = task.interior.shape[1]
    faces = 2 * d
    low, high = task.boundary.min(axis=0), task.boundary.max(axis=0)
    data = jinns.data.CubicMeshPDEStatio(
        key=jax.random.PRNGKey(0),
        n=len(task.interior),
        nb=len(task.boundary),
        dim=d,
        min_pts=tuple(low.tolist()),
        max_pts=tuple(high.tolist()),
    )
    data = eqx.tree_at(lambda it: it.omega, data, jnp.asarray(task.interior))
    if d > 1:  # points of any face: all have the same condition
        border = task.boundary.reshape(faces, -1, d).transpose(1, 2, 0)
        data = eqx.tree_at(lambda it: it.omega_border, data, jnp.asarray(border))
    return data, faces


def network_of(task: Task):
    """The network with the given weights, and its parameters."""
    layers = []
    for sizes in itertools.pairwise(task.sizes):
        layers += [(eqx.nn.Linear, *sizes), (jax.nn.tanh,)]
    net = jinns.nn._mlp.MLP(key=jax.random.PRNGKey(task.seed), eqx_list=tuple(layers[:-1]))
    given = [jnp.asarray(array) for layer in task.layers for array in layer]
    linears = lambda it: [a for layer in it.layers[::2] for a in (layer.weight, layer.bias)]  # noqa: E731
    if not task.own:
        net = eqx.tree_at(linears, net, given)
    return jinns.nn.PINN_MLP.create(eqx_network=net, eq_type="PDEStatio")


class Measured(AbstractValidationModule):
    """Hands the parameters out every so many iterations, and ends the training."""

    see: object = eqx.field(static=True, kw_only=True)
    count: Array = eqx.field(kw_only=True)
    call_every: int = eqx.field(kw_only=True, default=EVERY)

    def __call__(self, params):
        leaves = jax.tree.leaves(params.nn_params)
        over = io_callback(self.see, jax.ShapeDtypeStruct((), bool), self.count, *leaves)
        return eqx.tree_at(lambda it: it.count, self, self.count + EVERY), over, jnp.zeros(()), False


def callback_value(params, loss, batch):
    return loss.evaluate(params, batch)[0]


def callback_gradient(params, loss, batch):
    import jax  # jinns copies the code of this function

    return jax.grad(lambda p: loss.evaluate(p, batch)[0])(params)


SSBROYDEN = {
    "value": GetJinnsVariableName("train_loss_value"),
    "grad_pt": GetJinnsVariableName("grads"),
    "value_fn": callback_value,
    "grad_fn": callback_gradient,
    "loss": GetJinnsVariableName("loss"),
    "batch": GetJinnsVariableName("batch"),
}


def train(task: Task, watch: Watch, optimizer, extra) -> float:
    """Train with an optimiser; the loss at the initial weights."""
    u, initial = network_of(task)
    params = jinns.parameters.Params(nn_params=initial, eq_params={})
    data, faces = data_of(task)
    loss = LossPDEStatio(
        u=u,
        dynamic_loss=equation_of(task),
        boundary_condition=condition_of(task),
        loss_weights=LossWeightsPDEStatio(dyn_loss=1.0, boundary_loss=1.0 / faces),
        params=params,
    )

    def see(count, *leaves):
        arrays = [np.asarray(leaf) for leaf in leaves]
        return np.asarray(watch.see(list(zip(arrays[::2], arrays[1::2], strict=True)), int(count) + 1))

    watch.start()
    jinns.solve(
        n_iter=STEPS,
        init_params=params,
        data=data,
        loss=loss,
        optimizer=optimizer,
        validation=Measured(see=see, count=jnp.zeros((), int)),
        verbose=False,
        extra_optax_args_and_kwargs=extra,
    )
    return float(loss.evaluate(params, data.get_batch()[1])[0])


def ssbroyden(task: Task, watch: Watch) -> float:
    return train(task, watch, jinns.optimizers.scale_by_SSBroyden_family(), SSBROYDEN)


def natural_gradient(task: Task, watch: Watch, regularisation: float = 1e-5) -> float:
    search = optax.scale_by_backtracking_linesearch(max_backtracking_steps=15)
    return train(task, watch, jinns.optimizers.vanilla_ngd(gram_reg=regularisation, linesearch=search), None)


def natural_gradient_small(task: Task, watch: Watch) -> float:
    return natural_gradient(task, watch, SMALL)


if __name__ == "__main__":
    methods = {f.__name__: f for f in (ssbroyden, natural_gradient, natural_gradient_small)}
    training.main("jinns", version("jinns"), methods)
