"""Which classes a configuration may name, and how an object is built from one.

A configuration may come from somebody else: an overlay, a folder of --config-dir. It may choose among classes that can
do nothing but what their group is for. More than that is trusted by the command line alone, see `pde_train.guards`.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, get_type_hints

from omegaconf import DictConfig, ListConfig, OmegaConf

from pde_train.errors import PdeTrainError, UsageError

TRUSTED = ("pde_train", "torch.nn", "torch.optim")
"""Modules of which a configuration may name the classes of BASES, and functions of the first that make them."""

BASES = {
    "pde": "pde_train.pdes.base.PDE",
    "model": "torch.nn.Module",
    "optimizer": "torch.optim.Optimizer",
    "schedule": "pde_train.schedules.base.LearningRate",
    "weighting": "pde_train.weighting.base.Weighting",
    "stop": "pde_train.training.stop.Stop",
    "sampler": "pde_train.samplers.base.Sampler",
    "differentiator": "pde_train.differentiators.base.Differentiator",
    "method": "pde_train.methods.base.Method",
    "diagnostics": "pde_train.diagnostics.base.Diagnostics",
    "entropy": "pde_train.entropy.Entropy",
    "audit": "pde_train.diagnostics.audit.Audit",
    "tracking": "pde_train.tracking.base.Tracker",
}
"""What a group is built from, or something nested in it that is called so."""

OPTIONS = {"model": "pde_train.models.options.Options", "pde": "pde_train.pdes.options.Options"}
"""What a group holds beside the fields of its class: the fields of another one, for which code finds a use."""


def build_group(cfg: DictConfig, group: str, **facts: Any) -> Any:
    """Instantiate one group of the configuration with facts that code supplies; what is wrong becomes one sentence."""
    node = OmegaConf.to_container(cfg[group], resolve=True)
    if not isinstance(cfg.trusted_modules, ListConfig):
        raise UsageError(f"trusted_modules={cfg.trusted_modules} is no list: expected one, such as [my_module]")
    trusted = tuple(cfg.trusted_modules)
    targets = [(locate(t, trusted, path), path, t, keys) for path, t, keys in _targets(group, node)]
    for factory, path, target, keys in targets:
        _check_keys(group, target, fields(factory, path), factory, keys)
    if isinstance(node, dict) and group in OPTIONS:
        options = _options(group, node, targets[0][0])
        node = {key: value for key, value in node.items() if key not in options}
    try:
        built = _built(node, {target: factory for factory, _, target, _ in targets}, facts)
    except PdeTrainError:
        raise
    except Exception as error:  # of any constructor
        raise UsageError(f"{group} cannot be built ({error}): compare its values with --cfg job") from error
    base = _base(group)
    if group != "optimizer" and not isinstance(built, base):
        raise UsageError(f"{group} was built as {type(built).__name__}: expected {BASES[group]}, correct its _target_")
    return built


def _built(node: Any, factories: Mapping[str, Callable[..., Any]], facts: Mapping[str, Any]) -> Any:
    """What a node and those below it are made into, as by `hydra.utils.instantiate`, which takes ten times as long."""
    if isinstance(node, list):
        return [_built(value, factories, {}) for value in node]
    if not isinstance(node, dict):
        return node
    values = {key: _built(value, factories, {}) for key, value in node.items() if key not in ("_target_", "_partial_")}
    if "_target_" not in node:
        return values
    factory = factories[str(node["_target_"])]
    return partial(factory, **{**values, **facts}) if node.get("_partial_") else factory(**{**values, **facts})


def build_options(cfg: DictConfig, group: str) -> Any:
    """The options of a group, one of OPTIONS, from the configuration."""
    node = OmegaConf.to_container(cfg[group], resolve=True)
    factory = locate(cfg[group]["_target_"], tuple(cfg.trusted_modules), group)
    return _imported(OPTIONS[group])(**_options(group, node, factory))


def _options(group: str, node: Any, factory: Callable[..., Any]) -> dict[str, Any]:
    """Those keys of a group that its class does not take itself."""
    takers = fields(factory, group)
    return {key: value for key, value in node.items() if takers.get(key, factory) is not factory}


def fields(factory: Callable[..., Any], path: str) -> dict[str, Callable[..., Any]]:
    """The keys that may stand beside a `_target_`, each with the class or function that takes it.

    Args:
        factory: The class or function of the `_target_`, which takes all that it has a parameter for.
        path: Where it stands in the configuration, such as ``method.optimizer``.

    Returns:
        The keys, those of OPTIONS first.
    """
    takers = [_imported(OPTIONS[path]), factory] if path in OPTIONS else [factory]
    return {name: taker for taker in takers for name in inspect.signature(taker).parameters}


def plain(cfg: DictConfig | ListConfig) -> dict[str, Any]:
    """A configuration as plain containers, its references resolved."""
    node: Any = OmegaConf.to_container(cfg, resolve=True)
    return {str(key): value for key, value in node.items()}


def locate(target: str, trusted_modules: Sequence[str] = (), path: str = "") -> Callable[..., Any]:
    """The class or function of a `_target_`.

    A class of TRUSTED must be one that its place in the configuration expects; a function must stand
    beside the classes of a group and say that it returns one. What is defined in a module that the user
    trusts may be anything, but for the class that a group itself is made of.

    Args:
        target: The dotted name.
        trusted_modules: Modules of the user's own.
        path: Where it stands in the configuration, such as ``method.optimizer``.

    Returns:
        The class or function.

    Raises:
        UsageError: It is not trusted, or does not exist.
    """
    module, _, name = target.rpartition(".")
    if not is_within(module, (*TRUSTED, *trusted_modules)):
        raise UsageError(_refusal(target, path))
    try:
        factory: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"_target_={target} does not exist ({error}): expected a class or function, correct it"
        ) from error
    home = getattr(factory, "__module__", None) or ""
    own = is_within(home, trusted_modules)
    if not callable(factory) or not (own or is_within(home, TRUSTED)):
        raise UsageError(_refusal(target, path))
    if own and ("." in path or not inspect.isclass(factory)):
        return factory
    made = factory if inspect.isclass(factory) else _returned(factory, path)
    if not any(inspect.isclass(made) and issubclass(made, base) for base in _bases(path)):
        raise UsageError(_refusal(target, path))
    return factory


def _refusal(target: str, path: str) -> str:
    named = _named(path)
    kind = named[0] if len(named) == 1 else "a class of a group"
    return (
        f"_target_={target} is not trusted: expected {kind} of {', '.join(TRUSTED)}; name your own module on the "
        "command line by trusted_modules=[...]"
    )


def _named(path: str) -> list[str]:
    """The names of the classes of which one is expected at a place of the configuration."""
    *above, last = path.split(".")
    if last in BASES:
        return [BASES[last]]
    if "differentiators" in above[-1:]:
        return [BASES["differentiator"]]
    return list(BASES.values())


def _bases(path: str) -> list[type]:
    return [_imported(name) for name in _named(path)]


def _base(group: str) -> type:
    base: type = _imported(BASES[group])
    return base


def _imported(name: str) -> Any:
    module, _, last = name.rpartition(".")
    return getattr(importlib.import_module(module), last)


def _returned(function: Callable[..., Any], group: str) -> Any:
    """What a function beside the classes of a group says that it returns; None of any other."""
    if not inspect.isfunction(function) or not function.__module__.startswith(f"pde_train.{group}s."):
        return None
    return get_type_hints(function).get("return")


def is_within(module: str, trusted: Sequence[str]) -> bool:
    """Whether a module is one of these, or lies below one."""
    return any(module == name or module.startswith(f"{name}.") for name in trusted)


def _targets(path: str, node: Any) -> Iterator[tuple[str, str, list[str]]]:
    """Every `_target_` below a node, with its path and the keyword arguments beside it."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield path, str(node["_target_"]), [key for key in node if not key.startswith("_")]
        for key, value in node.items():
            yield from _targets(f"{path}.{key}", value)
    elif isinstance(node, list):
        for value in node:
            yield from _targets(f"{path}.", value)


def _check_keys(
    group: str, target: str, known: Mapping[str, Any], factory: Callable[..., Any], keys: Sequence[str]
) -> None:
    if any(p.kind is p.VAR_KEYWORD for p in inspect.signature(factory).parameters.values()):
        return
    for key in keys:
        if key not in known:
            raise UsageError(
                f"{group}.{key} is no field of {target}: expected one of {', '.join(known)}; correct or remove it"
            )
