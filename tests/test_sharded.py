"""Points shared among processes: the loss, gradient and run of one process, and what becomes of processes that end.

Starting a process takes 2 to 5 s: most tests share one worker (`pool`), the others start their own (`no_pool`).
"""

import json
import multiprocessing
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client
from pathlib import Path
from types import SimpleNamespace

import forked
import numpy as np
import pytest
import torch
from fixtures import Compose, KilledAt, descent_of
from torch import Tensor

from pde_train.derivatives import Jet
from pde_train.errors import RunError, UsageError
from pde_train.experiment import build
from pde_train.geometry import Batch
from pde_train.pdes.base import on
from pde_train.pdes.poisson_1d import Poisson1D
from pde_train.problem import Problem
from pde_train.runs.result import Result
from pde_train.runs.run import run, run_config
from pde_train.training import select_steps as choice
from pde_train.training.compiled_steps import CompiledGradient
from pde_train.training.sharded_steps import (
    CompiledShardedSteps,
    Gradient,
    ShardedSteps,
    loss_and_gradient,
    packed,
    serve,
    shards,
)
from pde_train.training.signals import StopSignals
from pde_train.training.steps import EagerSteps
from pde_train.training.tasks import first_task, meet
from pde_train.training.workers import Workers, work_as_task

pytestmark = pytest.mark.usefixtures("without_figures")

# A large eps of Adam: with a small one, an entry of the gradient that is 0 but for rounding makes a step of full size.
SMALL = [
    "accelerator=ddp",
    "model=two_layer",
    "model.width=6",
    "sampler=uniform",
    "sampler.interior=21",
    "sampler.boundary=6",
    "sampler.initial=5",
    "diagnostics=none",
    "audit=null",
]
ADAM = ["optimizer.lr=1e-2", "optimizer.eps=1e-2"]
RUN = ["method.steps=30", "method.log_every=10", "method.checkpoint_every=10", "sampler.resample_every=12"]
ROUNDING = 1e-13
"""Relative: some hundred roundings, of sums in another order."""


@pytest.fixture(scope="module")
def pools() -> Iterator[list[Workers]]:
    """One pool of workers or none, as there can be one process group."""
    kept: list[Workers] = []
    yield kept
    for workers in kept:
        workers.close()


@pytest.fixture
def pool(pools: list[Workers], monkeypatch: pytest.MonkeyPatch) -> Workers:
    """One worker, started before, that runs use as well."""
    if not pools:
        pools.append(Workers(2, "cpu", serve))
    monkeypatch.setattr(choice, "Workers", lambda *_: pools[0])
    monkeypatch.setattr(ShardedSteps, "close", lambda self: None)
    return pools[0]


@pytest.fixture
def no_pool(pools: list[Workers]) -> None:
    while pools:
        pools.pop().close()


def posed(compose: Compose, *overrides: str) -> tuple[Problem, Batch, torch.optim.Optimizer, Tensor]:
    """A problem, its points, an optimiser, and the loss and gradient of one process."""
    experiment = build(compose(*SMALL, *overrides))
    problem = experiment.problem
    batch = problem.draw(np.random.default_rng(0))
    optimizer = descent_of(experiment).optimizer(problem.model.parameters())
    torch.manual_seed(1)
    loss = EagerSteps(problem, optimizer, StopSignals()).gradient(batch)
    return problem, batch, optimizer, torch.cat([loss.view(1), gradient_of(problem)])


def gradient_of(problem: Problem) -> Tensor:
    return torch.cat([p.grad.flatten() for p in problem.model.parameters()])


def agree(found: Tensor, expected: Tensor, rounding: float = ROUNDING) -> None:
    """The loss relative to itself, the gradient relative to its largest entry."""
    torch.testing.assert_close(found[0], expected[0], rtol=rounding, atol=0)
    torch.testing.assert_close(found[1:], expected[1:], rtol=0, atol=rounding * float(expected[1:].abs().max()))


# --- Loss and gradient


@pytest.mark.parametrize("count", [3, 8])  # more than the 2 ends of an interval, the 5 and the 6 points of a face
@pytest.mark.parametrize(
    "how", ["taylor", "reverse", "forward", "finite_difference/1e-1", "complex_step", "stochastic"]
)
@pytest.mark.parametrize("pde", ["poisson_1d", "burgers_1d", "convection_1d", "biharmonic_2d"])
def test_the_parts_of_shards_add_up_to_the_loss_and_gradient(compose: Compose, pde: str, how: str, count: int) -> None:
    problem, batch, _, expected = posed(compose, f"pde={pde}", f"differentiator={how}", "sampler.boundary=8")
    parts = shards(batch, count)
    for region, points in batch.items():
        for name, whole in vars(points).items():
            if whole is not None:
                assert torch.equal(torch.cat([getattr(part[region], name) for part in parts]), whole)
    rows = {region: len(points.x) for region, points in batch.items()}
    total = torch.zeros_like(expected)
    for part in parts:
        torch.manual_seed(1)  # of random directions, as the workers get the state of the generator
        total += loss_and_gradient(problem, part, rows)
    divided = how in ("finite_difference/1e-1", "complex_step")  # rounding over the n-th power of a step of 0.1
    agree(total, expected, ROUNDING * (10**problem.pde.order if divided else 1))


@pytest.mark.parametrize("how", ["taylor", "stochastic"])
def test_many_points_of_a_shard_are_differentiated_in_parts(
    compose: Compose, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    problem, batch, _, expected = posed(compose, "pde=biharmonic_2d", f"differentiator={how}", "sampler.boundary=8")
    rows = {region: len(points.x) for region, points in batch.items()}
    sizes = []
    loss = Problem.loss
    monkeypatch.setattr("pde_train.training.steps.EAGER_ROWS", 5)
    monkeypatch.setattr(Problem, "loss", lambda self, part, *of: sizes.append(rows_of(part)) or loss(self, part, *of))
    torch.manual_seed(1)
    agree(loss_and_gradient(problem, batch, rows), expected, 1e-9)
    assert max(sizes) == 5
    assert sum(sizes) == len(batch["interior"].x)


def rows_of(batch: Batch) -> int:
    return len(batch["interior"].x)


class Mean(Poisson1D):
    """Its residual depends on all points."""

    @on("interior", needs="u u_xx")
    def poisson(self, d: Jet) -> Tensor:
        return -d.u_xx + (d.u - d.u.mean())


def test_residuals_of_several_points_are_not_shared(compose: Compose) -> None:
    problem, batch, optimizer, _ = posed(compose)
    of_all = replace(problem, pde=Mean(), processes=2)
    with pytest.raises(UsageError, match=r"a residual of Mean depends on other points than its own"):
        choice.choose("never", of_all, optimizer, StopSignals(), batch, 10)


@pytest.mark.parametrize("how", ["taylor", "reverse", "finite_difference/1e-1"])
@pytest.mark.parametrize("pde", ["poisson_1d", "burgers_1d", "convection_1d"])
def test_two_processes_have_the_loss_and_gradient_of_one(compose: Compose, pool: Workers, pde: str, how: str) -> None:
    problem, batch, optimizer, expected = posed(compose, f"pde={pde}", f"differentiator={how}")
    steps = ShardedSteps(problem, optimizer, StopSignals(), pool)
    for _ in range(2):
        loss = steps.gradient(batch)
        agree(torch.cat([loss.view(1), gradient_of(problem)]), expected)


@pytest.mark.parametrize("interior", [21, 2600])  # 10 and 11, and 1300 points, which are more than one block
def test_compiled_gradients_of_two_processes_are_those_of_one(compose: Compose, pool: Workers, interior: int) -> None:
    problem, batch, optimizer, expected = posed(compose, f"sampler.interior={interior}")
    eager = ShardedSteps(problem, optimizer, StopSignals(), pool)
    eager.gradient(batch)
    compiled = CompiledShardedSteps(eager)
    compiled.compile()
    other = problem.draw(np.random.default_rng(1))
    for points in (batch, other, batch):  # what is kept of points follows them
        loss = EagerSteps(problem, optimizer, StopSignals()).gradient(points)
        expected = torch.cat([loss.view(1), gradient_of(problem)])
        for steps in (compiled, eager):
            loss = steps.gradient(points)
            agree(torch.cat([loss.view(1), gradient_of(problem)]), expected)
    assert compiled.compile_seconds == 0


def test_processes_that_share_points_follow_the_steps_that_finite_differences_choose(
    compose: Compose, pool: Workers
) -> None:
    words = ["differentiator=finite_difference", "differentiator.step=optimal", "differentiator.accuracy=8"]
    problem, batch, optimizer, _ = posed(compose, "pde=poisson_1d", *words)
    problem.begin(batch)
    eager = ShardedSteps(problem, optimizer, StopSignals(), pool)
    eager.gradient(batch)
    compiled = CompiledShardedSteps(eager)
    compiled.compile()
    chosen = set()
    for _ in range(2):
        loss = EagerSteps(problem, optimizer, StopSignals()).gradient(batch)
        expected = torch.cat([loss.view(1), gradient_of(problem)])
        for steps in (compiled, eager):
            loss = steps.gradient(batch)
            agree(torch.cat([loss.view(1), gradient_of(problem)]), expected, 1e-8)
        chosen.add(tuple(problem.differentiator.numbers().values()))
        with torch.no_grad():
            for parameter in problem.model.parameters():
                parameter.mul_(1.5)
        problem.tune(problem.model, batch)
    assert len(chosen) == 2


def test_workers_that_cannot_compile_are_replaced_by_some_that_need_not(
    compose: Compose, tmp_path: Path, no_pool: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    problem, batch, optimizer, expected = posed(compose, "pde=poisson_1d")
    problem = replace(problem, processes=2)
    with monkeypatch.context() as patched:  # what processes inherit that start now
        patched.setenv("PDE_TRAIN_CACHE", str(tmp_path))
        patched.setenv("CXX", "no-compiler")
        patched.setattr(CompiledGradient, "compile", lambda self: None)  # in this process alone
        steps, why = choice.choose("always", problem, optimizer, StopSignals(), batch, 10)
    try:
        assert why == "eager: the compilation failed; 2 processes share the points"
        assert re.search(r"could not be compiled \(process 1 of 2: .*No working C\+\+ compiler found", caplog.text)
        assert type(steps) is ShardedSteps
        loss = steps.gradient(batch)
        agree(torch.cat([loss.view(1), gradient_of(problem)]), expected)
    finally:
        steps.close()


def test_workers_follow_the_parameters_the_points_and_the_generator(compose: Compose, pool: Workers) -> None:
    problem, batch, optimizer, expected = posed(compose, "pde=poisson_nd", "differentiator=stochastic")
    sharded, plain = (
        ShardedSteps(problem, optimizer, StopSignals(), pool),
        EagerSteps(problem, optimizer, StopSignals()),
    )
    found = []
    for steps in (sharded, plain):
        torch.manual_seed(7)
        for parameter in problem.model.parameters():
            parameter.data = torch.full_like(parameter, 0.1)
        for points in (batch, batch, problem.draw(np.random.default_rng(5))):
            found.append(torch.cat([steps.gradient(points).view(1), gradient_of(problem)]))
            with torch.no_grad():
                for parameter in problem.model.parameters():
                    parameter.mul_(1.5)
    for ours, theirs in zip(found[:3], found[3:], strict=True):
        agree(ours, theirs)
    assert len({float(f[0]) for f in found[3:]} | {float(expected[0])}) == 4


def test_float32_stays_float32(compose: Compose, pool: Workers) -> None:
    problem, batch, optimizer, expected = posed(compose, "accelerator.precision=float32")
    loss = ShardedSteps(problem, optimizer, StopSignals(), pool).gradient(batch)
    assert loss.dtype == gradient_of(problem).dtype == torch.float32
    agree(torch.cat([loss.view(1), gradient_of(problem)]), expected, 1e-5)


# --- Runs


@pytest.mark.parametrize(
    ("overrides", "rounding"),
    [
        ([*ADAM, *RUN, "pde=burgers_1d"], 1e-11),
        ([*ADAM, *RUN, "method.compile=always"], 1e-11),
        (["optimizer=ssbroyden", *RUN[1:], "method.steps=8", "method.compile=always"], 1e-9),
        ([*ADAM, *RUN, "pde=poisson_nd", "differentiator=stochastic"], 1e-11),
        ([*ADAM, *RUN, "differentiator=complex_step"], 1e-11),
        # rounding over the square of a step that is chosen anew every 10 steps
        ([*ADAM, *RUN, "differentiator=finite_difference", "differentiator.step=optimal"], 1e-6),
        (["optimizer=lbfgs", "method.steps=5"], 1e-10),  # a line search amplifies rounding by a decade or so a step
    ],
)
def test_a_run_of_two_processes_is_that_of_one(
    compose: Compose, tmp_path: Path, pool: Workers, overrides: list[str], rounding: float
) -> None:
    two, one = (
        run(build(compose(*SMALL, *overrides, *more)), tmp_path / str(len(more)))
        for more in ([], ["accelerator=cpu", "method.compile=never"])
    )
    assert two.tags["steps"].startswith("compiled: " if "method.compile=always" in overrides else "eager: ")
    assert two.tags["steps"].endswith("; 2 processes share the points")
    assert one.tags["steps"] == "eager: method.compile=never"
    assert list(two.series["loss"].values()) == pytest.approx(list(one.series["loss"].values()), rel=rounding)
    assert two.last()["residual"] == pytest.approx(one.last()["residual"], rel=rounding)


def history(folder: Path) -> list[str]:
    """Every measured number of a run with all its digits, but for wall times."""
    return [line for line in (folder / "history.csv").read_text().splitlines() if not line.startswith("seconds")]


@pytest.mark.parametrize("words", [["differentiator=complex_step"], ["method.compile=always"]])
def test_a_resumed_run_goes_on_to_the_same_bits(
    compose: Compose, tmp_path: Path, pool: Workers, killed_at: KilledAt, words: list[str]
) -> None:
    cfg = compose(*SMALL, *ADAM, *RUN, *words)
    run_config(cfg, tmp_path / "undisturbed", {}, [])
    with killed_at(20):
        run_config(cfg, tmp_path / "killed", {}, [])
    cfg.resume = True
    assert run_config(cfg, tmp_path / "killed", {}, []).notes["steps"].endswith("; 2 processes share the points")
    assert history(tmp_path / "killed") == history(tmp_path / "undisturbed")


def test_tasks_of_a_job_compute_what_processes_of_one_machine_do(
    compose: Compose, tmp_path: Path, no_pool: None
) -> None:
    """Two runs one after another, as a job may have them; `tests/test_slurm.py` has the same on two nodes."""
    meetings = tmp_path / "meetings"
    other = multiprocessing.get_context("spawn").Process(target=work_as_task, args=(meetings, 1, 0, serve))
    other.start()
    cfg = compose(*SMALL, *ADAM, *RUN, "method.compile=always")
    run_config(cfg, tmp_path / "here", {}, [])
    cfg.sweep.tasks = str(meetings)
    with first_task(meetings):
        for name in ("there", "again"):
            run_config(cfg, tmp_path / name, {}, [])
    other.join(30)
    assert other.exitcode == 0
    assert history(tmp_path / "here") == history(tmp_path / "there") == history(tmp_path / "again")
    assert all(file.stat().st_mode & 0o077 == 0 for file in meetings.glob("meeting-*.json"))
    results = [Result.read(tmp_path / name) for name in ("here", "there")]
    assert results[0].config_hash == results[1].config_hash


def test_tasks_that_cannot_meet_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "no-such-host.invalid")
    monkeypatch.setattr("pde_train.training.workers.TCPStore", lambda *_, **__: SimpleNamespace(port=1))
    with pytest.raises(RunError, match=r"cannot meet at no-such-host\.invalid .*expected a name that every node"):
        Workers(2, "cpu", serve, tmp_path)


def test_a_stranger_does_not_take_the_place_of_a_task(tmp_path: Path) -> None:
    def stranger() -> None:
        while not (file := tmp_path / "meeting-0.json").exists():
            time.sleep(0.05)
        told = json.loads(file.read_text())
        with pytest.raises(AuthenticationError), Client((told["host"], told["port"]), authkey=b"guessed"):
            pass
        with Client((told["host"], told["port"]), authkey=bytes.fromhex(told["key"])) as pipe:
            pipe.send(1)
            pipe.send("the right one")

    thread = threading.Thread(target=stranger)
    thread.start()
    (pipe,) = meet(tmp_path, 2, {})
    assert pipe.recv() == "the right one"
    pipe.close()
    thread.join()


# --- Ends


def test_a_killed_worker_is_one_sentence_and_the_next_run_has_another(
    compose: Compose, tmp_path: Path, no_pool: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    gradient, calls = ShardedSteps.gradient, []

    def fatal(self: ShardedSteps, batch: Batch) -> Tensor:
        calls.append(self)
        if len(calls) == 15:
            os.kill(self.workers.processes[0].pid, signal.SIGKILL)
            killed_at.append(time.monotonic())
        return gradient(self, batch)

    killed_at: list[float] = []
    monkeypatch.setattr(ShardedSteps, "gradient", fatal)
    cfg = compose(*SMALL, *RUN)
    with pytest.raises(RunError, match=r"one of the 2 processes .* has ended \(killed by signal 9\): .* resume=true"):
        run_config(cfg, tmp_path, {}, [])
    assert time.monotonic() - killed_at[0] < 5
    assert Result.read(tmp_path).status == "failed"
    assert not multiprocessing.active_children()
    cfg.resume = True
    assert run_config(cfg, tmp_path, {}, []).status == "finished"
    assert len(calls) == 15 + 20
    assert not multiprocessing.active_children()
    assert not torch.distributed.is_initialized()


def test_what_goes_wrong_in_a_worker_is_said_here(no_pool: None) -> None:
    workers = Workers(2, "cpu", serve)
    try:
        workers.tell([Gradient(torch.get_rng_state().numpy(), packed(("no problem", {}, {})))])
        with pytest.raises(RunError, match=r"process 1 of 2: AttributeError: 'str' object has no attribute 'model'"):
            workers.hear()
    finally:
        workers.close()


def start(folder: Path, *more: str) -> forked.Forked:
    """A run in a process group of its own, as a terminal makes them."""
    arguments = [*SMALL, "tracking=none", "method.steps=1000000", "method.chunk=50", "method.checkpoint_every=50"]
    return forked.started("-m", "pde_train", *arguments, f"hydra.run.dir={folder}", *more, folder=folder.parent)


def wait_for_checkpoint(file: Path, process: forked.Forked, after: float = 0.0) -> None:
    while not file.exists() or file.stat().st_mtime <= after:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def nothing_is_left_of(group: int) -> bool:
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_ctrl_c_checkpoints_and_no_process_outlives_the_main_one_however_it_ends(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    checkpoint = folder / "checkpoint.ckpt"
    process = start(folder)
    wait_for_checkpoint(checkpoint, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to every process
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert "a checkpoint was written" in out + err
    assert Result.read(folder).status == "interrupted"
    assert nothing_is_left_of(process.pid)

    process = start(folder, "resume=true")
    wait_for_checkpoint(checkpoint, process, after=checkpoint.stat().st_mtime)
    process.kill()
    process.communicate(timeout=60)
    assert nothing_is_left_of(process.pid)


# --- Sentences


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["accelerator.processes=0"], r"accelerator\.processes=0 does not fit: expected greater than 0"),
        (["accelerator.processes=two"], r"accelerator\.processes=two does not fit: expected a valid integer"),
        (["accelerator.processes=100000"], r"accelerator\.processes=100000 is more than this machine has processors"),
        (
            ["accelerator.processes=8", "sampler.interior=7"],
            r"processes=8 cannot share the 7 points of the interior: expected at most 7",
        ),
        (
            ["model=random_features"],
            r"LeastSquares works in one process.*choose accelerator=cpu or gpu, or method=grad",
        ),
        (["method=probe"], r"Probe works in one process, and accelerator\.processes=2 were asked for"),
    ],
)
def test_what_cannot_be_shared_is_refused(compose: Compose, overrides: list[str], sentence: str) -> None:
    overrides = [o for o in SMALL if not (o.startswith("model") and "model=random_features" in overrides)] + overrides
    with pytest.raises(UsageError, match=sentence):
        build(compose(*overrides))


def test_more_processes_than_gpus_are_refused(compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UsageError, match=r"processes=2 needs a GPU each, and torch sees 1: expected at most as many"):
        build(compose(*SMALL, "accelerator.accelerator=gpu"))


def test_a_problem_that_cannot_be_sent_is_refused() -> None:
    with pytest.raises(
        UsageError, match=r"cannot be pickled .*: expected functions and classes at the top of a module"
    ):
        packed(lambda x: x)


@pytest.mark.parametrize("activation", ["tanh", "sin", "gelu", "softplus", "sigmoid", "silu", "gaussian"])
def test_every_activation_can_be_sent(compose: Compose, activation: str) -> None:
    assert packed(build(compose(*SMALL, f"model.activation={activation}")).problem)
