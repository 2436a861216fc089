"""Refuses a configuration that asks for more memory than the machine has."""

from __future__ import annotations

import os

from pde_train.errors import UsageError

COPIES = 16
"""About how many copies of an array are in memory at the same time: derivatives, gradients, and what torch keeps."""


def check_memory(what: str, numbers: int, copies: int = COPIES) -> None:
    """Refuse an array of float64 numbers whose copies do not fit into the memory of this machine.

    Args:
        what: The name of the array in the error.
        numbers: The number of its entries.
        copies: The number of copies that are in memory at the same time.

    Raises:
        UsageError: They do not fit.
    """
    needed, there = 8 * numbers * copies, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise UsageError(
            f"{what} asks for {numbers:.1e} numbers, which take about {needed / 1e9:.0f} GB while a run works on them: "
            f"expected at most the {there / 1e9:.0f} GB of this machine, choose fewer"
        )
