"""Which runs are compared: the pairs of a comparison, and the differences of what was measured.

Two runs of one seed that differ in how derivatives are taken, and in nothing else, are a pair.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from pde_train.errors import RunError
from pde_train.study.hypotheses import Comparison, Level
from pde_train.study.run_table import DEFINITION, LARGE, Runs, depends_on_definition

LARGE_VALUES = "large singular values"
"""Name of the quantity of a pair that is the largest relative difference of its singular values above LARGE s_1."""

LOST = ("not finished", "no number", "no partner")
"""Why a pair is lost: one of its runs did not finish; its difference is nan; the run with exact
derivatives was never made.

The first two count against every statement of a test. The third is a gap in the design of the
study: it is counted, and changes no test.
"""


def text(level: object) -> str:
    """A level of a factor as text: 200 rather than 200.0."""
    return f"{level:g}" if isinstance(level, float) else str(level)


def selected(table: pd.DataFrame, where: Mapping[str, Sequence[Level]]) -> pd.DataFrame:
    """The rows whose factors each have one of the given levels."""
    for factor, levels in where.items():
        table = table[table[factor].isin(levels)]
    return table


def groups(table: pd.DataFrame, factors: Sequence[str]) -> Iterator[tuple[dict[str, Level], pd.DataFrame]]:
    """Yield the labels of each stratum, and its rows."""
    for key, group in table.groupby(list(factors), dropna=False, sort=False):
        yield dict(zip(factors, key, strict=True)), group


def check_unique_seeds(
    name: str, labels: Mapping[str, Level], group: pd.DataFrame, runs: Runs, per: Sequence[str] = ()
) -> None:
    """Refuse a stratum in which a seed occurs twice, or twice with the same levels of `per`.

    Args:
        name: The comparison, as it is named in the error.
        labels: The level of each factor of the stratum.
        group: The rows of the stratum.
        runs: The run table, whose settings tell what two runs of a seed differ in.
        per: Factors of which each level may have a run of the same seed.

    Raises:
        RunError: A seed occurs twice. The sentence names the settings in which its runs differ.
    """
    again = group.duplicated(["seed", *per], keep=False)
    if not again.any():
        return
    first = group[again].iloc[0]
    same = group[(group[["seed", *per]] == first[["seed", *per]]).all(axis=1)]
    settings = runs.settings.reindex(same["id"])
    differ = [c.removeprefix("params.") for c in settings if settings[c].astype(str).nunique() > 1]
    where = ", ".join(f"{factor} {text(level)}" for factor, level in labels.items())
    raise RunError(
        f"{name!r} has {len(same)} runs of seed {text(first['seed'])} in the stratum {where}, which differ in "
        f"{', '.join(differ) or 'nothing that is known'}: expected one, as they are no independent pairs; add "
        "what they differ in to `where` or `strata` of the hypothesis, or keep these runs in another experiment"
    )


def paired(runs: Runs, comparison: Comparison, quantity: str) -> pd.DataFrame:
    """The pairs of a comparison: each run of one of its schemes with the run of the exact scheme.

    Args:
        runs: The run table.
        comparison: Which runs are compared, and with what.
        quantity: The metric whose difference is taken, or LARGE_VALUES.

    Returns:
        A row for each pair: the factors of the run with finite differences, `gap` (nan where the
        pair is lost), and `lost`, the reason (see LOST), which is empty where the pair is complete.
    """
    finished = selected(runs.of([quantity]), comparison.where)
    if quantity != LARGE_VALUES and quantity not in finished:
        return finished.iloc[:0].assign(gap=[], lost=[])
    unfinished = selected(runs.unfinished, comparison.where) if len(runs.unfinished) else finished.iloc[:0]
    table = pd.concat([finished.assign(done=True), unfinished.assign(done=False)], ignore_index=True)
    keys = ["pair", *DEFINITION] if depends_on_definition([quantity]) else ["pair"]
    exact, others = table[table["scheme"] == comparison.exact], table[table["scheme"].isin(comparison.schemes)]
    exact = exact[~exact.duplicated(keys) | exact["done"]]
    check_unique_seeds(comparison.name, {"scheme": comparison.exact}, exact, runs, keys)
    exact = exact[[*keys, "id", "done", *([quantity] if quantity in table else [])]]
    both = others.merge(exact, on=keys, how="left", suffixes=("", " exact"), indicator="partner")
    gap = _differences(runs, both, comparison, quantity)
    done = both["done"] & both["done exact"].eq(True)
    reasons = {LOST[2]: both["partner"] == "left_only", LOST[0]: ~done, LOST[1]: np.isnan(gap)}
    lost = np.select(list(reasons.values()), list(reasons), "")
    return both.assign(gap=np.where(lost == "", gap, np.nan), lost=lost)


def _differences(runs: Runs, both: pd.DataFrame, comparison: Comparison, quantity: str) -> np.ndarray:
    if quantity == LARGE_VALUES:
        ids = zip(both["id exact"], both["id"], both["done"] & both["done exact"].eq(True), strict=True)
        return np.array([_large_gap(runs.spectrum(a)[1], runs.spectrum(b)[1]) if k else np.nan for a, b, k in ids])
    ours, theirs = (both[f"{quantity}{end}"].to_numpy(dtype=float) for end in ("", " exact"))
    with np.errstate(divide="ignore", invalid="ignore"):
        found: np.ndarray = np.log10(ours) - np.log10(theirs) if comparison.scale == "log10" else ours - theirs
    return found


def _large_gap(exact: np.ndarray, other: np.ndarray) -> float:
    large = exact > LARGE * exact[:1]
    return float(np.max(np.abs(other[large] / exact[large] - 1))) if len(exact) == len(other) > 0 else np.nan


def gaps(comparison: Comparison, runs: Runs) -> pd.DataFrame:
    """The pairs of a comparison for all its quantities; for a trend, the slopes."""
    per = [comparison.over] if comparison.over else []
    frames = []
    for quantity in comparison.quantity:
        pairs = paired(runs, comparison, quantity).assign(quantity=quantity)
        for labels, group in groups(pairs, comparison.factors):
            check_unique_seeds(comparison.name, labels, group[group["lost"] != LOST[2]], runs, per)
        frames.append(_slopes(pairs, comparison) if comparison.kind == "trend" else pairs)
    return pd.concat(frames, ignore_index=True)


def _slopes(pairs: pd.DataFrame, comparison: Comparison) -> pd.DataFrame:
    """The least-squares slope of the gap by `over` for each seed of each stratum; lost where it lacks a level."""
    rows = []
    for _, stratum in groups(pairs[pairs["lost"] != LOST[2]], comparison.factors):
        levels = stratum[comparison.over].nunique()
        for _, group in stratum.groupby("seed") if levels > 1 else ():
            known = group[np.isfinite(group["gap"])]
            row = group.iloc[0].to_dict()
            if len(known) == levels:
                slope = np.polyfit(known[comparison.over].to_numpy(dtype=float), known["gap"].to_numpy(dtype=float), 1)[
                    0
                ]
                rows.append(row | {"gap": float(slope), "lost": ""})
            else:
                why = group["lost"][group["lost"] != ""]
                rows.append(row | {"gap": np.nan, "lost": why.iloc[0] if len(why) else LOST[1]})
    return pd.DataFrame(rows, columns=pairs.columns)
