"""A strong Wolfe line search that takes one evaluation at a time, without branches, so that it can be compiled.

The search brackets a step length and then shrinks the bracket (Nocedal and Wright, Numerical Optimization, 2nd edition,
algorithms 3.5 and 3.6), by cubic interpolation (ibid., equation 3.59). All that it knows is a `Search` of scalars. Each
evaluation of loss and slope turns it into the next one, or ends it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

EXPANSION = 10.0
"""By what factor a step length may grow from one trial to the next, as long as there is no bracket."""

MARGIN = 0.1
"""A trial keeps this part of a bracket away from its ends, so that brackets shrink."""

NOISE = 1e-6
"""Relative size of what rounding may do to a loss near the floor. Losses that differ by less are judged by their slopes
(the approximate Wolfe conditions of Hager and Zhang, SIAM J. Optim. 16, 2005, equation 4.1)."""


class Search(NamedTuple):
    """A search for the step length t, for phi(t) = loss(x + t d); all scalars.

    Attributes:
        loss: phi(0).
        slope: The derivative phi'(0), negative.
        trial: The step length that is evaluated next.
        low: The step length with the least loss so far, up to NOISE; 0 at the start.
        low_loss: phi(low).
        low_slope: phi'(low).
        high: The other end of the bracket; infinite while there is none.
        high_loss: phi(high).
        high_slope: phi'(high).
        evaluations: How many trials were evaluated.
    """

    loss: Tensor
    slope: Tensor
    trial: Tensor
    low: Tensor
    low_loss: Tensor
    low_slope: Tensor
    high: Tensor
    high_loss: Tensor
    high_slope: Tensor
    evaluations: Tensor


class Outcome(NamedTuple):
    """What one evaluation makes of a search; all scalars.

    Attributes:
        search: The search as it goes on.
        lowered: The trial became the lower end of the bracket.
        accepted: The trial fulfils both Wolfe conditions.
        exhausted: The search ends without such a trial; `search.low` is the best that it has, 0 for none.
    """

    search: Search
    lowered: Tensor
    accepted: Tensor
    exhausted: Tensor


def begin(loss: Tensor, slope: Tensor, trial: Tensor) -> Search:
    """The search before its first evaluation.

    Args:
        loss: phi(0).
        slope: phi'(0).
        trial: The first step length to try.

    Returns:
        The search.
    """
    zero, infinite = torch.zeros_like(loss), torch.full_like(loss, math.inf)
    return Search(loss, slope, trial, zero, loss, slope, infinite, infinite, zero, zero)


def evaluated(search: Search, loss: Tensor, slope: Tensor, smallest: Tensor, hyper: Tensor) -> Outcome:
    """Go on from loss and slope at the trial.

    Args:
        search: The search.
        loss: phi(trial); what is not finite counts as too high.
        slope: phi'(trial).
        smallest: The width at which a bracket is too small to change the parameters.
        hyper: (c1, c2, most evaluations): the constants of the conditions of decrease and of curvature.

    Returns:
        The outcome.
    """
    decrease, curvature, most = hyper.to(loss.dtype).unbind()
    trial = search.trial
    slack = NOISE * search.loss
    lower = loss <= search.loss + decrease * trial * search.slope
    enough = lower | ((loss <= search.loss + slack) & (slope <= (2 * decrease - 1) * search.slope))
    better = (loss < search.low_loss + slack) | (search.low == 0)
    too_high = ~(enough & better & slope.isfinite())
    accepted = ~too_high & (slope.abs() <= -curvature * search.slope)
    lowered = ~too_high & ~accepted
    turned = lowered & (slope * (search.high - search.low) >= 0)
    at_trial, at_low = (trial, loss, slope), (search.low, search.low_loss, search.low_slope)
    at_high = (search.high, search.high_loss, search.high_slope)
    high = [
        torch.where(too_high, new, torch.where(turned, low, old))
        for new, low, old in zip(at_trial, at_low, at_high, strict=True)
    ]
    low = [torch.where(lowered, new, old) for new, old in zip(at_trial, at_low, strict=True)]
    bracketed, width = high[0].isfinite(), (high[0] - low[0]).abs()
    further = torch.where(bracketed, _inside(low, high), _beyond(at_low, at_trial))
    evaluations = search.evaluations + 1
    exhausted = ~accepted & ((evaluations >= most) | (bracketed & (width <= smallest)))
    following = Search(
        search.loss, search.slope, further, low[0], low[1], low[2], high[0], high[1], high[2], evaluations
    )
    return Outcome(following, lowered, accepted, exhausted)


End = tuple[Tensor, Tensor, Tensor] | list[Tensor]
"""A step length, and loss and slope there."""


def _inside(low: End, high: End) -> Tensor:
    """The next trial in a bracket."""
    left, right = torch.minimum(low[0], high[0]), torch.maximum(low[0], high[0])
    margin = MARGIN * (right - left)
    minimum = _cubic_minimum(low, high)
    return torch.where(minimum.isfinite(), minimum.clamp(left + margin, right - margin), (left + right) / 2)


def _beyond(low: End, trial: End) -> Tensor:
    """The next trial beyond the last one, while there is no bracket."""
    minimum = _cubic_minimum(low, trial)
    least, most = trial[0] + (1 + MARGIN) * (trial[0] - low[0]), EXPANSION * trial[0]
    return torch.where(minimum.isfinite(), minimum.clamp(least, most), most)


def _cubic_minimum(a: End, b: End) -> Tensor:
    """The minimum of the cubic through losses and slopes at two step lengths; nan or infinite where there is none."""
    (at, loss, slope), (other, other_loss, other_slope) = a, b
    d = slope + other_slope - 3 * (loss - other_loss) / (at - other)
    root = torch.sign(other - at) * (d * d - slope * other_slope).sqrt()
    return other - (other - at) * (other_slope + root - d) / (other_slope - slope + 2 * root)
