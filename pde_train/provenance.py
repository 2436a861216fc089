"""Where a number came from: the hash of what decides it, versions, the git commit."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("pde_train", "torch", "lightning", "hydra-core", "mlflow", "numpy")

NOT_DECISIVE = ("tracking", "name", "resume", "sweep", "entropy", "trusted_modules")
"""Keys of the configuration that decide no number; entropies are recomputed from singular values at any time."""

NOT_DECISIVE_OF_METHOD = ("chunk", "checkpoint_every")
"""The same in the group `method`."""


def config_hash(config: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits of what decides the numbers of a run of this version, in a resolved configuration."""
    decisive = {key: _plain(value) for key, value in config.items() if key not in NOT_DECISIVE}
    decisive["method"] = {k: v for k, v in decisive.get("method", {}).items() if k not in NOT_DECISIVE_OF_METHOD}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:12]


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
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


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


def flattened(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A nested configuration as dotted keys and strings."""
    flat: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat
