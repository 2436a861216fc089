"""Singular values of matrices, and of residual Jacobians that may be too large to form."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor, nn

from pde_train.derivatives import Field
from pde_train.errors import RunError
from pde_train.singular_values import Spectrum

BLOCK = 32
"""The number of directions that the randomised SVD adds at a time, and of rows of J that are computed at once."""

Wrap = Callable[[Iterable[Tensor]], Iterable[Tensor]]
"""Wraps the iteration over blocks of rows, for example in a progress bar."""


def singular_values(matrix: Tensor) -> np.ndarray:
    """All singular values of a matrix.

    The SVD works in float64 whatever the precision of the matrix, so that a float32 run shows the
    rounding of its matrix and not that of LAPACK. It computes no singular vectors: LAPACK's gesdd
    then uses the dqds algorithm, which keeps the small singular values of graded matrices. The
    divide-and-conquer algorithm, which it uses for vectors, replaces everything below about 1e-16
    s_1 by rounding.

    Args:
        matrix: The matrix (n, p).

    Returns:
        The singular values (min(n, p),) in descending order, in float64.

    Raises:
        RunError: An entry of the matrix is not finite.
    """
    return np.linalg.svd(finite_array(matrix), compute_uv=False)


def finite_array(matrix: Tensor) -> np.ndarray:
    """Copy a matrix to the CPU in float64.

    Args:
        matrix: The matrix.

    Returns:
        The same numbers as an array.

    Raises:
        RunError: An entry is nan or infinite.
    """
    bad = int(matrix.isfinite().logical_not().sum())
    if bad:
        raise RunError(
            f"{bad} of {matrix.numel()} entries of a matrix are nan or infinite: expected finite numbers, choose a "
            "smaller optimizer.lr or model.weight_range, or a larger differentiator.step"
        )
    return matrix.detach().cpu().double().numpy()


class ResidualJacobian:
    """The Jacobian J (n, p) of a residual vector by the p trainable parameters of a model, as an operator.

    The squares of the singular values of J are the eigenvalues of the kernel G = J J^T of gradient
    descent on the loss |residual|^2 (arXiv 2405.14099, claim 2). J itself is used, because squaring
    would lose the small values.

    Args:
        model: The model.
        residual: The map from a field to the residual vector, a tensor of n entries.
        by_points: A faster way to compute J itself from the parameters by name, where there is one.

    Attributes:
        parameters: The trainable parameters by name.
        value: The residual vector (n,).
        shape: The shape (n, p) of J.
    """

    def __init__(
        self,
        model: nn.Module,
        residual: Callable[[Field], Tensor],
        by_points: Callable[[dict[str, Tensor]], Tensor] | None = None,
    ):
        self.by_points = by_points
        # copies: products are those of these parameters even after the model's have changed
        self.parameters = {k: p.detach().clone() for k, p in model.named_parameters() if p.requires_grad}

        def vector(parameters: dict[str, Tensor]) -> Tensor:
            return residual(lambda x: torch.func.functional_call(model, parameters, (x,))).flatten()

        self.value, self._pull_back = torch.func.vjp(vector, self.parameters)  # type: ignore[misc]  # typed as 2 or 3
        self.shape = (self.value.numel(), sum(p.numel() for p in self.parameters.values()))

    def rows(self, cotangents: Tensor) -> Tensor:
        """The product cotangents (k, n) @ J, of shape (k, p)."""
        pulled = torch.func.vmap(lambda c: self._pull_back(c)[0])(cotangents)
        return torch.cat([pulled[k].flatten(1) for k in self.parameters], dim=1)

    def columns(self, tangents: Tensor) -> Tensor:
        """The product J @ tangents (p, k), of shape (n, k), by the transpose of the pullback."""
        zero = torch.zeros_like(self.value)
        _, transpose = torch.func.vjp(lambda c: self._pull_back(c)[0], zero)  # type: ignore[misc]  # typed as 2 or 3
        product: Tensor = torch.func.vmap(lambda v: transpose(self._like_parameters(v))[0])(tangents.T)
        return product.T

    def dense(self, wrap: Wrap = iter) -> Tensor:
        """The matrix J itself, computed point by point where that is possible, otherwise BLOCK rows at a time.

        Args:
            wrap: Wraps the iteration over blocks of rows, for example in a progress bar.

        Returns:
            J (n, p).
        """
        if self.by_points is not None:
            with contextlib.suppress(RuntimeError, NotImplementedError):  # of what vmap cannot do, such as random draws
                return self.by_points(self.parameters)
        units = torch.eye(self.shape[0]).to(self.value).split(BLOCK)
        return torch.cat([self.rows(block) for block in wrap(units)])

    def _like_parameters(self, flat: Tensor) -> dict[str, Tensor]:
        sizes = [p.numel() for p in self.parameters.values()]
        parts = flat.split(sizes)
        return {k: part.view_as(p) for (k, p), part in zip(self.parameters.items(), parts, strict=True)}

    def spectrum(self, max_dense: int, seed: int = 0, wrap: Wrap = iter) -> Spectrum:
        """The singular values of J.

        Args:
            max_dense: The number of entries up to which J is formed; a larger J gets an adaptive
                randomised SVD.
            seed: The seed of the random directions.
            wrap: Wraps the iteration over blocks of rows of a dense J, for example in a progress
                bar.

        Returns:
            The spectrum.
        """
        n, p = self.shape
        if n * p <= max_dense:
            return Spectrum(singular_values(self.dense(wrap)))
        return randomised_svd(self, max_dense, seed)


def randomised_svd(operator: ResidualJacobian, max_dense: int, seed: int = 0, tolerance: float = 1e-13) -> Spectrum:
    """The singular values of J above about `tolerance` s_1, without forming J.

    An adaptive randomised range finder (Halko, Martinsson, Tropp, SIAM Review 53, 2011, algorithms
    4.2 and 5.1) builds an orthonormal basis Q of the range of J, BLOCK directions at a time. It
    ends once new random columns of J lie in the span of Q up to `tolerance` or to rounding, or once Q
    and Q^T J have `max_dense` entries. The singular values are those of Q^T J.

    The rounding of products with J is seen from numbers that are computed twice, Q^T (J W) by columns
    and (Q^T J) W by rows with random W. It is some machine epsilons times s_1 for exact derivatives,
    and more for finite differences. It moves no singular value by more than its norm (Weyl).

    Args:
        operator: The Jacobian.
        max_dense: The largest number of entries of Q and Q^T J together.
        seed: The seed of the random directions.
        tolerance: The part of a random column, relative to s_1, that may lie outside Q.

    Returns:
        The spectrum. Its resolution is how much of a new column was left outside Q or is rounding,
        relative to s_1; smaller values are not resolved and are left out, except s_1 itself.
    """
    n, p = operator.shape
    most = min(n, p, max(BLOCK, max_dense // (n + p)))
    generator = torch.Generator().manual_seed(seed)
    like = next(iter(operator.parameters.values()))
    basis, image = like.new_zeros(n, 0), like.new_zeros(0, p)
    largest = 0.0
    while True:
        probes = torch.randn(p, BLOCK, generator=generator, dtype=like.dtype).to(like.device)
        columns = operator.columns(probes)
        sample = _outside(basis, columns)
        outside = _longest(sample)
        floor = max(tolerance * largest, _longest(basis.T @ columns - image @ probes))
        if outside <= floor or basis.shape[1] == most:
            break
        fresh = torch.linalg.qr(sample).Q[:, : most - basis.shape[1]]
        fresh = torch.linalg.qr(_outside(basis, fresh)).Q
        basis, image = torch.cat([basis, fresh], dim=1), torch.cat([image, rows := operator.rows(fresh.T)])
        largest = max(largest, float(torch.linalg.matrix_norm(rows, 2)))
    values = singular_values(image) if len(image) else np.zeros(1)
    resolution = max(outside, floor) / largest if largest else 0.0
    resolved = int((values > resolution * largest).sum())
    return Spectrum(values[: max(resolved, 1)], "randomised", resolution)


def _longest(columns: Tensor) -> float:
    """The largest norm of a column."""
    return float(torch.linalg.vector_norm(columns, dim=0).max())


def _outside(basis: Tensor, sample: Tensor) -> Tensor:
    """The part of the sample that is orthogonal to the basis; projected twice because of rounding."""
    for _ in range(2):
        sample = sample - basis @ (basis.T @ sample)
    return sample
