"""A progress bar for whatever takes longer than two seconds; on a terminal only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def progress(items: Iterable | None, what: str, **options: Any) -> tqdm:
    """A bar over items, or one to update by hand, that appears after two seconds."""
    return tqdm(items, desc=what, delay=2, disable=None, **options)
