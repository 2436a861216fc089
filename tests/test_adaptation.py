"""What a differentiator chooses by itself while it trains: when it is chosen again, and that a resumed run knows it."""

import ast
from pathlib import Path
from typing import Any

import pytest
import torch
from fixtures import Compose, KilledAt

from pde_train.derivatives import Field
from pde_train.differentiators.complex_step import ComplexStep
from pde_train.differentiators.finite_difference import FiniteDifference
from pde_train.experiment import build
from pde_train.geometry import Batch
from pde_train.problem import Problem
from pde_train.runs.run import run, run_config

pytestmark = pytest.mark.usefixtures("without_figures")

SMALL = [
    "model=two_layer",
    "model.width=6",
    "sampler=uniform",
    "sampler.interior=20",
    "diagnostics=none",
    "audit.factor=null",
]
RUN = [*SMALL, "method.steps=40", "method.log_every=12", "method.chunk=7", "method.checkpoint_every=10"]
OPTIMAL = ["differentiator=finite_difference", "differentiator.step=optimal"]
CHOOSING = {
    "finite_difference": OPTIMAL,
    "richardson": [*OPTIMAL, "differentiator.richardson=1"],
    "complex_step": ["differentiator=complex_step"],
    "stochastic": ["differentiator=stochastic", "differentiator.probes=2", "pde=poisson_2d"],
}


def history(folder: Path) -> list[str]:
    """Every measured number of a run with all its digits, but for wall times."""
    return [line for line in (folder / "history.csv").read_text().splitlines() if not line.startswith("seconds")]


@pytest.mark.parametrize("how", CHOOSING)
def test_a_resumed_run_goes_on_with_what_was_chosen_to_the_same_bits(
    compose: Compose, tmp_path: Path, killed_at: KilledAt, how: str
) -> None:
    cfg = compose(*RUN, *CHOOSING[how], "sampler.resample_every=9")
    run_config(cfg, tmp_path / "undisturbed", {}, [])
    with killed_at(21):
        run_config(cfg, tmp_path / "killed", {}, [])
    # the checkpoint lies between two choices, so that its own is that of step 12 and not of the model as it is at 20
    state = torch.load(tmp_path / "killed" / "checkpoint.ckpt", weights_only=True)["pde_train"]
    assert state["step"] == 20
    assert bool(state["chosen"]) == (how != "stochastic")
    cfg.resume = True
    run_config(cfg, tmp_path / "killed", {}, [])
    assert history(tmp_path / "killed") == history(tmp_path / "undisturbed")
    ours, theirs = (torch.load(tmp_path / f / "model.pt", weights_only=True) for f in ("killed", "undisturbed"))
    assert all(torch.equal(ours[k], theirs[k]) for k in theirs)


@pytest.mark.parametrize("how", ["finite_difference", "complex_step"])
def test_choices_are_made_before_training_and_every_log_every_steps(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    experiment = build(compose(*RUN, *CHOOSING[how]))
    losses: list[float] = []
    seen: list[Any] = []
    tune = Problem.tune

    def watched(self: Problem, u: Field, batch: Batch) -> None:
        with torch.no_grad():
            losses.append(float(next(self.model.parameters()).sum()))
        tune(self, u, batch)
        assert isinstance(self.differentiator, FiniteDifference | ComplexStep)
        seen.append(self.differentiator.chosen)

    monkeypatch.setattr(Problem, "tune", watched)
    record = run(experiment, tmp_path)
    assert len(seen) == 4  # at steps 0, 12, 24, 36
    assert len(set(losses)) == 4
    assert ast.literal_eval(record.tags["differentiator_chosen"]) == seen[-1]
    if how == "finite_difference":
        assert len(set(seen)) == 4  # the model is another each time, and so is its step
        assert all({axes for axes, _ in choice} == {(0, 0)} for choice in seen)  # u itself takes no step


def test_a_fixed_choice_is_not_made_again(compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FiniteDifference, "tuned_to", None)
    record = run(build(compose(*RUN, "differentiator=finite_difference")), tmp_path)
    assert "differentiator_chosen" not in record.tags
