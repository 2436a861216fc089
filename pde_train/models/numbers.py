"""Numbers of a PDE that are learnt with the network."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pde_train.models.base import Wrapper


class WithNumbers(Wrapper):
    """A model with further columns, which are the same at every point: the numbers that are learnt.

    As columns of the field they reach the residuals through every differentiator, and their gradients and rows of the
    Jacobian come with those of the network. A number with bounds is lower + (upper - lower) sigmoid(p), one without is
    p itself, where p is the parameter.

    Args:
        model: The model of the unknowns.
        learned: The start of each number, its lower and its upper bound, or None in place of both.
    """

    lower: Tensor
    length: Tensor

    def __init__(self, model: nn.Module, learned: Sequence[tuple[float, float | None, float | None]]):
        super().__init__(model)
        raw, lower, length = [], [], []
        for start, least, most in learned:
            if least is None or most is None:
                raw.append(start)
                lower.append(0.0)
                length.append(0.0)
            else:
                share = (start - least) / (most - least)
                raw.append(math.log(share / (1 - share)))
                lower.append(least)
                length.append(most - least)
        self.numbers = nn.Parameter(torch.tensor(raw, dtype=torch.float64))
        self.register_buffer("lower", torch.tensor(lower, dtype=torch.float64), persistent=False)
        self.register_buffer("length", torch.tensor(length, dtype=torch.float64), persistent=False)

    def values(self, raw: Tensor | None = None) -> Tensor:
        """The numbers (k,), of their parameters as they are or of others (k,)."""
        raw = self.numbers if raw is None else raw
        return torch.where(self.length > 0, self.lower + self.length * torch.sigmoid(raw), raw)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.model(x), 0 * x[:, :1] + self.values()], dim=1)
