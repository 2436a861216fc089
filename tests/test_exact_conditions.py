"""Conditions that hold whatever the parameters are, by the ansatz of a PDE."""

from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures import Compose, descent_of
from torch import Tensor

from pde_train import residuals
from pde_train.derivatives import Jet
from pde_train.differentiators.reverse import Reverse
from pde_train.errors import UsageError
from pde_train.experiment import build
from pde_train.pdes.base import fulfils
from pde_train.pdes.poisson_2d import Poisson2D
from pde_train.problem import Problem
from pde_train.runs.run import run
from pde_train.tracking.record import Record
from pde_train.training.select_stacked_steps import CannotStack, select_stacked
from pde_train.training.signals import StopSignals

pytestmark = pytest.mark.usefixtures("without_figures")

EXACT = ["pde.conditions=exact", "diagnostics=none", "sampler.interior=36", "sampler.boundary=12"]
NETWORK = ["model=mlp", "model.hidden=[5,4]"]
KEPT = {
    "pde=poisson_1d pde.frequency=1.3": {"poisson"},
    "pde=poisson_2d": {"poisson"},
    "pde=biharmonic_1d pde.frequency=0.7": {"biharmonic", "moment"},
    "pde=biharmonic_1d pde.boundary=clamped": {"biharmonic"},
    "pde=biharmonic_2d": {"biharmonic", "moment"},
    "pde=biharmonic_2d pde.boundary=clamped": {"biharmonic"},
    "pde=euler_beam": {"beam", "moment", "shear"},
    "pde=burgers_1d": {"burgers"},
    "pde=convection_1d": {"convection", "seam"},
    "pde=linear_kdv_1d": {"linear_kdv", "seam", "seam_slope", "seam_curvature"},
    "pde=heat_1d": {"heat"},
    "pde=wave_1d": {"wave"},
    "pde=helmholtz_2d": {"helmholtz"},
    "pde=reaction_1d": {"reaction", "seam"},
    "pde=klein_gordon_1d": {"klein_gordon", "value"},
    "pde=diffusion_reaction_1d": {"diffusion_reaction"},
    "pde=heat_nd": {"heat"},
    "pde=sine_gordon_nd pde.dimension=4": {"sine_gordon"},
    "pde=allen_cahn_periodic_1d": {"allen_cahn", "seam", "seam_slope"},
    "pde=kdv_periodic_1d": {"kdv", "seam", "seam_slope", "seam_curvature"},
    "pde=kuramoto_sivashinsky_regular_1d": {
        *("kuramoto_sivashinsky", "seam", "seam_slope", "seam_curvature", "seam_third")
    },
}
"""The equations that stay terms of the loss."""


def posed(compose: Compose, *words: str) -> Problem:
    """A problem whose parameters were drawn, so that no output is zero."""
    problem = build(compose(*EXACT, *words)).problem
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in problem.model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype) / 2)
    return problem


@pytest.mark.parametrize("words", KEPT)
def test_conditions_hold_whatever_the_parameters_are(compose: Compose, words: str) -> None:
    problem = posed(compose, *words.split(), *NETWORK)
    soft = build(compose(*EXACT[1:], *words.split(), *NETWORK)).problem
    batch = soft.draw(np.random.default_rng(0))
    values = residuals.evaluate(soft.pde, problem.model, Reverse(), batch)
    assert {equation.name for equation in problem.pde.equations()} == KEPT[words]
    for name, residual in values.items():
        if name in KEPT[words]:
            assert float(residual.detach().abs().max()) > 1e-3  # it is no accident
        else:
            assert float(residual.detach().abs().max()) < 1e-14


@pytest.mark.usefixtures("few_test_points")
@pytest.mark.parametrize("differentiator", ["forward", "taylor", "complex_step", "hybrid", "finite_difference"])
@pytest.mark.parametrize("words", KEPT)
def test_every_differentiator_sees_through_the_ansatz(compose: Compose, words: str, differentiator: str) -> None:
    problem = posed(compose, *words.split(), *NETWORK, f"differentiator={differentiator}")
    batch = problem.draw(np.random.default_rng(0))
    problem.begin(batch, problem.model)
    own = residuals.evaluate(problem.pde, problem.model, problem.differentiator, batch)
    for name, expected in residuals.evaluate(problem.pde, problem.model, Reverse(), batch).items():
        close = 1e-4 if differentiator in ("finite_difference", "hybrid") else 1e-12
        assert float((own[name] - expected).detach().abs().max()) < close * float(1 + expected.detach().abs().max())


def test_the_ansatz_is_that_of_the_paper_by_hand(compose: Compose) -> None:
    problem = posed(compose, "pde=poisson_2d", *NETWORK)
    x = torch.rand(9, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    raw = problem.model.get_submodule("model")
    factor = (x * (1 - x)).prod(1, keepdim=True)
    assert torch.allclose(problem.model(x), factor * raw(x), rtol=1e-14, atol=0)


def test_random_features_solve_with_exact_conditions(compose: Compose, tmp_path: Path) -> None:
    exact = run(build(compose("pde=poisson_2d", *EXACT[:2], "model.features=400")), tmp_path).last()
    assert exact["error_l2"] < 1e-6
    assert exact["residual_exact"] < 1e-5


def test_a_network_trains_resumes_and_starts_another(compose: Compose, tmp_path: Path) -> None:
    words = ["pde=poisson_2d", *EXACT, *NETWORK, "optimizer=ssbroyden", "method.compile=never"]
    record = run(build(compose(*words, "method.steps=300", "method.log_every=100")), tmp_path / "first")
    assert record.last()["error_l2"] < 1e-2
    second = build(compose(*words, "method.steps=10", f"model.start={tmp_path / 'first'}")).problem
    assert second.errors()["error_l2"] == pytest.approx(record.last()["error_l2"], rel=1e-12)
    soft = build(compose("pde=poisson_2d", *NETWORK, f"model.start={tmp_path / 'first'}")).problem
    assert torch.equal(next(soft.model.parameters()), next(second.model.parameters()))


def test_other_numbers_of_the_pde_are_no_stack(compose: Compose, tmp_path: Path) -> None:
    """The steps of a stack vary the numbers of its PDE, and the ansatz has those of one."""
    words = ["pde=convection_1d", *EXACT, *NETWORK, "method.steps=20", "method.compile=never"]
    trainings = []
    for beta in (1.0, 2.0):
        experiment = build(compose(*words, f"pde.beta={beta}"))
        record = Record(experiment.tracker, experiment.entropy)
        folder = tmp_path / str(beta)
        trainings.append(descent_of(experiment).training(experiment.problem, record, experiment.diagnostics, folder))
    with pytest.raises(CannotStack, match=r"the ansatz of pde\.conditions=exact has the numbers of one PDE"):
        select_stacked(trainings, StopSignals(), 1e9)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["pde=poisson_2d", "pde.conditions=hard"], r"pde\.conditions=hard is unknown: expected one of soft, exact"),
        (["pde=poisson_nd"], r"pde\.conditions=exact needs an ansatz, and PoissonND has none: expected a method"),
        (["pde=convection_1d"], r"adds a function to the features of RandomFeatures, because the conditions are not"),
    ],
)
def test_what_cannot_be_is_refused(compose: Compose, words: list[str], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        build(compose("pde.conditions=exact", *words))


def test_an_ansatz_that_does_not_do_what_it_says_is_refused(compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    @fulfils("value")
    def forgets_two_sides(self: Poisson2D, d: Jet, raw: Tensor) -> Tensor:
        return d.x * (1 - d.x) * raw

    monkeypatch.setattr(Poisson2D, "ansatz", forgets_two_sides)
    with pytest.raises(UsageError, match=r"the ansatz of Poisson2D is said to fulfil 'value', and misses it by \d"):
        build(compose("pde=poisson_2d", "pde.conditions=exact"))


def test_one_problem_may_be_both(compose: Compose) -> None:
    """What was derived of the soft PDE is not kept by the exact one, and the other way round."""
    soft = build(compose("pde=poisson_2d")).problem.pde
    assert [e.name for e in soft.equations()] == ["poisson", "value"]
    exact = soft.with_exact_conditions()
    assert [e.name for e in exact.equations()] == ["poisson"]
    assert set(exact.regions) == {"interior"}
    assert [e.name for e in soft.equations()] == ["poisson", "value"]
    assert exact.fulfilled == ("value",)


def test_an_ansatz_that_holds_what_is_to_be_learnt_is_refused(compose: Compose) -> None:
    words = ["model=mlp", "pde.conditions=exact", "pde.learn={frequency: {start: 1.0}}", "pde.frequency=1.3"]
    words += ["pde.data={path: exact, count: 20}"]
    with pytest.raises(UsageError, match=r"the ansatz of Poisson1D holds frequency=1\.3, and pde\.learn\.frequency is"):
        build(compose("pde=poisson_1d", *words))
