"""Which code a configuration may name, and how it is built."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf

from pde_train.errors import PdeTrainError, UsageError

TRUSTED = ("pde_train", "torch.nn", "torch.optim", "lightning.pytorch")


def build_group(cfg: DictConfig, group: str, **facts: Any) -> Any:
    """Instantiate one group of the configuration with facts that code supplies; what is wrong becomes one sentence."""
    node = OmegaConf.to_container(cfg[group], resolve=True)
    if not isinstance(cfg.trusted_modules, ListConfig):
        raise UsageError(f"trusted_modules={cfg.trusted_modules} is no list: expected one, such as [my_module]")
    for target, keys in _targets(node):
        _check_keys(group, target, locate(target, tuple(cfg.trusted_modules)), keys)
    try:
        return instantiate(node, **facts, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, PdeTrainError):
            raise cause from None
        raise UsageError(f"{group} cannot be built ({cause or error}): compare its values with --cfg job") from error


def locate(target: str, trusted_modules: Sequence[str] = ()) -> Callable:
    """The class or function of a `_target_`, which must be defined in a module that is trusted."""
    trusted = (*TRUSTED, *trusted_modules)
    module, _, name = target.rpartition(".")
    refusal = UsageError(
        f"_target_={target} is not trusted: expected something from {', '.join(trusted)}; "
        "name your own module in trusted_modules=[...]"
    )
    if not _within(module, trusted):
        raise refusal
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"_target_={target} does not exist ({error}): expected a class or function, correct it"
        ) from error
    if not callable(found) or not _within(getattr(found, "__module__", None) or "", trusted):
        raise refusal
    return found


def _within(module: str, trusted: Sequence[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in trusted)


def _targets(node: Any) -> Iterator[tuple[str, list[str]]]:
    """Every `_target_` below a node, with the keyword arguments beside it."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield str(node["_target_"]), [key for key in node if not key.startswith("_")]
        for value in node.values():
            yield from _targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from _targets(value)


def _check_keys(group: str, target: str, found: Callable, keys: Sequence[str]) -> None:
    parameters = inspect.signature(found).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    for key in keys:
        if key not in parameters:
            raise UsageError(
                f"{group}.{key} is no field of {target}: expected one of {', '.join(parameters)}; correct or remove it"
            )
