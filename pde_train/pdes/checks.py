"""Checks that parameters of PDEs share."""

from __future__ import annotations

import math
from numbers import Real

from pde_train.errors import UsageError

BOUNDARIES = ("simply_supported", "clamped")


def check_boundary(boundary: str) -> None:
    """Refuse an unknown support of a plate or beam.

    Args:
        boundary: One of BOUNDARIES.

    Raises:
        UsageError: It is none of them.
    """
    if boundary not in BOUNDARIES:
        raise UsageError(f"pde.boundary={boundary} is unknown: expected one of {', '.join(BOUNDARIES)}, choose one")


def check_frequency(frequency: float) -> None:
    """Refuse a frequency that makes no wave, or one whose fourth power overflows.

    Args:
        frequency: The frequency in units of pi.

    Raises:
        UsageError: It is no number, 0, or too large.
    """
    if isinstance(frequency, bool) or not isinstance(frequency, Real) or not 0 < abs(frequency) < 1e6:
        raise UsageError(f"pde.frequency={frequency} makes no wave: expected a number other than 0, such as 1.0")


def check_positive(**numbers: float) -> None:
    """Refuse parameters that are not positive.

    Args:
        numbers: The parameters by name.

    Raises:
        UsageError: One is no number, not positive, or not finite.
    """
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, Real) or not 0 < number < math.inf:
            raise UsageError(f"pde.{name}={number} cannot be used: expected a positive number, such as 1.0")


def check_whole(**numbers: int) -> None:
    """Refuse parameters that are no positive integers.

    Args:
        numbers: The parameters by name.

    Raises:
        UsageError: One is none.
    """
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise UsageError(f"pde.{name}={number} cannot be used: expected a positive integer, such as 4")


def sqrt(number: float) -> float:
    """The square root of a number of a PDE, which may be a scalar tensor, see `PDE.with_numbers`."""
    root: float = number**0.5
    return root
