"""Equations of a PDE: what the methods of its class are marked with, and what is made of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

from pde_train.derivatives import Jet, Request

Method = TypeVar("Method", bound=Callable[..., Any])


@dataclass(frozen=True)
class Equation:
    """One residual of a PDE.

    Attributes:
        name: The name of the method that is its formula.
        region: The region where it holds, see `pde_train.geometry.faces_of`.
        request: The derivatives that it needs.
        residual: Its formula, from a jet of columns (n, 1) to the residual (n, k). Every column is a
            residual of its own. A linear formula of one column also takes columns (n, m) of m functions.
        weight: The factor of its residual in the loss and in the rows of a linear system; a scalar
            tensor where the weights of many problems are varied at once, see `PDE.with_numbers`.
    """

    name: str
    region: str
    request: Request
    residual: Callable[[Jet], Tensor]
    weight: float | Tensor


def on(region: str, needs: str, when: Callable[[Any], bool] = lambda pde: True) -> Callable[[Method], Method]:
    """Mark a method of a PDE as the residual of an equation.

    Args:
        region: Where the equation holds, such as `"interior"` or `"boundary"`, see
            `pde_train.geometry.faces_of`.
        needs: The names of the derivatives that the formula uses, as in `"u u_t u_xx"`.
        when: Whether the equation belongs to an instance of the PDE; by default to every one.

    Returns:
        The decorator.
    """

    def mark(method: Method) -> Method:
        method.equation = (region, needs, when)  # type: ignore[attr-defined]  # functions take attributes
        return method

    return mark


def fulfils(*conditions: str) -> Callable[[Method], Method]:
    """Mark the method `ansatz` of a PDE with the names of the equations that it fulfils.

    Args:
        conditions: Names of boundary and initial conditions. Those that do not belong to an instance are passed over.

    Returns:
        The decorator.
    """

    def mark(method: Method) -> Method:
        method.fulfils = conditions  # type: ignore[attr-defined]  # functions take attributes
        return method

    return mark
