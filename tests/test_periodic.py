"""Periodic problems: their references against their own equations, other methods and what is conserved."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from pde_train.derivatives import Jet
from pde_train.pdes.allen_cahn_periodic_1d import AllenCahnPeriodic1D
from pde_train.pdes.base import PDE
from pde_train.pdes.gray_scott_2d import GrayScott2D
from pde_train.pdes.kdv_periodic_1d import KdVPeriodic1D
from pde_train.pdes.kuramoto_sivashinsky_periodic_1d import (
    KuramotoSivashinskyChaotic1D,
    KuramotoSivashinskyPeriodic1D,
    KuramotoSivashinskyRegular1D,
)
from pde_train.references import base

PERIODIC = [AllenCahnPeriodic1D(), KdVPeriodic1D(), KuramotoSivashinskyRegular1D(), KuramotoSivashinskyChaotic1D()]


def on_grid(pde: PDE, count: int, time: float) -> np.ndarray:
    """Equidistant points (count^k, d) in space, without the upper ends, at one time."""
    axes = [
        np.linspace(low, high, count, endpoint=False)
        for low, high in zip(pde.domain.lower[:-1], pde.domain.upper[:-1], strict=True)
    ]
    return np.stack([*np.meshgrid(*axes, indexing="ij"), np.full((count,) * len(axes), time)], -1).reshape(
        -1, len(axes) + 1
    )


def residuals_of(pde: PDE, time: float, steps: tuple[float, float]) -> list[float]:
    """The size of each equation's residual at the reference inside, relative to u_t, by differences at some points.

    Args:
        pde: The equation.
        time: The time of the points.
        steps: The steps of central differences in space and time, of 11 values each.

    Returns:
        The sizes.
    """
    points = np.random.default_rng(0).uniform(pde.domain.lower, pde.domain.upper, (200, len(pde.coordinates)))
    points[:, -1] = time
    offsets = np.arange(-5, 6)
    stencils = np.zeros((len(pde.coordinates), 11, *points.shape)) + points
    for axis, coordinate in enumerate(pde.coordinates):
        stencils[axis, ..., axis] += offsets[:, None] * steps[coordinate == "t"]
    values = pde.reference(stencils.reshape(-1, points.shape[1])).values.reshape(*stencils.shape[:-1], -1)

    def along(coordinate: str, order: int, unknown: int) -> np.ndarray:
        weights = np.linalg.solve(np.vander(offsets, increasing=True).T, math.factorial(order) * np.eye(11)[order])
        difference: np.ndarray = weights @ values[pde.coordinates.index(coordinate), ..., unknown]
        return difference / steps[coordinate == "t"] ** order

    def derivative(name: str) -> torch.Tensor:
        unknown = next(i for i, part in enumerate(pde.unknowns) if part in name.split("_"))
        if name.startswith("lap_"):
            found = sum(along(coordinate, 2, unknown) for coordinate in pde.coordinates[:-1])
        else:
            letters = name.partition("_")[2] or "t"
            found = along(letters[0], len(letters) if "_" in name else 0, unknown)
        return torch.from_numpy(found)[:, None]

    sizes = []
    for equation in pde.regions["interior"][0]:
        columns = {name: derivative(name) for name in equation.request.names}
        rate = next(column for name, column in columns.items() if name.endswith("_t"))
        sizes.append(float(equation.residual(Jet(columns)).norm() / rate.norm()))
    return sizes


@pytest.fixture
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few modes of Gray and Scott's equations, of small times alone."""
    monkeypatch.setattr("pde_train.pdes.gray_scott_2d.RESOLUTIONS", ((128, 1 / 8), (256, 1 / 16)))


@pytest.mark.usefixtures("coarse")
@pytest.mark.parametrize(
    ("pde", "time", "steps"),
    [
        (AllenCahnPeriodic1D(), 0.4, (0.001, 1 / 200)),
        (KdVPeriodic1D(), 0.5, (0.002, 1 / 1000)),
        (KuramotoSivashinskyRegular1D(), 0.3, (0.01, 1 / 2000)),
        (KuramotoSivashinskyChaotic1D(), 0.2, (0.006, 1 / 2000)),
        (GrayScott2D(), 1.5, (0.005, 1 / 4)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, PDE) else None,
)
def test_a_reference_satisfies_the_equations_of_its_pde(pde: PDE, time: float, steps: tuple[float, float]) -> None:
    assert max(residuals_of(pde, time, steps)) < 1e-6


@pytest.mark.parametrize("pde", [*PERIODIC, GrayScott2D()], ids=lambda pde: type(pde).__name__)
@pytest.mark.usefixtures("coarse")
def test_a_reference_begins_where_its_pde_does(pde: Any) -> None:
    x = on_grid(pde, 41, 0.0)
    u = torch.from_numpy(pde.reference(x).values)
    columns = {name: torch.from_numpy(x[:, [i]]) for i, name in enumerate(pde.coordinates)}
    for equation in pde.regions["initial"][0]:
        names = {name: u[:, [i]] for i, name in enumerate(pde.unknowns)}
        assert float(equation.residual(Jet(columns | names)).abs().max()) == 0


@pytest.mark.parametrize("pde", [*PERIODIC, GrayScott2D()], ids=lambda pde: type(pde).__name__)
def test_an_ansatz_begins_where_its_pde_does(pde: PDE) -> None:
    x = torch.from_numpy(on_grid(pde, 8, 0.0))
    raw = torch.from_numpy(np.random.default_rng(0).standard_normal((len(x), len(pde.unknowns))))
    values = pde.ansatz_at(x, raw)
    columns = {name: x[:, [i]] for i, name in enumerate(pde.coordinates)}
    columns |= {name: values[:, [i]] for i, name in enumerate(pde.unknowns)}
    assert {equation.name for equation in pde.regions["initial"][0]} == set(pde.fulfilled)
    for equation in pde.regions["initial"][0]:
        assert float(equation.residual(Jet(columns)).abs().max()) < 1e-15
    assert not torch.equal(pde.ansatz_at(x + 0.1, raw), pde.ansatz_at(x + 0.1, 2 * raw))


def test_allen_cahn_stays_even_and_between_its_stable_states() -> None:
    """By the maximum principle |u| <= 1; where the reaction has run its course, u is near -1 or 1."""
    values = AllenCahnPeriodic1D().reference(on_grid(AllenCahnPeriodic1D(), 200, 0.5)).values[:, 0]
    assert np.abs(values).max() <= 1 + 1e-9
    np.testing.assert_allclose(values[1:], values[1:][::-1], rtol=0, atol=1e-10)
    assert values[0] < -0.9
    # at the center u_xx = 2 at first, too little for the reaction: a scale of 1e-4 beside rates of 5
    assert 0 < values[100] < 0.01


def test_kdv_keeps_mass_momentum_and_energy() -> None:
    """The means of u, u^2 and u^3 / 3 - delta^2 u_x^2, of the start: 0, 1/2, -delta^2 pi^2 / 2."""
    pde = KdVPeriodic1D()
    u = pde.reference(on_grid(pde, 512, 0.6)).values[:, 0]
    slope = np.fft.ifft(1j * math.pi * np.fft.fftfreq(512, 1 / 512) * np.fft.fft(u)).real
    assert np.mean(u) == pytest.approx(0, abs=1e-12)
    assert np.mean(u**2) == pytest.approx(1 / 2, abs=1e-9)
    assert np.mean(u**3 / 3 - pde.delta**2 * slope**2) == pytest.approx(-(pde.delta**2) * math.pi**2 / 2, abs=1e-9)


def test_kdv_is_burgers_without_viscosity_until_it_steepens() -> None:
    """Without dispersion u = cos(pi (x - u t)); at t = 0.05 dispersion moves waves of number pi by 7e-4."""
    pde = KdVPeriodic1D()
    x = on_grid(pde, 100, 0.05)
    u = pde.reference(x).values[:, 0]
    assert np.abs(u - np.cos(math.pi * (x[:, 0] - u * 0.05))).max() < 3e-3


@pytest.mark.parametrize(
    ("pde", "count", "time"), [(KuramotoSivashinskyRegular1D(), 64, 0.3), (KuramotoSivashinskyChaotic1D(), 256, 0.1)]
)
def test_kuramoto_sivashinsky_agrees_with_another_method(
    pde: KuramotoSivashinskyPeriodic1D, count: int, time: float
) -> None:
    """Values on few points with derivatives by FFT, and implicit Runge-Kutta steps."""
    x = on_grid(pde, count, time)
    waves = 2 * math.pi / pde.domain.lengths[0] * np.fft.rfftfreq(count, 1 / count)

    def rate(t: float, u: np.ndarray) -> np.ndarray:
        linear = (pde.beta * waves**2 - pde.gamma * waves**4) * np.fft.rfft(u)
        found: np.ndarray = np.fft.irfft(linear - 1j * waves * pde.alpha / 2 * np.fft.rfft(u**2))
        return found

    start = pde.initial(torch.from_numpy(x[:, 0])).numpy()
    u = solve_ivp(rate, (0, time), start, "Radau", rtol=1e-8, atol=1e-9).y[:, -1]
    np.testing.assert_allclose(pde.reference(x).values[:, 0], u, rtol=0, atol=1e-6)
    assert u.mean() == pytest.approx(0, abs=1e-8)  # which the equation conserves


def test_the_regular_solution_stays_odd() -> None:
    u = KuramotoSivashinskyRegular1D().reference(on_grid(KuramotoSivashinskyRegular1D(), 64, 0.3)).values[:, 0]
    np.testing.assert_allclose(u[1:], -u[1:][::-1], rtol=0, atol=1e-9)


def test_short_waves_decay_and_long_ones_grow_as_the_linear_equation_says() -> None:
    """Of a start of size 1e-8 convection is 1e-16: u = 1e-8 exp((beta k^2 - gamma k^4) t) sin(k x), k = 10 and 20."""

    @dataclass(frozen=True)
    class Small(KuramotoSivashinskyChaotic1D):
        def initial(self, x: torch.Tensor) -> torch.Tensor:
            return 1e-8 * (torch.sin(10 * x) + torch.sin(20 * x))

    x = on_grid(Small(), 64, 0.02)
    modes = [math.exp((100 * k**2 / 256 - 100 * k**4 / 65536) * 0.02) * np.sin(k * x[:, 0]) for k in (10, 20)]
    np.testing.assert_allclose(Small().reference(x).values[:, 0], 1e-8 * sum(modes), rtol=0, atol=1e-15)


@pytest.mark.parametrize("pde", PERIODIC, ids=lambda pde: type(pde).__name__)
def test_the_error_that_is_stated_is_small(pde: PDE) -> None:
    x = np.random.default_rng(0).uniform(pde.domain.lower, (pde.domain.upper[0], 0.1), (50, 2))
    assert 0 < pde.reference(x).error < base.WORST / 1000


@pytest.mark.usefixtures("coarse")
def test_gray_and_scott_without_differences_in_space_are_a_system_of_two() -> None:
    @dataclass(frozen=True)
    class Stirred(GrayScott2D):
        def initial(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.full_like(x, 0.6), torch.full_like(x, 0.3)

    def rate(t: float, w: np.ndarray) -> np.ndarray:
        u, v = w
        return np.array([0.04 * (1 - u) - u * v**2, u * v**2 - 0.1 * v])

    times = np.linspace(0, 5, 9)
    points = np.stack([np.linspace(-1, 1, 9), np.linspace(0.3, -0.9, 9), times], axis=1)
    w = solve_ivp(rate, (0, 5), [0.6, 0.3], "DOP853", times, rtol=1e-10, atol=1e-12).y.T
    np.testing.assert_allclose(Stirred().reference(points).values, w, rtol=0, atol=1e-6)
