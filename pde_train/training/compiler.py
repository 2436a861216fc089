"""The call of the C++ compiler, and the headers that it need not read anew for every library."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import tempfile
from pathlib import Path
from sysconfig import get_config_var

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

LIBRARIES = 2
"""From so many libraries on their headers are parsed once for all."""

NO_SYMBOLS_NO_WARNINGS = ("-g0", "-w")
"""Symbols for debuggers, and warnings of torch's headers, take a tenth of the time."""


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
            library = _built(source)
            _parsed(headers).resolve().unlink(missing_ok=True)  # without it, it went well
        shutil.copy(source, folder)
        return Path(shutil.copy(library, folder))


def facts() -> list[object]:
    """What compiled code depends on besides its source."""
    return [torch.__version__, get_config_var("SOABI"), os.environ.get("ATEN_CPU_CAPABILITY"), _processor()]


def _parsed(headers: Path) -> Path:
    """Where the compiler looks for the parsed form of a file of headers, in its words: the precompiled header."""
    return headers.with_name(f"{headers.name}.gch")


def _headers(place: Path) -> Path | None:
    """Put the headers into a folder, with their parsed form beside them.

    Parsing takes two seconds of each compilation. Writing the parsed form takes six, once for all later compilations of
    this cache folder: so it is written where there are LIBRARIES already, as a single run makes up to two.

    Returns:
        The headers; None where there are fewer, or where the parsed form cannot be had.
    """
    from torch._inductor.cpp_builder import is_gcc

    headers, cache = place / "headers.h", cache_folder()
    kept = cache / f"headers.{hashlib.sha256(repr((HEADERS, facts())).encode()).hexdigest()[:20]}.gch"
    if not is_gcc() or not (kept.exists() or len(list(cache.glob("*.path"))) >= LIBRARIES):
        return None
    headers.write_text(HEADERS)
    if not kept.exists():
        try:
            made = _built(headers)
            with tempfile.TemporaryDirectory(dir=cache) as beside:  # of another file system than the first one, maybe
                Path(shutil.copy(made, beside)).replace(kept)
            made.unlink()
        except (OSError, RuntimeError):  # such as for a full disk
            return None
    _parsed(headers).symlink_to(kept)
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
        extra_flags=NO_SYMBOLS_NO_WARNINGS,
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
