"""Inverse problems: measured values that the unknowns must meet, and numbers of a PDE that are learnt with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from pde_train.errors import UsageError
from pde_train.geometry import Domain
from pde_train.pdes.files import columns_of, read_table

EXACT = "exact"
"""The path of values that come from the exact solution."""


@dataclass(frozen=True)
class Learned:
    """A number of a PDE that is learnt.

    Attributes:
        start: Its value before training.
        lower: Its lower bound, which it approaches and never crosses; None for none.
        upper: Its upper bound; there are both or none.

    Raises:
        UsageError: The start or a bound is not finite, the start is not between them, or there is one bound alone.
    """

    start: float
    lower: float | None = None
    upper: float | None = None

    def __post_init__(self) -> None:
        if (self.lower is None) != (self.upper is None):
            raise UsageError(
                f"a learnt number between {self.lower} and {self.upper} has one bound: expected both, or null for both"
            )
        if not all(math.isfinite(bound) for bound in (self.lower, self.upper) if bound is not None):
            raise UsageError(
                f"a learnt number between {self.lower} and {self.upper} has an infinite bound: expected finite bounds, "
                "or null for both"
            )
        lower, upper = (-math.inf, math.inf) if self.lower is None or self.upper is None else (self.lower, self.upper)
        if not lower < self.start < upper:
            raise UsageError(
                f"a learnt number that starts at {self.start} is not between its bounds {self.lower} and {self.upper}: "
                "expected a finite start between them"
            )


@dataclass(frozen=True)
class Data:
    """Measured values of unknowns at points, from columns of a file.

    Attributes:
        path: A .csv file with names in its first line, or a .npz file with an array (n,) for each name. `exact`
            takes the exact solution, with the numbers of the configuration, at random points.
        columns: The names in the file of coordinates and unknowns that have other names there.
        unknowns: The names of the unknowns that were measured; by default all that the file has.
        noise: The standard deviation of normal noise that is added, relative to the root mean square of each column.
        count: How many of the rows are taken at random; None for all of them. Of `exact`, the number of points.
        weight: The factor of the residuals `u - measured u`.
        seed: The seed of noise and choice.

    Raises:
        UsageError: A number is out of its range, or a word of another kind.
    """

    path: str
    columns: Mapping[str, str] = field(default_factory=dict)
    unknowns: Sequence[str] | None = None
    noise: float = 0.0
    count: int | None = None
    weight: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.path, str) or not isinstance(self.columns, Mapping):
            raise UsageError(
                f"pde.data has path={self.path} and columns={self.columns}: expected the name of a file or exact, and "
                "names such as {x: position}"
            )
        if not 0 <= self.noise < math.inf:
            raise UsageError(f"pde.data.noise={self.noise} is no size of noise: expected a number >= 0, such as 0.01")
        if self.count is not None and (type(self.count) is not int or self.count < 1):
            raise UsageError(f"pde.data.count={self.count} leaves no row: expected a positive integer, or null for all")
        if not math.isfinite(self.weight):
            raise UsageError(f"pde.data.weight={self.weight} is no weight: expected a finite number, such as 1.0")

    def read(
        self,
        coordinates: Sequence[str],
        unknowns: Sequence[str],
        domain: Domain,
        exact: Callable[[Tensor], Tensor] | None = None,
    ) -> Measurements:
        """The points and values.

        Args:
            coordinates: The names of the coordinates.
            unknowns: The names of all unknowns of the PDE.
            domain: Where the points must lie.
            exact: The exact solution (n, k) at points (n, d), where it is known.

        Returns:
            The rows that were chosen, with noise.

        Raises:
            UsageError: The file cannot be read, lacks a column, or holds values that are not finite or points
                outside of the domain; a column is named twice; or the exact solution is asked for and not known.
        """
        if idle := set(self.columns) - {*coordinates, *unknowns}:
            raise UsageError(
                f"pde.data.columns has {', '.join(sorted(idle))}: expected names of the PDE, "
                f"{', '.join([*coordinates, *unknowns])}, each with its name in the file, such as {{x: position}}"
            )
        generator = np.random.default_rng(self.seed)
        if self.path == EXACT:
            table = self._exact(coordinates, unknowns, domain, exact, generator)
        else:
            table = read_table(self.path, "pde.data.path")
        measured = [u for u in unknowns if self.columns.get(u, u) in table] if self.unknowns is None else self.unknowns
        if not measured or not set(measured) <= set(unknowns):
            raise UsageError(
                f"pde.data.path={self.path} has the columns {', '.join(table)}, and no unknown was measured: expected "
                f"some of {', '.join(unknowns)}, or their names in pde.data.columns"
            )
        keys = [self.columns.get(name, name) for name in (*coordinates, *measured)]
        if len({*keys}) < len(keys):
            raise UsageError(
                f"pde.data takes the columns {', '.join(keys)} for {', '.join([*coordinates, *measured])}: expected a "
                "column of its own for each, correct pde.data.columns"
            )
        x, values = (self._columns(table, names) for names in (coordinates, measured))
        outside = ~domain.covers(x)
        if outside.any():
            place = ", ".join(f"{c:.4g}" for c in x[outside][0])
            raise UsageError(
                f"pde.data.path={self.path} has {int(outside.sum())} of {len(x)} points outside of the domain, first "
                f"({place}): expected points of the domain, leave the others out"
            )
        if self.count is not None:
            if self.count > len(x):
                raise UsageError(
                    f"pde.data.count={self.count} is more than the {len(x)} rows of {self.path}: expected at most those"
                )
            rows = np.sort(generator.choice(len(x), self.count, replace=False))
            x, values = x[rows], values[rows]
        size = np.sqrt(np.mean(values**2, axis=0))
        values = values + self.noise * size * generator.standard_normal(values.shape)
        return Measurements(tuple(measured), x, values)

    def _exact(
        self,
        coordinates: Sequence[str],
        unknowns: Sequence[str],
        domain: Domain,
        exact: Callable[[Tensor], Tensor] | None,
        generator: np.random.Generator,
    ) -> Mapping[str, np.ndarray]:
        """The exact solution at `count` points, uniform in the domain."""
        if exact is None or self.count is None:
            raise UsageError(
                "pde.data.path=exact takes the exact solution at pde.data.count points: expected a PDE with one, and a "
                "number, or choose a file"
            )
        inside = domain.interior()
        shape = (self.count, inside.parameters)
        x, _ = inside.draw("interior", self.count, lambda: generator.random(shape))
        columns = [*x.T, *exact(torch.from_numpy(x)).numpy().T]
        return {self.columns.get(n, n): v for n, v in zip([*coordinates, *unknowns], columns, strict=True)}

    def _columns(self, table: Mapping[str, np.ndarray], names: Sequence[str]) -> np.ndarray:
        keys = [self.columns.get(name, name) for name in names]
        remedy = f"expected a column for each of {', '.join(names)}, or its name in pde.data.columns"
        return columns_of(table, keys, f"pde.data.path={self.path}", remedy)


@dataclass(frozen=True)
class Measurements:
    """Measured values.

    Attributes:
        names: The k unknowns that were measured.
        x: The points (n, d).
        values: Their values (n, k).
    """

    names: tuple[str, ...]
    x: np.ndarray
    values: np.ndarray
