"""Equations that are periodic in space, by Fourier series and exponential time differencing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import fft

from pde_train.errors import UsageError
from pde_train.references.base import Reference, certified

CONTOUR = 32
"""Points of the circles around which the coefficients are means."""

FINER = 4
"""How many times finer than the modes the start is sampled, so that less of a kink there is aliased."""

SEEN = 61
"""Points, and wave numbers, along each coordinate at which functions are compared with those of a kept reference."""

Resolution = tuple[int, float]
"""The number of modes along each coordinate, and the time step."""


@dataclass(frozen=True)
class Semilinear:
    """The equation u_t = L u + G g(u) on a periodic interval, square or cube, for real or complex unknowns.

    L and G are multiplications of Fourier coefficients. Time steps are those of ETDRK4 (Cox and Matthews,
    J. Comput. Phys. 176, 2002) with coefficients from contour integrals (Kassam and Trefethen, SIAM J. Sci.
    Comput. 26, 2005).
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
        kept: The part of the modes of g that are kept; of two thirds products of two are not aliased.
        real: Whether the unknowns are real, which takes half the time.
    """

    lower: float
    length: float
    linear: Callable[..., np.ndarray]
    factor: Callable[..., np.ndarray]
    product: Callable[[np.ndarray], np.ndarray]
    start: Callable[..., np.ndarray]
    kept: float = 2 / 3
    real: bool = False

    def reference(
        self, name: str, x: np.ndarray, resolutions: tuple[tuple[int, float], tuple[int, float]]
    ) -> Reference:
        """Real unknowns, with their error.

        Args:
            name: The equation with all its numbers, see `certified`. A reference that is kept is of the same functions.
            x: The points (n, d), see `at`.
            resolutions: The number of modes and the time step of the coarser and the finer solution.

        Returns:
            The values (n, k) of the finer one.
        """

        def solve(resolution: Resolution) -> np.ndarray:
            return self.at(x, *resolution).real.reshape(len(x), -1)

        return certified(solve, name, x, resolutions, self._data(x.shape[1] - 1))

    def _data(self, dimension: int) -> bytes:
        """The interval and the functions, in single precision, in which processors round alike."""
        ring = np.arange(SEEN) / SEEN
        points = np.meshgrid(*[self.lower + self.length * ring] * dimension, indexing="ij")
        waves = np.meshgrid(*[2 * math.pi / self.length * SEEN * ring] * dimension, indexing="ij")
        start = self.start(*points)
        numbers = [np.array([self.lower, self.length, self.kept]), start, self.product(start)]
        numbers += [self.linear(*waves), self.factor(*waves)]
        return np.concatenate([np.ravel(part) for part in numbers]).astype(np.complex64).tobytes()

    def at(self, x: np.ndarray, modes: int, step: float) -> np.ndarray:
        """The solution at points in space and time.

        Args:
            x: The points (n, d), whose last coordinate is the time, at least 0.
            modes: The number of Fourier modes along each coordinate in space, even.
            step: The time step.

        Returns:
            The values (n,) of one unknown, or (n, k) of several.

        Raises:
            UsageError: A time is negative.
        """
        space, time = x[:, :-1], x[:, -1]
        if (time < 0).any():
            raise UsageError(
                f"a reference at the time {time.min():g} lies before its initial values at 0: expected times of at "
                "least 0, shift the time of the PDE"
            )
        dimension = space.shape[1]
        axes = tuple(range(-dimension, 0))
        grid = self.lower + self.length * np.arange(FINER * modes) / (FINER * modes)
        start = self.start(*np.meshgrid(*[grid] * dimension, indexing="ij"))
        counts = [fft.fftfreq(modes, 1 / modes)] * dimension
        if self.real:  # one half of the modes of the last coordinate are the conjugates of the others
            counts[-1] = fft.rfftfreq(modes, 1 / modes)
        waves = [2 * math.pi / self.length * count for count in counts]
        everywhere = np.meshgrid(*waves, indexing="ij")
        linear = self.linear(*everywhere).astype(complex)
        aliased = np.max(np.abs(np.meshgrid(*counts, indexing="ij")), axis=0) >= self.kept * modes / 2
        factor = np.where(aliased, 0, self.factor(*everywhere))

        def forward(values: np.ndarray) -> np.ndarray:
            state: np.ndarray = fft.rfftn(values, axes=axes) if self.real else fft.fftn(values, axes=axes)
            return state

        def backward(state: np.ndarray) -> np.ndarray:
            shape = (modes,) * dimension
            values: np.ndarray = fft.irfftn(state, shape, axes) if self.real else fft.ifftn(state, shape, axes)
            return values

        def nonlinear(state: np.ndarray) -> np.ndarray:
            product: np.ndarray = factor * forward(self.product(backward(state)))
            return product

        scheme = _Scheme.of(step, linear)
        state = forward(start)[(..., *np.ix_(*[count.astype(int) for count in counts]))] / FINER**dimension
        product = nonlinear(state)
        twice = 1 + (
            self.real & (counts[-1] > 0) & (counts[-1] < modes / 2)
        )  # those of which the conjugate counts, too
        values = np.zeros((*start.shape[:-dimension], len(x)), dtype=float if self.real else complex)
        steps = np.floor(time / step + 1e-9).astype(int)  # those before each time
        for k in range(steps.max() + 1):
            after = scheme.advance(state, product, nonlinear)
            product_after = nonlinear(after)
            here = steps == k
            if here.any():
                slopes = step * (linear * state + product), step * (linear * after + product_after)
                series = np.stack([state, slopes[0], after, slopes[1]]) * twice / modes**dimension
                ends = _series(series, space[here] - self.lower, waves)
                values[..., here] = _cubic(time[here] / step - k, *(ends.real if self.real else ends))
            state, product = after, product_after
        values[..., time == 0] = self.start(*space[time == 0].T)  # whose kinks a series would miss
        return values.T


def _series(state: np.ndarray, x: np.ndarray, waves: Sequence[np.ndarray]) -> np.ndarray:
    """The sums (..., n) of waves with coefficients (..., modes, ...) at points (n, d), coordinate by coordinate."""
    *others, last = (np.exp(1j * np.outer(column, wave)) for column, wave in zip(x.T, waves, strict=True))
    values: np.ndarray = state @ last.T
    for other in others[::-1]:
        values = np.einsum("...kn,nk->...n", values, other)
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
