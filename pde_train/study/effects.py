"""What each level of each factor does to the gap of a comparison, with every seed as one block."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from pde_train.study import statistics
from pde_train.study.hypotheses import Comparison, Level
from pde_train.study.pairs import LARGE_VALUES, LOST
from pde_train.study.statistics import NOTHING, Estimate


@dataclass(frozen=True)
class Effect:
    """What a level of a factor does to the gap, with every seed as one block.

    Both estimates are of the logarithm to base 10 where the gap is the relative difference of large
    singular values.

    Attributes:
        factor: The name of the factor.
        level: The level that is described.
        reference: The level with which it is compared.
        gap: The median over seeds of a seed's mean gap over all strata of the level.
        change: The median over seeds of a seed's mean difference from the reference level, over the
            strata that exist for both levels and agree in all other factors; NOTHING where there
            are none.
        strata: The number of those strata.
    """

    factor: str
    level: Level
    reference: Level | None
    gap: Estimate
    change: Estimate
    strata: int


def effects(comparison: Comparison, gaps: pd.DataFrame) -> list[Effect]:
    """What each level of each factor does to the gap, for the factors that have several levels."""
    known = gaps[gaps["lost"] != LOST[2]]
    if known.empty:
        return []
    if comparison.quantity[0] == LARGE_VALUES:  # relative differences of all sizes have no common mean
        with np.errstate(divide="ignore"):
            known = known.assign(gap=np.log10(known["gap"].to_numpy(dtype=float)))
    index = [*comparison.factors, "seed"]
    wide = known.set_index(index)["gap"].unstack("seed")  # a row a stratum, a column a seed
    made = known.assign(made=1.0).set_index(index)["made"].unstack("seed").notna()
    some = wide.notna().any(axis=1)
    wide, made = wide[some], made[some]
    found = []
    for factor in comparison.factors:
        levels = wide.index.get_level_values(factor)
        reference = comparison.reference.get(factor)
        for level in _sorted(levels.unique(), reference) if levels.nunique(dropna=False) > 1 else ():
            own = levels == level
            change, strata = _change(wide, made, factor, own, levels == reference)
            found.append(Effect(factor, level, reference, _block_median(wide[own], made[own]), change, strata))
    return found


def _sorted(levels: pd.Index, reference: Level | None) -> list[Level]:
    """The levels in ascending order, numbers before text, after the reference level."""
    return sorted(levels, key=lambda level: (level != reference, isinstance(level, str), level))


def _change(
    wide: pd.DataFrame, made: pd.DataFrame, factor: str, own: np.ndarray, reference: np.ndarray
) -> tuple[Estimate, int]:
    """The change from the strata of the reference level to those that differ from them in this factor alone.

    Args:
        wide: The gaps, a row for each stratum and a column for each seed.
        made: Whether the pair was meant to exist, in the same shape.
        factor: The factor whose level changes.
        own: Which rows have the level that is described.
        reference: Which rows have the reference level.

    Returns:
        The median change over seeds, and the number of strata over which each seed is averaged.
    """
    if wide.index.nlevels == 1:
        ours, theirs = (table.reset_index(drop=True) for table in (wide[own], wide[reference]))
        here, there = (table.reset_index(drop=True) for table in (made[own], made[reference]))
    else:
        ours, theirs, here, there = (
            t.droplevel(factor) for t in (wide[own], wide[reference], made[own], made[reference])
        )
    shared = ours.index.intersection(theirs.index)
    if not len(shared) or np.array_equal(own, reference):
        return NOTHING, 0
    change = _block_median(ours.loc[shared] - theirs.loc[shared], here.loc[shared] & there.loc[shared])
    return change, len(shared)


def _block_median(wide: pd.DataFrame, made: pd.DataFrame) -> Estimate:
    """The median over seeds (columns) of a seed's mean over strata (rows).

    Args:
        wide: The gaps; nan where a pair was lost, so that the seed counts as lost.
        made: Whether the pair was meant to exist. A seed that was not run in every stratum is left
            out.

    Returns:
        The estimate.
    """
    with np.errstate(invalid="ignore"):
        blocks = wide.to_numpy(dtype=float)[:, made.all(axis=0).to_numpy()].mean(axis=0)
    known = blocks[~np.isnan(blocks)]
    return statistics.median(known, len(blocks) - len(known))
