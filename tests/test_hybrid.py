"""Finite differences of automatic first derivatives: what is exact, and the order of the rest."""

from typing import Any

import numpy as np
import pytest
import torch
from reference_networks import bank, eps, one, points, request
from torch import Tensor

from pde_train.differentiators.finite_difference import FiniteDifference
from pde_train.differentiators.hybrid import Hybrid
from pde_train.differentiators.reverse import Reverse
from pde_train.errors import UsageError

# Where the error of order p in h is the leading one and stands above rounding, eps / h^(n - 1).
STEPS = {2: (0.04, 0.16), 4: (0.1, 0.3), 6: (0.2, 0.5), 8: (0.3, 0.6)}


def wave(x: Tensor) -> Tensor:
    """sin(k . x + 0.4) with |k| = 1."""
    k = {1: [1.0], 2: [0.6, 0.8]}[x.shape[1]]
    return torch.sin(x @ torch.tensor(k, dtype=x.dtype).unsqueeze(1) + 0.4)


def slope(name: str, dimension: int, between: tuple[float, float], **settings: Any) -> float:
    """The exponent of h in the error, by least squares on a log-log scale."""
    x = points(dimension)
    exact, steps = one(Reverse(), wave, x, name), np.geomspace(*between, 6)
    errors = [float((one(Hybrid(step=float(h), **settings), wave, x, name) - exact).norm()) for h in steps]
    return np.polyfit(np.log(steps), np.log(errors), 1)[0]


HIGHER = [(1, "u_xx"), (1, "u_xxx"), (1, "u_xxxx"), (2, "u_yy"), (2, "u_xy"), (2, "u_xxy"), (2, "u_xyy"), (2, "u_xxyy")]


@pytest.mark.parametrize("accuracy", [2, 4, 6, 8])
@pytest.mark.parametrize(("dimension", "name"), HIGHER)
def test_the_error_falls_with_the_promised_power_of_the_step(dimension: int, name: str, accuracy: int) -> None:
    # the next term of the error is h^2 / 10 or so of the leading one
    assert slope(name, dimension, STEPS[accuracy], accuracy=accuracy) == pytest.approx(accuracy, abs=0.15)


@pytest.mark.parametrize(("accuracy", "levels"), [(2, 1), (2, 2), (4, 1)])
@pytest.mark.parametrize(("dimension", "name"), [(1, "u_xx"), (1, "u_xxxx"), (2, "u_xxy")])
def test_each_extrapolation_adds_two_to_that_power(dimension: int, name: str, accuracy: int, levels: int) -> None:
    order = accuracy + 2 * levels
    between = tuple(2**levels * h for h in STEPS[order])
    assert slope(name, dimension, between, accuracy=accuracy, richardson=levels) == pytest.approx(order, abs=0.4)


@pytest.mark.parametrize("step", ["auto", 0.5, 1e-3])
def test_first_derivatives_and_u_are_those_of_reverse_mode_whatever_the_step(step: str | float) -> None:
    x, u, asked = points(2), bank("gelu", 2), request("u u_x u_y", 2)
    found, exact = (d(u, x, asked) for d in (Hybrid(step=step), Reverse()))
    for name in asked.names:
        # the same program, at points that are stacked otherwise
        torch.testing.assert_close(getattr(found, name), getattr(exact, name), rtol=0, atol=4 * eps(x.dtype))


def test_a_second_derivative_is_the_central_difference_of_the_first() -> None:
    x, h = points(1), 0.25
    first = [one(Reverse(), wave, x + k * h, "u_x") for k in (-1, 1)]
    found = one(Hybrid(step=h), wave, x, "u_xx")
    torch.testing.assert_close(found, (first[1] - first[0]) / (2 * h), rtol=0, atol=8 * eps(x.dtype) / h)


@pytest.mark.parametrize(("name", "decades"), [("u_xx", 2), ("u_xxx", 1), ("u_xxxx", 0.5)])
def test_it_gains_on_differences_of_u(name: str, decades: float) -> None:
    # eps^(p / (n - 1 + p)) in place of eps^(p / (n + p)), for p = 2 by 2.6, 1.6 and 1.0 decades
    x = torch.linspace(-1, 1, 101, dtype=torch.float64).unsqueeze(1)
    exact = one(Reverse(), wave, x, name)
    ours, theirs = (float((one(d, wave, x, name) - exact).norm()) for d in (Hybrid(), FiniteDifference()))
    assert ours < theirs / 10**decades


def test_automatic_steps_are_those_of_the_order_that_is_left() -> None:
    x = points(2)
    for axes in ((0,), (0, 1), (0, 1, 1)):
        assert Hybrid(4).differences.steps(axes, x) == FiniteDifference(4).steps(axes, x)


def test_the_grid_is_that_of_the_sampler() -> None:
    fitted = Hybrid(4, "grid").fitted((0.1, 0.02))
    assert fitted == Hybrid(4, "grid", spacing=(0.1, 0.02))
    seen = []
    fitted.partials(lambda p: (seen.append(p.detach()), wave(p))[1], points(2)[:1], frozenset([(1, 1)]))
    offsets = sorted({round(float(y), 6) for p in seen for y in (p - points(2)[:1])[:, 1]})
    assert offsets == [-0.04, -0.02, 0.02, 0.04]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"step": "optimal"}, r"step=optimal is for finite_difference: expected auto, grid or a number"),
        ({"step": -0.1}, r"differentiator\.step=-0\.1 is no step: expected"),
        ({"step": "often"}, r"differentiator\.step=often is no step: expected"),
        ({"accuracy": 3}, r"differentiator\.accuracy=3 has no central stencil: expected 2, 4, 6 or 8"),
        ({"richardson": 7}, r"differentiator\.richardson=7 is no number of extrapolations: expected 0 to 4"),
    ],
)
def test_what_it_cannot_do_is_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        Hybrid(**settings)


def test_a_step_that_is_too_small_is_refused_where_it_is_taken_and_only_there() -> None:
    x = points(1, torch.float32)
    with pytest.raises(UsageError, match=r"differentiator\.step=1e-06 is lost in the rounding of torch\.float32"):
        one(Hybrid(step=1e-6), wave, x, "u_xx")
    assert one(Hybrid(step=1e-6), wave, x, "u_x").isfinite().all()
    with pytest.raises(UsageError, match=r"differentiator\.step=grid needs the spacing of a sampler"):
        one(Hybrid(step="grid"), wave, x, "u_xx")
