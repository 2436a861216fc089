"""A smooth function through values from a file, such as initial values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from pde_train.errors import UsageError
from pde_train.pdes.files import columns_of, read_table

MOST_ROWS = 4000
"""The largest number of values, as the coefficients solve a dense linear system."""

SMOOTHING = 1e-9
"""The distance, relative to the extent of the points, below which a cube of distances is smooth."""

MISSED = 1e-5
"""The largest distance from the values, relative to the largest of them; of points that are spread well it is 1e-12."""


@dataclass(frozen=True)
class Interpolation:
    """The function sum_i c_i |x - x_i|^3 + b . x + a through the values of a file at points x_i, scattered or not.

    It bends least among all that meet the values, has two continuous derivatives, and is linear where the values are.
    In one dimension it is the natural cubic spline (Duchon, Lecture Notes in Mathematics 571, 1977). It is a torch
    function of its coordinates, so that an ansatz with it has its derivatives from every exact differentiator but
    `complex_step`, as it is not analytic. Outside of the points it goes on about linearly.

    Attributes:
        path: A .csv file with names in its first line, or a .npz file with an array (n,) for each name.
        coordinates: The names in the file of the coordinates on which the function depends.
        value: The name in the file of its values.

    Raises:
        UsageError: The file cannot be read, lacks a column, has values that are not finite, too many rows, the same
            point twice, or points on one line or plane, or so near to that that rounding leaves no function.
    """

    path: str
    coordinates: Sequence[str] = ("x",)
    value: str = "u"

    def __post_init__(self) -> None:
        _ = self._terms

    @cached_property
    def _terms(self) -> tuple[Tensor, Tensor, float]:
        """The points (d, n), the coefficients (n + 1 + d, 1), and the square of the smallest distance that counts."""
        what, keys = f"the file of initial values {self.path}", [*self.coordinates, self.value]
        remedy = f"expected a column for each of {', '.join(keys)}"
        table = columns_of(read_table(self.path, "the file of initial values"), keys, what, remedy)
        x, u = table[:, :-1], table[:, -1:]
        if len(x) > MOST_ROWS:
            raise UsageError(f"{what} has {len(x)} rows: expected at most {MOST_ROWS}, choose some of them")
        polynomial = np.hstack([np.ones_like(u), x])
        if len(np.unique(x, axis=0)) < len(x) or np.linalg.matrix_rank(polynomial) < polynomial.shape[1]:
            raise UsageError(f"{what} has the same point twice, or all on one line: expected points that differ")
        square = (SMOOTHING * float(np.ptp(x, axis=0).max())) ** 2
        distances = ((x[:, None, :] - x[None, :, :]) ** 2).sum(axis=2) + square
        width = polynomial.shape[1]
        system = np.block([[distances**1.5, polynomial], [polynomial.T, np.zeros((width, width))]])
        try:
            coefficients = np.linalg.solve(system, np.vstack([u, np.zeros((width, 1))]))
            missed = float(np.abs(system[: len(u)] @ coefficients - u).max() / (np.abs(u).max() or 1.0))
        except np.linalg.LinAlgError:
            missed = np.inf
        if not missed <= MISSED:
            raise UsageError(
                f"a function through the values of {what} misses them by {missed:.1e} of the largest one, as points "
                "lie close together beside their extent, or nearly on one line: expected coordinates of about the same "
                "extent and points further apart, change units or leave points out"
            )
        return torch.from_numpy(x.T.copy()), torch.from_numpy(coefficients), square

    def __call__(self, *columns: Tensor) -> Tensor:
        """The function at columns (n, 1) of its coordinates, as a column (n, 1)."""
        points, coefficients, square = self._terms
        dtype, device = columns[0].dtype, columns[0].device
        points, coefficients = points.to(device), coefficients.to(device)
        columns = tuple(column.to(torch.float64) for column in columns)  # large terms cancel where values have noise
        count = points.shape[1]
        squares, linear = 0 * columns[0] + square, 0 * columns[0] + coefficients[count]
        for column, at, slope in zip(columns, points, coefficients[count + 1 :], strict=True):
            squares, linear = squares + (column - at) ** 2, linear + slope * column
        cubes: Tensor = (squares * torch.sqrt(squares)) @ coefficients[:count]
        return (cubes + linear).to(dtype)
