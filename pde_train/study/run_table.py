"""The run table of the study: what was chosen for each run, what was measured, and which runs are a pair."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import pandas as pd

from pde_train.errors import RunError
from pde_train.runs.provenance import OF_NO_RUN, TARGETS
from pde_train.tracking.base import AS_TAGS
from pde_train.tracking.reading import Reader

Curve = tuple[np.ndarray, np.ndarray]
"""Steps, or indices, and values, (k,) each; empty where there are none."""

NOTHING: Curve = (np.array([]), np.array([]))

FACTORS = {
    "pde": "tags.pde",
    "order": "tags.order",
    "dimension": "tags.dimension",
    "model": "tags.model",
    "activation": "params.model.activation",
    "features": "params.model.features",
    "weight range": "params.model.weight_range",
    "width": "params.model.width",
    "hidden": "params.model.hidden",
    "method": "tags.method",
    "optimizer": "tags.optimizer",
    "learning rate": "params.optimizer.lr",
    "linear algebra": "params.method.linear_algebra",
    "steps": "params.method.steps",
    "precision": "params.accelerator.precision",
    "accuracy": "params.differentiator.accuracy",
    "step": "params.differentiator.step",
    "part": "params.differentiator.part",
    "richardson": "params.differentiator.richardson",
    "interior": "params.sampler.interior",
    "relative": "params.entropy.relative",
    "normalisation": "params.entropy.normalisation",
    "seed": "params.seed",
}
"""The factors by which a hypothesis may select and divide runs, and the parameter or tag that stores each."""

OF_PARAMETERS = "of the parameters"
"""The level of the factor `linear algebra` of runs that have no other precision for it than that of the parameters."""

LABEL = "tags.differentiator_label"
"""The column of the tag in which a run stores `Differentiator.label`."""

OF_NO_CONFIGURATION = ("params.entropy", f"tags.{TARGETS}entropy", *(f"params.{key}" for key in OF_NO_RUN))
"""Beginnings of the names of columns in which runs of one configuration may differ; views differ in the entropy."""

NOT_OF_A_PAIR = ("params.differentiator", f"tags.{TARGETS}differentiator", *OF_NO_CONFIGURATION)
"""Beginnings of the names of columns in which the two runs of a pair may differ.

Pairs of entropies agree in the definition of the entropy as well.
"""

DEFINITION = ["relative", "normalisation"]
"""The factors that define an entropy."""

OF_DEFINITION = ("entropy/", "entropy_raw/", "effective_rank/", "cutoff/", "condition/", "effective_dimension/")
"""Beginnings of the names of metrics that depend on that definition; all others are the same in every view of a run."""

LARGE = 1e-4
"""Singular values above LARGE s_1 are called large."""

SPEEDS = (0.1, 0.01, 0.001)
"""Fractions of the first loss; the table has the steps that a run takes to reach each of them."""

STARTS = "start/"
"""Prefix of the name of a metric's value at the first step, before training."""

LATER = (100, 1000)
"""Steps k; the table has the metrics of the spectrum at step k, and the speed of training from there to step 2 k."""


@dataclass(frozen=True)
class Runs:
    """Finished runs, one for each configuration and definition of entropy, and what was left out.

    A *view* of a run is its spectrum under another definition of entropy, recomputed without
    training.

    The columns of `table` are the FACTORS, every metric by its name, and

    - `id`: the id of the run; `view`: that of the run of which it is a view;
    - `config`: a number that a run shares with its views;
    - `scheme`: how derivatives were taken, the `Differentiator.label`, such as `reverse` or `FD4 h=0.001`;
    - `pair`: a number that runs share which differ in the scheme alone;
    - `steps_to/<fraction>`: the steps until the loss is that fraction of the first one, inf where
      it never is;
    - `speed`: the decades of loss that are lost in 1000 steps;
    - `start/<metric>`: the value of a metric before training;
    - `at/<k>/<metric>`: its value at step k, for k in LATER;
    - `speed/<k>`: the decades of loss that are lost in 1000 steps, from step k to step 2 k, or to
      the last step where that comes earlier.

    Attributes:
        table: A row for each run or view.
        spectrum: The final singular values of a run, by its id.
        curve: A metric of a run at every step, by id and name: `loss`, and those that were asked
            for.
        sweeps: The ids of the parent runs.
        summary: Counts, versions, commits, machines and times of the runs.
        unfinished: The factors of configurations of which no run has finished.
        settings: All parameters as stored, by the id of the run.
    """

    table: pd.DataFrame
    spectrum: Callable[[str], Curve]
    curve: Callable[[str, str], Curve]
    sweeps: Sequence[str]
    summary: Mapping[str, object]
    unfinished: pd.DataFrame = field(default_factory=pd.DataFrame)
    settings: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def trained(self) -> pd.DataFrame:
        """The rows of trained runs, without their views."""
        return _trained(self.table)

    @property
    def by_definition(self) -> pd.DataFrame:
        """A row for each trained run and definition of entropy, with the thresholds of all its views."""
        return self.table.groupby(["config", *DEFINITION], as_index=False, dropna=False, sort=False).first()

    def of(self, metrics: Sequence[str]) -> pd.DataFrame:
        """The rows that are independent runs for these metrics; views only where a metric depends on the definition."""
        return self.by_definition if depends_on_definition(metrics) else self.trained


def depends_on_definition(metrics: Sequence[str]) -> bool:
    """Whether one of these metrics differs between the views of a run."""
    return any(plain_name(name).startswith(OF_DEFINITION) for name in metrics)


def plain_name(column: str) -> str:
    """The name of the metric of a column `start/<metric>` or `at/<k>/<metric>`; that of any other column as it is."""
    return re.sub(rf"^({STARTS}|at/\d+/)", "", column)


def read(reader: Reader, by_step: Sequence[str]) -> Runs:
    """Read everything that the report needs of an experiment.

    Args:
        reader: The experiment in its tracking store.
        by_step: The metrics that are read at every step of the runs that train networks.

    Returns:
        The run table.

    Raises:
        RunError: The experiment has no finished run, or the store cannot be read.
    """
    raw = reader.runs()
    cells = raw[_column(raw, "tags.config_hash").notna()]
    finished = cells[cells["status"] == "FINISHED"] if len(cells) else cells
    if finished.empty:
        raise RunError(
            f"the experiment {reader.experiment!r} has no finished run ({len(cells)} others): expected those of the "
            "study, run it first"
        )
    entropies = [c for c in finished if c.startswith("params.entropy.")]
    # The hash of a run covers the source of the user's modules. Runs that differ in nothing but that source, or in
    # nothing at all, count once: the newest one.
    newest = finished.sort_values("start").drop_duplicates(["tags.config_hash", *entropies], keep="last")
    distinct = newest.assign(config=_same(newest, OF_NO_CONFIGURATION))
    distinct = distinct.drop_duplicates(["config", *entropies], keep="last").drop(columns="config")
    other = cells[~cells["tags.config_hash"].isin(finished["tags.config_hash"])].drop_duplicates("tags.config_hash")
    every = _table(pd.concat([distinct, other]))
    table = every.iloc[: len(distinct)]
    measured = [c for c in every if f"metrics.{c}" in raw and c not in FACTORS]
    unfinished = every.iloc[len(distinct) :].drop(columns=measured)
    unfinished = unfinished[~unfinished["config"].isin(table["config"])].drop_duplicates("config")
    files = dict(zip(distinct["id"], distinct["artifacts"], strict=True))

    @cache
    def history(run_id: str) -> dict[str, Curve]:
        rows = reader.csv(files[run_id], "history.csv")
        kept = rows[rows["metric"].isin(["loss", *by_step])].groupby("metric") if len(rows) else ()
        return {str(name): (own["step"].to_numpy(), own["value"].to_numpy()) for name, own in kept}

    @cache
    def spectrum(run_id: str) -> Curve:
        rows = reader.csv(files[run_id], "spectrum.csv")
        return (np.arange(1.0, len(rows) + 1), rows["singular_value"].to_numpy()) if len(rows) else NOTHING

    trained, sweeps = _trained(table), _newest_sweeps(raw)
    networks = trained[trained["model"] != "random_features"]["id"]
    derived = pd.DataFrame([{"id": run_id, **_derived(history(run_id), by_step)} for run_id in networks])
    return Runs(
        table.merge(derived, on="id", how="left") if len(derived) else table,
        spectrum,
        lambda run_id, metric: history(run_id).get(metric, NOTHING),
        list(sweeps["id"]),
        {"experiment": reader.experiment, **_summary(sweeps, cells, finished, distinct)},
        unfinished,
        distinct.set_index("id").filter(like="params."),
    )


def _trained(table: pd.DataFrame) -> pd.DataFrame:
    first = table["view"].isna().sort_values(ascending=False, kind="stable").index
    return table.loc[first].drop_duplicates("config").sort_index()


def _table(distinct: pd.DataFrame) -> pd.DataFrame:
    columns = {name: _column(distinct, source) for name, source in FACTORS.items()}
    columns["depth"] = [len(ast.literal_eval(h)) if isinstance(h, str) else np.nan for h in columns.pop("hidden")]
    columns["linear algebra"] = columns["linear algebra"].astype(object).fillna(OF_PARAMETERS)
    columns |= {"id": distinct["id"], "view": _column(distinct, "tags.view_of")}
    columns["scheme"] = _column(distinct, LABEL)
    columns |= {"config": _same(distinct, OF_NO_CONFIGURATION), "pair": _same(distinct, NOT_OF_A_PAIR)}
    metrics = {c.removeprefix("metrics."): distinct[c] for c in distinct if c.startswith("metrics.")}
    metrics |= {c.removeprefix("tags."): _column(distinct, c) for c in distinct if c.startswith(f"tags.{AS_TAGS}")}
    return pd.DataFrame(metrics | columns).reset_index(drop=True)  # the factor `steps`, not the metric of that name


def _same(runs: pd.DataFrame, but: tuple[str, ...]) -> pd.Series:
    """A number for each run, equal where all parameters and classes are, except those that begin with `but`."""
    shared = [c for c in runs if c.startswith(("params.", f"tags.{TARGETS}")) and not c.startswith(but)]
    hashed: pd.Series = pd.util.hash_pandas_object(runs[shared].fillna("").astype(str), index=False)
    return hashed


def _column(table: pd.DataFrame, source: str) -> pd.Series:
    """A column of the store's table, as numbers where all entries are numbers; nan where there is no such column."""
    return as_numbers(table.get(source, pd.Series(np.nan, index=table.index, dtype=object)).replace("None", np.nan))


def as_numbers(entries: pd.Series) -> pd.Series:
    """The same entries as numbers where all that are known are numbers."""
    numbers = pd.to_numeric(entries, errors="coerce")
    return numbers if numbers.notna().sum() == entries.notna().sum() else entries


def _derived(history: Mapping[str, Curve], by_step: Sequence[str]) -> dict[str, float]:
    """The numbers that are derived from the curves of a network, by the names of their columns."""
    steps, losses = history.get("loss", NOTHING)
    derived = {f"steps_to/{part:g}": _steps_to(losses, part) for part in SPEEDS}
    derived["speed"] = _speed(steps, losses)
    for k in LATER:
        some = (steps >= k) & (steps <= 2 * k)
        derived[f"speed/{k}"] = _speed(steps[some], losses[some]) if k in steps else np.nan
    for metric, (measured, values) in ((name, history[name]) for name in by_step if name in history):
        derived[f"{STARTS}{metric}"] = float(values[0])
        derived |= {f"at/{k}/{metric}": float(values[measured == k][0]) for k in LATER if k in measured}
    return derived


def _steps_to(losses: np.ndarray, part: float) -> float:
    below = np.flatnonzero(losses <= part * losses[:1])
    return float(below[0] if len(below) else np.inf) if len(losses) else np.nan


def _speed(steps: np.ndarray, losses: np.ndarray) -> float:
    if len(losses) < 2 or not min(losses[0], losses[-1]) > 0:
        return np.nan
    return float(1000 * np.log10(losses[0] / losses[-1]) / (steps[-1] - steps[0]))


def _newest_sweeps(raw: pd.DataFrame) -> pd.DataFrame:
    """The newest parent run of each sweep."""
    parents = raw[_column(raw, "tags.sweep").notna()]
    return parents.sort_values("start").drop_duplicates("name", keep="last")


def _summary(
    sweeps: pd.DataFrame, cells: pd.DataFrame, finished: pd.DataFrame, distinct: pd.DataFrame
) -> dict[str, object]:
    """Counts, versions, commits, machines and times, which the report states beside the numbers of the runs."""
    tags = [c for c in distinct if c.startswith("tags.version.")]
    return {
        "runs": len(cells),
        "finished": len(finished),
        "distinct": len(distinct),
        "not finished": cells[cells["status"] != "FINISHED"]["status"].value_counts().to_dict(),
        "repeated": len(finished) - len(distinct),
        "views": int(_column(distinct, "tags.view_of").notna().sum()),
        "failed cells": int(pd.to_numeric(_column(sweeps, "tags.runs.not_finished")).fillna(0).sum()),
        "versions": {c.removeprefix("tags.version."): sorted(distinct[c].dropna().unique()) for c in tags},
        "commits": sorted(_column(distinct, "tags.git_commit").dropna().unique()),
        "machines": sorted(_column(distinct, "tags.machine").dropna().unique()),
        "seconds": float(_column(distinct, "metrics.seconds_total").sum()),
        "began": float(cells["start"].min()),
        "ended": float(cells["end"].max()),
    }
