"""Weightings against brute force, and what they must leave alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures import Compose, descent_of
from torch import Tensor

from pde_train import residuals
from pde_train.errors import UsageError
from pde_train.experiment import build
from pde_train.geometry import Batch, without_factors
from pde_train.problem import Problem
from pde_train.runs.run import run
from pde_train.tracking.record import Record
from pde_train.training.loop import Loop
from pde_train.training.signals import StopSignals
from pde_train.weighting.balance import Balance
from pde_train.weighting.base import Weighting, initial, weighted
from pde_train.weighting.causal import Causal
from pde_train.weighting.gradient_norm import GradientNorm
from pde_train.weighting.ntk import NTK, traces
from pde_train.weighting.self_adaptive import SelfAdaptive

SMALL = ["model=two_layer", "model.width=5", "sampler=uniform", "sampler.interior=30", "diagnostics=none"]
ALL = [GradientNorm(momentum=0.0), NTK(), Balance(), SelfAdaptive(), Causal()]


def posed(compose: Compose, pde: str = "burgers_1d", *words: str) -> tuple[Problem, Batch]:
    problem = build(compose(*SMALL, f"pde={pde}", *words)).problem
    return problem, problem.draw(np.random.default_rng(0))


def columns(problem: Problem, batch: Batch) -> dict[str, Tensor]:
    return {
        k: v.detach() for k, v in residuals.evaluate(problem.pde, problem.model, problem.differentiator, batch).items()
    }


def gradient(problem: Problem, scalar: Tensor) -> Tensor:
    grads = torch.autograd.grad(scalar, list(problem.model.parameters()), retain_graph=True, materialize_grads=True)
    return torch.cat([g.flatten() for g in grads])


def test_the_ntk_trace_is_that_of_the_true_kernel(compose: Compose) -> None:
    """Row by row with autograd: K = J J^T / n, whose trace the squared norm of the loss's gradient is not."""
    problem, batch = posed(compose, "poisson_2d", "sampler.boundary=8")
    expected = {}
    for name, residual in residuals.evaluate(problem.pde, problem.model, problem.differentiator, batch).items():
        rows = torch.stack([gradient(problem, r) for r in residual.flatten()])
        expected[name] = float((rows @ rows.T).trace()) / len(rows)
    found = {name: float(v) for name, v in traces(problem, batch).items()}
    assert found == pytest.approx(expected, rel=1e-10)
    weights = NTK().update(problem, batch, initial(problem))
    total = sum(expected.values())
    assert {k: float(v) for k, v in weights.items()} == pytest.approx({k: total / v for k, v in expected.items()})


def test_gradient_norms_are_made_equal(compose: Compose) -> None:
    problem, batch = posed(compose)
    weights = GradientNorm(momentum=0.0).update(problem, batch, initial(problem))
    terms = residuals.evaluate(problem.pde, problem.model, problem.differentiator, batch)
    norms = [float((weights[n] * gradient(problem, r.square().mean())).norm()) for n, r in terms.items()]
    assert norms == pytest.approx([norms[0]] * len(norms), rel=1e-10)
    half = GradientNorm(momentum=0.5).update(problem, batch, initial(problem))
    assert {k: float(v) for k, v in half.items()} == pytest.approx(
        {k: 0.5 + 0.5 * float(v) for k, v in weights.items()}
    )


def test_balance_equalises_terms_and_keeps_the_product(compose: Compose) -> None:
    problem, batch = posed(compose)
    weights = Balance(rate=1.0).update(problem, batch, initial(problem))
    terms = [float(weights[n] * r.square().mean()) for n, r in columns(problem, batch).items()]
    assert terms == pytest.approx([terms[0]] * len(terms), rel=1e-10)
    assert float(torch.stack([w.log() for w in weights.values()]).sum()) == pytest.approx(0, abs=1e-12)


def test_terms_that_hold_by_construction_keep_their_weight(compose: Compose) -> None:
    words = ["pde=convection_1d", "model=two_layer", "model.periodic=[x]", "sampler=uniform"]
    problem = build(compose(*words)).problem
    batch = problem.draw(np.random.default_rng(0))
    seen = columns(problem, batch)
    assert float(seen["seam"].square().mean()) < 1e-28
    weights = Balance(rate=1.0).update(problem, batch, initial(problem))
    assert float(weights["seam"]) == 1
    others = [float(weights[n] * r.square().mean()) for n, r in seen.items() if n != "seam"]
    assert others == pytest.approx([others[0]] * len(others), rel=1e-10)
    nothing = build(compose(*words, *(f"pde.weights.{name}=0.0" for name in seen))).problem
    assert Balance(rate=1.0).update(nothing, batch, weights) == weights


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("weighting", [GradientNorm(momentum=0.0), NTK()], ids=lambda w: type(w).__name__)
def test_weights_by_gradients_are_those_of_the_problem_without_what_holds_by_construction(
    compose: Compose, weighting: Weighting, precision: str
) -> None:
    """A network that is periodic fulfils the four seams up to rounding: they must not be divided by."""
    words = ["model.periodic=[x]", f"accelerator.precision={precision}"]
    problem, batch = posed(compose, "kuramoto_sivashinsky_regular_1d", *words)
    seams = [name for name in columns(problem, batch) if name.startswith("seam")]
    assert len(seams) == 4
    old = {name: 3 * weight for name, weight in initial(problem).items()}
    weights = weighting.update(problem, batch, old)
    assert {name: float(weights[name]) for name in seams} == dict.fromkeys(seams, 3.0)
    inverses = sum(1 / float(weights[name]) for name in ("kuramoto_sivashinsky", "start"))
    assert inverses == pytest.approx(1, rel=10 * torch.finfo(problem.dtype).eps)  # s_e / sum_j s_j over both terms


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_seams_of_high_derivatives_hold_by_construction_too(compose: Compose, precision: str) -> None:
    """The third derivative at both ends differs by ten thousand roundings of 1, and by few of its own size."""
    words = ["model.periodic=[x]", f"accelerator.precision={precision}"]
    problem, batch = posed(compose, "kuramoto_sivashinsky_regular_1d", *words)
    seen = columns(problem, batch)
    assert float(seen["seam_third"].abs().max()) > 100 * torch.finfo(problem.dtype).eps
    weights = Balance(rate=1.0).update(problem, batch, initial(problem))
    assert {float(weights[name]) for name in seen if name.startswith("seam")} == {1.0}
    terms = [float(weights[name] * seen[name].square().mean()) for name in ("kuramoto_sivashinsky", "start")]
    assert terms == pytest.approx([terms[0]] * 2, rel=1e-5)


def test_a_term_of_weight_0_keeps_its_weight(compose: Compose) -> None:
    problem, batch = posed(compose, "burgers_1d", "pde.weights.walls=0.0")
    for weighting in (GradientNorm(momentum=0.0), NTK()):
        assert float(weighting.update(problem, batch, initial(problem))["walls"]) == 1


def test_random_directions_have_no_gradients_point_by_point(compose: Compose, tmp_path: Path) -> None:
    words = ["pde=poisson_2d", "model=two_layer", "weighting=ntk", "differentiator=stochastic", "method.steps=2"]
    with pytest.raises(UsageError, match=r"weighting=ntk takes gradients point by point, and Stochastic draws"):
        run(build(compose(*words)), tmp_path)


def test_self_adaptive_weights_are_gradient_ascent_on_the_loss(compose: Compose) -> None:
    """One step of ascent by autograd on l, with the loss sum of l^2 r^2."""
    problem, batch = posed(compose)
    weights = SelfAdaptive(rate=1e-2).update(problem, batch, initial(problem))
    for name, residual in columns(problem, batch).items():
        number = torch.ones_like(residual, requires_grad=True)
        (ascent,) = torch.autograd.grad((number.square() * residual.square()).sum(), number)
        assert torch.allclose(weights[name], (number.detach() + 1e-2 * ascent).square(), rtol=1e-12)
    bounded = SelfAdaptive(rate=1e6, largest=10.0).update(problem, batch, initial(problem))
    assert max(float(w.max()) for w in bounded.values()) == 10


def test_causal_weights_know_only_earlier_times(compose: Compose) -> None:
    problem, batch = posed(compose)
    weighting = Causal(slabs=4, steepness=0.3)
    weights = weighting.update(problem, batch, initial(problem))
    interior = [e.name for e in problem.pde.equations() if e.region == "interior"]
    axis = problem.pde.coordinates.index("t")
    time = batch["interior"].x[:, axis].numpy() / float(problem.pde.domain.upper[axis])
    residual = columns(problem, batch)[interior[0]].numpy().ravel()
    for t, w in zip(time, weights[interior[0]].numpy().ravel(), strict=True):
        earlier = 0.0
        for slab in range(int(t * 4)):
            inside = (time >= slab / 4) & (time < (slab + 1) / 4)
            earlier += (residual[inside] ** 2).mean() if inside.any() else 0.0
        assert w == pytest.approx(np.exp(-0.3 * earlier), rel=1e-10)
    assert weights[interior[0]].max() == 1.0
    assert all(float(weights[e.name]) == 1.0 for e in problem.pde.equations() if e.region != "interior")


@pytest.mark.parametrize("weighting", ALL, ids=lambda w: type(w).__name__)
def test_weights_change_the_loss_alone(compose: Compose, weighting: Weighting) -> None:
    problem, batch = posed(compose)
    weights = weighting.update(problem, batch, initial(problem))
    changed = weighted(problem, batch, weights)
    expected = sum(float((weights[n] * r.square()).mean()) for n, r in columns(problem, batch).items())
    assert float(problem.loss(changed).detach()) == pytest.approx(expected, rel=1e-12)
    rows = problem.residual_vector(problem.model, changed)
    assert float(rows.square().sum().detach()) == pytest.approx(expected, rel=1e-12)
    jacobian = problem.jacobian(changed).dense()
    total = gradient(problem, problem.loss(changed))
    assert torch.allclose(
        2 * (jacobian.T @ rows.detach()).flatten(), total, rtol=1e-8, atol=1e-8 * float(total.abs().max())
    )
    assert problem.residual(changed) == problem.residual(batch)
    assert all(p.factors is None for p in without_factors(changed).values())


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize("choice", ["gradient_norm", "ntk", "balance", "self_adaptive", "causal"])
@pytest.mark.parametrize("method", ["gradient_descent", "gauss_newton"])
def test_a_run_changes_and_logs_its_weights(compose: Compose, tmp_path: Path, choice: str, method: str) -> None:
    words = [f"method={method}", f"weighting={choice}", "weighting.every=4", "method.steps=9", "method.compile=never"]
    experiment = build(compose(*SMALL, "pde=burgers_1d", *words))
    record = run(experiment, tmp_path)
    names = {f"weight/{e.name}" for e in experiment.problem.pde.equations()}
    assert names <= set(record.series)
    assert all(set(record.series[name]) == {0, 4, 8} for name in names)
    assert record.tags["weighting"]


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize("choice", ["balance", "self_adaptive"])
def test_compiled_steps_follow_the_weights(compose: Compose, tmp_path: Path, choice: str) -> None:
    words = [f"weighting={choice}", "weighting.every=3", "method.steps=12", "pde=burgers_1d"]
    losses = [
        list(run(build(compose(*SMALL, *words, f"method.compile={mode}")), tmp_path / mode).series["loss"].values())
        for mode in ("never", "always")
    ]
    assert np.allclose(losses[0], losses[1], rtol=1e-9)


@pytest.mark.usefixtures("without_figures")
def test_new_points_have_causal_weights_of_their_own_at_once(compose: Compose, tmp_path: Path) -> None:
    """The loss after a redraw is that of weights from the new points, not of the old order."""
    words = ["weighting=causal", "weighting.every=100", "sampler.resample_every=5", "method.steps=6"]
    experiment = build(compose(*SMALL, "pde=burgers_1d", "method.compile=never", *words))
    problem, generator = experiment.problem, np.random.default_rng(experiment.problem.sampler.seed)
    with StopSignals() as signals:
        record = Record(experiment.tracker, experiment.entropy)
        training = descent_of(experiment).training(problem, record, experiment.diagnostics, tmp_path)
        loop = Loop([training], signals)
        loop.begin()
        for chunk in loop:
            loop.train(*chunk)
    problem.draw(generator)
    batch = problem.draw(generator)
    assert torch.equal(training.points.batch["interior"].x, batch["interior"].x)
    axis = problem.pde.coordinates.index("t")
    order = batch["interior"].x[:, axis].argsort()
    factors = training.points.batch["interior"].factors
    assert factors is not None
    weights = factors[order, 0]
    assert bool((weights.diff() <= 1e-12).all())  # later points have no larger weight
