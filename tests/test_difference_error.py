"""The two parts of the error of finite differences: against 50 digits, and against each other."""

import itertools

import mpmath
import numpy as np
import pytest
import torch
from ridges import bank, one, points, request

from pde_train.differentiators.difference_error import DifferenceError
from pde_train.differentiators.finite_difference import FiniteDifference
from pde_train.differentiators.reverse import Reverse
from pde_train.differentiators.stencils import central_weights
from pde_train.differentiators.taylor import Taylor
from pde_train.errors import UsageError

PLACES = (-0.7, 0.1, 0.55)
NAMES = {1: "u_x", 2: "u_xx", 3: "u_xxx", 4: "u_xxxx"}


def part(name, **settings):
    return DifferenceError(name, **settings)


def in_fifty_digits(function, scale, order, accuracy, h):
    """The finite difference of function(scale x + 0.3) at PLACES, in exact arithmetic for all purposes."""
    with mpmath.workdps(50):
        step = mpmath.mpf(h)
        return [
            float(
                sum(
                    mpmath.mpf(w.numerator)
                    / w.denominator
                    * function(scale * (mpmath.mpf(x) + k * step) + mpmath.mpf(0.3))
                    for k, w in central_weights(order, accuracy).items()
                )
                / step**order
            )
            for x in PLACES
        ]


@pytest.mark.parametrize("h", [1e-1, 1e-2, 1e-4])
@pytest.mark.parametrize("accuracy", [2, 4, 8])
@pytest.mark.parametrize("order", NAMES)
@pytest.mark.parametrize(("function", "scale"), [("tanh", 1), ("tanh", 3), ("sin", 10)])
def test_truncation_alone_is_the_difference_in_fifty_digits(function, scale, order, accuracy, h):
    x = torch.tensor(PLACES, dtype=torch.float64).unsqueeze(1)
    found = one(
        part("truncation", accuracy=accuracy, step=h),
        lambda y: getattr(torch, function)(scale * y + 0.3),
        x,
        NAMES[order],
    )
    expected = torch.tensor(in_fifty_digits(getattr(mpmath, function), scale, order, accuracy, h), dtype=torch.float64)
    # rounding of the exact derivatives, and what Gauss's rule leaves over legs of up to 5 h scale = 0.5 (tanh: 1.5)
    tolerance = 1e-13 if h * scale < 0.3 or function == "sin" else 1e-9
    assert float((found[:, 0] - expected).abs().max() / expected.abs().max()) < tolerance


@pytest.mark.parametrize(
    ("dimension", "name"), [(1, "u_xx"), (1, "u_xxxx"), (2, "u_xy"), (2, "u_xxyy"), (2, "lap_u"), (2, "bih_u")]
)
def test_both_parts_together_are_the_whole_error(dimension, name):
    x, u = points(dimension), bank("tanh", dimension)
    exact = one(Taylor(), u, x, name)
    whole, truncation, rounding = (
        one(d, u, x, name) - exact
        for d in (FiniteDifference(step=0.01), part("truncation", step=0.01), part("rounding", step=0.01))
    )
    # the exact derivatives round themselves
    torch.testing.assert_close(truncation + rounding, whole, rtol=0, atol=1e-13 * float(exact.abs().max()))


@pytest.mark.parametrize("accuracy", [2, 4])
def test_truncation_falls_with_its_power_where_rounding_has_taken_over_long_before(accuracy):
    x, u = points(1), bank("tanh", 1)
    exact = one(Reverse(), u, x, "u_xxxx")
    steps = np.array([1e-1, 3e-2, 1e-2, 3e-3]) if accuracy == 2 else np.array([2e-1, 1e-1, 5e-2, 3e-2])
    errors = [
        float((one(part("truncation", accuracy=accuracy, step=float(h)), u, x, "u_xxxx") - exact).norm()) for h in steps
    ]
    assert np.polyfit(np.log(steps), np.log(errors), 1)[0] == pytest.approx(accuracy, abs=0.15)
    plain = float((one(FiniteDifference(accuracy, 1e-4), u, x, "u_xxxx") - exact).norm())
    assert plain > 1e4 * float((one(part("truncation", accuracy=accuracy, step=1e-4), u, x, "u_xxxx") - exact).norm())


@pytest.mark.parametrize(("name", "order"), [("u_xx", 2), ("u_xxxx", 4)])
def test_rounding_grows_with_the_order_of_the_derivative(name, order):
    x, u = points(1), bank("tanh", 1)
    exact = one(Taylor(), u, x, name)
    steps = np.geomspace(1e-3, 3e-2, 8)
    errors = [float((one(part("rounding", step=float(h)), u, x, name) - exact).norm()) for h in steps]
    assert np.polyfit(np.log(steps), np.log(errors), 1)[0] == pytest.approx(-order, abs=0.5)


@pytest.mark.parametrize("name", ["truncation", "rounding"])
def test_u_is_itself_and_parameters_are_reached(name):
    x, weight = points(1), torch.tensor(0.8, dtype=torch.float64)

    def curvature(w):
        jet = part(name, step=0.05)(lambda y: torch.sin(w * y), x, request("u u_xx", 1))
        torch.testing.assert_close(jet.u, torch.sin(w * x), rtol=0, atol=1e-15)
        return jet.u_xx

    found = torch.func.jacrev(curvature)(weight)
    near = (curvature(weight + 1e-5) - curvature(weight - 1e-5)) / 2e-5
    torch.testing.assert_close(found, near, rtol=1e-6, atol=1e-6)


def test_a_step_for_each_coordinate_is_taken_from_the_grid():
    x, u = points(2), bank("sin", 2)
    spacing = (0.1, 0.02)
    found = [one(part("truncation", step="grid").fitted(spacing), u, x, name) for name in ("u_xx", "u_yy")]
    alone = [one(part("truncation", step=h), u, x, name) for h, name in zip(spacing, ("u_xx", "u_yy"), strict=True)]
    for ours, theirs in itertools.zip_longest(found, alone):
        torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-13)


def test_what_is_no_part_is_refused():
    with pytest.raises(UsageError, match=r"part=both is unknown: expected truncation or rounding"):
        part("both")
    with pytest.raises(UsageError, match="step=optimal is for finite_difference"):
        part("rounding", step="optimal")
    with pytest.raises(UsageError, match="accuracy"):
        part("rounding", accuracy=3)
