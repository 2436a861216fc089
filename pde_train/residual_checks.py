"""What is refused before training: values of a model, a residual or an exact solution that no loss can be made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pde_train.derivatives import Field
from pde_train.differentiators.base import Differentiator
from pde_train.errors import PdeTrainError, UsageError, sentence
from pde_train.geometry import Batch
from pde_train.pdes.base import PDE
from pde_train.residuals import blocks, evaluate, jets, weighted


def check(pde: PDE, u: Field, differentiator: Differentiator, batch: Batch) -> None:
    """Refuse what cannot be trained: at every point of a batch, the unknowns and each residual must be finite.

    Everything is evaluated with gradients, as in training, so that code which loses them is found.

    Args:
        pde: The equations.
        u: The model.
        differentiator: What takes the derivatives.
        batch: The training points.

    Raises:
        UsageError: The sentence names the equation. The field has not one column for each unknown; a
            residual is no column (n, 1), as where (n, 1) and (n,) were broadcast to (n, n); one of them is
            nan or infinite; a formula uses what its `needs` lack; or the weights make the loss infinite.
    """
    remedy = "correct its formula or the region where it holds"
    widths: dict[str, int] = {}
    for part in blocks(batch, 1):
        (points,) = part.values()
        columns = check_columns("the model", partial(u, points.x), points.x, "correct the model").shape[1]
        columns -= len(pde.learned)
        if columns != len(pde.unknowns) > 1:
            raise UsageError(
                f"the model has {columns} columns, and {type(pde).__name__} the unknowns {', '.join(pde.unknowns)}: "
                "expected one for each, correct the model"
            )
        if columns > 1 and not widths:
            widths = _widths(pde, u, differentiator, {region: points.rows(0, 1) for region, points in batch.items()})
        for equations, jet in jets(pde, u, differentiator, part):
            for e in equations:
                what = f"the residual of {e.name!r} of {type(pde).__name__}"
                residual = check_columns(what, partial(e.residual, jet), points.x, remedy, widths.get(e.name, 1))
                if not bool(weighted(e, residual).square().sum().isfinite()):
                    raise UsageError(
                        f"the loss of {e.name!r} of {type(pde).__name__} is infinite before any training: expected a "
                        "finite number, choose a smaller pde.weights or scale the formula"
                    )


def _widths(pde: PDE, u: Field, differentiator: Differentiator, batch: Batch) -> dict[str, int]:
    """The number of residuals of each equation, seen at one point, where nothing can be broadcast to more points.

    Args:
        pde: The equations.
        u: The field, with several columns.
        differentiator: What takes the derivatives.
        batch: One point of every region.

    Returns:
        The number of columns by the name of the equation.

    Raises:
        UsageError: The columns are those of one unknown, and each could be solved for without the others.
    """
    whole = evaluate(pde, u, differentiator, batch)
    if len(pde.unknowns) == 1:

        def others_changed(x: Tensor) -> Tensor:
            values = u(x)
            return torch.cat([values[:, :1], 2 * values[:, 1:] + 1], dim=1)

        columns = u(next(iter(batch.values())).x).shape[1]
        changed = evaluate(pde, others_changed, differentiator, batch)
        if all(r.shape == (1, columns) and torch.equal(r[:, 0], changed[name][:, 0]) for name, r in whole.items()):
            raise UsageError(
                f"the model has {columns} columns, and no equation of {type(pde).__name__} couples them: expected one "
                f"column, or names of several unknowns, such as unknowns = ({pde.unknowns[0]!r}, 'v')"
            )
    return {name: r.shape[-1] for name, r in whole.items() if r.dim() == 2}


def check_columns(what: str, formula: Callable[[], Any], x: Tensor, remedy: str, width: int | None = None) -> Tensor:
    """Evaluate a formula that must give finite numbers at each point.

    Args:
        what: The name of the formula in the error.
        formula: Computes the values.
        x: The points (n, d) at which it does.
        remedy: What the error tells the user to do.
        width: The number k of columns; None for any.

    Returns:
        The values (n, k).

    Raises:
        PdeTrainError: Whatever error with a sentence the formula raises.
        UsageError: The formula fails, gives another shape, or gives a value that is not finite.
    """
    try:
        values = formula()
    except PdeTrainError:
        raise
    except Exception as error:  # the code of a user's equation or model may raise anything
        raise UsageError(
            f"{what} cannot be evaluated ({type(error).__name__}: {sentence(error)}): expected torch functions of the "
            f"columns that it needs, {remedy}"
        ) from error
    expected = (len(x), 1 if width is None else width)
    fits = isinstance(values, Tensor) and values.dim() == 2 and len(values) == len(x) and values.shape[1] > 0
    if not isinstance(values, Tensor) or not fits or width not in (None, values.shape[1]):
        came = f"the shape {tuple(values.shape)}" if isinstance(values, Tensor) else f"type {type(values).__name__}"
        raise UsageError(
            f"{what} has {came} at {len(x)} points: expected one column {expected}, as slices such as x[:, :1] and "
            f"keepdim=True give, {remedy}"
        )
    bad = values.isfinite().all(dim=1).logical_not()
    if bool(bad.any()):
        first = int(bad.int().argmax())
        place = ", ".join(f"{c:.4g}" for c in x[first].tolist())
        worst = next(v for v in values.detach()[first].tolist() if not math.isfinite(v))
        raise UsageError(
            f"{what} is {worst} at {int(bad.sum())} of {len(x)} points, first at ({place}), "
            f"before any training: expected finite numbers, {remedy}"
        )
    return values
