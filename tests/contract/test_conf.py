"""Every YAML choice of every group composes, builds, and keeps the contract of its kind."""

from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures import Compose

from pde_train.conf_dir import choices
from pde_train.diagnostics.base import Diagnostics
from pde_train.differentiators.base import Differentiator
from pde_train.entropy import Entropy
from pde_train.errors import UsageError
from pde_train.experiment import build
from pde_train.instantiate import build_group
from pde_train.methods.base import Method
from pde_train.pdes.base import PDE
from pde_train.references import base
from pde_train.references.fourier import Semilinear
from pde_train.runs.run import run
from pde_train.samplers.base import Sampler
from pde_train.tracking.base import Tracker

pytestmark = pytest.mark.usefixtures("without_figures", "few_test_points")

KINDS = {
    "pde": PDE,
    "model": torch.nn.Module,
    "differentiator": Differentiator,
    "sampler": Sampler,
    "method": Method,
    "entropy": Entropy,
    "diagnostics": Diagnostics,
    "tracking": Tracker,
}

NONLINEAR = {
    "allen_cahn_1d": "allen_cahn",
    "allen_cahn_2d": "allen_cahn",
    "allen_cahn_periodic_1d": "allen_cahn",
    "beltrami_3d": "momentum_x",
    "bratu_2d": "bratu",
    "burgers_1d": "burgers",
    "heat_inverse_2d": "heat",
    "schroedinger_1d": "real",
    "gray_scott_2d": "substrate",
    "kdv_1d": "kdv",
    "kdv_periodic_1d": "kdv",
    "klein_gordon_1d": "klein_gordon",
    "kovasznay_2d": "momentum_x",
    "lid_driven_cavity_2d": "momentum_x",
    "kuramoto_sivashinsky_1d": "kuramoto_sivashinsky",
    "poisson_inverse_2d": "diffusion",
    "kuramoto_sivashinsky_chaotic_1d": "kuramoto_sivashinsky",
    "kuramoto_sivashinsky_regular_1d": "kuramoto_sivashinsky",
    "reaction_1d": "reaction",
    "sine_gordon_nd": "sine_gordon",
    "taylor_green_2d": "momentum_x",
}
"""PDEs that least squares cannot solve, with the first equation that is not linear."""

SMALL = ["sampler.interior=16", "sampler.boundary=12"]


@pytest.fixture(autouse=True)
def quick_references(monkeypatch: pytest.MonkeyPatch) -> None:
    """References by Fourier series are their start at all times: what a run does with values needs no solution."""
    monkeypatch.setattr(base, "VERSION", "the start")
    monkeypatch.setattr(Semilinear, "at", lambda self, x, modes, step: self.start(*x[:, :-1].T).T)


CHOICES = [(group, choice) for group in KINDS for choice in choices(group)]


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_choice_builds_its_kind(compose: Compose, group: str, choice: str) -> None:
    cfg = compose(f"{group}={choice}", *(["tracking.uri=sqlite:///mlflow.db"] if choice == "mlflow" else []))
    facts = {"dimension": 1} if group == "model" else {}
    assert isinstance(build_group(cfg, group, **facts), KINDS[group])


@pytest.mark.parametrize("choice", choices("optimizer"))
def test_optimizer_lowers_the_loss(compose: Compose, choice: str, tmp_path: Path) -> None:
    small = ["model=two_layer", "model.width=5", "method.steps=60", "method.log_every=60", "diagnostics=none", *SMALL]
    experiment = build(compose(f"optimizer={choice}", *small))
    losses = run(experiment, tmp_path).series["loss"]
    assert losses[59] < losses[0]


DETERMINISTIC = [name for name in choices("differentiator") if name != "stochastic" and "/" not in name]

ONE_OF_A_KIND = [  # operators of every order, linear and not, systems, one dimension and many
    *("poisson_1d", "poisson_2d", "poisson_nd", "biharmonic_1d", "biharmonic_2d", "euler_beam", "convection_1d"),
    *("linear_kdv_1d", "burgers_1d", "kovasznay_2d", "schroedinger_1d"),
]


@pytest.mark.parametrize("pde", choices("pde"))
@pytest.mark.parametrize("differentiator", DETERMINISTIC)
def test_every_pde_trains_under_every_differentiator(
    compose: Compose, tmp_path: Path, pde: str, differentiator: str
) -> None:
    words = ["model=two_layer", "model.width=4", "method.steps=20", "method.compile=never", "diagnostics=none"]
    words += ["pde.dimension=5"] if pde == "sine_gordon_nd" else []  # 100 are for differentiator=stochastic
    experiment = build(compose(f"pde={pde}", f"differentiator={differentiator}", *SMALL, *words))
    record = run(experiment, tmp_path)
    losses = record.series["loss"]
    assert np.isfinite(list(losses.values())).all()
    assert losses[19] < losses[0]
    assert np.isfinite(record.last()["residual_exact"])
    if experiment.problem.differentiator.exact:  # or it says that it is not
        assert record.last()["audit/derivatives"] < 1e-8 or "inexact" in record.tags["flags"]


@pytest.mark.parametrize("model", choices("model"))
@pytest.mark.parametrize("pde", ONE_OF_A_KIND)
@pytest.mark.parametrize("differentiator", ["reverse", "finite_difference", "taylor"])
def test_every_pde_model_and_differentiator_run_together(
    compose: Compose, tmp_path: Path, pde: str, model: str, differentiator: str
) -> None:
    short = {
        "random_features": ["model.features=10"],
        "two_layer": ["model.width=4", "method.steps=2"],
        "mlp": ["model.hidden=[4,3]", "method.steps=2"],
        "fourier_features": ["model.hidden=[4]", "model.frequencies=3", "method.steps=2"],
        "modified_mlp": ["model.width=4", "method.steps=2"],
        "pirate_net": ["model.width=4", "model.blocks=1", "method.steps=2"],
        "siren": ["model.hidden=[4,3]", "model.omega=3", "method.steps=2"],
        "residual": ["model.width=4", "model.blocks=1", "method.steps=2"],
    }
    small = [*SMALL, *short.get(model, []), "diagnostics.when=[last]"]
    cfg = compose(f"pde={pde}", f"model={model}", f"differentiator={differentiator}", *small)
    if model == "random_features" and pde in NONLINEAR:
        sentence = rf"'{NONLINEAR[pde]}' of this PDE is not linear in [uvwp, ]+: choose method=newton_least_squares"
        with pytest.raises(UsageError, match=sentence):
            run(build(cfg), tmp_path)
        return
    metrics = run(build(cfg), tmp_path).last()
    expected = ["residual", "residual_exact", "error_l2", "error_max", "loss", "seconds", "steps"]
    expected += ["spectrum/max", "spectrum/min", "spectrum/condition", "spectrum/count/1e-12"]
    for kind in ("cutoff", "entropy", "entropy_raw", "effective_rank", "effective_dimension"):
        expected += [f"{kind}/1e-{k:02}" for k in (4, 6, 8, 10, 12, 14)]
    assert set(expected) <= set(metrics)
    assert all(np.isfinite(metrics[key]) for key in expected if key != "spectrum/condition")


@pytest.mark.parametrize("experiment", choices("experiment"))
def test_experiment_composes_and_builds(compose: Compose, experiment: str) -> None:
    problem = build(compose(f"experiment={experiment}")).problem
    assert set(problem.draw(np.random.default_rng(0))) >= set(problem.pde.regions)


def test_the_model_chooses_the_method_unless_said(compose: Compose) -> None:
    assert "LeastSquares" in compose("model=random_features").method._target_
    assert "GradientDescent" in compose("model=two_layer").method._target_
    assert "GradientDescent" in compose("model=random_features", "method=gradient_descent").method._target_


def test_steps_of_the_diagnostics(compose: Compose) -> None:
    spectrum = build_group(compose("diagnostics.when=[first,log,50,last]"), "diagnostics")
    assert spectrum.steps(200) == {0, 1, 3, 10, 30, 50, 100, 200}
    assert build_group(compose("diagnostics=none"), "diagnostics").steps(200) == frozenset()
