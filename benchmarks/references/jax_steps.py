"""JAX: a whole step compiled. Derivatives by hessian, nested jvp or Taylor mode; one step a call, or a loop inside jit.

At one thread: the process is bound to one core and XLA's own threads for matrix products are off.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental.jet import jet

from benchmarks.references import measure
from benchmarks.references.problems import LEARNING_RATE, VISCOSITY, Problem

Field = Callable[[Array], Array]
"""Row-wise (n, d) -> (n, 1)."""


def network(layers: list[tuple[Array, Array]], x: Array) -> Array:
    *hidden, (weight, bias) = layers
    for w, b in hidden:
        x = jnp.tanh(x @ w.T + b)
    return x @ weight.T + bias


class Hessian:
    """Point by point: jax.hessian (jacfwd of jacrev) under vmap."""

    def laplacian(self, u: Field) -> Field:
        point = self._at_a_point(u)
        return jax.vmap(lambda x: jnp.trace(jax.hessian(point)(x))[None])

    def bilaplacian(self, u: Field) -> Field:
        return self.laplacian(self.laplacian(u))

    def first_and_second(self, u: Field, x: Array) -> tuple[Array, Array, Array]:
        """u_x, u_t and u_xx, each (n, 1)."""
        point = self._at_a_point(u)
        first = jax.vmap(jax.grad(point))(x)
        return first[:, :1], first[:, 1:], jax.vmap(jax.hessian(point))(x)[:, :1, 0]

    def _at_a_point(self, u: Field) -> Callable[[Array], Array]:
        return lambda x: u(x[None])[0, 0]


class Forward:
    """Nested jvp along the coordinates, for all points at once."""

    def laplacian(self, u: Field) -> Field:
        return lambda x: sum(self._second(u, v)(x) for v in jnp.eye(x.shape[1]))

    def bilaplacian(self, u: Field) -> Field:
        """u_xxxx + 2 u_xxyy + u_yyyy, cheaper than the Laplacian of the Laplacian."""

        def value(x: Array) -> Array:
            pairs = itertools.combinations_with_replacement(jnp.eye(x.shape[1]), 2)
            return sum((1 if v is w else 2) * self._second(self._second(u, v), w)(x) for v, w in pairs)

        return value

    def _second(self, u: Field, direction: Array) -> Field:
        return along(along(u, direction), direction)

    def first_and_second(self, u: Field, x: Array) -> tuple[Array, Array, Array]:
        u_x, u_xx = jax.jvp(along(u, jnp.eye(2)[0]), (x,), (jnp.zeros_like(x).at[:, 0].set(1.0),))
        return u_x, along(u, jnp.eye(2)[1])(x), u_xx


class Taylor:
    """jax.experimental.jet: one truncated series along each direction."""

    def laplacian(self, u: Field) -> Field:
        return lambda x: series(u, x, jnp.eye(x.shape[1]), 2)[1].sum(axis=0)

    def bilaplacian(self, u: Field) -> Field:
        """In two dimensions with u_xxyy = (D4(x + y) + D4(x - y) - 2 u_xxxx - 2 u_yyyy) / 12."""

        def value(x: Array) -> Array:
            if x.shape[1] == 1:
                return series(u, x, jnp.eye(1), 4)[3][0]
            fourth = series(u, x, jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, -1.0]]), 4)[3]
            return (4 * (fourth[0] + fourth[1]) + fourth[2] + fourth[3]) / 6

        return value

    def first_and_second(self, u: Field, x: Array) -> tuple[Array, Array, Array]:
        (u_x,), (u_xx,) = series(u, x, jnp.eye(2)[:1], 2)
        return u_x, along(u, jnp.eye(2)[1])(x), u_xx


def along(u: Field, direction: Array) -> Field:
    """The derivative of u along a direction (d,)."""
    return lambda x: jax.jvp(u, (x,), (jnp.broadcast_to(direction, x.shape),))[1]


def series(u: Field, x: Array, directions: Array, order: int) -> list[Array]:
    """Derivatives of order 1 ... `order` along directions (k, d), each (k, n, 1)."""

    def one(direction: Array) -> list[Array]:
        v = jnp.broadcast_to(direction, x.shape)
        return jet(u, (x,), ((v, *[jnp.zeros_like(v)] * (order - 1)),))[1]

    return jax.vmap(one)(directions)


def loss_of(problem: Problem, mode: Hessian | Forward | Taylor) -> Callable[[list[tuple[Array, Array]]], Array]:
    """The loss, a function of the weights."""
    points = problem.points()
    x = {region: jnp.asarray(p) for region, p in points.items()}
    f = jnp.asarray(problem.source(points.get("initial", points["interior"])))

    def poisson(u: Field) -> list[Array]:
        return [mode.laplacian(u)(x["interior"]) + f, u(x["boundary"])]

    def biharmonic(u: Field) -> list[Array]:
        edge = x["boundary"]
        return [mode.bilaplacian(u)(x["interior"]) - f, u(edge), mode.laplacian(u)(edge)]

    def burgers(u: Field) -> list[Array]:
        inside = x["interior"]
        u_x, u_t, u_xx = mode.first_and_second(u, inside)
        return [u_t + u(inside) * u_x - VISCOSITY * u_xx, u(x["boundary"]), u(x["initial"]) - f]

    residuals = {"poisson": poisson, "biharmonic": biharmonic, "burgers": burgers}[problem.operator]
    return lambda layers: sum(jnp.mean(r**2) for r in residuals(lambda at: network(layers, at)))


def adam(layers, gradients, first, second, step):
    """One step of Adam with its usual constants."""
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, gradients)
    second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, second, gradients)
    rate, scale = LEARNING_RATE / (1 - 0.9**step), 1 / (1 - 0.999**step)
    layers = jax.tree.map(lambda w, m, v: w - rate * m / (jnp.sqrt(v * scale) + 1e-8), layers, first, second)
    return layers, first, second


MODES = {"forward": Forward(), "hessian": Hessian(), "jet": Taylor()}
VARIANTS = [f"{mode}_{loop}" for mode in MODES for loop in ("loop", "step")]
"""The first one is the default: the fastest for every problem at one thread."""


def build(task: measure.Task) -> measure.Train:
    """Compiled training: `step` calls a compiled step from Python, `loop` has lax.fori_loop inside."""
    if task.threads == 1:
        os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    jax.config.update("jax_enable_x64", task.precision == "float64")
    jax.config.update("jax_default_matmul_precision", "highest")
    mode, loop = task.variant.split("_")
    loss = jax.value_and_grad(loss_of(task.problem, MODES[mode]))

    def step(state):
        layers, first, second, count, _ = state
        value, gradients = loss(layers)
        return *adam(layers, gradients, first, second, count + 1), count + 1, value

    one = jax.jit(step, donate_argnums=0)
    many = jax.jit(lambda state, steps: jax.lax.fori_loop(0, steps, lambda _, s: step(s), state), donate_argnums=0)
    layers = [(jnp.asarray(w), jnp.asarray(b)) for w, b in task.problem.weights()]
    first, second = (jax.tree.map(jnp.zeros_like, layers) for _ in range(2))
    state = layers, first, second, jnp.zeros(()), jnp.zeros(())

    def train(steps: int) -> float:
        nonlocal state
        if loop == "loop":
            state = many(state, steps)
        else:
            for _ in range(steps):
                state = one(state)
        return float(state[-1])

    return train


if __name__ == "__main__":
    measure.main("jax", jax.__version__, build, VARIANTS)
