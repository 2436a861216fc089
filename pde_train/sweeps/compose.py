"""The cells of a grid from the words of a command line."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from pde_train.errors import UsageError
from pde_train.instantiate import plain
from pde_train.overrides import by_hydra

Composed = tuple[dict[str, Any], dict[str, str]]
"""A configuration as plain containers, and the choice of every group."""

Place = tuple[Any, ...]
"""The keys, and indices of lists, that lead to a value."""

Places = list[Place]

SIMPLE = re.compile(r"\$\{(\w+(?:\.\w+)*)\}")
"""A reference to a key, from the root."""

NOT_OF_A_CELL = ("hydra", "name", "tracking")
"""What may name the run it stands in, and decides no number."""


def combinations(words: Sequence[str], loader: ConfigLoader) -> list[list[str]]:
    """The overrides of every cell: the product of all choices, the first key slowest; a later word wins."""
    lists: dict[str, list[str]] = {}
    for override in OverridesParser.create(config_loader=loader).parse_overrides(list(words)):
        key = override.get_key_element()
        if not override.is_sweep_override():
            values = [override.get_value_element_as_str()]
        elif override.is_discrete_sweep():
            values = list(override.sweep_string_iterator())
        else:
            raise HydraException(f"{override.input_line} names no values: expected a list, a range or a glob")
        if not values:
            raise UsageError(f"{override.input_line} names no value: expected at least one, correct the range or glob")
        lists[key] = [f"{key}={value}" if not key.startswith("~") else key for value in values]
    return [list(cell) for cell in itertools.product(*lists.values())]


def composed(cells: Sequence[Sequence[str]], loader: ConfigLoader, master: DictConfig) -> Iterator[Composed]:
    """The configuration of every cell, without what decides no number.

    Hydra composes files once for every choice of them; plain `key=value` words are then set on copies,
    as Hydra does. Cells that differ in numbers or names alone are resolved once: in all others the values
    take the places of those of the first one.

    Args:
        cells: The overrides of each cell.
        loader: Hydra's loader of configurations.
        master: The configuration of the sweep.

    Yields:
        The resolved configuration of a cell, and its choice of every group.
    """
    choices = lru_cache(maxsize=None)(loader.get_group_options)
    files = lru_cache(maxsize=None)(lambda *words: loader.load_sweep_config(master, list(words)))
    plain_config = lru_cache(maxsize=None)(lambda *words: _without_hydra(files(*words)))
    chosen = lru_cache(maxsize=None)(lambda *words: group_choices(files(*words)))
    first: dict[Any, tuple[dict[str, Any], list[Places]]] = {}
    for cell in cells:
        words = [word for word in map(by_hydra, cell) if word.key_or_group.split(".")[0] not in NOT_OF_A_CELL]
        simple = [word for word in words if _is_simple(word) and not choices(word.key_or_group)]
        of_files = [str(word.input_line) for word in words if word not in simple]
        values = [word.value() for word in simple]
        keys = tuple(word.key_or_group for word in simple)
        scalar = all(isinstance(v, bool | int | float) or (isinstance(v, str) and "$" not in v) for v in values)
        alike = (tuple(of_files), keys)
        if scalar and alike in first:
            config, places = first[alike]
            for own, value in zip(places, values, strict=True):
                for place in own:
                    config = _with(config, place, value)
            yield config, chosen(*of_files)
            continue
        whole = copy.deepcopy(plain_config(*of_files))
        ConfigLoaderImpl._apply_overrides_to_config(simple, whole)
        config = plain(whole)
        if scalar and not any("[" in key for key in keys) and (found := _places(whole, keys)) is not None:
            first[alike] = config, found
        yield config, chosen(*of_files)


def _places(config: DictConfig, keys: Sequence[str]) -> list[Places] | None:
    """Where the value of each key stands in a configuration, once its references are resolved.

    Args:
        config: With references such as `${seed}`.
        keys: Of numbers and names.

    Returns:
        Of each key its own place and those that refer to it. None where that is not all: a reference
        is to a node around it, or is more than a key and has its name, as `${oc.env:SEED}` has that of `seed`.
    """
    references = dict(_references(OmegaConf.to_container(config), ()))
    every: list[Places] = []
    for key in keys:
        places: Places = [tuple(key.split("."))]
        for place in places:  # which grows
            for other, text in references.items():
                reference = SIMPLE.fullmatch(text)
                target = tuple(reference[1].split(".")) if reference else ()
                if target == place:
                    places.append(other)
                elif target == place[: len(target)] if target else any(str(part) in text for part in place):
                    return None
        every.append(places)
    return every


def _references(node: Any, place: Place) -> Iterator[tuple[Place, str]]:
    """The texts with a reference, by their places."""
    if isinstance(node, str) and "${" in node:
        yield place, node
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield from _references(value, (*place, key))


def _with(node: Any, place: Place, value: object) -> Any:
    """The same containers with another value in one place; what does not contain it is shared."""
    if not place:
        return value
    changed, here = copy.copy(node), int(place[0]) if isinstance(node, list) else place[0]
    changed[here] = _with(node[here], place[1:], value)
    return changed


def fitted(
    cells: Sequence[Sequence[str]], optional: Sequence[str], loader: ConfigLoader, master: DictConfig
) -> list[list[str]]:
    """The overrides of every cell with those optional ones whose keys its configuration has.

    Args:
        cells: The overrides of each cell.
        optional: Overrides such as `differentiator.accuracy=4,8`.
        loader: Hydra's loader of configurations.
        master: The configuration of the sweep.

    Returns:
        The overrides of every cell, of several cells where an optional override has several values.

    Raises:
        UsageError: No cell has the key of an optional override.
    """
    parser = OverridesParser.create(config_loader=loader)
    keys = {word: parser.parse_override(word).key_or_group for word in optional}
    found, used = [], set()
    for words, (config, _) in zip(cells, composed(cells, loader, master), strict=True):
        node = OmegaConf.create(config)
        own = [word for word, key in keys.items() if OmegaConf.select(node, key, default=keys) is not keys]
        used |= set(own)
        found += combinations([*words, *own], loader)
    if unused := [word for word in optional if word not in used]:
        raise UsageError(f"?{unused[0]} fits no cell: expected a key that one of them has, correct it or leave it out")
    return found


def quoted(text: object) -> str:
    """Any text as the value of an override, whatever commas, spaces or braces it has."""
    return QuotedString(str(text), Quote.single).with_quotes()


def group_choices(config: DictConfig) -> dict[str, str]:
    """What was chosen in each of our groups, in a configuration that holds Hydra's own."""
    choices = config.hydra.runtime.choices
    return {k: str(v) for k, v in choices.items() if not k.startswith("hydra/") and v is not None}


def _is_simple(override: Override) -> bool:
    """Whether an override is no more than `key=value`."""
    return not (override.is_add() or override.is_force_add() or override.is_delete()) and override.package is None


def _without_hydra(config: DictConfig) -> DictConfig:
    return OmegaConf.masked_copy(config, [str(key) for key in config if key not in NOT_OF_A_CELL])
