"""The lid-driven cavity: published velocities, the equations themselves, corners, and what certifies the reference."""

import math
from pathlib import Path

import numpy as np
import pytest

from pde_train.errors import RunError, UsageError
from pde_train.pdes import lid_driven_cavity_2d
from pde_train.pdes.lid_driven_cavity_2d import LIDS, LidDrivenCavity2D
from pde_train.references import cavity
from pde_train.references.cavity import ALONG_X, ALONG_Y, BIHARMONIC, LAPLACIAN_X, LAPLACIAN_Y, Cavity

CONSTANT, PARABOLIC = LIDS["constant"], LIDS["parabolic"]


@pytest.mark.parametrize(
    ("reynolds", "u", "v"),
    [  # on the lines x = 1/2 and y = 1/2: (coordinate, velocity)
        (100.0, [(0.5, -0.20581), (0.4531, -0.21090)], [(0.2344, 0.17527), (0.8047, -0.24533)]),
        (400.0, [(0.5, -0.11477), (0.2813, -0.32726)], [(0.2266, 0.30203), (0.8594, -0.44993)]),
    ],
)
def test_velocities_are_those_of_ghia(
    reynolds: float, u: list[tuple[float, float]], v: list[tuple[float, float]]
) -> None:
    """To 1 % of the lid's velocity; their second-order scheme on 129 x 129 points is itself off by 0.008."""
    x = [(0.5, y) for y, _ in u] + [(x, 0.5) for x, _ in v]
    found = Cavity(reynolds, CONSTANT).at(np.array(x), 32)
    np.testing.assert_allclose(found[: len(u), 0], [value for _, value in u], rtol=0, atol=0.01)
    np.testing.assert_allclose(found[len(u) :, 1], [value for _, value in v], rtol=0, atol=0.01)


def test_extrema_are_those_of_a_spectral_solution() -> None:
    """Botella and Peyret, Computers & Fluids 27 (1998), table 5, at R = 100."""
    x = np.array([(0.5, 0.4581), (0.2370, 0.5), (0.8104, 0.5)])
    found = Cavity(100.0, CONSTANT).at(x, 32)
    assert found[0, 0] == pytest.approx(-0.2140424, abs=1e-6)
    assert found[1:, 1] == pytest.approx([0.1795728, -0.2538030], abs=1e-6)


@pytest.mark.parametrize("lid", LIDS)
def test_the_flow_satisfies_the_momentum_equations_and_the_conditions(lid: str) -> None:
    """By central differences of second order of what the reference returns."""
    flow, reynolds, h = Cavity(100.0, LIDS[lid]), 100.0, 1e-3
    x = np.random.default_rng(0).uniform(0.1, 0.9, (40, 2))
    shifts = np.array([(0, 0), (h, 0), (-h, 0), (0, h), (0, -h)])
    here, right, left, up, down = flow.at((x + shifts[:, None]).reshape(-1, 2), 32).reshape(5, 40, 3)
    along_x, along_y = (right - left) / (2 * h), (up - down) / (2 * h)
    laplacian = (right + left + up + down - 4 * here) / h**2
    convection = here[:, :1] * along_x + here[:, 1:2] * along_y
    momentum = convection[:, :2] + np.stack([along_x[:, 2], along_y[:, 2]], axis=1) - laplacian[:, :2] / reynolds
    assert np.abs(momentum).max() < 2e-3 * np.abs(convection[:, :2]).max()
    assert np.abs(along_x[:, 0] + along_y[:, 1]).max() < 1e-3  # of third derivatives up to 1e3 near the corners
    s = np.linspace(0.02, 0.98, 25)
    walls = np.concatenate([np.stack(pair, axis=1) for pair in ((0 * s, s), (0 * s + 1, s), (s, 0 * s))])
    assert np.abs(flow.at(walls, 32)[:, :2]).max() < 1e-4
    at_lid = flow.at(np.stack([s, 0 * s + 1], axis=1), 32)
    given = np.ones_like(s) if lid == "constant" else 4 * s * (1 - s)
    assert np.abs(at_lid[:, 0] - given).max() < 1e-4
    assert np.abs(at_lid[:, 1]).max() < 1e-4


def test_the_flow_in_a_sector_satisfies_the_equation_up_to_higher_powers() -> None:
    """The first term is Taylor's: psi = r (pi^2 / 4 sin phi - pi phi / 2 sin phi - phi cos phi) / (pi^2 / 4 - 1)."""
    terms = cavity._sector((1.0,), 30.0)
    angle = np.linspace(0, math.pi / 2, 9)
    z = 0.3 * np.exp(1j * angle)
    taylor = (math.pi / 2) ** 2 * np.sin(angle) - math.pi / 2 * angle * np.sin(angle) - angle * np.cos(angle)
    np.testing.assert_allclose(cavity._values(terms, z), -0.3 * taylor / (math.pi**2 / 4 - 1), rtol=0, atol=1e-14)
    sizes = []
    for terms in (cavity._sector((1.0,), 30.0), cavity._sector((1.0, 0.0), 30.0)):
        for radius in (1e-3, 1e-4):
            at = [
                cavity._values(cavity._applied(o, terms), radius * np.exp(1j * angle))
                for o in (BIHARMONIC, ALONG_X, ALONG_Y, LAPLACIAN_X, LAPLACIAN_Y)
            ]
            left = at[0] - 30.0 * (at[2] * at[3] - at[1] * at[4])
            sizes.append(np.abs(left).max() * radius**2)
    assert sizes[0] == pytest.approx(sizes[1])  # what is left of one term is like r^(-2), and of two like 1 / r
    assert sizes[2] == pytest.approx(10 * sizes[3], rel=0.1)


def test_the_pressure_is_zero_at_the_origin_and_errors_are_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PDE_TRAIN_CACHE", str(tmp_path))
    monkeypatch.setattr(lid_driven_cavity_2d, "DEGREES", (20, 26))
    pde = LidDrivenCavity2D(reynolds=20.0, lid="parabolic")
    assert "away" not in pde.numbers()
    axis = np.linspace(0, 1, 11)
    x = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    found = pde.reference(x[pde.domain.contains(x)])
    assert found.error < 1e-4
    assert found.values[0].tolist() == pytest.approx([0, 0, 0], abs=1e-5)
    assert found.values[0, 2] == 0


def test_a_flow_that_is_not_found_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cavity, "MOST_ITERATIONS", 2)
    with pytest.raises(RunError, match=r"no flow in the cavity was found at reynolds=200.0 in 2 iterations"):
        Cavity(200.0, CONSTANT).at(np.array([[0.5, 0.5]]), 12)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"lid": "moving"}, r"pde\.lid=moving is unknown: expected one of constant, parabolic"),
        ({"away": 0.0}, r"pde\.away=0\.0 cannot be used: expected a positive number"),
        ({"reynolds": -1.0}, r"pde\.reynolds=-1\.0 cannot be used: expected a positive number"),
    ],
)
def test_what_is_no_cavity_is_refused(fields: dict[str, object], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        LidDrivenCavity2D(**fields)  # type: ignore[arg-type]  # wrong ones
