"""What every choice of the group `model` can be given beside its own fields."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from pde_train.errors import UsageError
from pde_train.geometry import Domain
from pde_train.memory import check_memory
from pde_train.models.base import LinearWrapper, Wrapper, linear_form
from pde_train.models.inputs import Inputs


@dataclass(frozen=True)
class Options:
    """Options of all models: u(x) = output_scale model(inputs(x)), see `Inputs`.

    Attributes:
        input_scaling: Whether the model sees the domain as [-1, 1] in every coordinate.
        output_scale: The factor of the model's values.
        periodic: The names of the coordinates in which u is periodic over the domain.
        harmonics: The number of waves along each of them.
        start: The folder of a run, or a file with its parameters, with which this model begins.
        separate: Whether each unknown of a system has a network of its own, instead of an output of one network.

    Raises:
        UsageError: A number is out of its range.
    """

    input_scaling: bool = False
    output_scale: float = 1.0
    periodic: Sequence[str] = ()
    harmonics: int = 1
    start: str | None = None
    separate: bool = False

    def __post_init__(self) -> None:
        if self.output_scale == 0 or not math.isfinite(self.output_scale):
            raise UsageError(
                f"model.output_scale={self.output_scale} leaves nothing of u: expected a finite number other than 0"
            )
        if self.harmonics < 1:
            raise UsageError(f"model.harmonics={self.harmonics} makes no wave: expected a positive integer, choose one")
        if self.harmonics > 1 and not self.periodic:
            raise UsageError(
                f"model.harmonics={self.harmonics} changes nothing without model.periodic: expected the coordinates of "
                "the waves, such as model.periodic=[x], or model.harmonics=1"
            )

    def inputs(self, box: Domain, coordinates: Sequence[str]) -> Inputs | None:
        """The map from points to the inputs of the model.

        Args:
            box: The domain.
            coordinates: The names of its coordinates.

        Returns:
            The map; None where the model sees points as they are.

        Raises:
            UsageError: A periodic coordinate is unknown, or named twice, or there are more waves than
                memory has room for.
        """
        for name in self.periodic:
            if name not in coordinates or list(self.periodic).count(name) > 1:
                raise UsageError(
                    f"model.periodic={list(self.periodic)} cannot be embedded: expected some of the coordinates "
                    f"{', '.join(coordinates)}, each once, correct {name!r}"
                )
        if not self.input_scaling and not self.periodic:
            return None
        check_memory("model.harmonics", len(self.periodic) * self.harmonics * box.dimension)
        axes = [list(coordinates).index(name) for name in self.periodic]
        return Inputs(box, self.input_scaling, axes, self.harmonics)

    def around(self, model: nn.Module, inputs: Inputs | None) -> nn.Module:
        """The model behind its inputs and in front of its scale; the model itself where both change nothing."""
        if inputs is None and self.output_scale == 1:
            return model
        kind = Mapped if linear_form(model) is None else MappedLinear
        return kind(model, inputs or nn.Identity(), self.output_scale)


class Mapped(Wrapper):
    """The model u(x) = scale model(inputs(x)).

    Args:
        model: The inner model.
        inputs: The map from points (n, d) to what the inner model sees.
        scale: The factor of its values.
    """

    def __init__(self, model: nn.Module, inputs: nn.Module, scale: float):
        super().__init__(model)
        self.inputs = inputs
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self._scaled(self.model(self.inputs(x)))

    def _scaled(self, values: Tensor) -> Tensor:
        return values if self.scale == 1 else self.scale * values


class MappedLinear(Mapped, LinearWrapper):
    """The same of a model that is linear in its coefficients (P, k), and so is this one."""

    def features(self, x: Tensor) -> Tensor:
        """The features (n, P), the scale included."""
        return self._scaled(self._form.features(self.inputs(x)))
