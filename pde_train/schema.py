"""The check of a whole composed configuration, before anything is built from it: names, types and finite numbers.

Constructors are the schema: a value must fit the type that its parameter is annotated with. What a type cannot say,
such as a range, the constructor itself refuses.
"""

from __future__ import annotations

import contextlib
import inspect
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from functools import lru_cache
from inspect import isclass
from typing import Any, Literal, get_type_hints

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from pde_train.conf_dir import choices, groups
from pde_train.errors import UsageError, nearest
from pde_train.instantiate import fields, locate, plain
from pde_train.tracking.uris import without_secrets

CONVERT_NOTHING = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)
"""true is no number, 1.0 no integer, and no number is nan or infinite."""

ONLY_FIELDS = ConfigDict(strict=True, allow_inf_nan=False, extra="forbid")
"""The same, and no other keys."""

NOT_BUILT = ("accelerator",)
"""Groups that name no class; `TopLevel` has their keys."""

PARTIAL = ("optimizer", "method.optimizer")
"""What is built later, from the parameters of the model."""

PLAIN = {"a valid array": "a list", "an object": "keys with values"}
"""What pydantic says of JSON, in words of a command line."""

LARGEST = 2**63
"""Integers beyond it are no 64-bit numbers."""


class Accelerator(BaseModel):
    """The group `accelerator`."""

    model_config = ONLY_FIELDS
    accelerator: Literal["cpu", "gpu"]
    threads: PositiveInt
    precision: Literal["float64", "float32"]
    processes: PositiveInt = 1


class Sweep(BaseModel):
    """The key `sweep`."""

    model_config = ONLY_FIELDS
    retry: bool
    fresh: bool
    stale: Literal["keep", "rerun"]
    optional: list[str]
    label: str
    parent: str | None
    stack: str | None
    tasks: str | None
    bounds: str | None


class Search(BaseModel):
    """The keys of `hydra/sweeper=optuna`, see its YAML file."""

    model_config = ONLY_FIELDS
    params: dict[str, Any] | None
    trials: PositiveInt
    objective: str | None
    direction: Literal["minimize", "maximize"]
    average: list[str]
    sampler: Literal["tpe", "gp", "random"]
    seed: NonNegativeInt
    at_once: PositiveInt
    pruner: Literal["none", "median", "quarter"]
    pruned_by: str
    warmup_steps: NonNegativeInt
    warmup_trials: PositiveInt


class TopLevel(BaseModel):
    """What stands beside the groups in `conf/config.yaml`."""

    model_config = ONLY_FIELDS
    name: str | int | float
    seed: NonNegativeInt
    resume: bool
    figures: bool
    trusted_modules: list[str]
    sweep: Sweep
    accelerator: Accelerator


def check(cfg: DictConfig) -> None:
    """Refuse a composed configuration that no run can use, with one sentence about the first fault.

    Args:
        cfg: The configuration.

    Raises:
        UsageError: A key is missing or unknown, a group has no such choice, a value has another type
            than its parameter, a number is nan or infinite, or a seed is missing.
    """
    check_keys(cfg)
    try:
        config = plain(cfg)
    except OmegaConfBaseException as error:
        raise UsageError(f"the configuration cannot be resolved: {' '.join(str(error).split())}") from error
    for path, value in _leaves("", config):
        _check_number(path, value)
    _check_fits(TypeAdapter(TopLevel), "", {key: config[key] for key in TopLevel.model_fields})
    for group in [*groups(), "audit"]:
        node = config[group]
        if group in NOT_BUILT or node is None:
            continue
        if "_target_" not in node:
            raise UsageError(f"{group} has no _target_: expected the class that it builds, remove ~{group}._target_")
        for path, target in _targets(group, node):
            _check_target(path, target, config["trusted_modules"])


def check_sweep(cfg: DictConfig) -> None:
    """Refuse values of the key `sweep` that no sweep can use.

    Args:
        cfg: The configuration of the sweep.

    Raises:
        UsageError: There is such a value.
    """
    _check_fits(TypeAdapter(Sweep), "sweep", OmegaConf.to_container(cfg.sweep))


def check_search(cfg: DictConfig) -> Search:
    """The options of a search; those that no search can use are refused.

    Args:
        cfg: The configuration of the sweep.

    Returns:
        The options.

    Raises:
        UsageError: An option does not fit.
    """
    node: Any = OmegaConf.to_container(cfg.hydra.sweeper, resolve=True)
    given = {key: value for key, value in node.items() if not key.startswith("_")}
    _check_fits(TypeAdapter(Search), "hydra.sweeper", given)
    return Search(**given)


def check_keys(cfg: DictConfig) -> None:
    """Check that every group is chosen, every key of `conf/config.yaml` is there, and nothing else is.

    Args:
        cfg: The composed configuration.

    Raises:
        UsageError: One of these does not hold.
    """
    own = [*groups(), "audit", *(key for key in TopLevel.model_fields if key not in NOT_BUILT)]
    for key in own:
        if key not in cfg:
            raise UsageError(f"{key} is missing: expected the key {key}, remove ~{key}")
    for key in map(str, cfg):
        if key not in own:
            inside = [f"{g}.{key}" for g in groups() if isinstance(cfg[g], DictConfig) and key in cfg[g]]
            hint = f", did you mean {inside[0]}?" if inside else nearest(key, own)
            raise UsageError(f"{key} is no key of the configuration: expected one of {', '.join(own)}{hint}")
    for group in groups():
        if not isinstance(cfg[group], DictConfig) or cfg[group] == {}:
            raise UsageError(
                f"{group}={_shown(cfg[group])} is no choice: expected one of {', '.join(choices(group))}, choose one"
            )
    if cfg.audit is not None and not isinstance(cfg.audit, DictConfig):
        raise UsageError(f"audit={_shown(cfg.audit)} is no audit: expected null for none, or audit.factor=<number>")
    if not isinstance(cfg.trusted_modules, ListConfig):
        raise UsageError(f"trusted_modules={cfg.trusted_modules} is no list: expected one, such as [my_module]")
    for key in ("sweep", "accelerator"):
        if not isinstance(cfg[key], DictConfig):
            raise UsageError(f"{key}={_shown(cfg[key])} has no keys: expected those of conf/config.yaml")


def _check_number(path: str, value: Any) -> None:
    """Refuse what is a number and no finite 64-bit one, and a seed that no generator takes."""
    if isinstance(value, float) and not abs(value) < float("inf"):
        raise UsageError(f"{path}={value} is no finite number: expected one, correct it")
    if isinstance(value, int) and not abs(value) < LARGEST:
        raise UsageError(f"{path}={value} is too large: expected an integer below 2**63, choose a smaller one")
    if path.rpartition(".")[2] == "seed" and (type(value) is not int or value < 0):
        raise UsageError(f"{path}={_shown(value)} is no seed: expected an integer >= 0, such as {path}=0")


def _check_target(path: str, node: Mapping[str, Any], trusted: Sequence[str]) -> None:
    """The parameters of one `_target_` by the names and the types of its constructor."""
    if not isinstance(node["_target_"], str):
        raise UsageError(
            f"{path}._target_={_shown(node['_target_'])} names no class: expected one, such as module.Name"
        )
    factory = locate(node["_target_"], tuple(trusted), path)
    for key in node:
        if key.startswith("_") and key not in ("_target_", "_partial_"):
            raise UsageError(f"{path}.{key} is not used here: expected _target_ and fields alone, remove it")
    if node.get("_partial_", False) is not (path in PARTIAL):
        expected = "true, as the optimiser gets its parameters later" if path in PARTIAL else "none"
        raise UsageError(f"{path}._partial_={_shown(node.get('_partial_'))} cannot be used: expected {expected}")
    takers = fields(factory, path)
    accepts_any = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(factory).parameters.values())
    own_path = "optimizer" if path == "method.optimizer" else path
    for key, value in node.items():
        if key.startswith("_"):
            continue
        if key not in takers and not accepts_any:
            raise UsageError(
                f"{own_path}.{key} is no field of {node['_target_']}: expected one of {', '.join(takers)}"
                f"{nearest(key, takers)}; correct it, or remove it by ~{own_path}.{key}"
            )
        adapter = _adapters(takers.get(key, factory)).get(key)
        if adapter is not None and not any(True for _ in _targets("", value)):
            _check_fits(adapter, f"{own_path}.{key}", value)


@lru_cache(maxsize=256)
def _adapters(factory: Callable[..., Any]) -> dict[str, TypeAdapter[Any]]:
    """What checks each annotated parameter of a class or function; there is none where the type cannot be checked."""
    annotated = factory.__init__ if isclass(factory) and not is_dataclass(factory) else factory
    try:
        hints = get_type_hints(annotated)
    except Exception:  # names that a user's module has for type checkers alone
        return {}
    made = {}
    for name in hints.keys() & inspect.signature(factory).parameters.keys():
        with contextlib.suppress(PydanticUserError):
            made[name] = TypeAdapter(hints[name], config=CONVERT_NOTHING)
    return made


def _check_fits(adapter: TypeAdapter[Any], path: str, value: Any) -> None:
    """Refuse a value that does not fit a type; the sentence is about its first part that does not."""
    try:
        adapter.validate_json(json.dumps(value, default=str), strict=True)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        where, part = _inside(path, value, faults[0]["loc"])
        if faults[0]["type"] == "extra_forbidden":
            raise UsageError(f"{where} is no key of the configuration: expected no such key, remove it") from error
        if faults[0]["type"] == "missing" and isinstance(part, Mapping):
            key = f"{where}.{faults[0]['loc'][-1]}"
            raise UsageError(f"{key} is missing: expected the key {key}, remove ~{key}") from error
        texts = (f["msg"].removeprefix("Input should be ") for f in faults if "instance of" not in f["msg"])
        texts = (PLAIN.get(text, text) for text in texts)
        wanted = " or ".join(dict.fromkeys(text[0].lower() + text[1:] for text in texts)) or "another type"
        raise UsageError(f"{where}={_shown(part)} does not fit: expected {wanted}, correct it") from error


def _inside(path: str, value: Any, location: Sequence[int | str]) -> tuple[str, Any]:
    """The path of the part of a value that is at fault, and the part itself."""
    for key in location:  # among them the names of the types of a union, which are no keys
        known = isinstance(value, Mapping) and key in value
        if known or (isinstance(value, list) and isinstance(key, int) and key < len(value)):
            path, value = f"{path}.{key}" if path else str(key), value[key]
    return path, value


def _targets(path: str, node: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every mapping with a `_target_`, from a node on, with its path."""
    if isinstance(node, Mapping) and "_target_" in node:
        yield path, node
    for key, value in _items(node):
        yield from _targets(f"{path}.{key}", value)


def _leaves(path: str, node: Any) -> Iterator[tuple[str, Any]]:
    """Every value that holds no others, with its path; an empty list or mapping is one, too."""
    items = list(_items(node))
    if not items:
        yield path, node
    for key, value in items:
        yield from _leaves(f"{path}.{key}" if path else str(key), value)


def _items(node: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(node, Mapping):
        return node.items()
    return enumerate(node) if isinstance(node, list) else ()


def _shown(value: Any) -> str:
    """A value as the command line has it."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return without_secrets(str(value))
