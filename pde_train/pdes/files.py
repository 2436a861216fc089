"""Columns of numbers from files."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pde_train.errors import UsageError


def read_table(path: str, what: str) -> Mapping[str, np.ndarray]:
    """All columns of a file.

    Args:
        path: A .csv file with names in its first line, or a .npz file with an array (n,) for each name.
        what: What the path is in an error, such as `pde.data.path`.

    Returns:
        The columns by name.

    Raises:
        UsageError: The file cannot be read, or two of its columns have the same name.
    """
    file = Path(path)
    try:
        if file.suffix == ".npz":
            with np.load(file, allow_pickle=False) as arrays:
                return {name: arrays[name].reshape(-1) for name in arrays.files}
        with file.open(newline="", encoding="utf-8-sig") as lines:  # spreadsheets begin with a mark of the encoding
            names, *rows = csv.reader(lines, skipinitialspace=True)
        names = [name.strip() for name in names]
        if len(set(names)) < len(names):
            raise UsageError(
                f"{what}={path} has the columns {', '.join(names)}: expected different names, rename or remove some"
            )
        values = np.array([[float(entry or "nan") for entry in row] for row in rows if row])
        return dict(zip(names, values.T, strict=True))
    except UsageError:
        raise
    except Exception as error:  # a file may hold anything
        raise UsageError(
            f"{what}={path} cannot be read ({type(error).__name__}: {error}): expected a .csv file of numbers with "
            "names in its first line, or a .npz file with an array for each name"
        ) from error


def columns_of(table: Mapping[str, np.ndarray], keys: Sequence[str], what: str, remedy: str) -> np.ndarray:
    """Some columns of a table beside each other.

    Args:
        table: The columns (n,) by name.
        keys: The names of k of them.
        what: What the table is in an error, such as `pde.data.path=file.csv`.
        remedy: What to do where one is missing.

    Returns:
        The values (n, k).

    Raises:
        UsageError: A column is missing, or holds values that are no real numbers or not finite.
    """
    missing = [key for key in keys if key not in table]
    if missing or len({len(table[key]) for key in keys}) != 1:
        raise UsageError(
            f"{what} lacks {', '.join(missing) or 'rows in some columns'}, and has {', '.join(table)}: {remedy}"
        )
    if other := [f"{key} ({table[key].dtype})" for key in keys if table[key].dtype.kind not in "fiub"]:
        raise UsageError(
            f"{what} has values that are no real numbers in {', '.join(other)}: expected real numbers, such as the "
            "real and the imaginary part in a column each"
        )
    values = np.stack([table[key].astype(float) for key in keys], axis=1)
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        raise UsageError(
            f"{what} has {int(bad.sum())} rows with an empty, nan or infinite {', '.join(keys)}, first row "
            f"{int(bad.argmax()) + 1}: expected finite numbers, leave them out"
        )
    return values
