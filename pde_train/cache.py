"""Where is kept what costs time to make and serves later processes: compiled code, and reference solutions."""

from __future__ import annotations

import os
from pathlib import Path

CACHE = "PDE_TRAIN_CACHE"
"""Environment variable: the folder; without it one under the user's cache folder."""


def cache_folder() -> Path:
    """The folder, which need not exist."""
    named = os.environ.get(CACHE) or f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/pde_train"
    return Path(named).expanduser().absolute()
