"""Points that follow the residual, and mini-batches: their distribution, their steps, and resume to the same bits."""

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures import Compose, KilledAt, descent_of, interpret
from scipy import integrate, stats
from torch import Tensor

from pde_train.errors import RunError, UsageError
from pde_train.experiment import build
from pde_train.geometry import Batch, Box
from pde_train.pdes.burgers_1d import Burgers1D
from pde_train.runs.run import run, run_config
from pde_train.samplers.grid import Grid
from pde_train.samplers.residual_based import ResidualBased, density
from pde_train.samplers.uniform import Uniform
from pde_train.tracking.record import Record
from pde_train.training.compiled_steps import Compiled, CompiledSteps
from pde_train.training.signals import StopSignals
from pde_train.training.stacked import train_together
from pde_train.training.training import Training

pytestmark = pytest.mark.usefixtures("without_figures")

BOX = Box((-1.0, 2.0), (3.0, 2.5))
EPS = float(np.finfo(float).eps)
LEAST = 1e-3
"""The least p-value: with these seeds, a test of what holds does worse once in 1000."""


def peak(x: np.ndarray) -> np.ndarray:
    """A residual with a peak along the first coordinate."""
    return np.exp(-((x[:, 0] - 0.5) ** 2))


# --- The density of Wu et al.


@pytest.mark.parametrize(("k", "c"), [(1.0, 1.0), (2.0, 0.0), (0.5, 3.0), (0.0, 1.0)])
def test_the_density_is_the_formula(k: float, c: float) -> None:
    sizes = np.random.default_rng(0).exponential(1e-3, 500)
    expected = sizes**k / np.mean(sizes**k) + c
    np.testing.assert_allclose(density(sizes, k, c), expected / expected.sum(), rtol=1e3 * EPS, atol=EPS)


def test_the_density_overflows_for_no_power_and_is_uniform_where_nothing_is_left() -> None:
    steep = density(np.array([1e300, 5e299, 0.0]), 3.0, 1.0)
    np.testing.assert_allclose(steep, (np.array([1, 1 / 8, 0]) * 3 / 1.125 + 1) / 6, rtol=10 * EPS)
    np.testing.assert_array_equal(density(np.zeros(4), 1.0, 0.0), np.full(4, 0.25))


def test_one_point_is_drawn_with_its_probability() -> None:
    sampler = ResidualBased(1, 4, candidates=6, k=2.0, c=0.5)
    sizes = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    rng, counts = np.random.default_rng(0), np.zeros(6)
    for _ in range(20000):
        seen: list[np.ndarray] = []

        def sizes_of(candidates: np.ndarray, seen: list[np.ndarray] = seen) -> np.ndarray:
            seen.append(candidates)
            return sizes

        x = sampler.adapted(BOX, rng, sizes_of)
        counts[(seen[0] == x).all(axis=1)] += 1
    expected = sizes**2 / np.mean(sizes**2) + 0.5
    assert stats.chisquare(counts, 20000 * expected / expected.sum()).pvalue > LEAST


@pytest.mark.parametrize(("k", "c"), [(1.0, 0.0), (3.0, 0.0), (1.0, 1.0)])
def test_points_have_the_density_of_the_residual(k: float, c: float) -> None:
    sampler = ResidualBased(40, 4, candidates=8000, k=k, c=c)
    rng = np.random.default_rng(1)
    x = np.concatenate([sampler.adapted(BOX, rng, peak) for _ in range(100)])
    edges = np.linspace(-1, 3, 13)
    mass = np.array(
        [integrate.quad(lambda s: math.exp(-k * (s - 0.5) ** 2), *ends)[0] for ends in itertools.pairwise(edges)]
    )
    expected = mass / mass.sum() + c * np.diff(edges) / 4
    counts = np.histogram(x[:, 0], edges)[0]
    # 40 of 8000 without replacement shift probabilities by less than a per cent
    assert stats.chisquare(counts, counts.sum() * expected / expected.sum()).pvalue > LEAST
    # along the other coordinate, on which the residual does not depend, they are uniform
    assert stats.kstest((x[:, 1] - 2) / 0.5, "uniform").pvalue > LEAST


def test_no_candidate_is_chosen_twice_even_where_the_residual_is_at_one_point() -> None:
    sampler = ResidualBased(30, 4, candidates=40, c=0.0)
    x = sampler.adapted(BOX, np.random.default_rng(0), lambda c: np.eye(len(c))[0])
    assert len(np.unique(x, axis=0)) == 30


def test_a_residual_that_is_not_finite_is_refused() -> None:
    with pytest.raises(RunError, match=r"the residual became nan or infinite at points that sampler=residual_based"):
        density(np.array([1.0, np.nan]), 1.0, 1.0)


@pytest.mark.parametrize(
    ("field", "sentence"),
    [
        (
            {"candidates": 30},
            r"sampler\.candidates=30 are fewer than the 40 points that are chosen among them: expected",
        ),
        ({"k": -1.0}, r"sampler\.k=-1.0 is negative: expected a number >= 0"),
        ({"c": -0.5}, r"sampler\.c=-0.5 is negative: expected a number >= 0"),
        (
            {"batch_size": 41},
            r"sampler\.batch_size=41 cannot be drawn from 40 points of the interior: expected at most",
        ),
        ({"batch_size": -1}, r"sampler\.batch_size=-1 cannot be drawn"),
        ({"batch_size": True}, r"sampler\.batch_size=True cannot be drawn"),
    ],
)
def test_numbers_out_of_range_are_refused(field: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        ResidualBased(40, 4, **field)


# --- The residual that points follow

BURGERS = ["pde=burgers_1d", "model.hidden=[6]", "sampler.interior=40", "sampler.boundary=8", "sampler.initial=8"]


def test_the_size_of_the_residual_is_that_of_the_equation(compose: Compose) -> None:
    problem = build(compose(*BURGERS, "sampler=uniform", "pde.weights={burgers: 3.0}")).problem
    x = np.array(BOX.place(np.random.default_rng(0).random((5, 2)))) / 10
    points = torch.from_numpy(x).requires_grad_()
    u = problem.model(points)
    (first,) = torch.autograd.grad(u.sum(), points, create_graph=True)
    (second,) = torch.autograd.grad(first[:, 0].sum(), points)
    expected = first[:, 1] + u[:, 0] * first[:, 0] - Burgers1D().viscosity * second[:, 0]
    np.testing.assert_allclose(problem.residual_sizes(x), 3 * expected.abs().detach().numpy(), rtol=1e-12)


def test_points_that_are_drawn_again_crowd_where_the_residual_is_large(compose: Compose) -> None:
    words = ["sampler=residual_based", "sampler.k=4", "sampler.c=0", "sampler.interior=200"]
    problem = build(compose(*BURGERS, *words)).problem
    rng = np.random.default_rng(0)
    first, again = problem.draw(rng), problem.redraw(rng)
    sizes = problem.residual_sizes(Uniform(20000, 4).draw(problem.pde.domain, rng)["interior"].x.numpy())
    drawn = problem.residual_sizes(again["interior"].x.numpy())
    expected = (sizes**5).mean() / (sizes**4).mean()  # of |r| where the density is |r|^4
    assert expected > 1.05 * sizes.mean()
    assert drawn.mean() == pytest.approx(expected, abs=4 * drawn.std() / 200**0.5)
    assert again["interior"].x.shape == first["interior"].x.shape
    assert again["interior"].x.dtype == problem.dtype


def test_other_samplers_draw_again_as_they_draw_first(compose: Compose) -> None:
    problem = build(compose(*BURGERS, "sampler=uniform")).problem
    first, again = problem.draw(np.random.default_rng(4)), problem.redraw(np.random.default_rng(4))
    assert all(torch.equal(first[region].x, again[region].x) for region in first)


# --- Mini-batches


@pytest.mark.usefixtures("without_figures")
def test_points_that_become_more_are_refused(compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled code would not see those that are added, and eager code would weigh them otherwise."""
    adapted = Uniform.adapted

    def one_more(self: Uniform, *what: Any) -> np.ndarray:
        return np.concatenate([adapted(self, *what), [[0.5]]])

    monkeypatch.setattr(Uniform, "adapted", one_more)
    words = ["model=two_layer", "model.width=5", "sampler=uniform", "sampler.interior=16", "sampler.resample_every=5"]
    sentence = "Uniform has drawn 17 points of region 'interior' where it had drawn 16: expected as many each time"
    with pytest.raises(RunError, match=sentence):
        run(build(compose(*words, "method.steps=10", "method.compile=never")), tmp_path)


def test_a_mini_batch_is_a_random_subset_of_the_interior_alone() -> None:
    sampler = Uniform(50, 8, seed=3, batch_size=10)
    batch = sampler.draw(BOX, np.random.default_rng(3))
    counts = np.zeros(50)
    for step in range(2000):
        small = sampler.mini_batch(batch, step)
        assert small["boundary"] is batch["boundary"]
        rows = (batch["interior"].x[:, None] == small["interior"].x).all(dim=2).nonzero()[:, 0]
        assert len(rows) == len(set(rows.tolist())) == 10
        counts[rows] += 1
    # without replacement counts vary a little less than chi-square has it
    assert stats.chisquare(counts).pvalue > LEAST
    again = Uniform(50, 8, seed=3, batch_size=10).mini_batch(batch, 1999)
    assert torch.equal(again["interior"].x, small["interior"].x)
    other = Uniform(50, 8, seed=4, batch_size=10).mini_batch(batch, 1999)
    assert not torch.equal(other["interior"].x, small["interior"].x)


def test_without_a_batch_size_every_step_sees_the_same_points() -> None:
    sampler = Grid(16, 8)
    batch = sampler.draw(BOX, np.random.default_rng(0))
    assert sampler.mini_batch(batch, 7) is batch


def test_the_gradient_of_mini_batches_is_unbiased(compose: Compose) -> None:
    problem = build(compose(*BURGERS, "sampler=uniform", "sampler.batch_size=10")).problem
    batch = problem.draw(np.random.default_rng(0))
    parameters = list(problem.model.parameters())

    def gradient(points: Batch) -> Tensor:
        parts = torch.autograd.grad(problem.loss(points), parameters)
        return torch.cat([part.flatten() for part in parts])

    several = torch.stack([gradient(problem.sampler.mini_batch(batch, step)) for step in range(400)])
    spread = several.std(dim=0) / 20 + EPS
    assert float(((several.mean(dim=0) - gradient(batch)) / spread).abs().max()) < 5


def test_a_step_sees_its_own_mini_batch_and_measurements_see_all_points(compose: Compose, tmp_path: Path) -> None:
    words = [*BURGERS, "sampler=uniform", "sampler.batch_size=10", "method.steps=6", "diagnostics.when=[last]"]
    cfg = compose(*words, "optimizer=gradient", "optimizer.lr=1e-3", "method.compile=never")
    record = run(build(cfg), tmp_path)
    problem = build(cfg).problem
    batch = problem.draw(np.random.default_rng(problem.sampler.seed))
    for step in range(6):
        loss = problem.loss(problem.sampler.mini_batch(batch, step))
        assert float(loss.detach()) == record.series["loss"][step]
        for parameter, part in zip(
            problem.model.parameters(), torch.autograd.grad(loss, list(problem.model.parameters())), strict=True
        ):
            parameter.data -= 1e-3 * part
    assert record.series["residual"][6] == pytest.approx(problem.residual(batch), rel=1e-12)
    rows = min(40 + 8 + 8, sum(p.numel() for p in problem.model.parameters()))
    assert len(record.spectra[6].values) == rows


def test_least_squares_takes_all_points_at_once(compose: Compose, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"method=least_squares takes all points at once, and sampler\.batch_size=8"):
        run(build(compose("sampler.batch_size=8")), tmp_path)


# --- Resume, compiled and stacked steps

KINDS = {
    "residual_based": ["sampler=residual_based", "sampler.resample_every=7", "sampler.candidates=300"],
    "batch_size": ["sampler=uniform", "sampler.batch_size=9", "sampler.resample_every=13"],
    "both": ["sampler=residual_based", "sampler.resample_every=7", "sampler.candidates=300", "sampler.batch_size=9"],
}
RUN = ["method.steps=40", "method.chunk=10", "method.log_every=20", "method.checkpoint_every=10", "diagnostics=none"]
every_kind = pytest.mark.parametrize("kind", KINDS)


def history(folder: Path) -> list[str]:
    """Every measured number of a run with all its digits, but for wall times."""
    return [line for line in (folder / "history.csv").read_text().splitlines() if not line.startswith("seconds")]


KILLS = [  # after which step: with a checkpoint of it, at a draw without one, at both, in the middle of a period
    ("residual_based", 20, []),
    ("residual_based", 14, ["differentiator=complex_step"]),
    ("residual_based", 28, ["accelerator.precision=float32"]),
    ("residual_based", 20, ["sampler.resample_every=10", "differentiator=finite_difference"]),
    ("batch_size", 13, []),
    ("batch_size", 20, ["optimizer=soap"]),
    ("both", 21, ["differentiator=finite_difference", "differentiator.step=optimal"]),
    ("both", 30, ["accelerator.precision=float32"]),
]


@pytest.mark.parametrize(("kind", "kill", "words"), KILLS)
def test_a_killed_run_resumes_to_the_same_bits(
    compose: Compose, tmp_path: Path, killed_at: KilledAt, kind: str, kill: int, words: list[str]
) -> None:
    cfg = compose(*BURGERS, *RUN, *KINDS[kind], "method.compile=never", *words)
    run_config(cfg, tmp_path / "undisturbed", {}, [])
    with killed_at(kill):
        run_config(cfg, tmp_path / "killed", {}, [])
    cfg.resume = True
    run_config(cfg, tmp_path / "killed", {}, [])
    assert history(tmp_path / "killed") == history(tmp_path / "undisturbed")
    ours, theirs = (torch.load(tmp_path / f / "model.pt", weights_only=True) for f in ("killed", "undisturbed"))
    assert all(torch.equal(ours[k], theirs[k]) for k in theirs)


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The graphs that would be compiled, computed operation by operation."""

    monkeypatch.setattr(Compiled, "compile", lambda self: interpret(self))
    monkeypatch.setattr(CompiledSteps, "compile_seconds", property(lambda self: 0.0))


@every_kind
@pytest.mark.usefixtures("interpreted")
def test_compiled_steps_see_the_points_of_eager_ones(compose: Compose, tmp_path: Path, kind: str) -> None:
    losses = {}
    for mode in ("always", "never"):
        record = run(build(compose(*BURGERS, *RUN, *KINDS[kind], f"method.compile={mode}")), tmp_path / mode)
        assert record.tags["steps"].startswith({"always": "compiled: ", "never": "eager: "}[mode])
        losses[mode] = [record.series["loss"][step] for step in range(40)]
    np.testing.assert_allclose(losses["always"], losses["never"], rtol=1e-9)  # roundings, through 40 steps of Adam


@every_kind
def test_runs_of_a_stack_see_the_points_that_they_see_alone(compose: Compose, tmp_path: Path, kind: str) -> None:
    def training(seed: int, folder: str) -> Training:
        experiment = build(compose(*BURGERS, *RUN, *KINDS[kind], f"seed={seed}", "method.compile=never"))
        (tmp_path / folder).mkdir()
        record = Record(experiment.tracker, experiment.entropy)
        return descent_of(experiment).training(experiment.problem, record, experiment.diagnostics, tmp_path / folder)

    trainings = [training(seed, f"stacked {seed}") for seed in (1, 2)]

    def failed(training: Training, error: Exception) -> None:
        raise error

    train_together(trainings, StopSignals(), lambda training: None, failed, memory=1e9)
    for seed, stacked in zip((1, 2), trainings, strict=True):
        cfg = compose(*BURGERS, *RUN, *KINDS[kind], f"seed={seed}", "method.compile=never")
        alone = run(build(cfg), tmp_path / f"alone {seed}").series["loss"]
        together = stacked.record.series["loss"]
        np.testing.assert_allclose([together[k] for k in range(40)], [alone[k] for k in range(40)], rtol=1e-8)
