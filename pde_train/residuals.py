"""From an equation, a field and a differentiator to residuals, a loss or a linear system. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pde_train.derivatives import Field, Jet, Request
from pde_train.differentiators.base import Differentiator
from pde_train.differentiators.reverse import Reverse
from pde_train.errors import PdeTrainError, UsageError, sentence
from pde_train.geometry import Batch, Points
from pde_train.pdes.base import PDE, Equation
from pde_train.progress import progress

Columns = dict[str, Tensor]

ACROSS = "across_"
"""Prefix of the columns at the opposite points of a periodic region."""

POINTS = 512
"""Points whose rows of a Jacobian are computed at once."""

BLOCK = 2**16
"""Values of the field (rows times columns) that are differentiated at once where no gradient is wanted."""


def evaluate(pde: PDE, u: Field, differentiator: Differentiator, batch: Batch) -> dict[str, Tensor]:
    """The weighted residual (n_e, m) of every equation e of `pde` for the field u at the points of its region."""
    residuals = {}
    for equations, jet in _jets(pde, u, differentiator, batch):
        residuals.update({e.name: _weighted(e, e.residual(jet)) for e in equations})
    return {e.name: residuals[e.name] for e in pde.equations() if e.name in residuals}


def check(pde: PDE, u: Field, differentiator: Differentiator, batch: Batch) -> None:
    """Refuse what cannot be trained: at every point of a batch, u and each residual must be one finite number.

    Evaluated with gradients, as in training, so that code which loses them is found. Raises UsageError, which names the
    equation: for a field or a residual that is no column (n, 1), as where (n, 1) and (n,) were broadcast to (n, n), for
    nan and infinite values, for a formula that uses what its `needs` lack, and for weights that make the loss infinite.
    """
    remedy = "correct its formula or the region where it holds"
    for part in _blocks(batch, 1):
        (points,) = part.values()
        check_column("the model", lambda x=points.x: u(x), points.x, "correct the model")  # type: ignore[misc]
        for equations, jet in _jets(pde, u, differentiator, part):
            for e in equations:
                what = f"the residual of {e.name!r} of {type(pde).__name__}"
                found = check_column(what, lambda e=e, jet=jet: e.residual(jet), points.x, remedy)  # type: ignore[misc]
                if not bool(_weighted(e, found).square().sum().isfinite()):
                    raise UsageError(
                        f"the loss of {e.name!r} of {type(pde).__name__} is infinite before any training: expected a "
                        "finite number, choose a smaller pde.weights or scale the formula"
                    )


def check_column(what: str, formula: Callable[[], Any], x: Tensor, remedy: str) -> Tensor:
    """The values of a formula at points x (n, d), which must be one finite number for each, a column (n, 1)."""
    try:
        values = formula()
    except PdeTrainError:
        raise
    except Exception as error:
        raise UsageError(
            f"{what} cannot be evaluated ({type(error).__name__}: {sentence(error)}): expected torch functions of the "
            f"columns that it needs, {remedy}"
        ) from error
    expected = (len(x), 1)
    if not isinstance(values, Tensor) or tuple(values.shape) != expected:
        came = f"the shape {tuple(values.shape)}" if isinstance(values, Tensor) else f"type {type(values).__name__}"
        raise UsageError(
            f"{what} has {came} at {len(x)} points: expected one column {expected}, as slices such as x[:, :1] and "
            f"keepdim=True give, {remedy}"
        )
    bad = values.isfinite().logical_not().flatten()
    if bool(bad.any()):
        first = int(bad.int().argmax())
        place = ", ".join(f"{c:.4g}" for c in x[first].tolist())
        raise UsageError(
            f"{what} is {float(values.detach()[first])} at {int(bad.sum())} of {len(x)} points, first at ({place}), "
            f"before any training: expected finite numbers, {remedy}"
        )
    return values


def loss(residuals: Mapping[str, Tensor], rows: Mapping[str, int] | None = None) -> Tensor:
    """The sum over equations of the mean square of their residuals.

    rows: points of each equation, where `residuals` are those of some of them: the part that they have in the loss.
    """
    if rows is None:
        return torch.stack([r.square().mean() for r in residuals.values()]).sum()
    return torch.stack([r.square().sum() / rows[name] for name, r in residuals.items()]).sum()


def stacked(residuals: Mapping[str, Tensor]) -> Tensor:
    """All residuals under each other, (sum of n_e, m), in the order of the equations."""
    return torch.cat(list(residuals.values()))


def jacobian_by_points(
    pde: PDE, model: nn.Module, parameters: Mapping[str, Tensor], differentiator: Differentiator, batch: Batch
) -> dict[str, Tensor]:
    """The Jacobian (n_e, p) of the residual of every equation e by the parameters, each row from its own point alone.

    Right where residuals are `row_wise`; it takes the time of a few gradients, where rows from cotangents take n.
    """
    found: dict[str, Tensor] = {}
    for region, points in batch.items():
        fields = {name: tensor for name, tensor in vars(points).items() if tensor is not None}

        def at(own: dict[str, Tensor], point: dict[str, Tensor], region: str = region) -> dict[str, Tensor]:
            def u(x: Tensor) -> Tensor:
                return torch.func.functional_call(model, own, (x,))

            one = Points(**{name: tensor.unsqueeze(0) for name, tensor in point.items()})
            return {k: r.flatten() for k, r in evaluate(pde, u, differentiator, {region: one}).items()}

        rows = torch.func.vmap(torch.func.jacrev(at), in_dims=(None, 0), chunk_size=POINTS)(dict(parameters), fields)
        for name, blocks in rows.items():
            found[name] = torch.cat([blocks[k].reshape(len(points.x), -1) for k in parameters], dim=1)
    return {e.name: found[e.name] for e in pde.equations() if e.name in found}


def row_wise(pde: PDE, u: Field, batch: Batch) -> bool:
    """Whether residuals at a point depend on the field at that point alone, as those of differential equations do.

    Seen by taking the first point of each region away from the others, with exact derivatives.
    """
    with torch.no_grad():
        alone = evaluate(pde, u, Reverse(), {region: points.rows(0, 1) for region, points in batch.items()})
        among = evaluate(pde, u, Reverse(), {region: points.rows(0, 3) for region, points in batch.items()})
    tolerance = {k: torch.finfo(r.dtype).eps ** 0.5 * float(r.abs().max()) for k, r in among.items()}
    return all(float((among[k][:1] - r).abs().max()) <= tolerance[k] for k, r in alone.items())


def zero_field(x: Tensor) -> Tensor:
    """The field that is 0 everywhere: its residual is what a relative residual is measured against."""
    return 0 * x[:, :1]


def relative_residual(pde: PDE, u: Field, differentiator: Differentiator, batch: Batch) -> float:
    """|r(u)| / |r(0)| over all residuals; for a linear system A a = f this is |A a - f| / |f|."""
    found = torch.cat([stacked(evaluate(pde, u, differentiator, part)) for part in _blocks(batch, 1)])
    scale = torch.cat([stacked(evaluate(pde, zero_field, differentiator, part)) for part in _blocks(batch, 1)])
    size = float(torch.linalg.vector_norm(scale))
    return float(torch.linalg.vector_norm(found)) / (size or 1.0)


def assemble(pde: PDE, bank: Field, differentiator: Differentiator, batch: Batch) -> tuple[Tensor, Tensor]:
    """The system A a = b, A (rows, m) and b (rows, 1), of a linear PDE for u = bank(x) a.

    bank maps points (n, d) to m columns. Rows come equation by equation and are scaled by the weights. Column j is the
    linear part of the residual along feature j: the derivative of the residual by the jet, at the zero jet, so that
    the forcing never enters A, not even as rounding.
    """
    columns = bank(next(iter(batch.values())).x[:1]).shape[1]
    parts: dict[str, list[tuple[Tensor, Tensor]]] = {e.name: [] for e in pde.equations()}
    for part in progress(list(_blocks(batch, columns)), "assembling", unit="block", leave=False):
        for equations, jet in _jets(pde, bank, differentiator, part):
            for equation in equations:
                linear, constant = _affine(equation, jet)
                parts[equation.name].append((linear, -constant))
    blocks = [block for name in parts for block in parts[name]]
    return torch.cat([a for a, _ in blocks]), torch.cat([b for _, b in blocks])


def jet_at(pde: PDE, u: Field, differentiator: Differentiator, points: Points, request: Request) -> Jet:
    """The requested jet of u at the points of one region, with its normals and opposite columns where it has them."""
    if points.across is None:
        jet = differentiator(u, points.x, request)
    else:
        columns = differentiator(u, torch.cat([points.x, points.across]), request).columns
        halves = {name: column.chunk(2) for name, column in columns.items()}
        jet = Jet({prefix + k: v[i] for i, prefix in enumerate(("", ACROSS)) for k, v in halves.items()})
    if points.normals is None:
        return jet
    normals = {f"n_{c}": points.normals[:, i : i + 1] for i, c in enumerate(pde.coordinates)}
    return Jet({**jet.columns, **normals})


def _jets(pde: PDE, u: Field, differentiator: Differentiator, batch: Batch) -> Iterator[tuple[list[Equation], Jet]]:
    """The equations of each region of the batch, and the jet of u that they need."""
    for region, points in batch.items():
        if region in pde.regions:
            equations, request = pde.regions[region]
            yield equations, jet_at(pde, u, differentiator, points, request)


def _weighted(equation: Equation, residual: Tensor) -> Tensor:
    return residual if equation.weight == 1 else equation.weight * residual


def _affine(equation: Equation, jet: Jet) -> tuple[Tensor, Tensor]:
    """The linear part (n, m) of an equation's residual at the jet, and its constant part (n, 1), both weighted."""
    fixed = {k: v for k, v in jet.columns.items() if not _unknown(k)}
    unknown = {k: v for k, v in jet.columns.items() if _unknown(k)}

    def residual(columns: Columns) -> Tensor:
        return equation.residual(Jet({**fixed, **columns}))

    constant, linear = _push_forward(residual, {k: torch.zeros_like(v) for k, v in unknown.items()}, unknown)
    _, elsewhere = _push_forward(residual, unknown, unknown)
    rounding = 1e3 * torch.finfo(linear.dtype).eps * float(linear.abs().max())
    if not bool(((elsewhere - linear).abs() <= rounding).all()):
        raise UsageError(
            f"method=least_squares solves linear equations, and {equation.name!r} of this PDE is not linear in u: "
            "choose method=gradient_descent"
        )
    return _weighted(equation, linear), _weighted(equation, constant[:, :1])


def _push_forward(residual: Callable[[Columns], Tensor], at: Columns, tangent: Columns) -> tuple[Tensor, Tensor]:
    """A residual and its derivative along a tangent; the transpose of the pullback, as torch.func.jvp loads slowly."""
    value, pull_back = torch.func.vjp(residual, at)  # type: ignore[misc]
    _, push_forward = torch.func.vjp(lambda c: pull_back(c)[0], torch.zeros_like(value))  # type: ignore[misc]
    return value, push_forward(tangent)[0]


def _unknown(name: str) -> bool:
    name = name.removeprefix(ACROSS)
    return name == "u" or name.startswith("u_") or name.endswith("_u")


def _blocks(batch: Batch, columns: int) -> Iterator[dict[str, Points]]:
    """The batch, region by region, in blocks of at most BLOCK values."""
    rows = max(1, BLOCK // columns)
    for region, points in batch.items():
        for start in range(0, points.x.shape[0], rows):
            yield {region: points.rows(start, start + rows)}
