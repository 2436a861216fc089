"""Equations that are periodic in one coordinate of space, by Fourier series and exponential time differencing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

CONTOUR = 32
"""Points of the circles around which the coefficients are means."""


@dataclass(frozen=True)
class Semilinear:
    """The equation u_t = L u + G g(u) on a periodic interval, for one real or complex unknown.

    L and G are multiplications of Fourier coefficients. Time steps are those of ETDRK4 (Cox and Matthews,
    J. Comput. Phys. 176, 2002) with coefficients from contour integrals (Kassam and Trefethen, SIAM J. Sci.
    Comput. 26, 2005). The upper third of the modes of g is set to 0, so that products of two are not aliased.

    Attributes:
        lower: The left end of the interval.
        length: Its length.
        linear: The symbol of L by the wave numbers k (modes,), in radians per unit of length.
        factor: The symbol of G.
        product: The function g, of values (modes,).
        start: The initial values at points (modes,).
    """

    lower: float
    length: float
    linear: Callable[[np.ndarray], np.ndarray]
    factor: Callable[[np.ndarray], np.ndarray]
    product: Callable[[np.ndarray], np.ndarray]
    start: Callable[[np.ndarray], np.ndarray]

    def at(self, x: np.ndarray, t: np.ndarray, modes: int, step: float) -> np.ndarray:
        """The solution at points in space and time.

        Args:
            x: The coordinates in space (n,).
            t: The times (n,), at least 0.
            modes: The number of Fourier modes, even.
            step: The longest time step.

        Returns:
            The values (n,), complex.
        """
        waves = 2 * math.pi / self.length * np.fft.fftfreq(modes, 1 / modes)
        grid = self.lower + self.length * np.arange(modes) / modes
        linear, factor = self.linear(waves).astype(complex), self.factor(waves).astype(complex)
        kept = np.abs(np.fft.fftfreq(modes, 1 / modes)) < modes / 3
        state = np.fft.fft(self.start(grid).astype(complex))

        def nonlinear(state: np.ndarray) -> np.ndarray:
            product: np.ndarray = factor * kept * np.fft.fft(self.product(np.fft.ifft(state)))
            return product

        values = np.zeros(len(x), dtype=complex)
        now, schemes = 0.0, dict[float, _Scheme]()
        for time in np.unique(t):
            steps = math.ceil((time - now) / step - 1e-9)
            if steps > 0:
                length = float(f"{(time - now) / steps:.14e}")  # equal intervals share their coefficients
                scheme = schemes.setdefault(length, _Scheme.of(length, linear))
                for _ in range(steps):
                    state = scheme.advance(state, nonlinear)
            now = float(time)
            here = t == time
            waves_here = np.exp(1j * np.outer(x[here] - self.lower, waves))
            values[here] = waves_here @ state / modes
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
        z = step * linear[:, None] + circle
        e = np.exp(z)
        q = step * np.mean((np.exp(z / 2) - 1) / z, axis=1)
        f = (
            step * np.mean((-4 - z + e * (4 - 3 * z + z**2)) / z**3, axis=1),
            step * np.mean((2 + z + e * (z - 2)) / z**3, axis=1),
            step * np.mean((-4 - 3 * z - z**2 + e * (4 - z)) / z**3, axis=1),
        )
        return cls(np.exp(step * linear), np.exp(step * linear / 2), q, f)

    def advance(self, state: np.ndarray, nonlinear: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        n = nonlinear(state)
        a = self.half * state + self.q * n
        n_a = nonlinear(a)
        b = self.half * state + self.q * n_a
        n_b = nonlinear(b)
        c = self.half * a + self.q * (2 * n_b - n)
        after: np.ndarray = self.whole * state + n * self.f[0] + 2 * (n_a + n_b) * self.f[1] + nonlinear(c) * self.f[2]
        return after
