"""Every way of taking derivatives against derivatives in 30 digits, which share no code with the package."""

import functools
import itertools
import math
from collections import Counter

import mpmath
import numpy as np
import pytest
import sympy
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pde_train.derivatives import Request
from pde_train.differentiators.finite_difference import FiniteDifference
from pde_train.differentiators.reverse import Reverse
from pde_train.errors import UsageError
from pde_train.models.activations import ACTIVATIONS

DIGITS = 30
ACCURACIES = (2, 4, 6, 8)
DTYPES = (torch.float64, torch.float32)
SMOOTH = [name for name, activation in ACTIVATIONS.items() if activation.smoothness == math.inf]
FUNCTIONS = {
    "tanh": mpmath.tanh,
    "sin": mpmath.sin,
    "gelu": lambda z: z * mpmath.ncdf(z),
    "softplus": lambda z: mpmath.log(1 + mpmath.exp(z)),
    "sigmoid": lambda z: 1 / (1 + mpmath.exp(-z)),
    "silu": lambda z: z / (1 + mpmath.exp(-z)),
    "gaussian": lambda z: mpmath.exp(-z * z),
}

# A two-layer network with known weights: u(x) = sum_j a_j s(w_j . x + b_j); its bank has the features as columns.
WEIGHTS = {1: [[1.3], [-0.7], [0.9]], 2: [[1.1, -0.6], [-0.8, 1.2], [0.5, 0.9]]}
BIASES = [0.3, -0.2, 0.8]
OUTER = [0.6, -1.1, 0.8]
POINTS = {1: [[-0.9], [0.1], [0.7]], 2: [[-0.4, 0.6], [0.3, -0.8]]}
NAMES = {
    1: ("u", "u_x", "u_xx", "u_xxx", "u_xxxx"),
    2: ("u_y", "u_xy", "lap_u", "u_xxy", "u_xyy", "u_xxxy", "u_xxyy", "bih_u"),
}
LETTERS = ("x", "y")

both = pytest.mark.parametrize(
    "differentiator", [Reverse(), *(FiniteDifference(p) for p in ACCURACIES)], ids=lambda d: repr(d).split(", step")[0]
)
in_both_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)
every_activation = pytest.mark.parametrize("activation", SMOOTH)
every_name = pytest.mark.parametrize(("dimension", "name"), [(d, name) for d in NAMES for name in NAMES[d]])


def points(dimension, dtype=torch.float64):
    return torch.tensor(POINTS[dimension], dtype=dtype)


def bank(activation, dimension, dtype=torch.float64):
    """The field of all features, (n, d) -> (n, 3)."""
    w, b = torch.tensor(WEIGHTS[dimension], dtype=dtype), torch.tensor(BIASES, dtype=dtype)
    return lambda x: ACTIVATIONS[activation].function(x @ w.T + b)


def network(activation, dimension, dtype=torch.float64):
    """The field of the network, (n, d) -> (n, 1)."""
    features, a = bank(activation, dimension, dtype), torch.tensor(OUTER, dtype=dtype).unsqueeze(1)
    return lambda x: features(x) @ a


def request(names, dimension):
    return Request.parse(names, LETTERS[:dimension])


def eps(dtype):
    return torch.finfo(dtype).eps


def rounded(values, dtype):
    """Nested lists as a numpy array of exactly those numbers in many digits that `dtype` holds."""
    return np.vectorize(lambda v: mpmath.mpf(float(v)), otypes=[object])(torch.tensor(values, dtype=dtype).numpy())


@functools.cache
def derivatives(activation, z):
    """s, s', ..., s^(5) at z."""
    with mpmath.workdps(DIGITS):
        return [c * math.factorial(k) for k, c in enumerate(mpmath.taylor(FUNCTIONS[activation], z, 5))]


def partials_of(name, dimension):
    """A name as {orders along each axis: coefficient}, from its definition by sympy."""
    symbols = sympy.symbols(LETTERS[:dimension])
    laplacian = sum(s**2 for s in symbols)
    symbol = {"u": sympy.Integer(1), "lap_u": laplacian, "bih_u": laplacian**2}.get(name)
    if symbol is None:
        symbol = sympy.prod(symbols[LETTERS.index(c)] for c in name[2:])
    return {orders: int(c) for orders, c in sympy.Poly(symbol, *symbols).terms()}


def oracle(activation, dimension, dtype, name):
    """The exact derivative of every feature at every point, and the size of what rounding can do to it, both (n, 3)."""
    w, b, x = rounded(WEIGHTS[dimension], dtype), rounded(BIASES, dtype), rounded(POINTS[dimension], dtype)
    exact, size = np.zeros((len(x), len(b)), dtype=object), np.zeros((len(x), len(b)))
    with mpmath.workdps(DIGITS):
        for i, j in np.ndindex(exact.shape):
            z = sum(w[j] * x[i]) + b[j]
            s = derivatives(activation, z)
            for orders, c in partials_of(name, dimension).items():
                power = c * math.prod(w[j] ** orders)
                exact[i, j] += power * s[sum(orders)]
                # z itself is rounded (one order more), and every lower derivative is an intermediate result
                size[i, j] += float(abs(power) * max(abs(v) for v in s[: sum(orders) + 2]) * (1 + abs(z)))
    return exact, size


def difference(found, exact):
    """|found - exact| taken in many digits, so that the comparison itself rounds nothing."""
    with mpmath.workdps(DIGITS):
        return np.vectorize(lambda f, e: float(abs(mpmath.mpf(float(f)) - e)), otypes=[float])(found.numpy(), exact)


def through_outer(exact, size, dtype):
    """The oracle of the features as that of the network."""
    a = rounded(OUTER, dtype)
    with mpmath.workdps(DIGITS):
        return (exact @ a)[:, None], (size @ np.abs(a).astype(float))[:, None]


def one(differentiator, u, x, name):
    return getattr(differentiator(u, x, request(name, x.shape[1])), name)


# --- Reverse mode


@in_both_dtypes
@every_name
@every_activation
def test_reverse_mode_is_right_to_rounding(activation, dimension, name, dtype):
    x = points(dimension, dtype)
    exact, size = oracle(activation, dimension, dtype, name)
    # `size` is the largest of the intermediate results, so an error is a few of its roundings: at most 1.5 eps were
    # seen, 8 leaves room for another order of summation.
    of_bank = one(Reverse(), bank(activation, dimension, dtype), x, name)
    assert of_bank.dtype == dtype
    assert (difference(of_bank, exact) <= 8 * eps(dtype) * size).all()
    exact, size = through_outer(exact, size, dtype)
    of_network = one(Reverse(), network(activation, dimension, dtype), x, name)
    assert of_network.dtype == dtype
    assert (difference(of_network, exact) <= 8 * eps(dtype) * size).all()


@in_both_dtypes
@every_name
def test_reverse_mode_gives_the_same_for_one_column_as_for_many(dimension, name, dtype):
    # One column takes another path through the code than a bank does; both are right to the same few roundings.
    x, features = points(dimension, dtype), bank("tanh", dimension, dtype)
    _, size = oracle("tanh", dimension, dtype, name)
    together = one(Reverse(), features, x, name)
    for j in range(len(BIASES)):
        alone = one(Reverse(), lambda x, j=j: features(x)[:, j : j + 1], x, name)
        assert alone.shape == (len(x), 1)
        assert (np.abs((together[:, j : j + 1] - alone).numpy()) <= 8 * eps(dtype) * size[:, j : j + 1]).all()


@pytest.mark.parametrize("m", [1, 3])
@pytest.mark.parametrize("names", ["u u_x u_xx u_xxx u_xxxx", "u_x u_xy u_xxy", "bih_u lap_u u"])
def test_reverse_mode_calls_the_field_once(names, m):
    called = []

    def field(x):
        called.append(x.shape)
        return bank("tanh", 2)(x)[:, :m]

    Reverse()(field, points(2), request(names, 2))
    assert called == [(2, 2)]


class Operations(TorchDispatchMode):
    """Counts what torch computes."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def cost(field, names):
    """How many operations torch does for a request."""
    with Operations() as operations:
        Reverse().partials(field, points(2), request(names, 2).axes)
    return operations.count


network_and_bank = pytest.mark.parametrize("field", [network("tanh", 2), bank("tanh", 2)], ids=["network", "bank"])


@network_and_bank
@pytest.mark.parametrize(
    ("last", "prefixes"), [("u_xxxx", "u u_x u_xx u_xxx"), ("u_xxy", "u u_x u_xx"), ("bih_u", "u u_x u_xx u_xxx")]
)
def test_reverse_mode_shares_prefixes(field, last, prefixes):
    assert cost(field, f"{last} {prefixes}") == cost(field, last) > cost(field, prefixes)


@network_and_bank
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_reverse_mode_differentiates_along_no_other_coordinate(field, order):
    assert cost(field, "u_" + "y" * order) == cost(field, "u_" + "x" * order)


# --- Finite differences


def weights_of(order, accuracy):
    """Central weights by node, from sympy."""
    if order == 0:
        return {0: sympy.Integer(1)}
    reach = (order + 1) // 2 - 1 + accuracy // 2
    nodes = range(-reach, reach + 1)
    found = sympy.finite_diff_weights(order, list(nodes), 0)[order][-1]
    return {k: w for k, w in zip(nodes, found, strict=True) if w != 0}


def difference_quotient(activation, dtype, orders, accuracy, h):
    """The finite difference of every feature without rounding, and the size of what rounding can do to it, (n, 3)."""
    w, b, x = rounded(WEIGHTS[len(orders)], dtype), rounded(BIASES, dtype), rounded(POINTS[len(orders)], dtype)
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
def test_finite_differences_are_their_difference_quotient_to_rounding(activation, orders, accuracy, dtype):
    h, dimension = 2**-4, len(orders)  # a power of 2: the step itself is no rounding
    exact, size = difference_quotient(activation, dtype, orders, accuracy, h)
    name = "u_" + "".join(letter * k for letter, k in zip(LETTERS, orders, strict=False))
    of_bank = one(FiniteDifference(accuracy, h), bank(activation, dimension, dtype), points(dimension, dtype), name)
    assert of_bank.dtype == dtype
    # `size` adds up one rounding of every stencil value at its worst
    assert (difference(of_bank, exact) <= eps(dtype) * size).all()


DIRECTIONS = {1: [1.0], 2: [0.6, 0.8]}


def wave(x):
    """A function of scale 1: sin(k . x + 0.4) with |k| = 1, so none of whose derivatives exceeds 1."""
    return torch.sin(x @ x.new_tensor(DIRECTIONS[x.shape[1]]).unsqueeze(1) + 0.4)


def wave_exactly(x, name):
    """The derivative of `wave` of that name, by numpy in float64."""
    k = np.array(DIRECTIONS[x.shape[1]])
    z = x.double().numpy() @ k[:, None] + 0.4
    # every derivative raises the phase of the sine by a quarter turn
    return sum(
        c * math.prod(np.power(k, orders)) * np.sin(z + sum(orders) * np.pi / 2)
        for orders, c in partials_of(name, x.shape[1]).items()
    )


def reach(name, dimension, accuracy, dtype):
    """What an automatic step leaves of a function of scale 1.

    h = eps^(1 / (n + p)) makes the truncation, below h^p for these stencils, and one rounding, eps / h^n, the same
    power of eps. The values of a stencil are rounded once each, so the sizes of its weights add up.
    """
    terms = partials_of(name, dimension)
    order = max(map(sum, terms))
    weights = sum(
        c * math.prod(float(sum(map(abs, weights_of(n, accuracy).values()))) for n in orders)
        for orders, c in terms.items()
    )
    return (1 + weights) * eps(dtype) ** (accuracy / (order + accuracy))


@in_both_dtypes
@pytest.mark.parametrize("accuracy", ACCURACIES)
@every_name
def test_automatic_steps_reach_what_the_precision_allows(dimension, name, accuracy, dtype):
    x = points(dimension, dtype)
    found = one(FiniteDifference(accuracy), wave, x, name)
    assert found.dtype == dtype
    assert np.abs(found.numpy() - wave_exactly(x, name)).max() <= reach(name, dimension, accuracy, dtype)


@in_both_dtypes
@pytest.mark.parametrize("accuracy", ACCURACIES)
def test_automatic_steps_are_chosen_for_each_order_by_itself(accuracy, dtype):
    x, field = points(2, dtype), bank("tanh", 2, dtype)
    together = FiniteDifference(accuracy)(field, x, request("u u_x u_xy u_xxy bih_u", 2))
    for name, order in {"u_x": 1, "u_xy": 2, "u_xxy": 3, "bih_u": 4}.items():
        h = eps(dtype) ** (1 / (order + accuracy))
        # the same stencil at the same points; only the order of summation may differ
        alone = one(FiniteDifference(accuracy, h), field, x, name)
        torch.testing.assert_close(getattr(together, name), alone, rtol=0, atol=100 * eps(dtype) / h**order)


def test_an_automatic_step_saves_the_fourth_derivative_of_float32():
    x = points(1, torch.float32)
    error = {
        step: np.abs(one(FiniteDifference(2, step), wave, x, "u_xxxx").numpy() - wave_exactly(x, "u_xxxx")).max()
        for step in ("auto", 1e-2)
    }
    assert error["auto"] < 0.05
    assert error[1e-2] > 1


# Steps small enough for the leading term of the error, large enough to keep rounding (eps / h^4) below 1 % of it.
STEPS = {2: (0.04, 0.16), 4: (0.1, 0.3), 6: (0.2, 0.4), 8: (0.2, 0.4)}


def slope(accuracy, name, dimension):
    """The exponent of h in the error, by least squares on a log-log scale."""
    x = points(dimension)
    steps = np.geomspace(*STEPS[accuracy], 6)
    errors = [
        np.linalg.norm(one(FiniteDifference(accuracy, float(h)), wave, x, name).numpy() - wave_exactly(x, name))
        for h in steps
    ]
    return np.polyfit(np.log(steps), np.log(errors), 1)[0]


@pytest.mark.parametrize("accuracy", ACCURACIES)
@pytest.mark.parametrize(("dimension", "name"), [(d, name) for d in NAMES for name in NAMES[d] if name != "u"])
def test_the_error_falls_with_the_promised_power_of_the_step(dimension, name, accuracy):
    # the next term of the error is h^2 / 10 or so of the leading one, which bends the line by less than 0.1
    assert slope(accuracy, name, dimension) == pytest.approx(accuracy, abs=0.1)


@pytest.mark.parametrize("accuracy", ACCURACIES)
@pytest.mark.parametrize("name", ["u_xy", "u_xxy", "u_xyy", "u_xxyy", "u_xyyy"])
def test_mixed_partials_are_products_of_lines(name, accuracy):
    h, x = 0.125, points(2)
    along = Counter(name[2:])
    parts = {"x": lambda x: torch.tanh(1.3 * x), "y": lambda y: torch.exp(0.8 * y)}
    found = one(FiniteDifference(accuracy, h), lambda p: parts["x"](p[:, :1]) * parts["y"](p[:, 1:]), x, name)
    lines = [
        one(FiniteDifference(accuracy, h), parts[c], x[:, i : i + 1], "u_" + "x" * along[c]) for i, c in enumerate("xy")
    ]
    # weights that add up to at most 16 and values below 2, rounded a few times
    torch.testing.assert_close(found, lines[0] * lines[1], rtol=0, atol=100 * eps(x.dtype) / h ** along.total())


def stencil_points(differentiator, x, names):
    """The points at which a request calls the field, (calls, rows, d)."""
    calls = []

    def field(p):
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
def test_finite_differences_call_the_field_once_on_unique_points(names, dimension, offsets):
    x = points(dimension)
    (called,) = stencil_points(FiniteDifference(2, 0.01), x, names)
    assert called.shape == (offsets * len(x), dimension)
    assert len(called.unique(dim=0)) == len(called)


def test_automatic_steps_of_several_orders_still_make_one_call():
    (called,) = stencil_points(FiniteDifference(4), points(2), "u u_x lap_u bih_u")
    assert len(called.unique(dim=0)) == len(called)


def test_step_grid_takes_each_axis_own_spacing():
    x = torch.zeros(1, 2, dtype=torch.float64)
    differentiator = FiniteDifference(2, "grid").fitted((0.1, 0.02))
    (called,) = stencil_points(differentiator, x, "lap_u")
    found = sorted(map(tuple, called.tolist()))
    assert found == [(-0.1, 0.0), (0.0, -0.02), (0.0, 0.0), (0.0, 0.02), (0.1, 0.0)]
    (called,) = stencil_points(differentiator, x, "u_xy")
    assert sorted(map(tuple, called.tolist())) == sorted(itertools.product((-0.1, 0.1), (-0.02, 0.02)))


@pytest.mark.parametrize("name", ["u_x", "u_y", "u_xx", "u_yy", "u_xy", "u_xyy"])
def test_step_grid_divides_by_each_axis_own_spacing(name):
    # x^2 y^2 and its differences of accuracy 2 have no truncation error up to third order along each axis
    x = points(2)
    spacing = (0.1, 0.02)
    found = one(FiniteDifference(2, "grid", spacing), lambda p: (p[:, :1] * p[:, 1:]).square(), x, name)
    along = Counter(name[2:])
    exact = math.prod({0: c**2, 1: 2 * c, 2: 2 + 0 * c}[along[k]] for k, c in zip("xy", x.T.numpy(), strict=True))
    rounding = 10 * eps(x.dtype) / math.prod(spacing["xy".index(c)] for c in name[2:])
    np.testing.assert_allclose(found.numpy()[:, 0], exact, rtol=0, atol=rounding)


def test_fitting_leaves_the_original_alone():
    original = FiniteDifference(4, "grid")
    assert original.fitted((0.5,)) == FiniteDifference(4, "grid", (0.5,))
    assert original.spacing is None
    assert Reverse().fitted((0.5,)) == Reverse()


def test_step_grid_needs_a_spacing():
    with pytest.raises(
        UsageError, match=r"differentiator\.step=grid needs the spacing of a sampler: give a number or auto"
    ):
        one(FiniteDifference(2, "grid"), wave, points(1), "u_x")


@pytest.mark.parametrize(("dtype", "lost", "kept"), [(torch.float64, 2e-14, 3e-14), (torch.float32, 1e-5, 2e-5)])
def test_a_step_lost_in_rounding_is_refused(dtype, lost, kept):
    # 100 eps is the border for coordinates up to 1
    x = points(1, dtype)
    with pytest.raises(
        UsageError, match=rf"differentiator\.step=\de-\d\d is lost in the rounding of {dtype} coord.*at least"
    ):
        one(FiniteDifference(2, lost), wave, x, "u_x")
    assert one(FiniteDifference(2, kept), wave, x, "u_x").isfinite().all()


def test_far_from_the_origin_steps_must_be_larger():
    x = torch.tensor([[1e6]], dtype=torch.float64)
    with pytest.raises(
        UsageError, match=r"differentiator\.step=1e-09 is lost .*: expected at least 2e-08, choose a larger"
    ):
        one(FiniteDifference(2, 1e-9), wave, x, "u_x")


@pytest.mark.parametrize("accuracy", [3, 0, 1, 10, -2])
def test_an_accuracy_without_a_stencil_is_refused(accuracy):
    with pytest.raises(UsageError, match=rf"differentiator\.accuracy={accuracy} has no central stencil: expected"):
        FiniteDifference(accuracy)


@pytest.mark.parametrize("step", [-1e-3, 0, 0.0, math.inf, math.nan, "automatic", "0.1", True])
def test_what_is_no_step_is_refused(step):
    with pytest.raises(UsageError, match=rf"differentiator\.step={step} is no step: expected auto, grid or a positive"):
        FiniteDifference(2, step)


# --- What both must do

SEVERAL = "u u_x u_xy lap_u"


def largest(*columns):
    return max(float(column.abs().max()) for column in columns)


def roundings(differentiator, field_size):
    """An error of a few roundings in SEVERAL, for a function and derivatives of that size."""
    if isinstance(differentiator, Reverse):
        return 20 * eps(torch.float64) * field_size
    h = eps(torch.float64) ** (1 / (2 + differentiator.accuracy))  # the smallest step squared divides the rounding
    return 20 * eps(torch.float64) * field_size / h**2


@both
def test_derivatives_are_linear_in_the_field(differentiator):
    x, several = points(2), request(SEVERAL, 2)
    f, g = bank("tanh", 2), bank("sin", 2)
    mixed = differentiator(lambda x: 0.7 * f(x) - 1.3 * g(x), x, several)
    of_f, of_g = differentiator(f, x, several), differentiator(g, x, several)
    for name in several.names:
        expected = 0.7 * getattr(of_f, name) - 1.3 * getattr(of_g, name)
        torch.testing.assert_close(getattr(mixed, name), expected, rtol=0, atol=roundings(differentiator, 4))


@both
def test_derivatives_move_with_the_field(differentiator):
    x, several, shift = points(2), request(SEVERAL, 2), torch.tensor([0.3, -0.2], dtype=torch.float64)
    moved = differentiator(lambda x: bank("tanh", 2)(x + shift), x, several)
    there = differentiator(bank("tanh", 2), x + shift, several)
    for name in several.names:
        torch.testing.assert_close(
            getattr(moved, name), getattr(there, name), rtol=0, atol=roundings(differentiator, 4)
        )


@both
def test_rows_do_not_see_each_other(differentiator):
    x, several, order = (
        torch.rand(7, 2, dtype=torch.float64, generator=seeded()),
        request(SEVERAL, 2),
        [3, 0, 6, 2, 5, 1, 4],
    )
    field = network("tanh", 2)
    straight, permuted = differentiator(field, x, several), differentiator(field, x[order], several)
    single = differentiator(field, x[2:3], several)
    for name in several.names:
        column, atol = getattr(straight, name), roundings(differentiator, 4)
        torch.testing.assert_close(getattr(permuted, name), column[order], rtol=0, atol=atol)
        torch.testing.assert_close(getattr(single, name), column[2:3], rtol=0, atol=atol)


@both
def test_the_jet_has_coordinates_and_every_name_as_columns(differentiator):
    x = points(2)
    jet = differentiator(bank("tanh", 2), x, request(SEVERAL, 2))
    assert set(jet.columns) == {"x", "y", *SEVERAL.split()}
    torch.testing.assert_close(torch.cat([jet.x, jet.y], dim=1), x, rtol=0, atol=0)
    torch.testing.assert_close(jet.u, bank("tanh", 2)(x), rtol=0, atol=eps(x.dtype))
    assert all(getattr(jet, name).shape == (2, 3) for name in SEVERAL.split())


@both
@pytest.mark.parametrize("field", [lambda x: 0 * x[:, :1], lambda x: torch.ones_like(x)], ids=["zero", "two ones"])
def test_a_constant_field_has_no_derivatives(differentiator, field):
    jet = differentiator(field, points(2), request("u u_x u_xy lap_u", 2))
    # weights that add up to 0 leave their rounding over h^2, nothing else
    for name in ("u_x", "u_xy", "lap_u"):
        assert largest(getattr(jet, name)) <= roundings(differentiator, 1)


def seeded():
    return torch.Generator().manual_seed(0)


def small_network():
    """A network whose parameters can be told apart, in float64."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)).double()
    generator = seeded()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.rand(p.shape, generator=generator, dtype=torch.float64) - 0.5)
    return model


def by_jacrev(differentiator, model, x, name):
    def derivative(parameters):
        return one(differentiator, lambda p: torch.func.functional_call(model, parameters, (p,)), x, name)

    found = torch.func.jacrev(derivative)({k: p.detach() for k, p in model.named_parameters()})
    return {k: jacobian[:, 0] for k, jacobian in found.items()}


def by_backward(differentiator, model, x, name):
    rows = []
    for i in range(len(x)):
        model.zero_grad()
        one(differentiator, model, x, name)[i, 0].backward()
        # what no derivative sees, such as the last bias, may have no gradient at all
        rows.append({k: torch.zeros_like(p) if p.grad is None else p.grad.clone() for k, p in model.named_parameters()})
    return {k: torch.stack([row[k] for row in rows]) for k in rows[0]}


@both
@pytest.mark.parametrize("name", ["u", "u_x", "u_xy", "lap_u"])
def test_jacrev_and_backward_agree_on_gradients_by_the_parameters(differentiator, name):
    model, x = small_network(), points(2)
    functional, plain = (f(differentiator, model, x, name) for f in (by_jacrev, by_backward))
    assert functional.keys() == plain.keys() == dict(model.named_parameters()).keys()
    assert largest(*plain.values()) > 0.01
    for k in plain:
        torch.testing.assert_close(functional[k], plain[k], rtol=0, atol=roundings(differentiator, 1))


@pytest.mark.parametrize("accuracy", ACCURACIES)
@pytest.mark.parametrize("name", ["u_x", "u_xy", "lap_u", "u_xxy", "bih_u"])
def test_both_ways_agree_on_gradients_by_the_parameters(name, accuracy):
    model, x = small_network(), points(2)
    exact, near = (by_jacrev(d, model, x, name) for d in (Reverse(), FiniteDifference(accuracy)))
    # the derivative of a tanh of small weights by a weight is itself a function of scale 1
    bound = reach(name, 2, accuracy, torch.float64)
    for k in exact:
        torch.testing.assert_close(near[k], exact[k], rtol=0, atol=bound)


@pytest.mark.parametrize(("i", "j"), [(0, 0), (3, 1)])
def test_gradients_by_the_parameters_are_those_of_differences_by_the_parameters(i, j):
    model, x, h = small_network(), points(2), 1e-3
    found = by_jacrev(Reverse(), model, x, "bih_u")["0.weight"][:, i, j]

    def moved(steps):
        weight = model[0].weight.detach().clone()
        weight[i, j] += steps * h
        return one(Reverse(), lambda p: torch.func.functional_call(model, {"0.weight": weight}, (p,)), x, "bih_u")[:, 0]

    expected = (moved(-2) - 8 * moved(-1) + 8 * moved(1) - moved(2)).detach() / (12 * h)
    # truncation h^4 / 30 = 3e-14 of the ninth derivative of tanh, which reaches 8e3; rounding eps / h = 2e-13
    torch.testing.assert_close(found, expected, rtol=0, atol=3e-10)
