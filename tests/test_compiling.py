"""Compiled steps: the graphs that are compiled, the steps against torch's own, the choice, and runs that are resumed.

Compiling is slow: here two functions of Adam's steps and one of L-BFGS are compiled in all, on the first use of the
fixture `library`; whatever asks for the mathematics alone interprets the same graphs (`interpreted`).
"""

import contextlib
import copy
import logging
import math
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch
from fixtures import Compose, KilledAt, descent_of, interpret
from torch import Tensor, fx, nn

from pde_train.cache import CACHE, cache_folder
from pde_train.errors import UsageError
from pde_train.experiment import build
from pde_train.geometry import Batch, Points
from pde_train.optimizers.adam import AdamUpdate
from pde_train.optimizers.quasi_newton import SSBroyden
from pde_train.problem import Problem
from pde_train.runs.run import run, run_config
from pde_train.training import compiled_steps as steps
from pde_train.training import compiler, compiling, when_to_compile
from pde_train.training import library as library_module
from pde_train.training import select_steps as choice
from pde_train.training.compiled_steps import CompiledSteps, evaluations
from pde_train.training.compiling import Traced, trace
from pde_train.training.library import build as build_library
from pde_train.training.library import load, repeat
from pde_train.training.signals import StopSignals
from pde_train.training.steps import EagerSteps, SingleSteps, split
from pde_train.training.updates import DescentUpdate

pytestmark = pytest.mark.usefixtures("without_figures")
COMPILERS = (os.environ.get("CXX", "g++"), "g++", "clang++")


compiles = pytest.mark.skipif(not any(map(shutil.which, COMPILERS)), reason="no C++ compiler is found here")


# A large eps of Adam: with a small one, an entry of the gradient that is 0 but for rounding makes a step of full size.
SMALL = [
    "model=two_layer",
    "model.width=4",
    "differentiator=taylor",
    "sampler=uniform",
    "sampler.interior=20",
    "optimizer.lr=1e-2",
    "optimizer.eps=1e-2",
    "diagnostics=none",
]
ROUNDING = 1e-11
"""Relative: some thousand roundings a step, each of which Adam amplifies by up to 1 / eps = 100, in 20 steps."""


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """20 interior points make a first block of 4 and two of 8."""
    monkeypatch.setattr(steps, "BLOCK_ROWS", 8)
    monkeypatch.setattr(steps, "SMALL_BLOCK_ROWS", 8)


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The graphs that would be compiled, computed operation by operation."""

    monkeypatch.setattr(steps.Compiled, "compile", lambda self: interpret(self))


def refuse_to_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr("torch._inductor.aot_compile", refuse)


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails where anything is compiled."""
    refuse_to_compile(monkeypatch)


def posed(compose: Compose, *overrides: str) -> tuple[Problem, torch.optim.Optimizer, Batch]:
    """A problem, its points, and an optimiser of its parameters."""
    experiment = build(compose(*SMALL, *overrides))
    problem = experiment.problem
    batch = problem.draw(np.random.default_rng(0))
    return problem, descent_of(experiment).optimizer(problem.model.parameters()), batch


def eager(compose: Compose, *overrides: str) -> tuple[EagerSteps, Batch]:
    problem, optimizer, batch = posed(compose, *overrides)
    return EagerSteps(problem, optimizer, StopSignals()), batch


def compiled(compose: Compose, *overrides: str) -> tuple[CompiledSteps, Batch]:
    problem, optimizer, batch = posed(compose, *overrides)
    made = CompiledSteps(problem, optimizer, StopSignals(), batch)
    made.compile()
    return made, batch


def state_of(taken: SingleSteps) -> dict[str, Tensor]:
    """Every tensor that a step changes, by name."""
    model, optimizer = taken.problem.model, taken.optimizer
    found = {k: p.detach().clone() for k, p in model.named_parameters()}
    for k, p in model.named_parameters():
        found |= {f"{k} {name}": v.clone() for name, v in optimizer.state[p].items() if torch.is_tensor(v)}
    return found


def agree(one: dict[str, Tensor], other: dict[str, Tensor], rounding: float = ROUNDING) -> None:
    assert one.keys() == other.keys()
    for name, expected in other.items():
        assert one[name].dtype == expected.dtype
        assert one[name].shape == expected.shape
        size = max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(one[name], expected, rtol=0, atol=rounding * size, msg=lambda m: f"{name}: {m}")  # noqa: B023


# --- The graphs


def product(state: Tensor, data: Tensor) -> tuple[Tensor, Tensor]:
    """Half of it does not change with the state."""
    return torch.sin(data).square() @ state, state.sum() + torch.cos(data).sum()


def vectors() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(3, generator=generator), torch.rand(4, 3, generator=generator)


def operations(graph: fx.GraphModule) -> list[str]:
    return [str(node.target).split(".")[1] for node in graph.graph.nodes if node.op == "call_function"]


def test_what_does_not_depend_on_the_state_is_prepared() -> None:
    state, data = vectors()
    traced = trace(product, [state], [data])
    assert sorted(operations(traced.prepare)) == ["cos", "pow", "sin", "sum"]
    assert sorted(operations(traced.step)) == ["add", "mv", "sum"]
    for k in range(3):
        kept = traced.prepare(data + k)
        for found, expected in zip(traced.step(state * k, *kept), product(state * k, data + k), strict=True):
            assert torch.equal(found, expected)


@pytest.mark.parametrize("sizes", [(1, 0, 1), (8, 0, 8), (2, 0, 3)])
def test_a_product_over_nothing_is_zero(sizes: tuple[int, int, int]) -> None:
    """As in the gradient of a share of points that is empty."""
    rows, inner, columns = sizes
    a, b = torch.zeros(rows, inner), torch.zeros(inner, columns)
    assert torch.equal(trace(lambda a, b: (a @ b,), [a], [b]).step(a, b)[0], torch.zeros(rows, columns))


def test_outputs_may_be_the_state_itself_or_independent_of_it() -> None:
    state, data = vectors()
    traced = trace(lambda s, d: (s, d.sum(), s + 1, d), [state], [data])
    found = traced.step(2 * state, *traced.prepare(3 * data))
    assert [
        torch.equal(a, b) for a, b in zip(found, (2 * state, (3 * data).sum(), 2 * state + 1, 3 * data), strict=True)
    ]


def test_a_tensor_that_is_changed_in_place_depends_on_what_it_is_changed_to() -> None:
    state, data = vectors()

    def assigned(state: Tensor, data: Tensor) -> tuple[Tensor]:
        out = torch.zeros(4, 2)
        out[:, 0] = data @ state
        return (out.square().sum(),)

    traced = trace(assigned, [state], [data])
    assert torch.equal(traced.step(2 * state, *traced.prepare(data))[0], assigned(2 * state, data)[0])


def test_constants_of_a_function_are_prepared_and_no_part_of_the_compiled_code() -> None:
    state, data = vectors()

    def scaled_by(constant: Tensor) -> Traced:
        return trace(lambda s, d: (s * constant + d.sum(),), [state], [data])

    one, other = scaled_by(torch.ones(3)), scaled_by(torch.zeros(3))
    assert one.key == other.key
    assert not torch.equal(one.step(state, *one.prepare(data))[0], other.step(state, *other.prepare(data))[0])
    assert all(node.op != "get_attr" for node in one.step.graph.nodes)


def test_what_depends_on_values_or_on_chance_cannot_be_traced() -> None:
    state, data = vectors()
    with pytest.raises(Exception, match=r"(?i)data.dependent"):
        trace(lambda s, d: (s if s.sum() > 0 else -s,), [state], [data])
    with pytest.raises(RuntimeError, match="draws random numbers"):
        trace(lambda s, d: (s + torch.rand_like(d).sum(),), [state], [data])


def test_the_key_is_that_of_the_graph_and_its_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    state, data = vectors()
    key = trace(product, [state], [data]).key
    assert trace(product, [state + 1], [2 * data]).key == key
    others = {
        trace(product, [state], [torch.rand(5, 3)]).key,
        trace(product, [state.double()], [data.double()]).key,
        trace(lambda s, d: product(2 * s, d), [state], [data]).key,
        trace(lambda s, d: product(3 * s, d), [state], [data]).key,
        trace(lambda s, d: (d @ s, s.sum()), [state], [data]).key,
        trace(lambda s, d: (d @ s, s.sum()), [state], [data.T.contiguous().T]).key,
    }
    assert len(others | {key}) == 7
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert trace(product, [state], [data]).key != key
    monkeypatch.undo()
    monkeypatch.setattr(compiler, "_processor", lambda: "another one")
    assert trace(product, [state], [data]).key != key


def test_seeds_and_learning_rates_share_code_and_shapes_do_not(compose: Compose) -> None:
    def keys(*overrides: str) -> list[str]:
        problem, optimizer, batch = posed(compose, *overrides)
        return [part.traced.key for part in CompiledSteps(problem, optimizer, StopSignals(), batch).compiled.parts]

    first = keys()
    for same in ("seed=7", "optimizer.lr=0.5", "optimizer.betas=[0.5,0.7]", "sampler.seed=3"):
        assert keys(same) == first
    others = [
        keys(o)
        for o in ("model.width=5", "accelerator.precision=float32", "pde=biharmonic_1d", "differentiator=reverse")
    ]
    assert len({key for pair in [first, *others] for key in pair}) == 10
    # other points in all: a first block of another size, and another number of points in the mean
    assert set(keys("sampler.interior=22")).isdisjoint(first)


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ({"PDE_TRAIN_CACHE": "/a/b"}, "/a/b"),
        ({"PDE_TRAIN_CACHE": "", "XDG_CACHE_HOME": "/c"}, "/c/pde_train"),
        ({"PDE_TRAIN_CACHE": "", "XDG_CACHE_HOME": "", "HOME": "/h"}, "/h/.cache/pde_train"),
        ({"PDE_TRAIN_CACHE": "~/x", "HOME": "/h"}, "/h/x"),
    ],
)
def test_where_compiled_code_is_kept(monkeypatch: pytest.MonkeyPatch, named: dict[str, str], expected: str) -> None:
    for name, value in named.items():
        monkeypatch.setenv(name, value)
    assert str(cache_folder()) == expected


# --- Steps, by the graphs that would be compiled


@pytest.mark.parametrize("total", [1, 7, 8, 9, 16, 17, 20])
def test_blocks_are_of_one_size_and_hold_every_point_once(total: int) -> None:
    x, wall = torch.arange(float(total)).unsqueeze(1), torch.zeros(9, 1)
    first, blocks = split({"interior": Points(x), "boundary": Points(wall)}, 8)
    assert torch.equal(torch.cat([part["interior"].x for part in (first, *blocks)]), x)
    assert 1 <= len(first["interior"].x) <= 8
    assert all(len(block["interior"].x) == 8 and block.keys() == {"interior"} for block in blocks)
    assert first["boundary"].x is wall


POSED = [
    ["pde=poisson_1d"],
    ["pde=biharmonic_1d", "differentiator=reverse"],
    ["pde=poisson_1d", "differentiator=finite_difference"],
    ["pde=euler_beam"],
    ["pde=poisson_2d", "sampler.interior=19"],
    ["pde=convection_1d"],
    ["pde=burgers_1d", "model.activation=gelu"],
    ["pde=poisson_nd", "pde.dimension=3", "sampler.boundary=12"],
    ["pde=poisson_1d", "sampler.interior=8"],
    ["pde=poisson_1d", "sampler.interior=3"],
    ["pde=poisson_1d", "sampler.interior=9"],
]


@pytest.mark.parametrize("how", ["taylor", "finite_difference", "complex_step", "stochastic"])
def test_eager_gradients_of_many_points_are_added_up_over_blocks(
    compose: Compose, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    words = "pde=poisson_nd", "pde.dimension=3", "sampler.interior=20", "sampler.boundary=12", f"differentiator={how}"
    experiment = build(compose(*SMALL, *words))
    batch = experiment.problem.draw(np.random.default_rng(0))
    optimizer = descent_of(experiment).optimizer(experiment.problem.model.parameters())
    eager = EagerSteps(experiment.problem, optimizer, StopSignals())

    def measured() -> tuple[Tensor, Tensor, Tensor]:
        torch.manual_seed(3)
        loss = eager.gradient(batch)
        gradient = torch.cat([p.grad.flatten() for p in experiment.problem.model.parameters() if p.grad is not None])
        return loss, gradient, torch.rand(1)  # and the generator is where it was

    whole = measured()
    monkeypatch.setattr("pde_train.training.steps.EAGER_ROWS", 8)
    for found, expected in zip(measured(), whole, strict=True):
        rounding = 1e-5 if how == "finite_difference" else 1e-9  # which a stencil divides by the square of its step
        torch.testing.assert_close(found, expected, rtol=rounding, atol=rounding)


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("overrides", POSED, ids=lambda o: " ".join(o))
@pytest.mark.parametrize("optimizer", ["adam", "gradient"])
def test_gradients_added_up_over_blocks_are_those_of_the_whole(
    compose: Compose, overrides: list[str], optimizer: str
) -> None:
    descent = [o for o in SMALL if not o.startswith("optimizer")] if optimizer == "gradient" else SMALL

    def problem_of() -> tuple[Problem, torch.optim.Optimizer]:
        experiment = build(compose(*descent, f"optimizer={optimizer}", *overrides))
        return experiment.problem, descent_of(experiment).optimizer(experiment.problem.model.parameters())

    (one, first), (other, second) = problem_of(), problem_of()
    batch = one.draw(np.random.default_rng(0))
    plain, graphs = EagerSteps(one, first, StopSignals()), CompiledSteps(other, second, StopSignals(), batch)
    graphs.compile()
    assert type(graphs.update) is (AdamUpdate if optimizer == "adam" else DescentUpdate)
    # u_xx by finite differences holds eps^(1/2) = 1.5e-8 of u, which another order of sums moves, and Adam times 100
    rounding = 1e-5 if "differentiator=finite_difference" in overrides else ROUNDING
    for _ in range(3):
        expected, found = plain.take(batch, 1), graphs.take(batch, 1)
        torch.testing.assert_close(found, expected, rtol=rounding, atol=0)
        agree(state_of(graphs), state_of(plain), rounding)


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("pde", ["biharmonic_1d", "poisson_2d"])
def test_compiled_steps_follow_the_steps_that_finite_differences_choose(compose: Compose, pde: str) -> None:
    words = f"pde={pde}", "differentiator=finite_difference", "differentiator.step=optimal", "differentiator.accuracy=8"
    (one, first, batch), (other, second, _) = posed(compose, *words), posed(compose, *words)
    one.begin(batch)
    other.begin(batch)
    plain, graphs = EagerSteps(one, first, StopSignals()), CompiledSteps(other, second, StopSignals(), batch)
    graphs.compile()
    chosen = [one.differentiator.numbers()]
    for _ in range(3):
        expected, found = plain.take(batch, 2), graphs.take(batch, 2)
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=0)  # a stencil divides rounding by its step
        for problem in (one, other):
            problem.tune(problem.model, batch)
        chosen.append(one.differentiator.numbers())
        assert chosen[-1] == pytest.approx(other.differentiator.numbers(), rel=1e-4)
    assert all(chosen[i] != chosen[i + 1] for i in range(3))


@compiles
def test_a_run_with_steps_of_its_own_choice_is_compiled(compose: Compose, tmp_path: Path, library: list[int]) -> None:
    words = "differentiator=finite_difference", "differentiator.step=optimal", "differentiator.accuracy=4"
    run_of = [*words, "method.steps=40", "method.log_every=10", "method.chunk=10"]
    found, how = losses(compose, tmp_path / "compiled", *run_of, "method.compile=always")
    expected, _ = losses(compose, tmp_path / "eager", *run_of, "method.compile=never")
    assert how.startswith("compiled: ")
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=0)


@pytest.mark.usefixtures("interpreted")
def test_adam_in_float32_is_right_to_its_rounding(compose: Compose) -> None:
    (plain, batch), (graphs, _) = (f(compose, "accelerator.precision=float32") for f in (eager, compiled))
    expected, found = plain.take(batch, 5), graphs.take(batch, 5)
    assert found.dtype == torch.float32
    # the same roundings as ROUNDING, of float32: eps is 5e8 times as large. 1 - 0.999 in float32 is off by 1e-5.
    torch.testing.assert_close(found, expected, rtol=2e-6, atol=0)
    agree(state_of(graphs), state_of(plain), 2e-6)


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("variant", ["optimizer.eps=0.5", "+optimizer.amsgrad=true", "+optimizer.weight_decay=0.1"])
def test_variants_of_adam_are_torchs_own(compose: Compose, variant: str) -> None:
    (plain, batch), (graphs, _) = (f(compose, variant) for f in (eager, compiled))
    assert (graphs.update is None) == (variant != "optimizer.eps=0.5")
    torch.testing.assert_close(graphs.take(batch, 5), plain.take(batch, 5), rtol=ROUNDING, atol=0)
    agree(state_of(graphs), state_of(plain))


@pytest.mark.usefixtures("interpreted")
def test_frozen_parameters_stay_where_they_are(compose: Compose) -> None:
    plain, batch = eager(compose)
    problem, _, _ = posed(compose)
    for frozen in (plain.problem, problem):
        frozen.model.get_parameter("layers.0.bias").requires_grad_(False)
    optimizer = torch.optim.Adam(problem.model.parameters(), lr=1e-2, eps=1e-2)
    graphs = CompiledSteps(problem, optimizer, StopSignals(), batch)
    graphs.compile()
    torch.testing.assert_close(graphs.take(batch, 5), plain.take(batch, 5), rtol=ROUNDING, atol=0)
    assert torch.equal(*(p.model.get_parameter("layers.0.bias") for p in (problem, plain.problem)))


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("optimizer", ["adam", "gradient"])
def test_a_signal_ends_the_steps_after_the_one_in_progress(compose: Compose, optimizer: str) -> None:
    problem, _, batch = posed(compose)
    kind = {"adam": torch.optim.Adam, "gradient": torch.optim.SGD}[optimizer]
    graphs = CompiledSteps(problem, kind(problem.model.parameters(), lr=1e-3), StopSignals(), batch)
    graphs.compile()
    before = state_of(graphs)
    graphs.signals.received = 15
    assert graphs.take(batch, 10).shape == (1,)
    assert not torch.equal(state_of(graphs)["layers.0.weight"], before["layers.0.weight"])


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("word", ["optimizer.lr=1e-2", "+optimizer.weight_decay=0.1"])
def test_the_comparison_with_eager_steps_changes_nothing(compose: Compose, word: str) -> None:
    graphs, batch = compiled(compose, word)
    plain = EagerSteps(graphs.problem, graphs.optimizer, graphs.signals)
    before, remembered = state_of(graphs), copy.deepcopy(graphs.optimizer.state_dict())
    choice._compare(graphs, plain, batch)
    agree(state_of(graphs), before, 0)
    assert graphs.optimizer.state_dict() == remembered


# --- Steps, compiled


@pytest.fixture(scope="module")
def library() -> Iterator[list[int]]:
    """What was compiled so far, an entry each."""
    import torch._inductor

    count, compile = [], torch._inductor.aot_compile
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch._inductor, "aot_compile", lambda *a, **k: count.append(1) or compile(*a, **k))
        yield count


@compiles
@pytest.mark.parametrize("betas", ["[0.9,0.999]", "[0.5,0.0]"])
def test_compiled_steps_of_adam_are_torchs_own(compose: Compose, library: list[int], betas: str) -> None:
    (plain, batch), (fast, _) = (f(compose, f"optimizer.betas={betas}") for f in (eager, compiled))
    assert len(batch["interior"].x) == 20
    assert fast.compiled.blocks is not None
    expected, found = plain.take(batch, 20), torch.cat([fast.take(batch, k) for k in (1, 7, 12)])
    assert expected[19] < expected[0]
    torch.testing.assert_close(found, expected, rtol=ROUNDING, atol=0)
    agree(state_of(fast), state_of(plain))
    assert len(library) <= 2  # the step of Adam and the gradient of a block, whatever the betas


@compiles
def test_eager_steps_go_on_where_compiled_ones_stop_and_the_other_way_round(
    compose: Compose, library: list[int]
) -> None:
    (plain, batch), (fast, _) = eager(compose), compiled(compose)
    expected = plain.take(batch, 24)
    slow = EagerSteps(fast.problem, fast.optimizer, StopSignals())
    found = torch.cat([s.take(batch, 6) for s in (fast, slow, fast, slow)])
    torch.testing.assert_close(found, expected, rtol=ROUNDING, atol=0)
    agree(state_of(fast), state_of(plain))
    state, usual = fast.optimizer.state_dict()["state"][0], plain.optimizer.state_dict()["state"][0]
    assert state.keys() == usual.keys()
    assert state["step"] == usual["step"] == 24


@pytest.fixture
def no_more_compiling(compose: Compose, library: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps of Adam are compiled; nothing may be compiled from here on."""
    compiled(compose)
    refuse_to_compile(monkeypatch)


@compiles
@pytest.mark.usefixtures("no_more_compiling")
def test_other_points_of_the_same_shape_need_no_other_code(compose: Compose) -> None:
    fast, _ = compiled(compose, "seed=1")
    plain, _ = eager(compose, "seed=1")
    for draw in range(3):
        batch = plain.problem.draw(np.random.default_rng(draw))
        torch.testing.assert_close(fast.take(batch, 2), plain.take(batch, 2), rtol=ROUNDING, atol=0)


@compiles
def test_lbfgs_takes_the_steps_that_it_takes_with_eager_gradients(compose: Compose, library: list[int]) -> None:
    lbfgs = [o for o in SMALL if not o.startswith("optimizer")] + ["optimizer=lbfgs"]
    taken = []
    for mode in ("never", "always"):
        experiment = build(compose(*lbfgs))
        problem = experiment.problem
        batch = problem.draw(np.random.default_rng(0))
        optimizer = descent_of(experiment).optimizer(problem.model.parameters())
        taken.append(choice.choose(mode, problem, optimizer, StopSignals(), batch, 10)[0])
    plain, fast = taken
    assert isinstance(fast, CompiledSteps)
    expected, found = plain.take(batch, 10), fast.take(batch, 10)
    assert expected[9] < expected[0] / 3
    # a line search amplifies rounding by the condition of the problem, a decade or so in every step
    torch.testing.assert_close(found[:4], expected[:4], rtol=1e-10, atol=0)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    assert len(library) <= 3


@compiles
def test_libraries_of_one_process_keep_their_own_shapes(tmp_path: Path) -> None:
    made = []
    for size in (3, 7):
        x, y = torch.randn(5, size, dtype=torch.float64), torch.randn(size, 2, dtype=torch.float64)
        (folder := tmp_path / str(size)).mkdir()
        graph = trace(lambda x, y: ((torch.tanh(x) @ y).sum(0), x + 1), [x], [y]).step
        made.append((load(build_library(graph, [x, y], folder)).run, graph, x, y))
    for library, graph, x, y in (*made, *made):
        for actual, expected in zip(library([x, y]), graph(x, y), strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-14, atol=1e-14)


@compiles
def test_an_operation_without_a_c_interface_is_refused(tmp_path: Path) -> None:
    x = torch.eye(3, dtype=torch.float64)
    graph = trace(lambda x: (torch.linalg.slogdet(x)[1],), [x], []).step
    with pytest.raises(RuntimeError, match="an operation that torch offers to Python alone"):
        build_library(graph, [x], tmp_path)


def test_results_are_as_they_were_after_the_next_call() -> None:
    """Arrays that stay between calls are none of the results, whatever view of an array a result is."""

    def function(x: Tensor) -> list[Tensor]:
        y = torch.cat([x.sin(), 2 * x])
        z = x.exp() @ x
        return [y, y[2:4], y.t(), z.view(-1), z.t()[1:], (x + 1).unsqueeze(0), x.sum(), x.cos().view(torch.float32)]

    x = torch.rand(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    traced = trace(lambda x: tuple(function(x)), [x], [])
    run = traced.compile([x], []).run
    first = run([x])
    for _ in range(2):
        run([x + 1])
    for found, expected in zip(first, function(x), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-14)


WIDTHS = (1, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 50, 64, 100)


def test_sums_of_compiled_code_are_right_to_rounding() -> None:
    """Of whole vectors of the processor, of several, and of what is left over."""
    rows = [torch.rand(3, n, dtype=torch.float64, generator=torch.Generator().manual_seed(n)) - 0.5 for n in WIDTHS]
    traced = trace(lambda *tensors: tuple((t * t).sum(1) for t in tensors), rows, [])
    for row, found in zip(rows, traced.compile(rows, []).run(list(rows)), strict=True):
        expected = [math.fsum(x * x for x in line) for line in row.tolist()]
        assert found.tolist() == pytest.approx(expected, rel=1e-14, abs=0)


def scale(factor: float, x: Tensor) -> tuple[Tensor]:
    return (factor * x,)


@compiles
def test_code_for_no_vectors_is_compiled_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path))
    x = torch.rand(20, dtype=torch.float64)
    made = []
    for capability in (None, "default"):
        if capability is not None:
            monkeypatch.setenv("ATEN_CPU_CAPABILITY", capability)
        traced = trace(lambda x: (x.tanh().sum(),), [x], [])
        (total,) = traced.compile([x], []).run([x])
        assert float(total) == pytest.approx(float(x.tanh().sum()), rel=1e-14)
        made.append(traced.library)
    assert None not in made
    assert made[0] != made[1]


@compiles
def test_where_nothing_can_be_kept_code_is_compiled_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache folder that cannot be made, and a disk that is full when headers are to be kept."""
    x = torch.rand(3, dtype=torch.float64)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(CACHE, str(tmp_path / "file" / "below"))
    traced = trace(partial(scale, 11.0), [x], [])
    assert traced.library is None
    assert traced.compile([x], []).run([x])[0].tolist() == (11 * x).tolist()
    monkeypatch.setenv(CACHE, str(tmp_path))
    for name in ("one.path", "another.path"):
        (tmp_path / name).write_text("")

    def full(source: Path, target: Path) -> Path:
        if source.suffix == ".gch":
            raise OSError(28, "No space left on device")
        return shutil.copyfile(source, target / source.name)

    monkeypatch.setattr("pde_train.training.compiler.shutil.copy", full)
    traced = trace(partial(scale, 13.0), [x], [])
    assert traced.compile([x], []).run([x])[0].tolist() == (13 * x).tolist()
    assert traced.library is not None
    assert not list(tmp_path.glob("headers*"))


@compiles
def test_a_compilation_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path))
    x = torch.rand(3, dtype=torch.float64)
    monkeypatch.setattr(library_module, "HEADERS", "#error on purpose")
    with pytest.raises(RuntimeError, match="on purpose"):
        trace(partial(scale, 17.0), [x], []).compile([x], [])
    assert list(tmp_path.iterdir()) == []


@compiles
def test_headers_are_parsed_once_for_all_libraries_but_the_first_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder with a space in its name; a parsed form that is damaged is given up."""
    folder = tmp_path / "a folder"
    monkeypatch.setenv(CACHE, str(folder))
    x = torch.rand(3, dtype=torch.float64)
    parsed = []
    for factor in (2.0, 3.0, 5.0, 7.0, 11.0):
        (scaled,) = trace(partial(scale, factor), [x], []).compile([x], []).run([x])
        assert scaled.tolist() == (factor * x).tolist()
        parsed.append([(file.stat().st_ino, file.stat().st_size > 1e7) for file in folder.glob("headers.*")])
        if factor == 7.0:
            (file,) = folder.glob("headers.*.gch")
            os.truncate(file, file.stat().st_size // 2)
    first, second, third, fourth, damaged = parsed
    assert first == second == damaged == []
    assert third == fourth
    assert [whole for _, whole in third] == [True]


def test_a_damaged_library_is_a_runtime_error(tmp_path: Path) -> None:
    (tmp_path / "calls.so").write_bytes(b"no library")
    with pytest.raises(RuntimeError):
        load(tmp_path / "calls.so")


# --- Whole runs


RUN = ["method.steps=40", "method.log_every=20", "method.chunk=25", "method.checkpoint_every=20"]
RESAMPLED = [*RUN, "sampler.resample_every=7"]


def losses(compose: Compose, folder: Path, *overrides: str) -> tuple[Tensor, str]:
    record = run(build(compose(*SMALL, *overrides)), folder)
    return torch.tensor([record.series["loss"][k] for k in range(40)], dtype=torch.float64), record.tags["steps"]


@compiles
def test_a_compiled_run_uses_the_points_that_are_drawn_again(
    compose: Compose, tmp_path: Path, library: list[int]
) -> None:
    found, how = losses(compose, tmp_path / "compiled", *RESAMPLED, "method.compile=always")
    expected, _ = losses(compose, tmp_path / "eager", *RESAMPLED, "method.compile=never")
    fixed, _ = losses(compose, tmp_path / "fixed", *RUN, "method.compile=never")
    assert how.startswith("compiled: ")
    torch.testing.assert_close(found, expected, rtol=ROUNDING, atol=0)
    assert (expected[:7] == fixed[:7]).all()
    assert (expected[7:] != fixed[7:]).all()


def history(folder: Path) -> list[str]:
    """Every measured number of a run with all its digits, but for wall times."""
    return [line for line in (folder / "history.csv").read_text().splitlines() if not line.startswith("seconds")]


@compiles
@pytest.mark.parametrize("mode", ["always", "auto"])
def test_a_resumed_compiled_run_ends_in_the_bits_of_an_undisturbed_one(
    compose: Compose,
    tmp_path: Path,
    library: list[int],
    monkeypatch: pytest.MonkeyPatch,
    killed_at: KilledAt,
    mode: str,
) -> None:
    cfg = compose(*SMALL, *RESAMPLED, f"method.compile={mode}")
    if mode == "auto":  # the first run finds it worthwhile; the resumed one must not ask again
        monkeypatch.setattr(when_to_compile, "SAVED", 1e6)
    run_config(cfg, tmp_path / "undisturbed", {}, [])
    with killed_at(21):
        run_config(cfg, tmp_path / "killed", {}, [])
    monkeypatch.setattr(when_to_compile, "SAVED", 0.0)
    assert torch.load(tmp_path / "killed" / "checkpoint.ckpt", weights_only=True)["pde_train"]["step"] == 20
    cfg.resume = True
    result = run_config(cfg, tmp_path / "killed", {}, [])
    assert result.notes["steps"].startswith("compiled: compiled by an earlier run")
    assert history(tmp_path / "killed") == history(tmp_path / "undisturbed")
    ours, theirs = (torch.load(tmp_path / f / "model.pt", weights_only=True) for f in ("killed", "undisturbed"))
    assert all(torch.equal(ours[k], theirs[k]) for k in theirs)


# --- The choice


@pytest.fixture(autouse=True)
def quiet_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """What else runs here changes no estimate."""
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))


class Takes:
    """A compilation that is said to take a second, takes so many, and keeps exceptions for itself."""

    compile_seconds = 1.0

    def __init__(self, seconds: float = 0.0):
        self.seconds = seconds

    def compile(self) -> None:
        with contextlib.suppress(Exception):
            time.sleep(self.seconds)


def of_100_steps(mode: str, takes: Takes) -> tuple[Takes | None, str]:
    """The choice for 100 steps of 0.02 s, of which compiled code saves 1.4 s."""
    return when_to_compile.compile_where_it_pays(mode, "it", 0.02, 100, lambda: takes, lambda found: None)


def test_a_compilation_is_given_up_where_it_takes_longer_than_expected_and_would_not_pay() -> None:
    began, before = time.monotonic(), signal.getsignal(signal.SIGALRM)
    compiled, why = of_100_steps("auto", Takes(60.0))
    assert 2.4 <= time.monotonic() - began < 30
    assert compiled is None
    assert why == "eager: compiling 100 steps of 2.0e-02 s was given up after 2 s, as it would save 1 s"
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_compilation_that_is_asked_for_always_has_no_deadline() -> None:
    takes = Takes(2.0)
    assert of_100_steps("always", takes)[0] is takes


@pytest.mark.parametrize(("load", "compiled"), [(0.0, True), (1.0, True), (4.0, False)])
def test_a_busy_machine_makes_compilation_dearer(load: float, compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """1.4 s are saved: worth 1 s, but not where four processes share each processor."""
    monkeypatch.setattr(os, "getloadavg", lambda: (load * (os.cpu_count() or 1), 0.0, 0.0))
    assert (of_100_steps("auto", Takes())[0] is not None) == compiled


def chosen(compose: Compose, mode: str, *overrides: str, count: int = 40) -> tuple[SingleSteps, str]:
    problem, optimizer, batch = posed(compose, *overrides)
    return choice.choose(mode, problem, optimizer, StopSignals(), batch, count)


@compiles
@pytest.mark.usefixtures("no_more_compiling")
def test_code_of_an_earlier_run_is_loaded_not_compiled(compose: Compose) -> None:
    for mode in ("always", "auto"):
        found, why = chosen(compose, mode, "seed=5", count=10**7)
        assert isinstance(found, CompiledSteps)
        assert why.startswith("compiled: compiled by an earlier run, expected to save")


@pytest.mark.usefixtures("no_compiler")
def test_a_small_budget_stays_eager_and_says_why(compose: Compose, tmp_path: Path) -> None:
    _, why = losses(compose, tmp_path, *RUN)
    assert why.startswith("eager: compiling 40 steps of ")
    assert "would save 0." in why


@pytest.mark.usefixtures("no_compiler")
def test_less_saved_than_compiling_costs_stays_eager(compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "seconds_of", lambda action: 1.0)
    monkeypatch.setattr(compiling, "COMPILE_SECONDS", 15.0)  # of each of two functions
    monkeypatch.setattr(compiling, "COMPILE_SECONDS_A_NODE", 0.0)
    found, why = chosen(compose, "auto", "model.width=6", count=20)
    assert type(found) is EagerSteps
    assert why == "eager: compiling 20 steps of 1.0e+00 s would save 14 s and cost about 30 s"


def test_an_optimiser_of_some_parameters_is_timed_and_compiled_without_its_step(compose: Compose) -> None:
    problem = build(compose(*SMALL[:5])).problem
    some = torch.optim.Adam(list(problem.model.parameters())[:2])
    batch = problem.draw(np.random.default_rng(0))
    steps, why = choice.choose("auto", problem, some, StopSignals(), batch, 3)
    assert why.startswith("eager: compiling 3 steps of")
    assert set(some.state) == set()
    steps.take(batch, 1)
    assert len(some.state_dict()["state"]) == 2


@pytest.mark.usefixtures("no_compiler")
@pytest.mark.parametrize(("optimizer", "count"), [("gradient", 1), ("lbfgs", 1), ("nncg", 10)])
def test_every_gradient_of_a_step_is_counted(
    compose: Compose, monkeypatch: pytest.MonkeyPatch, optimizer: str, count: int
) -> None:
    monkeypatch.setattr(choice, "seconds_of", lambda action: 1e-3)
    experiment = build(compose(*SMALL[:5], f"optimizer={optimizer}"))
    problem, closures = experiment.problem, list[float]()
    made = descent_of(experiment).optimizer(problem.model.parameters())
    batch = problem.draw(np.random.default_rng(0))
    _, why = choice.choose("auto", problem, made, StopSignals(), batch, 30)
    assert why.startswith(f"eager: compiling 30 steps of {count * 1e-3:.1e} s would save ")
    steps_of = EagerSteps(problem, made, StopSignals())
    gradient = steps_of.gradient
    monkeypatch.setattr(steps_of, "gradient", lambda points: closures.append(1.0) or gradient(points))
    steps_of.take(batch, 20)  # the steps between two preconditioners of nncg
    assert len(closures) >= 20 * count


@pytest.mark.usefixtures("interpreted")
def test_more_saved_than_compiling_costs_is_compiled(compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "seconds_of", lambda action: 1.0)
    found, why = chosen(compose, "auto", "model.width=6", count=100)
    assert isinstance(found, CompiledSteps)
    assert why.startswith("compiled: compiled in ")
    assert why.endswith("expected to save 70 s over 100 steps of 1.0e+00 s")


@pytest.mark.usefixtures("no_compiler")
def test_what_changes_from_step_to_step_is_not_compiled(compose: Compose) -> None:
    found, why = chosen(compose, "always", "differentiator=stochastic")
    assert type(found) is EagerSteps
    assert why == "eager: Stochastic changes from step to step"


@pytest.mark.usefixtures("no_compiler")
def test_never_is_never(compose: Compose) -> None:
    found, why = chosen(compose, "never", count=10**9)
    assert (type(found), why) == (EagerSteps, "eager: method.compile=never")


def test_a_failed_compilation_is_one_warning_and_eager_steps(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("C++ compile error\nand much more")

    monkeypatch.setattr("torch._inductor.aot_compile", fail)
    found, why = losses(compose, tmp_path / "failed", *RUN, "model.width=7", "method.compile=always")
    assert why == "eager: the compilation failed"
    (warning,) = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert warning.message.startswith("the optimisation step could not be compiled (C++ compile error): eager op")
    expected, _ = losses(compose, tmp_path / "never", *RUN, "model.width=7", "method.compile=never")
    assert torch.equal(found, expected)


def off_by(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    """Compiled steps whose losses, and whose parameters afterwards, are wrong by a factor."""
    right = CompiledSteps.take

    def take(self: CompiledSteps, batch: Batch, count: int) -> Tensor:
        found = right(self, batch, count)
        with torch.no_grad():
            for p in self.problem.model.parameters():
                p.mul_(factor)
        return found

    monkeypatch.setattr(CompiledSteps, "take", take)


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("wrong", [1 + 1e-7, float("nan")])
def test_wrong_compiled_steps_are_not_used(
    compose: Compose, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, wrong: float
) -> None:
    off_by(monkeypatch, wrong)
    found, why = chosen(compose, "always")
    assert type(found) is EagerSteps
    assert why == "eager: the compilation failed"
    (warning,) = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert "(compiled steps are off by " in warning.message


@pytest.mark.usefixtures("interpreted")
def test_rounding_that_finite_differences_magnify_is_no_wrong_step(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    # u_xxxx by steps of 1e-3 holds eps / h^4 = 2e-4 of u: another order of sums moves the loss by 1e-7 of it
    right = CompiledSteps.take
    monkeypatch.setattr(CompiledSteps, "take", lambda self, *given: (1 + 1e-7) * right(self, *given))
    found, _ = chosen(compose, "always", "pde=biharmonic_1d", "differentiator=finite_difference/1e-3")
    assert isinstance(found, CompiledSteps)


def decayed(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    optimizer = torch.optim.Adam(parameters, lr=1e-2)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    optimizer.register_step_post_hook(lambda *_: schedule.step())
    return optimizer


def clipped(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    parameters = list(parameters)
    optimizer = torch.optim.SGD(parameters, lr=1e-2)

    def clip(*_: object) -> None:
        torch.nn.utils.clip_grad_norm_(parameters, 1e-3)

    optimizer.register_step_pre_hook(clip)
    return optimizer


def driven(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    optimizer = torch.optim.Adam(parameters, lr=1e-2)
    torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    return optimizer


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("make", [decayed, clipped, driven])
def test_hooks_and_schedulers_run_beside_a_compiled_gradient(
    compose: Compose, make: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
) -> None:
    results = []
    for kind in (EagerSteps, CompiledSteps):
        problem = build(compose(*SMALL)).problem
        batch = problem.draw(np.random.default_rng(0))
        optimizer = make(problem.model.parameters())
        rest = (batch,) if kind is CompiledSteps else ()
        steps = kind(problem, optimizer, StopSignals(), *rest)
        if isinstance(steps, CompiledSteps):
            assert steps.update is None
            steps.compile()
        steps.take(batch, 20)
        results.append((state_of(steps), optimizer.param_groups[0]["lr"]))
    agree(results[0][0], results[1][0], ROUNDING)
    assert results[0][1] == results[1][1]


def test_a_clipping_hook_clips_the_gradient_of_its_own_step(compose: Compose) -> None:
    problem = build(compose(*SMALL)).problem
    batch = problem.draw(np.random.default_rng(0))
    before = torch.cat([p.detach().flatten().clone() for p in problem.model.parameters()])
    steps = EagerSteps(problem, clipped(problem.model.parameters()), StopSignals())
    steps.take(batch, 1)
    after = torch.cat([p.detach().flatten() for p in problem.model.parameters()])
    assert float((after - before).norm()) == pytest.approx(1e-2 * 1e-3, rel=1e-3)


@pytest.mark.usefixtures("no_compiler")
def test_what_compiled_code_would_pass_by_stays_eager(compose: Compose) -> None:
    problem = build(compose(*SMALL)).problem
    batch = problem.draw(np.random.default_rng(0))
    next(problem.model.parameters()).register_hook(lambda g: g.clamp(-1, 1))
    optimizer = torch.optim.Adam(problem.model.parameters())
    found, why = choice.choose("always", problem, optimizer, StopSignals(), batch, 100)
    assert (type(found), why) == (EagerSteps, "eager: hooks of parameters need their gradient by backward()")


@pytest.mark.usefixtures("no_compiler")
def test_a_model_that_changes_its_buffers_stays_eager_and_is_left_as_it_was(compose: Compose) -> None:
    class Counting(torch.nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner
            self.calls: Tensor
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return self.inner(x)

    problem = build(compose(*SMALL)).problem
    problem.model = counting = Counting(problem.model)
    batch = problem.draw(np.random.default_rng(0))
    optimizer = torch.optim.Adam(problem.model.parameters())
    found, why = choice.choose("always", problem, optimizer, StopSignals(), batch, 100)
    assert (type(found), why) == (EagerSteps, "eager: the model changes its buffers, which compiled code would not")
    assert float(counting.calls) == 0


def test_another_mode_is_refused_with_a_sentence(compose: Compose) -> None:
    with pytest.raises(UsageError, match=r"method\.compile=sometimes is unknown: expected one of auto, always, never"):
        build(compose(*SMALL, "method.compile=sometimes"))


@compiles
def test_tanh_of_compiled_code_is_within_three_units_in_the_last_place() -> None:
    """In whole vectors, in what is left of a row, and alone."""
    tiny = torch.logspace(-300, -1, 300, dtype=torch.float64)
    x = torch.cat([torch.linspace(-25, 25, 1001), torch.linspace(-0.7, 0.7, 1001), tiny, -tiny]).double()
    ends = torch.tensor([0.0, -0.0, 800.0, -800.0, torch.inf, -torch.inf, torch.nan], dtype=torch.float64)
    alone = torch.tensor(0.3, dtype=torch.float64)
    several = [x, ends, alone, x.float()]
    traced = trace(lambda *tensors: tuple(torch.tanh(t) for t in tensors), several, [])
    found, of_ends, of_one, of_float32 = traced.compile(several, []).run(several)
    with mpmath.workdps(40):
        errors = [
            abs(mpmath.mpf(b) - mpmath.tanh(mpmath.mpf(a)))
            for a, b in zip([*x.tolist(), 0.3], [*found.tolist(), float(of_one)], strict=True)
        ]
    sizes = torch.tanh(torch.cat([x, alone.view(1)])).tolist()
    assert all(error <= 3 * np.spacing(abs(value)) for error, value in zip(errors, sizes, strict=True))
    torch.testing.assert_close(of_ends, torch.tanh(ends), rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(of_float32, torch.tanh(x.float()), rtol=1e-6, atol=0)


@compiles
@pytest.mark.parametrize("optimizer", [partial(torch.optim.Adam, lr=1e-2), SSBroyden])
def test_steps_without_python_between_are_those_with_it(
    compose: Compose, optimizer: Callable[..., torch.optim.Optimizer]
) -> None:
    """To the last bit, with a learning rate of each step, and however many are taken at once."""
    made = []
    for _ in range(2):
        problem, _, batch = posed(compose, "sampler.interior=8")
        made.append(CompiledSteps(problem, optimizer(problem.model.parameters()), StopSignals(), batch))
        made[-1].compile()
    one, many = made
    one.compiled.first.repeat = partial(repeat, one.compiled.first.run)
    many.at_once = 5
    assert one.compiled.blocks is many.compiled.blocks is None
    rates = None if optimizer is SSBroyden else torch.linspace(1.0, 0.5, 12)
    expected, found = one.take(batch, 12, rates), many.take(batch, 12, rates)
    assert many.at_once > 5  # as many as fit in the time between two looks at signals
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    for ours, theirs in zip(many._state(), one._state(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("pde", "how", "count"),
    [
        ("biharmonic_2d", "taylor", 1),
        ("biharmonic_2d", "reverse", 1),
        ("poisson_2d", "forward", 1),
        ("poisson_2d", "finite_difference", 5),
        ("biharmonic_2d", "finite_difference", 13),
        ("poisson_1d", "finite_difference differentiator.accuracy=8", 9),
    ],
)
def test_evaluations_of_the_network_are_counted(compose: Compose, pde: str, how: str, count: int) -> None:
    """The stencil of the biharmonic operator has 13 points, that of a second derivative of accuracy 8 has 9."""
    problem = build(compose(*SMALL, f"pde={pde}", *f"differentiator={how}".split())).problem
    assert evaluations(problem, problem.draw(np.random.default_rng(0))) == count
