"""Damped least squares: the step d of least |J d + r|^2 + mu |d|^2, for as many dampings mu as are tried.

J (n, p) is the Jacobian of n residual rows r by p parameters. A class here prepares J once, and then gives a step for
each damping. SVD and QR work on J itself; Cholesky factors of J^T J or J J^T are several times faster, and stop at a
relative accuracy of about 1e-8, because they square the condition of J. `Conjugate` needs products with J alone.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from pde_train.optimizers.conjugate_gradients import RANK, Product, adapted, conjugate_gradients, nystroem

SVD_COLUMNS = 512
"""Most columns, or rows, of which `auto` takes an SVD; QR is two to three times faster, and serves one damping."""


class Damped(ABC):
    """A linear least-squares problem with damping.

    Attributes:
        scale: The largest squared norm of a column of J, in whose units dampings are given; where J is not at hand,
            that of a column of J S, or an approximation of the largest eigenvalue of J^T J.
        values: The singular values of J in descending order, where they are at hand.
    """

    scale: float
    values: Tensor | None = None

    @abstractmethod
    def step(self, damping: float) -> Tensor:
        """The step (p,) for a damping mu > 0; nan where rounding has made the system singular."""

    @abstractmethod
    def image(self, step: Tensor) -> Tensor:
        """J d (n,) of a step d (p,)."""


class Dense(Damped):
    """What needs J itself.

    Args:
        jacobian: J (n, p).
        residual: r (n,).
    """

    def __init__(self, jacobian: Tensor, residual: Tensor):
        self.jacobian, self.residual = jacobian, residual
        self.scale = float(jacobian.square().sum(0).max())

    def image(self, step: Tensor) -> Tensor:
        image: Tensor = self.jacobian @ step.to(self.jacobian)
        return image


class SVD(Dense):
    """By the singular value decomposition of J, after a QR decomposition where J has more rows than columns."""

    def __init__(self, jacobian: Tensor, residual: Tensor):
        super().__init__(jacobian, residual)
        triangle, right = _triangle(jacobian, residual)
        left, self.values, self.right = torch.linalg.svd(triangle, full_matrices=False)
        self.coordinates = left.T @ right

    def step(self, damping: float) -> Tensor:
        assert self.values is not None
        step: Tensor = -(self.right.T @ (self.values / (self.values.square() + damping) * self.coordinates))
        return step

    def damping_of(self, radius: float) -> float:
        """The damping whose step has the length `radius`; 1e-30 scale where even the step for that is shorter."""
        assert self.values is not None
        values, coordinates = self.values.double(), self.coordinates.double()

        def length(damping: float) -> float:
            return float(torch.linalg.vector_norm(values / (values.square() + damping) * coordinates))

        low, high = math.log(1e-30 * self.scale), math.log(1e6 * self.scale)
        if length(math.exp(low)) <= radius:
            return math.exp(low)
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if length(math.exp(middle)) > radius else (low, middle)
        return math.exp(high)


class QR(Dense):
    """By a QR decomposition of J, and one of its triangle with sqrt(mu) I below it for each damping."""

    def __init__(self, jacobian: Tensor, residual: Tensor):
        super().__init__(jacobian, residual)
        self.triangle, self.right = _triangle(jacobian, residual)

    def step(self, damping: float) -> Tensor:
        p = self.triangle.shape[1]
        below = math.sqrt(damping) * torch.eye(p).to(self.triangle)
        left = torch.cat([self.triangle, below])
        right = torch.cat([self.right, self.right.new_zeros(p)])
        triangle, image = _triangle(left, right)
        step: Tensor = -torch.linalg.solve_triangular(triangle, image.unsqueeze(1), upper=True).squeeze(1)
        return step


class Cholesky(Dense):
    """By a Cholesky decomposition of J^T J + mu I."""

    def __init__(self, jacobian: Tensor, residual: Tensor):
        super().__init__(jacobian, residual)
        self.gram, self.right = jacobian.T @ jacobian, jacobian.T @ residual

    def step(self, damping: float) -> Tensor:
        return -_solve(self.gram, damping, self.right)


class Dual(Dense):
    """By a Cholesky decomposition of J J^T + mu I, for fewer rows than columns: d = -J^T (J J^T + mu I)^-1 r."""

    def __init__(self, jacobian: Tensor, residual: Tensor):
        super().__init__(jacobian, residual)
        self.kernel = jacobian @ jacobian.T

    def step(self, damping: float) -> Tensor:
        return -(self.jacobian.T @ _solve(self.kernel, damping, self.residual))


class Sketched(Damped):
    """In a random subspace d = S z of the parameters, where J S has so few columns that its SVD is cheap.

    Args:
        forward: Multiplies by J.
        residual: r (n,).
        parameters: The number p of parameters.
        dimension: The number k of columns of S, whose entries are +-1 / sqrt(k).
        generator: The source of S.
    """

    def __init__(self, forward: Product, residual: Tensor, parameters: int, dimension: int, generator: torch.Generator):
        signs = torch.randint(0, 2, (parameters, dimension), generator=generator).to(residual)
        self.basis = (2 * signs - 1) / math.sqrt(dimension)
        self.forward = forward
        self.inner = SVD(forward(self.basis), residual)
        self.scale = self.inner.scale

    def step(self, damping: float) -> Tensor:
        return self.basis @ self.inner.step(damping)

    def image(self, step: Tensor) -> Tensor:
        return self.forward(step)


class Conjugate(Damped):
    """By preconditioned conjugate gradients on J^T J + mu I, with products alone.

    Args:
        forward: Multiplies by J.
        back: Multiplies by J^T.
        residual: r (n,).
        parameters: The number p of parameters.
        generator: The source of random directions.
    """

    def __init__(self, forward: Product, back: Product, residual: Tensor, parameters: int, generator: torch.Generator):
        self.forward = forward
        self.product: Product = lambda vectors: back(forward(vectors))
        self.right = back(residual)
        self.generator = generator
        self.preconditioner = nystroem(self.product, self.right, generator, RANK)
        self.scale = float(self.preconditioner.eigenvalues[0])

    def image(self, step: Tensor) -> Tensor:
        return self.forward(step)

    def step(self, damping: float) -> Tensor:
        self.preconditioner = adapted(self.preconditioner, self.product, self.right, self.generator, damping)
        return conjugate_gradients(self.product, -self.right, damping, self.preconditioner)


def _triangle(jacobian: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
    """R and Q^T r of the QR decomposition of J; J and r themselves where J has no more rows than columns."""
    n, p = jacobian.shape
    if n <= p:
        return jacobian, residual
    triangle = torch.linalg.qr(torch.cat([jacobian, residual.unsqueeze(1)], dim=1), mode="r").R
    return triangle[:p, :p], triangle[:p, p]


def _solve(matrix: Tensor, damping: float, right: Tensor) -> Tensor:
    """(matrix + mu I)^-1 right; nan where the matrix is not positive definite to rounding."""
    factor, failed = torch.linalg.cholesky_ex(matrix + damping * torch.eye(len(matrix)).to(matrix))
    if int(failed):
        return torch.full_like(right, math.nan)
    return torch.cholesky_solve(right.unsqueeze(1), factor).squeeze(1)
