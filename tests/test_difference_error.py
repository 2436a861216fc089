"""The parts of the error of finite differences: each alone against 50 digits, and both together."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from fixtures import Compose
from reference_networks import NAMES, bank, eps, network, one, points, request, rounded, sum_of_weights, weights_of
from torch import Tensor

from pde_train.derivatives import Field
from pde_train.differentiators.base import Differentiator
from pde_train.differentiators.difference_error import DifferenceError, kernel_rule
from pde_train.differentiators.finite_difference import FiniteDifference
from pde_train.differentiators.taylor import Taylor
from pde_train.errors import UsageError

DIGITS = 50
FUNCTIONS = {"tanh": (mpmath.tanh, torch.tanh), "sin": (mpmath.sin, torch.sin)}
SLOPES = [10.0, -3.0, 1.0]  # of the features s(w x)
ORDERS, ACCURACIES, PARTS = (1, 2, 3, 4), (2, 4), ("truncation", "rounding")


def line(function: str) -> tuple[Field, Tensor]:
    """Features s(w x) for each slope, (n, 1) -> (n, 3), and points where some are steep and some have levelled off."""
    w = torch.tensor(SLOPES, dtype=torch.float64)
    return lambda x: FUNCTIONS[function][1](x * w), torch.linspace(-1, 1, 9, dtype=torch.float64).unsqueeze(1)


def in_exact_arithmetic(
    function: str, orders: tuple[int, ...], accuracy: int, h: float, slopes: list[list[float]], x: Tensor
) -> np.ndarray:
    """The finite difference of s(w . x) in 50 digits, as a float, (n, m); slopes (m, d), x (n, d)."""
    with mpmath.workdps(DIGITS):
        step, w, at = mpmath.mpf(h), rounded(slopes, torch.float64), rounded(x.tolist(), torch.float64)
        found = np.zeros((len(at), len(w)))
        for i, j in np.ndindex(found.shape):
            total = mpmath.mpf(0)
            for nodes in itertools.product(*(weights_of(order, accuracy).items() for order in orders)):
                weight = math.prod(mpmath.mpf(int(v.p)) / int(v.q) for _, v in nodes)
                total += weight * FUNCTIONS[function][0](sum(w[j] * (at[i] + [k * step for k, _ in nodes])))
            found[i, j] = float(total / step ** sum(orders))
    return found


def distance(found: Tensor, exact: np.ndarray) -> float:
    """The largest difference of each column, relative to its largest entry."""
    return (np.abs(found.numpy() - exact).max(0) / np.abs(exact).max(0)).max()


@pytest.mark.parametrize("h", [1e-1, 1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("accuracy", ACCURACIES)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_truncation_is_the_finite_difference_in_exact_arithmetic(
    function: str, order: int, accuracy: int, h: float
) -> None:
    u, x = line(function)
    exact = in_exact_arithmetic(function, (order,), accuracy, h, [[w] for w in SLOPES], x)
    found = one(DifferenceError("truncation", accuracy, h), u, x, "u_" + "x" * order)
    # the coefficients of a Taylor series of order 4 add up a few roundings
    assert distance(found, exact) < 1e-13


@pytest.mark.parametrize("h", [1e-1, 1e-3])
@pytest.mark.parametrize(("accuracy", "nodes"), [(2, 12), (4, 6)])
@pytest.mark.parametrize("orders", [(1, 1), (2, 1), (2, 2)], ids=str)
def test_mixed_means_are_the_products_of_lines(orders: tuple[int, int], accuracy: int, nodes: int, h: float) -> None:
    slopes = [[1.1, -0.6], [-0.8, 2.0]]
    w, x = torch.tensor(slopes, dtype=torch.float64).T, torch.rand(4, 2, generator=torch.Generator().manual_seed(0))
    x = x.double()
    exact = in_exact_arithmetic("tanh", orders, accuracy, h, slopes, x)
    name = "u_" + "x" * orders[0] + "y" * orders[1]
    found = one(DifferenceError("truncation", accuracy, h, nodes), lambda x: torch.tanh(x @ w), x, name)
    assert distance(found, exact) < 1e-13


@pytest.mark.parametrize("accuracy", ACCURACIES)
def test_sums_are_made_of_the_means(accuracy: int) -> None:
    x, several = points(2), request("u lap_u bih_u u_xx u_yy u_xxxx u_xxyy u_yyyy", 2)
    jet = DifferenceError("truncation", accuracy, 0.1, 6)(network("tanh", 2), x, several)
    close: dict[str, Any] = {"rtol": 0, "atol": 16 * eps(x.dtype)}
    torch.testing.assert_close(jet.lap_u, jet.u_xx + jet.u_yy, **close)
    torch.testing.assert_close(jet.bih_u, jet.u_xxxx + 2 * jet.u_xxyy + jet.u_yyyy, **close)
    assert torch.equal(jet.u, network("tanh", 2)(x))


@pytest.mark.parametrize("step", ["auto", "grid", 1e-1, 1e-3, torch.tensor(1e-2, dtype=torch.float64)], ids=str)
@pytest.mark.parametrize("dimension", [1, 2])
def test_both_parts_together_are_finite_differences(dimension: int, step: str | float | Tensor) -> None:
    x, u, spacing = points(dimension), bank("gelu", dimension), (0.1, 0.05)[:dimension]
    several = request(" ".join(NAMES[dimension]), dimension)
    exact, computed = (d(u, x, several) for d in (Taylor(), FiniteDifference(4, step, spacing=spacing)))
    truncation, rounding = (DifferenceError(p, 4, step, 6).fitted(spacing)(u, x, several) for p in PARTS)
    for name in several.names:
        parts = getattr(truncation, name) + getattr(rounding, name) - getattr(exact, name)
        largest = max(1.0, *(float(getattr(j, name).abs().max()) for j in (exact, computed)))
        torch.testing.assert_close(parts, getattr(computed, name), rtol=0, atol=64 * eps(x.dtype) * largest)


def errors(
    differentiator: Callable[[int, float], Differentiator], order: int, steps: np.ndarray, accuracy: int
) -> np.ndarray:
    """The relative error of a derivative of the sin features in the Euclidean norm, step by step."""
    u, x = line("sin")
    name = "u_" + "x" * order
    exact = one(Taylor(), u, x, name)
    found = [one(differentiator(accuracy, float(h)), u, x, name) for h in steps]
    return np.array([float((f - exact).norm() / exact.norm()) for f in found])


def truncated(accuracy: int, step: float) -> DifferenceError:
    return DifferenceError("truncation", accuracy, step)


def rounding(accuracy: int, step: float) -> DifferenceError:
    return DifferenceError("rounding", accuracy, step)


def power(steps: np.ndarray, found: np.ndarray) -> float:
    return np.polyfit(np.log(steps), np.log(found), 1)[0]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("accuracy", "smallest"), [(2, 1e-7), (4, 1e-4)])
def test_the_truncation_error_goes_on_falling_below_the_rounding_of_finite_differences(
    accuracy: int, smallest: float, order: int
) -> None:
    # of sin(10 x) it is (10 h)^2 / 12 or (10 h)^4 / 100 or so: 1e-14, which stands above a rounding
    steps = np.geomspace(smallest, 1e-2, 9)
    found = errors(truncated, order, steps, accuracy)
    assert power(steps, found) == pytest.approx(accuracy, abs=0.02)
    assert errors(FiniteDifference, order, steps, accuracy)[0] > 10 * found[0]


@pytest.mark.parametrize("accuracy", ACCURACIES)
@pytest.mark.parametrize("order", ORDERS)
def test_the_rounding_error_grows_like_the_step_to_the_minus_n(order: int, accuracy: int) -> None:
    steps = 0.1 * 10.0 ** -np.arange(0, 4, 0.125)  # the rounding of any one step is a draw
    found = errors(rounding, order, steps, accuracy)
    assert power(steps, found) == pytest.approx(-order, abs=0.1)
    # and of no other size: eps times the sizes of the weights over (10 h)^n, where exact derivatives leave a few eps
    weights = sum_of_weights((order,), accuracy)
    assert (found < 4 * eps(torch.float64) * (4 + weights / (10 * steps) ** order)).all()


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_jacobians_by_the_parameters_point_by_point_are_those_of_the_batch(part: str, dtype: torch.dtype) -> None:
    p = {"w": torch.tensor([[1.1, -0.8], [0.5, 0.9]], dtype=dtype), "a": torch.tensor([[0.6], [-1.1]], dtype=dtype)}
    x, differentiator = points(2, dtype), DifferenceError(part, 2, 0.1, 4)

    def residual(p: dict[str, Tensor], x: Tensor) -> Tensor:
        return one(differentiator, lambda x: torch.tanh(x @ p["w"]) @ p["a"], x, "bih_u")

    whole = torch.func.jacrev(residual)(p, x)
    rows = torch.func.vmap(torch.func.jacrev(lambda p, x: residual(p, x.unsqueeze(0))), (None, 0))(p, x)
    # differences of order 4: eps / h^4 times weights that add up to 64
    atol = (64 * 1e4 if part == "rounding" else 64) * 4 * eps(dtype)
    for k in p:
        torch.testing.assert_close(rows[k].flatten(), whole[k].flatten(), rtol=0, atol=atol)


@pytest.mark.parametrize("part", PARTS)
def test_steps_may_be_a_batch_of_tensors(part: str) -> None:
    x, u, steps = points(1), network("tanh", 1), torch.tensor([0.1, 0.05], dtype=torch.float64)

    def second(step: Tensor) -> Tensor:
        return one(DifferenceError(part, 2, step), u, x, "u_xx")

    together = torch.func.vmap(second)(steps)
    for found, step in zip(together, steps.tolist(), strict=True):
        torch.testing.assert_close(found, second(step), rtol=0, atol=64 * eps(x.dtype) / step**2)


@pytest.mark.parametrize("accuracy", [2, 4, 6, 8])
@pytest.mark.parametrize("order", ORDERS)
def test_a_kernel_has_the_moments_of_its_stencil(order: int, accuracy: int) -> None:
    # of u = s^(n + k) the stencil leaves sum_i w_i i^(n + k), and u^(n) is (n + k)! / k! s^k
    rule = np.array(kernel_rule(order, accuracy, 12))
    for k in range(0, 10):
        moment = sum(float(w) * float(i) ** (order + k) for i, w in weights_of(order, accuracy).items())
        scale = math.perm(order + k, order)
        size = np.abs(rule[:, 1]) @ np.abs(rule[:, 0]) ** k
        assert rule[:, 1] @ rule[:, 0] ** k == pytest.approx(moment / scale, abs=1e-13 * max(1, size))


@pytest.mark.parametrize(("accuracy", "smallest"), [(2, 0.0), (4, -1.0)])
def test_the_kernel_of_accuracy_two_is_a_density_and_that_of_four_is_not(accuracy: int, smallest: float) -> None:
    weights = [w for order in ORDERS for _, w in kernel_rule(order, accuracy, 12)]
    assert smallest < min(weights)
    assert (min(weights) < 0) == (accuracy == 4)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"part": "both"}, r"differentiator\.part=both is no part of the error .*: expected truncation or rounding"),
        ({"step": "optimal"}, r"step=optimal is for finite_difference: expected auto, grid or a number"),
        ({"step": -0.1}, r"differentiator\.step=-0\.1 is no step: expected"),
        ({"accuracy": 3}, r"differentiator\.accuracy=3 has no central stencil: expected 2, 4, 6 or 8"),
        ({"nodes": 0}, r"differentiator\.nodes=0 makes no rule: expected 1 to 64"),
        ({"nodes": 2.5}, r"differentiator\.nodes=2\.5 makes no rule: expected 1 to 64"),
    ],
)
def test_what_it_cannot_do_is_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        DifferenceError(**{"part": "truncation", **settings})


def test_what_it_cannot_do_at_a_field_or_its_points_is_refused() -> None:
    with pytest.raises(UsageError, match=r"part=truncation needs exact derivatives: .* no rule .*'cumsum'"):
        one(DifferenceError("truncation"), lambda x: torch.cumsum(x, 1), points(1), "u_xx")
    with pytest.raises(UsageError, match=r"step=1e-15 is lost in the rounding of torch\.float64"):
        one(DifferenceError("rounding", step=1e-15), network("tanh", 1), points(1), "u_xx")
    for part in PARTS:
        with pytest.raises(UsageError, match=r"^differentiator\.step=grid needs the spacing of a sampler"):
            one(DifferenceError(part, step="grid"), network("tanh", 1), points(1), "u_xx")


@pytest.mark.parametrize("part", PARTS)
def test_a_sweep_names_it_in_one_word_and_its_numbers_in_two(compose: Compose, part: str) -> None:
    node = compose(
        f"differentiator=finite_difference/{part}", "differentiator.step=1e-3", "differentiator.accuracy=4"
    ).differentiator
    assert {k: node[k] for k in ("part", "step", "accuracy")} == {"part": part, "step": 1e-3, "accuracy": 4}
