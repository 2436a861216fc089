"""Which code a configuration may name, how it is built, and what may be typed on a command line.

A configuration may come from somebody else: an overlay, a folder of --config-dir. It may choose among classes that can
do nothing but what their group is for. More than that is trusted by the command line alone.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import wraps
from itertools import count
from typing import Any, get_type_hints

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, Node, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from pde_train.errors import SECRET, PdeTrainError, UsageError
from pde_train.tracking.uris import holds_secret

TRUSTED = ("pde_train", "torch.nn", "torch.optim")
"""Modules of which a configuration may name the classes of BASES, and functions of the first that make them."""

BASES = {
    "pde": "pde_train.pdes.base.PDE",
    "model": "torch.nn.Module",
    "optimizer": "torch.optim.Optimizer",
    "sampler": "pde_train.samplers.base.Sampler",
    "differentiator": "pde_train.differentiators.base.Differentiator",
    "method": "pde_train.methods.base.Method",
    "diagnostics": "pde_train.diagnostics.base.Diagnostics",
    "entropy": "pde_train.entropy.Entropy",
    "audit": "pde_train.audit.Audit",
    "tracking": "pde_train.tracking.base.Tracker",
}
"""What a group is built from, or something nested in it that is called so."""

PLUGINS = ("hydra_plugins", "hydra._internal.core_plugins", "hydra.experimental.callbacks")
"""Modules of which the part of the configuration that is Hydra's own may name classes."""

INSTANTIATED = ("launcher", "sweeper", "callbacks", "job_logging", "hydra_logging")
"""Keys of that part from which objects are made."""

OF_HYDRA = re.compile(r"\$\{(?!hydra[.:]|oc\.env:|now:)")
"""A reference from there to something else, which could be anything."""

WIDENED = (
    "{} stands in a file, and only the command line may widen trust: expected 'trusted_modules=[...]' among the words "
    "of the command, type it if you trust the module"
)
"""Said of modules that are named elsewhere."""

VARIABLE = "PDE_TRAIN_TRACKING_URI"
"""Beginning of the names of environment variables that hold what a file has for the tracking uri."""

URI = re.compile(r"[\w+.-]*://[^\s'\",\]}]+")


def build_group(cfg: DictConfig, group: str, **facts: Any) -> Any:
    """Instantiate one group of the configuration with facts that code supplies; what is wrong becomes one sentence."""
    node = OmegaConf.to_container(cfg[group], resolve=True)
    if not isinstance(cfg.trusted_modules, ListConfig):
        raise UsageError(f"trusted_modules={cfg.trusted_modules} is no list: expected one, such as [my_module]")
    targets = [(locate(t, tuple(cfg.trusted_modules), path), t, keys) for path, t, keys in _targets(group, node)]
    for found, target, keys in targets:
        _check_keys(group, target, found, keys)
    try:
        built = instantiate(node, **facts, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, PdeTrainError):
            raise cause from None
        raise UsageError(f"{group} cannot be built ({cause or error}): compare its values with --cfg job") from error
    base = _base(group)
    if group != "optimizer" and not isinstance(built, base):
        raise UsageError(f"{group} was built as {type(built).__name__}: expected {BASES[group]}, correct its _target_")
    return built


def locate(target: str, trusted_modules: Sequence[str] = (), path: str = "") -> Callable:
    """The class or function of a `_target_`.

    path: where it stands in the configuration, such as `method.optimizer`. A class of TRUSTED must be one that its
    place expects, a function one beside the classes of
    a group that says it returns one. What is defined in `trusted_modules`
    may be anything, but for the class that a group itself is made of.

    Raises UsageError.
    """
    module, _, name = target.rpartition(".")
    if not _within(module, (*TRUSTED, *trusted_modules)):
        raise _refusal(target, path)
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"_target_={target} does not exist ({error}): expected a class or function, correct it"
        ) from error
    home = getattr(found, "__module__", None) or ""
    own = _within(home, trusted_modules)
    if not callable(found) or not (own or _within(home, TRUSTED)):
        raise _refusal(target, path)
    if own and ("." in path or not inspect.isclass(found)):
        return found
    made = found if inspect.isclass(found) else _returned(found, path)
    if not any(inspect.isclass(made) and issubclass(made, base) for base in _bases(path)):
        raise _refusal(target, path)
    return found


def check_trusted(cfg: DictConfig, words: Iterable[str]) -> None:
    """Refuse trusted modules that a file names and no word of the command.

    Raises UsageError.
    """
    typed = {text for override in _parsed(words) if _key(override) == "trusted_modules" for text in _texts(override)}
    for module in cfg.trusted_modules if isinstance(cfg.get("trusted_modules"), ListConfig) else ():
        if str(module) not in typed:
            raise UsageError(WIDENED.format(f"trusted_modules=[{module}]"))


def refuse_trust(words: Iterable[str]) -> None:
    """Refuse words about trust that are no words of a command.

    Raises UsageError.
    """
    for override in _parsed(words):
        if _key(override).partition(".")[0] == "trusted_modules":
            raise UsageError(WIDENED.format(override.input_line))


def guard_composition() -> None:
    """From now on whatever Hydra composes in this process is checked before anything is made of it.

    A secret that a file holds is moved to an environment variable, whose name is then all that a configuration shows.
    """
    load = ConfigLoaderImpl.load_configuration
    if hasattr(load, "__wrapped__"):
        return

    @wraps(load)
    def guarded(self: ConfigLoaderImpl, config_name: str, overrides: list[str], *rest: Any, **more: Any) -> DictConfig:
        cfg = load(self, config_name, overrides, *rest, **more)
        check_trusted(cfg, overrides)
        check_hydra(cfg)
        _move_secret(cfg)
        return cfg

    ConfigLoaderImpl.load_configuration = guarded  # type: ignore[assignment, method-assign]


def check_hydra(cfg: DictConfig) -> None:
    """Refuse what the part of a configuration that is Hydra's own would run: its logging, callbacks and plugins.

    Raises UsageError.
    """
    node: Any = OmegaConf.to_container(cfg.hydra, resolve=False)
    for path, name, value in _pairs("hydra", node):
        text = value if isinstance(value, str) else ""
        if (
            (name == "_target_" and not _is_plugin(text))
            or (name == "()" and text != "colorlog.ColoredFormatter")
            or (name == "class" and not re.fullmatch(r"logging(\.handlers)?\.\w+Handler", text))
            or (text.startswith("ext://") and not text.startswith("ext://sys.std"))
            or (path.split(".")[1] in INSTANTIATED and OF_HYDRA.search(text))
        ):
            raise UsageError(
                f"{path}={value} may not be used: expected Hydra's plugins, and handlers of Python's logging, remove it"
            )


def refuse_secrets(words: Iterable[str]) -> None:
    """Refuse a secret that is typed: Hydra writes the words of a command to its log and to `.hydra/`.

    Raises UsageError, without the secret.
    """
    for word in words:
        (override, *_) = [*_parsed([word]), None]
        if override is None:
            texts, of_tracking = {word.partition("=")[2]}, "tracking" in word
        else:
            texts, of_tracking = _texts(override), _key(override).partition(".")[0] == "tracking"
        uris = {uri for text in texts for uri in ([text] if of_tracking else []) + URI.findall(text)}
        if any(holds_secret(uri) for uri in uris):
            raise UsageError(SECRET if of_tracking else SECRET.replace("tracking.uri", "a uri", 1))


def _is_plugin(target: str) -> bool:
    """Whether a name is that of a class that is defined in one of PLUGINS."""
    module, _, name = target.rpartition(".")
    if not _within(module, PLUGINS):
        return False
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        return False
    return inspect.isclass(found) and _within(found.__module__, PLUGINS)


def _move_secret(cfg: DictConfig) -> None:
    """Put the variable's name in the place of a tracking uri that holds a secret."""
    node = cfg.get("tracking")
    raw = node._get_node("uri") if isinstance(node, DictConfig) and "uri" in node else None
    uri = raw._value() if isinstance(raw, Node) else None
    if not isinstance(uri, str) or not holds_secret(uri):
        return
    with suppress(OmegaConfBaseException):  # a reference in it that is known later alone
        uri = str(node.uri)
    names = (f"{VARIABLE}_{k}" for k in count())
    variable = next(name for name in names if os.environ.setdefault(name, uri) == uri)
    with read_write(cfg), open_dict(cfg):
        cfg.tracking.uri = f"${{oc.env:{variable}}}"


def _parsed(words: Iterable[str]) -> Iterator[Override]:
    """The words that Hydra can read."""
    for word in words:
        try:
            yield OverridesParser.create().parse_override(word)
        except HydraException:
            continue


def _key(override: Override) -> str:
    return override.key_or_group


def _texts(override: Override) -> set[str]:
    """Every text in the values of an override."""
    values: list[Any] = [override._value]
    found = set()
    while values:
        value = values.pop()
        if isinstance(value, Mapping):
            values += value.values()
        elif isinstance(value, (list, tuple)):
            values += value
        elif hasattr(value, "list"):  # what is swept
            values += value.list
        elif value is not None:
            found.add(str(getattr(value, "text", value)))
    return found


def _refusal(target: str, path: str) -> UsageError:
    named = _named(path)
    kind = named[0] if len(named) == 1 else "a class of a group"
    return UsageError(
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
    return _imported(BASES[group])


def _imported(name: str) -> Any:
    module, _, last = name.rpartition(".")
    return getattr(importlib.import_module(module), last)


def _returned(function: Callable, group: str) -> Any:
    """What a function beside the classes of a group says that it returns; None of any other."""
    if not inspect.isfunction(function) or not function.__module__.startswith(f"pde_train.{group}s."):
        return None
    return get_type_hints(function).get("return")


def _within(module: str, trusted: Sequence[str]) -> bool:
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


def _pairs(path: str, node: Any) -> Iterator[tuple[str, str, Any]]:
    """Every key below a node that has a plain value, with its path."""
    items = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield f"{path}.{key}", str(key), value
        yield from _pairs(f"{path}.{key}", value)
    if isinstance(node, str):
        yield path, "", node


def _check_keys(group: str, target: str, found: Callable, keys: Sequence[str]) -> None:
    parameters = inspect.signature(found).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    for key in keys:
        if key not in parameters:
            raise UsageError(
                f"{group}.{key} is no field of {target}: expected one of {', '.join(parameters)}; correct or remove it"
            )
