"""How far the noise of measured values moves the numbers that are learnt from them.

Near a minimum of the loss |R|^2, whose rows R have the Jacobian J = U S V^T by the parameters, noise e in the rows
moves the parameters by -J^+ e = -V S^-1 U^T e. Rows of measured values have noise, of a variance that is estimated
from what is left of them, and rows of equations have none. The covariance of a number follows, and with Student's t its
interval (Seber and Wild, Nonlinear Regression, 1989, section 2.1).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
import torch
from scipy import special

from pde_train import residuals
from pde_train.geometry import Batch
from pde_train.models.numbers import WithNumbers
from pde_train.pdes.base import DATA
from pde_train.problem import Problem

LEVEL = 0.95
"""The probability with which an interval contains the number, by this linear theory."""

CUTOFF = 1e-6
"""Singular values below this multiple of the largest count as 0; 1e-3 to 1e-10 gave the same within 30 %."""

MOST_ENTRIES = 2 * 10**7
"""The largest Jacobian, 160 MB, that is decomposed."""

DETERMINED = 0.5
"""The square of the part of a number's direction that the kept singular vectors span: 1 within 1e-7, or about 0."""

NUMBERS = "numbers"
"""The name of their parameter, see `pde_train.models.numbers`."""

log = logging.getLogger(__name__)


def intervals(problem: Problem, batch: Batch) -> dict[str, float]:
    """Confidence intervals of the numbers that are learnt.

    Args:
        problem: With the parameters that the run found.
        batch: The last training points.

    Returns:
        For each number `interval/<name>/lower` and `/upper`, at the level of 95 %, and `interval/<name>/ahead`: by how
        many half-widths of the interval one more step of Gauss-Newton would move the number; `ahead` alone, which is
        infinite, where no residual or no noise determines the number. Nothing where no number is learnt, no values are
        measured, or fewer than the parameters can fit.
    """
    model = problem.model
    if not isinstance(model, WithNumbers) or DATA not in batch:
        return {}
    weighted = residuals.evaluate(problem.pde, model, problem.differentiator, batch)
    scaled = {name: (r.detach() / len(r) ** 0.5).flatten().double().cpu().numpy() for name, r in weighted.items()}
    rows = np.concatenate(list(scaled.values()))
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    entries = len(rows) * sum(p.numel() for p in parameters.values())
    if entries > MOST_ENTRIES:
        log.info("no interval of learnt numbers: the Jacobian has %.1e entries, more than %.1e", entries, MOST_ENTRIES)
        return {}
    u, s, vt = np.linalg.svd(problem.jacobian(batch).dense().double().cpu().numpy(), full_matrices=False)
    kept = s > CUTOFF * s[0]
    u, s, vt = u[:, kept], s[kept], vt[kept]
    first = sum(p.numel() for p in list(parameters.values())[: list(parameters).index(NUMBERS)])
    places = slice(first, first + len(problem.pde.learned))
    inverse = (vt[:, places].T / s) @ u.T  # how each row moves each number: (numbers, rows)
    variances, freedom = _noise(problem, scaled, u, inverse)
    if freedom == 0:
        log.info("no interval of learnt numbers: the model can fit all measured values")
        return {}
    half = special.stdtrit(freedom, (1 + LEVEL) / 2) * np.sqrt(variances)
    with torch.no_grad():
        raw, width = model.numbers, torch.as_tensor(half).to(model.numbers)
        lower, upper = model.values(raw - width).tolist(), model.values(raw + width).tolist()
    determined = ((vt[:, places] ** 2).sum(axis=0) > DETERMINED) & (half > 0)
    ahead = np.divide(np.abs(inverse @ rows), half, out=np.full(len(half), np.inf), where=determined)
    ends = {"lower": lower, "upper": upper, "ahead": ahead.tolist()}
    named = list(enumerate(problem.pde.learned))
    return {f"interval/{n}/{key}": ends[key][i] for i, n in named for key in ends if determined[i] or key == "ahead"}


def _noise(
    problem: Problem, scaled: Mapping[str, np.ndarray], u: np.ndarray, inverse: np.ndarray
) -> tuple[np.ndarray, float]:
    """The variances of the numbers by the noise of measured values.

    Args:
        problem: Which says what rows are those of measured values.
        scaled: The rows of each equation.
        u: The left singular vectors (rows, k) of their Jacobian.
        inverse: How each row moves each number, (numbers, rows).

    Returns:
        The variances (numbers,), and the degrees of freedom that the fit of the values leaves; 0 where it leaves none.
    """
    measured = {equation.name for equation in problem.pde.equations() if equation.region == DATA}
    variances, left, start = np.zeros(len(inverse)), 0.0, 0
    for equation, rows in scaled.items():
        own = slice(start, start + len(rows))
        start += len(rows)
        if equation in measured:
            freedom = len(rows) - float((u[own] ** 2).sum())
            if freedom < 1:
                return variances, 0.0
            variances += float((rows**2).sum()) / freedom * (inverse[:, own] ** 2).sum(axis=1)
            left += freedom
    return variances, left
