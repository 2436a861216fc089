"""Cells that train as one are the runs that they are alone."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pytest
import torch
from fixtures import Compose, descent_of
from omegaconf import OmegaConf
from sweeping import SMALL, assert_losses_in_store, results, rows, runs, started, swept
from torch import Tensor

from pde_train.diagnostics.base import Diagnostics
from pde_train.experiment import build
from pde_train.geometry import Batch
from pde_train.optimizers.adam import AdamUpdate
from pde_train.optimizers.base import REMEMBERED
from pde_train.problem import Problem
from pde_train.runs.run import run
from pde_train.runs.stack import shape
from pde_train.tracking.record import Record
from pde_train.training import select_stacked_steps as choice
from pde_train.training.checkpoint import content
from pde_train.training.compiling import peak_bytes, trace
from pde_train.training.select_stacked_steps import CannotStack
from pde_train.training.signals import StopSignals
from pde_train.training.stacked import train_together, why_not
from pde_train.training.stacked_steps import StackedSteps
from pde_train.training.steps import EagerSteps
from pde_train.training.training import Training

NETWORK = ["model=two_layer", "model.width=6", "sampler=uniform", "sampler.interior=20", "optimizer.lr=1e-2"]

STACK = ["hydra/launcher=stacked"]

VARIANTS = [
    [["seed=1"], ["seed=2"], ["seed=3"]],
    [["optimizer.lr=1e-2"], ["optimizer.lr=1e-3"]],
    [["optimizer=gradient", "optimizer.lr=1e-3"], ["optimizer=gradient", "optimizer.lr=1e-4"]],
    [["pde.frequency=1"], ["pde.frequency=2.5", "seed=4"]],
    [["pde.weights={value: 3.0}"], ["pde.weights={value: 10}"], []],
    [["differentiator=finite_difference/1e-1"], ["differentiator=finite_difference/1e-2"]],
    [["differentiator=hybrid", "differentiator.step=0.1"], ["differentiator=hybrid", "differentiator.step=0.01"]],
    [["differentiator=reverse", "pde=biharmonic_1d"], ["differentiator=reverse", "pde=biharmonic_1d", "seed=9"]],
    [["pde=convection_1d", "pde.beta=1"], ["pde=convection_1d", "pde.beta=3.0", "pde.weights={seam: 2.0}"]],
    [["pde=burgers_1d", "pde.conditions=exact"], ["pde=burgers_1d", "pde.conditions=exact", "seed=3"]],
    [["pde=burgers_1d", "pde.viscosity=0.1"], ["pde=burgers_1d", "pde.viscosity=0.2"]],
    [["model=random_features", "model.features=9", f"seed={k}", "method=gradient_descent"] for k in range(3)],
]


def posed(compose: Compose, words: list[str]) -> tuple[Problem, torch.optim.Optimizer, Batch]:
    network = [word for word in NETWORK if "model=random_features" not in words or not word.startswith("model")]
    experiment = build(compose(*network, *words))
    problem = experiment.problem
    return problem, descent_of(experiment).optimizer(problem.model.parameters()), problem.draw(np.random.default_rng(0))


@pytest.mark.parametrize("variants", VARIANTS, ids=lambda v: " | ".join(" ".join(words) for words in v))
def test_every_problem_of_a_stack_takes_the_steps_that_it_takes_alone(
    compose: Compose, variants: list[list[str]]
) -> None:
    alone, together = ([posed(compose, words) for words in variants] for _ in range(2))
    problems, optimizers, batches = zip(*together, strict=True)
    stack = StackedSteps(problems, optimizers, batches, StopSignals(), block=2)
    found = stack.advance(stack.batches, 3)
    assert found.shape == (len(variants), 3)
    for i, (problem, optimizer, batch) in enumerate(alone):
        expected = EagerSteps(problem, optimizer, StopSignals()).take(batch, 3)
        # sums in another order, which differences divide by h^2 <= 1e4, and Adam by the root of its smallest square
        torch.testing.assert_close(found[i][0], expected[0], rtol=1e-10, atol=0)
        torch.testing.assert_close(found[i], expected, rtol=1e-7, atol=0)
        if isinstance(optimizer, torch.optim.SGD):  # Adam moves a parameter whose gradient is rounding anywhere
            for one, other in zip(problem.model.parameters(), together[i][0].model.parameters(), strict=True):
                torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-12)


def test_every_problem_of_a_stack_has_the_steps_that_finite_differences_choose_for_it(compose: Compose) -> None:
    words = ["pde=biharmonic_1d", "differentiator=finite_difference", "differentiator.step=optimal"]
    words += ["differentiator.accuracy=8", "optimizer=gradient", "optimizer.lr=1e-5"]
    alone, together = ([posed(compose, [*words, f"seed={seed}"]) for seed in (1, 2, 3)] for _ in range(2))
    for problem, _, batch in (*alone, *together):
        problem.tune(problem.model, batch)
    problems, optimizers, batches = zip(*together, strict=True)
    stack = StackedSteps(problems, optimizers, batches, StopSignals(), block=2)
    chosen = set()
    for _ in range(2):
        found = stack.advance(stack.batches, 3)
        for i, (problem, optimizer, batch) in enumerate(alone):
            expected = EagerSteps(problem, optimizer, StopSignals()).take(batch, 3)
            torch.testing.assert_close(found[i], expected, rtol=1e-7, atol=0)
            chosen.add(tuple(problem.differentiator.numbers().values()))
        for problem, _, batch in (*alone, *together):
            with torch.no_grad():
                for parameter in problem.model.parameters():
                    parameter.mul_(1.5)
            problem.tune(problem.model, batch)
        stack.state = stack._states()
    assert len(chosen) == 6


def test_new_points_reach_every_problem(compose: Compose) -> None:
    (one, first, _), (other, second, batch) = (posed(compose, []) for _ in range(2))
    stack = StackedSteps([other], [second], [batch], StopSignals(), block=1)
    stack.trace()
    drawn = one.draw(np.random.default_rng(5))
    stack.place([drawn])
    expected = EagerSteps(one, first, StopSignals()).take(drawn, 2)
    torch.testing.assert_close(stack.advance(stack.batches, 2)[0], expected, rtol=1e-12, atol=0)


def test_what_a_stack_must_share_and_what_not(compose: Compose, tmp_path: Path) -> None:
    def shape_of(*words: str) -> str:
        config: Any = OmegaConf.to_container(compose(*NETWORK, *words), resolve=True)
        return shape(config)

    same = shape_of()
    for words in (["seed=5"], ["optimizer.lr=0.5"], ["pde.frequency=3"], ["pde.weights={value: 2}"], ["model.seed=8"]):
        assert shape_of(*words) == same, words
    for words in (["model.width=7"], ["method.steps=9"], ["pde=biharmonic_1d"], ["model.activation=sin"]):
        assert shape_of(*words) != same, words
    step = [shape_of("differentiator=finite_difference", f"differentiator.step={h}") for h in ("1e-2", "1e-3", "auto")]
    assert step[0] == step[1] != step[2]


def test_a_function_that_makes_a_pde_says_nothing_of_its_numbers(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its fields are known once it is called, so runs that differ in its arguments are of different shapes."""
    text = (
        "from pde_train.pdes.poisson_1d import Poisson1D\n\n\ndef make(frequency, weights):\n    return Poisson1D()\n"
    )
    (tmp_path / "made_by_function.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    words = ["pde._target_=made_by_function.make", "trusted_modules=[made_by_function]"]
    configs: list[Any] = [
        OmegaConf.to_container(compose(*NETWORK, *words, f"pde.frequency={f}"), resolve=True) for f in (1, 2)
    ]
    assert shape(configs[0]) != shape(configs[1])


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["optimizer=nncg"], "NNCG has no step that many runs can take together"),
        (["differentiator=stochastic"], "Stochastic changes from step to step"),
        ([], None),
    ],
)
def test_what_cannot_be_stacked_says_why(compose: Compose, tmp_path: Path, words: list[str], why: str | None) -> None:
    experiment = build(compose("model=two_layer", "sampler.interior=20", *words))
    assert why_not(experiment.problem, descent_of(experiment).optimizer) == why


def test_a_model_with_parameters_that_stay_is_not_stacked(compose: Compose) -> None:
    experiment = build(compose("model=two_layer", "sampler.interior=20"))
    next(experiment.problem.model.parameters()).requires_grad_(False)
    why = why_not(experiment.problem, descent_of(experiment).optimizer)
    assert why == "MLP has parameters that are not trained"


def training_of(compose: Compose, folder: Path, *words: str, diagnostics: Diagnostics | None = None) -> Training:
    """The training of a run of five steps."""
    of = build(compose(*NETWORK, "method.steps=5", "diagnostics=none", *words))
    folder.mkdir(parents=True, exist_ok=True)
    return descent_of(of).training(of.problem, Record(of.tracker, of.entropy), diagnostics or of.diagnostics, folder)


def trained(trainings: list[Training], memory: float = 1e9) -> dict[int, int | Exception]:
    """Train runs together: what each was told at its end, the number of its steps or an error."""
    told: dict[int, int | Exception] = {}

    def tell(training: Training, word: int | Exception) -> None:
        told.setdefault(trainings.index(training), word)

    with StopSignals() as signals:
        train_together(trainings, signals, lambda training: tell(training, training.step), tell, memory)
    return told


def test_memory_bounds_the_number_of_cells_that_take_a_step_at_once(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings = [training_of(compose, tmp_path / str(seed), f"seed={seed}") for seed in range(5)]
    blocks = []
    original = StackedSteps.advance
    monkeypatch.setattr(
        StackedSteps, "advance", lambda self, *given: blocks.append(self.blocks) or original(self, *given)
    )
    one, optimizer, batch = posed(compose, [])
    problem = StackedSteps([one] * 2, [optimizer] * 2, [batch] * 2, StopSignals(), block=2)
    problem.trace()
    told = trained(trainings, memory=2.5 * problem.bytes_of_each)
    assert blocks == [[[0, 1], [2, 3], [4, 4]]]
    assert told == dict.fromkeys(range(5), 5)


def test_peak_memory_counts_what_is_alive_at_the_same_time() -> None:
    def function(x: Tensor) -> list[Tensor]:
        y = x + 1
        z = y * 2
        return [z - x]

    graph = trace(function, [torch.zeros(1000, dtype=torch.float64)], []).step
    assert peak_bytes(graph) == 3 * 8000  # x, y, z; then x, z and the result


def alike(alone: dict[str, Any], together: dict[str, Any]) -> None:
    """Two results of one cell, apart from rounding that five hundred steps of Adam have let grow, and from times."""
    assert alone["status"] == together["status"] == "finished"
    assert alone["config_hash"] == together["config_hash"]
    assert set(alone["metrics"]) == set(together["metrics"]) | {"seconds_compile"}
    assert [step for step, _ in alone["curves"]["loss"]] == [step for step, _ in together["curves"]["loss"]]
    for name in ("error_l2", "residual", "residual_exact", "spectrum/max", "entropy/1e-08"):
        assert together["metrics"][name] == pytest.approx(alone["metrics"][name], rel=1e-6), name


def test_a_stacked_sweep_is_the_sweep_whatever_fails_in_it(tmp_path: Path) -> None:
    """One cell turns nan, and stops alone; every other is the run that it is alone, with every row in the store."""
    words = [
        *SMALL,
        "sampler=uniform",
        "seed=0,1",
        "optimizer.lr=1e-3,1e-2,1e200",
        "pde.frequency=1,2",
        "method.steps=60",
    ]
    stacked, alone = tmp_path / "stacked", tmp_path / "alone"
    for folder, launcher in ((stacked, STACK), (alone, ["tracking=none"])):
        folder.mkdir()
        swept(folder, *words, *launcher, code=1)
    together, one_by_one = results(stacked), results(alone)
    assert together.keys() == one_by_one.keys()
    failed = {name for name, result in one_by_one.items() if result["status"] == "failed"}
    assert failed == {name for name, result in together.items() if result["status"] == "failed"}
    assert len(failed) == 4
    for name in failed:
        assert together[name]["error"] == one_by_one[name]["error"]
    for name in one_by_one.keys() - failed:
        alike(one_by_one[name], together[name])
    (parent,), children = runs(stacked)
    assert parent.data.tags["runs.finished"] == "8"
    assert len(children) == 12
    assert len({c.info.run_name for c in children}) == 12
    assert "lr 0.001 · frequency 1 · seed 0" in {c.info.run_name for c in children}
    for child in children:
        if child.info.status == "FINISHED":
            assert [step for step, _ in rows(stacked, child)] == list(range(60))
            assert rows(stacked, child, "spectrum/final")
    assert len(list(stacked.glob("multirun/stacks/*"))) == 1
    assert "stacked with 11 others" in next(c for c in children if c.info.status == "FINISHED").data.tags["steps"]


def test_a_stack_that_was_killed_or_stopped_goes_on_stacked_or_alone(tmp_path: Path) -> None:
    words = [*SMALL, "seed=0,1,2", "method.steps=1500", "method.checkpoint_every=50", "sampler=uniform"]
    for blow in (signal.SIGKILL, signal.SIGTERM):
        process = started(tmp_path, *words, *STACK)
        while len(list(tmp_path.glob("multirun/cells/*/checkpoint.ckpt"))) < 3:
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        before = len(results(tmp_path))
        os.killpg(process.pid, blow)
        process.communicate()
        assert before == 0
    swept(tmp_path, *words)  # one by one
    (tmp_path / "peace").mkdir()
    swept(tmp_path / "peace", *words, "tracking=none")
    undisturbed = results(tmp_path / "peace")
    for name, result in results(tmp_path).items():
        assert result["metrics"]["error_l2"] == pytest.approx(undisturbed[name]["metrics"]["error_l2"], rel=1e-3)
    _, children = runs(tmp_path)
    assert len(children) == 3
    for child in children:
        assert_losses_in_store([step for step, _ in rows(tmp_path, child)], 1500, stops=1)


def test_cells_of_several_shapes_and_methods_are_several_stacks(tmp_path: Path) -> None:
    out, _ = swept(tmp_path, *STACK, "model.features=10,20", "seed=0,1", "hydra.launcher.size=1", "tracking=none")
    assert "4 cells in 4 stacks, 4 jobs" in out
    out, _ = swept(tmp_path, *STACK, "model.features=12,13,14", "seed=0,1", "hydra.launcher.stacks=2", "tracking=none")
    assert "6 cells in 3 stacks, 2 jobs" in out
    out, _ = swept(tmp_path, *STACK, "model.features=11", "seed=0,1,2", "tracking=none")
    assert "3 of 3 cells train one by one: LeastSquares trains one run after another" in out
    assert [r["status"] for r in results(tmp_path).values()] == ["finished"] * 13
    _, err = swept(tmp_path, *STACK, "hydra.launcher.size=0", "seed=0,1", "tracking=none", code=2)
    assert "hydra.launcher.size=0 is no size: expected a positive number" in err
    _, err = swept(tmp_path, *STACK, "hydra.launcher.stacks=0.5", "seed=0,1", "tracking=none", code=2)
    assert "hydra.launcher.stacks=0.5 is no size: expected a positive number, at least 1" in err


def test_random_features_of_a_stack_are_bit_for_bit_those_of_a_run(compose: Compose, tmp_path: Path) -> None:
    words = ["model.features=30", "seed=3", "differentiator=finite_difference"]
    tmp_path = tmp_path / "it's a folder, {with} signs"
    tmp_path.mkdir()
    swept(tmp_path, *STACK, *words, "sampler.interior=50,60", "tracking=none")
    alone = run(build(compose(*words, "sampler.interior=50")), tmp_path / "alone").last()
    found = next(r for r in results(tmp_path).values() if "sampler.interior=50" in r["overrides"])
    for name, value in json.loads(json.dumps(found["metrics"])).items():
        if not name.startswith("seconds"):
            assert value == alone[name], name


def test_a_formula_that_wants_python_numbers_trains_one_by_one(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "import math\nfrom dataclasses import dataclass\nfrom pde_train.pdes.base import on\n"
        "from pde_train.pdes.poisson_1d import Poisson1D\n\n@dataclass(frozen=True)\nclass Own(Poisson1D):\n"
        "    @on('interior', needs='u_xx')\n"
        "    def poisson(self, d):\n        return -d.u_xx - math.sin(self.frequency)\n"
        "    @on('boundary', needs='u')\n    def value(self, d):\n        return d.u\n"
    )
    words = [*SMALL, *STACK, "pde._target_=own.Own", "trusted_modules=[own]", "tracking=none", "pde.frequency=1,2"]
    out, _ = swept(tmp_path, *words)
    assert "2 of 2 cells train one by one: " in out
    assert {r["status"] for r in results(tmp_path).values()} == {"finished"}


class Stumbling(Diagnostics):
    """Looks at the end, and raises there what no run is expected to raise, or nothing."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error

    def steps(self, total: int) -> frozenset[int]:
        return frozenset({total})

    def measure(
        self, problem: Problem, batch: Batch, step: int, record: Record, jacobian: Tensor | None = None
    ) -> None:
        if self.error is not None:
            raise self.error


def test_a_probe_that_raises_ends_its_own_run(compose: Compose, tmp_path: Path) -> None:
    error = ArithmeticError("the probe stumbled")
    trainings = [
        training_of(compose, tmp_path / str(seed), f"seed={seed}", diagnostics=Stumbling(raised))
        for seed, raised in enumerate((None, error, None))
    ]
    assert trained(trainings) == {0: 5, 1: error, 2: 5}


def test_a_run_that_diverges_at_its_first_step_ends_alone(compose: Compose, tmp_path: Path) -> None:
    told = trained(
        [training_of(compose, tmp_path / rate, f"optimizer.lr={rate}") for rate in ("1e-3", "1e308", "1e-2")]
    )
    assert (told[0], told[2]) == (5, 5)
    assert "nan or infinite" in str(told[1])


def test_a_stack_that_cannot_be_read_is_the_result_of_its_cells(tmp_path: Path) -> None:
    """What a job raises before any cell has begun: none is tried three times without a word."""
    code = "\n".join(
        [
            "import sys",
            "from pde_train.sweeps import stacked_launcher as s",
            "job = s.StackedLauncher._job",
            "def spoiled(self, cells, grid):",
            "    words = job(self, cells, grid)",
            "    next(grid.folder.parent.glob('stacks/*/stack.json')).write_text('{')",
            "    return words",
            "s.StackedLauncher._job = spoiled",
            "from pde_train.cli import main",
            f"sys.argv[1:] = {['--multirun', *SMALL, *STACK, 'seed=0,1', 'tracking=none']!r}",
            "main()",
        ]
    )
    done = forked.run("-c", code, folder=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert (done.stdout + done.stderr).count("a job ended with JSONDecodeError") == 1
    assert [r["status"] for r in results(tmp_path).values()] == ["failed", "failed"]


def test_stacked_steps_are_compared_with_those_of_a_run_alone(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pure function of an optimiser in place of its own step: a slip in it is found before anything is trained."""
    right = AdamUpdate.step

    def wrong(self: AdamUpdate, state: list[Tensor], gradient: Tensor, loss: Tensor, hyper: Tensor) -> list[Tensor]:
        new, *rest = right(self, state, gradient, loss, hyper)
        return [new + 1e-6 * (new - state[0]), *rest]

    for step, refused in ((right, False), (wrong, True)):
        monkeypatch.setattr(AdamUpdate, "step", step)
        trainings = [training_of(compose, tmp_path / f"{refused}-{seed}", f"seed={seed}") for seed in range(2)]
        if refused:
            with pytest.raises(CannotStack, match="its steps are not those of a run alone"):
                trained(trainings)
        else:
            trained(trainings)


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize(
    ("words", "alone"),
    [
        (["differentiator=finite_difference", "differentiator.accuracy=8"], True),  # 9 x 20 points
        (["differentiator=finite_difference"], False),  # 3 x 20
        (["differentiator=taylor"], False),
        (["differentiator=finite_difference", "differentiator.accuracy=8", "method.compile=never"], False),
        (["differentiator=finite_difference", "differentiator.accuracy=8", "method.steps=999"], False),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_wide_stencils_train_alone_where_code_of_one_run_is_compiled(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], alone: bool
) -> None:
    monkeypatch.setattr(choice, "SMALL_BLOCK_ROWS", 100)
    monkeypatch.setattr(choice, "ALONE", 9 * 20 * 1000)
    first = training_of(compose, tmp_path, "method.steps=1000", *words)
    if alone:
        with pytest.raises(CannotStack, match="evaluates the model at 9 points for each of its own"):
            choice._check_worth(first)
    else:
        choice._check_worth(first)


@pytest.mark.parametrize("optimizer", ["ssbroyden", "ssbfgs", "lbfgs", "adam_then_lbfgs"])
def test_line_searches_of_a_stack_are_those_of_the_runs_alone(compose: Compose, optimizer: str) -> None:
    """Some accept a step while others shrink a bracket, each as it would by itself."""

    def own(seed: int) -> tuple[Problem, torch.optim.Optimizer, Batch]:
        switch = ["optimizer.switch=3"] if optimizer == "adam_then_lbfgs" else []
        experiment = build(compose(*NETWORK[:-1], f"optimizer={optimizer}", f"seed={seed}", *switch))
        problem = experiment.problem
        return (
            problem,
            descent_of(experiment).optimizer(problem.model.parameters()),
            problem.draw(np.random.default_rng(0)),
        )

    alone, together = ([own(seed) for seed in (1, 2, 3)] for _ in range(2))
    problems, optimizers, batches = zip(*together, strict=True)
    stack = StackedSteps(problems, optimizers, batches, StopSignals(), block=2)
    found = torch.cat([stack.advance(stack.batches, 6), stack.advance(stack.batches, 6)], dim=1)
    accepted = set()
    for i, (problem, optimiser, batch) in enumerate(alone):
        expected = EagerSteps(problem, optimiser, StopSignals()).take(batch, 12)
        torch.testing.assert_close(found[i], expected, rtol=1e-6, atol=0)
        accepted.add(tuple((expected.diff() != 0).tolist()))
        for one, other in zip(problem.model.parameters(), together[i][0].model.parameters(), strict=True):
            torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-7)
    assert len(accepted) > 1
    for problem, optimiser, _ in together:  # a checkpoint does not hold the inverse Hessians of the others
        (state,) = content(problem.model, optimiser, {})["optimizer_states"]
        for tensor in state["state"][0][REMEMBERED]:
            assert tensor.untyped_storage().nbytes() == tensor.nbytes


def test_scheduled_and_clipped_steps_of_a_stack_are_those_of_the_runs_alone(compose: Compose) -> None:
    variants = [["optimizer=gradient", f"optimizer.lr={lr}"] for lr in ("1e-2", "1e-3", "3e-3")]
    alone, together = ([posed(compose, words) for words in variants] for _ in range(2))
    rates = torch.rand(3, 15, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    problems, optimizers, batches = zip(*together, strict=True)
    stack = StackedSteps(problems, optimizers, batches, StopSignals(), block=2, clip=0.7)
    found = stack.advance(stack.batches, 15, rates)
    for i, (problem, optimizer, batch) in enumerate(alone):
        expected = EagerSteps(problem, optimizer, StopSignals(), clip=0.7).take(batch, 15, rates[i])
        torch.testing.assert_close(found[i], expected, rtol=1e-10, atol=0)


@pytest.mark.usefixtures("without_figures")
def test_a_run_of_a_stack_that_has_a_reason_ends_while_the_others_go_on(compose: Compose, tmp_path: Path) -> None:
    """Its numbers are those of the step at which it ended, and those of the others do not notice."""
    words = [*NETWORK, "method.steps=60", "method.log_every=10", "method.compile=never", "diagnostics=none"]
    seeds = range(3)
    free = [run(build(compose(*words, f"seed={seed}")), tmp_path / f"free{seed}") for seed in seeds]
    held_out = [[record.series["residual_held_out"][k] for k in range(10, 61, 10)] for record in free]
    level = held_out[0][2] * 1.0001  # the first run comes so far in thirty steps, if not before
    stopping = [*words, f"stop.residual={level}"]
    trainings, ended = [], dict[Training, float]()
    for seed in seeds:
        experiment = build(compose(*stopping, f"seed={seed}"))
        record = Record(experiment.tracker, experiment.entropy)
        folder = tmp_path / f"stack{seed}"
        folder.mkdir()
        trainings.append(descent_of(experiment).training(experiment.problem, record, experiment.diagnostics, folder))
    with StopSignals() as signals:
        train_together(
            trainings,
            signals,
            lambda t: ended.__setitem__(t, t.problem.errors()["error_l2"]),
            lambda t, e: pytest.fail(str(e)),
            float("inf"),
        )
    assert set(ended) == set(trainings)
    expected = [next((10 * (k + 1) for k, v in enumerate(values) if v <= level), 60) for values in held_out]
    assert expected[0] <= 30
    assert [training.step for training in trainings] == expected
    for seed, training in zip(seeds, trainings, strict=True):
        tag = training.record.tags["stopped"]
        early = min(held_out[seed]) <= level
        assert tag.startswith("tolerance" if early else "budget")
        error = free[seed].series["error_l2"][training.step]
        assert ended[training] == pytest.approx(error, rel=1e-6)


def test_blocks_are_filled_up_as_little_as_can_be() -> None:
    from pde_train.training.select_stacked_steps import BLOCK, block_of

    assert {count: block_of(count) for count in (1, 5, 8, 9, 10, 12, 13, 20, 64)} == {
        **{1: 1, 5: 5, 8: 8, 9: 5, 10: 5},  # ten places for nine runs
        **{12: 6, 13: 7, 20: 5, 64: 8},
    }
    for count in range(1, 200):
        assert 1 <= block_of(count) <= min(count, BLOCK)
        assert -count % block_of(count) <= (-count % BLOCK if count > BLOCK else 0)
