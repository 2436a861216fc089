"""Equations, models and samplers of a user's own, with the slips that a first one has."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pde_train.derivatives import Jet
from pde_train.diagnostics.none import NoDiagnostics
from pde_train.differentiators.reverse import Reverse
from pde_train.differentiators.taylor import Taylor
from pde_train.entropy import Entropy
from pde_train.errors import UsageError
from pde_train.geometry import Box, Domain, Points
from pde_train.methods.least_squares import LeastSquares
from pde_train.models.random_features import RandomFeatures
from pde_train.pdes.base import PDE, on
from pde_train.pdes.poisson_1d import Poisson1D
from pde_train.problem import Problem
from pde_train.residuals import evaluate
from pde_train.runs import artifacts
from pde_train.runs.provenance import config_hash
from pde_train.samplers.base import Sampler
from pde_train.samplers.grid import Grid
from pde_train.samplers.uniform import Uniform
from pde_train.tracking.none import NoTracker
from pde_train.tracking.record import Record


@dataclass(frozen=True)
class Own(PDE):
    """-u'' = 1 on [0, 1], u = 0 at both ends, without an exact solution."""

    coordinates = ("x",)
    domain = Box((0.0,), (1.0,))

    @on("interior", needs="u_xx")
    def heat(self, d: Jet) -> Tensor:
        return -d.u_xx - 1

    @on("boundary", needs="u")
    def ends(self, d: Jet) -> Tensor:
        return d.u


def solved(pde: PDE, sampler: Sampler | None = None, features: int = 60) -> tuple[Problem, Record]:
    """The problem, and the metrics of its solution by least squares."""
    dimension = pde.domain.dimension
    model = RandomFeatures(dimension, features, "tanh", 3.0, 0)
    problem = Problem(pde, model, Taylor(), sampler or Grid(100 if dimension == 1 else 400, 40))
    record = Record(NoTracker(), Entropy([1e-8]))
    LeastSquares().fit(problem, record, NoDiagnostics(), Path())
    return problem, record


# --- inheritance


@dataclass(frozen=True)
class AnotherSource(Poisson1D):
    @on("interior", needs="u_xx")
    def poisson(self, d: Jet) -> Tensor:
        return -d.u_xx - 2.0


@dataclass(frozen=True)
class WithoutAMark(Poisson1D):
    def poisson(self, d: Jet) -> Tensor:
        return -d.u_xx - 3.0


@dataclass(frozen=True)
class Free(Poisson1D):
    value = None  # type: ignore[assignment]  # an equation of the base class that has no part here


@dataclass(frozen=True)
class More(AnotherSource):
    @on("x_lower", needs="u_x")
    def slope(self, d: Jet) -> Tensor:
        return d.u_x


def test_equations_are_inherited_and_overridden_by_name() -> None:
    names = {kind: [e.name for e in kind().equations()] for kind in (AnotherSource, WithoutAMark, Free, More)}
    assert names[AnotherSource] == names[WithoutAMark] == ["poisson", "value"]
    assert names[Free] == ["poisson"]
    assert names[More] == ["poisson", "value", "slope"]
    points = {"interior": Points(torch.linspace(-1, 1, 5).double().unsqueeze(1))}
    for kind, source in ((AnotherSource, 2.0), (WithoutAMark, 3.0), (More, 2.0)):
        found = evaluate(kind(), lambda x: x**2, Reverse(), points)["poisson"]
        torch.testing.assert_close(found, torch.full((5, 1), -2.0 - source).double())


def test_an_inherited_boundary_condition_holds_in_the_solution() -> None:
    problem, _ = solved(AnotherSource())
    ends = torch.tensor([[-1.0], [1.0]]).double()
    x = torch.linspace(-1, 1, 50).double().unsqueeze(1)
    torch.testing.assert_close(problem.model(ends), problem.exact(ends), atol=1e-10, rtol=0)
    torch.testing.assert_close(problem.model(x), 1 - x**2, atol=1e-9, rtol=0)  # of -u'' = 2, u = 0 at both ends


# --- no exact solution


def test_a_problem_without_an_exact_solution_has_all_but_errors() -> None:
    problem, record = solved(Own())
    assert problem.errors() == {}
    assert record.last()["residual"] < 1e-12
    x = problem.test_batch["interior"].x
    torch.testing.assert_close(problem.model(x), x * (1 - x) / 2, atol=1e-10, rtol=0)
    drawn = artifacts.draw(problem, record, Entropy([1e-8]))
    assert "solution" in drawn
    assert "error" not in drawn


@dataclass(frozen=True)
class Zero(Own):
    """u = 0 solves u'' = 0."""

    def exact(self, d: Jet) -> Tensor:
        return 0 * d.x

    def heat(self, d: Jet) -> Tensor:
        return d.u_xx


def test_the_error_of_a_solution_that_is_0_is_absolute() -> None:
    def quarter(x: Tensor) -> Tensor:
        return 0 * x + 0.25

    problem = Problem(Zero(), quarter, Taylor(), Grid(9, 2))  # type: ignore[arg-type]  # it is only called
    assert problem.errors() == {"error_l2": pytest.approx(0.25), "error_max": pytest.approx(0.25)}


@dataclass(frozen=True)
class NoNumber(Own):
    def exact(self, d: Jet) -> Tensor:
        return torch.log(d.x - 0.5)


# --- slips, each refused before the first step


@dataclass(frozen=True)
class Flat(Own):
    def heat(self, d: Jet) -> Tensor:
        return -d.u_xx - torch.sin(d.x).squeeze(-1)


@dataclass(frozen=True)
class Singular(Own):
    def heat(self, d: Jet) -> Tensor:
        return -d.u_xx - d.u_xx / d.x


@dataclass(frozen=True)
class TooFewNeeds(Own):
    def heat(self, d: Jet) -> Tensor:
        return -d.u_xx - d.u_x


@dataclass(frozen=True)
class Raises(Own):
    def heat(self, d: Jet) -> Tensor:
        return -d.u_xx - d.u_xx[:, 3]


@dataclass(frozen=True)
class Nothing(Own):
    def heat(self, d: Jet) -> Any:
        pass


@pytest.mark.parametrize(
    ("pde", "sentence"),
    [
        (Flat(), r"the residual of 'heat' of Flat has the shape \(100, 100\) at 100 points: expected one column"),
        (Singular(), r"the residual of 'heat' of Singular is nan at 1 of 100 points, first at \(0\), before any train"),
        (
            TooFewNeeds(),
            r"'heat' of TooFewNeeds cannot be evaluated .* no 'u_x', only u_xx, x: add it to needs= in @on",
        ),
        (Raises(), "the residual of 'heat' of Raises cannot be evaluated .IndexError"),
        (Nothing(), "the residual of 'heat' of Nothing has type NoneType at 100 points"),
        (NoNumber(), "the exact solution is nan at 501 of 1001 points, first at .0., before any training"),
    ],
)
def test_what_cannot_be_trained_is_refused_by_the_name_of_its_equation(pde: PDE, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        solved(pde)


def test_a_model_with_two_columns_is_refused() -> None:
    def twice(x: Tensor) -> Tensor:
        return torch.cat([x, x], dim=1)

    problem = Problem(Own(), twice, Taylor(), Grid(9, 2))  # type: ignore[arg-type]  # it is only called
    with pytest.raises(UsageError, match=r"the model has 2 columns, and no equation of Own couples them: expected one"):
        problem.begin(problem.draw(np.random.default_rng(0)))


def declared(**about: object) -> type[Own]:
    """A PDE as Own with other attributes."""
    return dataclass(frozen=True)(type("Declared", (Own,), about))


@pytest.mark.parametrize(
    ("about", "sentence"),
    [
        ({"heat": None}, "Declared has no equation in the interior"),
        ({"coordinates": ("x", "t")}, r"the coordinates \(x, t\) on a domain with 1 lower and 1 upper limits"),
        ({"coordinates": ("u",)}, "a coordinate 'u': expected a letter other than u"),
        ({"domain": Box((1.0,), (0.0,))}, "goes from x=1.0 to 0.0: expected a finite lower limit below"),
        ({"domain": Box((0.0,), (float("inf"),))}, "goes from x=0.0 to inf"),
        (
            {"heat": on("interior", needs="u_yy")(lambda self, d: d.u)},
            "needs='u_yy' of the equation 'heat' of Declared",
        ),
        (
            {
                "coordinates": ("t",),
                "heat": on("interior", needs="lap_u")(lambda self, d: d.lap_u),
                "ends": on("initial", needs="u")(lambda self, d: d.u),
            },
            "needs='lap_u' of the equation 'heat' of Declared: 'lap_u' names no derivative over the coordinates t",
        ),
    ],
)
def test_a_wrong_declaration_is_refused(about: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        declared(**about)()


def test_a_class_that_is_no_dataclass_is_refused() -> None:
    class Plain(PDE):
        coordinates = ("x",)
        domain = Box((0.0,), (1.0,))

        def __init__(self) -> None:
            pass

    with pytest.raises(UsageError, match="Plain is no dataclass"):
        Plain().check()


# --- points of one's own


@dataclass(frozen=True)
class Disc(PDE):
    """-lap u = 4 in the unit disc; the exact solution says something else outside of it."""

    weights: Mapping[str, float] = field(default_factory=dict)

    coordinates = ("x", "y")
    domain = Box((-1.0, -1.0), (1.0, 1.0))

    def exact(self, d: Jet) -> Tensor:
        r2 = d.x**2 + d.y**2
        return torch.where(r2 <= 1, 1 - r2, torch.full_like(r2, 1e6))

    @on("interior", needs="lap_u")
    def poisson(self, d: Jet) -> Tensor:
        return -d.lap_u - 4

    @on("boundary", needs="u")
    def rim(self, d: Jet) -> Tensor:
        return d.u


@dataclass(frozen=True)
class DiscPoints(Uniform):
    def draw(self, box: Domain, generator: np.random.Generator, regions: Any = None) -> dict[str, Points]:
        r, a = np.sqrt(generator.uniform(size=self.interior)), generator.uniform(0, 2 * np.pi, self.interior)
        b = generator.uniform(0, 2 * np.pi, self.boundary)
        rim = torch.from_numpy(np.stack([np.cos(b), np.sin(b)], axis=1))
        return {
            "interior": Points(torch.from_numpy(np.stack([r * np.cos(a), r * np.sin(a)], axis=1))),
            "boundary": Points(rim, rim.clone()),
        }


@dataclass(frozen=True)
class NoRim(DiscPoints):
    def draw(self, box: Domain, generator: np.random.Generator, regions: Any = None) -> dict[str, Points]:
        return {"interior": super().draw(box, generator, regions)["interior"]}


def test_errors_are_measured_where_a_sampler_of_ones_own_puts_points() -> None:
    problem, record = solved(Disc(), DiscPoints(400, 80), features=200)
    x = problem.test_batch["interior"].x
    assert float(x.square().sum(1).max()) <= 1
    assert not torch.equal(x, problem.draw(np.random.default_rng(0))["interior"].x)
    assert problem.errors()["error_l2"] < 1e-3
    assert problem.residual_exact() < 0.05
    assert set(artifacts.draw(problem, record, Entropy([1e-8]))) == {"solution", "error"}


def test_a_sampler_that_forgets_a_region_is_refused() -> None:
    with pytest.raises(UsageError, match="NoRim draws no points of boundary, where equations of Disc hold"):
        solved(Disc(), NoRim(400, 80))


# --- the source of one's own module is part of what a run is


ROD = """
from dataclasses import dataclass
from pde_train.geometry import Box
from pde_train.pdes.base import PDE, on
import rod_material

@dataclass(frozen=True)
class Rod(PDE):
    coordinates = ("x",)
    domain = Box((0.0,), (1.0,))

    @on("interior", needs="u_xx")
    def heat(self, d):
        return -d.u_xx - {source}
"""


def test_the_source_of_a_module_and_of_what_it_imports_beside_it_is_part_of_the_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pde_train.runs import provenance

    monkeypatch.syspath_prepend(tmp_path)
    config = {"pde": {"_target_": "rod_of_test.Rod"}, "method": {}, "trusted_modules": ["rod_of_test"]}

    def hashed(source: str, material: int, **changes: Any) -> str:
        (tmp_path / "rod_of_test.py").write_text(ROD.format(source=source))
        (tmp_path / "rod_material.py").write_text(f"conductivity = {material}\n")
        provenance._sources.cache_clear()
        return config_hash({**config, **changes})

    first = hashed("1.0", 2)
    assert hashed("1.0", 2) == first
    assert hashed("2.0", 2) != first
    assert hashed("1.0", 3) != first
    unused = {"pde": {"_target_": "pde_train.pdes.poisson_1d.Poisson1D"}}
    assert hashed("1.0", 2, **unused) == hashed("2.0", 3, **unused)
