import dataclasses
import importlib
import math
import operator
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import mpmath
import pytest
import sympy
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from sympy.functions.elementary.hyperbolic import HyperbolicFunction

from pde_train.conf_dir import conf_dir
from pde_train.derivatives import Jet
from pde_train.errors import UsageError
from pde_train.geometry import faces_of
from pde_train.pdes.allen_cahn_1d import AllenCahn1D
from pde_train.pdes.allen_cahn_periodic_1d import AllenCahnPeriodic1D
from pde_train.pdes.base import PDE, Equation
from pde_train.pdes.beltrami_3d import Beltrami3D
from pde_train.pdes.biharmonic_1d import Biharmonic1D
from pde_train.pdes.biharmonic_2d import Biharmonic2D
from pde_train.pdes.burgers_1d import Burgers1D
from pde_train.pdes.checks import BOUNDARIES
from pde_train.pdes.convection_1d import Convection1D
from pde_train.pdes.euler_beam import EulerBeam
from pde_train.pdes.gray_scott_2d import GrayScott2D
from pde_train.pdes.heat_1d import Heat1D
from pde_train.pdes.heat_nd import HeatND
from pde_train.pdes.helmholtz_2d import Helmholtz2D
from pde_train.pdes.kdv_1d import KdV1D
from pde_train.pdes.kdv_periodic_1d import KdVPeriodic1D
from pde_train.pdes.kuramoto_sivashinsky_periodic_1d import KuramotoSivashinskyChaotic1D
from pde_train.pdes.linear_kdv_1d import LinearKdV1D
from pde_train.pdes.nth_order_1d import NthOrder1D
from pde_train.pdes.options import Options
from pde_train.pdes.poisson_1d import Poisson1D
from pde_train.pdes.poisson_2d import Poisson2D
from pde_train.pdes.poisson_nd import PoissonND
from pde_train.pdes.reaction_1d import Reaction1D
from pde_train.pdes.sine_gordon_nd import SineGordonND
from pde_train.pdes.taylor_green_2d import TaylorGreen2D
from pde_train.pdes.wave_1d import Wave1D

EXACT = {
    "frequency": sympy.Rational(4, 3),  # neither sine nor cosine vanishes at the ends: no condition holds by chance
    "beta": sympy.Rational(5, 7),
    "dimension": 3,
    "reynolds": sympy.Rational(7, 3),
    "diffusivity": sympy.Rational(2, 9),
    "viscosity": sympy.Rational(3, 11),
    "speed": sympy.Rational(2, 3),
    "delta": sympy.Rational(3, 5),
    "rho": sympy.Rational(9, 4),
    "strength": sympy.Rational(5, 4),
    "k": sympy.Rational(5, 3),
    "a": sympy.Rational(3, 4),
    "b": sympy.Rational(4, 5),
}
"""Parameters without rounding, in place of those of the YAML files."""


def plain(value: Any) -> Any:
    return value.expression if isinstance(value, Symbolic) else value


Operator = Callable[[Any, Any], "Symbolic"]


def both_sides(function: Callable[[Any, Any], Any]) -> tuple[Operator, Operator]:
    """An operator and its reflection, on expressions."""
    return (
        lambda self, other: Symbolic(function(plain(self), plain(other))),
        lambda self, other: Symbolic(function(plain(other), plain(self))),
    )


class Symbolic:
    """A sympy expression that torch's functions and Python's operators take for a tensor."""

    def __init__(self, expression: sympy.Expr) -> None:
        self.expression = expression

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Self:
        assert not kwargs
        return cls(getattr(sympy, func.__name__)(*map(plain, args)))

    __add__, __radd__ = both_sides(operator.add)
    __sub__, __rsub__ = both_sides(operator.sub)
    __mul__, __rmul__ = both_sides(operator.mul)
    __truediv__, __rtruediv__ = both_sides(operator.truediv)
    __pow__, __rpow__ = both_sides(operator.pow)

    def __neg__(self) -> "Symbolic":
        return Symbolic(-self.expression)


VARIED: dict[str, tuple[Any, ...]] = {"boundary": BOUNDARIES, "n": (1, 2, 3, 4)}
"""Fields that decide which equations a PDE has."""


def choices() -> list[Any]:
    """Every PDE of conf/pde with every way of holding its boundary and every order, as (YAML file, overrides)."""
    found = []
    for file in sorted((conf_dir() / "pde").glob("*.yaml")):
        keys = [key for key in VARIED if key in OmegaConf.load(file)]
        variants = [{key: value} for key in keys for value in VARIED[key]] or [{}]
        found += [
            pytest.param(file, variant, id="-".join([file.stem, *map(str, variant.values())])) for variant in variants
        ]
    return found


every_choice = pytest.mark.parametrize(("file", "overrides"), choices())


def built(file: Path, overrides: dict[str, Any]) -> PDE:
    node = OmegaConf.load(file)
    others = {"defaults", *Options.__dataclass_fields__}
    return instantiate({k: v for k, v in node.items() if k not in others}, **overrides)


def has_closed_form(choice: Any) -> bool:
    """Whether sympy can judge the solution; quadratures and computed references have test files of their own."""
    pde = built(*choice.values)
    return type(pde).exact is not PDE.exact and not isinstance(pde, (Burgers1D, SineGordonND))


every_closed_form = pytest.mark.parametrize(("file", "overrides"), list(filter(has_closed_form, choices())))


def exactly(monkeypatch: pytest.MonkeyPatch, pde: Any) -> Any:
    """The PDE with every number of its formulas exact: pi by sympy, and parameters other than 1."""
    module = importlib.import_module(type(pde).__module__)
    for name in {"pi", "sqrt"} & set(vars(module)):
        monkeypatch.setattr(module, name, getattr(sympy, name))
    names = {f.name for f in dataclasses.fields(pde)} - {"beta" if isinstance(pde, Wave1D) else ""}
    return dataclasses.replace(pde, **{name: value for name, value in EXACT.items() if name in names})


def symbols_of(pde: PDE) -> tuple[sympy.Symbol, ...]:
    return sympy.symbols(pde.coordinates, real=True)


def coordinates_of(pde: PDE) -> dict[str, Any]:
    return {c: Symbolic(s) for c, s in zip(pde.coordinates, symbols_of(pde), strict=True)}


Solution = Sequence[sympy.Expr]
"""An expression for each unknown."""


def derivative(u: Solution, name: str, pde: PDE) -> sympy.Expr:
    """The derivative of that name of an unknown, from the definition."""
    space = [s for s in symbols_of(pde) if s.name != "t"]

    def laplacian(f: sympy.Expr) -> sympy.Expr:
        return sum(sympy.diff(f, s, 2) for s in space)

    unknown = next(part for part in name.split("_") if part in pde.unknowns)
    f = u[pde.unknowns.index(unknown)]
    if name.startswith(("lap_", "bih_")):
        return laplacian(f) if name.startswith("lap_") else laplacian(laplacian(f))
    for letter in name.removeprefix(unknown).removeprefix("_"):
        f = sympy.diff(f, symbols_of(pde)[pde.coordinates.index(letter)])
    return f


def exact_solution(pde: PDE) -> Solution:
    columns: Any = pde.exact(Jet(coordinates_of(pde)))
    return tuple(map(plain, columns if isinstance(columns, tuple) else (columns,)))


def residual(pde: PDE, equation: Equation, u: Solution, columns: dict[str, Symbolic] | None = None) -> sympy.Expr:
    """An equation's own formula at the derivatives of the expression u that it asks for, and at no others."""
    asked = {name: Symbolic(derivative(u, name, pde)) for name in equation.request.names}
    return plain(equation.residual(Jet(coordinates_of(pde) | asked | (columns or {}))))


def end(pde: PDE, axis: int, side: int) -> sympy.Expr:
    """An end of the domain, exactly: rational, or a rational multiple of pi."""
    value = (pde.domain.lower if side < 0 else pde.domain.upper)[axis]
    turns = sympy.Rational(value / math.pi)
    return sympy.Rational(value) if turns.q > 100 else turns * sympy.pi


def on_face(pde: PDE, equation: Equation, u: Solution, axis: int, side: int) -> sympy.Expr:
    """The residual of an equation on one face of its region."""
    columns = {f"n_{c}": Symbolic(sympy.Integer(side * (i == axis))) for i, c in enumerate(pde.coordinates)}
    if equation.region == "periodic":
        opposite = {symbols_of(pde)[axis]: end(pde, axis, 1)}
        columns |= {f"across_{n}": Symbolic(derivative(u, n, pde).subs(opposite)) for n in equation.request.names}
    return residual(pde, equation, u, columns).subs(symbols_of(pde)[axis], end(pde, axis, side))


def left_over(expression: sympy.Expr) -> Any:
    """What an expression is, if not 0: its value to 50 digits at a rational point, or what simplification leaves.

    A value other than 0 proves that the expression is not 0, and takes less time than a simplification. Where sympy
    needs minutes, which is where there are hyperbolic functions, three points decide.
    """
    expression = sympy.sympify(expression)
    symbols = sorted(expression.free_symbols, key=str)
    value = sympy.lambdify(symbols, expression, "mpmath")
    with mpmath.workdps(50):
        for k in (2, 3, 5):
            at = value(*(mpmath.mpf(i) / (i + k) for i in range(1, len(symbols) + 1)))
            if abs(at) > 1e-40:
                return at
    if expression.has(HyperbolicFunction):
        return 0
    return sympy.simplify(sympy.expand(expression.rewrite(sympy.exp)))


def wrong_equations(pde: PDE, u: Solution) -> dict[tuple[Any, ...], Any]:
    """The equations that u does not satisfy, with the place and what is left over."""
    wrong: dict[tuple[Any, ...], Any] = {}
    for equation in pde.equations():
        if equation.region == "interior":
            left = left_over(residual(pde, equation, u))
            if left != 0:
                wrong[equation.name, "interior"] = left
            continue
        for axis, side in faces_of(equation.region, pde.coordinates):
            left = left_over(on_face(pde, equation, u, axis, side))
            if left != 0:
                wrong[equation.name, axis, side] = left
    return wrong


@every_closed_form
def test_the_exact_solution_satisfies_every_equation_exactly(
    file: Path, overrides: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pde = exactly(monkeypatch, built(file, overrides))
    u = exact_solution(pde)
    assert set().union(*(f.free_symbols for f in u)) == set(symbols_of(pde))
    assert wrong_equations(pde, u) == {}


@every_closed_form
def test_a_wrong_solution_is_caught_by_every_equation(
    file: Path, overrides: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # exp(x + 2 y) is harmonic in no dimension, vanishes nowhere, and neither do its derivatives
    pde = exactly(monkeypatch, built(file, overrides))
    shift = sympy.exp(sum(k * s for k, s in enumerate(symbols_of(pde), start=1)))
    wrong = wrong_equations(pde, [f + k * shift for k, f in enumerate(exact_solution(pde), start=1)])
    assert {place[0] for place in wrong} == {equation.name for equation in pde.equations()}


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_the_exact_solution_of_the_other_boundary_is_caught(boundary: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pde, other = (exactly(monkeypatch, Biharmonic2D(boundary=b)) for b in (boundary, *set(BOUNDARIES) - {boundary}))
    assert {place[0] for place in wrong_equations(pde, exact_solution(other))} == {
        "biharmonic",
        "slope" if boundary == "clamped" else "moment",
    }


def test_a_solution_turned_upside_down_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    pde = exactly(monkeypatch, Poisson1D())
    assert {place[0] for place in wrong_equations(pde, [-f for f in exact_solution(pde)])} == {"poisson", "value"}


def test_a_wave_of_another_speed_is_caught_inside_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    pde, other = (exactly(monkeypatch, Convection1D()) for _ in range(2))
    other = dataclasses.replace(other, beta=sympy.Rational(1, 7))
    assert {place[0] for place in wrong_equations(pde, exact_solution(other))} == {"convection"}


def test_a_wave_that_runs_the_other_way_is_caught_inside_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    pde = exactly(monkeypatch, LinearKdV1D())
    x, t = symbols_of(pde)
    assert {place[0] for place in wrong_equations(pde, [sympy.sin(x - t)])} == {"linear_kdv"}


def test_dispersion_moves_a_wave_of_number_k_by_the_cube_of_k(monkeypatch: pytest.MonkeyPatch) -> None:
    pde, k = exactly(monkeypatch, LinearKdV1D()), sympy.Integer(3)
    x, t = symbols_of(pde)
    assert {place[0] for place in wrong_equations(pde, [sympy.sin(k * x + k**3 * t)])} == {"start"}


@pytest.mark.parametrize(
    ("power", "jumps"), [(1, {"seam"}), (2, {"seam", "seam_slope"}), (3, {"seam", "seam_slope", "seam_curvature"})]
)
def test_each_derivative_that_jumps_across_the_seam_is_caught(
    power: int, jumps: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pde = exactly(monkeypatch, LinearKdV1D())
    x = symbols_of(pde)[0]
    wrong = wrong_equations(pde, [exact_solution(pde)[0] + x**power])
    assert {place[0] for place in wrong if place[0].startswith("seam")} == jumps


def test_a_beam_clamped_at_the_wrong_end_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    pde = exactly(monkeypatch, EulerBeam())
    x = symbols_of(pde)[0]
    turned = exact_solution(pde)[0].subs(x, 1 - x)
    assert {place[0] for place in wrong_equations(pde, [turned])} == {"value", "slope", "moment", "shear"}


@pytest.mark.parametrize(
    ("pde", "regions", "order"),
    [
        (
            EulerBeam(),
            {"beam": "interior", "value": "x_lower", "slope": "x_lower", "moment": "x_upper", "shear": "x_upper"},
            4,
        ),
        (Convection1D(), {"convection": "interior", "start": "initial", "seam": "periodic"}, 1),
        (
            LinearKdV1D(),
            {"linear_kdv": "interior", "start": "initial"}
            | dict.fromkeys(["seam", "seam_slope", "seam_curvature"], "periodic"),
            3,
        ),
        (Burgers1D(), {"burgers": "interior", "start": "initial", "walls": "boundary"}, 2),
        (PoissonND(), {"poisson": "interior", "value": "boundary"}, 2),
    ],
    ids=repr,
)
def test_equations_know_their_region_and_order(pde: PDE, regions: dict[str, str], order: int) -> None:
    assert {equation.name: equation.region for equation in pde.equations()} == regions
    assert list(pde.faces) == [r for r in dict.fromkeys(regions.values()) if r != "interior"]
    assert pde.order == order


@pytest.mark.parametrize(
    ("pde", "parameter", "sentence"),
    [
        (Convection1D, {"beta": float("nan")}, r"pde\.beta=nan is no speed: expected a finite number"),
        (Convection1D, {"beta": "fast"}, r"pde\.beta=fast is no speed: expected a finite number"),
        (
            Burgers1D,
            {"viscosity": 0.0},
            r"pde\.viscosity=0\.0 has no accurate reference: expected 3\.18\d*e-05 ",
        ),
        (Burgers1D, {"viscosity": 1}, r"pde\.viscosity=1 has no accurate reference: expected 3\.18\d*e-05 "),
        (PoissonND, {"dimension": 0}, r"pde\.dimension=0 is none: expected a positive integer"),
        (PoissonND, {"dimension": 2.5}, r"pde\.dimension=2\.5 is none: expected a positive integer"),
        (Heat1D, {"diffusivity": -0.4}, r"pde\.diffusivity=-0\.4 cannot be used: expected a positive number"),
        (Heat1D, {"diffusivity": float("inf")}, r"pde\.diffusivity=inf cannot be used: expected a positive number"),
        (Heat1D, {"diffusivity": True}, r"pde\.diffusivity=True cannot be used: expected a positive number"),
        (Wave1D, {"beta": 2.5}, r"pde\.beta=2\.5 cannot be used: expected a positive integer"),
        (Wave1D, {"speed": 0.0}, r"pde\.speed=0\.0 cannot be used: expected a positive number"),
        (Helmholtz2D, {"a_2": 0}, r"pde\.a_2=0 cannot be used: expected a positive integer"),
        (Helmholtz2D, {"k": "long"}, r"pde\.k=long cannot be used: expected a positive number"),
        (Reaction1D, {"rho": 0.0}, r"pde\.rho=0\.0 cannot be used: expected a positive number"),
        (AllenCahn1D, {"diffusivity": 0.0}, r"pde\.diffusivity=0\.0 cannot be used: expected a positive number"),
        (AllenCahnPeriodic1D, {"diffusivity": 0.0}, r"pde\.diffusivity=0\.0 cannot be used: expected a positive"),
        (KdVPeriodic1D, {"delta": -1.0}, r"pde\.delta=-1\.0 cannot be used: expected a positive number"),
        (KuramotoSivashinskyChaotic1D, {"gamma": 0.0}, r"pde\.gamma=0\.0 cannot be used: expected a positive number"),
        (GrayScott2D, {"feed": 0.0}, r"pde\.feed=0\.0 cannot be used: expected a positive number"),
        (KdV1D, {"delta": 0.0}, r"pde\.delta=0\.0 cannot be used: expected a positive number"),
        (KdV1D, {"speed": float("nan")}, r"pde\.speed=nan cannot be used: expected a positive number"),
        (TaylorGreen2D, {"viscosity": 0.0}, r"pde\.viscosity=0\.0 cannot be used: expected a positive number"),
        (Beltrami3D, {"reynolds": 0.0}, r"pde\.reynolds=0\.0 cannot be used: expected a positive number"),
        (SineGordonND, {"dimension": 1}, r"pde\.dimension=1 leaves no pair of coordinates .*: expected 2 or more"),
        (SineGordonND, {"dimension": 2.0}, r"pde\.dimension=2\.0 cannot be used: expected a positive integer"),
        (HeatND, {"dimension": True}, r"pde\.dimension=True cannot be used: expected a positive integer"),
    ],
)
def test_a_parameter_that_makes_no_equation_is_refused(
    pde: Callable[..., PDE], parameter: dict[str, float | str], sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        pde(**parameter)


@pytest.mark.parametrize(
    ("pde", "names", "order"),
    [
        (Poisson1D(), ["poisson", "value"], 2),
        (Poisson2D(), ["poisson", "value"], 2),
        (Biharmonic1D(), ["biharmonic", "value", "moment"], 4),
        (Biharmonic1D(boundary="clamped"), ["biharmonic", "value", "slope"], 4),
        (Biharmonic2D(), ["biharmonic", "value", "moment"], 4),
        (Biharmonic2D(boundary="clamped"), ["biharmonic", "value", "slope"], 4),
    ],
    ids=repr,
)
def test_equations_come_interior_first_and_know_their_order(pde: PDE, names: list[str], order: int) -> None:
    assert [equation.name for equation in pde.equations()] == names
    assert [equation.region for equation in pde.equations()] == ["interior", "boundary", "boundary"][: len(names)]
    assert pde.order == order


@every_choice
def test_every_choice_is_unweighted_unless_told(file: Path, overrides: dict[str, str]) -> None:
    assert {equation.weight for equation in built(file, overrides).equations()} == {1.0}


@every_choice
def test_weights_belong_to_the_equation_they_name(file: Path, overrides: dict[str, str]) -> None:
    names = [equation.name for equation in built(file, overrides).equations()]
    weights = {name: 2.0 + i for i, name in enumerate(names)}
    pde = built(file, overrides | {"weights": weights})
    assert {equation.name: equation.weight for equation in pde.equations()} == weights


@every_choice
def test_a_weight_of_no_equation_is_refused(file: Path, overrides: dict[str, str]) -> None:
    pde: Any = built(file, overrides)
    with pytest.raises(
        UsageError, match=rf"pde\.weights=.*momentum.* does not fit {type(pde).__name__}: expected numbers"
    ):
        dataclasses.replace(pde, weights={**pde.weights, "momentum": 2.0})


@pytest.mark.parametrize("pde", [Biharmonic1D, Biharmonic2D])
@pytest.mark.parametrize("boundary", ["free", "", "Clamped"])
def test_an_unknown_boundary_is_refused(pde: Callable[..., PDE], boundary: str) -> None:
    with pytest.raises(UsageError, match=rf"pde\.boundary={boundary} is unknown: expected .*simply_supported.*clamped"):
        pde(boundary=boundary)


@pytest.mark.parametrize("n", [0, 5, 1.5, True])
def test_another_order_is_refused(n: int) -> None:
    with pytest.raises(UsageError, match=rf"pde\.n={n} is no order of this equation: expected 1, 2, 3 or 4"):
        NthOrder1D(n=n)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_the_order_is_all_that_differs(n: int) -> None:
    pde = NthOrder1D(n=n)
    assert pde.order == n
    assert [e.region for e in pde.equations()] == ["interior", *["x_lower"] * n]
    assert str(exact_solution(pde)) == str(exact_solution(NthOrder1D()))


@every_choice
def test_the_domain_has_as_many_axes_as_coordinates(file: Path, overrides: dict[str, str]) -> None:
    pde = built(file, overrides)
    assert pde.domain.dimension == len(pde.coordinates)
    assert (pde.domain.lengths > 0).all()


@pytest.mark.parametrize("frequency", [1.0, 2.0, 2.5])
def test_the_exact_solution_in_numbers(frequency: float) -> None:
    x = torch.linspace(-1, 1, 7, dtype=torch.float64).unsqueeze(1)
    expected = torch.sin(frequency * torch.pi * x)
    for pde in (Poisson1D(frequency=frequency), Biharmonic1D(frequency=frequency)):
        # the order of the two products rounds differently, of an argument up to 8
        torch.testing.assert_close(pde.exact(Jet({"x": x})), expected, rtol=0, atol=20 * 2**-52)


def test_a_varied_pde_computes_what_it_derives_from_its_numbers_anew() -> None:
    @dataclasses.dataclass(frozen=True)
    class Waves(Poisson1D):
        @cached_property
        def squared(self) -> float:
            return self.frequency**2

    pde = Waves(frequency=2.0, weights={"value": 3.0})
    assert pde.numbers() == {"frequency": 2.0, "weights.poisson": 1.0, "weights.value": 3.0}
    assert (pde.squared, pde.regions["boundary"][0][0].weight) == (4.0, 3.0)
    three, half = torch.tensor(3.0, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64)
    varied = pde.with_numbers({"frequency": three, "weights.poisson": half})
    assert varied.squared == 9.0
    assert {e.name: float(e.weight) for e in varied.equations()} == {"poisson": 0.5, "value": 3.0}
    d = Jet({"x": torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None], "u_xx": torch.ones(5, 1).double()})
    expected = Poisson1D(frequency=3.0).equations()[0].residual(d)
    assert torch.equal(varied.regions["interior"][0][0].residual(d), expected)
    assert (pde.squared, pde.numbers()["frequency"]) == (4.0, 2.0)  # the first one is as it was
