"""Taylor mode: its directions, its rules and whole programs, against exact fractions and derivatives in many digits."""

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pde_train.derivatives import Field, Request
from pde_train.differentiators.base import Differentiator
from pde_train.differentiators.directions import TRIAD, combination, polarised
from pde_train.differentiators.reverse import Reverse
from pde_train.differentiators.series import RULES, Series
from pde_train.differentiators.taylor import Taylor
from pde_train.differentiators.taylor_rules import elementwise
from pde_train.errors import UsageError
from pde_train.models.mlp import MLP

DIGITS = 50
EPS = torch.finfo(torch.float64).eps
F = torch.nn.functional


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Numbers between -1 and 1."""
    return (2 * torch.rand(*shape, generator=generator(seed), dtype=torch.float64) - 1).to(dtype)


def jet(differentiator: Differentiator, u: Field, x: Tensor, names: str) -> Mapping[str, Tensor]:
    return differentiator(u, x, Request.parse(names, ("x", "y", "z", "v", "w")[: x.shape[1]])).columns


def close(
    found: Mapping[Any, Tensor], expected: Mapping[Any, Tensor], names: Iterable[Any] | None = None, rounds: int = 64
) -> None:
    """Equal to so many roundings of the largest column, which bounds what either side adds up on the way."""
    scale = max(1.0, *(float(c.detach().abs().max()) for c in expected.values()))
    for name in names or expected:
        rounding = rounds * torch.finfo(expected[name].dtype).eps * scale
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=rounding, msg=lambda m: f"{name}: {m}")  # noqa: B023


# --- Directions


def monomials(
    weights: Iterable[tuple[Sequence[float], float | Fraction]], order: int
) -> dict[tuple[int, ...], Fraction]:
    """sum_v w_v (v . s)^n as {exponents: coefficient}, exactly."""
    total: dict[tuple[int, ...], Fraction] = defaultdict(Fraction)
    for direction, weight in weights:
        v = [Fraction(c) for c in direction]
        for exponents in itertools.product(range(order + 1), repeat=len(v)):
            if sum(exponents) == order:
                several = math.factorial(order) // math.prod(map(math.factorial, exponents))
                total[exponents] += (
                    Fraction(weight) * several * math.prod(c**e for c, e in zip(v, exponents, strict=True))
                )
    return {k: c for k, c in total.items() if c}


@pytest.mark.parametrize("order", range(1, 9))
@pytest.mark.parametrize("dimension", range(1, 5))
def test_polarised_weights_are_the_monomial_exactly(dimension: int, order: int) -> None:
    rng = np.random.default_rng(10 * dimension + order)
    for _ in range(3):
        axes = tuple(sorted(rng.integers(dimension, size=order).tolist()))
        weights = polarised(axes, dimension)
        assert monomials(weights, order) == {tuple(axes.count(i) for i in range(dimension)): 1}
        assert len({d for d, _ in weights}) == len(weights)


@pytest.mark.parametrize("order", range(1, 9))
def test_a_pure_derivative_needs_its_own_direction_alone(order: int) -> None:
    assert polarised((1,) * order, 3) == (((0.0, 1.0, 0.0), Fraction(1)),)


def operator(name: str, dimension: int) -> dict[tuple[int, ...], int]:
    """The symbol of lap or bih, |s|^2 or |s|^4, as monomials."""
    units = [tuple(2 * (i == j) for j in range(dimension)) for i in range(dimension)]
    if name == "lap_u":
        return dict.fromkeys(units, 1)
    return dict(Counter(tuple(np.add(a, b).tolist()) for a in units for b in units))


@pytest.mark.parametrize("name", ["lap_u", "bih_u"])
@pytest.mark.parametrize("dimension", [1, 2, 3, 5])
def test_operators_are_their_symbol(name: str, dimension: int) -> None:
    coordinates = tuple(f"x{i}" for i in range(dimension))
    weights = combination(Request.parse(name, coordinates).terms[name], dimension)
    order = {"lap_u": 2, "bih_u": 4}[name]
    found, expected = monomials(weights.items(), order), operator(name, dimension)
    for exponents in found | expected:
        # each weight and component is one rounded float; they add up to less than 20 in all
        assert abs(float(found.get(exponents, 0) - expected.get(exponents, 0))) < 20 * EPS


def test_the_biharmonic_in_the_plane_takes_three_directions_60_degrees_apart() -> None:
    weights = combination(Request.parse("bih_u", ("x", "y")).terms["bih_u"], 2)
    assert tuple(weights) == TRIAD
    for a, b in itertools.combinations(np.array(TRIAD), 2):
        assert abs(abs(a @ b) - 0.5) < 2 * EPS
        assert abs(a @ a - 1) < 2 * EPS


def test_time_is_no_direction_of_the_biharmonic() -> None:
    weights = combination(Request.parse("bih_u", ("x", "t")).terms["bih_u"], 2)
    assert weights == {(1.0, 0.0): 1.0}


# --- Rules


def phi(z: mpmath.mpf) -> mpmath.mpf:
    return mpmath.ncdf(z)


ANYWHERE = (-1.3, -0.2, 0.0, 0.6, 2.1)
POSITIVE = (0.3, 1.0, 2.7)
CASES = {  # the rule by its torch function, in one variable; the same function in many digits; where
    "add": (lambda z: torch.add(z * z, z, alpha=3), lambda z: z * z + 3 * z, ANYWHERE),
    "radd": (lambda z: RULES["radd"](z, 3.0), lambda z: z + 3, ANYWHERE),
    "sub": (lambda z: torch.sub(z * z, z, alpha=3), lambda z: z * z - 3 * z, ANYWHERE),
    "subtract": (lambda z: torch.subtract(z * z, z), lambda z: z * z - z, ANYWHERE),
    "rsub": (lambda z: torch.rsub(z, 3.0), lambda z: 3 - z, ANYWHERE),
    "neg": (torch.neg, lambda z: -z, ANYWHERE),
    "negative": (torch.negative, lambda z: -z, ANYWHERE),
    "mul": (lambda z: torch.mul(z * z, z + 1), lambda z: z**3 + z**2, ANYWHERE),
    "multiply": (lambda z: torch.multiply(z, z), lambda z: z**2, ANYWHERE),
    "rmul": (lambda z: RULES["rmul"](z, 3.0), lambda z: 3 * z, ANYWHERE),
    "div": (lambda z: torch.div(z, 3 + z), lambda z: z / (3 + z), ANYWHERE),
    "divide": (lambda z: torch.divide(2.0 * z, 3 + z), lambda z: 2 * z / (3 + z), ANYWHERE),
    "true_divide": (lambda z: torch.true_divide(z, 4), lambda z: z / 4, ANYWHERE),
    "linear": (
        lambda z: F.linear(z * z, z.value.new_tensor([[2.0]]), z.value.new_tensor([3.0])),
        lambda z: 2 * z**2 + 3,
        ANYWHERE,
    ),
    "matmul": (lambda z: torch.matmul(z * z, z.value.new_tensor([[2.0]])), lambda z: 2 * z**2, ANYWHERE),
    "mm": (lambda z: torch.mm(z * z, z.value.new_tensor([[2.0]])), lambda z: 2 * z**2, ANYWHERE),
    "cat": (lambda z: torch.cat([z, z * z], 1)[:, 1:] * 2, lambda z: 2 * z**2, ANYWHERE),
    "concat": (lambda z: torch.concat([z, z * z], dim=-1)[:, :1], lambda z: z, ANYWHERE),
    "hstack": (lambda z: torch.hstack([z.value, z * z])[:, 1:], lambda z: z * z, ANYWHERE),
    "sum": (lambda z: torch.cat([z, z * z], 1).sum(1, keepdim=True), lambda z: z + z**2, ANYWHERE),
    "mean": (lambda z: torch.mean(torch.cat([z, z * z], 1), dim=-1, keepdim=True), lambda z: (z + z**2) / 2, ANYWHERE),
    "pow": (lambda z: torch.pow(z, 2.5) + 2**z, lambda z: z ** mpmath.mpf(2.5) + 2**z, POSITIVE),
    "tanh": (torch.tanh, mpmath.tanh, ANYWHERE),
    "sigmoid": (torch.sigmoid, lambda z: 1 / (1 + mpmath.exp(-z)), ANYWHERE),
    "special_expit": (torch.special.expit, lambda z: 1 / (1 + mpmath.exp(-z)), ANYWHERE),
    "logsigmoid": (F.logsigmoid, lambda z: -mpmath.log(1 + mpmath.exp(-z)), ANYWHERE),
    "log_sigmoid": (lambda z: RULES["log_sigmoid"](z), lambda z: -mpmath.log(1 + mpmath.exp(-z)), ANYWHERE),
    "exp": (torch.exp, mpmath.exp, ANYWHERE),
    "sin": (torch.sin, mpmath.sin, ANYWHERE),
    "cos": (torch.cos, mpmath.cos, ANYWHERE),
    "sinh": (torch.sinh, mpmath.sinh, ANYWHERE),
    "cosh": (torch.cosh, mpmath.cosh, ANYWHERE),
    "erf": (torch.erf, mpmath.erf, ANYWHERE),
    "special_erf": (torch.special.erf, mpmath.erf, ANYWHERE),
    "log": (torch.log, mpmath.log, POSITIVE),
    "atan": (torch.atan, mpmath.atan, ANYWHERE),
    "arctan": (torch.arctan, mpmath.atan, ANYWHERE),
    "reciprocal": (torch.reciprocal, lambda z: 1 / z, (-0.7, 0.4, 3.0)),
    "sqrt": (torch.sqrt, mpmath.sqrt, POSITIVE),
    "rsqrt": (torch.rsqrt, lambda z: 1 / mpmath.sqrt(z), POSITIVE),
    "square": (torch.square, lambda z: z * z, ANYWHERE),
    "silu": (F.silu, lambda z: z / (1 + mpmath.exp(-z)), ANYWHERE),
    "gelu": (F.gelu, lambda z: z * mpmath.ncdf(z), ANYWHERE),
    "softplus": (lambda z: F.softplus(z, beta=1.5), lambda z: mpmath.log(1 + mpmath.exp(1.5 * z)) / 1.5, ANYWHERE),
}
PIECEWISE = {
    *(
        "abs",
        "absolute",
        "clamp",
        "clip",
        "clone",
        "contiguous",
        "detach",
        "full_like",
        "ge",
        "greater",
        "greater_equal",
    ),
    *("gt", "le", "less", "less_equal", "lt", "maximum", "minimum", "ones_like", "to", "where", "zeros_like"),
}
"""Rules of what has another formula on each side of a value, or none; see PIECES."""

RESHAPING = {"squeeze", "unsqueeze", "view", "reshape", "flatten", "ravel"}
"""Rules that refuse."""

HIGHEST = 8


def coefficients(u: Field, x: Tensor) -> Tensor:
    """u^(k)(x) / k! for k = 0 ... 8, (9, n)."""
    names = ["u", *("u_" + "x" * k for k in range(1, HIGHEST + 1))]
    found = jet(Taylor(), u, x, " ".join(names))
    return torch.stack([found[name][:, 0] / math.factorial(k) for k, name in enumerate(names)])


@pytest.mark.parametrize("name", sorted(set(RULES) - {"relu"} - PIECEWISE - RESHAPING))
def test_every_rule_is_the_taylor_series_to_order_8(name: str) -> None:
    function, exactly, points = CASES[name]
    found = coefficients(function, torch.tensor(points, dtype=torch.float64).unsqueeze(1))
    for i, point in enumerate(points):
        with mpmath.workdps(DIGITS):
            exact = mpmath.taylor(exactly, mpmath.mpf(point), HIGHEST)
            errors = [float(abs(mpmath.mpf(float(f)) - e)) for f, e in zip(found[:, i], exact, strict=True)]
        for degree, error in enumerate(errors):
            # each coefficient comes from all before it, by a product and a sum for each
            size = max(1.0, *(abs(float(c)) for c in exact[: degree + 1]))
            assert error <= (4 + 4 * degree) * EPS * size, (point, degree)


def test_no_case_is_left_of_a_rule_that_is_gone() -> None:
    assert set(CASES) | {"relu"} | PIECEWISE | RESHAPING == set(RULES)
    assert {name.split()[0] for name in PIECES} >= PIECEWISE


def test_relu_has_the_slopes_that_torch_gives_it_and_no_curvature() -> None:
    x = torch.tensor([[-1.5], [0.0], [2.0]], dtype=torch.float64)
    found = coefficients(torch.relu, x)
    assert found[0].tolist() == [0, 0, 2]
    assert found[1].tolist() == [0, 0, 1]
    assert not found[2:].any()


def test_gelu_by_tanh_is_another_function() -> None:
    x = some(4, 1)
    found, expected = (jet(d, nn.GELU("tanh"), x, "u u_x u_xx u_xxxx") for d in (Taylor(), Reverse()))
    close(found, expected)
    assert (found["u"] - F.gelu(x)).abs().max() > 1e-6


def test_softplus_is_straight_where_torch_has_it_straight() -> None:
    x = torch.tensor([[9.9], [10.1], [30.0]], dtype=torch.float64)
    u = nn.Softplus(beta=2.0, threshold=20.0)
    found = jet(Taylor(), u, x, "u u_x u_xx")
    assert torch.equal(found["u"], u(x))
    assert found["u_x"][1:].eq(1).all()
    assert found["u_xx"][1:].eq(0).all()
    assert float(found["u_xx"][0]) == pytest.approx(2 / (2 * math.cosh(9.9)) ** 2, rel=1e-6)


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "silu", "gelu", "softplus", "logsigmoid", "erf", "atan", "sin"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_far_out_everything_stays_finite(name: str, dtype: torch.dtype) -> None:
    x = torch.tensor([[-1e4], [-60.0], [60.0], [1e4]], dtype=dtype)
    found = jet(Taylor(), CASES[name][0], x, "u u_x u_xx u_xxx u_xxxx")
    assert all(column.isfinite().all() for column in found.values())


# --- Whole programs


class Residual(nn.Module):
    """h + tanh of a layer, twice, and a last layer."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.first = nn.Linear(dimension, 5)
        self.inner = nn.ModuleList([nn.Linear(5, 5), nn.Linear(5, 5, bias=False)])
        self.last = nn.Linear(5, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        for layer in self.inner:
            h = h + torch.tanh(layer(h))
        return self.last(h)


class Columns(nn.Module):
    """Columns apart and side by side again, with a constant among them."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.layer = nn.Linear(dimension + 3, 4)

    def forward(self, x: Tensor) -> Tensor:
        wave = torch.sin(2 * x[:, :1])
        constant = torch.ones(len(x), 1, dtype=x.dtype, device=x.device)
        return self.layer(torch.cat([x, wave, constant, x[:, -1:] ** 2], dim=1)).tanh().mean(1, keepdim=True)


class Rational(nn.Module):
    """Products, quotients, powers and an exponential of linear forms."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.forms = nn.Linear(dimension, 4)

    def forward(self, x: Tensor) -> Tensor:
        a = self.forms(x)
        q = (1 - a[:, :1] * a[:, 1:2]) / (3 + a[:, 2:3].square()) - 2 / (4 + a[:, 3:])
        return q**3 + torch.exp(-(a[:, :2] ** 2)).sum(dim=1, keepdim=True) * torch.sin(q) - (2.5 + a[:, 1:2]) ** -1.5


class Gated(nn.Module):
    """The modified network of Wang, Teng and Perdikaris: two encoders and a gate in between."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.u, self.v, self.h, self.gate, self.last = (
            nn.Linear(dimension, 4),
            nn.Linear(dimension, 4),
            nn.Linear(dimension, 4),
            nn.Linear(4, 4),
            nn.Linear(4, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        u, v, h = torch.tanh(self.u(x)), torch.tanh(self.v(x)), torch.tanh(self.h(x))
        z = torch.tanh(self.gate(h))
        return self.last((1 - z) * u + z * v)


def sequential(activation: Callable[[], nn.Module]) -> Callable[[int], nn.Module]:
    return lambda d: nn.Sequential(nn.Linear(d, 6), activation(), nn.Linear(6, 5), activation(), nn.Linear(5, 1))


PROGRAMS = {
    "residual": Residual,
    "columns": Columns,
    "rational": Rational,
    "gated": Gated,
    "mlp": lambda d: MLP(d, [5, 4], "softplus", seed=1),
    **{a.__name__: sequential(a) for a in (nn.Tanh, nn.GELU, nn.SiLU, nn.Softplus, nn.Sigmoid, nn.LogSigmoid)},
}
every_program = pytest.mark.parametrize("program", sorted(PROGRAMS))


def made(program: str, dimension: int, dtype: torch.dtype = torch.float64) -> nn.Module:
    """A program with known weights between -1 and 1."""
    module = PROGRAMS[program](dimension).to(dtype)
    for i, parameter in enumerate(module.parameters()):
        parameter.data = some(*parameter.shape, seed=i, dtype=dtype)
    return module


@every_program
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_taylor_equals_reverse_in_the_plane(program: str, dtype: torch.dtype) -> None:
    u, x = made(program, 2, dtype), some(5, 2, seed=9, dtype=dtype)
    found, expected = (jet(d, u, x, "u u_x u_xy u_xxyy lap_u bih_u") for d in (Taylor(), Reverse()))
    assert all(column.dtype == dtype and column.shape == (5, 1) for column in found.values())
    close(found, expected)


@every_program
def test_taylor_equals_reverse_to_order_8_on_a_line(program: str) -> None:
    u, x = made(program, 1), some(3, 1, seed=9)
    found, expected = (jet(d, u, x, "u u_x u_xx u_xxx u_xxxx " + "u_" + "x" * 8) for d in (Taylor(), Reverse()))
    close(found, expected)


REQUESTS = [
    "u_y u_x u_xx",
    "u u_xx u_yy",
    "u_xy lap_u u_x",
    "bih_u",
    "bih_u lap_u u_xy u",
    "u_xxxx bih_u u_xxyy u_xxx",
    "u_x u_yyyy",
    "u_xxx u_yyyy u_xy u",
    "u_x",
    "u_x u_y",
    "u u_y",
    "u_xxxyyy u_xxy",
    "u_xyz u_zz u_x",
    "lap_u u_xx u_yz u_zz u",
    "u_xxyz bih_u",
]


@pytest.mark.parametrize("names", REQUESTS)
@pytest.mark.parametrize("program", ["residual", "rational", "columns"])
def test_any_request_is_answered_as_reverse_answers_it(program: str, names: str) -> None:
    u, x = made(program, 3), some(4, 3, seed=5)
    # polarisation of six derivatives adds up directional ones that are a few times as large
    close(jet(Taylor(), u, x, names), jet(Reverse(), u, x, names), rounds=256)


@pytest.mark.parametrize("names", REQUESTS)
def test_partials_are_those_of_reverse(names: str) -> None:
    u, x = made("residual", 3), some(4, 3, seed=5)
    axes = Request.parse(names, ("x", "y", "z")).axes
    found, expected = (d.partials(u, x, axes) for d in (Taylor(), Reverse()))
    assert found.keys() == expected.keys()
    close(found, expected, rounds=256)


@pytest.mark.parametrize(
    ("names", "dimension", "top"), [("lap_u", 5, 1), ("lap_u u_x", 5, 1), ("bih_u", 3, 1), ("bih_u u_xxxx lap_u", 4, 2)]
)
def test_the_highest_coefficient_is_carried_as_one_sum_for_each_name(names: str, dimension: int, top: int) -> None:
    u, x = made("residual", dimension), some(4, dimension)
    seen: list[Any] = []

    def field(x: Tensor) -> Tensor:
        seen.append(torch.tanh(x))
        return u(x)

    found = jet(Taylor(), field, x, names)
    (series,) = seen
    assert series.rest[-1].shape[0] == top
    assert series.rest[0].shape[0] >= dimension
    close(found, jet(Reverse(), u, x, names))


@pytest.mark.parametrize("names", ["lap_u", "lap_u u_x0x0x0", "u lap_u u_x3 u_x1x2"])
def test_many_dimensions(names: str) -> None:
    coordinates = tuple(f"x{i}" for i in range(12))
    u, x = made("residual", 12), some(3, 12)
    found, expected = (d(u, x, Request.parse(names, coordinates)).columns for d in (Taylor(), Reverse()))
    close(found, expected)


@pytest.mark.parametrize("names", REQUESTS)
def test_the_field_is_called_once(names: str) -> None:
    called = []

    def field(x: Tensor) -> Tensor:
        called.append(x)
        return torch.sin(x).sum(1, keepdim=True)

    jet(Taylor(), field, some(2, 3), names)
    assert len(called) == 1


def test_u_alone_is_the_field_itself() -> None:
    u, x = made("residual", 2), some(4, 2)
    assert torch.equal(jet(Taylor(), u, x, "u")["u"], u(x))


@pytest.mark.parametrize("rows", [1, 2, 7])
@pytest.mark.parametrize("columns", [1, 2, 6])
def test_banks_of_any_width_at_any_number_of_points(rows: int, columns: int) -> None:
    w, b = some(2, columns, seed=1), some(columns, seed=2)
    x, names = some(rows, 2, seed=3), "u u_x u_xy u_xx u_xxyy bih_u"

    def bank(x: Tensor) -> Tensor:
        return torch.tanh(x @ w + b) * torch.sin(x[:, :1])

    found, expected = (jet(d, bank, x, names) for d in (Taylor(), Reverse()))
    assert all(found[name].shape == (rows, columns) for name in names.split())
    close(found, expected)


def test_a_permutation_of_the_points_permutes_the_rows() -> None:
    u, x = made("gated", 2), some(6, 2)
    order = torch.randperm(6, generator=generator())
    one, other = (jet(Taylor(), u, p, "u u_x bih_u") for p in (x, x[order]))
    close({k: c[order] for k, c in one.items()}, other)


@pytest.mark.parametrize("names", ["u", "u_x", "u u_x lap_u", "bih_u u"])
def test_a_field_that_does_not_depend_on_the_points_has_no_derivatives(names: str) -> None:
    x, constant = some(4, 2), some(1, 3).expand(4, 3)
    found = jet(Taylor(), lambda x: constant, x, names)
    for name in names.split():
        assert found[name].shape == (4, 3)
        assert torch.equal(found[name], constant if name == "u" else torch.zeros(4, 3, dtype=x.dtype))


def test_a_linear_field_has_its_weights_for_slopes_and_exactly_no_curvature() -> None:
    layer, x = nn.Linear(2, 3, dtype=torch.float64), some(4, 2)
    found = jet(Taylor(), layer, x, "u u_x u_y u_xy lap_u bih_u")
    close({"u": found["u"]}, {"u": layer(x)})
    for i, name in enumerate(("u_x", "u_y")):
        torch.testing.assert_close(found[name], layer.weight[:, i].expand(4, 3), rtol=0, atol=2 * EPS)
    for name in ("u_xy", "lap_u", "bih_u"):
        assert found[name].shape == (4, 3)
        assert not found[name].any()


def test_a_polynomial_has_exactly_the_derivatives_that_it_has() -> None:
    # x^3 y - 2 y^4 at small integers: every number on the way is an integer or a small fraction of one
    x = torch.tensor([[1.0, 2.0], [-2.0, 3.0]], dtype=torch.float64)

    def u(p: Tensor) -> Tensor:
        return p[:, :1] ** 3 * p[:, 1:] - 2 * p[:, 1:].square() ** 2

    found = jet(Taylor(), u, x, "u u_x u_xx u_xxx u_y u_yyyy")
    assert found["u"][:, 0].tolist() == [2 - 32, -24 - 162]
    assert found["u_x"][:, 0].tolist() == [6, 36]
    assert found["u_xx"][:, 0].tolist() == [12, -36]
    assert found["u_xxx"][:, 0].tolist() == [12, 18]
    assert found["u_y"][:, 0].tolist() == [1 - 64, -8 - 216]
    assert found["u_yyyy"][:, 0].tolist() == [-48, -48]


# --- An oracle that shares no code with the package: the same networks, evaluated and differentiated in 50 digits

EXACTLY = {
    nn.Tanh: mpmath.tanh,
    nn.GELU: lambda z: z * mpmath.ncdf(z),
    nn.SiLU: lambda z: z / (1 + mpmath.exp(-z)),
    nn.Softplus: lambda z: mpmath.log(1 + mpmath.exp(z)),
}


def affine(layer: nn.Linear, v: Sequence[mpmath.mpf]) -> list[mpmath.mpf]:
    w, b = layer.weight.detach().numpy(), layer.bias
    offsets = [0.0] * len(w) if b is None else b.tolist()
    return [
        mpmath.fsum(mpmath.mpf(float(c)) * s for c, s in zip(row, v, strict=True)) + o
        for row, o in zip(w, offsets, strict=True)
    ]


def in_digits(module: Any) -> Callable[..., mpmath.mpf]:
    """A program as a function of numbers with many digits."""

    def through(*v: mpmath.mpf) -> mpmath.mpf:
        if isinstance(module, Residual):
            h = affine(module.first, v)
            inner: Any = module.inner
            for layer in inner:
                h = [a + mpmath.tanh(b) for a, b in zip(h, affine(layer, h), strict=True)]
            return affine(module.last, h)[0]
        if isinstance(module, Rational):
            a, b, c, d = affine(module.forms, v)
            q = (1 - a * b) / (3 + c**2) - 2 / (4 + d)
            bells = mpmath.exp(-(a**2)) + mpmath.exp(-(b**2))
            return q**3 + bells * mpmath.sin(q) - (b + 2.5) ** mpmath.mpf(-1.5)
        h = list(v)
        for layer in module:
            h = affine(layer, h) if isinstance(layer, nn.Linear) else [EXACTLY[type(layer)](z) for z in h]
        return h[0]

    return through


in_many_digits = pytest.mark.parametrize("program", ["residual", "rational", "Tanh", "GELU", "SiLU", "Softplus"])


@in_many_digits
def test_a_program_on_a_line_has_its_taylor_series_to_order_8(program: str) -> None:
    u, x = made(program, 1), some(2, 1, seed=9)
    found = coefficients(u, x)
    for i in range(len(x)):
        with mpmath.workdps(DIGITS):
            exact = mpmath.taylor(in_digits(u), mpmath.mpf(float(x[i, 0])), HIGHEST)
            errors = [float(abs(mpmath.mpf(float(f)) - e)) for f, e in zip(found[:, i].detach(), exact, strict=True)]
        sizes = [abs(float(c)) for c in exact]
        # some ten roundings in every one of a few operations, each of the size of the largest coefficient so far
        assert all(error <= 64 * EPS * max(1.0, *sizes[: k + 1]) for k, error in enumerate(errors)), errors


@in_many_digits
def test_a_program_in_the_plane_has_its_partial_derivatives(program: str) -> None:
    u, x = made(program, 2), some(1, 2, seed=8)
    exact = {}
    with mpmath.workdps(DIGITS):
        at, f = tuple(mpmath.mpf(c) for c in x[0].tolist()), in_digits(u)
        for name in ("u_x", "u_xy", "u_xxy", "u_xxyy", "u_xxxx", "u_yyyy"):
            exact[name] = mpmath.diff(f, at, (name.count("x"), name.count("y")))
        exact["bih_u"] = exact["u_xxxx"] + 2 * exact["u_xxyy"] + exact["u_yyyy"]
        found = jet(Taylor(), u, x, " ".join(exact))
        size = max(1.0, *(float(abs(e)) for e in exact.values()))
        for name, value in exact.items():
            assert float(abs(mpmath.mpf(found[name].item()) - value)) <= 64 * EPS * size, name


# --- Gradients by the parameters


def by_parameters(differentiator: Differentiator, module: nn.Module, x: Tensor, names: str) -> dict[str, Tensor]:
    """The gradient of the sum of squares of all columns by each parameter."""
    module.zero_grad()
    columns = jet(differentiator, module, x, names)
    sum(columns[name].square().mean() for name in names.split()).backward()
    return {k: torch.zeros_like(p) if p.grad is None else p.grad.clone() for k, p in module.named_parameters()}


@every_program
@pytest.mark.parametrize("names", ["u u_x lap_u", "bih_u u", "u_xxy"])
def test_gradients_by_the_parameters_are_those_through_reverse(program: str, names: str) -> None:
    u, x = made(program, 2), some(5, 2, seed=9)
    found, expected = (by_parameters(d, u, x, names) for d in (Taylor(), Reverse()))
    assert max(float(g.abs().max()) for g in expected.values()) > 1e-6
    close(found, expected)


@pytest.mark.parametrize("names", ["u", "u_x u_xy", "lap_u", "bih_u"])
@pytest.mark.parametrize("program", ["residual", "columns", "GELU"])
def test_jacobians_by_the_parameters_are_those_through_reverse(program: str, names: str) -> None:
    u, x = made(program, 2), some(3, 2, seed=9)
    parameters = {k: p.detach() for k, p in u.named_parameters()}

    def jacobian(differentiator: Differentiator) -> dict[str, Tensor]:
        def columns(parameters: dict[str, Tensor]) -> Tensor:
            found = jet(differentiator, lambda p: torch.func.functional_call(u, parameters, (p,)), x, names)
            return torch.cat([found[name] for name in names.split()])

        return torch.func.jacrev(columns)(parameters)

    found, expected = jacobian(Taylor()), jacobian(Reverse())
    assert max(float(g.abs().max()) for g in expected.values()) > 1e-6
    close(found, expected)


def test_many_networks_at_once_by_vmap() -> None:
    u, x = made("residual", 2), some(3, 2, seed=9)
    stacked = {k: torch.stack([p.detach(), 0.5 * p.detach()]) for k, p in u.named_parameters()}

    def biharmonic(parameters: dict[str, Tensor]) -> Tensor:
        return jet(Taylor(), lambda p: torch.func.functional_call(u, parameters, (p,)), x, "bih_u")["bih_u"]

    found = torch.func.vmap(biharmonic)(stacked)
    for i in range(2):
        close({"bih_u": found[i]}, {"bih_u": biharmonic({k: p[i] for k, p in stacked.items()})})


# --- What it cannot do, it says


@pytest.mark.parametrize(
    ("field", "sentence"),
    [
        (torch.digamma, r"no rule for the operation 'digamma': expected one of abs, .*taylor_rules\.py or choose diff"),
        (lambda x: x.cumsum(1), r"no rule for the operation 'cumsum'.*add a rule in pde_train/"),
        (nn.LayerNorm(2, dtype=torch.float64), r"no rule for the operation 'layer_norm'"),
        (lambda x: x[0], r"cannot take rows 0 out of its points: expected \[:, columns\]"),
        (lambda x: x[:2], r"cannot take rows slice\(None, 2, None\)"),
        (lambda x: x[[0, 1]], r"cannot take rows \[0, 1\]"),
        (lambda x: x[torch.tensor([True, False, True, True])], r"cannot take rows tensor"),
        (lambda x: x[:, 0], r"carries columns \(n, w\), and an operation made \(4,\) of them: expected x\[:, :1\]"),
        (lambda x: x * torch.ones(1, 4, 1, dtype=x.dtype), r"an operation made \(1, 4, 2\)"),
        (lambda x: torch.cat([x, x]), r"cannot concatenate along dimension 0: expected columns, dim=1"),
        (lambda x: torch.cat([x, x.sin()], dim=0), r"cannot concatenate along dimension 0"),
        (lambda x: x.sum(), r"sums over columns only: expected dim=1 and keepdim=True"),
        (lambda x: x.sum(0, keepdim=True), r"sums over columns only"),
        (lambda x: x.mean(1), r"sums over columns only"),
        (lambda x: x**x, r"takes powers with a fixed number in them"),
        (lambda x: torch.ones(1, 4, dtype=x.dtype) @ x, r"matrices from the right: expected x @ matrix"),
        (lambda x: x @ torch.ones(2, dtype=x.dtype), r"matrices from the right"),
        (lambda x: x.sin().mul_(2), r"changes nothing in place, as 'mul_' would: expected 'mul'"),
        (torch.tanh_, r"changes nothing in place, as 'tanh_' would"),
        (nn.ReLU(inplace=True), r"changes nothing in place, as 'relu_' would.*inplace=False"),
        (lambda x: x.__setitem__((slice(None), 0), 1.0), r"changes nothing in place"),
    ],
)
def test_what_has_no_rule_is_refused_with_a_sentence(field: Field, sentence: str) -> None:
    with pytest.raises(UsageError, match=r"differentiator=taylor .*" + sentence):
        jet(Taylor(), field, some(4, 2), "u lap_u")


# --- A new activation is one small function


@pytest.mark.usefixtures("rules")
def test_a_new_activation_is_one_small_function() -> None:
    with pytest.raises(UsageError, match="no rule for the operation 'asinh'"):
        jet(Taylor(), torch.asinh, some(4, 1), "u_x")

    @elementwise("asinh")
    def asinh(z: Tensor, order: int) -> list[Tensor]:
        a = [torch.asinh(z), torch.rsqrt(1 + z * z)]  # (1 + z^2) y'' + z y' = 0
        for m in range(order - 1):
            a.append(-((2 * m + 1) * (m + 1) * z * a[m + 1] + m * m * a[m]) / ((1 + z * z) * (m + 1) * (m + 2)))
        return a

    u, x = nn.Sequential(nn.Linear(2, 4), *[nn.Linear(4, 1)]).double(), some(4, 2)
    names = "u u_x u_xy u_xxyy bih_u"

    def field(x: Tensor) -> Tensor:
        return u[1](torch.asinh(u[0](x)))

    close(jet(Taylor(), field, x, names), jet(Reverse(), field, x, names))
    found = coefficients(torch.asinh, some(3, 1))
    exact = [[float(c) for c in mpmath.taylor(mpmath.asinh, float(p), HIGHEST)] for p in some(3, 1)]
    np.testing.assert_allclose(found.T.numpy(), exact, rtol=0, atol=64 * EPS)


def test_a_series_knows_what_a_field_asks_of_its_points() -> None:
    x, seen = some(4, 2), []

    def field(x: Tensor) -> Tensor:
        seen.append((x.shape, x.size(), x.size(0), x.dim(), x.ndim, len(x), x.dtype, x.device, isinstance(x, Series)))
        return x[:, :1] * x.shape[0]

    jet(Taylor(), field, x, "u_x")
    assert seen == [((4, 2), (4, 2), 4, 2, 2, 4, torch.float64, torch.device("cpu"), True)]


PIECES = {
    "ones_like": lambda x: x.sin() + torch.ones_like(x) * x**2,
    "zeros_like": lambda x: x.sin() + torch.zeros_like(x),
    "full_like": lambda x: x.sin() * torch.full_like(x, 3.0),
    "clone": lambda x: x.clone().sin(),
    "contiguous": lambda x: x.contiguous().exp(),
    "detach": lambda x: x.detach() * x**3,
    "to": lambda x: x.to(torch.float64).sin(),
    "where": lambda x: torch.where(x > 0, x.sin(), x**3),
    "le": lambda x: torch.where(x.sin() <= 0.3, x**4, torch.ones_like(x)),
    "ge": lambda x: torch.where(x[:, :1] >= 0, 2.0, x),
    "gt": lambda x: torch.where(x > 0.1, x**2, x),
    "lt": lambda x: torch.where(x < 0.1, x**2, x.exp()),
    "greater": lambda x: torch.where(torch.greater(x, 0.1), x**2, x),
    "greater_equal": lambda x: torch.where(torch.greater_equal(x, x**3), x**2, x),
    "less": lambda x: torch.where(torch.less(x, 0.1), x**2, x),
    "less_equal": lambda x: torch.where(torch.less_equal(x, 0.1), x**2, x),
    "abs": lambda x: (x.sin() * x**2).abs() + abs(x**3),
    "absolute": lambda x: torch.absolute(x.sin() - 0.2),
    "maximum": lambda x: torch.maximum(x.sin(), x**3 - 0.1),
    "minimum": lambda x: torch.minimum(x.sin(), x**3 - 0.1),
    "clamp": lambda x: (2 * x).clamp(-0.7, 0.9) * x.sin(),
    "clip": lambda x: (2 * x).clip(max=0.9) * x.sin(),
    "numpy's numbers": lambda x: np.float64(2) * x.sin() - x / np.float64(3) + np.float64(1),
}


@pytest.mark.parametrize("name", PIECES)
def test_common_operations_have_a_rule(name: str) -> None:
    x = torch.linspace(-1, 1, 12, dtype=torch.float64).unsqueeze(1)
    axes = frozenset([(), (0,), (0, 0), (0, 0, 0)])
    found, expected = Taylor().partials(PIECES[name], x, axes), Reverse().partials(PIECES[name], x, axes)
    for a in axes:
        torch.testing.assert_close(found[a], expected[a], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("field", "sentence"),
    [
        (lambda x: np.sin(x), "has no rule for numpy.sin: expected torch functions, such as torch.sin"),
        (lambda x: torch.from_numpy(np.asarray(x)), "was asked for a numpy array of its points"),
        (
            lambda x: x.squeeze(-1),
            r"carries columns .n, w., and squeeze, unsqueeze, view, reshape",
        ),
        (lambda x: x.view(-1), "carries columns"),
        (lambda x: x[:, 0], r"expected x\[:, :1\] rather than x\[:, 0\]"),
    ],
)
def test_what_has_no_rule_is_named(field: Field, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        Taylor().partials(field, torch.zeros(3, 1, dtype=torch.float64), frozenset([(0, 0)]))
