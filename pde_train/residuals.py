"""Residuals: from an equation, a field and a differentiator to residuals, a loss or a Jacobian.

Every function is pure. A jet of the field is taken once for each region (`jet_at`), and the
formulas of all equations of that region are evaluated on it. Losses, relative residuals, Jacobians
and the matrices of `pde_train.linear_system` are then linear algebra on the residual columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from pde_train.derivatives import ACROSS, Field, Jet, Request
from pde_train.differentiators.base import Differentiator
from pde_train.differentiators.reverse import Reverse
from pde_train.geometry import Batch, Points, without_factors
from pde_train.pdes.base import PDE, Equation

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
    for equations, jet in jets(pde, u, differentiator, batch):
        factors = batch[equations[0].region].factors
        for i, e in enumerate(equations):
            residual = weighted(e, e.residual(jet))
            residuals[e.name] = residual if factors is None else factors[:, i : i + 1] * residual
    return {e.name: residuals[e.name] for e in pde.equations() if e.name in residuals}


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
        for name, by in rows.items():
            jacobians[name] = torch.cat([by[k].flatten(2) for k in parameters], dim=2)
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
    parts = [evaluate(pde, u, differentiator, part).values() for part in blocks(batch, 1)]
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
        for part in blocks(batch, 1):
            found = evaluate(pde, field, differentiator, part)
            rows += [found[e.name] * as_many[e.region] ** 0.5 for e in pde.equations() if e.name in found]
        return float(torch.linalg.vector_norm(torch.cat([row.flatten() for row in rows])))

    zero = zero_field(pde, u, next(iter(batch.values())).x[:1])
    return size(u) / (size(zero) or 1.0)


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


def jets(
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


def weighted(equation: Equation, residual: Tensor) -> Tensor:
    """The residual of an equation times its weight, which is left out where it is 1."""
    weight = equation.weight
    return residual if isinstance(weight, float) and weight == 1 else weight * residual


def blocks(batch: Batch, columns: int) -> Iterator[dict[str, Points]]:
    """Yield the batch region by region, in blocks of at most BLOCK values of `columns` columns."""
    rows = max(1, min(BLOCK_POINTS, BLOCK // columns))
    for region, points in batch.items():
        for start in range(0, points.x.shape[0], rows):
            yield {region: points.rows(start, start + rows)}
