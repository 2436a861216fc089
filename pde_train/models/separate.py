"""A network of its own for every unknown of a system."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pde_train.models.base import Model, smoothness_of


class Separate(Model):
    """The model whose column k is the k-th of several models.

    Args:
        models: Models of one column each.
    """

    def __init__(self, models: Sequence[nn.Module]):
        super().__init__()
        self.models = nn.ModuleList(models)

    @property
    def smoothness(self) -> float:
        """The highest order of derivative of the unknowns that is useful, the lowest of the models."""
        return min(map(smoothness_of, self.models))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([model(x) for model in self.models], dim=1)
