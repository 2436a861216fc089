"""Where a number came from: the hash of what decides it, versions, the git commit."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import Any

PACKAGES = ("pde_train", "torch", "lightning", "hydra-core", "mlflow", "numpy")

NOT_DECISIVE = ("tracking", "name", "resume", "figures", "sweep", "entropy", "trusted_modules")
"""Keys of the configuration that decide no number; entropies are recomputed from singular values at any time."""

NOT_DECISIVE_OF_METHOD = ("chunk", "checkpoint_every")
"""The same in the group `method`."""


def config_hash(config: Mapping[str, Any]) -> str:
    """The name of what decides the numbers of a run of this version.

    Args:
        config: A resolved configuration. The source of the user's own modules that it names counts,
            too.

    Returns:
        Twelve hexadecimal digits.
    """
    decisive = {key: _plain(value) for key, value in config.items() if key not in NOT_DECISIVE}
    decisive["method"] = {k: v for k, v in decisive.get("method", {}).items() if k not in NOT_DECISIVE_OF_METHOD}
    if own := _own_modules(config):
        decisive["sources"] = _sources(own)
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:12]


def _own_modules(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The modules of the user's own whose classes a configuration names."""
    trusted = tuple(config.get("trusted_modules") or ())
    named = {target.rpartition(".")[0] for target in _targets(config)}
    return tuple(sorted(m for m in named if any(m == name or m.startswith(f"{name}.") for name in trusted)))


def _targets(node: Any) -> Iterator[str]:
    """Every `_target_` below a node."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield str(node["_target_"])
        node = list(node.values())
    for value in node if isinstance(node, (list, tuple)) else ():
        yield from _targets(value)


@cache
def _sources(modules: tuple[str, ...]) -> str:
    """A digest of the source of modules, and of all that they import from the folder in which they lie."""
    files: set[Path] = set()
    for module in modules:
        with suppress(ImportError, ValueError):  # which is said when the run is built
            spec = find_spec(module)
            if spec is not None and spec.origin is not None:
                _collect(module, Path(spec.origin), Path(spec.origin).parents[module.count(".")], files)
    digests = sorted(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:12]


def _collect(module: str, file: Path, root: Path, files: set[Path]) -> None:
    """Add the file of a module, and those below `root` that it imports, directly or not."""
    if file in files or file.suffix != ".py" or root not in file.parents or "site-packages" in file.parts:
        return
    files.add(file)
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_bytes())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package) if node.level else node.module or ""
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        for name in names:
            with suppress(ImportError, ValueError):
                spec = find_spec(name)
                if spec is not None and spec.origin is not None:
                    _collect(name, Path(spec.origin), root, files)


def _plain(value: Any) -> Any:
    """The same value however it is written: 1.0 as 1."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on."""
    known = {"python": platform.python_version()}
    known["pde_train_source"] = _package_source()
    for package in PACKAGES:
        try:
            known[package] = version(package)
        except PackageNotFoundError:
            known[package] = "not installed"
    return known


def _package_source() -> str:
    """A digest of all Python files of this package: two commits with the same one compute the same numbers."""
    folder = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        digest.update(f"{file.relative_to(folder)}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:12]


@cache
def machine() -> str:
    """The processor by the name that it gives itself, and how many cores there are."""
    name = platform.processor() or platform.machine()
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{name}, {os.cpu_count()} cores"


@cache
def git_commit() -> str:
    """The commit of the checkout that this code runs from, `+changes` where files differ; `unknown` outside one."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(Path(__file__).parent), *words], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        tracked = git("ls-files", Path(__file__).name)
        return (
            git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")
            if tracked
            else "unknown"
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"


TARGET = "_target_"
TARGETS = "mlflow.pde_train.class."
"""Begins the names of tags with the name of a class; MLflow's pages show no tag that begins with `mlflow.`."""

OF_NO_RUN = ("name", "resume", "figures", "sweep", "tracking", "trusted_modules")
"""Keys of a configuration that are no parameters of the run in a store."""


def parameters(config: Mapping[str, Any], choices: Mapping[str, str]) -> dict[str, str]:
    """The parameters of a run in a store: the choice of every group, and every key with its value.

    Args:
        config: Of the run.
        choices: The choice of every configuration group.

    Returns:
        Texts by name, without the names of classes, which `targets` gives.
    """
    keys = flattened({key: value for key, value in config.items() if key not in OF_NO_RUN})
    chosen = {group: choice for group, choice in choices.items() if group in config}
    return {**chosen, **{key: value for key, value in keys.items() if not key.endswith(TARGET)}}


def targets(config: Mapping[str, Any]) -> dict[str, str]:
    """The name of every class of a configuration, as tags that the pages of MLflow do not show."""
    keys = flattened({key: value for key, value in config.items() if key not in OF_NO_RUN})
    return {f"{TARGETS}{key.removesuffix(TARGET)[:-1]}": value for key, value in keys.items() if key.endswith(TARGET)}


def name_of(choices: Mapping[str, str]) -> str:
    """The name of a run that was given none: its equation, its model and its differentiator."""
    return " ".join(choices[group] for group in ("pde", "model", "differentiator") if group in choices)


def flattened(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A nested configuration as dotted keys and strings."""
    flat: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat
