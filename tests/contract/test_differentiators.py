"""The contract of every choice in conf/differentiator: exact to rounding, or within what its steps allow."""

import functools
import math
from collections import Counter
from dataclasses import dataclass

import mpmath
import numpy as np
import pytest
import sympy
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from reference_networks import (
    BIASES,
    DIGITS,
    DTYPES,
    LETTERS,
    NAMES,
    OUTER,
    SMOOTH,
    WEIGHTS,
    arguments,
    bank,
    derivatives,
    difference,
    eps,
    in_differences,
    network,
    one,
    oracle,
    partials_of,
    points,
    request,
    rounded,
    through_outer,
)
from torch import Tensor

from pde_train.conf_dir import conf_dir
from pde_train.derivatives import Axes, Field, Jet, Request
from pde_train.differentiators.base import Differentiator
from pde_train.differentiators.complex_step import ComplexStep
from pde_train.differentiators.difference_error import DifferenceError
from pde_train.differentiators.finite_difference import FiniteDifference
from pde_train.differentiators.hybrid import Hybrid
from pde_train.differentiators.inside_difference import InsideDifference
from pde_train.differentiators.stochastic import Stochastic
from pde_train.errors import UsageError
from pde_train.instantiate import build_group
from pde_train.models.activations import ACTIVATIONS

FOLDER = conf_dir() / "differentiator"
VARIANTS = {
    "finite_difference": [
        *("accuracy=4", "accuracy=8", "richardson=2", "accuracy=4 richardson=1"),
        *("step=optimal accuracy=8", "step=optimal richardson=1", "step=grid"),
    ],
    "finite_difference/truncation": ["accuracy=4 nodes=6", "step=grid"],
    "finite_difference/rounding": ["accuracy=4 nodes=6", "step=grid"],
    "finite_difference/inside": ["accuracy=4", "step=grid"],
    "hybrid": ["accuracy=8", "richardson=1", "step=grid"],
    "complex_step": ["radius=0.4 nodes=32"],
    "stochastic": ["kind=sparse"],
}
"""Settings of a choice that are tried besides its own."""

WORDS = sorted(str(f.relative_to(FOLDER).with_suffix("")) for f in FOLDER.rglob("*.yaml"))
CHOICES = [word for name in WORDS for word in (name, *(f"{name} {v}" for v in VARIANTS.get(name, [])))]


@functools.cache
def built(choice: str, dimension: int = 2) -> Differentiator:
    """The differentiator of a choice and what follows it, on a grid of distance 0.05 where it takes one."""
    return build_group(composed(choice), "differentiator").fitted((0.05,) * dimension)


@functools.cache
def composed(choice: str) -> DictConfig:
    """The configuration of a run with a choice."""
    name, *settings = choice.split()
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
        overrides = [f"differentiator={name}", *(f"differentiator.{s}" for s in settings)]
        return compose("config", ["name=test", "tracking=none", *overrides])


def another_step(choice: str) -> bool:
    """Whether it is the same class as another choice, with another number."""
    return choice.startswith("finite_difference/1e-")


every_choice = pytest.mark.parametrize("choice", CHOICES)
exact_choices = pytest.mark.parametrize(
    "choice", [c for c in CHOICES if built(c).exact or isinstance(built(c), Stochastic)]
)
every_class = pytest.mark.parametrize("choice", [c for c in CHOICES if not another_step(c)])
in_both_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)
every_dimension = pytest.mark.parametrize("dimension", [1, 2, 3])
every_activation = pytest.mark.parametrize("activation", SMOOTH)


@functools.cache
def tuned(choice: str, activation: str, dimension: int, dtype: torch.dtype) -> Differentiator:
    """A differentiator with its own choices made for a bank, which are good ones for its network too."""
    axes = request(" ".join(NAMES[dimension]), dimension).axes
    return built(choice, dimension).tuned_to(bank(activation, dimension, dtype), points(dimension, dtype), axes)


def is_estimated(differentiator: Differentiator, name: str, dimension: int) -> bool:
    """Stochastic's lap u and bih u, which tests/test_stochastic.py judges by their mean."""
    return isinstance(differentiator, Stochastic) and name in ("lap_u", "bih_u") and dimension > 1


def amplification(differentiator: Differentiator, name: str, dimension: int) -> float:
    """How many times the rounding of u, or of the largest of its directional derivatives, may come in.

    A mixed partial by polarisation has weights that add up to at most n^n / n! for unit vectors (that is n^n for its
    integer directions over 2^n n! of them); Cauchy's integral divides by r^n / n!.
    """
    total = 0.0
    for orders, c in partials_of(name, dimension).items():
        n = sum(orders)
        by_directions = n**n / math.factorial(n) if n not in orders else 1.0
        circle = math.factorial(n) / differentiator.circle[0] ** n if isinstance(differentiator, ComplexStep) else 1.0
        total += c * by_directions * (circle if n > 1 else 1.0)
    return total


def tolerance(
    differentiator: Differentiator, activation: str, dimension: int, dtype: torch.dtype, name: str, shift: int = 0
) -> np.ndarray:
    """What a differentiator may be off by for each feature, (n, 3)."""
    _, size = oracle(activation, dimension, dtype, name)
    differences, before = differentiator, 0
    if isinstance(differentiator, Hybrid):
        differences, before = differentiator.differences, 1
    if isinstance(differentiator, DifferenceError | InsideDifference):
        differences = differentiator.differences  # each part is within what both may be
    # `size` is the largest intermediate result; 1.5 roundings of it were seen where none is amplified
    bound = 8 * eps(dtype) * (size + amplification(differentiator, name, dimension) * size.max())
    if isinstance(differences, FiniteDifference):
        x = points(dimension, dtype)

        def step(orders: tuple[int, ...]) -> float:
            inner = [i for i, n in enumerate(orders) for _ in range(n)]
            return differences.steps(tuple(inner[: len(inner) - before]), x)[0]

        p, levels = differences.accuracy, differences.richardson
        bound += in_differences(activation, dimension, dtype, name, p, step, levels, before, shift)
    elif not (differentiator.exact or isinstance(differentiator, Stochastic)):
        bound += 0.01  # a newcomer that says of itself that it is not exact
    return bound


def refuses(differentiator: Differentiator, dtype: torch.dtype) -> bool:
    """Whether a fixed step is lost in the rounding of this dtype; if so the sentence has been seen to."""
    step = getattr(differentiator, "step", None)
    if not isinstance(step, float) or step > 100 * eps(dtype):
        return False
    with pytest.raises(UsageError, match=rf"differentiator\.step={step:.0e} is lost in the rounding of {dtype}"):
        one(differentiator, network("tanh", 1, dtype), points(1, dtype), "u_xx")
    return True


# --- Against derivatives in many digits


@in_both_dtypes
@pytest.mark.parametrize(
    ("activation", "dimension"), [*((a, d) for a in SMOOTH for d in (1, 2)), ("tanh", 3), ("softplus", 3)]
)
@every_choice
def test_derivatives_to_order_four_are_right_within_the_accuracy(
    choice: str, activation: str, dimension: int, dtype: torch.dtype
) -> None:
    if another_step(choice) and (dimension > 1 or activation != "tanh"):
        return
    x, differentiator = points(dimension, dtype), built(choice, dimension)
    if refuses(differentiator, dtype):
        return
    names = [n for n in NAMES[dimension] if not is_estimated(differentiator, n, dimension)]
    asked = request(" ".join(names), dimension)
    differentiator = tuned(choice, activation, dimension, dtype if choice.startswith("finite") else torch.float64)
    for field, columns in ((bank, 3), (network, 1)):
        jet = differentiator(field(activation, dimension, dtype), x, asked)
        for name in names:
            exact, _ = oracle(activation, dimension, dtype, name)
            bound = tolerance(differentiator, activation, dimension, dtype, name)
            if field is network:
                exact, bound = through_outer(exact, bound, dtype)
            found = getattr(jet, name)
            assert found.dtype == dtype
            assert found.shape == (len(x), columns)
            assert (difference(found, exact) <= bound).all(), name


@in_both_dtypes
@every_activation
@exact_choices
def test_exact_ones_are_right_to_order_eight_on_a_line(choice: str, activation: str, dtype: torch.dtype) -> None:
    if choice == "forward" and activation != "tanh":
        return  # its cost doubles with the order; tests/test_forward.py holds it against reverse mode
    x, u, names = points(1, dtype), bank(activation, 1, dtype), ["u_" + "x" * n for n in range(1, 9)]
    asked = request(" ".join(names), 1)
    differentiator = built(choice, 1).tuned_to(u, x, asked.axes)
    jet = differentiator(u, x, asked)
    for name in names:
        exact, _ = oracle(activation, 1, dtype, name)
        bound = tolerance(differentiator, activation, 1, dtype, name)
        assert (difference(getattr(jet, name), exact) <= bound).all(), name


# Products, quotients, powers and compositions, as sympy and as torch know them.
FIELDS = {
    1: {
        "exp(-x**2/2)*cos(2*x)": lambda x: torch.exp(-x.square() / 2) * torch.cos(2 * x),
        "1/(2+sin(x))": lambda x: 1 / (2 + torch.sin(x)),
        "(x**3-2*x)*tanh(x)": lambda x: (x**3 - 2 * x) * torch.tanh(x),
        "sqrt(4+x)*log(3-x)": lambda x: torch.sqrt(4 + x) * torch.log(3 - x),
    },
    2: {
        "x**2*y**3+sin(x*y)": lambda p: p[:, :1] ** 2 * p[:, 1:] ** 3 + torch.sin(p[:, :1] * p[:, 1:]),
        "exp(x)/(2+y**2)": lambda p: torch.exp(p[:, :1]) / (2 + p[:, 1:].square()),
    },
    3: {
        "sin(x+2*y)*exp(z/2)+x*y*z**2": lambda p: (
            torch.sin(p[:, :1] + 2 * p[:, 1:2]) * torch.exp(p[:, 2:] / 2) + p[:, :1] * p[:, 1:2] * p[:, 2:] ** 2
        ),
        "tanh(x-y+z)*cos(x*z)": lambda p: torch.tanh(p[:, :1] - p[:, 1:2] + p[:, 2:]) * torch.cos(p[:, :1] * p[:, 2:]),
    },
}


@functools.cache
def by_sympy(formula: str, dimension: int, name: str) -> np.ndarray:
    """The derivative of a formula at the points, (n, 1) in many digits."""
    symbols = sympy.symbols(LETTERS[:dimension])
    expression = sympy.sympify(formula, locals=dict(zip(LETTERS, symbols, strict=False)))
    derivative = sum(
        c * functools.reduce(lambda e, s: sympy.diff(e, *s), zip(symbols, orders, strict=True), expression)
        for orders, c in partials_of(name, dimension).items()
    )
    function = sympy.lambdify(symbols, derivative, "mpmath")
    with mpmath.workdps(DIGITS):
        return np.array([[mpmath.mpf(function(*p))] for p in rounded(points(dimension).tolist(), torch.float64)])


@pytest.mark.parametrize(("dimension", "formula"), [(d, f) for d in FIELDS for f in FIELDS[d]])
@exact_choices
def test_exact_ones_differentiate_any_formula_as_sympy_does(choice: str, dimension: int, formula: str) -> None:
    x, u = points(dimension), FIELDS[dimension][formula]
    names = [n for n in NAMES[dimension] if not is_estimated(built(choice), n, dimension)]
    asked = request(" ".join(names), dimension)
    differentiator = built(choice).tuned_to(u, x, asked.axes)
    if "radius" in choice and "sqrt" in formula:  # its circle of 0.4 is 7 % of the way to a singularity, to the 32nd
        assert isinstance(differentiator, ComplexStep)
        assert differentiator.circle == (0.4, 32)
    jet = differentiator(u, x, asked)
    largest = max(1.0, *(abs(by_sympy(formula, dimension, name)).max() for name in names))
    for name in names:
        bound = 64 * eps(x.dtype) * float(largest) * (1 + amplification(differentiator, name, dimension))
        assert (difference(getattr(jet, name), by_sympy(formula, dimension, name)) <= bound).all(), name


# --- Properties

SEVERAL = "u u_x u_xy lap_u"


@dataclass(frozen=True)
class Seeded(Differentiator):
    """A differentiator whose random numbers start at the same place in every call."""

    made: Differentiator

    def __call__(self, u: Field, x: Tensor, asked: Request) -> Jet:
        torch.manual_seed(0)
        return self.made(u, x, asked)

    def partials(self, u: Field, x: Tensor, axes: frozenset[Axes]) -> dict[Axes, Tensor]:
        return self.made.partials(u, x, axes)


@pytest.fixture
def differentiator(choice: str) -> Seeded:
    """A choice whose own choices are made."""
    return Seeded(built(choice).tuned_to(bank("tanh", 2), points(2), request(SEVERAL, 2).axes))


def roundings(differentiator: Seeded, size: float = 1.0, order: int = 2) -> float:
    """An error of a few roundings in a derivative of that order, for a function and derivatives of that size."""
    made = differentiator.made
    amplified = 1.0
    if isinstance(made, ComplexStep):
        amplified = (order / made.circle[0]) ** order
    if isinstance(made, FiniteDifference | Hybrid | DifferenceError | InsideDifference):
        differences = made if isinstance(made, FiniteDifference) else made.differences
        axes = [a for a in request(SEVERAL, 2).axes if a]
        h = min(h for a in axes for h in differences.steps(a, points(2))) / 2**differences.richardson
        amplified = 8 / h ** (order - isinstance(made, Hybrid))  # the sizes of the weights add up to at most 8
    return 20 * eps(torch.float64) * size * amplified


def close(found: Tensor, expected: Tensor, atol: float) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


@every_class
def test_derivatives_are_linear_in_the_field(differentiator: Seeded) -> None:
    x, several = points(2), request(SEVERAL, 2)
    f, g = bank("tanh", 2), bank("sin", 2)
    mixed = differentiator(lambda x: 0.7 * f(x) - 1.3 * g(x), x, several)
    of_f, of_g = differentiator(f, x, several), differentiator(g, x, several)
    for name in several.names:
        expected = 0.7 * getattr(of_f, name) - 1.3 * getattr(of_g, name)
        close(getattr(mixed, name), expected, roundings(differentiator, 4))


@every_class
def test_derivatives_move_with_the_field(differentiator: Seeded) -> None:
    x, several, shift = points(2), request(SEVERAL, 2), torch.tensor([0.3, -0.2], dtype=torch.float64)
    moved = differentiator(lambda x: bank("tanh", 2)(x + shift), x, several)
    there = differentiator(bank("tanh", 2), x + shift, several)
    for name in several.names:
        close(getattr(moved, name), getattr(there, name), roundings(differentiator, 4))


@every_class
def test_rows_do_not_see_each_other(differentiator: Seeded) -> None:
    x = torch.rand(7, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    several, order, field = request(SEVERAL, 2), [3, 0, 6, 2, 5, 1, 4], network("tanh", 2)
    straight, permuted = differentiator(field, x, several), differentiator(field, x[order], several)
    single = differentiator(field, x[2:3], several)
    for name in several.names:
        column, atol = getattr(straight, name), roundings(differentiator, 4)
        close(getattr(permuted, name), column[order], atol)
        close(getattr(single, name), column[2:3], atol)


@every_class
def test_a_bank_is_its_columns_one_by_one(differentiator: Seeded) -> None:
    x, several, features = points(2), request(SEVERAL, 2), bank("gelu", 2)
    together = differentiator(features, x, several)
    for j in range(len(BIASES)):

        def column(x: Tensor, j: int = j) -> Tensor:
            return features(x)[:, j : j + 1]

        alone = differentiator(column, x, several)
        for name in several.names:
            close(getattr(together, name)[:, j : j + 1], getattr(alone, name), roundings(differentiator, 4))


@every_class
def test_the_jet_has_coordinates_and_every_name_as_columns(differentiator: Seeded) -> None:
    x = points(2)
    jet = differentiator(bank("tanh", 2), x, request(SEVERAL, 2))
    assert set(jet.columns) == {"x", "y", *SEVERAL.split()}
    close(torch.cat([jet.x, jet.y], dim=1), x, 0)
    close(jet.u, bank("tanh", 2)(x), eps(x.dtype))
    assert all(getattr(jet, name).shape == (2, 3) for name in SEVERAL.split())


@every_class
@every_dimension
def test_u_alone_is_the_field_itself(choice: str, dimension: int) -> None:
    x, u, differentiator = points(dimension), bank("silu", dimension), built(choice, dimension)
    jet = differentiator(u, x, request("u", dimension))
    assert set(jet.columns) == {*LETTERS[:dimension], "u"}
    assert torch.equal(jet.u, u(x))
    assert differentiator.partials(u, x, frozenset([()])).keys() == {()}


CONSTANTS = {
    "zero times x": lambda x: 0 * x[:, :1],
    "one plus zero times x": lambda x: 1 + 0 * x,
    "no word of x": lambda x: torch.tensor([1.0, 2.0], dtype=torch.float64).expand(x.shape[0], 2),
}


@every_class
def test_a_constant_field_has_no_derivatives(differentiator: Seeded) -> None:
    x = points(2)
    for label, field in CONSTANTS.items():
        jet = differentiator(field, x, request(SEVERAL, 2))
        assert torch.equal(jet.u, field(x)), label
        # weights that add up to 0 leave their rounding over h^n, nothing else
        for name in ("u_x", "u_xy", "lap_u"):
            assert getattr(jet, name).shape == jet.u.shape, label
            assert float(getattr(jet, name).abs().max()) <= roundings(differentiator, 2), (label, name)


@every_class
def test_constant_and_linear_fields_may_be_adapted_to(choice: str) -> None:
    x, asked = points(2), request(SEVERAL, 2)
    for field in (*CONSTANTS.values(), lambda x: x[:, :1] - 2 * x[:, 1:]):
        made = built(choice).tuned_to(field, x, asked.axes)
        assert made(network("tanh", 2), x, asked).u_xy.isfinite().all()


@every_class
def test_points_are_only_read(differentiator: Seeded) -> None:
    x = points(2)
    before, version = x.clone(), x._version
    differentiator(network("tanh", 2), x, request(SEVERAL, 2))
    assert torch.equal(x, before)
    assert x._version == version
    assert not x.requires_grad


@every_class
def test_points_that_want_a_gradient_get_one(choice: str) -> None:
    # d/dx of sum u_x is u_xx, row by row
    x = points(1).requires_grad_()
    one(built(choice, 1), network("tanh", 1), x, "u_x").sum().backward()
    expected, _ = through_outer(*oracle("tanh", 1, torch.float64, "u_xx"), torch.float64)
    assert x.grad is not None
    assert (difference(x.grad, expected) <= 0.02).all()  # of a difference of step 0.1, truncation is 0.1^2 / 6 of u_xxx


# --- Gradients by the parameters


def parameters(dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    given = {"w": WEIGHTS[2], "b": BIASES, "a": OUTER}
    return {k: torch.tensor(v, dtype=dtype) for k, v in given.items()}


def with_parameters(activation: str, p: dict[str, Tensor]) -> Field:
    return lambda x: ACTIVATIONS[activation].function(x @ p["w"].T + p["b"]) @ p["a"].unsqueeze(1)


@functools.cache
def exact_gradient(activation: str, name: str) -> dict[str, np.ndarray]:
    """The gradient of a derivative of the network by its weights at each point, in many digits.

    D u = sum_j a_j w_j^k s^(n)(z_j): by a_j, by b_j one more derivative of s, by w_ji also that of the power.
    """
    (w, z), a, x = (
        arguments(2, torch.float64),
        rounded(OUTER, torch.float64),
        rounded(points(2).tolist(), torch.float64),
    )
    found = {"w": np.zeros((2, 3, 2), dtype=object), "b": np.zeros((2, 3), dtype=object)}
    found["a"] = np.zeros((2, 3), dtype=object)
    with mpmath.workdps(DIGITS):
        for i, j in np.ndindex(z.shape):
            s = derivatives(activation, z.item(i, j))
            for orders, c in partials_of(name, 2).items():
                n, power = sum(orders), c * math.prod(w[j] ** orders)
                found["a"][i, j] += power * s[n]
                found["b"][i, j] += a[j] * power * s[n + 1]
                for k in range(2):
                    slope = orders[k] * power / w[j, k] * s[n]
                    found["w"][i, j, k] += a[j] * (power * s[n + 1] * x[i, k] + slope)
    return found


def by_jacrev(differentiator: Seeded, activation: str, name: str) -> dict[str, Tensor]:
    def derivative(p: dict[str, Tensor]) -> Tensor:
        return one(differentiator, with_parameters(activation, p), points(2), name)

    return {k: jacobian[:, 0] for k, jacobian in torch.func.jacrev(derivative)(parameters()).items()}


def by_backward(differentiator: Seeded, activation: str, name: str) -> dict[str, Tensor]:
    rows = []
    for i in range(len(points(2))):
        p = {k: v.requires_grad_() for k, v in parameters().items()}
        one(differentiator, with_parameters(activation, p), points(2), name)[i, 0].backward()
        # what a derivative does not see may have no gradient at all
        rows.append({k: torch.zeros_like(v) if v.grad is None else v.grad for k, v in p.items()})
    return {k: torch.stack([row[k] for row in rows]) for k in rows[0]}


@pytest.mark.parametrize("activation", ["tanh", "gelu"])
@every_class
def test_gradients_by_the_parameters_are_exact_within_the_accuracy(
    choice: str, differentiator: Seeded, activation: str
) -> None:
    for name in ("u", "u_x", "u_xy", "lap_u", "u_xxy", "u_yyyy"):
        if not is_estimated(differentiator.made, name, 2):
            check_gradients(differentiator, activation, name)


def check_gradients(differentiator: Seeded, activation: str, name: str) -> None:
    exact = exact_gradient(activation, name)
    order = max(map(sum, partials_of(name, 2)))
    # a gradient is a derivative of s or of s', times x or a, all of them at most 1.2, or of a power of w
    bounds = [tolerance(differentiator.made, activation, 2, torch.float64, name, shift).max() for shift in (0, 1)]
    bound = 4 * (1 + order) * sum(bounds)
    plain, functional = (by(differentiator, activation, name) for by in (by_backward, by_jacrev))
    for k in exact:
        assert (difference(plain[k], exact[k]) <= bound).all(), (name, k)
        assert (difference(functional[k], exact[k]) <= bound).all(), (name, k)


@every_class
def test_the_loss_of_many_derivatives_has_a_gradient_for_each_weight(differentiator: Seeded) -> None:
    p = {k: v.requires_grad_() for k, v in parameters().items()}
    jet = differentiator(with_parameters("tanh", p), points(2), request(SEVERAL, 2))
    loss = sum(getattr(jet, name).square().sum() for name in sorted(SEVERAL.split()))
    loss.backward()
    assert all(v.grad.isfinite().all() and v.grad.abs().min() > 0 for v in p.values())


def test_choices_are_found() -> None:
    assert Counter(c.split()[0].split("/")[0] for c in CHOICES).keys() >= {
        *("reverse", "forward", "taylor", "finite_difference", "hybrid", "complex_step", "stochastic")
    }
