"""The five problems of the step-time benchmark: sizes, points, sources, initial weights. numpy only.

Loss: sum over equations of the mean square of the residual; full batch, float64, tanh, Adam with lr 1e-3.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

LEARNING_RATE = 1e-3
VISCOSITY = 0.01 / np.pi


@dataclass(frozen=True)
class Problem:
    """One problem on the box from `lower` to `upper`, whose last coordinate is time where there are initial points.

    operator: `poisson`: -lap u = f, u = 0 on the boundary. `biharmonic`: lap lap u = f, u = lap u = 0 on the boundary.
    `burgers`: u_t + u u_x = VISCOSITY u_xx, u = 0 on the walls, u = -sin(pi x) initially.
    interior, boundary, initial: numbers of points. hidden: widths of the hidden layers.
    """

    name: str
    operator: str
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    hidden: tuple[int, ...]
    interior: int
    boundary: int
    initial: int = 0

    @property
    def dimension(self) -> int:
        return len(self.lower)

    @property
    def sizes(self) -> list[int]:
        """Widths of all layers, input and output included."""
        return [self.dimension, *self.hidden, 1]

    def points(self, seed: int = 0) -> dict[str, np.ndarray]:
        """Uniform points (n, d) by region, the boundary's shared evenly by its faces."""
        generator = np.random.default_rng(seed)
        lower, lengths = np.array(self.lower), np.subtract(self.upper, self.lower)
        time = self.dimension - 1 if self.initial else None

        def face(axis: int, place: float, count: int) -> np.ndarray:
            others = [i for i in range(self.dimension) if i != axis]
            x = np.full((count, self.dimension), place)
            x[:, others] = lower[others] + generator.random((count, len(others))) * lengths[others]
            return x

        found = {"interior": lower + generator.random((self.interior, self.dimension)) * lengths}
        if time is not None:
            found["initial"] = face(time, self.lower[time], self.initial)
        faces = [(i, end[i]) for i in range(self.dimension) if i != time for end in (self.lower, self.upper)]
        found["boundary"] = np.concatenate([face(*where, self.boundary // len(faces)) for where in faces])
        return found

    def source(self, x: np.ndarray) -> np.ndarray:
        """f (n, 1) at points (n, d), for the solution u = product of sin(pi x_i); for Burgers u at t = 0."""
        if self.operator == "burgers":
            return -np.sin(np.pi * x[:, :1])
        power = {"poisson": 1, "biharmonic": 2}[self.operator]
        return np.asarray((self.dimension * np.pi**2) ** power * np.prod(np.sin(np.pi * x), axis=1, keepdims=True))

    def weights(self, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
        """Glorot uniform weights (out, in) and zero biases (out,) of every layer."""
        generator = np.random.default_rng(seed)
        layers = []
        for inputs, outputs in itertools.pairwise(self.sizes):
            reach = (6 / (inputs + outputs)) ** 0.5
            layers.append((generator.uniform(-reach, reach, (outputs, inputs)), np.zeros(outputs)))
        return layers


PROBLEMS = {
    problem.name: problem
    for problem in (
        Problem("S1", "poisson", (-1.0,), (1.0,), (50,), 100, 2),
        Problem("S2", "poisson", (0.0, 0.0), (1.0, 1.0), (64,) * 3, 1000, 400),
        Problem("S3", "biharmonic", (-1.0,), (1.0,), (50,) * 2, 100, 2),
        Problem("S4", "biharmonic", (0.0, 0.0), (1.0, 1.0), (64,) * 3, 1000, 400),
        Problem("S5", "burgers", (-1.0, 0.0), (1.0, 1.0), (64,) * 4, 10000, 256, 256),
    )
}
