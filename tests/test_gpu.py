"""What only a GPU can show: that it gives the numbers of the CPU. Skipped where there is none."""

from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures import Compose, KilledAt

from pde_train.experiment import build
from pde_train.geometry import Batch
from pde_train.problem import Problem
from pde_train.runs.result import Result
from pde_train.runs.run import run, run_config
from pde_train.training.signals import StopSignals
from pde_train.training.stacked_steps import StackedSteps
from pde_train.training.steps import EagerSteps

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.usefixtures("without_figures"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]
two_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")

CPU, GPU = "accelerator=cpu", "accelerator=gpu"
DDP = ["accelerator=ddp", "accelerator.accelerator=gpu"]
SMALL = ["model=mlp", "model.hidden=[8,8]", "sampler=uniform", "sampler.interior=40", "audit=null"]

# A large eps of Adam: with a small one, an entry of the gradient that is 0 but for rounding makes a step of full size.
ADAM = ["optimizer.lr=1e-2", "optimizer.eps=1e-2"]
RUN = [*SMALL, *ADAM, "diagnostics=none", "method.steps=30", "method.log_every=10", "method.checkpoint_every=10"]
EAGER, COMPILED = "method.compile=never", "method.compile=always"

ROUNDING = {"float64": 1e-9, "float32": 1e-3}
"""Relative: tanh and sums differ by a few roundings, some thousand a step, each amplified by up to 1 / eps = 100."""


def losses(compose: Compose, folder: Path, *overrides: str) -> tuple[list[float], str]:
    """The losses of a run, and how its steps were computed."""
    record = run(build(compose(*overrides)), folder)
    return list(record.series["loss"].values()), record.tags["steps"]


@pytest.mark.parametrize("model", ["random_features", "two_layer"])
def test_spectra_are_those_of_the_cpu(compose: Compose, tmp_path: Path, model: str) -> None:
    short = ["method.steps=20", *ADAM] if model == "two_layer" else []
    cpu, gpu = (run(build(compose(f"model={model}", a, *short)), tmp_path / a).last() for a in (CPU, GPU))
    assert gpu["spectrum/max"] == pytest.approx(cpu["spectrum/max"], rel=1e-9)
    assert gpu["entropy/1e-08"] == pytest.approx(cpu["entropy/1e-08"], abs=1e-3)


@pytest.mark.parametrize("model", ["fourier_features", "modified_mlp", "pirate_net", "siren", "residual"])
@pytest.mark.parametrize("options", [[], ["model.periodic=[x]", "model.output_scale=2.0"]], ids=["plain", "options"])
def test_the_loss_of_every_network_is_that_of_the_cpu(compose: Compose, model: str, options: list[str]) -> None:
    found = []
    for accelerator in (CPU, GPU):
        overrides = [f"model={model}", *options, *SMALL[2:], "pde=burgers_1d", accelerator]
        problem = build(compose(*overrides)).problem
        found.append(float(problem.loss(problem.draw(np.random.default_rng(0))).detach()))
    assert found[1] == pytest.approx(found[0], rel=1e-9)


def test_points_follow_the_residual_as_on_the_cpu(compose: Compose, tmp_path: Path) -> None:
    points = ["sampler=residual_based", "sampler.resample_every=12", "sampler.candidates=200", "sampler.batch_size=20"]
    words = [word for word in RUN if word != "sampler=uniform"]
    cpu, gpu = (losses(compose, tmp_path / a, *words, *points, "pde=burgers_1d", EAGER, a)[0] for a in (CPU, GPU))
    np.testing.assert_allclose(gpu, cpu, rtol=ROUNDING["float64"])


@pytest.mark.parametrize(
    "how", ["taylor", "reverse", "forward", "finite_difference/1e-1", "complex_step", "stochastic"]
)
@pytest.mark.parametrize("pde", ["poisson_1d", "burgers_1d", "convection_1d", "biharmonic_2d"])
def test_loss_and_gradient_are_those_of_the_cpu(compose: Compose, pde: str, how: str) -> None:
    found = []
    for accelerator in (CPU, GPU):
        problem = build(compose(*SMALL, f"pde={pde}", f"differentiator={how}", accelerator)).problem
        batch = problem.draw(np.random.default_rng(0))
        assert {points.x.device.type for points in batch.values()} == {"cuda" if accelerator == GPU else "cpu"}
        optimizer = torch.optim.Adam(problem.model.parameters())
        torch.manual_seed(1)  # of random directions
        loss = EagerSteps(problem, optimizer, StopSignals()).gradient(batch)
        found.append(torch.cat([loss.view(1), *(p.grad.flatten() for p in problem.model.parameters())]).cpu())
    cpu, gpu = found
    torch.testing.assert_close(gpu, cpu, rtol=0, atol=1e-9 * float(cpu.abs().max()))


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("pde", ["poisson_1d", "burgers_1d"])
def test_runs_are_those_of_the_cpu(compose: Compose, tmp_path: Path, pde: str, precision: str) -> None:
    overrides = [*RUN, f"pde={pde}", EAGER, "sampler.resample_every=12"]
    cpu, gpu = (
        losses(compose, tmp_path / a, *overrides, a, f"accelerator.precision={precision}")[0] for a in (CPU, GPU)
    )
    assert gpu == pytest.approx(cpu, rel=ROUNDING[precision])
    state = torch.load(tmp_path / GPU / "model.pt", map_location="cpu", weights_only=True)
    assert {str(value.dtype) for value in state.values()} == {f"torch.{precision}"}


@pytest.mark.parametrize(
    "how",
    [
        ADAM,
        [*ADAM, "sampler.resample_every=12", "schedule=cosine"],
        [*ADAM, "pde=burgers_1d", "differentiator=finite_difference", "accelerator.precision=float32"],
        ["optimizer=lbfgs", "method.steps=4"],
        ["optimizer=ssbroyden", "method.steps=10"],
        ["method=gauss_newton", "method.steps=4"],
    ],
    ids=["adam", "new points", "float32", "lbfgs", "ssbroyden", "gauss_newton"],
)
def test_compiled_steps_are_the_eager_ones(compose: Compose, tmp_path: Path, how: list[str]) -> None:
    overrides = [o for o in RUN if o not in ADAM] + [*how, GPU]
    compiled, steps = losses(compose, tmp_path / "compiled", *overrides, COMPILED)
    eager, _ = losses(compose, tmp_path / "eager", *overrides, EAGER)
    assert steps.startswith("compiled: ")
    precision = "float32" if "accelerator.precision=float32" in how else "float64"
    assert compiled == pytest.approx(eager, rel=ROUNDING[precision])


def test_compiled_runs_of_a_stack_are_those_of_runs_alone(compose: Compose) -> None:
    def posed(seed: int) -> tuple[Problem, torch.optim.Optimizer, Batch]:
        problem = build(compose(*SMALL, f"seed={seed}", GPU)).problem
        adam = torch.optim.Adam(problem.model.parameters(), lr=1e-2, eps=1e-2)
        return problem, adam, problem.draw(np.random.default_rng(0))

    together, alone = ([posed(seed) for seed in range(3)] for _ in range(2))
    problems, optimizers, batches = zip(*together, strict=True)
    stack = StackedSteps(problems, optimizers, batches, StopSignals(), block=3)
    stack.trace()
    stack.compile()
    found = stack.advance(stack.batches, 12)
    expected = [EagerSteps(problem, optimizer, StopSignals()).take(batch, 12) for problem, optimizer, batch in alone]
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-9, atol=0)


@pytest.mark.parametrize("accelerator", [[GPU], pytest.param(DDP, marks=two_gpus)])
def test_an_interrupted_run_is_resumed(
    compose: Compose, tmp_path: Path, killed_at: KilledAt, accelerator: list[str]
) -> None:
    cfg = compose(*RUN, *accelerator, EAGER)
    run_config(cfg, tmp_path / "undisturbed", {}, [])
    with killed_at(20):
        run_config(cfg, tmp_path / "killed", {}, [])
    cfg.resume = True
    run_config(cfg, tmp_path / "killed", {}, [])
    ours, theirs = (Result.read(tmp_path / f).metrics for f in ("killed", "undisturbed"))
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=ROUNDING["float64"])


@two_gpus
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_two_gpus_have_the_losses_of_one(compose: Compose, tmp_path: Path, precision: str) -> None:
    overrides = [*RUN, "pde=burgers_1d", EAGER, "sampler.resample_every=12", f"accelerator.precision={precision}"]
    one, _ = losses(compose, tmp_path / "one", *overrides, GPU)
    two, how = losses(compose, tmp_path / "two", *overrides, *DDP)
    assert how.startswith("eager: 2 processes share the points")
    assert two == pytest.approx(one, rel=ROUNDING[precision])
