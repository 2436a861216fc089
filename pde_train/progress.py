"""Progress bars and spinners on a terminal; nothing where there is no terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from rich.console import Console
from tqdm import tqdm

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
    return tqdm(items, desc=what, delay=2, disable=None, **options)


def blocks(what: str) -> Callable[[Iterable[T]], Iterable[T]]:
    """What wraps the iteration over the blocks of a computation in a progress bar, see `residuals.assemble`."""
    return lambda items: progress(items, what, unit="block", leave=False)


def waiting(what: str) -> AbstractContextManager[object]:
    """A spinner for work of unknown length, such as loading libraries or opening a store."""
    return Console(stderr=True).status(what)
