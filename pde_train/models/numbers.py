"""Numbers of a PDE that are learnt with the network."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pde_train.models.base import Wrapper
from pde_train.pdes.inverse import Learned


class WithNumbers(Wrapper):
    """A model with further columns, which are the same at every point: the numbers that are learnt.

    As columns of the field they reach the residuals through every differentiator, and their gradients and rows of the
    Jacobian come with those of the network. A number with bounds is lower + (upper - lower) sigmoid(p), one without is
    p itself, where p is the parameter.

    Args:
        model: The model of the unknowns.
        learned: The numbers by name.
    """

    lower: Tensor
    length: Tensor

    def __init__(self, model: nn.Module, learned: Mapping[str, Learned]):
        super().__init__(model)
        raw, lower, length = [], [], []
        for number in learned.values():
            if number.lower is None or number.upper is None:
                raw.append(number.start)
                lower.append(0.0)
                length.append(0.0)
            else:
                share = (number.start - number.lower) / (number.upper - number.lower)
                raw.append(math.log(share / (1 - share)))
                lower.append(number.lower)
                length.append(number.upper - number.lower)
        self.numbers = nn.Parameter(torch.tensor(raw, dtype=torch.float64))
        self.register_buffer("lower", torch.tensor(lower, dtype=torch.float64), persistent=False)
        self.register_buffer("length", torch.tensor(length, dtype=torch.float64), persistent=False)

    def values(self) -> Tensor:
        """The numbers (k,)."""
        bounded = self.lower + self.length * torch.sigmoid(self.numbers)
        return torch.where(self.length > 0, bounded, self.numbers)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.model(x), 0 * x[:, :1] + self.values()], dim=1)
