"""Residuals: from an equation, a field and a differentiator to residuals, a loss or a linear system.

Every function is pure. A jet of the field is taken once for each region (`jet_at`), and the
formulas of all equations of that region are evaluated on it. Losses, system matrices, relative
residuals and Jacobians are then linear algebra on the residual columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pde_train.derivatives import ACROSS, Field, Jet, Request, unknown_of
from pde_train.differentiators.base import Differentiator
from pde_train.differentiators.reverse import Reverse
from pde_train.errors import PdeTrainError, UsageError, sentence
from pde_train.geometry import Batch, Points, without_factors
from pde_train.pdes.base import PDE, Equation

Columns = dict[str, Tensor]

POINTS = 512
"""The number of points whose rows of a Jacobian are computed at once."""

BLOCK = 2**16
"""The number of values of the field (points times columns) that are differentiated at once without gradients."""

BLOCK_POINTS = 1024
"""The number of points, at most: nested reverse mode of the fourth order keeps two hundred arrays of a layer's size."""


def evaluate(pde: PDE, u: Field, differentiator: Differentiator, batch: Batch) -> dict[str, Tensor]:
    """The weighted residual of every equation for a field.

    Args:
        pde: The equations.
        u: The field, from points (n, d) to values (n, m).
        differentiator: What takes the derivatives that the equations name.
        batch: The points of each region. Equations of regions that it lacks are left out.

    Returns:
        The residual (n_e, k) of each equation e at the n_e points of its region, by name.
    """
    residuals = {}
    for equations, jet in _jets(pde, u, differentiator, batch):
        factors = batch[equations[0].region].factors
        for i, e in enumerate(equations):
            residual = _weighted(e, e.residual(jet))
            residuals[e.name] = residual if factors is None else factors[:, i : i + 1] * residual
    return {e.name: residuals[e.name] for e in pde.equations() if e.name in residuals}


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
    for part in _blocks(batch, 1):
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
        for equations, jet in _jets(pde, u, differentiator, part):
            for e in equations:
                what = f"the residual of {e.name!r} of {type(pde).__name__}"
                residual = check_columns(what, partial(e.residual, jet), points.x, remedy, widths.get(e.name, 1))
                if not bool(_weighted(e, residual).square().sum().isfinite()):
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


def loss(residuals: Mapping[str, Tensor], rows: Mapping[str, int] | None = None) -> Tensor:
    """The sum over equations of the mean square of their residuals; of several columns, the sum over them.

    Args:
        residuals: The residual (n_e, k) of each equation.
        rows: The number of points of each equation, where `residuals` are those of some of the
            points alone. The result is then the part that these points have in the loss.

    Returns:
        The loss, a scalar.
    """
    if rows is None:
        return torch.stack([mean_square(r) for r in residuals.values()]).sum()
    return torch.stack([r.square().sum() / rows[name] for name, r in residuals.items()]).sum()


def mean_square(residual: Tensor) -> Tensor:
    """The mean over points of the squares of a residual (n, k), summed over its k columns, a scalar."""
    mean = residual.square().mean()
    return mean if residual.shape[1] == 1 else mean * residual.shape[1]


def stacked(residuals: Mapping[str, Tensor]) -> Tensor:
    """All residuals in one column, or their Jacobians in one matrix, equation by equation and point by point.

    Args:
        residuals: The residual (n_e, k) of each equation, or its Jacobian (n_e, k, p).

    Returns:
        The column (sum of n_e k, 1), or the matrix (sum of n_e k, p).
    """
    return torch.cat([r.reshape(-1, 1) if r.dim() == 2 else r.flatten(0, 1) for r in residuals.values()])


def jacobian_by_points(
    pde: PDE, model: nn.Module, parameters: Mapping[str, Tensor], differentiator: Differentiator, batch: Batch
) -> dict[str, Tensor]:
    """The Jacobian of every residual by the parameters, where each row is computed from its own point alone.

    This takes the time of a few gradients, where rows from cotangents take that of n. It is right
    only if residuals are `row_wise`.

    Args:
        pde: The equations.
        model: The model.
        parameters: Its trainable parameters by name, p numbers in all.
        differentiator: What takes the derivatives.
        batch: The points of each region.

    Returns:
        The Jacobian (n_e, k, p) of each equation e with k columns, by name.
    """
    jacobians: dict[str, Tensor] = {}
    for region, points in batch.items():
        fields = {name: tensor for name, tensor in vars(points).items() if tensor is not None}

        def at(own: dict[str, Tensor], point: dict[str, Tensor], region: str = region) -> dict[str, Tensor]:
            def u(x: Tensor) -> Tensor:
                values: Tensor = torch.func.functional_call(model, own, (x,))
                return values

            one = Points(**{name: tensor.unsqueeze(0) for name, tensor in point.items()})
            return {k: r.flatten() for k, r in evaluate(pde, u, differentiator, {region: one}).items()}

        rows = torch.func.vmap(torch.func.jacrev(at), in_dims=(None, 0), chunk_size=POINTS)(dict(parameters), fields)
        for name, blocks in rows.items():
            jacobians[name] = torch.cat([blocks[k].flatten(2) for k in parameters], dim=2)
    return {e.name: jacobians[e.name] for e in pde.equations() if e.name in jacobians}


def row_wise(pde: PDE, u: Field, batch: Batch) -> bool:
    """Whether residuals at a point depend on the field at that point alone, as those of differential equations do.

    The residual at the first point of each region is computed twice with exact derivatives: by
    itself, and together with two others.

    Args:
        pde: The equations.
        u: The model.
        batch: The points of each region.

    Returns:
        Whether both agree up to rounding.
    """
    with torch.no_grad():
        alone = evaluate(pde, u, Reverse(), {region: points.rows(0, 1) for region, points in batch.items()})
        among = evaluate(pde, u, Reverse(), {region: points.rows(0, 3) for region, points in batch.items()})
    tolerance = {k: torch.finfo(r.dtype).eps ** 0.5 * float(r.abs().max()) for k, r in among.items()}
    return all(float((among[k][:1] - r).abs().max()) <= tolerance[k] for k, r in alone.items())


def zero_field(pde: PDE, u: Field, x: Tensor) -> Field:
    """The field whose unknowns are 0 everywhere; relative residuals are relative to its residual.

    Args:
        pde: The PDE.
        u: A field with as many columns, whose numbers that are learnt this one has.
        x: Some points.

    Returns:
        The field.
    """
    columns = _unknowns(pde, u, x).shape[1]

    def zero(x: Tensor) -> Tensor:
        zeros = [0 * x[:, :1]] * columns
        return torch.cat([*zeros, u(x)[:, columns:]] if pde.learned else zeros, dim=1)

    return zero


def sizes(pde: PDE, u: Field, differentiator: Differentiator, batch: Batch) -> Tensor:
    """The size of the weighted residuals at each point of a batch of one region.

    Args:
        pde: The equations.
        u: The field.
        differentiator: What takes the derivatives.
        batch: The n points of the region.

    Returns:
        The root of the sum of squares over the equations of the region (n,).
    """
    parts = [evaluate(pde, u, differentiator, part).values() for part in _blocks(batch, 1)]
    return torch.cat([torch.cat(list(part), dim=1).square().sum(dim=1).sqrt() for part in parts])


def relative_residual(
    pde: PDE, u: Field, differentiator: Differentiator, batch: Batch, counts: Mapping[str, int] | None = None
) -> float:
    """The norm |r(u)| / |r(0)| over all residuals; for a linear system A a = f this is |A a - f| / |f|.

    Args:
        pde: The equations.
        u: The field.
        differentiator: What takes the derivatives.
        batch: The points of each region.
        counts: The number of points of a region as which those of the batch count, so that numbers on different
            points can be compared; by default as many as there are.

    Returns:
        The ratio; |r(u)| where r(0) = 0.
    """
    batch = without_factors(batch)
    as_many = {region: (counts or {}).get(region, len(points.x)) / len(points.x) for region, points in batch.items()}

    def size(field: Field) -> float:
        rows = []
        for part in _blocks(batch, 1):
            found = evaluate(pde, field, differentiator, part)
            rows += [found[e.name] * as_many[e.region] ** 0.5 for e in pde.equations() if e.name in found]
        return float(torch.linalg.vector_norm(torch.cat([row.flatten() for row in rows])))

    zero = zero_field(pde, u, next(iter(batch.values())).x[:1])
    return size(u) / (size(zero) or 1.0)


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
    for part in wrap(list(_blocks(batch, columns))):
        for equations, jet in _jets(pde, features, differentiator, part, shared=True):
            for equation in equations:
                linear, constant = _affine(equation, jet, pde.unknowns, coefficients)
                parts[equation.name].append((linear, -constant))
    blocks = [block for name in parts for block in parts[name]]
    return torch.cat([a for a, _ in blocks]), torch.cat([b for _, b in blocks])


def jet_at(
    pde: PDE, u: Field, differentiator: Differentiator, points: Points, request: Request, shared: bool = False
) -> Jet:
    """The jet of a field at the points of one region.

    Args:
        pde: The PDE, whose coordinates name the normals.
        u: The field, from points (n, d) to values (n, m).
        differentiator: What takes the derivatives.
        points: The points of the region.
        request: The derivatives that are needed.
        shared: Whether the columns of the field are features, which every unknown shares.

    Returns:
        The requested columns (n, 1), or (n, m) of features and of one unknown. With them the components
        of the normals (n, 1) where the points have them and, on a periodic region, the same columns at
        the opposite points, named `across_...`.
    """
    x = points.x if points.across is None else torch.cat([points.x, points.across])
    columns = request.split(differentiator(u, x, request.of_field).columns, shared)
    if points.across is not None:
        halves = {name: column.chunk(2) for name, column in columns.items()}
        columns = {prefix + k: v[i] for i, prefix in enumerate(("", ACROSS)) for k, v in halves.items()}
    if points.given is not None and pde.measurements is not None:
        columns |= {f"given_{n}": points.given[:, i : i + 1] for i, n in enumerate(pde.measurements.names)}
    if points.normals is not None:
        columns |= {f"n_{c}": points.normals[:, i : i + 1] for i, c in enumerate(pde.coordinates)}
    return Jet(columns)


def _jets(
    pde: PDE, u: Field, differentiator: Differentiator, batch: Batch, shared: bool = False
) -> Iterator[tuple[list[Equation], Jet]]:
    """Yield the equations of each region of the batch, and the jet of u that they need, see `jet_at`.

    The last columns of u are the numbers that are learnt, where there are any. The equations yielded have
    them in place of those of the PDE.
    """
    for region, points in batch.items():
        if region not in pde.regions:
            continue
        equations, request = pde.regions[region]
        if not pde.learned:
            yield equations, jet_at(pde, u, differentiator, points, request, shared)
            continue
        numbers = u(points.x[:1])[:, -len(pde.learned) :].expand(len(points.x), -1).split(1, dim=1)
        varied = pde.with_numbers(dict(zip(pde.learned, numbers, strict=True)))
        yield varied.regions[region][0], jet_at(pde, partial(_unknowns, pde, u), differentiator, points, request)


def _unknowns(pde: PDE, u: Field, x: Tensor) -> Tensor:
    """The columns of a field that are unknowns."""
    return u(x)[:, : -len(pde.learned)] if pde.learned else u(x)


def _weighted(equation: Equation, residual: Tensor) -> Tensor:
    weight = equation.weight
    return residual if isinstance(weight, float) and weight == 1 else weight * residual


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
    return _weighted(equation, linear), _weighted(equation, constant[:, :1])


def _push_forward(residual: Callable[[Columns], Tensor], at: Columns, tangent: Columns) -> tuple[Tensor, Tensor]:
    """A residual and its derivative along a tangent, by the transpose of the pullback: torch.func.jvp loads slowly."""
    value, pull_back = torch.func.vjp(residual, at)  # type: ignore[misc]  # typed as 2 or 3
    zero = torch.zeros_like(value)
    _, push_forward = torch.func.vjp(lambda c: pull_back(c)[0], zero)  # type: ignore[misc]  # typed as 2 or 3
    return value, push_forward(tangent)[0]


def _blocks(batch: Batch, columns: int) -> Iterator[dict[str, Points]]:
    """Yield the batch region by region, in blocks of at most BLOCK values of `columns` columns."""
    rows = max(1, min(BLOCK_POINTS, BLOCK // columns))
    for region, points in batch.items():
        for start in range(0, points.x.shape[0], rows):
            yield {region: points.rows(start, start + rows)}
