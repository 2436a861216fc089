"""What is refused of a command and of a composed configuration before anything is made of them: trust and secrets.

Only the words of a command may widen trust, and no password is written to a file or a log.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import wraps
from itertools import count
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, Node, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from pde_train.errors import SECRET, UsageError
from pde_train.instantiate import is_within
from pde_train.tracking.uris import holds_secret

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


def check_trusted(cfg: DictConfig, words: Iterable[str]) -> None:
    """Refuse trusted modules that a file names and no word of the command.

    Args:
        cfg: The composed configuration.
        words: Of the command.

    Raises:
        UsageError: There is such a module.
    """
    typed = {text for override in _parsed(words) if _key(override) == "trusted_modules" for text in _texts(override)}
    for module in cfg.trusted_modules if isinstance(cfg.get("trusted_modules"), ListConfig) else ():
        if str(module) not in typed:
            raise UsageError(WIDENED.format(f"trusted_modules=[{module}]"))


def refuse_trust(words: Iterable[str]) -> None:
    """Refuse words about trust that do not stand on a command line.

    Args:
        words: Of a file, such as the choices of a sweep.

    Raises:
        UsageError: There is such a word.
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

    ConfigLoaderImpl.load_configuration = guarded  # type: ignore[assignment, method-assign]  # see the docstring


def check_hydra(cfg: DictConfig) -> None:
    """Refuse what the part of a configuration that is Hydra's own would run: its logging, callbacks and plugins.

    Args:
        cfg: The composed configuration.

    Raises:
        UsageError: It names a class that is neither a plugin of Hydra nor a handler of Python's
            logging.
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

    Args:
        words: Of the command.

    Raises:
        UsageError: A word holds one, which the error does not repeat.
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
    if not is_within(module, PLUGINS):
        return False
    try:
        member = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        return False
    return inspect.isclass(member) and is_within(member.__module__, PLUGINS)


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
    texts = set()
    while values:
        value = values.pop()
        if isinstance(value, Mapping):
            values += value.values()
        elif isinstance(value, (list, tuple)):
            values += value
        elif hasattr(value, "list"):  # what is swept
            values += value.list
        elif value is not None:
            texts.add(str(getattr(value, "text", value)))
    return texts


def _pairs(path: str, node: Any) -> Iterator[tuple[str, str, Any]]:
    """Every key below a node that has a plain value, with its path."""
    items = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield f"{path}.{key}", str(key), value
        yield from _pairs(f"{path}.{key}", value)
    if isinstance(node, str):
        yield path, "", node
