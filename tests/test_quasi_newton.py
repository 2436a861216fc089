"""Self-scaled quasi-Newton methods against formulas written anew, and what their line search promises."""

import copy
import itertools
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures import Compose, descent_of
from torch import Tensor, nn

from pde_train.derivatives import Field
from pde_train.errors import UsageError
from pde_train.experiment import build
from pde_train.optimizers.adam_then_lbfgs import AdamThenLBFGS
from pde_train.optimizers.lbfgs import LBFGS
from pde_train.optimizers.quasi_newton import SSBFGS, SSBroyden
from pde_train.optimizers.trials import Memory, QuasiNewton
from pde_train.runs.run import run
from pde_train.tracking.record import Record
from pde_train.training import agreement
from pde_train.training.signals import StopSignals
from pde_train.training.steps import EagerSteps

DENSE = [SSBroyden, SSBFGS]
CHOICES = [*DENSE, LBFGS]


def rosenbrock(x: Tensor) -> Tensor:
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def hilbert(x: Tensor) -> Tensor:
    """A quadratic of condition 5e5 with its minimum at (1, ..., 1)."""
    i = torch.arange(1, len(x) + 1, dtype=x.dtype)
    r = x - 1
    return 0.5 * r @ (1 / (i[:, None] + i[None, :] - 1)) @ r


FUNCTIONS = {"rosenbrock": (rosenbrock, [-1.2, 1.0, -1.2, 1.0]), "hilbert": (hilbert, [0.0, 2.0, -1.0, 3.0, 0.5])}


def closure_of(x: nn.Parameter, function: Callable[[Tensor], Tensor]) -> Callable[[], Tensor]:
    """What a line search evaluates: the loss, with its gradient left in the parameter."""

    def closure() -> Tensor:
        x.grad = None
        value = function(x)
        value.backward()
        return value.detach()

    return closure


def trace(
    make: type[QuasiNewton], function: Field, start: list[float], steps: int, **options: Any
) -> tuple[np.ndarray, np.ndarray, QuasiNewton]:
    """The accepted parameters after each step, and the loss that each step returned."""
    x = nn.Parameter(torch.tensor(start, dtype=torch.float64))
    optimizer = make([x], **options)

    closure = closure_of(x, function)
    points, losses = [], []
    for _ in range(steps):
        losses.append(float(optimizer.step(closure)))
        points.append(x.detach().numpy().copy())
    return np.array(points), np.array(losses), optimizer


def accepted(points: np.ndarray) -> np.ndarray:
    """The points without repetitions."""
    return np.array([p for i, p in enumerate(points) if i == 0 or not np.array_equal(p, points[i - 1])])


def next_inverse(
    h: np.ndarray, s: np.ndarray, y: np.ndarray, t: float, g: np.ndarray, first: bool, broyden: bool
) -> np.ndarray:
    """The formulas of Urban, Stefanou and Pons (2025) as dense matrices of the Hessian B itself, which is inverted."""
    n = len(s)
    b_matrix = np.linalg.inv(h)
    sbs, ys = s @ b_matrix @ s, y @ s
    b, hh = sbs / ys, (y @ h @ y) / ys
    a = b * hh - 1
    if broyden:
        low = min(1.0, hh * (1 - math.sqrt(a / (1 + a))))
        theta = max((low - 1) / a, min(1 / low, (1 - b) / b))
    else:
        theta = 0.0
    sigma = 1 + a * theta
    rho = min(1.0, 1 / b)
    if first:
        tau = hh / sigma
    elif not broyden:
        tau = rho
    elif theta > 0:
        tau = rho * min(sigma ** (1 / (1 - n)), 1 / theta)
    else:
        tau = min(rho * sigma ** (1 / (1 - n)), sigma)
    w = math.sqrt(sbs) * (y / ys - b_matrix @ s / sbs)
    new = tau * (b_matrix - np.outer(b_matrix @ s, b_matrix @ s) / sbs + theta * np.outer(w, w)) + np.outer(y, y) / ys
    return np.linalg.inv(new)


@pytest.mark.parametrize("make", DENSE)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_inverse_hessian_is_that_of_the_published_formulas(make: type[SSBroyden] | type[SSBFGS], name: str) -> None:
    """Written for the Hessian, B' = tau (B - B s s^T B / s^T B s + theta w w^T) + y y^T / y^T s, and inverted."""
    function, start = FUNCTIONS[name]
    x = nn.Parameter(torch.tensor(start, dtype=torch.float64))
    optimizer = make([x])

    closure = closure_of(x, function)

    def gradient(at: np.ndarray) -> np.ndarray:
        point = torch.tensor(at, requires_grad=True)
        function(point).backward()
        return point.grad.numpy()

    optimizer.step(closure)
    compared, first = 0, True
    while compared < 8:
        before, matrix = x.detach().numpy().copy(), optimizer.state[x]["remembered"][5].numpy().copy()
        direction = optimizer.state[x]["remembered"][3].numpy().copy()
        optimizer.step(closure)
        s = x.detach().numpy() - before
        if not s.any():
            continue
        g, after = gradient(before), gradient(x.detach().numpy())
        t = float(np.linalg.norm(s) / np.linalg.norm(direction))
        expected = next_inverse(matrix, s, after - g, t, g, first, make is SSBroyden)
        found = optimizer.state[x]["remembered"][5].numpy()
        assert np.abs(found - expected).max() <= 1e-8 * np.abs(expected).max() * max(1, np.linalg.cond(expected) * 1e-6)
        compared, first = compared + 1, False


@pytest.mark.parametrize("make", CHOICES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_accepted_step_fulfils_both_conditions(make: type[SSBroyden] | type[SSBFGS], name: str) -> None:
    function, start = FUNCTIONS[name]
    points, losses, _ = trace(make, function, start, 60)
    path = accepted(points)
    for before, after in itertools.pairwise(path[:13]):
        values, slopes = [], []
        for at in (before, after):
            point = torch.tensor(at, requires_grad=True)
            value = function(point)
            value.backward()
            values.append(float(value.detach()))
            slopes.append(float(point.grad.numpy() @ (after - before)))
        if values[0] < 1e-20:
            break
        assert values[1] <= values[0] + 1e-4 * slopes[0]
        assert abs(slopes[1]) <= 0.9 * abs(slopes[0]) * (1 + 1e-9)
    assert (np.diff(losses) <= 1e-6 * losses[:-1]).all()  # of the accepted points


@pytest.mark.parametrize("make", CHOICES)
@pytest.mark.parametrize(("name", "steps"), [("rosenbrock", 120), ("hilbert", 60)])
def test_minima_are_found_to_rounding(make: type[SSBroyden] | type[SSBFGS], name: str, steps: int) -> None:
    function, start = FUNCTIONS[name]
    points, losses, _ = trace(make, function, start, steps)
    assert np.abs(points[-1] - 1).max() < 1e-7
    assert losses[-1] < 1e-20


def test_a_step_is_one_evaluation() -> None:
    x = nn.Parameter(torch.tensor([-1.2, 1.0], dtype=torch.float64))
    optimizer, calls = SSBroyden([x]), list[Tensor]()
    closure = closure_of(x, lambda x: calls.append(x) or rosenbrock(x))
    for step in range(40):
        optimizer.step(closure)
        assert len(calls) == step + 1


def test_a_trial_that_is_not_finite_is_too_far() -> None:
    """The logarithm ends at 0: trials beyond it are nan."""
    points, losses, _ = trace(SSBroyden, lambda x: (x - x.log()).sum(), [3.0, 0.2, 9.0], 60)
    assert np.isfinite(losses).all()
    assert np.abs(points[-1] - 1).max() < 1e-8


def test_at_the_minimum_nothing_breaks() -> None:
    points, losses, _ = trace(SSBroyden, lambda x: (x * x).sum(), [0.0, 0.0], 5)
    assert np.isfinite(points).all()
    assert (losses == 0).all()
    points, losses, _ = trace(SSBroyden, rosenbrock, [-1.2, 1.0], 1500)
    assert np.isfinite(points).all()
    assert np.isfinite(losses).all()


def test_the_state_goes_on_to_the_same_bits() -> None:
    def halves(copied: bool) -> Tensor:
        x = nn.Parameter(torch.tensor([-1.2, 1.0, 0.3], dtype=torch.float64))
        optimizer = SSBroyden([x])
        for step in range(30):
            if copied and step == 17:
                saved, x = optimizer.state_dict(), nn.Parameter(x.detach().clone())
                optimizer = SSBroyden([x])
                optimizer.load_state_dict(saved)
            optimizer.step(closure_of(x, rosenbrock))
        return x.detach()

    assert torch.equal(halves(copied=False), halves(copied=True))


def test_new_points_keep_the_curvature_and_forget_the_loss() -> None:
    x = nn.Parameter(torch.tensor([-1.2, 1.0], dtype=torch.float64))
    optimizer, shift = SSBroyden([x]), 0.0

    closure = closure_of(x, lambda x: rosenbrock(x) + shift)
    for _ in range(15):
        before = float(optimizer.step(closure))
    matrix, at = optimizer.state[x]["remembered"][5].clone(), x.detach().clone()
    shift = 7.0
    optimizer.new_points()
    assert float(optimizer.step(closure)) == pytest.approx(float(rosenbrock(at)) + 7.0, rel=1e-12)
    assert torch.equal(optimizer.state[x]["remembered"][5], matrix)
    assert torch.equal(x.detach(), at)
    losses = [float(optimizer.step(closure)) for _ in range(20)]
    assert losses[-1] < before + 7.0


@pytest.mark.parametrize("history", [1, 3, 20])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_lbfgs_multiplies_by_the_inverse_hessian_of_its_last_pairs(name: str, history: int) -> None:
    """BFGS updates of gamma I by dense matrices (Nocedal and Wright, equation 6.17), written anew from the path."""
    function, start = FUNCTIONS[name]
    points, _, optimizer = trace(LBFGS, function, start, 30, history_size=history)
    path = accepted(np.array([start, *points]))
    gradients = []
    for at in path:
        point = torch.tensor(at, requires_grad=True)
        function(point).backward()
        gradients.append(point.grad.numpy())
    pairs = list(zip(np.diff(path, axis=0), np.diff(gradients, axis=0), strict=True))[-history:]
    s, y = pairs[-1]
    expected = s @ y / (y @ y) * np.eye(len(start))
    for s, y in pairs:
        away = np.eye(len(s)) - np.outer(s, y) / (y @ s)
        expected = away @ expected @ away.T + np.outer(s, s) / (y @ s)
    memory = Memory.of(optimizer.state[optimizer.parameters[0]]["remembered"])
    columns = [optimizer.update.newton(memory.curvature, unit) for unit in torch.eye(len(start), dtype=torch.float64)]
    assert len(pairs) == min(history, len(path) - 1)
    np.testing.assert_allclose(torch.stack(columns).numpy(), expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


def quartic(x: Tensor) -> Tensor:
    """A convex function of condition 1e3 near its minimum 0 at (1, ..., 1)."""
    weights = torch.logspace(0, 3, len(x), dtype=x.dtype)
    return weights @ (x - 1).square() / 2 + (x - 1).sum() ** 4


def evaluations_until(make: Callable[..., Any], loss: float) -> int:
    x, calls = nn.Parameter(torch.zeros(30, dtype=torch.float64)), list[Tensor]()
    optimizer = make([x])
    closure = closure_of(x, lambda x: calls.append(x) or quartic(x))
    while float(quartic(x.detach())) > loss:
        optimizer.step(closure)
        assert len(calls) < 2000
    return len(calls)


def test_lbfgs_needs_fewer_evaluations_than_torchs() -> None:
    """torch's evaluates where an iteration begins, too, although its last line search has."""
    torchs = partial(torch.optim.LBFGS, max_iter=1, max_eval=25, line_search_fn="strong_wolfe", history_size=50)
    assert evaluations_until(LBFGS, 1e-7) < 0.7 * evaluations_until(torchs, 1e-7)


@pytest.mark.parametrize("make", [LBFGS, partial(AdamThenLBFGS, switch=0, lr=1e-3)])
def test_lbfgs_learns_no_curvature_from_two_losses(make: Callable[..., Any]) -> None:
    x = nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64))
    optimizer, slope = make([x]), 0.0
    curvature = torch.tensor([1.0, 4.0], dtype=torch.float64)

    closure = closure_of(x, lambda x: (curvature * x.square()).sum() / 2 + slope * x.sum())
    optimizer.step(closure)
    for other in (3.0, -2.0, 5.0):
        slope = other
        optimizer.new_points()
        for _ in range(3):
            optimizer.step(closure)
    steps, changes, *_ = optimizer.update.memory(optimizer.state[x]["remembered"]).curvature
    kept = steps.abs().sum(1) > 0
    assert 3 <= int(kept.sum()) <= 9
    torch.testing.assert_close(changes, curvature * steps)


def test_adam_comes_first_and_then_lbfgs() -> None:
    def taken(make: Callable[..., Any], x: nn.Parameter, steps: int) -> Tensor:
        optimizer = make([x])
        for _ in range(steps):
            closure = closure_of(x, rosenbrock)
            if isinstance(optimizer, torch.optim.Adam):
                closure()
                optimizer.step()
            else:
                optimizer.step(closure)
        return x.detach().clone()

    def parameters(at: Tensor) -> nn.Parameter:
        return nn.Parameter(at.clone())

    start = torch.tensor([-1.2, 1.0, 0.3], dtype=torch.float64)
    both = partial(AdamThenLBFGS, switch=12, lr=0.02)
    by_adam = taken(partial(torch.optim.Adam, lr=0.02), parameters(start), 12)
    torch.testing.assert_close(
        taken(both, parameters(start), 7),
        taken(partial(torch.optim.Adam, lr=0.02), parameters(start), 7),
        rtol=1e-13,
        atol=0,
    )
    torch.testing.assert_close(taken(both, parameters(start), 12), by_adam, rtol=1e-13, atol=0)
    torch.testing.assert_close(
        taken(both, parameters(start), 30), taken(LBFGS, parameters(by_adam), 18), rtol=1e-9, atol=0
    )


@pytest.mark.parametrize(
    "overrides",
    [("optimizer.decrease=0.95",), ("optimizer.curvature=1.5",), ("optimizer.max_eval=0",), ("optimizer.decrease=0",)],
)
def test_conditions_that_make_no_line_search_are_refused(
    compose: Compose, overrides: tuple[str], tmp_path: Path
) -> None:
    experiment = build(compose("model=two_layer", "optimizer=ssbroyden", *overrides))
    with pytest.raises(UsageError, match=r"optimizer\.(decrease|max_eval)=.*expected"):
        descent_of(experiment).optimizer(experiment.problem.model.parameters())


def test_an_inverse_hessian_beyond_memory_is_refused_before_it_is_made() -> None:
    with pytest.raises(UsageError, match=r"the inverse Hessian of the optimizer asks for .* choose fewer"):
        SSBroyden([nn.Parameter(torch.zeros(10**6, dtype=torch.float64))])
    with pytest.raises(UsageError, match=r"the history of the optimizer asks for .* choose fewer"):
        LBFGS([nn.Parameter(torch.zeros(10**5, dtype=torch.float64))], history_size=10**6)


def test_a_state_of_another_version_is_refused() -> None:
    """Until November 2026 these were torch's own L-BFGS, and torch's Adam before it."""
    x = nn.Parameter(torch.ones(2, dtype=torch.float64))
    torchs = torch.optim.LBFGS([x])

    torchs.step(closure_of(x, lambda x: rosenbrock(2 * x)))
    with pytest.raises(UsageError, match="the state of LBFGS is that of another version: expected one that this"):
        LBFGS([x]).load_state_dict(torchs.state_dict())
    with pytest.raises(UsageError, match="the state of AdamThenLBFGS is that of another version"):
        AdamThenLBFGS([x], switch=1, lr=1e-3).load_state_dict({"taken": 3, "adam": {}, "lbfgs": torchs.state_dict()})
    LBFGS([x]).load_state_dict(LBFGS([x]).state_dict())
    state = SSBroyden([x]).state_dict()
    del state["param_groups"][0]["longest"]  # which had come later
    other = SSBroyden([x])
    other.load_state_dict(state)
    assert other.param_groups[0]["longest"] == 1


def test_the_longest_first_trial_of_a_search_is_that_of_the_first_one_too() -> None:
    for lr in (1.0, 1e-3):
        x = nn.Parameter(torch.ones(2, dtype=torch.float64))
        optimizer = LBFGS([x], lr=lr)

        optimizer.step(closure_of(x, lambda x: 0.05 * x.square().sum()))
        trial = optimizer.state[x]["remembered"][0]
        torch.testing.assert_close(trial, torch.full_like(trial, 1 - 0.1 * lr))


def test_a_line_search_has_one_group_of_parameters() -> None:
    groups: Any = [{"params": [nn.Parameter(torch.zeros(2))]} for _ in range(2)]
    with pytest.raises(UsageError, match="LBFGS was given 2 groups of parameters"):
        LBFGS(groups)


@pytest.mark.parametrize("make", [SSBroyden, LBFGS, partial(AdamThenLBFGS, switch=3, lr=1e-3)])
def test_what_is_loaded_has_the_precision_in_which_it_was_saved(make: Callable[..., Any]) -> None:
    """The number of steps of Adam is kept in float64, whatever the parameters have."""
    x = nn.Parameter(torch.ones(2))
    first, second = make([x]), make([x])

    for _ in range(4):
        first.step(closure_of(x, lambda x: x.square().sum()))
    second.load_state_dict(first.state_dict())
    for ours, theirs in zip(second.state[x]["remembered"], first.state[x]["remembered"], strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    "words",
    [
        ["differentiator=finite_difference", "differentiator.accuracy=8", "differentiator.step=optimal"],
        ["differentiator=complex_step"],
    ],
)
@pytest.mark.usefixtures("without_figures")
def test_a_differentiator_that_adapts_waits_for_the_line_search(
    compose: Compose, words: list[str], tmp_path: Path
) -> None:
    """Searches take more than four evaluations here: adapting in the middle of each would let none of them end."""
    beam = ["pde=biharmonic_1d", "model=two_layer", "model.width=20", "sampler.interior=40", "optimizer=ssbroyden"]
    often = ["method.steps=200", "method.log_every=4", "method.chunk=4", "method.compile=never", "diagnostics=none"]
    losses = run(build(compose(*beam, *often, *words, "seed=1")), tmp_path).series["loss"]
    assert losses[199] < 1e-2 * losses[0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sampler.resample_every=5"], "sampler.resample_every=5 makes another loss before a line search of up to"),
        (["weighting=balance", "weighting.every=24"], "choose weighting.every=25 or more"),
        (["weighting=balance", "weighting.every=25", "sampler.resample_every=100"], None),
        ([], None),
    ],
)
def test_a_loss_that_changes_within_a_line_search_is_said(
    compose: Compose, words: list[str], said: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small = ["model=two_layer", "sampler=uniform", "optimizer=ssbroyden", "sampler.interior=10"]
    experiment = build(compose(*small, *words))
    record = Record(experiment.tracker, experiment.entropy)
    descent_of(experiment).training(experiment.problem, record, experiment.diagnostics, tmp_path)
    assert [said in r.getMessage() for r in caplog.records if r.levelname == "WARNING" and said] == [True] * bool(said)
    assert said or not caplog.records


@pytest.mark.parametrize("taken", [0, 30])
def test_what_one_rounding_changes_is_seen_in_the_middle_of_training(compose: Compose, taken: int) -> None:
    """The point of the next evaluation is the optimiser's then, not that of the parameters."""
    words = ["pde=biharmonic_1d", "model=two_layer", "differentiator=finite_difference", "optimizer=ssbroyden"]
    experiment = build(compose(*words, "model.width=10", "sampler.interior=20"))
    problem = experiment.problem
    optimizer = SSBroyden(problem.model.parameters())
    steps, batch = EagerSteps(problem, optimizer, StopSignals()), problem.draw(np.random.default_rng(0))
    if taken:
        steps.take(batch, taken)
    before = copy.deepcopy(optimizer.state_dict())
    losses, moved = (agreement.stepped(steps, batch, roundings)[0] for roundings in (0, 1))
    assert 0 < float((moved - losses).abs().max()) < 1e-3 * float(losses.abs().max())
    after = optimizer.state_dict()
    assert len(after["state"]) == len(before["state"])
    for key, kept in before["state"].items():
        torch.testing.assert_close(after["state"][key], kept, rtol=0, atol=0)
