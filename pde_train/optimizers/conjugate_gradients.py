"""Conjugate gradients on (A + mu I) x = b for a symmetric A of which products alone are known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pde_train.errors import RunError

Product = Callable[[Tensor], Tensor]
"""Multiplies a vector (p,), or each column of a matrix (p, k), by a matrix."""

RANK = 40
"""The rank at which a preconditioner begins."""

MOST = 400
"""The largest rank of a preconditioner, and the largest number of iterations."""

TOLERANCE = 1e-10
"""The size of the residual of the linear system, relative to its right-hand side, that is enough."""


@dataclass(frozen=True)
class Nystroem:
    """A low-rank approximation of A as a preconditioner, made by `nystroem`.

    Attributes:
        vectors: Orthonormal approximate eigenvectors (p, rank).
        eigenvalues: Their eigenvalues (rank,), not negative, in descending order.
    """

    vectors: Tensor
    eigenvalues: Tensor

    def __call__(self, vector: Tensor, damping: float) -> Tensor:
        """The preconditioner for A + mu I times a vector (p,)."""
        scales = (self.eigenvalues[-1] + damping) / (self.eigenvalues + damping)
        preconditioned: Tensor = vector + self.vectors @ ((scales - 1) * (self.vectors.T @ vector))
        return preconditioned


def nystroem(product: Product, like: Tensor, generator: torch.Generator, rank: int) -> Nystroem:
    """A randomised Nystroem approximation.

    Source: Frangella, Tropp, Udell, SIAM J. Matrix Anal. Appl. 44 (2023), algorithm 2.1.

    Args:
        product: Multiplies by A.
        like: A vector (p,) of the size, precision and device of those that are multiplied.
        generator: The source of random directions.
        rank: The rank; p where that is less.

    Returns:
        The preconditioner.

    Raises:
        RunError: A product is not finite.
    """
    probes = torch.randn(len(like), min(rank, len(like)), generator=generator, dtype=like.dtype)
    probes = torch.linalg.qr(probes.to(like)).Q
    image = product(probes)
    if not image.isfinite().all():
        raise RunError(
            "a product with the curvature of the loss became nan or infinite: expected finite numbers, choose a "
            "smaller model.weight_range, or a larger differentiator.step"
        )
    finfo, failed = torch.finfo(image.dtype), True
    shift = (finfo.eps * torch.linalg.matrix_norm(image)).clamp(min=finfo.tiny**0.5)
    while failed:  # until the shift makes the matrix positive definite in spite of rounding
        shifted = image + shift * probes
        gram = probes.T @ shifted
        factor, info = torch.linalg.cholesky_ex((gram + gram.T) / 2)
        failed, shift = bool(info), shift * 10
    root = torch.linalg.solve_triangular(factor.T, shifted, upper=True, left=False)
    vectors, values, _ = torch.linalg.svd(root, full_matrices=False)
    return Nystroem(vectors, (values.square() - shift / 10).clamp(min=0))


def adapted(
    preconditioner: Nystroem, product: Product, like: Tensor, generator: torch.Generator, damping: float
) -> Nystroem:
    """A preconditioner whose smallest eigenvalue is below 10 mu, by doubling its rank (ibid., section 5.4).

    The condition number of the preconditioned system is then about 10.

    Args:
        preconditioner: The one to begin with.
        product: Multiplies by A.
        like: See `nystroem`.
        generator: See `nystroem`.
        damping: mu.

    Returns:
        The preconditioner, of a rank of at most MOST.
    """
    most = min(MOST, len(like))
    while float(preconditioner.eigenvalues[-1]) > 10 * damping and len(preconditioner.eigenvalues) < most:
        preconditioner = nystroem(product, like, generator, min(2 * len(preconditioner.eigenvalues), most))
    return preconditioner


def conjugate_gradients(
    product: Product,
    right: Tensor,
    damping: float,
    preconditioner: Nystroem,
    start: Tensor | None = None,
    tolerance: float = TOLERANCE,
    most: int = MOST,
) -> Tensor:
    """Solve (A + mu I) x = b.

    Args:
        product: Multiplies by A.
        right: b (p,).
        damping: mu.
        preconditioner: Of A.
        start: The first x; by default 0.
        tolerance: The size of the residual, relative to b, that is enough.
        most: The largest number of iterations.

    Returns:
        x (p,); what it has come to where A + mu I turns out not to be positive definite.
    """
    x = torch.zeros_like(right) if start is None else start
    residual = right if start is None else right - product(x) - damping * x
    direction = z = preconditioner(residual, damping)
    inner = residual @ z
    enough = tolerance * float(torch.linalg.vector_norm(right))
    for _ in range(most):
        if float(torch.linalg.vector_norm(residual)) <= enough:
            break
        image = product(direction) + damping * direction
        curvature = direction @ image
        if not float(curvature) > 0:
            break
        x, residual = x + inner / curvature * direction, residual - inner / curvature * image
        z = preconditioner(residual, damping)
        old, inner = inner, residual @ z
        direction = z + inner / old * direction
    return x
