"""A look at a model without training it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures import Compose

from pde_train.conf_dir import conf_dir
from pde_train.diagnostics.compare import Compare
from pde_train.diagnostics.spectrum import SpectrumProbe
from pde_train.errors import UsageError
from pde_train.experiment import build
from pde_train.methods.probe import Probe
from pde_train.runs.run import run, run_config

pytestmark = pytest.mark.usefixtures("without_figures")

NETWORK = ["model=two_layer", "model.width=6", "sampler.interior=20"]
TRAINED = [*NETWORK, "method.steps=40", "method.log_every=10", "method.checkpoint_every=40", "method.compile=never"]
QUICK = ["diagnostics.repeats=1"]
FEW = [f"~diagnostics.differentiators.{name}" for name in ("complex_step", "forward", "finite_difference_8")]


def same_numbers(found: dict[str, float], expected: dict[str, float]) -> None:
    """Whether a probe gives every number that a run's last look gave, but for wall times."""
    times = ("seconds", "steps", "loss")
    keys = [k for k in expected if not k.startswith(times) and not k.endswith("/seconds")]
    assert len(keys) > 100
    assert {k: found[k] for k in keys} == {k: expected[k] for k in keys}


@pytest.mark.parametrize(
    "more",
    [
        [],
        ["differentiator=finite_difference/1e-3"],
        ["accelerator.precision=float32"],
        ["pde=poisson_2d", "sampler=uniform", "differentiator=stochastic", "model=mlp", "model.hidden=[4,4]"],
    ],
)
def test_a_probe_of_what_a_run_left_gives_the_numbers_of_the_run(
    compose: Compose, tmp_path: Path, more: list[str]
) -> None:
    network = TRAINED if not any(m.startswith("model=") for m in more) else [m for m in TRAINED if "width" not in m]
    trained = run(build(compose(*network, "diagnostics=compare", *QUICK, *FEW, *more)), tmp_path / "run")
    expected = trained.last()
    if "differentiator=stochastic" in more:  # what the run itself drew is gone
        expected = {k: v for k, v in expected.items() if k != "residual" and not k.startswith("audit")}
    shape = [m for m in network if not m.startswith("method")]
    for file in ("model.pt", "checkpoint.ckpt"):
        look = ["method=probe", f"method.checkpoint={tmp_path / 'run' / file}", "seed=5", "sampler.seed=0"]
        torch.manual_seed(99)
        record = run(build(compose(*shape, *look, *QUICK, *FEW, *more)), tmp_path / file)
        same_numbers(record.last(), expected)
        assert np.array_equal(record.spectra[0].values, trained.spectra[40].values)
        for name, measured in record.comparison.items():
            assert np.array_equal(measured.spectrum.values, trained.comparison[name].spectrum.values)
        assert "loss" not in record.series


def test_a_probe_of_random_features_shows_the_system_that_least_squares_solved(
    compose: Compose, tmp_path: Path
) -> None:
    linear = ["model.features=20", "sampler.interior=30", "pde=biharmonic_1d", "differentiator=finite_difference"]
    solved = run(build(compose(*linear, "diagnostics=compare", *QUICK)), tmp_path / "run")
    look = ["method=probe", f"method.checkpoint={tmp_path / 'run' / 'model.pt'}", *QUICK]
    record = run(build(compose(*linear, *look, "seed=3", "sampler.seed=0")), tmp_path / "probe")
    assert np.array_equal(record.spectra[0].values, solved.spectra[0].values)
    for key in ("error_l2", "residual_exact", "audit/between_points", "compare/reverse/gradient_ratio"):
        assert record.last()[key] == solved.last()[key]
    for name, measured in record.comparison.items():
        assert np.array_equal(measured.spectrum.values, solved.comparison[name].spectrum.values)
    assert np.array_equal(solved.comparison["finite_difference"].spectrum.values, solved.spectra[0].values)
    assert record.last()["residual"] == pytest.approx(solved.last()["residual"], rel=0.1)  # of A a, and of u itself


def test_random_features_in_a_nonlinear_equation_are_probed_by_their_jacobian(compose: Compose, tmp_path: Path) -> None:
    nonlinear = ["pde=burgers_1d", "model=random_features", "model.features=8", "sampler.interior=16"]
    nonlinear.append("differentiator=reverse")
    record = run(build(compose(*nonlinear, "method=probe", *QUICK)), tmp_path)
    assert len(record.spectra[0].values) == 8
    assert np.array_equal(record.spectra[0].values, record.comparison["reverse"].spectrum.values)


def test_a_probe_without_a_checkpoint_leaves_the_initial_weights_as_they_are(compose: Compose, tmp_path: Path) -> None:
    experiment = build(compose(*NETWORK, "method=probe", *QUICK))
    before = {k: v.clone() for k, v in experiment.problem.model.state_dict().items()}
    record = run(experiment, tmp_path)
    assert all(torch.equal(v, before[k]) for k, v in experiment.problem.model.state_dict().items())
    assert record.last()["steps"] == 0
    first = run(build(compose(*TRAINED, "diagnostics=compare", "diagnostics.when=[first]", *QUICK)), tmp_path / "run")
    for key in ("spectrum/min", "error_l2", "compare/finite_difference/error/u_xx", "compare/stochastic/memory"):
        assert record.series[key][0] == first.series[key][0]


def test_a_probe_compares_every_choice_of_differentiators_unless_told_otherwise(compose: Compose) -> None:
    experiment = build(compose(*NETWORK, "method=probe"))
    assert isinstance(experiment.method, Probe)
    assert isinstance(experiment.diagnostics, Compare)
    choices = {file.stem for file in (conf_dir() / "differentiator").glob("*.yaml")}
    assert choices <= set(experiment.diagnostics.differentiators)
    for model in ("random_features", "mlp"):
        told = build(compose(f"model={model}", "method=probe", "diagnostics=spectrum"))
        assert isinstance(told.method, Probe)
        assert isinstance(told.diagnostics, SpectrumProbe)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, r"cannot be read \(FileNotFoundError\): expected the folder, model.pt or checkpoint.ckpt of a run"),
        ("text", "cannot be read"),
        (torch.zeros(3), "cannot be read"),
        ([1, 2], "cannot be read"),
        ({"step": 3}, "cannot be read"),
        ({}, "holds another model"),
        ({"layers.0.weight": torch.zeros(7, 1)}, r"holds another model .*expected the model of this configuration"),
    ],
)
def test_a_wrong_checkpoint_is_one_sentence(compose: Compose, tmp_path: Path, content: Any, sentence: str) -> None:
    file = tmp_path / "model.pt"
    if content == "text":
        file.write_text("no tensors here")
    elif content is not None:
        torch.save(content, file)
    with pytest.raises(UsageError, match=sentence) as raised:
        run_config(compose(*NETWORK, "method=probe", f"method.checkpoint={file}"), tmp_path / "probe", {}, [])
    assert "\n" not in str(raised.value)
    assert str(raised.value).startswith(f"method.checkpoint={file} ")


def test_a_folder_and_the_model_of_another_width_are_refused(compose: Compose, tmp_path: Path) -> None:
    other = build(compose("model=two_layer", "model.width=7")).problem.model
    torch.save(other.state_dict(), tmp_path / "model.pt")
    for checkpoint, sentence in (
        ("model.pt", "holds another model"),
        ("", "holds another model"),
        ("none", "cannot be read"),
    ):
        cfg = compose(*NETWORK, "method=probe", f"method.checkpoint={tmp_path / checkpoint}")
        with pytest.raises(UsageError, match=sentence):
            run_config(cfg, tmp_path / "probe", {}, [])
