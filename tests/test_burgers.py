"""The reference solution of Burgers' equation against a second formula, and against the equation itself."""

from collections.abc import Sequence

import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor

from pde_train import residuals
from pde_train.derivatives import Field, Jet, Request
from pde_train.differentiators.reverse import Reverse
from pde_train.geometry import Points
from pde_train.pdes.burgers_1d import VISCOSITIES, Burgers1D


def exact(pde: Burgers1D) -> Field:
    return lambda x: pde.exact(Jet({"x": x[:, :1], "t": x[:, 1:]}))


def points(xs: Sequence[float], ts: Sequence[float]) -> Tensor:
    return torch.cartesian_prod(torch.tensor(xs, dtype=torch.float64), torch.tensor(ts, dtype=torch.float64))


def by_series(points: list[list[float]], viscosity: float) -> list[float]:
    """u = -2 nu phi_x / phi, phi the Fourier series of the heat equation from exp(-a cos pi x), a = 1 / (2 pi nu).

    Its coefficients are Bessel functions (Basdevant et al., Computers & Fluids 14, 1986). Terms of alternating sign
    cancel by exp(2 a), up to 10^138 here, so that 180 digits and 4 a terms are needed.
    """
    found = []
    with mpmath.workdps(180):
        nu, pi = mpmath.mpf(viscosity), mpmath.pi
        a = 1 / (2 * pi * nu)
        start = [(1 if k == 0 else 2) * (-1) ** k * mpmath.besseli(k, a) for k in range(int(4 * a) + 50)]
        for x, t in points:
            terms = [c * mpmath.exp(-nu * (k * pi) ** 2 * t) for k, c in enumerate(start)]
            phi = mpmath.fsum(c * mpmath.cos(k * pi * x) for k, c in enumerate(terms))
            slope = mpmath.fsum(-c * k * pi * mpmath.sin(k * pi * x) for k, c in enumerate(terms))
            found.append(float(-2 * nu * slope / phi))
    return found


def by_integral(points: list[list[float]], viscosity: float) -> list[float]:
    """The integral of Hopf and Cole by a rule four times as fine, in 40 digits."""
    found = []
    with mpmath.workdps(40):
        nu, pi, h = mpmath.mpf(viscosity), mpmath.pi, mpmath.mpf("0.05")
        for x, t in points:
            nodes = int((mpmath.sqrt(t / nu) / 2 + 10) / h)
            top = bottom = mpmath.mpf(0)
            for k in range(-nodes, nodes + 1):
                y = x - 2 * k * h * mpmath.sqrt(nu * t)
                w = mpmath.exp(-((k * h) ** 2) - mpmath.cos(pi * y) / (2 * pi * nu))
                top, bottom = top + mpmath.sin(pi * y) * w, bottom + w
            found.append(float(-top / bottom))
    return found


@pytest.mark.parametrize("viscosity", [0.001, VISCOSITIES[1], Burgers1D().viscosity])
def test_the_quadrature_agrees_with_the_fourier_series(viscosity: float) -> None:
    at = points([-0.7, -0.01, 0.001, 0.4], [0.0, 1e-3, 0.3, 1.0])
    found = exact(Burgers1D(viscosity=viscosity))(at)
    np.testing.assert_allclose(found[:, 0].numpy(), by_series(at.tolist(), viscosity), rtol=0, atol=1e-12)


@pytest.mark.parametrize("viscosity", [VISCOSITIES[0], 0.0003])
def test_small_viscosities_agree_with_forty_digits(viscosity: float) -> None:
    at = points([-0.7, -0.001, 0.0001, 0.4], [0.3, 1.0])
    found = exact(Burgers1D(viscosity=viscosity))(at)
    # exponents up to 1 / (2 pi nu) = 5000, whose rounding is 5000 eps = 1e-12
    np.testing.assert_allclose(found[:, 0].numpy(), by_integral(at.tolist(), viscosity), rtol=0, atol=1e-11)


def test_the_solution_starts_at_the_initial_condition_and_keeps_the_walls() -> None:
    x = np.linspace(-1, 1, 41).tolist()
    start = points(x, [0.0])
    torch.testing.assert_close(exact(Burgers1D())(start), -torch.sin(torch.pi * start[:, :1]), rtol=0, atol=1e-14)
    walls = exact(Burgers1D())(points([-1.0, 0.0, 1.0], np.linspace(0, 1, 11).tolist()))
    torch.testing.assert_close(walls, torch.zeros_like(walls), rtol=0, atol=1e-12)


@pytest.mark.parametrize("viscosity", [VISCOSITIES[0], 0.001, Burgers1D().viscosity])
def test_points_of_single_precision_get_the_solution_of_double_precision_there(viscosity: float) -> None:
    at = points([0.25, 0.5, -0.125], [0.0, 0.5, 1.0])  # which both precisions have
    double, single = exact(Burgers1D(viscosity=viscosity))(at), exact(Burgers1D(viscosity=viscosity))(at.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-7)


@pytest.mark.parametrize("viscosity", [0.1, Burgers1D().viscosity])
def test_the_solution_satisfies_the_equation(viscosity: float) -> None:
    pde = Burgers1D(viscosity=viscosity)
    at = points([-0.9, -0.6, -0.3, 0.2, 0.5, 0.95], [0.05, 0.2, 0.5, 1.0])
    jet = Reverse()(exact(pde), at, Request.parse("u u_t u_x u_xx", pde.coordinates))
    assert float(jet.u_t.abs().max()) > 0.1  # something moves
    left = pde.burgers(jet)
    # derivatives of the exponent cos(pi y) / (2 pi nu) cancel: their size is 1 / (2 nu)
    torch.testing.assert_close(left, torch.zeros_like(left), rtol=0, atol=1e-11)
    # the equation as its formula, not as the reference: a field that does not solve it
    parabola = residuals.evaluate(pde, lambda x: x[:, :1] ** 2 * x[:, 1:], Reverse(), {"interior": Points(at)})
    x, t = at[:, :1], at[:, 1:]
    torch.testing.assert_close(parabola["burgers"], x**2 + 2 * x**3 * t**2 - viscosity * 2 * t)
