"""The run table as a file, `runs.csv.gz`: what verdicts follow from, for readers who do not run the study."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pde_train.study.hypotheses import Hypothesis
from pde_train.study.run_table import FACTORS, NOTHING, Runs, as_numbers

NAMES = ["id", "view", "config", "pair", "scheme"]
"""Columns of names; `config` and `pair` are numbers of 20 digits, which no floating-point number holds."""

ALWAYS = ["error_l2", "residual", "residual_exact", "residual_held_out", "seconds", "steps_to/0.1"]
"""Metrics that the file has besides those that some hypothesis asks for."""

FINISHED = "finished"
"""The column that tells finished runs from configurations of which no run has finished."""


def save(runs: Runs, file: Path, hypotheses: Sequence[Hypothesis]) -> None:
    """Write the table; the same runs make the same bytes.

    Args:
        runs: Of the study.
        file: Ends in `.csv.gz`. A row for each run, view, and configuration without a finished run.
        hypotheses: Those whose factors, quantities and predictors it has.
    """
    asked = {
        name
        for hypothesis in hypotheses
        for comparison in hypothesis.comparisons
        for name in (*comparison.quantity, *comparison.predictors)
    }
    factors = ["depth" if name == "hidden" else name for name in FACTORS]
    wanted = list(dict.fromkeys([FINISHED, *NAMES, *factors, *ALWAYS, *sorted(asked)]))
    parts = [runs.table.assign(**{FINISHED: True}), runs.unfinished.assign(**{FINISHED: False})]
    as_text = [part.astype({name: str for name in ("config", "pair") if name in part}) for part in parts if len(part)]
    table = pd.concat(as_text, ignore_index=True)
    table = table[[name for name in wanted if name in table]].sort_values(["config", "id"], kind="stable")
    file.write_bytes(gzip.compress(table.to_csv(index=False).encode(), mtime=0))


def load(file: Path) -> Runs:
    """Read the table, as far as it was written: without curves, singular values and settings.

    Args:
        file: Written by `save`.

    Returns:
        Runs by which hypotheses can be judged, but for those about singular values.
    """
    text = pd.read_csv(file, compression="gzip", dtype=str, keep_default_na=False, na_values=[""])
    table = pd.DataFrame({name: text[name] if name in NAMES else as_numbers(text[name]) for name in text})
    done = table.pop(FINISHED) == "True"
    return Runs(
        table[done].reset_index(drop=True),
        lambda run_id: NOTHING,
        lambda run_id, metric: NOTHING,
        sweeps=[],
        summary={},
        unfinished=table[~done].reset_index(drop=True),
    )
