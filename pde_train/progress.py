"""Progress bars on a terminal and in a notebook, spinners on a terminal; nothing anywhere else, nor with `-q`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from tqdm import tqdm

QUIET = "PDE_TRAIN_QUIET"
"""Environment variable that is set where the user asked for nothing but warnings and results by `-q`."""

T = TypeVar("T")


def progress(items: Iterable[T] | None, what: str, **options: Any) -> tqdm[T]:
    """A progress bar that appears after two seconds.

    Args:
        items: What is iterated over; None for a bar that is updated by hand.
        what: The word in front of the bar.
        options: Further options of `tqdm`, such as `total` and `unit`.

    Returns:
        The bar, which yields the items.
    """
    from tqdm import tqdm

    where_there_is_a_terminal = None if "ipykernel" not in sys.modules else False
    disable = True if QUIET in os.environ else where_there_is_a_terminal
    return tqdm(items, desc=what, delay=2, disable=disable, **options)


def blocks(what: str) -> Callable[[Iterable[T]], Iterable[T]]:
    """What wraps the iteration over the blocks of a computation in a progress bar, see `linear_system.assemble`."""
    return lambda items: progress(items, what, unit="block", leave=False)


def waiting(what: str) -> AbstractContextManager[object]:
    """A spinner for work of unknown length, such as loading libraries or opening a store."""
    if QUIET in os.environ:
        return nullcontext()
    from rich.console import Console

    return Console(stderr=True).status(what)
