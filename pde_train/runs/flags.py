"""What a reader must know before the numbers of a finished run are believed."""

from __future__ import annotations

import math
from collections.abc import Mapping

GROWN = 10.0
"""A loss that ends this many times above its first value, or a residual this many times that of u = 0, has diverged."""

ROUNDING = {"float64": 1.5e-11, "float32": 3.5e-7}
"""Relative residuals below this are rounding: how many times smaller one is than another says nothing."""

SAME = {"float64": 1e-6, "float32": 1e-2}
"""Relative difference up to which two exact ways of taking derivatives agree."""

SMALL_RESIDUAL, LARGE_ERROR = 1e-3, 0.5
"""A function whose exact residual and relative error are beyond both solves the equations, and is another solution."""

FAR = 100.0
"""A step with an error bound so many times the least one is far from the best."""

NEAR_FLOOR = 3.0
"""An error below so many times that of the reference is no measurement."""

POOR = 0.5
"""A relative L2 distance from measured values beyond which the model explains less than three quarters of them."""

NAMES = (
    "diverged",
    "unresolved",
    "inexact",
    "other_solution",
    "far_from_best_step",
    "given_solution",
    "at_reference",
    "unsettled_number",
    "undetermined_number",
    "poor_fit",
)


def raised(
    metrics: Mapping[str, float], first_loss: float | None, factor: float | None, exact: bool, precision: str
) -> dict[str, str]:
    """What a reader must know of the numbers of a run.

    Args:
        metrics: The last value of each metric.
        first_loss: The loss before the first step, None where there was none.
        factor: How many times above the trained residual an exact one may lie; None for no judgement.
        exact: Whether the run's derivatives are said to be exact.
        precision: ``float64`` or ``float32``.

    Returns:
        Flags by name, each with a sentence.
        ``diverged``: a number is nan or infinite, or the loss or the residual has grown.
        ``unresolved``: an exact residual, on the training points, on held-out points or on the test
        points, is more than `factor` times above the residual that was trained.
        ``inexact``: derivatives that are said to be exact differ from another exact way.
        ``other_solution``: the exact residual is small and the error is large.
        ``far_from_best_step``: an automatic step of finite differences had a much larger error before
        training than the best step has.
        ``given_solution``: a few features of a linear model are the solution.
        ``at_reference``: the error is hardly larger than that of the reference.
        ``unsettled_number``: one more step would move a number that is learnt out of its confidence interval.
        ``poor_fit``: the model is far from the measured values.
        ``undetermined_number``: no residual changes with a number that is learnt.
    """
    sentences: dict[str, str] = {}
    residual, residual_exact = metrics["residual"], metrics["residual_exact"]
    error = metrics.get("error_l2", 0.0)
    loss = metrics.get("loss", 0.0)
    named = {"loss": loss, "residual": residual, "residual_exact": residual_exact, "error_l2": error}
    broken = [name for name, value in named.items() if not math.isfinite(value)]
    if broken:
        sentences["diverged"] = f"{', '.join(broken)} became nan or infinite: choose a smaller optimizer.lr"
    elif first_loss is not None and loss > GROWN * first_loss:
        sentences["diverged"] = f"the loss grew from {first_loss:.1e} to {loss:.1e}: choose a smaller optimizer.lr"
    elif first_loss is None and residual > GROWN:
        sentences["diverged"] = f"the residual is {residual:.1e} times that of u = 0: no solution was found"
    exact_ones = [metrics.get("audit/on_points", 0.0), metrics.get("audit/between_points", 0.0), residual_exact]
    worst = math.nan if any(map(math.isnan, exact_ones)) else max(exact_ones)
    if factor is not None and not worst <= factor * max(residual, ROUNDING[precision]):
        sentences["unresolved"] = (
            f"the exact residual is {worst:.1e}, and the one that was trained {residual:.1e}: the function solves what "
            "the differentiator sees at the training points and not the equation; take more points, or smaller "
            "differentiation errors (differentiator.accuracy, step)"
        )
    difference = metrics.get("audit/derivatives", 0.0)
    if exact and difference > SAME[precision]:
        sentences["inexact"] = (
            f"the derivatives differ by {difference:.1e} from another exact way: they are not exact for this model; "
            "choose another differentiator"
        )
    if (excess := metrics.get("differentiator/excess", 1.0)) > FAR:
        sentences["far_from_best_step"] = (
            f"before training the errors of differentiator.step=auto were {excess:.0e} times those of the best step: "
            "choose differentiator.step=optimal"
        )
    if metrics.get("audit/features", 1.0) < ROUNDING["float64"]:
        sentences["given_solution"] = (
            "a few of the model's features are the exact solution: its error says nothing of other equations; choose "
            "features that do not hold it"
        )
    if error < NEAR_FLOOR * (floor := metrics.get("reference_error", 0.0)):
        sentences["at_reference"] = (
            f"the error {error:.1e} is hardly larger than that of the reference, {floor:.1e}: the model is about "
            "as good as the reference, or better"
        )
    ahead = {key: value for key, value in metrics.items() if key.startswith("interval/") and key.endswith("/ahead")}
    if idle := [key.split("/")[1] for key, value in ahead.items() if value == math.inf]:
        sentences["undetermined_number"] = (
            f"neither equations nor measured values determine {', '.join(idle)}, which has no interval: use it in an "
            "equation, measure what depends on it, or choose wider bounds where it has reached one"
        )
    if moving := [key.split("/")[1] for key, value in ahead.items() if not value <= 1 and value != math.inf]:
        sentences["unsettled_number"] = (
            f"one more step of Gauss-Newton would move {', '.join(moving)} out of the confidence interval, which is "
            "that of a minimum: train longer"
        )
    misfits = {key.partition("/")[2]: value for key, value in metrics.items() if key.startswith("misfit/")}
    if far := [f"{name} ({value:.1e})" for name, value in misfits.items() if not value <= POOR]:
        sentences["poor_fit"] = (
            f"the relative distance of the model from the measured values of {', '.join(far)} is above {POOR}: numbers "
            "that are learnt are those of another minimum; train longer, or choose other starts, or a larger "
            "pde.data.weight"
        )
    if residual_exact < SMALL_RESIDUAL and error > LARGE_ERROR:
        sentences["other_solution"] = (
            f"the exact residual is {residual_exact:.1e}, and the error {error:.1e}: the equations do not determine "
            "the solution that `exact` gives, or hardly; look for a condition that is missing, or a wrong formula"
        )
    return sentences
