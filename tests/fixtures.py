"""Types of the fixtures of conftest.py that are functions, and what tells mypy of which class a choice is."""

from collections.abc import Callable
from contextlib import AbstractContextManager

from omegaconf import DictConfig

from pde_train.experiment import Experiment
from pde_train.methods.gradient_descent import GradientDescent

Compose = Callable[..., DictConfig]
"""`compose(*overrides)`"""

KilledAt = Callable[[int], AbstractContextManager[None]]
"""`with killed_at(step):`"""


def descent_of(experiment: Experiment) -> GradientDescent:
    """The method of an experiment that descends."""
    assert isinstance(experiment.method, GradientDescent)
    return experiment.method
