"""What a model sees of a point: coordinates scaled to [-1, 1], and embedded so that u is periodic in them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from pde_train.geometry import Domain


class Inputs(nn.Module):
    """The map from points (n, d) to the inputs (n, w) of a model.

    Coordinates that are not periodic come first, in their order, as they are or as
    2 (x - lower) / length - 1. They are followed by cos(p) and then by sin(p), where the phases p are
    2 pi k (x - lower) / length for every periodic coordinate x and k = 1, ..., harmonics. Whatever model
    sees x through these alone is periodic in x with all its derivatives. Source: Dong and Ni, J. Comput.
    Phys. 435 (2021), arXiv 2007.07442. The numbers of the domain are buffers that no file keeps, so
    that parameters can be taken to another domain.

    Args:
        box: The domain.
        scaled: Whether coordinates that are not periodic are mapped to [-1, 1].
        periodic: The indices of the periodic coordinates.
        harmonics: The largest k.

    Attributes:
        width: The number w of inputs.
    """

    origin: Tensor
    plain: Tensor
    offset: Tensor
    waves: Tensor

    def __init__(self, box: Domain, scaled: bool, periodic: Sequence[int], harmonics: int):
        super().__init__()
        others = [axis for axis in range(box.dimension) if axis not in periodic]
        each = np.eye(box.dimension) / box.lengths
        plain = (2 * each if scaled else np.eye(box.dimension))[others]
        waves = [2 * math.pi * k * each[axis] for axis in periodic for k in range(1, harmonics + 1)]
        origin = np.where([scaled or axis in periodic for axis in range(box.dimension)], box.lower, 0.0)
        self.width = len(others) + 2 * len(waves)
        numbers = {
            "origin": origin,
            "plain": plain,
            "offset": np.full(len(others), -1.0 if scaled else 0.0),
            "waves": np.reshape(waves, (-1, box.dimension)),
        }
        for name, values in numbers.items():
            self.register_buffer(name, torch.from_numpy(values), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x - self.origin
        parts = [nn.functional.linear(x, self.plain, self.offset)] if len(self.plain) else []
        if len(self.waves):
            phases = nn.functional.linear(x, self.waves)
            parts += [torch.cos(phases), torch.sin(phases)]
        return torch.cat(parts, dim=1)
