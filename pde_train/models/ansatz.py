"""A model behind the ansatz of a PDE, which fulfils its conditions whatever the parameters are."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pde_train.errors import UsageError
from pde_train.models.base import LinearForm, LinearWrapper, Wrapper, linear_form

Ansatz = Callable[[Tensor, Tensor], Tensor]
"""u from points (n, d) and a model's values (n, k), or its features (n, P), at them: `PDE.ansatz_at`."""


def behind_ansatz(model: nn.Module, ansatz: Ansatz, x: Tensor) -> nn.Module:
    """The function that an ansatz makes of a model.

    Args:
        model: The model.
        ansatz: The ansatz.
        x: Some points (n, d).

    Returns:
        The function, with the parameters of the model.

    Raises:
        UsageError: The model is linear in its parameters, and the ansatz of a zero model is not zero, so that the
            function would not be linear; or it does other things to each unknown, which share their features.
    """
    form = linear_form(model)
    if form is None:
        return BehindAnsatz(model, ansatz)
    unknowns = form.coefficients.shape[1]
    with torch.no_grad():
        offset = ansatz(x, x.new_zeros(len(x), unknowns))
    if bool(offset.abs().max() > 100 * torch.finfo(x.dtype).eps):
        raise UsageError(
            f"pde.conditions=exact adds a function to the features of {type(model).__name__}, because the conditions "
            "are not zero, and least squares wants features alone: expected a network, choose model=mlp, or "
            "pde.conditions=soft"
        )
    if unknowns > 1 and not _is_shared(form, ansatz, x):
        raise UsageError(
            f"pde.conditions=exact changes each unknown in its own way, and all {unknowns} share the features of "
            f"{type(model).__name__}: expected a network, choose model=mlp, or pde.conditions=soft"
        )
    return LinearBehindAnsatz(model, ansatz)


def _is_shared(form: LinearForm, ansatz: Ansatz, x: Tensor) -> bool:
    """Whether an ansatz of features is the same function of them for each unknown, at some points (n, d)."""
    with torch.no_grad():
        features, shape = form.features(x), form.coefficients.shape
        coefficients = torch.linspace(-1, 1, shape.numel(), dtype=x.dtype, device=x.device).reshape(shape)
        unknowns = ansatz(x, features @ coefficients)
        try:
            changed = ansatz(x, features)
        except Exception:  # a formula that counts on a column for each unknown may raise anything
            return False
        if changed.shape != features.shape:
            return False
        nearly = torch.finfo(x.dtype).eps ** 0.5 * float(unknowns.abs().max())
        return torch.allclose(changed @ coefficients, unknowns, rtol=0, atol=nearly)


class BehindAnsatz(Wrapper):
    """The function u(x) = ansatz(x, model(x)).

    Args:
        model: The model.
        ansatz: The ansatz.
    """

    def __init__(self, model: nn.Module, ansatz: Ansatz):
        super().__init__(model)
        self.ansatz = ansatz

    def forward(self, x: Tensor) -> Tensor:
        return self.ansatz(x, self.model(x))


class LinearBehindAnsatz(BehindAnsatz, LinearWrapper):
    """The same of a model that is linear in its coefficients (P, k), and an ansatz that is 0 where the model is."""

    def features(self, x: Tensor) -> Tensor:
        """The features (n, P)."""
        return self.ansatz(x, self._form.features(x))
