"""The linear system of a PDE for the coefficients of features, and that of a step of Newton's method."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from pde_train.derivatives import Field, Jet, unknown_of
from pde_train.differentiators.base import Differentiator
from pde_train.errors import UsageError
from pde_train.geometry import Batch
from pde_train.pdes.base import PDE, Equation
from pde_train.residuals import blocks, jets, weighted

Columns = dict[str, Tensor]


def assemble(
    pde: PDE,
    features: Field,
    differentiator: Differentiator,
    batch: Batch,
    wrap: Callable[[Iterable[Batch]], Iterable[Batch]] = iter,
    coefficients: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The linear system A a = b of a linear PDE for u(x) = features(x) a, or that of a step of Newton's method.

    Column j of A is the linear part of the residual along feature j. It is computed as the
    derivative of the residual with respect to the jet at the zero jet, so that the forcing never
    enters A, not even as rounding. Each of k unknowns has the same features and its own coefficients:
    the first P columns of A are those of the first unknown.

    Args:
        pde: The equations, which must be linear in u where no coefficients are given.
        features: The map from points (n, d) to P features (n, P).
        differentiator: What takes the derivatives.
        batch: The points of each region.
        wrap: Wraps the iteration over blocks of points, for example in a progress bar.
        coefficients: Coefficients (P, k) in place of 0, about which equations are linearised: A is then the
            derivative of the residual by the coefficients and b the residual with the opposite sign, so that
            a is the step.

    Returns:
        A (rows, k P) and b (rows, 1). Rows come equation by equation and are scaled by the weights of
        the equations.

    Raises:
        UsageError: An equation is not linear in the unknowns, or is no single column.
    """
    columns = features(next(iter(batch.values())).x[:1]).shape[1]
    parts: dict[str, list[tuple[Tensor, Tensor]]] = {e.name: [] for e in pde.equations()}
    for part in wrap(list(blocks(batch, columns))):
        for equations, jet in jets(pde, features, differentiator, part, shared=True):
            for equation in equations:
                linear, constant = _affine(equation, jet, pde.unknowns, coefficients)
                parts[equation.name].append((linear, -constant))
    found = [block for name in parts for block in parts[name]]
    return torch.cat([a for a, _ in found]), torch.cat([b for _, b in found])


def _affine(
    equation: Equation, jet: Jet, unknowns: Sequence[str], coefficients: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The linear part (n, k m) of an equation's residual at a jet, and its constant part (n, 1), both weighted.

    The residual r of a linear equation is affine in the unknown columns c of the jet: r(c) = r(0) +
    r' c. The linear part along an unknown is the push-forward of its columns at the zero jet. The
    push-forward at c itself agrees up to rounding if r is indeed affine.

    Args:
        equation: The equation.
        jet: The jet of the features (n, m), which the k unknowns share.
        unknowns: The names of the unknowns.
        coefficients: Coefficients (m, k) about which the residual is linearised, whether or not it is
            affine; None for 0 and an affine one.

    Returns:
        Both parts; the constant one is the residual at the coefficients.

    Raises:
        UsageError: The equation is not linear in the unknowns, or is no single column.
    """
    of = {name: unknown for name in jet.columns if (unknown := unknown_of(name, unknowns))}
    fixed = {name: v for name, v in jet.columns.items() if name not in of}
    columns = {name: jet.columns[name] for name in of}
    zeros = {name: torch.zeros_like(v) for name, v in columns.items()}
    at = zeros
    if coefficients is not None:
        own = {unknown: coefficients[:, i : i + 1] for i, unknown in enumerate(unknowns)}
        at = {name: (v @ own[of[name]]).expand_as(v) for name, v in columns.items()}

    def residual(columns: Columns) -> Tensor:
        return equation.residual(Jet({**fixed, **columns}))

    parts = []
    for unknown in unknowns:
        tangent = {name: columns[name] if of[name] == unknown else zeros[name] for name in of}
        constant, linear = _push_forward(residual, at, tangent)
        if coefficients is None:
            _, elsewhere = _push_forward(residual, columns, tangent)
            rounding = 1e3 * torch.finfo(linear.dtype).eps * float(linear.abs().max())
            if not bool(((elsewhere - linear).abs() <= rounding).all()):
                raise UsageError(
                    f"method=least_squares solves linear equations, and {equation.name!r} of this PDE is not linear in "
                    f"{', '.join(unknowns)}: choose method=newton_least_squares or gradient_descent"
                )
        if linear.shape[1] != next(iter(columns.values())).shape[1]:
            raise UsageError(
                f"least squares want equations of one column, and {equation.name!r} of this PDE has several: "
                "expected a method for each, split it"
            )
        parts.append(linear)
    linear = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
    return weighted(equation, linear), weighted(equation, constant[:, :1])


def _push_forward(residual: Callable[[Columns], Tensor], at: Columns, tangent: Columns) -> tuple[Tensor, Tensor]:
    """A residual and its derivative along a tangent, by the transpose of the pullback: torch.func.jvp loads slowly."""
    value, pull_back = torch.func.vjp(residual, at)  # type: ignore[misc]  # typed as 2 or 3
    zero = torch.zeros_like(value)
    _, push_forward = torch.func.vjp(lambda c: pull_back(c)[0], zero)  # type: ignore[misc]  # typed as 2 or 3
    return value, push_forward(tangent)[0]
