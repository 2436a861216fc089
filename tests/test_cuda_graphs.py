"""What is launched as CUDA graphs, on the CPU: a recording that is called again stands in for a graph."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures import Compose
from torch import Tensor

from pde_train.experiment import build
from pde_train.geometry import Batch
from pde_train.problem import Problem
from pde_train.runs.run import run
from pde_train.training import compiling, cuda_graphs
from pde_train.training.cuda_graphs import ROWS, UNROLLED, WARM_UP, Again, Body, Once
from pde_train.training.library import Library, repeat
from pde_train.training.signals import StopSignals
from pde_train.training.stacked_steps import StackedSteps
from pde_train.training.steps import EagerSteps

PLACES, VARYING = (0, 2), 3


def recorded(body: Body) -> Body:
    """What `cuda_graphs.record` does, without a GPU: a graph launches what the body did with the same tensors."""
    for _ in range(WARM_UP + 1):
        body()
    return body


def descent(tensors: list[Tensor]) -> list[Tensor]:
    """A step with momentum from position, a force that stays, velocity and (rate, friction)."""
    x, force, velocity, numbers = tensors
    velocity = (1 - numbers[1]) * velocity + force * x.sin()
    return [x - numbers[0] * velocity, velocity, (x * x).sum()]


def started(steps: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x, force, velocity = torch.rand(3, 7, generator=generator, dtype=torch.float64).unbind()
    return [x, force, velocity, torch.rand(steps, 2, generator=generator, dtype=torch.float64) / 100]


@pytest.mark.parametrize("steps", [1, UNROLLED - 1, UNROLLED, 2 * UNROLLED + 3, ROWS, ROWS + UNROLLED + 1])
def test_steps_of_graphs_are_those_taken_one_by_one(steps: int) -> None:
    again = Again(descent, recorded)
    for seed in range(2):  # the second time from elsewhere
        tensors = started(steps, seed)
        expected = repeat(descent, tensors, PLACES, VARYING, steps)
        found = again(tensors, PLACES, VARYING, steps)
        assert len(found[-1]) == steps
        for own, other in zip(found, expected, strict=True):
            torch.testing.assert_close(own, other, rtol=0, atol=0)


def test_results_are_kept_when_more_steps_are_taken() -> None:
    again, tensors = Again(descent, recorded), started(5)
    first = again(tensors, PLACES, VARYING, 5)
    before = [result.clone() for result in first]
    again(tensors, PLACES, VARYING, 3)
    assert all(map(torch.equal, first, before))


def test_a_tensor_that_was_changed_in_place_is_seen() -> None:
    double = Once(lambda tensors: [2 * tensors[0], tensors[0] + tensors[1]], recorded)
    x, y = torch.ones(3), torch.full((3,), 5.0)
    first = double([x, y])
    x += 1
    assert double([x, y])[0].tolist() == [4, 4, 4]
    assert double([y, x])[1].tolist() == [7, 7, 7]
    assert first[0].tolist() == [2, 2, 2]


RUN = ["model=mlp", "model.hidden=[8]", "sampler=uniform", "sampler.interior=20", "diagnostics=none", "audit=null"]


@pytest.fixture
def on_graphs(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Compiled code goes the way that it goes on a GPU; tells how many functions did."""
    monkeypatch.setattr(cuda_graphs, "record", recorded)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    made = []

    def compile(self: compiling.Traced, state: list[Tensor], kept: list[Tensor]) -> Library:
        made.append(self.key)
        return cuda_graphs.compiled(self.step, [*state, *kept])

    monkeypatch.setattr(compiling.Traced, "compile", compile)
    return lambda: len(made)


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize(
    "words",
    [
        ["method.steps=40"],
        ["method.steps=40", "sampler.resample_every=12"],
        ["method.steps=40", "schedule=cosine"],
        ["optimizer=ssbroyden", "method.steps=30"],
        ["method=gauss_newton", "method.steps=5"],
    ],
    ids=["adam", "new points", "rates", "ssbroyden", "gauss_newton"],
)
def test_a_run_on_graphs_has_the_losses_of_an_eager_one(
    compose: Compose, tmp_path: Path, on_graphs: Callable[[], int], words: list[str]
) -> None:
    compiled, eager = (
        run(build(compose(*RUN, *words, f"method.compile={mode}")), tmp_path / mode) for mode in ("always", "never")
    )
    assert on_graphs() > 0
    assert compiled.tags["steps"].startswith("compiled: ")
    assert list(compiled.series["loss"]) == list(eager.series["loss"])
    assert list(compiled.series["loss"].values()) == pytest.approx(list(eager.series["loss"].values()), rel=1e-7)


def test_a_stack_on_graphs_takes_the_steps_of_runs_alone(compose: Compose, on_graphs: Callable[[], int]) -> None:
    def posed(seed: int) -> tuple[Problem, torch.optim.Optimizer, Batch]:
        problem = build(compose(*RUN, f"seed={seed}")).problem
        adam = torch.optim.Adam(problem.model.parameters(), lr=1e-2, eps=1e-2)
        return problem, adam, problem.draw(np.random.default_rng(0))

    together, alone = ([posed(seed) for seed in range(3)] for _ in range(2))
    problems, optimizers, batches = zip(*together, strict=True)
    stack = StackedSteps(problems, optimizers, batches, StopSignals(), block=2)  # the graph serves two blocks
    stack.trace()
    stack.compile()
    found = stack.advance(stack.batches, 12)
    assert on_graphs() == 1
    expected = [EagerSteps(problem, optimizer, StopSignals()).take(batch, 12) for problem, optimizer, batch in alone]
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-9, atol=0)
