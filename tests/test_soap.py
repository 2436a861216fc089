"""SOAP against its published algorithm, written anew in numpy."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pde_train.derivatives import Field
from pde_train.errors import UsageError
from pde_train.optimizers.soap import SOAP


def published(
    start: np.ndarray,
    gradient: Callable[[np.ndarray], np.ndarray],
    steps: int,
    lr: float = 0.1,
    first: float = 0.9,
    second: float = 0.8,
    eps: float = 1e-3,
    frequency: int = 3,
) -> np.ndarray:
    """Algorithm 3 for one matrix, with the first step only setting the bases."""
    w = start.copy()
    mean, square = np.zeros_like(w), np.zeros_like(w)
    g = gradient(w)
    left, right = (1 - second) * g @ g.T, (1 - second) * g.T @ g
    ql, qr = np.linalg.eigh(left)[1][:, ::-1], np.linalg.eigh(right)[1][:, ::-1]
    for t in range(1, steps):
        g = gradient(w)
        mean = first * mean + (1 - first) * g
        rotated = ql.T @ g @ qr
        square = second * square + (1 - second) * rotated**2
        mean_hat, square_hat = (ql.T @ mean @ qr) / (1 - first**t), square / (1 - second**t)
        # eps is added before the correction of the bias, as in the authors' code
        step = mean_hat / (np.sqrt(square_hat) + eps / np.sqrt(1 - second**t))
        w = w - lr * ql @ step @ qr.T
        left, right = second * left + (1 - second) * g @ g.T, second * right + (1 - second) * g.T @ g
        if t % frequency == 0:
            order_l = np.argsort(-np.diag(ql.T @ left @ ql))
            order_r = np.argsort(-np.diag(qr.T @ right @ qr))
            square = square[order_l][:, order_r]
            ql, qr = np.linalg.qr(left @ ql[:, order_l])[0], np.linalg.qr(right @ qr[:, order_r])[0]
    return w


def target(w: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return ((a @ w @ b - 1) ** 2).sum()


def taken(start: np.ndarray, function: Field, steps: int, **options: Any) -> tuple[np.ndarray, SOAP]:
    w = nn.Parameter(torch.from_numpy(start.copy()))
    optimizer = SOAP([w], lr=0.1, betas=(0.9, 0.8), frequency=3, **options)
    for _ in range(steps):
        optimizer.zero_grad()
        function(w).backward()
        optimizer.step()
    return w.detach().numpy(), optimizer


def test_steps_are_those_of_the_published_algorithm() -> None:
    generator = np.random.default_rng(0)
    a, b, start = (generator.normal(size=s) for s in ((5, 3), (3, 6), (3, 3)))

    def gradient(w: np.ndarray) -> np.ndarray:
        return 2 * a.T @ (a @ w @ b - 1) @ b.T

    ta, tb = torch.from_numpy(a), torch.from_numpy(b)
    found, _ = taken(start, lambda w: target(w, ta, tb), 25, eps=1e-3)  # at 1e-8, rounding of zeros is a step
    expected = published(start, gradient, 25)
    assert np.abs(found - expected).max() < 1e-9 * np.abs(expected).max()
    assert np.abs(found - start).max() > 0.1


def test_a_vector_is_left_to_adam() -> None:
    """After the first step, which only sets the state, the steps are those of torch's Adam."""
    start = np.array([1.0, -2.0, 0.5])
    weights = torch.tensor([1.0, 10.0, 100.0], dtype=torch.float64)
    found, _ = taken(start, lambda w: (weights * (w - 3) ** 2).sum(), 21, eps=1e-12)
    w = nn.Parameter(torch.from_numpy(start.copy()))
    adam = torch.optim.Adam([w], lr=0.1, betas=(0.9, 0.8), eps=1e-12)
    for _ in range(20):
        adam.zero_grad()
        (weights * (w - 3) ** 2).sum().backward()
        adam.step()
    assert np.abs(found - w.detach().numpy()).max() < 1e-9


def test_a_long_side_has_no_basis() -> None:
    start = np.random.default_rng(0).normal(size=(7, 3))
    _, optimizer = taken(start, lambda w: (w**4).sum(), 5, largest=4)
    (state,) = optimizer.state.values()
    assert [m.shape for m in state["matrices"]] == [(3, 3)]


def test_the_state_goes_on_to_the_same_bits() -> None:
    start = np.random.default_rng(1).normal(size=(4, 3))
    whole, _ = taken(start, lambda w: (w**4).sum(), 12)
    w = nn.Parameter(torch.from_numpy(start.copy()))
    optimizer = SOAP([w], lr=0.1, betas=(0.9, 0.8), frequency=3)
    for k in range(12):
        if k == 7:
            saved, w = optimizer.state_dict(), nn.Parameter(w.detach().clone())
            optimizer = SOAP([w], lr=0.1, betas=(0.9, 0.8), frequency=3)
            optimizer.load_state_dict(saved)
        optimizer.zero_grad()
        (w**4).sum().backward()
        optimizer.step()
    assert np.array_equal(w.detach().numpy(), whole)


@pytest.mark.parametrize("options", [{"lr": 0.0}, {"betas": (0.9, 1.0)}, {"frequency": 0}, {"eps": -1.0}])
def test_numbers_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"optimizer\.(lr|betas|frequency)=.* expected"):
        SOAP([nn.Parameter(torch.zeros(2, 2))], **options)
