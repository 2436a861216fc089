"""The base class of differentiators."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from pde_train.derivatives import Axes, Field, Jet, Request, coordinate_columns
from pde_train.geometry import Domain

STEP = "differentiator.step"
"""The name of a step among the numbers of a differentiator."""


class Differentiator(ABC):
    """Takes derivatives of a row-wise field at points.

    Attributes:
        exact: Whether the derivatives are exact up to rounding.
        deterministic: Whether the same field has the same derivatives at each evaluation.
    """

    exact: bool = True
    deterministic: bool = True

    @property
    def compilable(self) -> bool:
        """Whether each evaluation does the same real operations, so that it may be compiled once.

        An adaptive one does that where all that it chooses are `numbers`, and says so.
        """
        return not self.adaptive

    @property
    def adaptive(self) -> bool:
        """Whether `tuned_to` has anything to choose."""
        return False

    @property
    def label(self) -> str:
        """The name by which tables, reports and the tracking store show this differentiator, such as `complex_step`.

        By default it is the class name in lower case. A class whose settings change its results
        puts them into the label, so that two schemes that a study compares never share one:
        `FD4 h=0.001`.
        """
        return re.sub(r"(?<!^)(?=[A-Z])", "_", type(self).__name__).lower()

    @abstractmethod
    def partials(self, u: Field, x: Tensor, axes: frozenset[Axes]) -> dict[Axes, Tensor]:
        """Take partial derivatives of a field.

        Args:
            u: The field, from points (n, d) to values (n, m). Row i of the values depends on row i
                of the points alone.
            x: The points (n, d).
            axes: The derivatives, see `derivatives.Axes`.

        Returns:
            Each derivative (n, m). It is differentiable by the parameters that u holds, also under
            torch.func.
        """

    def reach(self, axes: frozenset[Axes]) -> dict[int, float]:
        """How far from a point u is evaluated where a user has set the step or the radius, beyond the domain too.

        Args:
            axes: The derivatives.

        Returns:
            The distance by coordinate; none where this differentiator chooses it.
        """
        return {}

    def __call__(self, u: Field, x: Tensor, request: Request) -> Jet:
        """Answer a request; a subclass overrides this only to be faster.

        Args:
            u: The field, from points (n, d) to values (n, m).
            x: The points (n, d).
            request: The names that an equation needs.

        Returns:
            A jet with the coordinates (n, 1) and each requested column (n, m).
        """
        partials = self.partials(u, x, request.axes)
        columns = coordinate_columns(x, request.coordinates)
        for name, terms in request.terms.items():
            columns[name] = sum_of([partials[axes] if c == 1 else c * partials[axes] for axes, c in terms.items()])
        return Jet(columns)

    def fitted(self, spacing: tuple[float, ...], magnitude: float = 1.0, length: float = 1.0) -> Differentiator:
        """This differentiator with what it needs to know of a problem, by default nothing.

        Args:
            spacing: The distance between training points along each coordinate.
            magnitude: The largest absolute value of a coordinate.
            length: The shortest side of the domain.

        Returns:
            The differentiator to use for this problem.
        """
        return self

    def within(self, domain: Domain) -> Differentiator:
        """This differentiator for points of a domain, by default without regard to it.

        Args:
            domain: The domain of the PDE.

        Returns:
            The differentiator to use for this problem.

        Raises:
            UsageError: The differentiator cannot serve such a domain.
        """
        return self

    def tuned_to(self, u: Field, x: Tensor, axes: frozenset[Axes]) -> Differentiator:
        """This differentiator with its automatic settings, such as a step, chosen for a field as it is now.

        Args:
            u: The field, from points (n, d) to values (n, m).
            x: Some points (n, d) of the domain.
            axes: The derivatives that will be taken.

        Returns:
            The differentiator to use for this field.
        """
        return self

    def numbers(self) -> dict[str, float]:
        """Numbers that code which is compiled once may take anew: the step, where a subclass has one that is a number.

        Those of an adaptive differentiator are all that `tuned_to` chooses.

        Returns:
            The numbers by name.
        """
        step = getattr(self, "step", None)
        return {STEP: float(step)} if isinstance(step, (int, float)) else {}

    def with_numbers(self, values: Mapping[str, Tensor]) -> Differentiator:
        """This differentiator with scalar tensors in place of its numbers.

        Args:
            values: All of `numbers`, or none of them, by name.

        Returns:
            The differentiator, which is not checked again.
        """
        return replace(self, **{name.rpartition(".")[2]: value for name, value in values.items()})  # type: ignore[type-var]  # those with a step are dataclasses

    def excess(self, u: Field, x: Tensor, axes: frozenset[Axes]) -> float:
        """By what factor the error with the automatic settings exceeds that with the best ones; 1 where it is unknown.

        Args:
            u: The field, from points (n, d) to values (n, m).
            x: Some points (n, d) of the domain.
            axes: The derivatives that are taken.

        Returns:
            The factor, at least 1.
        """
        return 1.0


def sum_of(columns: list[Tensor]) -> Tensor:
    """The sum of a non-empty list, without an addition to zero."""
    total = columns[0]
    for column in columns[1:]:
        total = total + column
    return total
