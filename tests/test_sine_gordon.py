"""The sine-Gordon equation in a ball: its forcing against sympy and autograd, and stochastic training."""

from pathlib import Path

import numpy as np
import pytest
import sympy
import torch
from fixtures import Compose
from torch import Tensor

from pde_train.derivatives import Jet, coordinate_columns
from pde_train.experiment import build
from pde_train.pdes.sine_gordon_nd import SineGordonND
from pde_train.runs.run import run

pytestmark = pytest.mark.usefixtures("without_figures")


def some_points(pde: SineGordonND, count: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(1).uniform(-1, 1, (count, pde.dimension)) / pde.dimension**0.5)


def jet_at(pde: SineGordonND, x: Tensor) -> Jet:
    return Jet(coordinate_columns(x, pde.coordinates))


@pytest.mark.parametrize("dimension", [2, 3])
def test_solution_and_laplacian_are_those_of_sympy(dimension: int) -> None:
    pde = SineGordonND(dimension, seed=3)
    symbols = sympy.symbols(pde.coordinates)
    u = (1 - sum(s**2 for s in symbols)) * sum(
        float(c) * sympy.sin(a + sympy.cos(b) + b * sympy.cos(a))
        for c, a, b in zip(pde.coefficients, symbols[:-1], symbols[1:], strict=True)
    )
    x = some_points(pde, 9)
    laplacian = sum(sympy.diff(u, s, 2) for s in symbols)
    for expression, found in ((u, pde.exact(jet_at(pde, x))), (laplacian, pde.laplacian(jet_at(pde, x)))):
        expected = sympy.lambdify(symbols, expression, "numpy")(*x.numpy().T)
        np.testing.assert_allclose(found[:, 0], expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("dimension", [2, 7, 40])
def test_the_solution_satisfies_the_equation_by_nested_differentiation(dimension: int) -> None:
    pde = SineGordonND(dimension)

    def u(x: Tensor) -> Tensor:
        return pde.exact_at(x[None, :])[0, 0]

    x = some_points(pde, 5)
    laplacian = torch.stack([torch.autograd.functional.hessian(u, row).trace() for row in x])[:, None]
    columns = {**coordinate_columns(x, pde.coordinates), "u": pde.exact_at(x), "lap_u": laplacian}
    assert float(pde.sine_gordon(Jet(columns)).abs().max()) < 1e-12 * dimension
    wrong = Jet({**columns, "u": columns["u"] + 0.1})
    assert float(pde.sine_gordon(wrong).abs().min()) > 1e-3


def test_it_vanishes_on_the_sphere_and_another_seed_is_another_solution() -> None:
    x = torch.nn.functional.normalize(some_points(SineGordonND(), 20), dim=1)
    assert float(SineGordonND().exact_at(x).abs().max()) < 1e-13
    x = x / 2
    assert float((SineGordonND().exact_at(x) - SineGordonND(seed=1).exact_at(x)).abs().min()) > 0
    assert torch.equal(SineGordonND().exact_at(x), SineGordonND().exact_at(x))


def test_random_coordinates_train_it(compose: Compose, tmp_path: Path) -> None:
    words = ["model.hidden=[16,16]", "method.steps=60", "method.log_every=30", "diagnostics=none", "optimizer.lr=0.005"]
    experiment = build(compose("experiment=field/sine_gordon_nd", "tracking=none", "pde.dimension=30", *words))
    record = run(experiment, tmp_path)
    assert np.isfinite(list(record.series["loss"].values())).all()
    assert record.last()["error_l2"] < 1
    assert len(experiment.problem.test_batch["interior"].x) == 4096
