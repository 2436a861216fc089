"""Equations that are periodic in space, by Fourier series and exponential time differencing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pde_train.references.base import Reference, certified

CONTOUR = 32
"""Points of the circles around which the coefficients are means."""

FINER = 4
"""How many times finer than the modes the start is sampled, so that less of a kink there is aliased."""


@dataclass(frozen=True)
class Semilinear:
    """The equation u_t = L u + G g(u) on a periodic interval, square or cube, for real or complex unknowns.

    L and G are multiplications of Fourier coefficients. Time steps are those of ETDRK4 (Cox and Matthews,
    J. Comput. Phys. 176, 2002) with coefficients from contour integrals (Kassam and Trefethen, SIAM J. Sci.
    Comput. 26, 2005). The upper third of the modes of g is set to 0, so that products of two are not aliased.
    Between two time steps u is the cubic polynomial of its values and slopes at both, which is of the same order.

    Arrays have an axis of `modes` for each coordinate in space, and before these one of the unknowns if there are
    several.

    Attributes:
        lower: The lower end of the interval of every coordinate.
        length: Its length.
        linear: The symbol of L by the wave numbers of each coordinate, in radians per unit of length.
        factor: The symbol of G, likewise.
        product: The function g, of values.
        start: The initial values at points, by each of their coordinates.
    """

    lower: float
    length: float
    linear: Callable[..., np.ndarray]
    factor: Callable[..., np.ndarray]
    product: Callable[[np.ndarray], np.ndarray]
    start: Callable[..., np.ndarray]

    def reference(self, name: str, x: np.ndarray, resolutions: Sequence[tuple[int, float]]) -> Reference:
        """Real unknowns, with their error.

        Args:
            name: What determines them beside the points, see `certified`.
            x: The points (n, d), see `at`.
            resolutions: The number of modes and the time step of the coarser and the finer solution.

        Returns:
            The values (n, k) of the finer one.
        """
        return certified(lambda level: self.at(x, *resolutions[level]).real.reshape(len(x), -1), name, x)

    def at(self, x: np.ndarray, modes: int, step: float) -> np.ndarray:
        """The solution at points in space and time.

        Args:
            x: The points (n, d), whose last coordinate is the time, at least 0.
            modes: The number of Fourier modes along each coordinate in space, even.
            step: The time step.

        Returns:
            The complex values (n,) of one unknown, or (n, k) of several.
        """
        space, time = x[:, :-1], x[:, -1]
        axes = tuple(range(-space.shape[1], 0))

        def everywhere(values: np.ndarray) -> tuple[np.ndarray, ...]:
            return np.meshgrid(*[values] * len(axes), indexing="ij")

        counts = np.fft.fftfreq(modes, 1 / modes)
        waves = 2 * math.pi / self.length * counts
        grid = self.lower + self.length * np.arange(FINER * modes) / (FINER * modes)
        linear = self.linear(*everywhere(waves)).astype(complex)
        factor = self.factor(*everywhere(waves)) * (np.max(np.abs(everywhere(counts)), axis=0) < modes / 3)

        def nonlinear(state: np.ndarray) -> np.ndarray:
            product: np.ndarray = factor * np.fft.fftn(self.product(np.fft.ifftn(state, axes=axes)), axes=axes)
            return product

        scheme = _Scheme.of(step, linear)
        finer = np.fft.fftn(self.start(*everywhere(grid)), axes=axes) / FINER ** len(axes)
        state = finer[(..., *np.ix_(*[counts.astype(int)] * len(axes)))]
        product = nonlinear(state)
        steps = np.floor(time / step + 1e-9).astype(int)  # those before each time
        values = np.zeros((*state.shape[: -len(axes)], len(x)), dtype=complex)
        for k in range(steps.max() + 1):
            after = scheme.advance(state, product, nonlinear)
            product_after = nonlinear(after)
            here = steps == k
            if here.any():
                slopes = step * (linear * state + product), step * (linear * after + product_after)
                ends = _series(np.stack([state, slopes[0], after, slopes[1]]), space[here] - self.lower, waves)
                values[..., here] = _cubic(time[here] / step - k, *ends)
            state, product = after, product_after
        values[..., time == 0] = self.start(*space[time == 0].T)  # whose kinks a series would miss
        return values.T


def _series(state: np.ndarray, x: np.ndarray, waves: np.ndarray) -> np.ndarray:
    """The values (..., n) of Fourier coefficients (..., modes, ...) at points (n, d), one coordinate after another."""
    last, *others = (np.exp(1j * np.outer(column, waves)) for column in x.T[::-1])
    values: np.ndarray = state @ last.T
    for other in others:
        values = np.einsum("...kn,nk->...n", values, other)
    values /= len(waves) ** x.shape[1]
    return values


def _cubic(s: np.ndarray, u: np.ndarray, slope: np.ndarray, after: np.ndarray, slope_after: np.ndarray) -> np.ndarray:
    """The cubic polynomial on [0, 1] with these values and slopes (..., n) at 0 and 1, at s (n,)."""
    values: np.ndarray = (1 - s) ** 2 * ((1 + 2 * s) * u + s * slope)
    values += s**2 * ((3 - 2 * s) * after - (1 - s) * slope_after)
    return values


@dataclass(frozen=True)
class _Scheme:
    """The coefficients of a time step."""

    whole: np.ndarray
    half: np.ndarray
    q: np.ndarray
    f: tuple[np.ndarray, np.ndarray, np.ndarray]

    @classmethod
    def of(cls, step: float, linear: np.ndarray) -> _Scheme:
        circle = np.exp(2j * math.pi * (np.arange(CONTOUR) + 0.5) / CONTOUR)

        def mean(coefficient: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
            total = np.zeros_like(linear)
            for point in circle:
                z = step * linear + point
                total += coefficient(z, np.exp(z))
            return step / CONTOUR * total

        q = mean(lambda z, e: (np.exp(z / 2) - 1) / z)
        f = (
            mean(lambda z, e: (-4 - z + e * (4 - 3 * z + z**2)) / z**3),
            mean(lambda z, e: (2 + z + e * (z - 2)) / z**3),
            mean(lambda z, e: (-4 - 3 * z - z**2 + e * (4 - z)) / z**3),
        )
        return cls(np.exp(step * linear), np.exp(step * linear / 2), q, f)

    def advance(
        self, state: np.ndarray, product: np.ndarray, nonlinear: Callable[[np.ndarray], np.ndarray]
    ) -> np.ndarray:
        """The state after a step, from it and its product."""
        a = self.half * state + self.q * product
        n_a = nonlinear(a)
        b = self.half * state + self.q * n_a
        n_b = nonlinear(b)
        c = self.half * a + self.q * (2 * n_b - product)
        after: np.ndarray = self.whole * state + product * self.f[0]
        after += 2 * (n_a + n_b) * self.f[1] + nonlinear(c) * self.f[2]
        return after
