"""What a reader must know before the numbers of a finished run are believed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Facts:
    """What flags are raised by.

    Attributes:
        metrics: The last value of each metric.
        first_loss: The loss before the first step, None where there was none.
        factor: How many times above the trained residual an exact one may lie; None for no judgement.
        exact: Whether the run's derivatives are said to be exact.
        precision: ``float64`` or ``float32``.
    """

    metrics: Mapping[str, float]
    first_loss: float | None
    factor: float | None
    exact: bool
    precision: str

    @property
    def error(self) -> float:
        """The relative error; 0 where no solution is known."""
        return self.metrics.get("error_l2", 0.0)

    @property
    def ahead(self) -> dict[str, float]:
        """By number that is learnt: how far one more step would move it, in half widths of its interval."""
        keys = [key for key in self.metrics if key.startswith("interval/") and key.endswith("/ahead")]
        return {key.removeprefix("interval/").removesuffix("/ahead"): self.metrics[key] for key in keys}


def diverged(of: Facts) -> str | None:
    """A number is nan or infinite, or the loss or the residual has grown."""
    loss, residual = of.metrics.get("loss", 0.0), of.metrics["residual"]
    named = {"loss": loss, "residual": residual, "residual_exact": of.metrics["residual_exact"], "error_l2": of.error}
    if broken := [name for name, value in named.items() if not math.isfinite(value)]:
        return f"{', '.join(broken)} became nan or infinite: choose a smaller optimizer.lr"
    if of.first_loss is not None and loss > GROWN * of.first_loss:
        return f"the loss grew from {of.first_loss:.1e} to {loss:.1e}: choose a smaller optimizer.lr"
    if of.first_loss is None and residual > GROWN:
        return f"the residual is {residual:.1e} times that of u = 0: no solution was found"
    return None


def unresolved(of: Facts) -> str | None:
    """An exact residual, on training, held-out or test points, is more than `factor` times above the trained one."""
    names = ("audit/on_points", "audit/between_points", "residual_exact")
    exact_ones, residual = [of.metrics.get(name, 0.0) for name in names], of.metrics["residual"]
    worst = math.nan if any(map(math.isnan, exact_ones)) else max(exact_ones)
    if of.factor is None or worst <= of.factor * max(residual, ROUNDING[of.precision]):
        return None
    return (
        f"the exact residual is {worst:.1e}, and the one that was trained {residual:.1e}: the function solves what "
        "the differentiator sees at the training points and not the equation; take more points, or smaller "
        "differentiation errors (differentiator.accuracy, step)"
    )


def inexact(of: Facts) -> str | None:
    """Derivatives that are said to be exact differ from another exact way."""
    difference = of.metrics.get("audit/derivatives", 0.0)
    if not of.exact or not difference > SAME[of.precision]:
        return None
    return (
        f"the derivatives differ by {difference:.1e} from another exact way: they are not exact for this model; "
        "choose another differentiator"
    )


def other_solution(of: Facts) -> str | None:
    """The exact residual is small and the error is large."""
    residual = of.metrics["residual_exact"]
    if not (residual < SMALL_RESIDUAL and of.error > LARGE_ERROR):
        return None
    return (
        f"the exact residual is {residual:.1e}, and the error {of.error:.1e}: the equations do not determine "
        "the solution that `exact` gives, or hardly; look for a condition that is missing, or a wrong formula"
    )


def far_from_best_step(of: Facts) -> str | None:
    """An automatic step of finite differences had a much larger error before training than the best step has."""
    excess = of.metrics.get("differentiator/excess", 1.0)
    if not excess > FAR:
        return None
    return (
        f"before training the errors of differentiator.step=auto were {excess:.0e} times those of the best step: "
        "choose differentiator.step=optimal"
    )


def given_solution(of: Facts) -> str | None:
    """A few features of a linear model are the solution."""
    if not of.metrics.get("audit/features", 1.0) < ROUNDING["float64"]:
        return None
    return (
        "a few of the model's features are the exact solution: its error says nothing of other equations; choose "
        "features that do not hold it"
    )


def at_reference(of: Facts) -> str | None:
    """The error is hardly larger than that of the reference."""
    floor = of.metrics.get("reference_error", 0.0)
    if not of.error < NEAR_FLOOR * floor:
        return None
    return (
        f"the error {of.error:.1e} is hardly larger than that of the reference, {floor:.1e}: the model is about "
        "as good as the reference, or better"
    )


def unsettled_number(of: Facts) -> str | None:
    """One more step would move a number that is learnt out of its confidence interval."""
    moving = [name for name, value in of.ahead.items() if not value <= 1 and value != math.inf]
    if not moving:
        return None
    return (
        f"one more step of Gauss-Newton would move {', '.join(moving)} out of the confidence interval, which is "
        "that of a minimum: train longer"
    )


def undetermined_number(of: Facts) -> str | None:
    """No residual changes with a number that is learnt."""
    idle = [name for name, value in of.ahead.items() if value == math.inf]
    if not idle:
        return None
    return (
        f"neither equations nor measured values determine {', '.join(idle)}, which has no interval: use it in an "
        "equation, measure what depends on it, or choose wider bounds where it has reached one"
    )


def poor_fit(of: Facts) -> str | None:
    """The model is far from the measured values."""
    misfits = {key.partition("/")[2]: value for key, value in of.metrics.items() if key.startswith("misfit/")}
    far = [f"{name} ({value:.1e})" for name, value in misfits.items() if not value <= POOR]
    if not far:
        return None
    return (
        f"the relative distance of the model from the measured values of {', '.join(far)} is above {POOR}: numbers "
        "that are learnt are those of another minimum; train longer, or choose other starts, or a larger "
        "pde.data.weight"
    )


FLAGS: tuple[Callable[[Facts], str | None], ...] = (
    diverged,
    unresolved,
    inexact,
    other_solution,
    far_from_best_step,
    given_solution,
    at_reference,
    unsettled_number,
    undetermined_number,
    poor_fit,
)
"""Every flag: a function that gives its sentence, or None where it is not raised."""

NAMES = tuple(flag.__name__ for flag in FLAGS)


def raised(facts: Facts) -> dict[str, str]:
    """The flags of a run by name, each with a sentence that says what a reader must know of its numbers."""
    sentences = {flag.__name__: flag(facts) for flag in FLAGS}
    return {name: sentence for name, sentence in sentences.items() if sentence is not None}
