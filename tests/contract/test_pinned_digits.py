"""The digits of every differentiator on one fixed network, in both precisions, against arithmetic in 40 digits.

u(x) = sum_j a_j tanh(w_j x + b_j) with a_j = 2 sin(j), w_j = 2 sin(2j), b_j = sin(3j), j = 1 to 6, each rounded to
single precision, so that both precisions hold the same network, and no random number is drawn. Exact choices give its
derivatives to a few rounding errors. Finite differences give what their stencil and step give in exact arithmetic,
to the rounding of the values of u; so a change of a stencil, of a step or of a summation is seen here.
"""

import functools
import math
from typing import Any

import mpmath
import pytest
import torch
from hydra import compose, initialize_config_dir

from pde_train.conf_dir import conf_dir
from pde_train.derivatives import Request
from pde_train.differentiators.base import Differentiator
from pde_train.differentiators.complex_step import ComplexStep
from pde_train.errors import UsageError
from pde_train.instantiate import build_group

DIGITS = 40
SPACING = 0.0625
POINTS = (-0.75, 0.25, 0.5)
NUMBERS = range(1, 7)
OUTER, INNER, BIAS = (
    torch.tensor([f * math.sin(k * j) for j in NUMBERS], dtype=torch.float32).tolist()
    for f, k in ((2, 1), (2, 2), (1, 3))
)
PRECISIONS = {"float64": torch.float64, "float32": torch.float32}

PINNED = {
    0: ["-0.25265161986736491127", "-0.27469380685663590458", "-0.42403661735782158444"],
    1: ["0.18275952961114673586", "-0.72609370727028097536", "-0.29431860181096479919"],
    2: ["-0.2389878532994354693", "-0.55876979483184357524", "3.4726504370292922204"],
    3: ["0.84639503956361005633", "19.106457559180015419", "7.1750060437200069972"],
    4: ["10.870498602687062225", "40.023865626591728194", "-96.045813147631587316"],
}
"""u and its derivatives of order 1 to 4 at each of the points."""

STENCILS = {
    0: {0: 1.0},
    1: {-1: -0.5, 1: 0.5},
    2: {-1: 1.0, 0: -2.0, 1: 1.0},
    3: {-2: -0.5, -1: 1.0, 1: -1.0, 2: 0.5},
    4: {-2: 1.0, -1: -4.0, 0: 6.0, 1: -4.0, 2: 1.0},
}
"""Central differences of accuracy 2, which all choices in the folder have."""

EXACT = ("complex_step", "forward", "reverse", "stochastic", "taylor")
"""To rounding; of one coordinate `stochastic` has no direction to draw."""

RADIUS, NODES = 2 * 0.7**5, 64
"""The radius r and the number of nodes that `complex_step` chooses for this network."""

STEPS: dict[str, Any] = {
    "finite_difference": "auto",
    "finite_difference/1e-1": 1e-1,
    "finite_difference/1e-2": 1e-2,
    "finite_difference/1e-3": 1e-3,
    "finite_difference/1e-4": 1e-4,
    "finite_difference/1e-5": 1e-5,
    "finite_difference/grid": SPACING,
    "finite_difference/inside": "auto",
    "finite_difference/rounding": "auto",
    "finite_difference/truncation": "auto",
    "hybrid": "auto",
}
"""The step h of each choice of finite differences; auto is eps^(1 / (n + 2)) for order n."""


def network(x: torch.Tensor) -> torch.Tensor:
    outer, inner, bias = (torch.tensor(v, dtype=x.dtype) for v in (OUTER, INNER, BIAS))
    return torch.tanh(x * inner + bias) @ outer.unsqueeze(1)


@functools.cache
def coefficients(z: mpmath.mpf) -> list[mpmath.mpf]:
    """tanh and its derivatives of order 1 to 6 at z."""
    with mpmath.workdps(DIGITS):
        return [c * math.factorial(n) for n, c in enumerate(mpmath.taylor(mpmath.tanh, z, 6))]


def exact(x: mpmath.mpf, order: int) -> mpmath.mpf:
    """The derivative of the network."""
    terms = zip(OUTER, INNER, BIAS, strict=True)
    return mpmath.fsum(mpmath.mpf(a) * mpmath.mpf(w) ** order * coefficients(w * x + b)[order] for a, w, b in terms)


def sensitivity(x: float, order: int) -> float:
    """The sum of the sizes of the terms of a derivative, and of what a rounding error of w x + b changes in them."""
    total = 0.0
    for a, w, b in zip(OUTER, INNER, BIAS, strict=True):
        z = mpmath.mpf(w) * x + b
        total += abs(a * w**order) * float(max(map(abs, coefficients(z)[: order + 2])) * (1 + abs(z)))
    return total


def in_exact_arithmetic(x: float, order: int, step: float, first: int) -> mpmath.mpf:
    """The stencil on exact values of the derivative of order `first`."""
    h = mpmath.mpf(step)
    nodes = STENCILS[order - first].items()
    return mpmath.fsum(w * exact(x + k * h, first) for k, w in nodes) / h ** (order - first)


def expected(choice: str, x: float, order: int, eps: float) -> tuple[mpmath.mpf, float]:
    """What a choice computes in exact arithmetic, and by how much rounding may change it."""
    roundings = 8 * eps * sensitivity(x, order)
    if choice == "complex_step" and order > 1:  # Cauchy's integral on a circle of radius r divides by r^n / n!
        return exact(x, order), roundings + 8 * eps * sensitivity(x, 0) * math.factorial(order) / RADIUS**order
    if choice in EXACT:
        return exact(x, order), roundings
    first = 1 if choice == "hybrid" else 0
    taken = order - first
    step = eps ** (1 / (taken + 2)) if STEPS[choice] == "auto" else STEPS[choice]
    lost = 2 * eps * sensitivity(x, first) * sum(map(abs, STENCILS[taken].values())) / step**taken
    by_stencil = in_exact_arithmetic(x, order, step, first)
    if choice == "finite_difference/truncation":
        return by_stencil, roundings
    return (exact(x, order) if choice == "finite_difference/rounding" else by_stencil), roundings + lost


@functools.cache
def built(choice: str) -> Differentiator:
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
        cfg = compose("config", ["name=test", "tracking=none", f"differentiator={choice}"])
    return build_group(cfg, "differentiator").fitted((SPACING,))


def test_every_choice_is_pinned() -> None:
    folder = conf_dir() / "differentiator"
    assert {str(f.relative_to(folder).with_suffix("")) for f in folder.rglob("*.yaml")} == {*EXACT, *STEPS}


@pytest.mark.parametrize("order", range(5))
def test_the_derivatives_of_the_network_are_pinned(order: int) -> None:
    with mpmath.workdps(DIGITS):
        assert [mpmath.nstr(exact(mpmath.mpf(x), order), 20) for x in POINTS] == PINNED[order]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("choice", [*EXACT, *STEPS])
def test_digits_are_those_of_exact_arithmetic_to_rounding(choice: str, precision: str) -> None:
    x = torch.tensor(POINTS, dtype=PRECISIONS[precision]).unsqueeze(1)
    eps = torch.finfo(x.dtype).eps
    request = Request.parse("u u_x u_xx u_xxx u_xxxx", ("x",))
    differentiator = built(choice).tuned_to(network, x.double(), request.axes)
    if choice == "finite_difference/1e-5" and precision == "float32":
        with pytest.raises(UsageError, match=r"step=1e-05 is lost in the rounding of torch\.float32"):
            differentiator(network, x, request)
        return
    if choice == "complex_step":
        assert isinstance(differentiator, ComplexStep)
        assert differentiator.circle == pytest.approx((RADIUS, NODES))
    jet = differentiator(network, x, request)
    for order in range(5):
        found = getattr(jet, "u_" + "x" * order if order else "u")
        assert found.dtype == x.dtype
        for value, at in zip(found.flatten().tolist(), POINTS, strict=True):
            with mpmath.workdps(DIGITS):
                pinned, bound = expected(choice if order else "taylor", at, order, eps)
                assert abs(value - pinned) <= bound, (order, at, value, mpmath.nstr(pinned, 20), bound)
