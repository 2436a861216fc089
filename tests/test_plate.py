"""The clamped plate: Timoshenko's deflection at the centre, its conditions, and finite elements as a second way."""

import math

import numpy as np
import pytest
import torch
from skfem import Basis, BilinearForm, ElementTriMorley, MeshTri, condense, solve
from skfem.helpers import dd, ddot

from pde_train.derivatives import Jet
from pde_train.pdes.clamped_plate_2d import ClampedPlate2D, deflection


def whole_deflection(x: np.ndarray) -> np.ndarray:
    """w = u + r^2 ln r / (8 pi)."""
    square = (x**2).sum(axis=1)
    return deflection(x, 24) + square * np.log(np.maximum(square, 1e-300)) / (16 * math.pi)


def test_the_deflection_at_the_centre_is_the_published_one() -> None:
    """Timoshenko and Woinowsky-Krieger: 0.00560 P a^2 / D, to as many digits as they give."""
    assert whole_deflection(np.zeros((1, 2)))[0] == pytest.approx(0.00560, abs=2e-5)


def test_the_plate_is_clamped_on_all_sides() -> None:
    s = np.linspace(-0.5, 0.5, 101)
    edge = np.full_like(s, 0.5)
    for sign in (-1, 1):
        for pair in ((sign * edge, s), (s, sign * edge)):
            x = np.stack(pair, axis=1)
            assert np.abs(whole_deflection(x)).max() < 1e-9
            assert np.abs(whole_deflection(x * (1 - 1e-3))).max() < 1e-6  # like the square of the distance


def test_residuals_of_the_reference_vanish() -> None:
    """The conditions of the PDE, by central differences of the reference."""
    pde, h = ClampedPlate2D(), 1e-4
    s = np.linspace(-0.45, 0.45, 19)
    x = np.stack([np.full_like(s, 0.5), s], axis=1)
    u = deflection(x, 24)
    u_x, u_y = ((deflection(x + step, 24) - deflection(x - step, 24)) / (2 * h) for step in h * np.eye(2))
    columns = {"x": x[:, 0], "y": x[:, 1], "u": u, "u_x": u_x, "u_y": u_y, "n_x": 0 * s + 1, "n_y": 0 * s}
    jet = Jet({name: torch.from_numpy(column)[:, None] for name, column in columns.items()})
    assert float(pde.value(jet).abs().max()) < 1e-9
    assert float(pde.slope(jet).abs().max()) < 1e-7


def test_finite_elements_of_morley_converge_to_the_deflection() -> None:
    @BilinearForm
    def bending(u, v, w):  # type: ignore[no-untyped-def]  # skfem gives no types
        return ddot(dd(u), dd(v))

    errors = []
    for cells in (32, 64):
        axis = np.linspace(-0.5, 0.5, cells + 1)
        basis = Basis(MeshTri.init_tensor(axis, axis), ElementTriMorley())
        nodes = basis.nodal_dofs[0]
        force = np.zeros(basis.N)
        force[nodes[np.abs(basis.mesh.p).max(axis=0) < 1e-12]] = 1.0
        found = solve(*condense(bending.assemble(basis), force, D=basis.get_dofs()))[nodes]
        exact = whole_deflection(basis.mesh.p.T)
        errors.append(np.linalg.norm(found - exact) / np.linalg.norm(exact))
    assert errors[0] / errors[1] > 3.7
    assert errors[1] < 0.005
