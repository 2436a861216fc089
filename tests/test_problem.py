"""Test points, errors and pictures of problems in many dimensions, and with a time."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures import Compose
from torch import Tensor

from pde_train import problem, residuals
from pde_train.derivatives import Jet
from pde_train.differentiators.reverse import Reverse
from pde_train.experiment import build
from pde_train.models.mlp import MLP
from pde_train.pdes.base import PDE
from pde_train.pdes.burgers_1d import Burgers1D
from pde_train.pdes.convection_1d import Convection1D
from pde_train.pdes.euler_beam import EulerBeam
from pde_train.pdes.poisson_2d import Poisson2D
from pde_train.pdes.poisson_nd import PoissonND
from pde_train.problem import Problem
from pde_train.runs import figures
from pde_train.runs.run import run
from pde_train.samplers.uniform import Uniform


def posed(pde: PDE) -> Problem:
    return Problem(pde, MLP(pde.domain.dimension, [4], "tanh", seed=0).double(), Reverse(), Uniform(16, 8))


class Solution(torch.nn.Module):
    def __init__(self, pde: PDE) -> None:
        super().__init__()
        self.pde = pde

    def forward(self, x: Tensor) -> Tensor:
        return self.pde.exact_at(x)


@pytest.mark.parametrize(
    ("pde", "counts"),
    [
        (EulerBeam(), {"interior": 1001, "x_lower": 1, "x_upper": 1}),
        (Poisson2D(), {"interior": 101**2, "boundary": 404}),
        (Convection1D(), {"interior": 101**2, "initial": 101, "periodic": 404}),
        (Burgers1D(), {"interior": 101**2, "initial": 101, "boundary": 404}),
        (PoissonND(dimension=3), {"interior": 4096, "boundary": 960}),
        (PoissonND(dimension=20), {"interior": 4096, "boundary": 960}),
    ],
    ids=repr,
)
def test_test_points_cover_every_region(pde: PDE, counts: dict[str, int]) -> None:
    one = posed(pde)
    assert {region: len(points.x) for region, points in one.test_batch.items()} == counts
    assert all(torch.equal(posed(pde).test_batch[r].x, points.x) for r, points in one.test_batch.items())
    one.model = Solution(pde)
    assert one.errors() == {"error_l2": 0, "error_max": 0}


def test_a_thousand_dimensions() -> None:
    pde = PoissonND(dimension=1000)
    assert pde.regions["interior"][1].terms == {"lap_u": {(i, i): 1 for i in range(1000)}}
    batch = posed(pde).draw(np.random.default_rng(0))
    jet = Jet({c: batch["interior"].x[:, i : i + 1] for i, c in enumerate(pde.coordinates)})
    exact = pde.exact(jet)
    torch.testing.assert_close(exact, torch.sin(torch.pi * batch["interior"].x).sum(1, keepdim=True))
    left = pde.poisson(Jet({**jet.columns, "lap_u": -(torch.pi**2) * exact}))
    torch.testing.assert_close(left, torch.zeros_like(left))


def test_exact_residuals_are_measured_on_fewer_points_in_many_dimensions(monkeypatch: pytest.MonkeyPatch) -> None:
    one, seen = posed(PoissonND(dimension=20)), []
    monkeypatch.setattr(residuals, "relative_residual", lambda *args: seen.append(args[3]) or 0.0)
    one.residual_exact()
    monkeypatch.setattr(problem, "MOST_COORDINATES", 200)
    one.residual_exact()
    assert [{r: len(p.x) for r, p in batch.items()} for batch in seen] == [
        {"interior": 2**16 // 20, "boundary": 960},
        {"interior": 10, "boundary": 10},
    ]


def test_held_out_points_are_of_every_face(compose: Compose) -> None:
    """A function that is right on the first faces alone is seen to be wrong."""
    one = build(compose("pde=poisson_2d", "sampler=uniform", "sampler.boundary=2000", "model=two_layer")).problem

    def wrong(x: Tensor) -> Tensor:  # harmonic, and 0 at x = 0 and x = 1
        a, b = (torch.pi * x).split(1, dim=1)
        return torch.sin(a) * torch.sin(b) + torch.sin(a) * torch.cosh(b)

    with torch.no_grad():
        for region, points in one._few_held_out.items():
            assert len(points.x) == (512 if region == "boundary" else min(512, len(one.held_out()[region].x)))
        normals = one._few_held_out["boundary"].normals
        assert torch.unique(normals, dim=0, return_counts=True)[1].tolist() == [128] * 4
        batch = one._few_held_out
        of_all = residuals.relative_residual(one.pde, wrong, Reverse(), one.held_out(), one._training_counts)
        of_some = residuals.relative_residual(one.pde, wrong, Reverse(), batch, one._training_counts)
    assert of_some == pytest.approx(of_all, rel=0.1)


def test_residuals_on_other_points_count_regions_as_the_training_points_do(compose: Compose) -> None:
    """Training points 400 : 80 : 80, test points 10201 : 404 : 101: a smooth field has one residual on all of them."""
    words = ["pde=heat_1d", "model=two_layer", "sampler.interior=400", "sampler.boundary=80", "sampler.initial=80"]
    one = build(compose(*words)).problem
    trained = one.residual(one.draw(np.random.default_rng(0)))
    for other in (one.residual_exact(), one.residual_held_out(), one.residual_exact(one.held_out())):
        assert other == pytest.approx(trained, rel=0.05)
    with torch.no_grad():
        plainly = residuals.relative_residual(one.pde, one.model, Reverse(), one.test_batch)
    assert plainly / trained > 2  # what the numbers of points alone do


def test_many_dimensions_are_drawn_on_the_plane_of_the_first_two() -> None:
    one = posed(PoissonND(dimension=4))
    one.model = Solution(one.pde)
    images = [np.asarray(axes.images[0].get_array()) for axes in figures.solution(one).axes[:2]]
    limits = {axes.images[0].get_clim() for axes in figures.solution(one).axes[:2]}
    assert limits == {(min(map(np.min, images)), max(map(np.max, images)))}  # equal colours for equal values
    assert images[0].shape == (101, 101)
    s = np.sin(np.pi * np.linspace(0, 1, 101))
    np.testing.assert_allclose(images[1], s[:, None] + s[None, :] + 2, atol=1e-14)


def test_a_pde_may_choose_its_sampler_and_model(compose: Compose) -> None:
    assert "Uniform" in compose("pde=poisson_nd").sampler._target_
    assert "Grid" in compose("pde=poisson_nd", "sampler=grid").sampler._target_
    cfg = compose("pde=burgers_1d")
    assert "MLP" in cfg.model._target_
    assert "GradientDescent" in cfg.method._target_
    assert "RandomFeatures" in compose("pde=burgers_1d", "model=random_features").model._target_
    assert "two_layer" in compose("pde=burgers_1d", "experiment=two_layer_accuracy").model._target_


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize(
    ("pde", "overrides", "most"),
    [
        ("euler_beam", [], 1e-11),
        ("convection_1d", ["model.activation=sin"], 1e-5),
        ("linear_kdv_1d", ["model.activation=sin", "model.features=400"], 1e-9),
    ],
)
def test_random_features_solve_the_linear_ones(
    compose: Compose, tmp_path: Path, pde: str, overrides: list[str], most: float
) -> None:
    assert run(build(compose(f"pde={pde}", *overrides)), tmp_path).last()["error_l2"] < most


@pytest.mark.parametrize("viscosity", [0.0001 / math.pi, 0.001])
def test_references_and_errors_are_of_double_precision_for_a_run_in_single(viscosity: float) -> None:
    """In single precision the reference itself had a floor of 3.5e-3, and was nan at small viscosities."""
    pde = Burgers1D(viscosity=viscosity)

    def rounded(x: Tensor) -> Tensor:
        return pde.exact(Jet({"x": x[:, :1].double(), "t": x[:, 1:].double()})).float()

    sampler = Uniform(20, 8)
    single = Problem(pde, rounded, Reverse(), sampler, torch.float32)  # type: ignore[arg-type]  # it is only called
    assert single.test_batch["interior"].x.dtype == torch.float32
    assert single.errors()["error_l2"] < 1e-7
