"""Derivatives from values at complex points: exact to rounding for analytic functions, a sentence for all others."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from reference_networks import DTYPES, SMOOTH, derivatives, eps, network, one, points, request
from torch import Tensor, nn

from pde_train.derivatives import Axes, Field
from pde_train.differentiators.base import Differentiator
from pde_train.differentiators.complex_points import EVALUATED, ComplexPoints
from pde_train.differentiators.complex_step import LARGEST, NODES, SMALLEST, ComplexStep
from pde_train.differentiators.reverse import Reverse
from pde_train.errors import UsageError
from pde_train.models.activations import ACTIVATIONS

F = nn.functional
TO_FOUR = frozenset((0,) * n for n in range(5))
LINE = torch.linspace(-1, 1, 25, dtype=torch.float64).unsqueeze(1)


def uniform(generator: np.random.Generator, *shape: int, weights: float = 1.0) -> Tensor:
    return torch.tensor(generator.uniform(-weights, weights, shape))


def relative_errors(
    differentiator: Differentiator,
    u: Field,
    x: Tensor,
    axes: frozenset[Axes] = TO_FOUR,
    exact: dict[Axes, Tensor] | None = None,
) -> dict[Axes, float]:
    """By order, in the 2-norm over the points, against reverse mode unless told."""
    exact = exact or Reverse().partials(u, x, axes)
    found = differentiator.tuned_to(u, x, axes).partials(u, x, axes)
    return {a: float((found[a] - exact[a]).norm() / exact[a].norm()) for a in axes}


# --- Accuracy


@pytest.mark.parametrize("weights", [1, 3])
@pytest.mark.parametrize("hidden", [1, 2])
@pytest.mark.parametrize("activation", SMOOTH)
def test_networks_are_differentiated_to_twelve_digits(activation: str, hidden: int, weights: int) -> None:
    generator, s = np.random.default_rng(1), ACTIVATIONS[activation].function
    w, b, c = (uniform(generator, *shape, weights=weights) for shape in ((1, 12), (12,), (12,)))
    v, a = uniform(generator, 12, 12, weights=weights / math.sqrt(12)), uniform(generator, 12, 1)

    def u(x: Tensor) -> Tensor:
        inner = s(x @ w + b)
        return (inner if hidden == 1 else s(inner @ v + c)) @ a

    assert max(relative_errors(ComplexStep(), u, LINE).values()) <= 1e-12


@pytest.mark.parametrize("activation", SMOOTH)
def test_high_orders_agree_with_many_digits(activation: str) -> None:
    exact = [[derivatives(activation, mpmath.mpf(float(z)))[n] for z in LINE[::8, 0]] for n in range(9)]
    axes = frozenset((0,) * n for n in range(9))
    columns = {(0,) * n: torch.tensor([[float(v)] for v in exact[n]], dtype=torch.float64) for n in range(9)}
    # rounding comes in n! / r^n times, with r from 1 on: 4e4 eps at order 8
    assert (
        max(relative_errors(ComplexStep(), ACTIVATIONS[activation].function, LINE[::8], axes, columns).values()) < 1e-11
    )


@pytest.mark.parametrize("order", [2, 3, 4])
def test_the_error_falls_geometrically_with_the_nodes(order: int) -> None:
    # the rule of N nodes takes r^N times the Taylor coefficient n + N for a part of the n-th; all of 1 / (1 - x) are 1
    x, axes = torch.zeros(1, 1, dtype=torch.float64), (0,) * order
    for radius in (0.5, 0.7):
        errors = []
        for nodes in (16, 20, 24, 28, 32):
            found = ComplexStep(radius, nodes).partials(lambda x: 1 / (1 - x), x, frozenset([axes]))[axes]
            errors.append(abs(float(found) / math.factorial(order) - 1))
            assert errors[-1] == pytest.approx(radius**nodes, rel=0.02)
        assert errors == sorted(errors, reverse=True)


def test_first_derivatives_take_no_circle_and_lose_nothing() -> None:
    x = torch.tensor([[1e-8], [-3.0], [40.0]], dtype=torch.float64)
    found = one(ComplexStep(1e-300, 16), torch.sin, x, "u_x")
    torch.testing.assert_close(found, torch.cos(x), rtol=2 * eps(x.dtype), atol=0)


@pytest.mark.parametrize("exponent", [2, 3, 4, 5, -1, -2, 0, 1, 2.0, torch.tensor(3), torch.tensor(2.0)])
def test_whole_powers_are_differentiated_at_negative_points_too(exponent: float) -> None:
    x = torch.tensor([[-1.3], [-0.4], [0.7]], dtype=torch.float64)
    found = ComplexStep(0.1, 32).partials(lambda x: x**exponent, x, frozenset([(0,), (0, 0)]))
    assert torch.allclose(found[0,], exponent * x ** (exponent - 1.0), rtol=1e-14, atol=0)
    # two orders of a circle of 0.1: 2 / 0.1^2 roundings of the largest value, 6.3
    assert torch.allclose(found[0, 0], exponent * (exponent - 1) * x ** (exponent - 2.0), rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [1.0, 30.0, 1000.0])
@pytest.mark.parametrize("function", [torch.sigmoid, F.softplus, F.logsigmoid, F.silu, torch.tanh, torch.erf, F.gelu])
def test_far_out_nothing_overflows(function: Field, scale: float) -> None:
    x = torch.tensor([[-1.0], [-0.5], [0.0], [0.5], [1.0]], dtype=torch.float64)
    found, exact = (one(d, lambda x: function(scale * x), x, "u_x") for d in (ComplexStep(), Reverse()))
    torch.testing.assert_close(found, exact, rtol=1e-12, atol=1e-15 * scale)


def test_float32_gives_what_float32_holds() -> None:
    x, u = LINE.float(), network("tanh", 1, torch.float32)
    axes = frozenset((0,) * n for n in range(5))
    exact = {a: v.float() for a, v in Reverse().partials(network("tanh", 1), x.double(), axes).items()}
    found = relative_errors(ComplexStep(), u, x, axes, exact)
    assert all(e <= 2e-6 for a, e in found.items() if len(a) < 2)
    assert max(found.values()) <= 1e-3  # 4! / r^4 roundings with r near 0.5, where differences of u have 1 to 2 digits


# --- Programs


class Residual(nn.Module):
    """What a model may do to its points besides layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(2, 6), nn.Linear(6, 6), nn.Linear(14, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.first(x))
        h = h + torch.sin(self.second(h))  # a residual connection
        gate = torch.sigmoid(h) * h / (2 + h.square())
        wide = torch.cat([h, gate, x], dim=1)
        left, right = wide.chunk(2, dim=-1)
        assert wide.size(0) == len(x) == x.shape[0]
        assert wide.dtype == x.dtype == torch.float64
        assert wide.dim() == wide.ndim == 2
        return self.last(torch.stack([left, right], dim=1).flatten(1)) + (2.0**left).mean(dim=1, keepdim=True)


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    """A module with weights in +-0.5 that numpy draws, so that torch's own generator does not matter."""
    module, generator = make().double(), np.random.default_rng(0)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.tensor(generator.uniform(-0.5, 0.5, p.shape)))
    return module


def small(activation: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Linear(2, 5), activation, nn.Linear(5, 5), activation, nn.Linear(5, 1))


MODULES = {
    "residual": Residual,
    "GELU": small(nn.GELU()),
    "GELU by tanh": small(nn.GELU("tanh")),
    "Softplus": small(nn.Softplus()),
    "Softplus 3": small(nn.Softplus(beta=3)),
    "SiLU": small(nn.SiLU()),
    "Mish": small(nn.Mish()),
    "LogSigmoid": small(nn.LogSigmoid()),
    "Tanhshrink": small(nn.Tanhshrink()),
}
NAMED = "u u_x u_xy lap_u u_xxy bih_u"


@pytest.mark.parametrize("module", MODULES)
def test_modules_are_differentiated_as_reverse_mode_does(module: str) -> None:
    model, x, asked = seeded(MODULES[module]), points(2), request(NAMED, 2)
    with torch.no_grad():
        found = ComplexStep().tuned_to(model, x, asked.axes)(model, x, asked)
        exact = Reverse()(model, x, asked)
    for name in asked.names:
        # 4^4 / r^4 roundings with r from 0.35 on, of values below 4
        torch.testing.assert_close(getattr(found, name), getattr(exact, name), rtol=0, atol=5e-11)


FUNCTIONS = {
    "division of a number": lambda x: 1 / (3 + x),
    "number to the power": lambda x: 2.0**x,
    "numpy's number": lambda x: np.float64(2.0) * torch.sin(x),
    "tensors in keywords": lambda x: F.linear(input=torch.sin(x), weight=torch.ones(3, 1, dtype=x.dtype)),
    "transposed": lambda x: (torch.ones(2, 1, dtype=x.dtype) @ torch.sin(x).T).T,
    "one after another": lambda x: torch.stack([torch.sin(row) for row in x]),
    "in place": lambda x: torch.sin(x).mul_(2).add_(1),
    "to a dtype": lambda x: torch.sin(x).to(torch.float64),
    "einsum": lambda x: torch.einsum("ni,ij->nj", torch.sin(x), torch.ones(1, 3, dtype=x.dtype)),
    "root and logarithm": lambda x: torch.sqrt(3 + x) * torch.log1p(0.3 * x) * torch.log(3 - x),
    "unbound": lambda x: torch.cat([torch.sin(x), x], 1).unbind(1)[0].unsqueeze(1),
    "new numbers": lambda x: torch.sin(x) + x.new_tensor([2.0]) + torch.ones_like(x),
}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_what_programs_do_besides(function: str) -> None:
    assert max(relative_errors(ComplexStep(), FUNCTIONS[function], LINE).values()) <= 1e-12


def test_gradients_by_the_parameters_are_those_through_reverse_mode() -> None:
    model, x = seeded(Residual), points(2)
    differentiator = ComplexStep().tuned_to(model, x, request(NAMED, 2).axes)
    for name in NAMED.split():
        found: list[dict[str, Tensor]] = []
        exact: list[dict[str, Tensor]] = []
        for d, gradients in ((differentiator, found), (Reverse(), exact)):
            model.zero_grad()
            one(d, model, x, name).square().sum().backward()
            plain = {k: torch.zeros_like(p) if p.grad is None else p.grad for k, p in model.named_parameters()}
            parameters = {k: p.detach() for k, p in model.named_parameters()}

            def column(p: dict[str, Tensor], d: Differentiator = d, name: str = name) -> Tensor:
                return one(d, lambda y: torch.func.functional_call(model, p, (y,)), x, name)

            gradients += [plain, torch.func.jacrev(column)(parameters)]
        for ours, theirs in zip(found, exact, strict=True):
            for k in theirs:
                torch.testing.assert_close(ours[k], theirs[k], rtol=1e-9, atol=1e-10)


# --- Refusals

NOT_ANALYTIC: dict[str, Field] = {
    "relu": torch.relu,
    "abs": abs,
    "softsign": F.softsign,
    "elu": F.elu,
    "hardtanh": F.hardtanh,
    "leaky_relu": F.leaky_relu,
    "gt": lambda x: (x > 0) * x,
    "norm": lambda x: torch.cat([x, x + 1], 1).norm(dim=1, keepdim=True),
    "normalize": lambda x: F.normalize(torch.cat([x, x + 1], 1)),
    "var": lambda x: torch.cat([x, x + 1], 1).var(1, keepdim=True),
    "maximum": lambda x: torch.maximum(x, x * x),
    "clamp": lambda x: x.clamp(0, 1),
    "layer_norm": lambda x: F.layer_norm(torch.cat([x, x * x], 1), (2,)),
}


@pytest.mark.parametrize("name", NOT_ANALYTIC)
@pytest.mark.parametrize("derivative", ["u_x", "u_xx"])
def test_what_is_not_known_to_be_analytic_is_refused_by_name(name: str, derivative: str) -> None:
    sentence = rf"complex_step needs an analytic function, and {name} is not, or not known to be: choose a smooth activ"
    with pytest.raises(UsageError, match=sentence):
        one(ComplexStep(), NOT_ANALYTIC[name], points(1), derivative)
    with pytest.raises(UsageError, match=sentence):
        ComplexStep().tuned_to(NOT_ANALYTIC[name], points(1), request("u_xx", 1).axes)


def test_u_itself_needs_no_complex_points() -> None:
    assert torch.equal(one(ComplexStep(), torch.relu, points(1), "u"), torch.relu(points(1)))


def test_what_torch_cannot_do_at_complex_points_is_a_sentence() -> None:
    sentence = r"complex_step cannot evaluate matmul at complex points \(.*\): choose differentiator=taylor or reverse"
    with pytest.raises(UsageError, match=sentence):
        one(ComplexStep(), lambda x: x @ torch.ones(3, 3, dtype=x.dtype), points(1), "u_x")


def test_every_function_that_passes_exists_in_torch() -> None:
    operators = {name for name in EVALUATED if hasattr(torch.Tensor, f"__{name}__")}
    assert all(hasattr(torch, n) or hasattr(torch.Tensor, n) or hasattr(F, n) for n in EVALUATED - operators)


@pytest.mark.parametrize("nodes", [0, 8, 18, 31, -16, "many", 32.0])
def test_what_makes_no_circle_is_refused(nodes: Any) -> None:
    with pytest.raises(UsageError, match=rf"differentiator\.nodes={nodes} makes no circle: expected auto, 16, 32"):
        ComplexStep(nodes=nodes)


@pytest.mark.parametrize("radius", [0, -1.0, math.inf, math.nan, "wide", None])
def test_what_is_no_radius_is_refused(radius: Any) -> None:
    with pytest.raises(UsageError, match=rf"differentiator\.radius={radius} is no radius: expected auto or a positive"):
        ComplexStep(radius=radius)


# --- The circle that is chosen


def test_the_chosen_circle_shrinks_with_the_scale_of_the_field() -> None:
    def field(k: int) -> Field:
        return lambda x: torch.tanh(k * x)

    circles = [ComplexStep().tuned_to(field(k), LINE, TO_FOUR).chosen for k in (1, 3, 10)]
    radii = [radius for radius, _ in circles]
    assert {nodes for _, nodes in circles} <= set(NODES)
    assert radii == sorted(radii, reverse=True)
    assert all(radius < math.pi / 2 / k for radius, k in zip(radii, (1, 3, 10), strict=True))


@pytest.mark.parametrize("pole", [0.7, 0.808, 1.0, 0.3])
@pytest.mark.parametrize("function", ["tanh", "rational"])
def test_a_circle_around_a_singularity_is_not_taken(function: str, pole: float) -> None:
    # Between two poles the rule converges as well, to the derivative and the residues: tanh has poles at p, 3 p, ...
    x = torch.linspace(-0.01, 0.01, 3, dtype=torch.float64).unsqueeze(1) + 0.005
    u = {"tanh": lambda x: torch.tanh(math.pi / 2 / pole * x), "rational": lambda x: 1 / (1 + (x / pole).square())}
    tuned = ComplexStep().tuned_to(u[function], x, TO_FOUR)
    assert tuned.chosen[0] < pole
    assert max(relative_errors(ComplexStep(), u[function], x).values()) <= 1e-11


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_derivative_that_is_zero_does_not_decide(dtype: torch.dtype) -> None:
    # u_xxx and u_xxxx of x^2 are 0 but for rounding, of which a large circle leaves the least
    x = LINE.to(dtype)
    tuned = ComplexStep().tuned_to(lambda x: x * x, x, TO_FOUR)
    found = tuned.partials(lambda x: x * x, x, TO_FOUR)
    assert tuned.chosen[0] >= 0.5
    torch.testing.assert_close(found[0, 0], torch.full_like(x, 2), rtol=0, atol=100 * eps(dtype))
    assert float(found[0, 0, 0, 0].abs().max()) <= 1000 * eps(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_field_that_is_zero_may_be_adapted_to(dtype: torch.dtype) -> None:
    x = LINE.to(dtype)
    tuned = ComplexStep().tuned_to(lambda x: 0 * x, x, TO_FOUR)
    assert SMALLEST / 2 < tuned.circle[0] <= LARGEST
    assert all(not v.any() for a, v in tuned.partials(lambda x: 0 * x, x, TO_FOUR).items())


@pytest.mark.parametrize("steepness", [10.0, 100.0, 150.0, 200.0, 1000.0])
def test_steep_networks_are_differentiated_to_rounding(steepness: float) -> None:
    generator = torch.Generator().manual_seed(0)
    w = steepness * (0.7 + 0.3 * torch.rand(20, generator=generator, dtype=torch.float64))
    b, a = (torch.randn(20, generator=generator, dtype=torch.float64) for _ in range(2))
    x = torch.linspace(-1, 1, 200, dtype=torch.float64).unsqueeze(1)

    def u(x: Tensor) -> Tensor:
        return torch.tanh(x @ w.unsqueeze(0) + steepness * b) @ a.unsqueeze(1)

    axes = frozenset([(0, 0)])
    found = ComplexStep().tuned_to(u, x, axes).partials(u, x, axes)[0, 0]
    exact = Reverse().partials(u, x, axes)[0, 0]
    assert float((found - exact).norm() / exact.norm()) < 1e-10


@pytest.mark.parametrize("at", [0.0, 1.0])
def test_next_to_a_branch_point_no_circle_is_taken(at: float) -> None:
    x = torch.tensor([[at + 1e-12], [0.5]], dtype=torch.float64)
    with pytest.raises(UsageError, match="finds no circles that agree on the derivatives of this field"):
        ComplexStep().tuned_to(lambda x: torch.sqrt(x - at) if at else torch.sqrt(x), x.clamp_min(at), TO_FOUR)


def test_only_what_is_auto_is_chosen() -> None:
    u = network("tanh", 1)
    assert ComplexStep(0.3, 32).tuned_to(u, points(1), TO_FOUR) == ComplexStep(0.3, 32)
    assert not ComplexStep(0.3, 32).adaptive
    assert ComplexStep(0.3).tuned_to(u, points(1), TO_FOUR).circle[0] == 0.3
    assert ComplexStep(nodes=48).tuned_to(u, points(1), TO_FOUR).circle[1] == 48
    first = frozenset([(), (0,)])
    assert ComplexStep().tuned_to(u, points(1), first) == ComplexStep()  # first derivatives take no circle
    assert replace(ComplexStep(), chosen=(0.5, 16)).circle == (0.5, 16)


def test_each_kind_of_derivative_is_one_evaluation() -> None:
    called = []

    def field(x: Tensor) -> Tensor:
        called.append(tuple(x.shape))
        return network("tanh", 2)(x)

    ComplexStep(0.3, 16)(field, points(2), request("u u_x u_y lap_u u_xy", 2))
    # u; two first derivatives; half a circle along x, y, x + y and x - y: two points each
    assert sorted(called) == [(2, 2), (4, 2), (4 * 8 * 2, 2)]
    assert isinstance(ComplexPoints(torch.zeros(1, 1, dtype=torch.complex64)).T, ComplexPoints)
