"""What a search chooses from: distributions of Optuna, by the words of a command in Hydra's grammar."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep, Sweep

from pde_train.errors import UsageError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


@dataclass(frozen=True)
class Space:
    """What the words of a command ask to search.

    Attributes:
        fixed: The words that all runs share.
        averaged: Those with several values, each of which every trial trains.
        searched: What Optuna chooses, by key.
    """

    fixed: Sequence[str]
    averaged: Sequence[str]
    searched: Mapping[str, BaseDistribution]

    @classmethod
    def of(cls, words: Sequence[str], average: Sequence[str], loader: ConfigLoader) -> Space:
        """Read the words; a later one of a key wins.

        Args:
            words: Of a command.
            average: The keys whose values are averaged.
            loader: Hydra's loader of configurations.

        Returns:
            The space.

        Raises:
            UsageError: Nothing is searched, or a word names no values that could be.
        """
        parsed = OverridesParser.create(config_loader=loader).parse_overrides(list(words))
        last = {override.get_key_element(): override for override in parsed}
        swept = {key: override for key, override in last.items() if override.is_sweep_override()}
        averaged = {key: o for key, o in swept.items() if o.key_or_group in average and o.is_discrete_sweep()}
        searched = {key: _distribution(o) for key, o in swept.items() if key not in averaged}
        if not searched:
            raise UsageError(
                "hydra/sweeper=optuna has nothing to search: expected a word such as "
                "'optimizer.lr=tag(log,interval(1e-4,1e-1))', 'model.width=range(10,60,10)' or model=mlp,siren, add one"
            )
        fixed = [str(override.input_line) for key, override in last.items() if key not in swept]
        return cls(fixed, [str(override.input_line) for override in averaged.values()], searched)

    def words(self, params: Mapping[str, Any]) -> list[str]:
        """The words of a trial: its own and those of every trial."""
        own = [f"{key}={params[key]}" for key in self.searched]
        return [*self.fixed, *self.averaged, *own]

    @property
    def first(self) -> dict[str, Any]:
        """A point of the space: the lowest numbers, and the first of other choices."""
        return {key: getattr(d, "choices", [getattr(d, "low", None)])[0] for key, d in self.searched.items()}

    @property
    def choices(self) -> Iterator[dict[str, Any]]:
        """The first point, and those that differ from it in the choice of a group."""
        first = self.first
        values = [getattr(d, "choices", [first[k]]) if "." not in k else [first[k]] for k, d in self.searched.items()]
        yield from (dict(zip(first, point, strict=True)) for point in itertools.product(*values))


def _distribution(override: Override) -> BaseDistribution:
    """What a word with several values lets Optuna choose from.

    Args:
        override: The word.

    Returns:
        Integers or numbers for a range or an interval, else a choice of words.

    Raises:
        UsageError: Optuna cannot choose from that.
    """
    try:
        return _values(override)
    except ValueError as error:
        raise UsageError(
            f"{override.input_line} cannot be searched ({' '.join(str(error).split())}): expected "
            "choice(a,b), range(1,9,2), interval(0.1,0.9) or tag(log,interval(1e-4,1e-1)), correct it"
        ) from error


def _values(override: Override) -> BaseDistribution:
    """The same; a ValueError where Optuna cannot choose."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value = override.value()
    tags = value.tags if isinstance(value, Sweep) else set()
    by_log = "log" in tags
    known = {IntervalSweep: {"log", "int"}, RangeSweep: {"log"}}.get(type(value), set())
    if unknown := sorted(tags - known):
        raise ValueError(f"the tag {unknown[0]} says nothing of such values")
    if isinstance(value, IntervalSweep):
        low, high = value.start, value.end
        assert low is not None
        assert high is not None
        if not math.isfinite(high - low):
            raise ValueError("its ends are not finite")
        if "int" in tags or (isinstance(low, int) and isinstance(high, int)):
            return IntDistribution(math.ceil(low), math.floor(high), log=by_log)
        return FloatDistribution(low, high, log=by_log)
    if isinstance(value, RangeSweep):  # without its end
        numbers = sorted(value.range())
        if not numbers:
            raise ValueError("it names no value")
        if all(isinstance(number, int) for number in numbers):
            return IntDistribution(int(numbers[0]), int(numbers[-1]), step=abs(int(value.step)), log=by_log)
        return FloatDistribution(numbers[0], numbers[-1], step=abs(value.step), log=by_log)
    return CategoricalDistribution(sorted(set(override.sweep_string_iterator())))
