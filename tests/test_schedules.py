"""Schedules of the learning rate, clipping and the end of training, against torch's own and against formulas."""

import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures import Compose, KilledAt
from torch import Tensor

from pde_train.errors import UsageError
from pde_train.experiment import build
from pde_train.optimizers import gauss_newton
from pde_train.runs.run import run
from pde_train.schedules.base import LearningRate
from pde_train.schedules.constant import Constant
from pde_train.schedules.cosine import Cosine
from pde_train.schedules.exponential import Exponential
from pde_train.schedules.linear import Linear
from pde_train.schedules.plateau import Plateau
from pde_train.training import training
from pde_train.training.stop import Stop
from pde_train.training.training import Training

SMALL = ["model=two_layer", "model.width=6", "sampler.interior=16", "diagnostics=none", "method.compile=never"]


def torch_rates(make: Callable[..., Any], count: int, losses: Sequence[float] = ()) -> np.ndarray:
    """The learning rates of a scheduler of torch, from 1, for `count` steps."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler, rates = make(optimizer), []
    for k in range(count):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step(*losses[k : k + 1])
    return np.array(rates)


def test_exponential_cosine_and_linear_are_those_of_torch() -> None:
    from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, LinearLR

    found = Exponential(rate=0.9, every=10).factors(0, 50, 50, [])
    assert np.allclose(found, torch_rates(lambda o: ExponentialLR(o, 0.9**0.1), 50), rtol=1e-12)
    found = Cosine(final=0.1).factors(0, 50, 50, [])
    assert np.allclose(found, torch_rates(lambda o: CosineAnnealingLR(o, 50, eta_min=0.1), 50), rtol=1e-12)
    found = Linear(final=0.1).factors(0, 50, 50, [])
    assert np.allclose(found, torch_rates(lambda o: LinearLR(o, 1.0, 0.1, 50), 50), rtol=1e-12)


def test_plateau_is_that_of_torch() -> None:
    from torch.optim.lr_scheduler import ReduceLROnPlateau

    generator = np.random.default_rng(0)
    losses = np.concatenate([np.geomspace(1, 0.1, 10), generator.uniform(0.1, 0.2, 40)]).tolist()
    expected = torch_rates(lambda o: ReduceLROnPlateau(o, factor=0.5, patience=4, threshold=1e-4), 50, losses)
    schedule = Plateau(rate=0.5, patience=4, progress=1e-4)
    found = [float(schedule.factors(k, 1, 50, losses[:k])[0]) for k in range(50)]
    assert np.allclose(found, expected)
    assert min(found) < 0.1


def test_warm_up_rises_linearly_and_multiplies() -> None:
    found = Constant(warm_up=4).factors(0, 6, 100, []).tolist()
    assert found == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    both = Exponential(rate=0.5, every=2, warm_up=4).factors(0, 6, 100, [])
    assert np.allclose(both, [f * 0.5 ** (k / 2) for k, f in enumerate(found)])


@pytest.mark.parametrize("schedule", [Exponential(), Cosine(), Constant(warm_up=7)], ids=lambda s: type(s).__name__)
def test_factors_do_not_depend_on_where_a_chunk_begins(schedule: LearningRate) -> None:
    whole = schedule.factors(0, 30, 30, [])
    parts = torch.cat([schedule.factors(a, b - a, 30, []) for a, b in ((0, 7), (7, 8), (8, 30))])
    assert torch.equal(whole, parts)


def by_hand(compose: Compose, overrides: list[str], rates: Tensor, clip: float | None = None) -> list[float]:
    """Losses of steps of Adam whose learning rate is set before each of them."""
    experiment = build(compose(*SMALL, *overrides))
    problem = experiment.problem
    batch = problem.draw(np.random.default_rng(problem.sampler.seed))
    problem.begin(batch, problem.model)
    optimizer = torch.optim.Adam(problem.model.parameters(), lr=1e-2)
    losses = []
    for rate in rates:
        optimizer.param_groups[0]["lr"] = 1e-2 * float(rate)
        optimizer.zero_grad()
        loss = problem.loss(batch)
        loss.backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(problem.model.parameters(), clip)
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


COMMON = ["sampler=uniform", "optimizer.lr=0.01", "method.steps=40", "method.chunk=15", "method.log_every=10"]


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize("mode", ["never", "always"])
def test_a_run_takes_the_scheduled_and_clipped_steps(compose: Compose, tmp_path: Path, mode: str) -> None:
    words = [*COMMON, "schedule=cosine", "schedule.warm_up=5", "method.clip=0.5"]
    record = run(build(compose(*SMALL, *words, f"method.compile={mode}")), tmp_path)
    assert record.tags["steps"].startswith("eager" if mode == "never" else "compiled")
    expected = by_hand(compose, words, Cosine(warm_up=5).factors(0, 40, 40, []), clip=0.5)
    assert np.allclose(list(record.series["loss"].values()), expected, rtol=1e-9)
    plain = by_hand(compose, words, torch.ones(40))
    assert not np.allclose(expected, plain, rtol=1e-3)


@pytest.mark.usefixtures("without_figures")
def test_a_constant_rate_leaves_every_bit(compose: Compose, tmp_path: Path) -> None:
    record = run(build(compose(*SMALL, *COMMON)), tmp_path)
    assert list(record.series["loss"].values()) == by_hand(compose, COMMON, torch.ones(40))


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize(
    "words",
    [
        ["schedule=plateau", "schedule.patience=1", "schedule.progress=0.5"],
        ["weighting=balance", "weighting.every=7"],
        ["weighting=self_adaptive", "weighting.every=3"],
        ["method.redraw=0.9"],
        ["optimizer=ssbroyden"],
        ["optimizer=ssbroyden", "weighting=balance"],
    ],
    ids=" ".join,
)
def test_an_interrupted_run_goes_on_to_the_same_bits(
    compose: Compose, tmp_path: Path, killed_at: KilledAt, words: list[str]
) -> None:
    common = [word for word in COMMON if "optimizer" not in word or "optimizer=ssbroyden" not in words]
    settings = [*SMALL, *common, *words, "method.checkpoint_every=15"]
    whole = run(build(compose(*settings)), tmp_path / "whole")
    with killed_at(30):
        run(build(compose(*settings)), tmp_path / "cut")
    cut = run(build(compose(*settings)), tmp_path / "cut")
    assert cut.series["loss"] == whole.series["loss"]
    assert cut.last()["error_l2"] == whole.last()["error_l2"]


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize(
    "words", [["damping=nielsen"], ["momentum=0.5"], ["damping=ladder"], ["solver=sketched"]], ids=" ".join
)
def test_gauss_newton_goes_on_to_the_same_bits(
    compose: Compose, tmp_path: Path, killed_at: KilledAt, words: list[str]
) -> None:
    settings = [*SMALL, "method=gauss_newton", "method.steps=30", "method.chunk=10", "method.checkpoint_every=10"]
    settings += [f"method.{word}" for word in words]
    whole = run(build(compose(*settings)), tmp_path / "whole")
    with killed_at(20):
        run(build(compose(*settings)), tmp_path / "cut")
    cut = run(build(compose(*settings)), tmp_path / "cut")
    assert cut.series["loss"] == whole.series["loss"]
    assert cut.series["damping"] == whole.series["damping"]


@pytest.mark.usefixtures("without_figures")
def test_a_round_of_precision_ends_at_the_same_step_after_an_interruption(
    compose: Compose, tmp_path: Path, killed_at: KilledAt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every step counts as slow here, so that the first round has PATIENCE steps; the run is cut within it."""
    monkeypatch.setattr(gauss_newton, "SLOW", 2.0)
    monkeypatch.setattr(gauss_newton, "PATIENCE", 15)
    settings = [*SMALL, "method=gauss_newton", "method.steps=30", "method.chunk=10", "method.checkpoint_every=10"]
    settings.append("method.first_precision=float32")
    whole = run(build(compose(*settings)), tmp_path / "whole")
    with killed_at(10):
        run(build(compose(*settings)), tmp_path / "cut")
    cut = run(build(compose(*settings)), tmp_path / "cut")
    for name in ("loss", "damping", "bits", "error_l2"):
        assert cut.series[name] == whole.series[name]
    assert list(whole.series["bits"].values()) == [32] * 15 + [64] * 15
    assert cut.tags["first_precision"] == "float32 in the first 15 steps"
    assert [whole.spectra[k].resolution > 1e-10 * whole.spectra[k].values[0] for k in (14, 15)] == [True, False]


@pytest.mark.usefixtures("without_figures")
def test_points_are_redrawn_where_the_loss_stands_still(compose: Compose, tmp_path: Path) -> None:
    words = ["optimizer.lr=1e-9", "method.redraw=0.1"]
    losses = run(build(compose(*SMALL, *COMMON, *words)), tmp_path).series["loss"]
    jumps = [k for k in range(1, 40) if abs(losses[k] - losses[k - 1]) > 1e-4 * losses[k]]
    assert jumps == [10, 20, 30]


REASONS = {
    "time": (["stop=time", "stop.seconds=1e-6"], "time: stop.seconds"),
    "tolerance": (["stop=tolerance", "stop.residual=10"], "tolerance: stop.residual=10"),
    "no progress": (["stop=no_progress", "stop.patience=5", "optimizer.lr=1e-12"], "no progress: less than"),
}


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize("case", REASONS)
def test_a_run_says_why_it_ended(compose: Compose, tmp_path: Path, case: str) -> None:
    words, reason = REASONS[case]
    settings = [*SMALL[:3], "method.compile=never", *COMMON[1:], "diagnostics.when=[last]", *words]
    record = run(build(compose(*settings)), tmp_path)
    assert record.tags["stopped"].startswith(reason)
    assert max(record.series["loss"]) == 9
    assert record.last()["steps"] == 10
    assert list(record.spectra) == [10]  # the last one, wherever that is


@pytest.mark.usefixtures("without_figures")
def test_a_measurement_that_is_due_where_a_run_ends_is_made(compose: Compose, tmp_path: Path) -> None:
    words, _ = REASONS["tolerance"]
    settings = [*SMALL[:3], "method.compile=never", *COMMON[1:], "diagnostics.when=[5,10,25]", *words]
    assert list(run(build(compose(*settings)), tmp_path).spectra) == [5, 10]


@pytest.mark.usefixtures("without_figures")
def test_a_run_that_ended_is_that_of_the_step_at_which_it_ended(compose: Compose, tmp_path: Path) -> None:
    """Lightning asks for the next chunk of 15 steps before the one is trained in which the run ends."""
    words, _ = REASONS["tolerance"]
    ended, asked = build(compose(*SMALL, *COMMON, *words)), build(compose(*SMALL, *COMMON, "method.steps=10"))
    records = [run(experiment, tmp_path / str(k)) for k, experiment in enumerate((ended, asked))]
    for ours, theirs in zip(ended.problem.model.parameters(), asked.problem.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    for name in ("steps", "residual", "residual_exact", "error_l2"):
        assert records[0].last()[name] == records[1].last()[name], name


@pytest.mark.usefixtures("without_figures")
def test_a_signal_takes_nothing_from_a_run_that_has_ended(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes while the end is measured; the run finishes, as there are no steps to save."""
    end = Training.end

    def signalled(self: Training) -> None:
        signal.raise_signal(signal.SIGTERM)
        end(self)

    words, reason = REASONS["tolerance"]
    monkeypatch.setattr(Training, "end", signalled)
    record = run(build(compose(*SMALL, *COMMON, *words)), tmp_path)
    assert record.tags["stopped"].startswith(reason)
    assert record.last()["steps"] == 10


@pytest.mark.usefixtures("without_figures")
def test_a_run_that_ends_by_its_budget_says_so(compose: Compose, tmp_path: Path) -> None:
    assert run(build(compose(*SMALL, *COMMON)), tmp_path).tags["stopped"] == "budget: method.steps=40"


def test_reasons_are_judged_one_by_one() -> None:
    assert Stop().reason(1e9, 0.0, [1.0]) is None
    assert Stop(seconds=5).reason(4.9, 1.0, [1.0]) is None
    losses = np.geomspace(1, 1e-3, 100).tolist()
    assert Stop(patience=10).reason(0, 1.0, losses) is None
    assert "no progress" in str(Stop(patience=10).reason(0, 1.0, losses + [1e-3] * 11))
    assert Stop(patience=200).reason(0, 1.0, losses) is None
    assert Stop(patience=200).reason(0, 1.0, losses + [1e-3] * 49, unchanged=50) == (
        "no progress: the loss has not changed in 50 steps"
    )
    assert Stop(patience=200).reason(0, 1.0, losses + [1e-3] * 48, unchanged=50) is None
    assert Stop(patience=200).reason(0, 1.0, losses + [1e-3] * 49) is None
    assert Stop().reason(0, 1.0, losses + [1e-3] * 49, unchanged=50) is None


SEARCHES = [
    ["optimizer=ssbroyden"],
    ["optimizer=lbfgs"],
    ["optimizer=adam_then_lbfgs", "optimizer.switch=20"],
    ["method=gauss_newton"],
]


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize("words", SEARCHES, ids=" ".join)
def test_a_run_that_has_come_to_rounding_ends_as_its_patience_would_have_ended_it(
    compose: Compose, tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Differences with a short step; the optimisers have no step left that lowers the loss."""
    settings = [*SMALL, "differentiator=finite_difference", "differentiator.step=1e-6", "method.log_every=10"]
    settings += ["stop=no_progress", "stop.patience=400", "method.steps=1500", *words]
    early = build(compose(*settings))
    first = run(early, tmp_path / "early")
    monkeypatch.setattr(training, "UNCHANGED", 10**9)
    late = build(compose(*settings))
    second = run(late, tmp_path / "late")
    assert first.tags["stopped"] == "no progress: the loss has not changed in 100 steps"
    assert second.tags["stopped"].startswith("no progress: less than")
    assert first.last()["steps"] < second.last()["steps"]
    for ours, theirs in zip(early.problem.model.parameters(), late.problem.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


SSBROYDEN = ["optimizer=ssbroyden", "differentiator=finite_difference", "differentiator.step=1e-6"]
CHANGING = {
    "points": [*SSBROYDEN, "sampler=uniform", "sampler.resample_every=1000"],
    "redrawn points": [*SSBROYDEN, "sampler=uniform", "method.redraw=1e-9"],
    "the differentiator": [*SSBROYDEN[:2], "differentiator.step=optimal"],
    "weights": [*SSBROYDEN, "weighting=gradient_norm"],
    "directions": ["method=gauss_newton", "method.solver=cg"],
    "the optimiser": ["optimizer=adam_then_lbfgs", "optimizer.switch=360", "optimizer.lr=1e-30"],
    "moments": ["optimizer=adam", "optimizer.lr=1e-30"],
    "nothing": SSBROYDEN,
}


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize("case", CHANGING)
def test_a_loss_that_may_change_later_ends_no_run_by_standing_still(
    compose: Compose, tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int | None] = []

    class Asked(Stop):
        def reason(
            self, seconds: float, residual: float, losses: Sequence[float], unchanged: int | None = None
        ) -> str | None:
            asked.append(unchanged)
            return super().reason(seconds, residual, losses, unchanged)

    experiment = build(compose(*SMALL, "method.steps=400", "method.log_every=50", *CHANGING[case]))
    object.__setattr__(experiment.method, "stop", Asked(patience=1000))
    run(experiment, tmp_path)
    assert asked[:2] == [None, None]  # it moves
    assert set(asked[2:]) == ({100, None} if case == "nothing" else {None})


@pytest.mark.usefixtures("without_figures")
def test_held_out_residuals_stand_beside_losses(compose: Compose, tmp_path: Path) -> None:
    experiment = build(compose(*SMALL, *COMMON))
    record = run(experiment, tmp_path)
    assert set(record.series["residual_held_out"]) == {0, 10, 20, 30, 40}
    assert record.last()["residual_held_out"] == pytest.approx(experiment.problem.residual_held_out())
    held_out = {k: p.rows(0, 512) for k, p in experiment.problem.held_out().items()}
    assert experiment.problem.residual(held_out) == pytest.approx(record.last()["residual_held_out"], rel=1e-12)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["schedule=exponential", "schedule.rate=0.0"], r"schedule\.rate=0\.0 is no part of the learning rate"),
        (["schedule=exponential", "schedule.every=0"], r"schedule\.every=0 is no number of steps"),
        (["schedule=cosine", "schedule.final=1.5"], r"schedule\.final=1\.5 is no part"),
        (["schedule=plateau", "schedule.patience=0"], r"schedule\.patience=0 is no number of measurements"),
        (["schedule.warm_up=-1"], r"schedule\.warm_up=-1 is no number of steps"),
        (["method.clip=0.0"], r"method\.clip=0\.0 leaves no gradient"),
        (["method.redraw=1.0"], r"method\.redraw=1\.0 is no part of the loss"),
        (["stop.seconds=-1.0"], r"stop\.seconds=-1\.0 ends no run"),
        (["stop.patience=0"], r"stop\.patience=0 ends no run"),
        (["stop.progress=1.0"], r"stop\.progress=1\.0 is no part of the loss"),
        (["optimizer=lbfgs", "schedule=cosine"], r"LBFGS chooses the length of its steps by the loss"),
        (["optimizer=ssbroyden", "method.clip=1.0"], r"SSBroyden chooses the length of its steps by the loss"),
        (["optimizer=ssbroyden", "differentiator=stochastic"], r"SSBroyden compares losses, and Stochastic draws"),
        (["weighting=causal"], r"weighting=causal follows time, and Poisson1D has the coordinates x"),
        (["weighting=self_adaptive", "sampler=uniform", "sampler.resample_every=5"], r"has a weight for each point"),
        (["method.redraw=0.1"], r"method\.redraw asks for other points, and Grid has the same ones each time"),
        (["weighting=ntk", "weighting.momentum=1.0"], r"weighting\.momentum=1\.0 is no part of old weights"),
        (["weighting=balance", "weighting.rate=0.0"], r"weighting\.rate=0\.0 is no rate"),
        (["weighting=balance", "weighting.every=0"], r"weighting\.every=0 is no number of steps"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(
    compose: Compose, tmp_path: Path, words: list[str], sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        run(build(compose(*SMALL, "method.steps=10", *words)), tmp_path)


def test_an_unknown_schedule_is_refused_by_the_command(tmp_path: Path) -> None:
    import forked

    done = forked.run("-m", "pde_train", "tracking=none", "schedule=cosin", folder=tmp_path)
    assert done.returncode != 0
    named = "constant, cosine, exponential, linear, plateau, warm_up"
    assert f"schedule=cosin is no choice: expected one of {named}" in done.stderr
