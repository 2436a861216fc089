"""What a terminal shows while one waits; nothing where there is no terminal."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any

from rich.console import Console
from tqdm import tqdm


def progress(items: Iterable | None, what: str, **options: Any) -> tqdm:
    """A bar over items, or one to update by hand, that appears after two seconds."""
    return tqdm(items, desc=what, delay=2, disable=None, **options)


def waiting(what: str) -> AbstractContextManager:
    """A spinner for work of unknown length, such as loading libraries or opening a store."""
    return Console(stderr=True).status(what)
