"""The shared library of one compiled graph, and its call from Python.

torch's AOTInductor writes two C++ sources for a graph: kernels, and a wrapper that calls them one after another inside
a container for weights, streams and several models. Of the container nothing is used here, and compiling it takes most
of the time. A library for the CPU has the kernels and their calls alone, compiled in one go. One for a GPU is whole.
"""

from __future__ import annotations

import ctypes
import hashlib
import re
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor, fx

Function = Callable[..., Any]

BEFORE = r"""
#include <Python.h>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>
#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cpu.h>
#include <torch/csrc/inductor/aoti_runtime/utils.h>
"""

TANH = r"""
// tanh |x| = t / (t + 2) with t = exp(2 |x|) - 1. For 2 |x| = k ln 2 + r it is t = 2^k (exp(r) - 1) + (2^k - 1), and
// exp(r) - 1 a Taylor polynomial of degree 13, as |r| <= ln(2) / 2. Within 3 units in the last place.
static inline at::vec::Vectorized<double> fast_tanh(const at::vec::Vectorized<double>& x) {
  using V = at::vec::Vectorized<double>;
  using at::vec::fmadd;
  const V y = at::vec::clamp_max(x.abs() * V(2.0), V(44.0));  // a larger one is 1
  const V k = (y * V(1.4426950408889634)).round();
  const V r = fmadd(k, V(-0x1.ef35793c7673p-45), fmadd(k, V(-0x1.62e42fefa38p-1), y));  // ln 2 in two parts
  const V r2 = r * r, r4 = r2 * r2;
  const V a = fmadd(r2, fmadd(r, V(1.0 / 120), V(1.0 / 24)), fmadd(r, V(1.0 / 6), V(0.5)));
  const V b = fmadd(r2, fmadd(r, V(1.0 / 362880), V(1.0 / 40320)), fmadd(r, V(1.0 / 5040), V(1.0 / 720)));
  const V c = fmadd(r2, fmadd(r, V(1.0 / 6227020800.0), V(1.0 / 479001600)),
                    fmadd(r, V(1.0 / 39916800), V(1.0 / 3628800)));
  const V p = fmadd(r2, fmadd(r4, fmadd(r4, c, b), a), r);
  // the last bits of k + 2^52 + 1023 are the exponent of 2^k
  const auto bits = at::vec::cast<int64_t>(k + V(4503599627371519.0)) << at::vec::Vectorized<int64_t>(52);
  const V power = at::vec::cast<double>(bits);
  const V t = fmadd(power, p, power - V(1.0));
  return (t / (t + V(2.0))).copysign(x);
}
template <int N>
static inline at::vec::VectorizedN<double, N> fast_tanh(const at::vec::VectorizedN<double, N>& x) {
  return x.unary_op([](const at::vec::Vectorized<double>& part) { return fast_tanh(part); });
}
static inline double fast_tanh(double x) {
  alignas(64) double lanes[at::vec::Vectorized<double>::size()];
  fast_tanh(at::vec::Vectorized<double>(x)).store(lanes);
  return lanes[0];
}
static inline float fast_tanh(float x) { return std::tanh(x); }
template <typename Other>
static inline Other fast_tanh(const Other& x) { return x.tanh(); }
"""
"""torch's own tanh of doubles, within 1 unit, takes three times as long: most of the time of a small network's step."""

MODEL = r"""
namespace torch::aot_inductor {
namespace {  // of this library alone: otherwise libraries of one process would share the arrays of their first one
using DeviceStreamType = void*;
constexpr bool _check_aoti_runtime_check_inputs_env() { return false; }
template <typename... Any> void assert_size_stride(Any&&...) {}
template <typename... Any> void __check_inputs_outputs(Any&&...) {}
struct Model {
  int32_t device_idx_ = 0;
"""

AFTER = r"""
};
}  // namespace
}  // namespace torch::aot_inductor

// A list of capsules of tensors, which are taken, to one of results.
extern "C" PyObject* run(PyObject* inputs) {
  AtenTensorHandle in[%(inputs)d + 1], out[%(outputs)d + 1];
  for (Py_ssize_t i = 0; i < %(inputs)d; ++i)
    in[i] = static_cast<AtenTensorHandle>(PyCapsule_GetPointer(PyList_GET_ITEM(inputs, i), nullptr));
  std::string error;
  Py_BEGIN_ALLOW_THREADS
  try {
    torch::aot_inductor::Model().run_impl(in, out, nullptr, nullptr);
  } catch (const std::exception& raised) {
    error = raised.what();
    if (error.empty()) error = "the compiled code failed";
  }
  Py_END_ALLOW_THREADS
  if (!error.empty()) return PyErr_Format(PyExc_RuntimeError, "%%s", error.c_str());
  PyObject* results = PyList_New(%(outputs)d);
  for (Py_ssize_t i = 0; i < %(outputs)d; ++i) PyList_SET_ITEM(results, i, PyCapsule_New(out[i], nullptr, nullptr));
  return results;
}

// The same `count` times: each output but the last becomes the input of its place, and the last ones are one vector.
// The input `varying` has a row for each time.
extern "C" PyObject* repeat(PyObject* inputs, PyObject* places, long varying, long count) {
  using torch::aot_inductor::RAIIAtenTensorHandle;
  if (PyTuple_GET_SIZE(places) != %(outputs)d - 1)
    return PyErr_Format(PyExc_RuntimeError, "a place is needed for each output but the last");
  std::vector<RAIIAtenTensorHandle> held;
  for (Py_ssize_t i = 0; i < %(inputs)d; ++i)
    held.emplace_back(static_cast<AtenTensorHandle>(PyCapsule_GetPointer(PyList_GET_ITEM(inputs, i), nullptr)));
  long place[%(outputs)d];
  for (Py_ssize_t i = 0; i < %(outputs)d - 1; ++i) place[i] = PyLong_AsLong(PyTuple_GET_ITEM(places, i));
  RAIIAtenTensorHandle last;
  std::string error;
  Py_BEGIN_ALLOW_THREADS
  try {
    int64_t row = 0, one = 1, size = count;
    AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_size(held[varying], 1, &row));
    char* values = nullptr;
    size_t bytes = 0;
    for (long k = 0; k < count; ++k) {
      AtenTensorHandle in[%(inputs)d], out[%(outputs)d];
      for (long i = 0; i < %(inputs)d; ++i) {
        if (i == varying) {
          AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch__reinterpret_tensor(held[i], 1, &row, &one, k * row, &in[i]));
        } else {
          AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_new_tensor_handle(held[i], &in[i]));
        }
      }
      torch::aot_inductor::Model().run_impl(in, out, nullptr, nullptr);
      for (long i = 0; i < %(outputs)d - 1; ++i) held[place[i]] = RAIIAtenTensorHandle(out[i]);
      RAIIAtenTensorHandle value(out[%(outputs)d - 1]);
      if (k == 0) {
        int32_t dtype = 0;
        AtenTensorHandle made = nullptr;
        void* data = nullptr;
        AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(value, &dtype));
        bytes = dtype == aoti_torch_dtype_float64() ? sizeof(double) : sizeof(float);
        AOTI_TORCH_ERROR_CODE_CHECK(
            aoti_torch_empty_strided(1, &size, &one, dtype, aoti_torch_device_type_cpu(), 0, &made));
        last = RAIIAtenTensorHandle(made);
        AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_data_ptr(last, &data));
        values = static_cast<char*>(data);
      }
      std::memcpy(values + k * bytes, value.data_ptr(), bytes);
    }
  } catch (const std::exception& raised) {
    error = raised.what();
    if (error.empty()) error = "the compiled code failed";
  }
  Py_END_ALLOW_THREADS
  if (!error.empty()) return PyErr_Format(PyExc_RuntimeError, "%%s", error.c_str());
  PyObject* results = PyList_New(%(outputs)d);
  for (Py_ssize_t i = 0; i < %(outputs)d - 1; ++i)
    PyList_SET_ITEM(results, i, PyCapsule_New(held[place[i]].release(), nullptr, nullptr));
  PyList_SET_ITEM(results, %(outputs)d - 1, PyCapsule_New(last.release(), nullptr, nullptr));
  return results;
}
"""

FRAME = hashlib.sha256("".join([BEFORE, TANH, MODEL, AFTER]).encode()).hexdigest()
"""Names what stands around the code of a graph: libraries that an earlier version of it made are not used."""


class Library(NamedTuple):
    """What a library computes, on lists of tensors.

    Attributes:
        run: The graph once, from its inputs to its outputs.
        repeat: The graph so many times, see `repeat`.
    """

    run: Function
    repeat: Function


def repeat(run: Function, tensors: list[Tensor], places: Sequence[int], varying: int, count: int) -> list[Tensor]:
    """A graph again and again, each time on what it gave before; a library does this without Python between.

    Args:
        run: The graph, whose last output is a number.
        tensors: Its first inputs.
        places: Which input each output but the last is the next time.
        varying: The input that has a row for each time.
        count: How many times.

    Returns:
        The outputs of the last time, with a vector of all last outputs.
    """
    rows, numbers, tensors = tensors[varying], [], list(tensors)
    for row in rows[:count]:
        tensors[varying] = row
        *outputs, number = run(list(tensors))
        for place, output in zip(places, outputs, strict=True):
            tensors[place] = output
        numbers.append(number)
    return [*(tensors[place] for place in places), torch.stack(numbers)]


def build(step: fx.GraphModule, inputs: Sequence[Tensor], folder: Path) -> Path:
    """Compile a graph.

    Args:
        step: The graph.
        inputs: Tensors like those that it will get.
        folder: Where the library is made.

    Returns:
        The library.

    Raises:
        RuntimeError: The graph cannot be compiled, such as for an operation that torch has no C interface for.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own code warns of torch's own changes
        import torch._inductor
        from torch._inductor.codecache import AotCodeCompiler

        whole = AotCodeCompiler.compile

        def compiled(graph: Any, wrapper: str, kernels: str, *others: Any, device_type: str, **named: Any) -> Any:
            if device_type == "cpu":
                return str(_compile_calls(graph, wrapper, kernels, folder))
            return whole(graph, wrapper, kernels, *others, device_type=device_type, **named)

        with mock.patch.object(AotCodeCompiler, "compile", compiled):
            options = {"aot_inductor.output_path": str(folder / "whole.so")}
            return Path(str(torch._inductor.aot_compile(step, tuple(inputs), options=options)))


def load(library: Path, device: str) -> Library:
    """The functions of a library.

    Args:
        library: The library.
        device: Where it computes.

    Returns:
        The functions.

    Raises:
        RuntimeError: The file is damaged, or of another machine.
    """
    aoti: Any = torch._C._aoti
    if device == "cuda":
        whole: Function = aoti.AOTIModelContainerRunnerCuda(str(library), 1, device).run
        return Library(whole, partial(repeat, whole))
    try:
        opened_library = ctypes.PyDLL(str(library))
        once, often = opened_library.run, opened_library.repeat
    except (OSError, AttributeError) as error:
        raise RuntimeError(str(error)) from error
    once.argtypes, once.restype = [ctypes.py_object], ctypes.py_object
    often.argtypes, often.restype = [ctypes.py_object, ctypes.py_object, ctypes.c_long, ctypes.c_long], ctypes.py_object
    opened, closed = aoti.unsafe_alloc_void_ptrs_from_tensors, aoti.alloc_tensors_by_stealing_from_void_ptrs

    def run(tensors: list[Tensor]) -> list[Tensor]:
        results: list[Tensor] = closed(once(opened(tensors)))
        return results

    def repeated(tensors: list[Tensor], places: Sequence[int], varying: int, count: int) -> list[Tensor]:
        results: list[Tensor] = closed(often(opened(tensors), tuple(places), varying, count))
        return results

    return Library(run, repeated)


def _compile_calls(graph: Any, wrapper: str, kernels: str, folder: Path) -> Path:
    """Compile kernels and their calls, and nothing else."""
    from torch._inductor.cpp_builder import CppBuilder, CppTorchDeviceOptions
    from torch._inductor.cpu_vec_isa import pick_vec_isa

    counts = {"inputs": len(graph.graph_input_names), "outputs": len(graph.graph_outputs)}
    source = folder / "calls.cpp"
    source.write_text("\n".join([BEFORE, _with_fast_tanh(kernels), *_calls(wrapper), AFTER % counts]))
    options = CppTorchDeviceOptions(vec_isa=pick_vec_isa(), device_type="cpu", aot_mode=True)
    builder = CppBuilder(name=source.stem, sources=str(source), output_dir=str(folder), BuildOption=options)
    builder.build()
    return Path(builder.get_target_file_path())


def _with_fast_tanh(kernels: str) -> str:
    """The same kernels with TANH, which stands behind the header that declares vectors; as they are where none is."""
    header = re.search(r"#include .*cpp_prefix.h>\n", kernels)
    if header is None:
        return kernels
    calls = re.sub(r"(\w+)\.tanh\(\)", r"fast_tanh(\1)", kernels[header.end() :]).replace("std::tanh(", "fast_tanh(")
    return f"{kernels[: header.end()]}{TANH}{calls}"


def _calls(wrapper: str) -> list[str]:
    """Take what declares and calls the kernels out of a wrapper.

    Returns:
        Pieces of C++.

    Raises:
        RuntimeError: The calls use constants, or operations that torch has no C interface for.
    """
    _, after = wrapper.rsplit('} // extern "C"\n', 1)
    declarations, _ = after.split("namespace torch::aot_inductor {\n", 1)
    _, after = wrapper.split("void AOTInductorModel::run_impl(")
    function, _ = after.split("} // AOTInductorModel::run_impl")
    signature, body = function.split("{", 1)
    if "constants_" in body or "proxy_executor" in body:
        raise RuntimeError("it has an operation that torch offers to Python alone")
    body = "\n".join(line for line in body.splitlines() if "this->kernels_" not in line)
    return [declarations, MODEL, f"void run_impl({signature}{{{body}}}"]
