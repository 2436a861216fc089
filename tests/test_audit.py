"""Functions that are wrong where a differentiator does not look."""

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures import Compose
from torch import Tensor, nn

from pde_train.diagnostics.audit import Audit, derivative_error, error_of_few_features
from pde_train.differentiators.base import Differentiator
from pde_train.differentiators.complex_step import ComplexStep
from pde_train.differentiators.finite_difference import FiniteDifference
from pde_train.differentiators.forward import Forward
from pde_train.differentiators.hybrid import Hybrid
from pde_train.differentiators.reverse import Reverse
from pde_train.differentiators.stochastic import Stochastic
from pde_train.differentiators.taylor import Taylor
from pde_train.errors import UsageError
from pde_train.experiment import build
from pde_train.models.base import LinearModel
from pde_train.pdes.poisson_1d import Poisson1D
from pde_train.problem import Problem
from pde_train.runs import flags, tables
from pde_train.runs.result import Result
from pde_train.runs.run import run, run_config
from pde_train.samplers.base import Sampler
from pde_train.samplers.grid import Grid
from pde_train.samplers.uniform import Uniform

pytestmark = pytest.mark.usefixtures("without_figures")

NAMES = {"audit/on_points", "audit/between_points", "audit/ratio", "audit/derivatives", "audit/features"}


@dataclass(eq=False)
class Wrong(nn.Module):
    """The exact solution of Poisson 1D, sin(pi x), plus size sin(wave x + phase)."""

    size: float
    wave: float
    phase: float = 0.0

    def __post_init__(self) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(math.pi * x) + self.size * torch.sin(self.wave * x + self.phase)


def audited(model: nn.Module, step: float | str, sampler: Sampler) -> tuple[dict[str, float], float, dict[str, str]]:
    """The audit of a function as if it had been trained with central differences of a step, and its residual."""
    problem = Problem(Poisson1D(), model, FiniteDifference(2, step), sampler)
    batch = problem.draw(np.random.default_rng(0))
    trained = problem.residual(batch)
    found = Audit().metrics(problem, batch, trained)
    metrics = {**found, "residual": trained, "residual_exact": problem.residual_exact()}
    return found, trained, flags.raised(flags.Facts(metrics, None, 100.0, False, "float64"))


@pytest.mark.parametrize("interior", [51, 201, 1001, 2001])  # 1001 points are also those on which errors are measured
def test_a_wave_with_its_nodes_on_the_grid_is_seen_between_the_points_alone(interior: int) -> None:
    h = 2 / (interior - 1)
    found, trained, flagged = audited(Wrong(1.0, math.pi / h), h, Grid(interior, 2))
    assert trained < math.pi**2 * h**2 / 6 + 1e-9  # what central differences leave of sin(pi x), and rounding
    assert found["audit/on_points"] < 1e-3  # its second derivative is 0 there, too
    # |u''| is (pi / h)^2 / sqrt 2 on average; the right side pi^2 / sqrt 2
    assert found["audit/between_points"] == pytest.approx(h**-2, rel=0.2)
    assert found["audit/ratio"] == found["audit/between_points"] / trained
    assert "the function solves what the differentiator sees at the training points" in flagged["unresolved"]


@pytest.mark.parametrize("sampler", [Uniform(150, 2), Grid(150, 2)])
def test_a_wave_of_the_period_of_the_stencil_is_seen_on_any_points(sampler: Sampler) -> None:
    h = 0.1
    found, trained, flagged = audited(Wrong(0.1, 2 * math.pi / h), h, sampler)
    assert trained < 0.01
    for place in ("on_points", "between_points"):
        assert found[f"audit/{place}"] == pytest.approx(0.1 * (2 / h) ** 2, rel=0.2)
    assert "unresolved" in flagged


def test_a_good_function_and_one_whose_fault_the_differentiator_sees_are_not_flagged() -> None:
    for model in (Wrong(0.0, 1.0), Wrong(1e-3, 1.0), Wrong(1.0, 7.0), Wrong(0.3, 11.0)):
        found, trained, flagged = audited(model, 0.05, Grid(101, 2))
        assert not flagged
        assert found["audit/ratio"] == max(found["audit/on_points"], found["audit/between_points"]) / trained < 100


def test_the_exact_residuals_are_those_of_the_formula() -> None:
    sampler = Uniform(40, 2)
    problem = Problem(Poisson1D(), Wrong(0.2, 5.0, 0.3), FiniteDifference(2, 0.3), sampler)
    batch = problem.draw(np.random.default_rng(0))
    found = Audit().metrics(problem, batch, 1.0)
    for place, points in (("on_points", batch), ("between_points", problem.held_out())):
        x, ends = points["interior"].x, points["boundary"].x
        assert points["interior"].x.shape == (40, 1)
        inside = -0.2 * 25 * torch.sin(5 * x + 0.3)
        outside = 0.2 * torch.sin(5 * ends + 0.3)
        scale = torch.cat([math.pi**2 * torch.sin(math.pi * x), torch.sin(math.pi * ends)])
        expected = torch.cat([inside, outside]).norm() / scale.norm()
        assert found[f"audit/{place}"] == pytest.approx(float(expected), rel=1e-9)
    assert not torch.equal(batch["interior"].x, problem.held_out()["interior"].x)


@pytest.mark.parametrize(
    "overrides",
    [
        ["pde=burgers_1d", "sampler.interior=64"],
        ["pde=convection_1d", "sampler.interior=[10,20]"],
        ["pde=poisson_nd", "sampler=sobol", "sampler.interior=100"],
        ["pde=poisson_nd", "sampler=sobol", "pde.dimension=2", "sampler.interior=100"],
        ["pde=biharmonic_2d", "pde.boundary=clamped", "sampler.interior=49"],
    ],
)
def test_points_between_are_as_many_in_each_region_and_none_of_those_of_training(
    compose: Compose, overrides: list[str]
) -> None:
    """Else two relative residuals of one function would differ by the share of its boundary alone."""
    problem = build(compose(*overrides)).problem
    batch, between = problem.draw(np.random.default_rng(problem.sampler.seed)), problem.held_out()
    assert {k: p.x.shape for k, p in batch.items()} == {k: p.x.shape for k, p in between.items()}
    distances = torch.cdist(batch["interior"].x, between["interior"].x)
    assert float(distances.min()) > 1e-6
    assert torch.equal(between["interior"].x, problem.held_out()["interior"].x)


def test_every_differentiator_is_audited(compose: Compose) -> None:
    problem = build(compose("sampler.interior=10")).problem
    batch = problem.draw(np.random.default_rng(0))
    for one in (Reverse(), Forward(), Taylor(), ComplexStep(), FiniteDifference(), Hybrid(), Stochastic()):
        problem.differentiator = one
        assert set(Audit().metrics(problem, batch, 1.0)) == NAMES
        assert Audit(None).metrics(problem, batch, 1e-20) == {}


class Normalised(nn.Module):
    """A network with a layer norm, of which torch's nested forward mode gives a wrong second derivative."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers = nn.Linear(1, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 1)
        self.layers = nn.Sequential(*layers).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def test_derivatives_that_are_said_to_be_exact_are_compared_with_another_exact_way() -> None:
    errors = {}
    for by in (Reverse(), Forward()):
        problem = Problem(Poisson1D(), Normalised(), by, Grid(20, 2))
        errors[type(by)] = derivative_error(problem)
        metrics = {"residual": 1.0, "residual_exact": 1.0, "audit/derivatives": errors[type(by)]}
        facts = flags.Facts(metrics, None, None, True, "float64")
        assert ("inexact" in flags.raised(facts)) == (by == Forward())
    assert errors[Reverse] < 1e-6  # of the differences with which it is compared
    assert errors[Forward] > 0.1


@pytest.mark.parametrize(
    ("by", "error"), [(FiniteDifference(2, 1e-3), math.pi**2 / 12 * 1e-6), (Taylor(), 0), (ComplexStep(), 0)]
)
def test_the_error_of_derivatives_is_that_of_the_formula(by: Differentiator, error: float) -> None:
    problem = Problem(Poisson1D(), Wrong(0.0, 1.0), by, Grid(20, 2))
    assert derivative_error(problem) == pytest.approx(error, rel=1e-3, abs=1e-12)


def test_a_thousand_dimensions_are_compared_by_a_few_derivatives(compose: Compose) -> None:
    problem = build(compose("pde=poisson_nd", "pde.dimension=1000", "model=two_layer", "model.width=4")).problem
    began = time.monotonic()
    assert derivative_error(problem) < 1e-12
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("numbers", "first_loss", "expected"),
    [
        ({}, None, set()),
        ({"loss": 11.0}, 1.0, {"diverged"}),
        ({"loss": 9.0}, 1.0, set()),
        ({"residual": 11.0}, None, {"diverged"}),
        ({"loss": math.nan}, 1.0, {"diverged"}),
        ({"error_l2": math.inf}, 1.0, {"diverged", "other_solution"}),
        ({"residual_exact": math.nan}, 1.0, {"diverged", "unresolved"}),
        ({"residual": 0.005, "audit/on_points": 1.0}, None, {"unresolved"}),
        ({"residual": 0.02, "audit/on_points": 1.0}, None, set()),
        ({"residual": 0.005, "audit/between_points": 1.0}, None, {"unresolved"}),
        ({"residual": 1e-7, "residual_exact": 1e-4}, None, {"unresolved"}),
        ({"residual": 0.0, "residual_exact": 0.0, "audit/on_points": 1e-10}, None, set()),
        ({"residual": 0.0, "audit/on_points": 1e-3}, None, {"unresolved"}),
        ({"audit/derivatives": 1e-5}, None, {"inexact"}),
        ({"audit/derivatives": 1e-7}, None, set()),
        ({"audit/derivatives": math.nan}, None, set()),
        ({"error_l2": 0.6}, None, {"other_solution"}),
        ({"error_l2": 2e-6, "reference_error": 1e-6}, None, {"at_reference"}),
        ({"interval/k/ahead": 1.5}, None, {"unsettled_number"}),
        ({"interval/k/ahead": math.inf}, None, {"undetermined_number"}),
        ({"interval/k/ahead": 0.5}, None, set()),
        ({"misfit/u": 0.6}, None, {"poor_fit"}),
        ({"misfit/u": 0.3}, None, set()),
        ({"audit/features": 1e-15}, None, {"given_solution"}),
        ({"audit/features": 1e-9}, None, set()),
        ({"error_l2": 0.4}, None, set()),
        ({"error_l2": 0.6, "residual_exact": 0.01, "residual": 0.01}, None, set()),
    ],
)
def test_flags(numbers: dict[str, float], first_loss: float | None, expected: set[str]) -> None:
    good = {"loss": 1e-8, "residual": 1e-4, "residual_exact": 1e-4, "error_l2": 1e-4}
    assert set(flags.raised(flags.Facts({**good, **numbers}, first_loss, 100.0, True, "float64"))) == expected


@pytest.mark.parametrize("factor", ["0.5", "-1", "0", "many", "true", ".nan"])
def test_a_factor_that_flags_nothing_well_is_refused(compose: Compose, factor: str) -> None:
    with pytest.raises(UsageError, match=r"audit.factor=.*expected"):
        build(compose(f"audit.factor={factor}"))


def test_training_on_a_coarse_stencil_is_flagged_and_on_a_fine_one_not(
    compose: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rough = ["model.weight_range=60", "model.features=150", "sampler.interior=30", "differentiator=finite_difference"]
    coarse = run(build(compose(*rough, "differentiator.step=grid")), tmp_path / "coarse").last()
    assert coarse["residual"] < 1e-9
    assert coarse["audit/between_points"] > 0.1
    assert coarse["flag/unresolved"] == 1
    assert "unresolved: the exact residual is" in caplog.text
    caplog.clear()
    good = ["differentiator=finite_difference", "differentiator.accuracy=4"]
    fine = run(build(compose(*good)), tmp_path / "fine").last()
    assert fine["flag/unresolved"] == 0
    assert fine["audit/between_points"] < 1e-8
    assert not caplog.text


def test_flags_are_in_result_table_and_record(compose: Compose, tmp_path: Path) -> None:
    network = ["model=two_layer", "model.width=8", "method.steps=50", "sampler.interior=20", "method.compile=never"]
    wrong = {
        "diverged": [*network, "optimizer.lr=1e10"],
        "unresolved": ["pde.frequency=1000", "sampler.interior=50"],
        "far_from_best_step": [
            *("differentiator=finite_difference", "differentiator.accuracy=8", "model.weight_range=10"),
            *("model=two_layer", "model.width=20", "method.steps=3", "diagnostics=none"),
        ],
    }
    for name, words in wrong.items():
        result = run_config(compose(*words), tmp_path / name, {}, [])
        assert name in result.flags
        assert Result.read(tmp_path / name).metrics[f"flag/{name}"] == 1
        text = tables.markdown_table(tables.medians(tables.groups([result])))
        assert name in text.splitlines()[-1]
    good = run_config(compose(), tmp_path / "good", {}, [])
    assert good.flags == ""
    assert all(good.metrics[f"flag/{name}"] == 0 for name in flags.NAMES)


class Cosines(LinearModel):
    """cos(a_i . x), with frequencies (P, d)."""

    def __init__(self, frequencies: list[list[float]]) -> None:
        super().__init__()
        self.frequencies = torch.tensor(frequencies, dtype=torch.float64)
        self.coefficients = nn.Parameter(torch.zeros(len(frequencies), 1, dtype=torch.float64))

    def features(self, x: Tensor) -> Tensor:
        return torch.cos(x @ self.frequencies.T)


def few_features_of(problem: Problem) -> float:
    error = error_of_few_features(problem)
    assert error is not None
    return error


def test_features_that_hold_the_solution_are_found(compose: Compose) -> None:
    problem = build(compose("pde=poisson_2d")).problem  # 2 sin(pi x) sin(pi y) = cos(pi (x - y)) - cos(pi (x + y))
    others, pi = [[1.3, 0.7], [2.0, -1.0], [0.3, 4.0]], math.pi
    held = replace(problem, model=Cosines([[pi, -pi], *others, [pi, pi]]))
    assert few_features_of(held) < 1e-13
    near = replace(problem, model=Cosines([[pi, -1.001 * pi], *others, [pi, pi]]))
    assert 1e-5 < few_features_of(near) < 1e-1
    assert few_features_of(build(compose("pde=poisson_2d", "model.features=300")).problem) > 1e-3
    assert error_of_few_features(build(compose("pde=poisson_2d", "model=two_layer")).problem) is None


def test_null_makes_no_audit(compose: Compose, tmp_path: Path) -> None:
    few = ["model.features=5", "differentiator=finite_difference", "audit.factor=null"]
    assert not any(key.startswith("audit") for key in run(build(compose(*few)), tmp_path).series)
