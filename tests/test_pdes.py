import dataclasses
import importlib
import operator
from types import SimpleNamespace

import pytest
import sympy
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from pde_train.conf_dir import conf_dir
from pde_train.errors import UsageError
from pde_train.pdes.base import BOUNDARIES
from pde_train.pdes.biharmonic_1d import Biharmonic1D
from pde_train.pdes.biharmonic_2d import Biharmonic2D
from pde_train.pdes.poisson_1d import Poisson1D
from pde_train.pdes.poisson_2d import Poisson2D

FREQUENCY = sympy.Rational(4, 3)  # neither sine nor cosine vanishes at the ends, so no condition holds by chance


def plain(value):
    return value.expression if isinstance(value, Symbolic) else value


def both_sides(function):
    """An operator and its reflection, on expressions."""
    return (
        lambda self, other: Symbolic(function(plain(self), plain(other))),
        lambda self, other: Symbolic(function(plain(other), plain(self))),
    )


class Symbolic:
    """A sympy expression that torch's functions and Python's operators take for a tensor."""

    def __init__(self, expression):
        self.expression = expression

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        assert not kwargs
        return cls(getattr(sympy, func.__name__)(*map(plain, args)))

    __add__, __radd__ = both_sides(operator.add)
    __sub__, __rsub__ = both_sides(operator.sub)
    __mul__, __rmul__ = both_sides(operator.mul)
    __truediv__, __rtruediv__ = both_sides(operator.truediv)
    __pow__, __rpow__ = both_sides(operator.pow)

    def __neg__(self):
        return Symbolic(-self.expression)


def choices():
    """Every PDE of conf/pde with every way of holding its boundary, as (YAML file, overrides)."""
    found = []
    for file in sorted((conf_dir() / "pde").glob("*.yaml")):
        variants = [{"boundary": b} for b in BOUNDARIES] if "boundary" in OmegaConf.load(file) else [{}]
        found += [pytest.param(file, variant, id="-".join([file.stem, *variant.values()])) for variant in variants]
    return found


every_choice = pytest.mark.parametrize(("file", "overrides"), choices())


def built(file, overrides):
    return instantiate(OmegaConf.load(file), **overrides)


def exactly(monkeypatch, pde):
    """The PDE with every number of its formulas exact: pi by sympy, and a frequency other than 1."""
    module = importlib.import_module(type(pde).__module__)
    if hasattr(module, "pi"):
        monkeypatch.setattr(module, "pi", sympy.pi)
    return dataclasses.replace(pde, frequency=FREQUENCY) if hasattr(pde, "frequency") else pde


def symbols_of(pde):
    return sympy.symbols(pde.coordinates, real=True)


def coordinates_of(pde):
    return {c: Symbolic(s) for c, s in zip(pde.coordinates, symbols_of(pde), strict=True)}


def derivative(u, name, pde):
    """The derivative of that name of an expression, from the definition."""
    space = [s for s in symbols_of(pde) if s.name != "t"]

    def laplacian(f):
        return sum(sympy.diff(f, s, 2) for s in space)

    if name == "u":
        return u
    if name in ("lap_u", "bih_u"):
        return laplacian(u) if name == "lap_u" else laplacian(laplacian(u))
    for letter in name.removeprefix("u_"):
        u = sympy.diff(u, symbols_of(pde)[pde.coordinates.index(letter)])
    return u


def exact_solution(pde):
    return plain(pde.exact(SimpleNamespace(**coordinates_of(pde))))


def residual(pde, equation, u, normal=None):
    """An equation's own formula at the derivatives of the expression u that it asks for, and at no others."""
    asked = {name: Symbolic(derivative(u, name, pde)) for name in equation.request.names}
    normals = {} if normal is None else {f"n_{c}": Symbolic(n) for c, n in zip(pde.coordinates, normal, strict=True)}
    return plain(equation.residual(SimpleNamespace(**coordinates_of(pde), **asked, **normals)))


def simplified(expression):
    return sympy.simplify(sympy.expand(sympy.sympify(expression).rewrite(sympy.exp)))


def wrong_equations(pde, u):
    """The equations that u does not satisfy, with the place and what is left over."""
    wrong = {}
    for equation in pde.equations():
        if equation.region == "interior":
            left = simplified(residual(pde, equation, u))
            if left != 0:
                wrong[equation.name, "interior"] = left
            continue
        assert equation.region == "boundary"
        for axis, side in pde.domain.faces():
            place = sympy.Rational(pde.domain.lower[axis] if side < 0 else pde.domain.upper[axis])
            normal = [sympy.Integer(side if i == axis else 0) for i in range(pde.domain.dimension)]
            left = simplified(residual(pde, equation, u, normal).subs(symbols_of(pde)[axis], place))
            if left != 0:
                wrong[equation.name, axis, side] = left
    return wrong


@every_choice
def test_the_exact_solution_satisfies_every_equation_exactly(file, overrides, monkeypatch):
    pde = exactly(monkeypatch, built(file, overrides))
    u = exact_solution(pde)
    assert u.free_symbols == set(symbols_of(pde))
    assert wrong_equations(pde, u) == {}


@every_choice
def test_a_wrong_solution_is_caught_by_every_equation(file, overrides, monkeypatch):
    # exp(x + 2 y) is harmonic in no dimension, vanishes nowhere, and neither do its derivatives
    pde = exactly(monkeypatch, built(file, overrides))
    shift = sympy.exp(sum(k * s for k, s in enumerate(symbols_of(pde), start=1)))
    wrong = wrong_equations(pde, exact_solution(pde) + shift)
    assert {place[0] for place in wrong} == {equation.name for equation in pde.equations()}


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_the_exact_solution_of_the_other_boundary_is_caught(boundary, monkeypatch):
    pde, other = (exactly(monkeypatch, Biharmonic2D(boundary=b)) for b in (boundary, *set(BOUNDARIES) - {boundary}))
    assert {place[0] for place in wrong_equations(pde, exact_solution(other))} == {
        "biharmonic",
        "slope" if boundary == "clamped" else "moment",
    }


def test_a_solution_turned_upside_down_is_caught(monkeypatch):
    pde = exactly(monkeypatch, Poisson1D())
    assert {place[0] for place in wrong_equations(pde, -exact_solution(pde))} == {"poisson", "value"}


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
def test_equations_come_interior_first_and_know_their_order(pde, names, order):
    assert [equation.name for equation in pde.equations()] == names
    assert [equation.region for equation in pde.equations()] == ["interior", "boundary", "boundary"][: len(names)]
    assert pde.order == order


@every_choice
def test_every_choice_is_unweighted_unless_told(file, overrides):
    assert {equation.weight for equation in built(file, overrides).equations()} == {1.0}


@every_choice
def test_weights_belong_to_the_equation_they_name(file, overrides):
    names = [equation.name for equation in built(file, overrides).equations()]
    weights = {name: 2.0 + i for i, name in enumerate(names)}
    pde = built(file, overrides | {"weights": weights})
    assert {equation.name: equation.weight for equation in pde.equations()} == weights


@every_choice
def test_a_weight_of_no_equation_is_refused(file, overrides):
    pde = built(file, overrides)
    with pytest.raises(
        UsageError, match=rf"pde\.weights=.*momentum.* does not fit {type(pde).__name__}: expected numbers"
    ):
        dataclasses.replace(pde, weights={**pde.weights, "momentum": 2.0})


@pytest.mark.parametrize("pde", [Biharmonic1D, Biharmonic2D])
@pytest.mark.parametrize("boundary", ["free", "", "Clamped"])
def test_an_unknown_boundary_is_refused(pde, boundary):
    with pytest.raises(UsageError, match=rf"pde\.boundary={boundary} is unknown: expected .*simply_supported.*clamped"):
        pde(boundary=boundary)


@every_choice
def test_the_domain_has_as_many_axes_as_coordinates(file, overrides):
    pde = built(file, overrides)
    assert pde.domain.dimension == len(pde.coordinates)
    assert (pde.domain.lengths > 0).all()


@pytest.mark.parametrize("frequency", [1.0, 2.0, 2.5])
def test_the_exact_solution_in_numbers(frequency):
    x = torch.linspace(-1, 1, 7, dtype=torch.float64).unsqueeze(1)
    expected = torch.sin(frequency * torch.pi * x)
    for pde in (Poisson1D(frequency=frequency), Biharmonic1D(frequency=frequency)):
        # the order of the two products rounds differently, of an argument up to 8
        torch.testing.assert_close(pde.exact(SimpleNamespace(x=x)), expected, rtol=0, atol=20 * 2**-52)
