"""Is there room for what a configuration asks for?"""

from __future__ import annotations

import os

from pde_train.errors import UsageError

COPIES = 16
"""How often what is asked for stands in memory at the same time, about: derivatives, gradients, what torch keeps."""


def check_memory(what: str, numbers: int, copies: int = COPIES) -> None:
    """Refuse so many float64 numbers where their copies do not fit the memory of this machine.

    Raises UsageError.
    """
    needed, there = 8 * numbers * copies, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise UsageError(
            f"{what} asks for {numbers:.1e} numbers, which take about {needed / 1e9:.0f} GB while a run works on them: "
            f"expected at most the {there / 1e9:.0f} GB of this machine, choose fewer"
        )
