"""Finite differences inside a box: exact on polynomials up to their accuracy, and nothing is evaluated outside."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pde_train.derivatives import Axes
from pde_train.differentiators.finite_difference import FiniteDifference
from pde_train.differentiators.inside_difference import InsideDifference, reach_of
from pde_train.domains import Ball
from pde_train.errors import UsageError
from pde_train.geometry import Box

LINE, SQUARE = Box((-1.0,), (1.0,)), Box((0.0, 0.0), (1.0, 1.0))


class Seen:
    """A field that keeps the points at which it is evaluated."""

    def __init__(self, u: Callable[[Tensor], Tensor]):
        self.u, self.points = u, torch.empty(0)

    def __call__(self, x: Tensor) -> Tensor:
        self.points = x if not len(self.points) else torch.cat([self.points, x])
        return self.u(x)


def taken(differentiator: InsideDifference, u: Callable[[Tensor], Tensor], x: Tensor, axes: Axes) -> Tensor:
    return differentiator.partials(u, x, frozenset({axes}))[axes]


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("accuracy", [2, 4, 8])
def test_polynomials_up_to_the_accuracy_have_their_derivatives_and_nothing_is_evaluated_outside(
    order: int, accuracy: int
) -> None:
    """On every monomial below degree n + p all stencils are exact, at the boundary as well."""
    x = torch.linspace(-1, 1, 41, dtype=torch.float64).unsqueeze(1)
    differentiator = InsideDifference(accuracy, 0.1).within(LINE)
    for degree in range(order + accuracy):
        u = Seen(lambda z: z**degree)  # noqa: B023  # called in the same round
        factor = torch.tensor([float(degree - k) for k in range(order)]).prod() if degree >= order else 0.0
        exact = factor * x ** max(degree - order, 0)
        found = taken(differentiator, u, x, (0,) * order)
        assert torch.allclose(found, exact.to(x), rtol=0, atol=1e-9 / 0.1**order)
        assert u.points.abs().max() <= 1 + 1e-14


@pytest.mark.parametrize(("order", "accuracy"), [(1, 2), (2, 2), (2, 4), (3, 2), (4, 2)])
def test_the_error_falls_with_the_accuracy_at_the_boundary_too(order: int, accuracy: int) -> None:
    x = torch.tensor([[-1.0], [-0.93], [1.0]], dtype=torch.float64)
    exact = (torch.cos(x), -torch.sin(x), -torch.cos(x), torch.sin(x))[order - 1]
    errors = [
        (taken(InsideDifference(accuracy, h).within(LINE), torch.sin, x, (0,) * order) - exact).abs().max()
        for h in (0.1, 0.05)
    ]
    assert torch.log2(errors[0] / errors[1]) > accuracy - 0.4


def test_far_from_the_boundary_stencils_are_those_of_finite_differences() -> None:
    x = torch.linspace(-0.5, 0.5, 11, dtype=torch.float64).unsqueeze(1)
    for axes in ((), (0,), (0, 0), (0, 0, 0, 0)):
        plain = FiniteDifference(4, "grid").fitted((0.05,)).partials(torch.sin, x, frozenset({axes}))[axes]
        inside = InsideDifference(4, "grid").fitted((0.05,)).within(LINE)
        assert torch.allclose(taken(inside, torch.sin, x, axes), plain, rtol=1e-9, atol=1e-9)


def test_mixed_derivatives_are_products_in_corners_too() -> None:
    x = torch.tensor([[0.0, 0.0], [0.0, 1.0], [0.5, 0.02], [0.4, 0.6]], dtype=torch.float64)
    u = Seen(lambda z: torch.sin(z[:, :1]) * torch.exp(z[:, 1:]))
    found = taken(InsideDifference(2, 0.01).within(SQUARE), u, x, (0, 0, 1, 1))
    assert torch.allclose(found, -u.u(x), atol=2e-3)
    assert u.points.min() >= -1e-15
    assert u.points.max() <= 1 + 1e-15


@pytest.mark.parametrize("size", [1.0, 1e-9, 1e-100])
def test_the_smallest_step_is_relative_to_the_domain(size: float) -> None:
    """u(x / L) = (x / L)^2 on [0, L] has the slope 2 x / L^2, to eps L / h of rounding; 100 eps L is the border."""
    x = size * torch.linspace(0, 1, 9, dtype=torch.float64).unsqueeze(1)

    def slope(h: float) -> Tensor:
        differentiator = InsideDifference(2, h * size).fitted((size / 8,), size, size)
        return size * taken(differentiator.within(Box((0.0,), (size,))), lambda p: (p / size) ** 2, x, (0,))

    assert torch.allclose(slope(3e-14), 2 * x / size, rtol=0, atol=10 * 2.2e-16 / 3e-14)
    with pytest.raises(UsageError, match="is lost in the rounding of"):
        slope(2e-14)


def test_a_compiled_graph_has_the_same_numbers() -> None:
    x = torch.linspace(-1, 1, 9, dtype=torch.float64).unsqueeze(1)
    differentiator = InsideDifference(2, 0.05).within(LINE)
    traced = torch.fx.experimental.proxy_tensor.make_fx(lambda z: taken(differentiator, torch.sin, z, (0, 0)))(x)
    other = torch.linspace(1, -1, 9, dtype=torch.float64).unsqueeze(1) * 0.99
    assert torch.equal(traced(other), taken(differentiator, torch.sin, other, (0, 0)))


def test_what_cannot_be_kept_inside_is_one_sentence() -> None:
    with pytest.raises(UsageError, match=r"keeps stencils inside a box, and the domain is a Ball: expected"):
        InsideDifference().within(Ball((0.0, 0.0), 1.0))
    with pytest.raises(UsageError, match=r"asks for 5 points in a row, which a domain of length 2 has no room for"):
        taken(InsideDifference(2, 0.9).within(LINE), torch.sin, torch.zeros(1, 1), (0, 0))
    with pytest.raises(UsageError, match=r"step=optimal has no one-sided stencils"):
        InsideDifference(2, "optimal")
    with pytest.raises(UsageError, match=r"step=1e-18 is lost in the rounding of"):
        taken(InsideDifference(2, 1e-18).within(LINE), torch.sin, torch.ones(1, 1, dtype=torch.float64), (0,))
    assert reach_of(2, 2) == 2


def test_another_step_is_taken_where_it_is_replaced() -> None:
    """As the cells of a stack do, which vary the step of the first one."""
    first = InsideDifference(2, 0.1).fitted((0.5,), 3.0, 2.0).within(LINE)
    x = torch.tensor([[0.3]], dtype=torch.float64)
    errors = [float(taken(replace(first, step=h), torch.sin, x, (0, 0)) + torch.sin(x)) for h in (0.1, 0.05)]
    assert errors[0] == pytest.approx(4 * errors[1], rel=1e-2)
    assert replace(first, step="grid").differences.steps((0, 0), x) == (0.5,)
