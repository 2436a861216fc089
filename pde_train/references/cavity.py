"""Stationary flow in a square with a moving lid, by Chebyshev collocation of its stream function."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.polynomial.chebyshev import chebder, chebvander
from numpy.polynomial.legendre import leggauss
from scipy.linalg import solve_triangular

from pde_train.errors import RunError

EASY = 400.0
"""The Reynolds number up to which Newton's method starts from rest; larger ones are reached by doubling."""

MOST_ITERATIONS = 20
"""The largest number of iterations of Newton's method at one Reynolds number."""

CONVERGED = 1e-5
"""The change of velocities in the last iteration, whose square is the error that is left."""

QUADRATURE = 24
"""Nodes of the quadrature by which the pressure is integrated from the centre."""

Operator = dict[tuple[int, int], float]
"""A sum of partial derivatives: factors by the orders along x and y."""

VALUE: Operator = {(0, 0): 1.0}
ALONG_X: Operator = {(1, 0): 1.0}
ALONG_Y: Operator = {(0, 1): 1.0}
LAPLACIAN_X: Operator = {(3, 0): 1.0, (1, 2): 1.0}
LAPLACIAN_Y: Operator = {(2, 1): 1.0, (0, 3): 1.0}
BIHARMONIC: Operator = {(4, 0): 1.0, (2, 2): 2.0, (0, 4): 1.0}

Terms = dict[tuple[int, int, int], complex]
"""The function Re sum c z^p conj(z)^q phi^a of z = x + i y = r e^(i phi), as c by (p, q, a)."""

At = Callable[[Operator], np.ndarray]
"""An operator on a function, at some points (n,)."""


@dataclass(frozen=True)
class Cavity:
    """The stationary Navier-Stokes equations on [0, 1]^2 with velocity (lid(x), 0) at y = 1 and 0 on the other sides.

    The stream function, u = psi_y and v = -psi_x, solves bih psi = R (psi_y lap psi_x - psi_x lap psi_y). It is a
    polynomial and, for each corner at the lid, the first terms of the flow in a sector, so that the polynomial need
    not follow what is singular there (Botella and Peyret, Computers & Fluids 27, 1998). Newton's method finds the
    polynomial by collocation on Chebyshev points. The pressure is the integral of its gradient from the centre.

    Attributes:
        reynolds: The Reynolds number R.
        lid: The coefficients of 1, s and s^2 in the velocity of the lid at the distance s from either corner.
    """

    reynolds: float
    lid: tuple[float, ...]

    def at(self, x: np.ndarray, degree: int) -> np.ndarray:
        """Velocity and pressure, which is 0 in the centre.

        Args:
            x: The points (n, 2), none of which is a corner at the lid.
            degree: The degree of the polynomial in each coordinate.

        Returns:
            The values (n, 3) of u, v and p.

        Raises:
            RunError: Newton's method does not converge.
        """
        polynomial = self._polynomial(degree)

        def stream(x: np.ndarray) -> At:
            corners = self._corners(self.reynolds, x)
            return lambda operator: _of_polynomial(polynomial, x, operator) + corners(operator)

        offset, pressure = x - 0.5, np.zeros(len(x))
        for node, weight in zip(*leggauss(QUADRATURE), strict=True):
            left = (1 - node) / 2  # of the way, whose cube lets nodes crowd at points near corners
            gradient = self._pressure_gradient(stream(0.5 + (1 - left**3) * offset))
            pressure += 1.5 * weight * left**2 * (gradient * offset).sum(axis=1)
        psi = stream(x)
        return np.stack([psi(ALONG_Y), -psi(ALONG_X), pressure], axis=1)

    def _pressure_gradient(self, psi: At) -> np.ndarray:
        """The gradient (n, 2) of the pressure by the momentum equations."""
        u, v, v_y = psi(ALONG_Y), -psi(ALONG_X), -psi({(1, 1): 1.0})
        along_x = psi(LAPLACIAN_Y) / self.reynolds + u * v_y - v * psi({(0, 2): 1.0})
        along_y = -psi(LAPLACIAN_X) / self.reynolds + u * psi({(2, 0): 1.0}) - v * v_y
        return np.stack([along_x, along_y], axis=1)

    def _corners(self, reynolds: float, x: np.ndarray) -> At:
        """The flows in the sectors at both corners, at points (n, 2)."""
        left, right = _sector(self.lid, -reynolds), _sector(self.lid, reynolds)  # y is mirrored, at the right x, too
        at_left, at_right = x[:, 0] + 1j * (1 - x[:, 1]), 1 - x[:, 0] + 1j * (1 - x[:, 1])

        def applied(operator: Operator) -> np.ndarray:
            down = {(i, j): factor * (-1) ** j for (i, j), factor in operator.items()}
            back = {(i, j): factor * (-1) ** i for (i, j), factor in down.items()}
            values: np.ndarray = _values(_applied(down, left), at_left) + _values(_applied(back, right), at_right)
            return values

        return applied

    def _polynomial(self, degree: int) -> np.ndarray:
        """The Chebyshev coefficients (degree + 1, degree + 1) of the polynomial."""
        inside = _gauss_lobatto(degree)[2:-2]
        x = np.stack(np.meshgrid(inside, inside), axis=-1).reshape(-1, 2)
        operators = np.stack([_rows(x, degree, orders) for orders in (ALONG_X, ALONG_Y, LAPLACIAN_X, LAPLACIAN_Y)])
        biharmonic = _rows(x, degree, BIHARMONIC)
        walls, normal_is_x = _walls(degree)
        slopes = np.where(normal_is_x[:, None], _rows(walls, degree, ALONG_X), _rows(walls, degree, ALONG_Y))
        conditions = np.concatenate([_rows(walls, degree, VALUE), slopes])
        lid = np.where(~normal_is_x & (walls[:, 1] == 1), np.polyval(self.lid[::-1], walls[:, 0]), 0.0)

        state = np.zeros((len(operators), len(x)))  # their values; from rest the first iteration gives Stokes' flow
        doublings = max(0, math.ceil(math.log2(self.reynolds / EASY)))
        for reynolds in self.reynolds / 2.0 ** np.arange(doublings, -1, -1):
            at_walls, within = self._corners(reynolds, walls), self._corners(reynolds, x)
            slopes_of_corners = np.where(normal_is_x, at_walls(ALONG_X), at_walls(ALONG_Y))
            given = np.concatenate([-at_walls(VALUE), lid - slopes_of_corners])
            corners = np.stack([within(orders) for orders in (ALONG_X, ALONG_Y, LAPLACIAN_X, LAPLACIAN_Y)])
            forcing = within(BIHARMONIC)
            for _ in range(MOST_ITERATIONS):
                psi_x, psi_y, lap_x, lap_y = state
                factors = reynolds * np.stack([-lap_y, lap_x, psi_y, -psi_x])  # the derivative of the products
                matrix = biharmonic - np.einsum("kn,knm->nm", factors, operators)
                right = (factors * corners).sum(axis=0) - forcing - reynolds * (psi_y * lap_x - psi_x * lap_y)
                found = _least_squares(np.concatenate([matrix, conditions]), np.concatenate([right, given]))
                before, state = state, operators @ found + corners
                if np.abs(state - before)[:2].max() < CONVERGED:
                    break
            else:
                raise RunError(
                    f"no flow in the cavity was found at reynolds={self.reynolds} in {MOST_ITERATIONS} iterations of "
                    "Newton's method: expected a smaller number, such as 100"
                )
        coefficients: np.ndarray = found.reshape(degree + 1, degree + 1)
        return coefficients


def _gauss_lobatto(degree: int) -> np.ndarray:
    """The extrema (degree + 1,) of a Chebyshev polynomial on [0, 1]."""
    nodes: np.ndarray = (1 - np.cos(np.pi * np.arange(degree + 1) / degree)) / 2
    return nodes


def _walls(degree: int) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, 2) of the four sides, none of which is a corner, and whether their normal is along x."""
    side = np.tile((1 - np.cos(np.pi * (np.arange(degree + 1) + 0.5) / (degree + 1))) / 2, 2)
    ends = np.repeat([0.0, 1.0], degree + 1)
    walls = np.concatenate([np.column_stack([ends, side]), np.column_stack([side, ends])])
    return walls, np.arange(len(walls)) < len(ends)


def _least_squares(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The solution of a system that has few more rows than columns, with rows of the same size."""
    size = np.abs(matrix).max(axis=1)
    triangle = np.asarray(np.linalg.qr(np.column_stack([matrix, right]) / size[:, None], mode="r"))
    solution: np.ndarray = solve_triangular(triangle[:-1, :-1], triangle[:-1, -1])
    return solution


def _rows(x: np.ndarray, degree: int, operator: Operator) -> np.ndarray:
    """An operator on products of Chebyshev polynomials on [0, 1]^2 at points (n, 2), as rows (n, N)."""

    def along(axis: int, order: int) -> np.ndarray:
        derived = chebder(np.eye(degree + 1), order) * 2.0**order
        return np.asarray(chebvander(2 * x[:, axis] - 1, len(derived) - 1) @ derived)

    rows = [factor * np.einsum("ni,nj->nij", along(0, i), along(1, j)) for (i, j), factor in operator.items()]
    total: np.ndarray = sum(rows[1:], rows[0]).reshape(len(x), -1)
    return total


def _of_polynomial(coefficients: np.ndarray, x: np.ndarray, operator: Operator) -> np.ndarray:
    """An operator on a polynomial on [0, 1]^2 at points (n, 2)."""
    values = np.zeros(len(x))
    for (i, j), factor in operator.items():
        derived = chebder(chebder(coefficients, i, axis=0), j, axis=1) * 2.0 ** (i + j)
        along_x, along_y = (chebvander(2 * x[:, axis] - 1, derived.shape[axis] - 1) for axis in (0, 1))
        values += factor * ((along_x @ derived) * along_y).sum(axis=1)
    return values


@cache
def _sector(lid: tuple[float, ...], reynolds: float) -> Terms:
    """The flow in the sector 0 <= phi <= pi / 2 with a lid at 0 and a wall at pi / 2: a term for each power of r.

    Args:
        lid: The coefficients of the lid's velocity, which is psi_y = - psi_phi / r, by powers of r.
        reynolds: The Reynolds number.

    Returns:
        The stream function, with bih psi = reynolds (psi_y lap psi_x - psi_x lap psi_y) up to higher powers of r.
    """
    rays = np.exp(0.5j * np.pi * np.linspace(0, 1, 32))
    on_lid, on_wall = rays[:1], rays[-1:]
    found: list[Terms] = []
    for degree, velocity in enumerate(lid, start=1):
        keys = [(p, degree - p, a) for p in range((degree + 1) // 2, degree + 1) for a in range(degree + 1)]
        terms: list[Terms] = [{key: factor} for key in keys for factor in (1.0, 1.0j)]
        columns = [
            [
                _values(_applied(BIHARMONIC, term), rays),
                _values(term, on_lid),
                _values(_applied(ALONG_Y, term), on_lid),
                _values(term, on_wall),
                _values(_applied(ALONG_X, term), on_wall),
            ]
            for term in terms
        ]
        products = np.zeros(len(rays))
        for one, other in zip(found, reversed(found), strict=True):
            products += _values(_applied(ALONG_Y, one), rays) * _values(_applied(LAPLACIAN_X, other), rays)
            products -= _values(_applied(ALONG_X, one), rays) * _values(_applied(LAPLACIAN_Y, other), rays)
        right = np.concatenate([reynolds * products, [0.0, -velocity, 0.0, 0.0]])
        matrix = np.stack([np.concatenate(column) for column in columns], axis=1)
        factors = np.linalg.lstsq(matrix, right, rcond=1e-12)[0]
        by_key = zip(keys, factors.reshape(-1, 2), strict=True)
        found.append({key: complex(a, b) for key, (a, b) in by_key if a or b})
    return {key: c for terms in found for key, c in terms.items()}


def _applied(operator: Operator, function: Terms) -> Terms:
    """An operator on a function."""
    total: Terms = {}
    for (i, j), factor in operator.items():
        derived = function
        for along in (1.0,) * i + (1.0j,) * j:
            derived = _derivative(derived, along)
        for key, c in derived.items():
            total[key] = total.get(key, 0.0) + factor * c
    return total


def _derivative(function: Terms, along: complex) -> Terms:
    """The derivative along 1 or i, which is along d/dz + conj(along) d/dconj(z); phi is log(z / conj(z)) / 2i."""
    derived: Terms = {}
    for (p, q, a), c in function.items():
        for key, factor in (
            ((p - 1, q, a), along * p),
            ((p, q - 1, a), along.conjugate() * q),
            ((p - 1, q, a - 1), along * a / 2j),
            ((p, q - 1, a - 1), -along.conjugate() * a / 2j),
        ):
            if factor:
                derived[key] = derived.get(key, 0.0) + factor * c
    return derived


def _values(function: Terms, z: np.ndarray) -> np.ndarray:
    """The values (n,) of a function at points z (n,)."""
    radius, angle = np.abs(z), np.angle(z)
    values = np.zeros(len(z))
    for (p, q, a), c in function.items():
        values += radius ** (p + q) * np.real(c * np.exp(1j * (p - q) * angle)) * angle**a
    return values
