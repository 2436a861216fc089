"""Which code a configuration may name, and how it is built."""

from __future__ import annotations

import importlib
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from pde_train.errors import PdeTrainError, UsageError

TRUSTED = ("pde_train", "torch.nn", "torch.optim")
"""Modules whose classes may be named, where they are of the kind that is built there."""

KINDS = {
    "pde": "pde_train.pdes.base.PDE",
    "sampler": "pde_train.samplers.base.Sampler",
    "model": "torch.nn.Module",
    "differentiator": "pde_train.differentiators.base.Differentiator",
    "method": "pde_train.methods.base.Method",
    "optimizer": "torch.optim.Optimizer",
    "diagnostics": "pde_train.diagnostics.base.Diagnostics",
    "entropy": "pde_train.entropy.Entropy",
    "audit": "pde_train.audit.Audit",
    "tracking": "pde_train.tracking.base.Tracker",
}
"""What each group builds: a class, of which every choice is a subclass."""

OWN = "trusted_modules"
"""The key by which a command names modules of the user's own."""


def build_group(cfg: DictConfig, group: str, **facts: Any) -> Any:
    """Instantiate one group of the configuration with facts that code supplies; what is wrong becomes one sentence.

    Raises UsageError: for a class that is not trusted (see `locate`), for what its constructor refuses, and for an
    object of another kind than the group's.
    """
    node = OmegaConf.to_container(cfg[group], resolve=True)
    _check_targets(group, node, tuple(cfg[OWN]))
    try:
        built = instantiate(node, **facts, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, PdeTrainError):
            raise cause from None
        raise UsageError(f"{group} cannot be built ({cause or error}): compare its values with --cfg job") from error
    if group != "optimizer" and not isinstance(built, _kind(group)):  # an optimiser is built later
        raise UsageError(f"{group} was built as {type(built).__name__}: expected {KINDS[group]}, correct its _target_")
    return built


def locate(target: str, trusted_modules: Sequence[str] = (), group: str | None = None) -> Callable:
    """The class or function of a `_target_`.

    Of a module that the user trusts it may be anything that is defined there. Of this package, torch.nn and torch.optim
    it must be a class of the kind that `group` builds, or of any kind where it stands deeper inside of a group; or one
    of this package's functions beside those classes that is annotated to return one. Raises UsageError otherwise.
    """
    module, _, name = target.rpartition(".")
    own = _within(module, trusted_modules)
    refusal = UsageError(
        f"_target_={target} is not trusted: expected {KINDS[group] if group else 'a class of a group'} of "
        f"{', '.join(TRUSTED)}; name your own module on the command line by {OWN}=[...]"
    )
    if not (own or _within(module, TRUSTED)):
        raise refusal
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"_target_={target} does not exist ({error}): expected a class or function, correct it"
        ) from error
    defined = getattr(found, "__module__", None) or ""
    if callable(found) and own and _within(defined, trusted_modules):
        return found
    kinds = tuple(map(_kind, [group] if group else KINDS))
    made = found if inspect.isclass(found) else _returned(found, group)
    if not (_within(defined, TRUSTED) and inspect.isclass(made) and issubclass(made, kinds)):
        raise refusal
    return found


def check_named_by_command(trusted_modules: Sequence[str], words: Sequence[str], by_files: Mapping[str, Any]) -> None:
    """Refuse modules that a file trusts: only the words of a command may widen trust.

    words: those of the command. by_files: choices of a sweep that stand in a file. Raises UsageError.
    """
    typed = any(word.lstrip("+").partition("=")[0] == OWN for word in words)
    if (trusted_modules and not typed) or any(key.lstrip("+") == OWN for key in by_files):
        raise UsageError(
            f"{OWN}={list(trusted_modules)} stands in a file, and only the command line may widen trust: expected "
            f"'{OWN}=[...]' among the words of the command"
        )


def _kind(group: str) -> type:
    module, _, name = KINDS[group].rpartition(".")
    return getattr(importlib.import_module(module), name)


def _returned(function: Any, group: str | None) -> Any:
    """What a function of this package that stands beside the classes of a group returns; None for any other."""
    if group is None or not getattr(function, "__module__", "").startswith(f"pde_train.{group}s."):
        return None
    return typing.get_type_hints(function).get("return")


def _within(module: str, trusted: Sequence[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in trusted)


def _check_targets(group: str | None, node: Any, trusted: Sequence[str]) -> None:
    """Locate every `_target_` of a node of the configuration."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            locate(str(node["_target_"]), trusted, group)
        for key, value in node.items():
            _check_targets("optimizer" if (group, key) == ("method", "optimizer") else None, value, trusted)
    elif isinstance(node, list):
        for value in node:
            _check_targets(None, value, trusted)
