"""What a computed solution is: values with a measured error, kept on disk."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from zipfile import BadZipFile

import numpy as np

from pde_train.cache import cache_folder
from pde_train.errors import RunError

VERSION = 2
"""Part of the key of every file: raised when a solver computes something else."""

WORST = 1e-3
"""The largest relative error with which values count as a reference."""

Resolution = TypeVar("Resolution")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reference:
    """A computed solution.

    Attributes:
        values: The k unknowns (n, k) at n points.
        error: The relative L2 error of the values, measured as the difference of two resolutions.
    """

    values: np.ndarray
    error: float


def certified(
    solve: Callable[[Resolution], np.ndarray],
    name: str,
    x: np.ndarray,
    resolutions: tuple[Resolution, Resolution],
    data: bytes = b"",
) -> Reference:
    """Compute a solution at two resolutions, unless that was done before.

    Args:
        solve: The values (n, k) at the points by a resolution.
        name: What determines them beside the points: the equation with all its numbers.
        x: The points (n, d).
        resolutions: The coarser one and the finer one, such as numbers of modes.
        data: What else determines them, such as initial values.

    Returns:
        The finer values; their error is the difference from the coarser ones, which is that of the coarser.

    Raises:
        RunError: The resolutions differ by more than WORST, or the values are not finite.
    """
    key = hashlib.sha256(f"{VERSION} {name} {resolutions}".encode() + x.tobytes() + data).hexdigest()[:24]
    file = cache_folder() / "references" / f"{key}.npz"
    if file.exists():
        try:
            with np.load(file, allow_pickle=False) as kept:
                return Reference(kept["values"], float(kept["error"]))
        except (OSError, ValueError, KeyError, BadZipFile):
            log.warning("%s is damaged, and the reference is computed anew", file)
    log.info("computing the reference of %s at %d points, once", name, len(x))
    with np.errstate(all="ignore"):
        coarse, fine = map(solve, resolutions)
    error = float(np.linalg.norm(fine - coarse) / (np.linalg.norm(fine) or 1.0))
    if not error <= WORST:
        raise RunError(
            f"the reference of {name} differs by {error:.1e} between two resolutions: expected at most {WORST:g}, "
            "choose numbers for which the solution is smoother"
        )
    _keep(file, fine, error)
    return Reference(fine, error)


def _keep(file: Path, values: np.ndarray, error: float) -> None:
    """Write a file whole or not at all; a folder that cannot be written costs the next run the same time again."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".npz", delete=False) as part:
            np.savez(part, values=values, error=np.array(error))
        Path(part.name).replace(file)
    except OSError as reason:
        log.warning("the reference could not be kept (%s)", reason)
