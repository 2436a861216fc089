"""Singular values as they are kept: what was computed, how, and a file of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from pde_train.errors import RunError


@dataclass(frozen=True)
class Spectrum:
    """The singular values of a matrix.

    Attributes:
        values: The singular values in descending order.
        method: How they were computed: `dense`, or `randomised`, which leaves the smallest ones
            out.
        resolution: The size relative to s_1 below which values are missing, as the method or the rounding of its
            products does not resolve them; 0 where none is.
    """

    values: np.ndarray
    method: str = "dense"
    resolution: float = 0.0


def save_spectra(file: Path, by_step: Mapping[int, Spectrum]) -> None:
    """Write spectra to a file of numpy (.npz): arrays ``step_<k>``, ``resolution_<k>`` and ``method_<k>`` of step k."""
    arrays = {f"step_{step}": spectrum.values for step, spectrum in by_step.items()}
    arrays |= {f"resolution_{step}": np.array(spectrum.resolution) for step, spectrum in by_step.items()}
    arrays |= {f"method_{step}": np.array(spectrum.method) for step, spectrum in by_step.items()}
    np.savez(file, allow_pickle=False, **arrays)


def load_spectra(file: Path) -> dict[int, Spectrum]:
    """Read spectra that `save_spectra` wrote.

    Args:
        file: Of a run.

    Returns:
        The spectrum by step; empty where there is no file.

    Raises:
        RunError: The file is not one that `save_spectra` wrote.
    """
    if not file.exists():
        return {}
    try:
        with np.load(file, allow_pickle=False) as arrays:
            steps = [int(name.removeprefix("step_")) for name in arrays.files if name.startswith("step_")]
            methods = {step: str(arrays.get(f"method_{step}", "dense")) for step in steps}  # not in older files
            return {
                step: Spectrum(arrays[f"step_{step}"], methods[step], float(arrays[f"resolution_{step}"]))
                for step in steps
            }
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise RunError(
            f"{file} holds no singular values ({error}): expected those of a run, train again with sweep.fresh=true"
        ) from error
