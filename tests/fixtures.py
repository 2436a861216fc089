"""Types of the fixtures of conftest.py that are functions, and what tells mypy of which class a choice is."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

from omegaconf import DictConfig

from pde_train.experiment import Experiment
from pde_train.methods.gradient_descent import GradientDescent
from pde_train.training.compiled_steps import Compiled
from pde_train.training.library import repeat

Compose = Callable[..., DictConfig]
"""`compose(*overrides)`"""

KilledAt = Callable[[int], AbstractContextManager[None]]
"""`with killed_at(step):`"""


def descent_of(experiment: Experiment) -> GradientDescent:
    """The method of an experiment that descends."""
    assert isinstance(experiment.method, GradientDescent)
    return experiment.method


def interpret(compiled: Compiled) -> None:
    """Compute a graph that would be compiled operation by operation."""
    compiled.run = lambda tensors: list(compiled.traced.step(*tensors))
    compiled.repeat = partial(repeat, compiled.run)
