"""Conjugate gradients, their preconditioner, and Newton steps by them."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pde_train.derivatives import Field
from pde_train.errors import RunError, UsageError
from pde_train.optimizers.conjugate_gradients import adapted, conjugate_gradients, nystroem
from pde_train.optimizers.nncg import NNCG


def definite(p: int = 60, smallest: float = 1e-8) -> tuple[Tensor, Tensor]:
    generator = np.random.default_rng(0)
    basis = np.linalg.qr(generator.normal(size=(p, p)))[0]
    matrix = torch.from_numpy(basis * np.geomspace(1, smallest, p) @ basis.T)
    return (matrix + matrix.T) / 2, torch.from_numpy(generator.normal(size=p))


def test_the_approximation_is_exact_at_full_rank_and_a_lower_bound_below_it() -> None:
    matrix, right = definite()
    full = nystroem(lambda v: matrix @ v, right, torch.Generator().manual_seed(0), 60)
    assert torch.allclose(full.vectors * full.eigenvalues @ full.vectors.T, matrix, atol=1e-13)
    low = nystroem(lambda v: matrix @ v, right, torch.Generator().manual_seed(0), 20)
    rest = matrix - low.vectors * low.eigenvalues @ low.vectors.T
    assert torch.linalg.eigvalsh(rest).min() > -1e-12
    assert torch.allclose(low.vectors.T @ low.vectors, torch.eye(20, dtype=torch.float64), atol=1e-12)


def test_without_curvature_the_approximation_is_zero_and_none_is_made_of_what_is_not_finite() -> None:
    like, generator = torch.zeros(5, dtype=torch.float64), torch.Generator().manual_seed(0)
    nothing = nystroem(lambda v: 0 * v, like, generator, 2)
    assert float(nothing.eigenvalues.abs().max()) < 1e-100
    right = torch.arange(5, dtype=torch.float64)
    assert torch.allclose(nothing(right, 1e-3), right)
    with pytest.raises(RunError, match="became nan or infinite"):
        nystroem(lambda v: v / 0, like, generator, 2)


def test_the_adapted_rank_bounds_the_condition() -> None:
    matrix, right = definite()
    generator = torch.Generator().manual_seed(0)
    first = nystroem(lambda v: matrix @ v, right, generator, 4)
    grown = adapted(first, lambda v: matrix @ v, right, generator, 1e-5)
    assert float(grown.eigenvalues[-1]) <= 1e-4
    system = matrix + 1e-5 * torch.eye(60)
    preconditioned = torch.stack([grown(column, 1e-5) for column in system.T], dim=1)
    values = torch.linalg.eigvals(preconditioned).real
    assert float(values.max() / values.min()) < 30
    assert float(torch.linalg.cond(system)) > 5e4


def test_conjugate_gradients_solve_the_system() -> None:
    matrix, right = definite()
    preconditioner = nystroem(lambda v: matrix @ v, right, torch.Generator().manual_seed(0), 20)
    found = conjugate_gradients(lambda v: matrix @ v, right, 1e-6, preconditioner)
    expected = torch.linalg.solve(matrix + 1e-6 * torch.eye(60), right)
    assert float((found - expected).norm() / expected.norm()) < 1e-8
    again = conjugate_gradients(lambda v: matrix @ v, right, 1e-6, preconditioner, start=expected, most=1)
    assert float((again - expected).norm() / expected.norm()) < 1e-8


def trained(
    function: Field, start: list[float], steps: int, copied_at: int | None = None, **options: Any
) -> tuple[Tensor, list[float]]:
    x = nn.Parameter(torch.tensor(start, dtype=torch.float64))
    optimizer, losses = NNCG([x], **options), []
    for step in range(steps):
        if step == copied_at:
            saved, x = optimizer.state_dict(), nn.Parameter(x.detach().clone())
            optimizer = NNCG([x], **options)
            optimizer.load_state_dict(saved)

        def closure(x: nn.Parameter = x) -> Tensor:
            x.grad = None
            value = function(x)
            value.backward()
            return value.detach()

        losses.append(float(optimizer.step(closure)))
    return x.detach(), losses


def test_a_step_on_a_quadratic_is_the_damped_newton_step() -> None:
    matrix, right = definite(p=12, smallest=1e-3)
    found, _ = trained(lambda x: 0.5 * x @ matrix @ x - right @ x, [0.0] * 12, 1, damping=1e-2, tolerance=1e-12)
    expected = torch.linalg.solve(matrix + 1e-2 * torch.eye(12), right)
    assert float((found - expected).norm() / expected.norm()) < 1e-7


def rosenbrock(x: Tensor) -> Tensor:
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def test_a_minimum_is_found_and_no_step_raises_the_loss() -> None:
    x, losses = trained(rosenbrock, [-1.2, 1.0, -1.2], 80, damping=1e-2)
    assert (np.diff(losses) <= 0).all()
    assert float((x - 1).abs().max()) < 1e-3


def test_the_state_goes_on_to_the_same_bits() -> None:
    whole, _ = trained(rosenbrock, [-1.2, 1.0, -1.2], 12, frequency=5)
    cut, _ = trained(rosenbrock, [-1.2, 1.0, -1.2], 12, copied_at=7, frequency=5)
    assert torch.equal(whole, cut)


@pytest.mark.parametrize("option", ["damping", "rank", "frequency", "iterations", "tolerance"])
def test_numbers_out_of_range_are_refused(option: str) -> None:
    with pytest.raises(UsageError, match=rf"optimizer\.{option}=0 is of no use: expected a positive number"):
        NNCG([nn.Parameter(torch.zeros(2))], **{option: 0})
