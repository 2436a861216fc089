"""Functions that are wrong where a differentiator does not look."""

import math
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from pde_train.audit import Audit
from pde_train.differentiators.complex_step import ComplexStep
from pde_train.differentiators.finite_difference import FiniteDifference
from pde_train.differentiators.forward import Forward
from pde_train.differentiators.hybrid import Hybrid
from pde_train.differentiators.reverse import Reverse
from pde_train.differentiators.stochastic import Stochastic
from pde_train.differentiators.taylor import Taylor
from pde_train.errors import UsageError
from pde_train.experiment import build, run
from pde_train.pdes.poisson_1d import Poisson1D
from pde_train.problem import Problem
from pde_train.samplers.grid import Grid
from pde_train.samplers.uniform import Uniform

pytestmark = pytest.mark.usefixtures("without_figures")

NAMES = {"audit/on_points", "audit/between_points", "audit/ratio", "audit/flag"}


@dataclass(eq=False)
class Wrong(nn.Module):
    """The exact solution of Poisson 1D, sin(pi x), plus size sin(wave x + phase)."""

    size: float
    wave: float
    phase: float = 0.0

    def __post_init__(self):
        super().__init__()

    def forward(self, x):
        return torch.sin(math.pi * x) + self.size * torch.sin(self.wave * x + self.phase)


def audited(model, step, sampler):
    """The audit of a function as if it had been trained with central differences of a step, and its residual."""
    problem = Problem(Poisson1D(), model, FiniteDifference(2, step), sampler)
    batch = problem.draw(np.random.default_rng(0))
    trained = problem.residual(batch)
    return Audit().metrics(problem, batch, trained), trained


@pytest.mark.parametrize("interior", [51, 201, 1001, 2001])  # 1001 points are also those on which errors are measured
def test_a_wave_with_its_nodes_on_the_grid_is_seen_between_the_points_alone(caplog, interior):
    h = 2 / (interior - 1)
    found, trained = audited(Wrong(1.0, math.pi / h), h, Grid(interior, 2))
    assert trained < math.pi**2 * h**2 / 6 + 1e-9  # what central differences leave of sin(pi x), and rounding
    assert found["audit/on_points"] < 1e-3  # its second derivative is 0 there, too
    # |u''| is (pi / h)^2 / sqrt 2 on average; the right side pi^2 / sqrt 2
    assert found["audit/between_points"] == pytest.approx(h**-2, rel=0.2)
    assert found["audit/ratio"] == found["audit/between_points"] / trained
    assert found["audit/flag"] == 1
    assert "the function solves what the differentiator sees and not the equation" in caplog.text


@pytest.mark.parametrize("sampler", [Uniform(150, 2), Grid(150, 2)])
def test_a_wave_of_the_period_of_the_stencil_is_seen_on_any_points(sampler):
    h = 0.1
    found, trained = audited(Wrong(0.1, 2 * math.pi / h), h, sampler)
    assert trained < 0.01
    for place in ("on_points", "between_points"):
        assert found[f"audit/{place}"] == pytest.approx(0.1 * (2 / h) ** 2, rel=0.2)
    assert found["audit/flag"] == 1


def test_a_good_function_and_one_whose_fault_the_differentiator_sees_are_not_flagged(caplog):
    for model in (Wrong(0.0, 1.0), Wrong(1e-3, 1.0), Wrong(1.0, 7.0), Wrong(0.3, 11.0)):
        found, trained = audited(model, 0.05, Grid(101, 2))
        assert found["audit/flag"] == 0
        assert found["audit/ratio"] == max(found["audit/on_points"], found["audit/between_points"]) / trained < 100
    assert "audit" not in caplog.text


def test_the_exact_residuals_are_those_of_the_formula():
    sampler = Uniform(40, 2)
    problem = Problem(Poisson1D(), Wrong(0.2, 5.0, 0.3), FiniteDifference(2, 0.3), sampler)
    batch = problem.draw(np.random.default_rng(0))
    found = Audit().metrics(problem, batch, 1.0)
    for place, points in (("on_points", batch), ("between_points", problem.between())):
        x, ends = points["interior"].x, points["boundary"].x
        assert points["interior"].x.shape == (40, 1)
        inside = -0.2 * 25 * torch.sin(5 * x + 0.3)
        outside = 0.2 * torch.sin(5 * ends + 0.3)
        scale = torch.cat([math.pi**2 * torch.sin(math.pi * x), torch.sin(math.pi * ends)])
        expected = torch.cat([inside, outside]).norm() / scale.norm()
        assert found[f"audit/{place}"] == pytest.approx(float(expected), rel=1e-9)
    assert not torch.equal(batch["interior"].x, problem.between()["interior"].x)


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
def test_points_between_are_as_many_in_each_region_and_none_of_those_of_training(compose, overrides):
    """Else two relative residuals of one function would differ by the share of its boundary alone."""
    problem = build(compose(*overrides)).problem
    batch, between = problem.draw(np.random.default_rng(problem.sampler.seed)), problem.between()
    assert {k: p.x.shape for k, p in batch.items()} == {k: p.x.shape for k, p in between.items()}
    distances = torch.cdist(batch["interior"].x, between["interior"].x)
    assert float(distances.min()) > 1e-6
    assert torch.equal(between["interior"].x, problem.between()["interior"].x)


def test_only_inexact_differentiators_are_audited(compose):
    problem = build(compose("sampler.interior=10")).problem
    batch = problem.draw(np.random.default_rng(0))
    for one in (Reverse(), Forward(), Taylor(), ComplexStep()):
        problem.differentiator = one
        assert Audit().metrics(problem, batch, 1e-20) == {}
    for one in (FiniteDifference(), Hybrid(), Stochastic()):
        problem.differentiator = one
        assert set(Audit().metrics(problem, batch, 1.0)) == NAMES
        assert Audit(None).metrics(problem, batch, 1e-20) == {}


@pytest.mark.parametrize(
    ("exact", "trained", "ratio", "flag"),
    [
        (1.0, 0.02, 50, 0),
        (1.0, 0.005, 200, 1),
        (0.0, 0.0, 1, 0),
        (1e-3, 0.0, math.inf, 1),
        (math.nan, 1.0, math.nan, 1),
    ],
)
def test_the_flag_is_the_ratio_against_the_factor(exact, trained, ratio, flag):
    problem = SimpleNamespace(
        differentiator=FiniteDifference(), residual_exact=lambda batch: exact, between=lambda: "between"
    )
    found = Audit(100.0).metrics(problem, "on", trained)
    assert found["audit/ratio"] == pytest.approx(ratio, nan_ok=True)
    assert found["audit/flag"] == flag
    assert Audit(1e9).metrics(problem, "on", trained or 1.0)["audit/flag"] == float(math.isnan(exact))


@pytest.mark.parametrize("factor", ["0.5", "-1", "0", "many", "true", ".nan"])
def test_a_factor_that_flags_nothing_well_is_refused(compose, factor):
    with pytest.raises(UsageError, match=r"audit.factor=.* flags nothing well: expected a number >= 1, or null"):
        build(compose(f"audit.factor={factor}"))


def test_training_on_a_coarse_stencil_is_flagged_and_on_a_fine_one_not(compose, tmp_path, caplog):
    rough = ["model.weight_range=60", "model.features=150", "sampler.interior=30", "differentiator=finite_difference"]
    coarse = run(build(compose(*rough, "differentiator.step=grid")), tmp_path / "coarse").last()
    assert coarse["residual"] < 1e-9
    assert coarse["audit/between_points"] > 0.1
    assert coarse["audit/flag"] == 1
    assert "audit: the trained residual" in caplog.text
    caplog.clear()
    good = ["differentiator=finite_difference", "differentiator.accuracy=4"]
    fine = run(build(compose(*good)), tmp_path / "fine").last()
    assert fine["audit/flag"] == 0
    assert fine["audit/between_points"] < 1e-8
    assert not caplog.text
    network = ["model=two_layer", "model.width=8", "method.steps=50", "sampler.interior=20", "method.compile=never"]
    for how, expected in (("finite_difference", NAMES), ("hybrid", NAMES), ("taylor", set())):
        last = run(build(compose(*network, f"differentiator={how}")), tmp_path / how).last()
        assert {key for key in last if key.startswith("audit/")} == expected
        assert last.get("audit/flag", 0.0) == 0


def test_null_makes_no_audit(compose, tmp_path):
    few = ["model.features=5", "differentiator=finite_difference", "audit.factor=null"]
    assert not any(key.startswith("audit") for key in run(build(compose(*few)), tmp_path).series)
