"""Do compiled or stacked steps compute what a torch optimiser does, operation by operation?"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pde_train.geometry import Batch
from pde_train.training.steps import SingleSteps
from pde_train.training.updates import update_of

Tensors = tuple[Tensor, Tensor]

TRIED = 3
"""Optimiser steps that are compared."""

AGREEMENT = {torch.float64: 1e-8, torch.float32: 1e-3}
"""The largest relative difference of a loss that passes for rounding."""

ROUNDINGS = 100.0
"""What passes besides, in differences that one rounding of the parameters makes: many with finite differences."""


def tolerance(loss: Any, nudged: Any, dtype: torch.dtype) -> Any:
    """How far compiled code may be off an eager loss (or a tensor of them), which one rounding of parameters nudges."""
    return AGREEMENT[dtype] * abs(loss) + ROUNDINGS * abs(nudged - loss)


def check_agreement(actual: Tensors, expected: Tensors, nudged: Tensors) -> None:
    """Refuse tensors that differ from the expected ones by more than rounding.

    Args:
        actual: From the code that is checked.
        expected: From eager steps.
        nudged: From eager steps that began at parameters one rounding away.

    Raises:
        ArithmeticError: The difference is larger than `tolerance`.
    """
    for own, other, moved in zip(actual, expected, nudged, strict=True):
        scale, apart = other.abs().max(), (own - other).abs().max()
        if not bool(apart <= tolerance(scale, scale + (moved - other).abs().max(), other.dtype)):
            raise ArithmeticError(f"compiled steps are off by {float(apart):.1e}, in numbers up to {float(scale):.1e}")


def gradient_at(steps: SingleSteps, batch: Batch, roundings: int) -> Tensors:
    """Loss and gradient, a vector each, at parameters so many roundings away."""
    parameters = list(steps.problem.model.parameters())
    with _kept(parameters):
        with torch.no_grad():
            for p in parameters:
                p.mul_(_nudge(p, roundings))
        loss = steps.gradient(batch)
    return loss.view(1), torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])


def stepped(steps: SingleSteps, batch: Batch, roundings: int) -> Tensors:
    """Losses and parameters of TRIED steps from an evaluation so many roundings away, a vector each."""
    parameters = list(steps.problem.model.parameters())
    remembered = copy.deepcopy(steps.optimizer.state_dict())
    update = update_of(steps.optimizer)
    assert update is not None, "steps of an optimiser with no pure update are compared by their gradients"
    with _kept(parameters):
        point, *rest = update.state(steps.optimizer, parameters)  # of the next evaluation: a trial of a line search
        update.put_back(steps.optimizer, parameters, [point * _nudge(point, roundings), *rest])
        losses = steps.take(batch, TRIED)
        after = torch.cat([p.detach().flatten() for p in parameters])
    steps.optimizer.load_state_dict(remembered)
    return losses, after


@contextmanager
def _kept(parameters: list[nn.Parameter]) -> Iterator[None]:
    """Afterwards parameters are as they were before."""
    before = [p.detach().clone() for p in parameters]
    try:
        yield
    finally:
        put_back(parameters, before)


def put_back(tensors: Iterable[Tensor], values: Iterable[Tensor]) -> None:
    """Give tensors the values that they had before."""
    with torch.no_grad():
        for tensor, value in zip(tensors, values, strict=True):
            tensor.copy_(value)


def _nudge(point: Tensor, roundings: int) -> float:
    """The factor that changes numbers by so many roundings."""
    return 1 + roundings * torch.finfo(point.dtype).eps
