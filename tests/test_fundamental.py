"""Sources outside of the domain: harmonic functions, the maximum principle, and finite elements as a second way."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import Delaunay
from scipy.special import iv
from skfem import Basis, ElementTriP2, LinearForm, MeshTri, asm, condense, solve
from skfem.models.poisson import laplace, mass

from pde_train.pdes import poisson_boltzmann_2d, poisson_holes, poisson_l_shape
from pde_train.pdes.base import PDE
from pde_train.pdes.poisson_boltzmann_2d import PoissonBoltzmann2D
from pde_train.pdes.poisson_holes import PoissonHoles
from pde_train.pdes.poisson_l_shape import PoissonLShape
from pde_train.references.fundamental import Screened, Values

SQUARE = poisson_boltzmann_2d.CORNERS
DISC = (0.3, 0.0, 0.4)
Corners = Sequence[tuple[float, float]]


@pytest.fixture(autouse=True)
def computed_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PDE_TRAIN_CACHE", str(tmp_path))


def pole(x: np.ndarray) -> np.ndarray:
    """A harmonic function that has a pole in the disc."""
    z = x[:, 0] + 1j * x[:, 1]
    return np.real(np.exp(z) + 1 / (z - 0.3))


def bessel(x: np.ndarray) -> np.ndarray:
    """A solution of lap u = 9 u."""
    return iv(2, 3 * np.linalg.norm(x, axis=1)) * np.cos(2 * np.arctan2(x[:, 1], x[:, 0]))


def points_around_the_disc() -> np.ndarray:
    x = np.random.default_rng(0).uniform(-1, 1, (500, 2))
    return x[np.linalg.norm(x - DISC[:2], axis=1) > DISC[2]]


def test_solutions_in_closed_form_are_found() -> None:
    x = points_around_the_disc()
    for k, exact in ((0.0, pole), (3.0, bessel)):
        u = Screened(SQUARE, exact, [DISC], exact, k).solved(30)
        np.testing.assert_allclose(u(x), exact(x), rtol=0, atol=1e-8)


def test_the_singularity_of_a_corner_is_found() -> None:
    """On an L: r^(2/3) sin(2/3 (angle - pi/2)), which is 0 on both edges at the corner (0, 0)."""

    def corner(x: np.ndarray) -> np.ndarray:
        angle = np.arctan2(x[:, 1], x[:, 0]) - math.pi / 2
        angle = np.where(angle < -1e-9, angle + 2 * math.pi, angle)
        return np.linalg.norm(x, axis=1) ** (2 / 3) * np.sin(2 / 3 * angle)

    x = np.random.default_rng(0).uniform(-1, 0, (200, 2)) * 10.0 ** -np.arange(0, 10, 0.05)[:, None]
    u = Screened(poisson_l_shape.CORNERS, corner).solved(40)
    np.testing.assert_allclose(u(x), corner(x), rtol=0, atol=3e-7)


def test_no_error_inside_is_larger_than_the_one_on_the_boundary() -> None:
    """The maximum principle, with points of the boundary that the coefficients have not seen."""
    exact, k = bessel, 3.0
    equation = Screened(SQUARE, exact, [DISC], exact, k)
    inside = points_around_the_disc()
    for count in (3, 6):
        u = equation.solved(count)
        x, values = equation.boundary(301)
        bound = np.abs(u(x) - values).max()
        assert bound / 30 < np.abs(u(inside) - exact(inside)).max() <= bound


def ones(x: np.ndarray) -> np.ndarray:
    return np.ones(len(x))


def square_waves(x: np.ndarray) -> np.ndarray:
    """The source of the Poisson-Boltzmann equation."""
    return 10 * (17 + (x**2).sum(axis=1)) * np.sin(math.pi * x[:, 0]) * np.sin(4 * math.pi * x[:, 1])


@dataclass(frozen=True)
class Case:
    """-lap u + k^2 u = load, and what is given on its boundary."""

    pde: PDE
    corners: Corners
    discs: Sequence[tuple[float, float, float]]
    load: Values
    k: float
    outer: float
    inner: float

    def given(self) -> Screened:
        """The conditions alone."""
        return Screened(
            self.corners, lambda x: self.outer * ones(x), self.discs, lambda x: self.inner * ones(x), self.k
        )

    def by_finite_elements(self, step: float) -> tuple[np.ndarray, np.ndarray]:
        """Quadratic elements on a grid in the domain and points of its circles: points and values."""
        domain, half = self.pde.domain, max(self.pde.domain.upper)
        axis = np.linspace(-half, half, round(2 * half / step) + 1)
        nodes = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
        for x, y, radius in self.discs:
            angles = np.linspace(0, 2 * math.pi, math.ceil(2 * math.pi * radius / step), endpoint=False)
            circle = [x, y] + radius * np.column_stack([np.cos(angles), np.sin(angles)])
            far = np.linalg.norm(nodes - [x, y], axis=1) > radius + 0.4 * step
            nodes = np.concatenate([nodes[far], circle])
        triangles = Delaunay(nodes).simplices
        centers = nodes[triangles].mean(axis=1)
        mesh = MeshTri(nodes.T, triangles[domain.contains(centers)].T).remove_unused_nodes()
        basis = Basis(mesh, ElementTriP2())
        matrix = asm(laplace, basis) + self.k**2 * asm(mass, basis)
        load = asm(LinearForm(lambda v, w: self.load(w.x.reshape(2, -1).T).reshape(w.x.shape[1:]) * v), basis)
        rim = basis.get_dofs().all()
        on_square = np.abs(basis.doflocs[:, rim]).max(axis=0) > half - 1e-9
        values = np.zeros(basis.N)
        values[rim] = np.where(on_square | (not self.discs), self.outer, self.inner)
        found = solve(*condense(matrix, load, x=values, D=rim))
        return mesh.p.T, found[basis.nodal_dofs[0]]


CASES = {
    "l": Case(PoissonLShape(), poisson_l_shape.CORNERS, (), ones, 0.0, 0.0, 0.0),
    "holes": Case(PoissonHoles(), poisson_holes.CORNERS, poisson_holes.DISCS, lambda x: 0 * ones(x), 0.0, 1.0, 0.0),
    "poisson_boltzmann": Case(PoissonBoltzmann2D(), SQUARE, poisson_boltzmann_2d.DISCS, square_waves, 8.0, 0.2, 1.0),
}


@pytest.mark.parametrize("name", CASES)
def test_conditions_hold_on_points_that_the_reference_has_not_seen(name: str) -> None:
    """So that, by the maximum principle, no value in the domain is further from the solution."""
    case = CASES[name]
    x, values = case.given().boundary(333)
    inside = np.random.default_rng(0).uniform(case.pde.domain.lower, case.pde.domain.upper, (999, 2))
    found = case.pde.reference(np.concatenate([x, inside[case.pde.domain.contains(inside)]]))
    assert np.abs(found.values[: len(x), 0] - values).max() < 1e-7
    assert found.error < 5e-7  # also at distances of 1e-9 from the corner of an L


@pytest.mark.parametrize(("name", "step"), [("l", 0.025), ("holes", 0.0125), ("poisson_boltzmann", 0.025)])
def test_finite_elements_converge_to_the_reference(name: str, step: float) -> None:
    """By the order 4/3 of the corner of an L on a uniform mesh, and by 2 where straight edges replace circles."""
    errors = []
    for size in (2 * step, step):
        x, values = CASES[name].by_finite_elements(size)
        reference = CASES[name].pde.reference(x).values[:, 0]
        errors.append(np.linalg.norm(values - reference) / np.linalg.norm(reference))
    assert errors[0] / errors[1] > (2.3 if name == "l" else 3.1)
    assert errors[1] < 1.5e-3
