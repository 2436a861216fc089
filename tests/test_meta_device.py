"""Losses and gradients on a device that is no CPU: torch's meta device has shapes and no numbers.

An operation of tensors on two devices, such as of a constant that is made on the CPU, is refused there as on a GPU.
Where there is a GPU, `tests/test_gpu.py` compares the numbers.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fixtures import Compose
from torch import Tensor

from pde_train.conf_dir import choices
from pde_train.experiment import build
from pde_train.geometry import Batch
from pde_train.problem import Problem

META = "meta"


def there(compose: Compose, *words: str) -> tuple[Problem, Batch]:
    """A problem and its points on that device."""
    problem = build(compose("sampler=uniform", "sampler.interior=16", "sampler.boundary=12", *words)).problem
    batch = problem.draw(np.random.default_rng(0))
    moved = {region: points.to(dtype=problem.dtype, device=META) for region, points in batch.items()}
    return replace(problem, model=problem.model.to(META), device=META), moved


def stays(problem: Problem, batch: Batch) -> None:
    loss = problem.loss(batch)
    parameters = [p for p in problem.model.parameters() if p.requires_grad]
    gradients: list[Tensor] = list(torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True))
    assert {t.device.type for t in (loss, *gradients)} == {META}


NETWORK = "model=mlp", "model.hidden=[4,4]"


@pytest.mark.parametrize("pde", choices("pde"))
def test_every_equation_stays_on_the_device(compose: Compose, pde: str) -> None:
    stays(*there(compose, *NETWORK, f"pde={pde}"))


@pytest.mark.parametrize("differentiator", choices("differentiator"))
def test_every_differentiator_stays_on_the_device(compose: Compose, differentiator: str) -> None:
    stays(*there(compose, *NETWORK, "pde=poisson_nd", "pde.dimension=3", f"differentiator={differentiator}"))


@pytest.mark.parametrize("model", choices("model"))
@pytest.mark.parametrize("options", [[], ["model.periodic=[x]", "model.output_scale=2.0"]], ids=["plain", "options"])
def test_every_model_stays_on_the_device(compose: Compose, model: str, options: list[str]) -> None:
    problem, batch = there(compose, "pde=burgers_1d", f"model={model}", *options)
    problem.model.requires_grad_(True)
    stays(problem, batch)


def test_a_tensor_that_is_left_behind_is_refused() -> None:
    """What this file relies on."""
    with pytest.raises(RuntimeError, match="device"):
        torch.ones(3, device=META) + torch.ones(3)
