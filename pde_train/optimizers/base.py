"""The step of an optimiser as a pure function of tensors, which can be compiled and taken for many runs at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

Parameters = Sequence[Tensor]

GRADIENTS = "gradients_of_a_step"
"""The attribute of an optimiser that says how many gradients each of its steps takes at least; without it, one."""

REMEMBERED = "remembered"
"""Key of an optimiser's state, for its first parameter, of the tensors that an `Update` of this package remembers."""


class Update(ABC):
    """What an optimiser does to its parameters, all of one group, which are taken as one vector (p,).

    The state is a list of tensors. Its first one is the point (p,) at which loss and gradient are evaluated next: the
    parameters themselves, or the trial point of a line search. `hyper` are the optimiser's numbers, in float64 as
    torch's Python numbers are: 1 - 0.999 in float32 is off by 1e-5.
    """

    @abstractmethod
    def hyper(self, optimizer: torch.optim.Optimizer) -> Tensor:
        """The numbers of the parameter group, (k,); the learning rate comes first where there is one."""

    @abstractmethod
    def state(self, optimizer: torch.optim.Optimizer, parameters: Parameters) -> list[Tensor]:
        """The point of the next evaluation, and what the optimiser remembers."""

    @abstractmethod
    def step(self, state: Sequence[Tensor], gradient: Tensor, loss: Tensor, hyper: Tensor) -> list[Tensor]:
        """The next state, from gradient (p,) and loss at the point of this one."""

    @abstractmethod
    def put_back(self, optimizer: torch.optim.Optimizer, parameters: Parameters, state: Sequence[Tensor]) -> None:
        """Give optimiser and parameters what the state says, as the optimiser's own steps would have left them."""

    def parameters(self, state: Sequence[Tensor]) -> Tensor:
        """The parameters (p,) that a state stands for."""
        return state[0]

    def loss_before(self, state: Sequence[Tensor], loss: Tensor) -> Tensor:
        """The loss of the parameters before a step, from the loss at the point of its state."""
        return loss


def flat(parameters: Parameters) -> Tensor:
    """All parameters as one vector (p,), without gradients."""
    return torch.cat([p.detach().flatten() for p in parameters])


def write(parameters: Parameters, vector: Tensor) -> None:
    """Give parameters the values of a vector (p,)."""
    with torch.no_grad():
        for parameter, values in zip(parameters, vector.split([p.numel() for p in parameters]), strict=True):
            parameter.copy_(values.view_as(parameter))


def loss_and_gradient(parameters: Parameters, point: Tensor, closure: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
    """Loss and gradient (p,) by an optimiser's closure at a point (p,), where the parameters are then."""
    write(parameters, point)
    with torch.enable_grad():
        loss = closure().detach()
    gradients = (torch.zeros_like(p) if p.grad is None else p.grad for p in parameters)
    return loss, torch.cat([gradient.flatten() for gradient in gradients])


def named(parameters: Mapping[str, Tensor], vector: Tensor) -> dict[str, Tensor]:
    """The parts of a vector (p,) by the names, and in the shapes, of parameters."""
    parts = vector.split([p.numel() for p in parameters.values()])
    return {name: part.view(p.shape) for (name, p), part in zip(parameters.items(), parts, strict=True)}
