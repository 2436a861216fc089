"""Systems: several unknowns, their derivatives, residuals, least squares, errors and networks."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures import Compose
from torch import Tensor, nn

from pde_train import linear_system
from pde_train.derivatives import Jet, Request
from pde_train.diagnostics.none import NoDiagnostics
from pde_train.differentiators.base import Differentiator
from pde_train.differentiators.complex_step import ComplexStep
from pde_train.differentiators.finite_difference import FiniteDifference
from pde_train.differentiators.forward import Forward
from pde_train.differentiators.hybrid import Hybrid
from pde_train.differentiators.reverse import Reverse
from pde_train.differentiators.taylor import Taylor
from pde_train.entropy import Entropy
from pde_train.errors import UsageError
from pde_train.experiment import build
from pde_train.geometry import Box
from pde_train.methods.least_squares import LeastSquares
from pde_train.models.base import linear_form
from pde_train.models.mlp import MLP
from pde_train.models.random_features import RandomFeatures
from pde_train.pdes.base import PDE, fulfils, on
from pde_train.pdes.kovasznay_2d import Kovasznay2D
from pde_train.problem import Problem
from pde_train.residuals import evaluate
from pde_train.runs import figures
from pde_train.runs.run import run
from pde_train.samplers.uniform import Uniform
from pde_train.tracking.none import NoTracker
from pde_train.tracking.record import Record

pytestmark = pytest.mark.usefixtures("without_figures")

EPS = 2.0**-52


@dataclass(frozen=True)
class Oscillator(PDE):
    """u' = v and v' = -u from u = 0 and v = 1: sine and cosine."""

    weights: Mapping[str, float] = field(default_factory=dict)

    coordinates = ("x",)
    unknowns = ("u", "v")
    domain = Box((0.0,), (1.0,))

    @on("interior", needs="u_x v")
    def first(self, d: Jet) -> Tensor:
        return d.u_x - d.v

    @on("interior", needs="v_x u")
    def second(self, d: Jet) -> Tensor:
        return d.v_x + d.u

    @on("x_lower", needs="u")
    def rest(self, d: Jet) -> Tensor:
        return d.u

    @on("x_lower", needs="v")
    def speed(self, d: Jet) -> Tensor:
        return d.v - 1

    def exact(self, d: Jet) -> tuple[Tensor, Tensor]:
        return torch.sin(d.x), torch.cos(d.x)

    @fulfils("rest", "speed")
    def ansatz(self, d: Jet, raw: Tensor) -> tuple[Tensor, Tensor]:
        return d.x * raw[:, 0:1], 1 + d.x * raw[:, 1:2]


@dataclass(frozen=True)
class Faster(Oscillator):
    """The same from v = swing, which the ansatz of v alone holds."""

    swing: float = 2.0

    @on("x_lower", needs="v")
    def speed(self, d: Jet) -> Tensor:
        return d.v - self.swing

    @fulfils("rest", "speed")
    def ansatz(self, d: Jet, raw: Tensor) -> tuple[Tensor, Tensor]:
        return d.x * raw[:, 0:1], self.swing + d.x * raw[:, 1:2]


@dataclass(frozen=True)
class Still(Oscillator):
    """The same from u = v = 0."""

    factor: float = 2.0

    @on("x_lower", needs="v")
    def speed(self, d: Jet) -> Tensor:
        return d.v

    @fulfils("rest", "speed")
    def ansatz(self, d: Jet, raw: Tensor) -> tuple[Tensor, Tensor]:
        return d.x * raw[:, :1], self.factor * d.x * raw[:, 1:]


def network(pde: PDE, columns: int, seed: int = 0) -> nn.Module:
    return MLP(pde.domain.dimension, [7, 5], "tanh", seed, outputs=columns).double()


def posed(pde: PDE, model: nn.Module, differentiator: Differentiator | None = None) -> Problem:
    return Problem(pde, model, differentiator or Taylor(), Uniform(12, 8))


def column(model: nn.Module, place: int, x: Tensor) -> Tensor:
    values: Tensor = model(x)
    return values[:, place : place + 1]


DIFFERENTIATORS = [Reverse(), Forward(), Taylor(), ComplexStep(), Hybrid(), FiniteDifference(4, 1e-2)]


@pytest.mark.parametrize("differentiator", DIFFERENTIATORS, ids=lambda d: type(d).__name__)
def test_derivatives_of_an_unknown_are_those_of_its_column_alone(differentiator: Differentiator) -> None:
    names = "u u_x lap_u v_xy v_y p_x p bih_p"
    request = Request.parse(names, ("x", "y"), ("u", "v", "p"))
    model = MLP(2, [7, 5], "tanh", 0, outputs=3).requires_grad_(False)
    x = torch.rand(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    columns = request.split(differentiator(model, x, request.of_field).columns)
    assert set(columns) == {*names.split(), "x", "y"}
    for place, unknown in enumerate(request.unknowns):
        own = [name for name in names.split() if unknown in name.split("_")]
        plain = {name: name.replace(unknown, "u", 1) for name in own}
        alone = differentiator(partial(column, model, place), x, Request.parse(" ".join(plain.values()), ("x", "y")))
        for name in own:
            expected = alone.columns[plain[name]]
            # differences of order 4 divide the rounding of values near 1 by h^4
            close = 1e3 * EPS * float(1 + expected.abs().max()) * (1 if differentiator.exact else 1e8)
            torch.testing.assert_close(columns[name], expected, rtol=0, atol=close)


def test_the_loss_and_its_gradient_are_those_of_the_formulas_by_hand() -> None:
    pde = Kovasznay2D()
    problem = posed(pde, network(pde, 3))
    batch = problem.draw(np.random.default_rng(0))
    parameters = list(problem.model.parameters())

    def derivative(f: Tensor, x: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(f.sum(), x, create_graph=True)
        return gradient

    x = batch["interior"].x.clone().requires_grad_()
    u, v, p = problem.model(x).split(1, dim=1)
    slopes = {name: derivative(f, x) for name, f in (("u", u), ("v", v), ("p", p))}
    laplacian = {name: sum(derivative(slopes[name][:, i], x)[:, i : i + 1] for i in range(2)) for name in ("u", "v")}
    terms = [
        u * slopes[n][:, 0:1] + v * slopes[n][:, 1:2] + slopes["p"][:, i : i + 1] - laplacian[n] / 20
        for i, n in enumerate(("u", "v"))
    ]
    terms.append(slopes["u"][:, 0:1] + slopes["v"][:, 1:2])
    exact = pde.exact_at(batch["boundary"].x)
    terms += [problem.model(batch["boundary"].x)[:, i : i + 1] - exact[:, i : i + 1] for i in range(2)]
    terms.append(problem.model(batch["x_upper"].x)[:, 2:] - pde.exact_at(batch["x_upper"].x)[:, 2:])
    expected = sum(term.square().mean() for term in terms)
    found = problem.loss(batch)
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-13)
    for one, other in zip(
        torch.autograd.grad(found, parameters), torch.autograd.grad(expected, parameters), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)


def test_the_jacobian_of_a_system_has_the_gradient_of_every_row() -> None:
    pde = Kovasznay2D()
    problem = posed(pde, network(pde, 3))
    batch = problem.draw(np.random.default_rng(0))
    parameters = list(problem.model.parameters())
    rows = problem.residual_vector(problem.model, batch).flatten()
    expected = [
        torch.cat([g.flatten() for g in torch.autograd.grad(r, parameters, retain_graph=True, materialize_grads=True)])
        for r in rows
    ]
    assert problem.row_wise(batch)
    torch.testing.assert_close(problem.jacobian(batch).dense(), torch.stack(expected), rtol=1e-10, atol=1e-12)


def test_least_squares_solves_a_linear_system() -> None:
    pde = Oscillator()
    problem = Problem(pde, RandomFeatures(1, 40, "tanh", 3.0, 0, outputs=2), Taylor(), Uniform(200, 8))
    LeastSquares().fit(problem, Record(NoTracker(), Entropy([1e-8])), NoDiagnostics(), Path())
    errors = problem.errors()
    assert set(errors) == {"error_l2", "error_max", "error_l2/u", "error_l2/v", "error_max/u", "error_max/v"}
    assert max(errors.values()) < 1e-8


def test_the_residual_of_a_system_is_its_matrix_at_every_coefficient() -> None:
    pde = Oscillator(weights={"second": 3.0})
    model = RandomFeatures(1, 9, "tanh", 3.0, 0, outputs=2).requires_grad_(False)
    problem = posed(pde, model)
    batch = problem.draw(np.random.default_rng(0))
    a, b = linear_system.assemble(pde, model.features, problem.differentiator, batch)
    assert a.shape == (12 + 12 + 1 + 1, 18)
    model.coefficients.copy_(torch.linspace(-1, 1, 18, dtype=torch.float64).reshape(9, 2))
    found = problem.residual_vector(model, batch, rows="points")
    torch.testing.assert_close(found, a @ model.coefficients.T.reshape(-1, 1) - b, rtol=0, atol=1e3 * EPS)


def test_a_product_of_two_unknowns_is_not_linear() -> None:
    @dataclass(frozen=True)
    class Product(Oscillator):
        def second(self, d: Jet) -> Tensor:
            return d.v_x + d.u * d.v

        second.equation = Oscillator.second.equation  # type: ignore[attr-defined]

    problem = posed(Product(), RandomFeatures(1, 9, "tanh", 3.0, 0, outputs=2))
    with pytest.raises(
        UsageError, match=r"'second' of this PDE is not linear in u, v: choose method=newton_least_squares"
    ):
        LeastSquares().fit(problem, Record(NoTracker(), Entropy([1e-8])), NoDiagnostics(), Path())


def test_errors_of_each_unknown_by_hand() -> None:
    problem = posed(Oscillator(), network(Oscillator(), 2))
    x = torch.linspace(0, 1, 1001, dtype=torch.float64).unsqueeze(1)
    with torch.no_grad():
        difference = (problem.model(x) - torch.cat([torch.sin(x), torch.cos(x)], dim=1)).numpy()
    errors = problem.errors()
    size = float(torch.sin(x).norm()), float(torch.cos(x).norm())
    assert errors["error_l2/u"] == pytest.approx(np.linalg.norm(difference[:, 0]) / size[0], rel=1e-12)
    assert errors["error_l2/v"] == pytest.approx(np.linalg.norm(difference[:, 1]) / size[1], rel=1e-12)
    assert errors["error_l2"] == pytest.approx(np.linalg.norm(difference) / np.hypot(*size), rel=1e-12)
    assert errors["error_max/v"] == pytest.approx(np.abs(difference[:, 1]).max(), rel=1e-12)


def test_periodic_conditions_see_the_other_end_of_every_unknown() -> None:
    @dataclass(frozen=True)
    class Ring(Oscillator):
        @on("periodic", needs="u v_x")
        def seam(self, d: Jet) -> Tensor:
            return (d.u - d.across_u) * 10 + (d.v_x - d.across_v_x)

    pde = Ring()
    problem = posed(pde, network(pde, 2))
    batch = problem.draw(np.random.default_rng(0))
    ends = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    problem.model.requires_grad_(False)
    u, v_x = problem.model(ends)[:, 0], Reverse()(problem.model, ends, Request.parse("u_x", ("x",))).u_x[:, 1]
    found = evaluate(pde, problem.model, problem.differentiator, batch)["seam"]
    assert float(found) == pytest.approx(float(10 * (u[0] - u[1]) + v_x[0] - v_x[1]), rel=1e-12)


@dataclass(frozen=True)
class Vector(Oscillator):
    """The same, where one unknown has two components and the equations are columns of one formula."""

    unknowns = ("u",)  # type: ignore[assignment]  # another number of names than the base class

    @on("interior", needs="u u_x")
    def first(self, d: Jet) -> Tensor:
        return torch.cat([d.u_x[:, :1] - d.u[:, 1:], d.u_x[:, 1:] + d.u[:, :1]], dim=1)

    second = None  # type: ignore[assignment]
    speed = None  # type: ignore[assignment]

    @on("x_lower", needs="u")
    def rest(self, d: Jet) -> Tensor:
        return d.u - torch.tensor([[0.0, 1.0]], dtype=d.u.dtype)


def test_equations_in_columns_are_as_many_equations() -> None:
    model = network(Oscillator(), 2)
    system, vector = posed(Oscillator(), model), posed(Vector(), model)
    batches = [problem.draw(np.random.default_rng(0)) for problem in (system, vector)]
    for problem, batch in zip((system, vector), batches, strict=True):
        problem.begin(batch)
    losses = [float(p.loss(b).detach()) for p, b in zip((system, vector), batches, strict=True)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-14)
    values = [p.jacobian(b).spectrum(10**6).values for p, b in zip((system, vector), batches, strict=True)]
    np.testing.assert_allclose(values[1], values[0], rtol=1e-9, atol=1e-12)
    assert vector.errors()["error_l2/u.1"] == system.errors()["error_l2/v"]


SMALL = ["pde=kovasznay_2d", "sampler=uniform", "sampler.interior=20", "sampler.boundary=8", "diagnostics=none"]
NETWORK = ["model=mlp", "model.hidden=[6]", "method.steps=30", "method.log_every=10", "method.compile=never"]


def test_separate_networks_share_no_parameter_and_no_seed(compose: Compose) -> None:
    one, two = (build(compose(*SMALL, *NETWORK, "model.separate=true", f"seed={seed}")) for seed in (0, 1))
    model, other = one.problem.model, two.problem.model
    assert sum(p.numel() for p in model.parameters()) == 3 * (2 * 6 + 6 + 6 + 1)
    first = MLP(2, [6], "tanh", 0)
    x = torch.rand(5, 2, dtype=torch.float64)
    torch.testing.assert_close(model(x)[:, :1], first(x), rtol=0, atol=0)
    columns = [*model(x).T, *other(x).T]
    assert len({tuple(c.tolist()) for c in columns}) == 6


@pytest.mark.parametrize("words", [["optimizer=ssbroyden"], ["method=gauss_newton"], ["model.separate=true"]])
def test_a_system_trains_and_each_unknown_has_its_error(compose: Compose, tmp_path: Path, words: list[str]) -> None:
    record = run(build(compose(*SMALL, *NETWORK, *words)), tmp_path)
    losses = record.series["loss"]
    assert losses[29] < losses[0]
    assert {f"error_l2/{name}" for name in "uvp"} <= set(record.series)
    assert np.isfinite(record.last()["audit/derivatives"])


def test_the_ansatz_of_a_system() -> None:
    pde = Oscillator().with_exact_conditions()
    assert [e.name for e in pde.equations()] == ["first", "second"]
    x, raw = torch.tensor([[0.0], [0.5]], dtype=torch.float64), torch.tensor([[7.0, 3.0], [2.0, 4.0]]).double()
    assert pde.ansatz_at(x, raw).tolist() == [[0.0, 1.0], [1.0, 3.0]]


def test_figures_have_a_panel_for_each_unknown() -> None:
    for pde, panels in ((Oscillator(), 2), (Kovasznay2D(), 6)):
        problem = posed(pde, network(pde, len(pde.unknowns)))
        drawn = [axes.get_title() or axes.get_ylabel() for axes in figures.solution(problem).axes]
        assert len([title for title in drawn if title]) == panels
        assert len([axes for axes in figures.error(problem).axes if axes.get_ylabel()]) >= len(pde.unknowns)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["model=random_features", "model.separate=true"], "model.separate=true is for networks, and all unknowns"),
        (["model=random_features"], "'momentum_x' of this PDE is not linear in u, v, p: choose method=newton_le"),
    ],
)
def test_what_a_system_cannot_have_is_refused(
    compose: Compose, tmp_path: Path, words: list[str], sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        run(build(compose(*SMALL, *words)), tmp_path)


def test_declarations_that_make_no_system_are_refused() -> None:
    def made(**attributes: object) -> PDE:
        kind: Any = dataclass(frozen=True)(type("Made", (Oscillator,), {"__module__": __name__, **attributes}))
        pde: PDE = kind()
        return pde

    for unknowns, sentence in {
        ("u", "u"): r"has the unknowns \('u', 'u'\): expected different names",
        "uv": "has the unknowns 'uv': expected different names",
        ("u", "n"): "has an unknown 'n': expected letters and digits",
        ("u", "v_1"): "has an unknown 'v_1': expected letters and digits",
        ("u", "x"): r"has a coordinate 'x': expected a letter other than u, x",
        (
            "u",
            "w",
        ): "of the equation 'first' of Made: 'v' names no derivative of u, w over the coordinates x: expected",
    }.items():
        with pytest.raises(UsageError, match=sentence):
            made(unknowns=unknowns)
    pde = Oscillator()
    problem = posed(pde, network(pde, 3))
    with pytest.raises(UsageError, match="the model has 3 columns, and Oscillator the unknowns u, v: expected one for"):
        problem.begin(problem.draw(np.random.default_rng(0)))
    short = made(exact=lambda self, d: torch.sin(d.x))
    problem = posed(short, network(pde, 2))
    with pytest.raises(UsageError, match="the exact solution has 1 columns and the model 2: expected one for each"):
        problem.begin(problem.draw(np.random.default_rng(0)))


SYSTEM = ["trusted_modules=[test_systems]", "pde=poisson_1d", "~pde.weights", "~pde.frequency", "pde.conditions=exact"]


def test_an_ansatz_that_holds_a_number_for_one_unknown_alone_is_seen(compose: Compose) -> None:
    words = [*SYSTEM, "pde._target_=test_systems.Faster", "model=two_layer", "pde.learn={swing: {start: 1.0}}"]
    with pytest.raises(UsageError, match=r"the ansatz of Faster holds swing=2, and pde\.learn\.swing is to find it"):
        build(compose(*words))


def test_features_that_unknowns_share_want_one_ansatz_for_all(compose: Compose) -> None:
    """With it u = features a still; with others, or with given values, least squares solved another problem."""
    words = [*SYSTEM, "model=random_features", "model.features=5"]
    model = build(compose(*words, "pde._target_=test_systems.Still", "++pde.factor=1.0")).problem.model
    form = linear_form(model)
    assert form is not None
    with torch.no_grad():
        form.coefficients.copy_(torch.randn(5, 2, generator=torch.Generator().manual_seed(0)))
        x = torch.linspace(0, 1, 7, dtype=torch.float64)[:, None]
        torch.testing.assert_close(model(x), form.features(x) @ form.coefficients, rtol=0, atol=100 * EPS)
    with pytest.raises(UsageError, match=r"changes each unknown in its own way, and all 2 share the features of"):
        build(compose(*words, "pde._target_=test_systems.Still"))
    with pytest.raises(UsageError, match=r"adds a function to the features of RandomFeatures, because the conditions"):
        build(compose(*words, "pde._target_=test_systems.Oscillator"))
