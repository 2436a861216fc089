"""Central finite differences: their difference quotient, order, steps and extrapolation."""

import itertools
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from reference_networks import (
    BIASES,
    DIGITS,
    DTYPES,
    FUNCTIONS,
    LETTERS,
    NAMES,
    POINTS,
    SMOOTH,
    WEIGHTS,
    bank,
    difference,
    eps,
    one,
    partials_of,
    points,
    request,
    rounded,
    sum_of_weights,
    weights_of,
)
from torch import Tensor

from pde_train.derivatives import Field, Request
from pde_train.differentiators.base import Differentiator
from pde_train.differentiators.complex_points import ComplexPoints
from pde_train.differentiators.complex_step import ComplexStep
from pde_train.differentiators.finite_difference import FiniteDifference
from pde_train.differentiators.hybrid import Hybrid
from pde_train.differentiators.reverse import Reverse
from pde_train.errors import UsageError

ACCURACIES = (2, 4, 6, 8)

in_both_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)
every_activation = pytest.mark.parametrize("activation", SMOOTH)
every_name = pytest.mark.parametrize(("dimension", "name"), [(d, name) for d in NAMES for name in NAMES[d]])


def difference_quotient(
    activation: str, dtype: torch.dtype, orders: tuple[int, ...], accuracy: int, h: float
) -> tuple[np.ndarray, np.ndarray]:
    """The finite difference of every feature without rounding, and the size of what rounding can do to it, (n, 3)."""
    w, b, x = (rounded(v, dtype) for v in (WEIGHTS[len(orders)], BIASES, POINTS[len(orders)]))
    lines = [weights_of(order, accuracy).items() for order in orders]
    exact, size = np.zeros((len(x), len(b)), dtype=object), np.zeros((len(x), len(b)))
    with mpmath.workdps(DIGITS):
        h = mpmath.mpf(h)
        for i, j in np.ndindex(exact.shape):
            for nodes in itertools.product(*lines):
                weight = math.prod(mpmath.mpf(int(v.p)) / int(v.q) for _, v in nodes) / h ** sum(orders)
                z = sum(w[j] * (x[i] + [k * h for k, _ in nodes])) + b[j]
                value = FUNCTIONS[activation](z)
                exact[i, j] += weight * value
                # rounding of the value, and that of z times the slope, which is below 1.2 for every activation here
                size[i, j] += float(abs(weight) * (abs(value) + 1.2 * (1 + abs(z))))
    return exact, size


@in_both_dtypes
@pytest.mark.parametrize("accuracy", ACCURACIES)
@pytest.mark.parametrize("orders", [(1,), (2,), (3,), (4,), (1, 1), (2, 1), (2, 2)], ids=str)
@every_activation
def test_finite_differences_are_their_difference_quotient_to_rounding(
    activation: str, orders: tuple[int, ...], accuracy: int, dtype: torch.dtype
) -> None:
    h, dimension = 2**-4, len(orders)  # a power of 2: the step itself is no rounding
    exact, size = difference_quotient(activation, dtype, orders, accuracy, h)
    name = "u_" + "".join(letter * k for letter, k in zip(LETTERS, orders, strict=False))
    of_bank = one(FiniteDifference(accuracy, h), bank(activation, dimension, dtype), points(dimension, dtype), name)
    assert of_bank.dtype == dtype
    # `size` adds up one rounding of every stencil value at its worst
    assert (difference(of_bank, exact) <= eps(dtype) * size).all()


DIRECTIONS = {1: [1.0], 2: [0.6, 0.8], 3: [0.48, 0.6, 0.64]}


def wave(x: Tensor) -> Tensor:
    """A function of scale 1: sin(k . x + 0.4) with |k| = 1, so none of whose derivatives exceeds 1."""
    return torch.sin(x @ torch.tensor(DIRECTIONS[x.shape[1]], dtype=x.dtype).unsqueeze(1) + 0.4)


def wave_exactly(x: Tensor, name: str) -> np.ndarray:
    """The derivative of `wave` of that name, by numpy in float64."""
    k = np.array(DIRECTIONS[x.shape[1]])
    z = x.double().numpy() @ k[:, None] + 0.4
    # every derivative raises the phase of the sine by a quarter turn
    return sum(
        c * math.prod(np.power(k, orders)) * np.sin(z + sum(orders) * np.pi / 2)
        for orders, c in partials_of(name, x.shape[1]).items()
    )


def reach(name: str, dimension: int, accuracy: int, dtype: torch.dtype) -> float:
    """What an automatic step leaves of a function of scale 1.

    h = eps^(1 / (n + p)) makes the truncation, below h^p for these stencils, and one rounding, eps / h^n, the same
    power of eps. The values of a stencil are rounded once each, so the sizes of its weights add up.
    """
    terms = partials_of(name, dimension)
    order = max(map(sum, terms))
    weights = sum(c * sum_of_weights(orders, accuracy) for orders, c in terms.items())
    return (1 + weights) * eps(dtype) ** (accuracy / (order + accuracy))


@in_both_dtypes
@pytest.mark.parametrize("accuracy", ACCURACIES)
@every_name
def test_automatic_steps_reach_what_the_precision_allows(
    dimension: int, name: str, accuracy: int, dtype: torch.dtype
) -> None:
    x = points(dimension, dtype)
    found = one(FiniteDifference(accuracy), wave, x, name)
    assert found.dtype == dtype
    assert np.abs(found.numpy() - wave_exactly(x, name)).max() <= reach(name, dimension, accuracy, dtype)


@in_both_dtypes
@pytest.mark.parametrize("accuracy", ACCURACIES)
def test_automatic_steps_are_chosen_for_each_order_by_itself(accuracy: int, dtype: torch.dtype) -> None:
    x, field = points(2, dtype), bank("tanh", 2, dtype)
    together = FiniteDifference(accuracy)(field, x, request("u u_x u_xy u_xxy bih_u", 2))
    for name, order in {"u_x": 1, "u_xy": 2, "u_xxy": 3, "bih_u": 4}.items():
        h = eps(dtype) ** (1 / (order + accuracy))
        # the same stencil at the same points; only the order of summation may differ
        alone = one(FiniteDifference(accuracy, h), field, x, name)
        torch.testing.assert_close(getattr(together, name), alone, rtol=0, atol=100 * eps(dtype) / h**order)


def test_an_automatic_step_saves_the_fourth_derivative_of_float32() -> None:
    x = points(1, torch.float32)
    error = {
        step: np.abs(one(FiniteDifference(2, step), wave, x, "u_xxxx").numpy() - wave_exactly(x, "u_xxxx")).max()
        for step in ("auto", 1e-2)
    }
    assert error["auto"] < 0.05
    assert error[1e-2] > 1


# Steps small enough for the leading term of the error, large enough to keep rounding (eps / h^4) below 1 % of it.
STEPS = {2: (0.04, 0.16), 4: (0.1, 0.3), 6: (0.2, 0.4), 8: (0.2, 0.4)}


def slope(differentiator: FiniteDifference, name: str, dimension: int, between: tuple[float, float]) -> float:
    """The exponent of h in the error, by least squares on a log-log scale."""
    x = points(dimension)
    steps = np.geomspace(*between, 6)
    errors = [
        np.linalg.norm(one(replace(differentiator, step=float(h)), wave, x, name).numpy() - wave_exactly(x, name))
        for h in steps
    ]
    return np.polyfit(np.log(steps), np.log(errors), 1)[0]


every_derivative = pytest.mark.parametrize(
    ("dimension", "name"), [(d, name) for d in NAMES for name in NAMES[d] if name != "u"]
)


@pytest.mark.parametrize("accuracy", ACCURACIES)
@every_derivative
def test_the_error_falls_with_the_promised_power_of_the_step(dimension: int, name: str, accuracy: int) -> None:
    # the next term of the error is h^2 / 10 or so of the leading one, which bends the line by less than 0.1
    found = slope(FiniteDifference(accuracy), name, dimension, STEPS[accuracy])
    assert found == pytest.approx(accuracy, abs=0.1)


@pytest.mark.parametrize(
    ("dimension", "name", "accuracy", "levels"),
    [
        (d, name, p, levels)
        for d in NAMES
        for name in NAMES[d]
        for p, levels in [(2, 1), (2, 2), (4, 1), (6, 1), *([(4, 2)] if d == 1 else [])]  # of mixed ones too near eps
        if name != "u"
    ],
)
def test_each_extrapolation_adds_two_to_the_power_of_the_step(
    dimension: int, name: str, accuracy: int, levels: int
) -> None:
    differentiator = FiniteDifference(accuracy, richardson=levels)
    order = accuracy + 2 * levels
    assert differentiator.truncation == order
    # larger steps than those of a plain stencil of that order, as they are halved `levels` times
    between = tuple(2**levels * h for h in STEPS[order])
    # h^2 / 10 of the leading error is the next, and h is up to 1.6
    assert slope(differentiator, name, dimension, between) == pytest.approx(order, abs=0.4)


def test_without_extrapolation_nothing_changes() -> None:
    x, several = points(2), request("u u_x u_xy bih_u", 2)
    plain, none = (d(wave, x, several) for d in (FiniteDifference(4), FiniteDifference(4, richardson=0)))
    assert all(torch.equal(getattr(plain, n), getattr(none, n)) for n in several.names)


def test_extrapolation_is_the_weighted_sum_of_the_plain_differences() -> None:
    # Richardson: D(h) = D + e h^2, so (4 D(h / 2) - D(h)) / 3 is of order 4
    x, h = points(1), 0.25
    for name in ("u_x", "u_xx", "u_xxx", "u_xxxx"):
        coarse, fine = (one(FiniteDifference(2, step), wave, x, name) for step in (h, h / 2))
        found = one(FiniteDifference(2, h, richardson=1), wave, x, name)
        torch.testing.assert_close(found, (4 * fine - coarse) / 3, rtol=0, atol=100 * eps(x.dtype) / (h / 2) ** 4)


@pytest.mark.parametrize("levels", [-1, 5, 1.0, "two", None])
def test_what_is_no_number_of_extrapolations_is_refused(levels: Any) -> None:
    with pytest.raises(
        UsageError, match=rf"differentiator\.richardson={levels} is no number of extrapolations: expect"
    ):
        FiniteDifference(2, richardson=levels)


@pytest.mark.parametrize("accuracy", ACCURACIES)
@pytest.mark.parametrize("name", ["u_xy", "u_xxy", "u_xyy", "u_xxyy", "u_xyyy"])
def test_mixed_partials_are_products_of_lines(name: str, accuracy: int) -> None:
    h, x = 0.125, points(2)
    along = Counter(name[2:])
    parts = {"x": lambda x: torch.tanh(1.3 * x), "y": lambda y: torch.exp(0.8 * y)}
    found = one(FiniteDifference(accuracy, h), lambda p: parts["x"](p[:, :1]) * parts["y"](p[:, 1:]), x, name)
    lines = [
        one(FiniteDifference(accuracy, h), parts[c], x[:, i : i + 1], "u_" + "x" * along[c]) for i, c in enumerate("xy")
    ]
    # weights that add up to at most 16 and values below 2, rounded a few times
    torch.testing.assert_close(found, lines[0] * lines[1], rtol=0, atol=100 * eps(x.dtype) / h ** along.total())


def stencil_points(differentiator: Differentiator, x: Tensor, names: str) -> list[Tensor]:
    """The points at which a request calls the field, (calls, rows, d)."""
    calls = []

    def field(p: Tensor) -> Tensor:
        calls.append(p.clone())
        return wave(p)

    differentiator(field, x, request(names, x.shape[1]))
    return calls


@pytest.mark.parametrize(
    ("names", "dimension", "offsets"),
    [
        ("u", 1, 1),
        ("u_x", 1, 2),
        ("u u_x u_xx", 1, 3),
        ("u u_x u_xx u_xxx u_xxxx", 1, 5),
        ("lap_u", 2, 5),
        ("u_xy", 2, 4),
        ("u lap_u u_xy", 2, 9),
        ("bih_u", 2, 13),
        ("u u_x u_y lap_u u_xy bih_u", 2, 13),
    ],
)
def test_finite_differences_call_the_field_once_on_unique_points(names: str, dimension: int, offsets: int) -> None:
    x = points(dimension)
    (called,) = stencil_points(FiniteDifference(2, 0.01), x, names)
    assert called.shape == (offsets * len(x), dimension)
    assert len(called.unique(dim=0)) == len(called)


@pytest.mark.parametrize("names", ["u", "u_x", "u_xx u_t", "u_xxxx u_xxtt"])
@pytest.mark.parametrize("accuracy", ACCURACIES)
@pytest.mark.parametrize(
    "make",
    [
        FiniteDifference,
        lambda accuracy, h: FiniteDifference(accuracy, h, richardson=2),
        Hybrid,
        lambda accuracy, h: ComplexStep(h, 64),
    ],
    ids=["plain", "richardson", "hybrid", "complex"],
)
def test_the_reach_is_the_distance_of_the_farthest_point(
    make: Callable[[int, float], Differentiator], accuracy: int, names: str
) -> None:
    """Half of the width of the stencils, along each coordinate; of circles the radius, up to cos(pi / 64)."""
    x, axes = torch.zeros(1, 2, dtype=torch.float64), Request.parse(names, ("x", "t")).axes
    differentiator, called = make(accuracy, 0.125), []

    def field(p: Any) -> Any:
        real = p.tensor.real if isinstance(p, ComplexPoints) else p
        called.append(real.detach().abs().amax(0))
        return torch.sin(p[:, :1] + p[:, 1:])

    differentiator.partials(field, x, axes)
    farthest = torch.stack(called).amax(0)
    reach = differentiator.reach(axes)
    expected = [reach.get(i, 0.0) for i in range(2)]
    assert farthest.tolist() == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize("step", ["auto", "grid", "optimal"])
def test_a_step_that_is_chosen_has_no_reach(step: str) -> None:
    assert FiniteDifference(8, step).reach(frozenset([(0, 0)])) == {}


def test_automatic_steps_of_several_orders_still_make_one_call() -> None:
    (called,) = stencil_points(FiniteDifference(4), points(2), "u u_x lap_u bih_u")
    assert len(called.unique(dim=0)) == len(called)


def test_step_grid_takes_each_axis_own_spacing() -> None:
    x = torch.zeros(1, 2, dtype=torch.float64)
    differentiator = FiniteDifference(2, "grid").fitted((0.1, 0.02))
    (called,) = stencil_points(differentiator, x, "lap_u")
    found = sorted(map(tuple, called.tolist()))
    assert found == [(-0.1, 0.0), (0.0, -0.02), (0.0, 0.0), (0.0, 0.02), (0.1, 0.0)]
    (called,) = stencil_points(differentiator, x, "u_xy")
    assert sorted(map(tuple, called.tolist())) == sorted(itertools.product((-0.1, 0.1), (-0.02, 0.02)))


@pytest.mark.parametrize("name", ["u_x", "u_y", "u_xx", "u_yy", "u_xy", "u_xyy"])
def test_step_grid_divides_by_each_axis_own_spacing(name: str) -> None:
    # x^2 y^2 and its differences of accuracy 2 have no truncation error up to third order along each axis
    x = points(2)
    spacing = (0.1, 0.02)
    found = one(FiniteDifference(2, "grid", spacing=spacing), lambda p: (p[:, :1] * p[:, 1:]).square(), x, name)
    along = Counter(name[2:])
    exact = math.prod({0: c**2, 1: 2 * c, 2: 2 + 0 * c}[along[k]] for k, c in zip("xy", x.T.numpy(), strict=True))
    rounding = 10 * eps(x.dtype) / math.prod(spacing["xy".index(c)] for c in name[2:])
    np.testing.assert_allclose(found.numpy()[:, 0], exact, rtol=0, atol=rounding)


@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 1000.0), (torch.float64, 1e6)])
def test_automatic_steps_count_the_rounding_of_large_coordinates(dtype: torch.dtype, size: float) -> None:
    """Near 1000 a step that is right at 1 is lost in the rounding of float32 coordinates."""
    x = (size + torch.linspace(-1, 1, 50, dtype=torch.float64)).unsqueeze(1).to(dtype)
    differentiator = FiniteDifference(2).fitted((0.04,), size + 1, 2.0)
    found = one(differentiator, torch.sin, x, "u_xx").double()
    error = float((found + torch.sin(x.double())).abs().max())
    h = differentiator.steps((0, 0), x)[0]
    # h^2 / 12 of truncation, and eps |x| of rounding in each of four values, divided by h^2
    assert error < h**2 / 12 + 4 * eps(dtype) * size / h**2
    assert error < 10 * (eps(dtype) * size) ** 0.5


def test_automatic_steps_follow_a_small_domain() -> None:
    x = torch.linspace(0, 1e-6, 50, dtype=torch.float64).unsqueeze(1)
    found = one(FiniteDifference(2).fitted((2e-8,), 1e-6, 1e-6), lambda p: torch.sin(1e6 * p), x, "u_xx")
    assert float((found / 1e12 + torch.sin(1e6 * x)).abs().max()) < 1e-7
    assert FiniteDifference(2).fitted((0.1,), 1.0, 2.0).steps((0, 0), x) == FiniteDifference(2).steps((0, 0), x)


@pytest.mark.parametrize("size", [1.0, 1e-3, 1e-9, 1e-14, 1e-100])
@pytest.mark.parametrize("step", ["auto", "optimal", 1e-4, 3e-14])
def test_derivatives_do_not_depend_on_the_unit_of_length(size: float, step: float | str) -> None:
    """sin(x / L) on [0, L] has the slope cos(x / L) / L, and the smallest step is 100 eps L = 2.2e-14 L."""
    x = size * torch.linspace(0, 1, 50, dtype=torch.float64).unsqueeze(1)
    fixed = step * size if isinstance(step, float) else step
    differentiator = FiniteDifference(2, fixed).fitted((size / 49,), size, size)
    axes = frozenset([(0,)])
    differentiator = differentiator.tuned_to(lambda p: torch.sin(p / size), x, axes)
    found = differentiator.partials(lambda p: torch.sin(p / size), x, axes)[0,] * size
    h = differentiator.steps((0,), x)[0] / size
    # h^2 / 6 of truncation; two values with their arguments, each of which are rounded by at most eps, over 2 h
    assert float((found - torch.cos(x / size)).abs().max()) < h**2 / 6 + 2 * eps(x.dtype) / h
    with pytest.raises(UsageError, match=r"is lost in the rounding of torch.float64 coordinates: expected at least"):
        FiniteDifference(2, 2e-14 * size).fitted((size / 49,), size, size).partials(torch.sin, x, axes)


def test_the_excess_of_automatic_steps_is_that_of_their_errors() -> None:
    """Against the errors themselves: weights in +-5 need much smaller steps than a function of scale 1."""
    generator = torch.Generator().manual_seed(0)
    w, b, a = (torch.rand(3, 30, generator=generator, dtype=torch.float64) * 2 - 1).unbind()
    x = torch.linspace(-1, 1, 100, dtype=torch.float64).unsqueeze(1)
    axes = frozenset([(0, 0)])
    for steepness, many in ((1.0, False), (5.0, True)):

        def u(x: Tensor, steepness: float = steepness) -> Tensor:
            return torch.tanh(steepness * (x @ w.unsqueeze(0) + b)) @ a.unsqueeze(1)

        exact = Reverse().partials(u, x, axes)[0, 0]
        errors = [
            float((d.partials(u, x, axes)[0, 0] - exact).norm())
            for d in (FiniteDifference(8), FiniteDifference(8, "optimal").tuned_to(u, x, axes))
        ]
        excess = FiniteDifference(8).excess(u, x, axes)
        assert (excess > 100) == many
        assert 0.1 < excess / (errors[0] / errors[1]) < 10
    assert FiniteDifference(8, 1e-2).excess(u, x, axes) == 1
    assert FiniteDifference(8).excess(lambda x: torch.special.bessel_j0(x), x, axes) == 1  # no Taylor rule


def test_fitting_leaves_the_original_alone() -> None:
    original = FiniteDifference(4, "grid")
    assert original.fitted((0.5,)) == FiniteDifference(4, "grid", spacing=(0.5,))
    assert original.spacing is None


def test_step_grid_needs_a_spacing() -> None:
    with pytest.raises(
        UsageError, match=r"differentiator\.step=grid needs the spacing of a sampler: give a number or auto"
    ):
        one(FiniteDifference(2, "grid"), wave, points(1), "u_x")


@pytest.mark.parametrize(("dtype", "lost", "kept"), [(torch.float64, 2e-14, 3e-14), (torch.float32, 1e-5, 2e-5)])
def test_a_step_lost_in_rounding_is_refused(dtype: torch.dtype, lost: float, kept: float) -> None:
    # 100 eps is the border for coordinates up to 1
    x = points(1, dtype)
    with pytest.raises(
        UsageError, match=rf"differentiator\.step=\de-\d\d is lost in the rounding of {dtype} coord.*at least"
    ):
        one(FiniteDifference(2, lost), wave, x, "u_x")
    assert one(FiniteDifference(2, kept), wave, x, "u_x").isfinite().all()


def test_far_from_the_origin_steps_must_be_larger() -> None:
    x = torch.tensor([[1e6]], dtype=torch.float64)
    with pytest.raises(
        UsageError, match=r"differentiator\.step=1e-09 is lost .*: expected at least 2e-08, choose a larger"
    ):
        one(FiniteDifference(2, 1e-9), wave, x, "u_x")


@pytest.mark.parametrize("accuracy", [3, 0, 1, 10, -2])
def test_an_accuracy_without_a_stencil_is_refused(accuracy: int) -> None:
    with pytest.raises(UsageError, match=rf"differentiator\.accuracy={accuracy} has no central stencil: expected"):
        FiniteDifference(accuracy)


@pytest.mark.parametrize("step", [-1e-3, 0, 0.0, math.inf, math.nan, "automatic", "0.1", True])
def test_what_is_no_step_is_refused(step: float | str | bool) -> None:
    with pytest.raises(UsageError, match=rf"differentiator\.step={step} is no step: expected auto, grid, optimal or"):
        FiniteDifference(2, step)


# --- The step that is chosen for the function at hand


def wide_network(weights: float, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A network of 100 tanh units with weights and biases uniform in +-`weights`, and 201 points of [-1, 1]."""
    generator = np.random.default_rng(2)
    w, b, a = (torch.tensor(generator.uniform(-v, v, 100), dtype=dtype) for v in (weights, weights, 1))
    x = torch.linspace(-1, 1, 201, dtype=dtype).unsqueeze(1)
    return x, w, b, a


def tanh_derivatives(x: Tensor, w: Tensor, b: Tensor, a: Tensor, order: int) -> np.ndarray:
    """The derivative of that network in float64, by the polynomials of tanh: (t^k)' = k (t^(k - 1) - t^(k + 1))."""
    at, slopes, shifts, outer = (v.double().numpy() for v in (x, w, b, a))
    polynomial = np.polynomial.Polynomial([0, 1])
    for _ in range(order):
        polynomial = polynomial.deriv() * np.polynomial.Polynomial([1, 0, -1])
    return polynomial(np.tanh(at * slopes + shifts)) @ (outer * slopes**order)


# The best attainable errors of central differences of such networks, measured once with another program (numpy, the
# best of 220 steps): {(dtype, weights): {accuracy: (error of order 1, 2, 3, 4)}}.
ATTAINABLE = {
    (torch.float32, 1): {
        2: (1.6e-5, 4e-4, 2.6e-3, 1.8e-2),
        4: (2e-6, 5e-5, 5e-4, 4e-3),
        8: (1e-6, 2e-5, 1e-4, 1e-3),
    },
    (torch.float64, 1): {
        2: (3e-11, 2e-8, 1e-6, 2e-5),
        4: (3e-13, 1e-10, 7e-9, 2e-7),
        8: (2e-14, 2e-12, 7e-11, 2e-9),
    },
    (torch.float32, 10): {2: (6e-5, 1.3e-3, 7e-3, 2e-2)},
    (torch.float64, 10): {2: (1e-10, 6e-8, 3e-6, 3e-5)},
}


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("accuracy", [2, 4, 8])
@pytest.mark.parametrize("weights", [1, 10])
@in_both_dtypes
def test_the_optimal_step_is_nearly_the_best_of_all_steps(
    dtype: torch.dtype, weights: int, accuracy: int, order: int
) -> None:
    x, w, b, a = wide_network(weights, dtype)
    exact, axes = tanh_derivatives(x, w, b, a, order), (0,) * order

    def u(x: Tensor) -> Tensor:
        return torch.tanh(x * w + b) @ a.unsqueeze(1)

    def error(differentiator: Differentiator) -> float:
        found = differentiator.partials(u, x, frozenset([axes]))[axes].double().numpy()[:, 0]
        return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))

    steps = np.geomspace(1e-6 if dtype == torch.float64 else 5e-4, 0.6, 60)
    best = min(error(FiniteDifference(accuracy, float(h))) for h in steps)
    optimal = error(FiniteDifference(accuracy, "optimal").tuned_to(u, x, frozenset([axes])))
    # the minimum of T h^p + R / h^n is flat; 1.55 was the most that was seen
    assert optimal <= 3 * best
    if accuracy in ATTAINABLE[dtype, weights]:
        assert optimal <= 3 * ATTAINABLE[dtype, weights][accuracy][order - 1]


@pytest.mark.parametrize("levels", [1, 2])
@pytest.mark.parametrize("name", ["u_x", "u_xx", "u_xxxx"])
def test_the_optimal_step_is_nearly_the_best_with_extrapolation_too(name: str, levels: int) -> None:
    x = torch.linspace(-1, 1, 101, dtype=torch.float64).unsqueeze(1)
    axes = request(name, 1).axes

    def error(differentiator: Differentiator) -> float:
        return float(np.linalg.norm(one(differentiator, wave, x, name).numpy() - wave_exactly(x, name)))

    best = min(error(FiniteDifference(2, float(h), richardson=levels)) for h in np.geomspace(1e-3, 1, 60))
    # more weights of more sizes: their roundings cancel more than the bound on their sum says; 3.2 was seen
    assert error(FiniteDifference(2, "optimal", richardson=levels).tuned_to(wave, x, axes)) <= 5 * best


@pytest.mark.parametrize("name", ["u_xy", "u_xxy", "u_xxyy"])
def test_the_optimal_step_of_a_mixed_partial_is_nearly_the_best(name: str) -> None:
    x = torch.rand(100, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def error(differentiator: Differentiator) -> float:
        return float(np.linalg.norm(one(differentiator, wave, x, name).numpy() - wave_exactly(x, name)))

    best = min(error(FiniteDifference(2, float(h))) for h in np.geomspace(1e-5, 1, 60))
    assert error(FiniteDifference(2, "optimal").tuned_to(wave, x, request(name, 2).axes)) <= 3 * best


def test_optimal_steps_shrink_as_the_function_gets_faster() -> None:
    axes, x = request("u_xx", 1).axes, points(1)

    def step(k: int) -> float:
        return FiniteDifference(2, "optimal").tuned_to(lambda x: torch.sin(k * x), x, axes).steps((0, 0), x)[0]

    steps = [step(k) for k in (1, 10)]
    # of sin(k x), u_xxxx is k^4 times that of sin(x), and h = (12 R / T)^(1 / 4); its mean square differs a little
    assert steps[0] / steps[1] == pytest.approx(10, rel=0.5)


def test_until_it_is_adapted_optimal_is_auto() -> None:
    x = points(2)
    for axes in ((0,), (0, 1), (0, 0, 1, 1)):
        assert FiniteDifference(4, "optimal").steps(axes, x) == FiniteDifference(4).steps(axes, x)
    assert FiniteDifference(2).tuned_to(wave, x, frozenset([(0, 0)])) == FiniteDifference(2)
    assert not FiniteDifference(2).adaptive
    assert FiniteDifference(2).compilable


@pytest.mark.parametrize(
    "field", [lambda x: 0 * x, lambda x: 3 * x, lambda x: torch.relu(x)], ids=["zero", "linear", "relu"]
)
def test_where_nothing_is_left_over_the_optimal_step_is_auto(field: Field) -> None:
    axes, x = request("u_x u_xx", 1).axes, points(1)
    tuned = FiniteDifference(2, "optimal").tuned_to(field, x, axes)
    assert dict(tuned.chosen) == {a: FiniteDifference(2).steps(a, x)[0] for a in axes}
    assert tuned.steps((0, 0), x) == FiniteDifference(2).steps((0, 0), x)


def test_a_polynomial_without_truncation_gets_auto_for_that_derivative_alone() -> None:
    axes, x = request("u_x u_xxx", 1).axes, points(1)
    tuned = FiniteDifference(2, "optimal").tuned_to(lambda x: x**3, x, axes)
    adapted = [a for a, h in tuned.chosen if h != FiniteDifference(2).steps(a, x)[0]]
    assert adapted == [(0,)]  # u_xxx is 6 everywhere, and what it leaves over is 0
    again = tuned.tuned_to(lambda x: 3 * x, x, axes)  # no choice of an earlier field is left
    assert dict(again.chosen) == {a: FiniteDifference(2).steps(a, x)[0] for a in axes}


@pytest.mark.parametrize("accuracy", [2, 8])
@pytest.mark.parametrize("levels", [0, 1])
def test_steps_that_are_tensors_are_the_numbers_that_they_hold(accuracy: int, levels: int) -> None:
    axes, x = request("u u_x u_yy u_xxyy lap_u", 2).axes, points(2)
    tuned = FiniteDifference(accuracy, "optimal", richardson=levels).tuned_to(wave, x, axes)
    numbers = tuned.numbers()
    assert len(numbers) == len([a for a in axes if a])
    lifted = tuned.with_numbers({name: torch.tensor(h, dtype=x.dtype) for name, h in numbers.items()})
    found, expected = lifted.partials(wave, x, axes), tuned.partials(wave, x, axes)
    for a in axes:  # the same stencil with rounding of its own
        size = float(expected[a].abs().max())
        torch.testing.assert_close(found[a], expected[a], rtol=0, atol=1e-5 * size, msg=str(a))
    doubled = tuned.with_numbers({name: torch.tensor(2 * h, dtype=x.dtype) for name, h in numbers.items()})
    error = float((doubled.partials(wave, x, axes)[0, 0] - found[0, 0]).abs().max())
    assert error > 0


@in_both_dtypes
@pytest.mark.parametrize("levels", [0, 2, 4])
def test_an_optimal_step_is_never_one_that_is_refused(dtype: torch.dtype, levels: int) -> None:
    # a wave so fast that its optimal step would be lost in the rounding of x
    x = points(1, dtype)
    field, axes = (lambda x: torch.sin(1e7 * x)), request("u_x u_xx", 1).axes
    tuned = FiniteDifference(2, "optimal", richardson=levels).tuned_to(field, x, axes)
    assert tuned.partials(field, x, axes)[0, 0].isfinite().all()


def test_high_derivatives_do_not_overflow_float32() -> None:
    # the 12th derivative reaches 1e20, whose square float32 does not hold
    x, w, b, a = wide_network(30, torch.float32)
    tuned = FiniteDifference(8, "optimal").tuned_to(
        lambda x: torch.tanh(x * w + b) @ a.unsqueeze(1), x, frozenset([(0,) * 4])
    )
    assert tuned.chosen[0][1] == pytest.approx(0.024 / 3, rel=0.5)  # a third of what weights of +-10 get


def test_a_field_that_cannot_be_measured_is_refused_with_the_reason() -> None:
    with pytest.raises(UsageError, match=r"step=optimal measures this field by Taylor mode: .*'cumsum'"):
        FiniteDifference(2, "optimal").tuned_to(lambda x: torch.cumsum(x, 1), points(1), frozenset([(0, 0)]))
