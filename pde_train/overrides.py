"""The words of a command, such as ``model.width=50``, parsed once by Hydra's own parser."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override as HydraOverride
from hydra.core.override_parser.types import OverrideType, ValueType

INTEGER = r"-?(?:0|[1-9]\d*)"
NUMBER = re.compile(
    rf"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)=(?:({INTEGER})|({INTEGER}\.\d+|{INTEGER}(?:\.\d+)?[eE][-+]?\d+))", re.ASCII
)
"""A key and its whole or real number, which need no parser: a sweep has thousands."""


@dataclass(frozen=True)
class Override:
    """One word of a command.

    Attributes:
        text: The word as it was typed.
        key: The dotted key or the group that it sets, without signs such as ``+`` and without a package.
        value: The value as text; None of a word that removes a key.
    """

    text: str
    key: str
    value: str | None

    @property
    def group(self) -> str:
        """The first part of the key: ``model`` of ``model.width``."""
        return self.key.partition(".")[0]

    @property
    def last(self) -> str:
        """The last part of the key: ``width`` of ``model.width``."""
        return self.key.rpartition(".")[2]

    @property
    def short(self) -> str:
        """The word as a label: ``width=50`` of ``model.width=50``, and ``mlp`` of ``model=mlp``."""
        return self.value if self.last == self.key and self.value is not None else f"{self.last}={self.value}"

    def is_below(self, *keys: str) -> bool:
        """Whether its key is one of these or lies below one of them."""
        return any(self.key == key or self.key.startswith(f"{key}.") for key in keys)


USED_BY_METHODS = ("optimizer", "schedule", "weighting", "stop")
"""Groups that a method uses or not; its YAML file names those that it uses."""


@dataclass(frozen=True)
class Overrides:
    """The words of one run, in their order."""

    parsed: tuple[Override, ...] = ()

    @classmethod
    def parse(cls, words: Iterable[str]) -> Overrides:
        """Parse words; each text is parsed once in a process.

        Args:
            words: Such as ``model.width=50`` or ``~optimizer``.

        Returns:
            The words in their order.

        Raises:
            OverrideParseException: Hydra cannot read a word.
        """
        return cls(tuple(_parsed(word) for word in words))

    @property
    def words(self) -> list[str]:
        """The words as they were typed."""
        return [override.text for override in self.parsed]

    def __iter__(self) -> Iterator[Override]:
        return iter(self.parsed)

    def __str__(self) -> str:
        return " ".join(self.words)

    def value_of(self, key: str) -> str | None:
        """The value that the last word about a key gives it; None where there is no such word."""
        return next((o.value for o in reversed(self.parsed) if o.key == key), None)

    def without(self, *keys: str) -> Overrides:
        """The words about anything but these keys and what lies below them."""
        return Overrides(tuple(o for o in self.parsed if not o.is_below(*keys)))

    def unused(self, method: object) -> str | None:
        """What is wrong with a word about a group that a method does not use, as it would change nothing.

        Args:
            method: The configuration of the method, whose YAML file names the groups that it uses.

        Returns:
            A sentence; None where there is no such word, or no configuration.
        """
        if not isinstance(method, Mapping):
            return None
        for group in USED_BY_METHODS:
            for word in self.parsed:
                if group not in method and word.is_below(group) and word.value is not None:
                    return (
                        f"{word.text} changes nothing, as {method.get('_target_')} uses no {group}: expected no such "
                        "word, or method=gradient_descent"
                    )
        return None

    def swept(self, common: frozenset[Override]) -> Overrides:
        """The words that are not the same in every run, see `common`."""
        return Overrides(tuple(o for o in self.parsed if o not in common))


def common(runs: Iterable[Overrides]) -> frozenset[Override]:
    """The words that all runs share; none where there is no run."""
    sets = [frozenset(overrides) for overrides in runs]
    return frozenset.intersection(*sets) if sets else frozenset()


@cache
def by_hydra(word: str) -> HydraOverride:
    """A word as Hydra reads it; each text is parsed once in a process.

    Args:
        word: Such as ``model.width=50``.

    Returns:
        Hydra's own object, which nobody may change.

    Raises:
        OverrideParseException: Hydra cannot read it.
    """
    if (number := NUMBER.fullmatch(word)) is None:
        return _parser().parse_override(word)
    key, whole, real = number.groups()
    value = int(whole) if real is None else float(real)
    return HydraOverride(
        type=OverrideType.CHANGE, key_or_group=key, value_type=ValueType.ELEMENT, _value=value, input_line=word
    )


@cache
def _parser() -> OverridesParser:
    return OverridesParser.create()


@cache
def _parsed(word: str) -> Override:
    override = by_hydra(word)
    if override.is_delete():
        return Override(word, override.key_or_group, None)
    value = override.value()
    return Override(word, override.key_or_group, value if isinstance(value, str) else word.partition("=")[2])
