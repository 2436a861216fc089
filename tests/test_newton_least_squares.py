"""Newton's method on the coefficients of a linear model."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures import Compose
from torch import Tensor

from pde_train import linear_system
from pde_train.derivatives import Jet
from pde_train.diagnostics.none import NoDiagnostics
from pde_train.diagnostics.spectrum import SpectrumProbe
from pde_train.differentiators.finite_difference import FiniteDifference
from pde_train.differentiators.taylor import Taylor
from pde_train.entropy import Entropy
from pde_train.errors import UsageError
from pde_train.experiment import build
from pde_train.geometry import Box
from pde_train.methods.least_squares import LeastSquares
from pde_train.methods.newton_least_squares import NewtonLeastSquares
from pde_train.models.random_features import RandomFeatures
from pde_train.pdes.base import PDE, on
from pde_train.pdes.kovasznay_2d import Kovasznay2D
from pde_train.pdes.poisson_1d import Poisson1D
from pde_train.problem import Problem
from pde_train.runs.run import run
from pde_train.samplers.uniform import Uniform
from pde_train.tracking.none import NoTracker
from pde_train.tracking.record import Record


@dataclass(frozen=True)
class Cubic(PDE):
    """-u'' + u^3 = sin x + sin^3 x on [0, 3], with the values of u = sin x at both ends."""

    weights: Mapping[str, float] = field(default_factory=dict)

    coordinates = ("x",)
    domain = Box((0.0,), (3.0,))

    @on("interior", needs="u u_xx")
    def bulk(self, d: Jet) -> Tensor:
        return -d.u_xx + d.u**3 - torch.sin(d.x) - torch.sin(d.x) ** 3

    @on("boundary", needs="u")
    def ends(self, d: Jet) -> Tensor:
        return d.u - torch.sin(d.x)

    def exact(self, d: Jet) -> Tensor:
        return torch.sin(d.x)


def fitted(problem: Problem, method: NewtonLeastSquares | LeastSquares, diagnostics: object = None) -> Record:
    record = Record(NoTracker(), Entropy([1e-8]))
    method.fit(problem, record, diagnostics or NoDiagnostics(), Path())  # type: ignore[arg-type]  # of either kind
    return record


def test_the_jacobian_is_the_derivative_of_the_residual_by_the_coefficients() -> None:
    pde = Kovasznay2D(weights={"continuity": 2.0})
    model = RandomFeatures(2, 5, "tanh", 2.0, 0, outputs=3)
    problem = Problem(pde, model, Taylor(), Uniform(7, 4))
    batch = problem.draw(np.random.default_rng(0))
    start = torch.linspace(-1, 1, 15, dtype=torch.float64).reshape(5, 3)
    jacobian, opposite = linear_system.assemble(pde, model.features, problem.differentiator, batch, coefficients=start)

    def rows(coefficients: Tensor) -> Tensor:
        return problem.residual_vector(lambda x: model.features(x) @ coefficients, batch, rows="points").flatten()

    torch.testing.assert_close(-opposite.flatten(), rows(start), rtol=1e-12, atol=1e-12)
    expected = torch.autograd.functional.jacobian(rows, start)  # (rows, 5, 3)
    torch.testing.assert_close(jacobian, expected.transpose(1, 2).flatten(1), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("differentiator", [Taylor(), FiniteDifference(8, 0.03)], ids=lambda d: type(d).__name__)
def test_errors_fall_quadratically_to_the_floor(differentiator: Taylor | FiniteDifference) -> None:
    problem = Problem(Cubic(), RandomFeatures(1, 60, "tanh", 3.0, 0), differentiator, Uniform(200, 2))
    record = fitted(problem, NewtonLeastSquares())
    errors = list(record.series["error_l2"].values())
    assert errors[-1] < 1e-8
    assert len(errors) < 12
    fast = [k for k in range(1, len(errors)) if 1e-7 < errors[k] < 1e-1]
    assert fast
    assert all(errors[k] < 10 * errors[k - 1] ** 1.7 for k in fast if errors[k - 1] < 0.1)
    losses = list(record.series["loss"].values())
    assert losses == sorted(losses, reverse=True)
    assert record.tags["stopped"].startswith("no progress")


def test_a_linear_equation_takes_one_step_to_the_solution_of_least_squares() -> None:
    problems = [
        Problem(Poisson1D(), RandomFeatures(1, 30, "tanh", 3.0, 0), Taylor(), Uniform(100, 2)) for _ in range(2)
    ]
    record = fitted(problems[0], NewtonLeastSquares(rcond=1e-10))
    fitted(problems[1], LeastSquares(rcond=1e-10))
    assert record.series["loss"][1] < 1e-4 * record.series["loss"][0]
    assert max(record.series["loss"]) <= 3
    x = torch.linspace(-1, 1, 9, dtype=torch.float64).unsqueeze(1)
    with torch.no_grad():
        torch.testing.assert_close(problems[0].model(x), problems[1].model(x), rtol=0, atol=1e-7)


def test_a_nonlinear_system_of_three_unknowns() -> None:
    model = RandomFeatures(2, 150, "tanh", 2.0, 0, outputs=3)
    problem = Problem(Kovasznay2D(), model, Taylor(), Uniform(700, 120))
    record = fitted(problem, NewtonLeastSquares())
    assert record.last()["error_l2/u"] < 1e-2
    assert record.last()["error_l2/p"] < 1e-2


def test_spectra_are_those_of_the_first_and_the_last_jacobian() -> None:
    problem = Problem(Cubic(), RandomFeatures(1, 20, "tanh", 3.0, 0), Taylor(), Uniform(60, 2))
    record = fitted(problem, NewtonLeastSquares(), SpectrumProbe(["first", "last"]))
    last = max(record.series["loss"])
    assert sorted(record.spectra) == [0, last]
    batch, form = problem.draw(np.random.default_rng(0)), problem.linear_form
    assert form is not None
    with torch.no_grad():
        jacobian, _ = linear_system.assemble(
            problem.pde, form.features, problem.differentiator, batch, coefficients=form.coefficients
        )
    np.testing.assert_allclose(record.spectra[last].values[:5], np.linalg.svd(jacobian)[1][:5], rtol=1e-10)


def test_the_command_trains_burgers(compose: Compose, tmp_path: Path) -> None:
    words = ["model=random_features", "model.features=300", "model.weight_range=5", "method=newton_least_squares"]
    points = ["sampler=uniform", "sampler.interior=900", "sampler.boundary=80", "sampler.initial=80"]
    record = run(build(compose("pde=burgers_1d", "pde.viscosity=0.15", *words, *points, "diagnostics=none")), tmp_path)
    assert record.last()["error_l2"] < 1e-2
    assert record.series["loss"][max(record.series["loss"])] < 1e-5


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["method.steps=0"], r"method\.steps=0 makes no step: expected a positive integer"),
        (["method.tolerance=2"], r"method\.tolerance=2(\.0)? is no relative size: expected 0 <= tolerance < 1"),
        (["method.rcond=-1"], r"method\.rcond=-1(\.0)? is no relative size: expected 0 <= rcond < 1"),
        (["model=two_layer"], "method=newton_least_squares needs a model that is linear in its parameters, and MLP is"),
        (["sampler.batch_size=5", "sampler=uniform"], "takes all points at once, and sampler.batch_size=5 asks for"),
    ],
)
def test_what_it_cannot_do_is_refused(compose: Compose, tmp_path: Path, words: list[str], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        run(build(compose("model=random_features", "method=newton_least_squares", *words)), tmp_path)
