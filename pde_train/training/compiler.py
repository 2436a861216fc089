"""The call of the C++ compiler, and the headers that it need not read anew for every library."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path

import torch

from pde_train.cache import cache_folder

HEADERS = r"""
#include <Python.h>
#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>
#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cpu.h>
#include <torch/csrc/inductor/aoti_runtime/utils.h>
#include <torch/csrc/inductor/cpp_prefix.h>
"""
"""Begins every source."""


def compile_source(text: str, folder: Path) -> Path:
    """Compile a C++ source to a shared library.

    Args:
        text: The source, which begins with `HEADERS`.
        folder: Gets the source and the library.

    Returns:
        The library.

    Raises:
        RuntimeError: The compiler refuses the source, or there is no compiler.
    """
    with tempfile.TemporaryDirectory() as place:  # torch's builder takes no folder with a space in its name
        source = Path(place) / "calls.cpp"
        source.write_text(text)
        headers = _headers(Path(place))
        try:
            library = _built(source, headers)
        except RuntimeError:
            if headers is None:
                raise
            headers.with_suffix(".h.gch").resolve().unlink(missing_ok=True)  # it is damaged, or the source is wrong
            library = _built(source)
        shutil.copy(source, folder)
        return Path(shutil.copy(library, folder))


def facts() -> list[object]:
    """What compiled code depends on besides its source."""
    return [torch.__version__, *sys.version_info[:2], _processor()]


def _headers(place: Path) -> Path | None:
    """Put the headers into a folder, with their parsed form beside them.

    Parsing takes two of the seconds of a compilation, and six when the result is kept for all later compilations of
    this cache folder. So it is kept from the second one on.

    Returns:
        The headers, or None for the first compilation.
    """
    headers, cache = place / "headers.h", cache_folder()
    kept = cache / f"headers.{hashlib.sha256(repr((HEADERS, facts())).encode()).hexdigest()[:20]}.gch"
    if not kept.exists() and not any(cache.glob("*.path")):
        return None
    headers.write_text(HEADERS)
    if not kept.exists():
        beside = kept.with_suffix(f".{os.getpid()}")
        shutil.move(_built(headers), beside)
        beside.replace(kept)
    headers.with_suffix(".h.gch").symlink_to(kept)
    return headers


def _built(source: Path, headers: Path | None = None) -> Path:
    """The library of a source, or the parsed form of a header."""
    from torch._inductor.cpp_builder import CppBuilder, CppTorchDeviceOptions
    from torch._inductor.cpu_vec_isa import pick_vec_isa

    is_header = source.suffix == ".h"
    options = CppTorchDeviceOptions(
        vec_isa=pick_vec_isa(),
        device_type="cpu",
        aot_mode=True,
        precompiling=is_header,
        extra_flags=(
            "-g0",
            "-w",
        ),  # a tenth of the time goes to symbols of debuggers, and to warnings of torch's headers
    )
    options.precompiled_header = None if headers is None else str(headers)
    name = source.name if is_header else source.stem
    builder = CppBuilder(name=name, sources=str(source), output_dir=str(source.parent), BuildOption=options)
    builder.build()
    return Path(builder.get_target_file_path())


def _processor() -> str:
    """What tells processors apart whose instructions differ: code is made for the one that it is made on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return f"{platform.machine()} {platform.processor()}"
