"""Scimba with JAX: its SS-Broyden, in chunks of `Projector.project` on points that stay.

Scimba's default weight of the boundary is 10; it is 1 here. `project` returns the best network so far.
"""

from __future__ import annotations

import os

from benchmarks.references import training

os.environ["XLA_FLAGS"] = training.XLA_FLAGS

from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
from scimba_jax.domains.meshless_domains.domains_1d import Segment1D
from scimba_jax.domains.meshless_domains.domains_2d import Square2D
from scimba_jax.nonlinear_approximation.approximation_spaces.approximation_spaces import ApproximationSpace
from scimba_jax.nonlinear_approximation.networks.mlp import MLP
from scimba_jax.nonlinear_approximation.numerical_solvers.projectors import Projector
from scimba_jax.physical_models.abstract_physical_model import AbstractPhysicalModel
from scimba_jax.physical_models.abstract_residuals import BoundaryResidual, InteriorResidual
from scimba_jax.physical_models.boundary_residuals import DirichletResidual
from scimba_jax.physical_models.elliptic_pde.laplacians import LaplacianDirichletND

from benchmarks.references.training import Task, Watch

CHUNK = 100
"""Steps of one call of `project`, after which the error is measured."""


class Points:
    """A sampler of points that stay."""

    def __init__(self, samples: dict):
        self.samples = samples

    def build_sample_func(self, *counts):
        return lambda key: (key, self.samples)


class Bilaplacian(InteriorResidual):
    """u''''."""

    def construct_residual(self, *variables):
        return variables[0].laplacian("x").laplacian("x")


class Moment(BoundaryResidual):
    """u''."""

    def construct_residual(self, *variables):
        return variables[0].laplacian("x")


class Beam(AbstractPhysicalModel):
    """u'''' = f with u = u'' = 0 at the ends."""

    def __init__(self, domain: Segment1D, f):
        super().__init__(main_domain=domain)
        (ends,) = self.boundaries.values()
        self.physical_residuals = {
            domain.get_label(): Bilaplacian(domain=domain, model_type="x", f_rhs=f),
            "value": DirichletResidual(domain=ends, model_type="x"),
            "moment": Moment(domain=ends, model_type="x"),
        }


def model_of(task: Task) -> AbstractPhysicalModel:
    """Equation and conditions."""

    def f(x):
        return task.source(x, jnp.sin)

    bounds = np.stack([task.boundary.min(axis=0), task.boundary.max(axis=0)], axis=1).tolist()
    if task.problem == "beam":
        return Beam(Segment1D(tuple(bounds[0]), is_main_domain=True), f)
    return LaplacianDirichletND(Square2D(bounds, is_main_domain=True), f_rhs=f)


def space_of(task: Task) -> ApproximationSpace:
    """The network with the given weights."""
    dimension = task.sizes[0]
    net = MLP(dimension, 1, hidden_sizes=task.sizes[1:-1], activation="tanh", key=jax.random.PRNGKey(task.seed))
    if not task.own:
        for layer, (weight, bias) in zip(net.layers, task.layers, strict=True):
            layer.weight, layer.bias = jnp.asarray(weight), jnp.asarray(bias)
    return ApproximationSpace({"x": dimension}, [(net, "scalar", None)], model_type="x")


def ssbroyden(task: Task, watch: Watch, restarts: bool = False) -> float:
    """Train until a loss is not finite, or on from the best network and H = I; the loss at the initial weights."""
    model, space = model_of(task), space_of(task)
    interior, *conditions = model.physical_residuals
    edge = jnp.asarray(task.boundary)
    samples = {interior: (jnp.asarray(task.interior),)}
    samples |= {label: (edge, jnp.zeros_like(edge)) for label in conditions}  # no condition looks at the normals
    weights = {label: [1.0] for label in model.physical_residuals}
    key, steps, initial = jax.random.PRNGKey(0), 0, space
    watch.start()
    projector = Projector(model, space, Points(samples), optimizer="SS-Broyden", weights=weights)
    first = projector.optimizer
    over = False
    while not over:
        key, projector = projector.project(key, projector.space, CHUNK, scan_chunk=CHUNK, resample=False, verbose=True)
        steps += CHUNK
        layers = [(np.asarray(layer.weight), np.asarray(layer.bias)) for layer in projector.space.models[0].layers]
        over = watch.see(layers, steps)
        if not np.isfinite(projector.losses.losses_history["total"][-1]):
            projector.optimizer = first
            over = over or not restarts
    return float(projector.evaluate_loss(initial, samples))


def ssbroyden_restarted(task: Task, watch: Watch) -> float:
    return ssbroyden(task, watch, restarts=True)


if __name__ == "__main__":
    methods = {"ssbroyden": ssbroyden, "ssbroyden_restarted": ssbroyden_restarted}
    training.main("scimba", version("scimba"), methods)
