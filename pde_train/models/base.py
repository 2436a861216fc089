"""The contract of models: fields u(x) with parameters, and those that are linear in their parameters."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from pde_train.derivatives import Field


class Model(nn.Module):
    """A model u(x) of the solution; `forward` maps points (n, d) to values (n, k) of the k unknowns, row by row.

    Row i of the values depends on row i of the points alone, because derivatives are taken row by
    row.
    """

    @property
    def smoothness(self) -> float:
        """The highest order of derivative of u that is useful; infinite for smooth activations."""
        return math.inf


class LinearModel(Model, ABC):
    """A model u(x) = features(x) @ coefficients that is linear in its only parameters, the coefficients.

    Attributes:
        coefficients: The parameters (P, k) of the k unknowns.
    """

    coefficients: nn.Parameter

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """The P features at points (n, d), as columns (n, P)."""

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x) @ self.coefficients


@dataclass(frozen=True)
class LinearForm:
    """What makes a model linear: u(x) = features(x) @ coefficients.

    Attributes:
        features: The map from points (n, d) to columns (n, P).
        coefficients: The parameters (P, k) of the k unknowns.
    """

    features: Field
    coefficients: Tensor


def linear_form(model: nn.Module) -> LinearForm | None:
    """The features and coefficients of a model that is linear in its parameters.

    A model need not derive from LinearModel: any module with a method `features` and parameters
    `coefficients` of shape (P, k) is linear. A method `bank`, the former name of `features`, is
    accepted with a warning.

    Args:
        model: The model.

    Returns:
        Its linear form, or None where the model is not linear.
    """
    coefficients = getattr(model, "coefficients", None)
    if not isinstance(coefficients, Tensor):
        return None
    features: Callable[[Tensor], Tensor] | None = getattr(model, "features", None)
    if features is None and (features := getattr(model, "bank", None)) is not None:
        warnings.warn(
            f"{type(model).__name__}.bank is now called features: rename the method, the old name will not be accepted "
            "by the next version",
            FutureWarning,
            stacklevel=1,
        )
    return LinearForm(features, coefficients) if callable(features) else None


def smoothness_of(model: nn.Module) -> float:
    """The highest useful order of derivative of a model; infinite for a module that does not state it."""
    smoothness: float = getattr(model, "smoothness", math.inf)
    return smoothness


class Wrapper(Model):
    """A function made of another model, whose parameters it has.

    Their names in files begin with `model.`, which `pde_train.training.parameters` passes over, so that runs with and
    without a wrapper can take each other's parameters.

    Args:
        model: The inner model.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    @property
    def smoothness(self) -> float:
        """The highest order of derivative of u that is useful, that of the inner model."""
        return smoothness_of(self.model)


class LinearWrapper(Wrapper):
    """The same of a model that is linear in its coefficients (P, k), and so is this one."""

    @property
    def coefficients(self) -> Tensor:
        """The coefficients (P, k) of the inner model."""
        return self._form.coefficients

    @property
    def _form(self) -> LinearForm:
        form = linear_form(self.model)
        assert form is not None, "chosen for models that are linear"
        return form
