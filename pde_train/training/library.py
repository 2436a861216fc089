"""The shared library of one compiled graph, and its call from Python.

torch's AOTInductor writes two C++ sources for a graph: kernels, and a wrapper that calls them one after another inside
a container for weights, streams and several models. Of the container nothing is used here, and compiling it takes most
of the time. A library for the CPU has the kernels and their calls alone, compiled in one go. One for a GPU is whole.
"""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, fx

Function = Callable[..., Any]

BEFORE = r"""
#include <Python.h>
#include <string>
#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cpu.h>
#include <torch/csrc/inductor/aoti_runtime/utils.h>
"""

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
"""


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


def load(library: Path, device: str) -> Function:
    """A function that takes and returns lists of tensors, from its library.

    Args:
        library: The library.
        device: Where it computes.

    Returns:
        The function.

    Raises:
        RuntimeError: The file is damaged, or of another machine.
    """
    aoti: Any = torch._C._aoti
    if device == "cuda":
        whole: Function = aoti.AOTIModelContainerRunnerCuda(str(library), 1, device).run
        return whole
    try:
        function = ctypes.PyDLL(str(library)).run
    except (OSError, AttributeError) as error:
        raise RuntimeError(str(error)) from error
    function.argtypes, function.restype = [ctypes.py_object], ctypes.py_object
    opened, closed = aoti.unsafe_alloc_void_ptrs_from_tensors, aoti.alloc_tensors_by_stealing_from_void_ptrs

    def run(tensors: list[Tensor]) -> list[Tensor]:
        results: list[Tensor] = closed(function(opened(tensors)))
        return results

    return run


def _compile_calls(graph: Any, wrapper: str, kernels: str, folder: Path) -> Path:
    """Compile kernels and their calls, and nothing else."""
    from torch._inductor.cpp_builder import CppBuilder, CppTorchDeviceOptions
    from torch._inductor.cpu_vec_isa import pick_vec_isa

    counts = {"inputs": len(graph.graph_input_names), "outputs": len(graph.graph_outputs)}
    source = folder / "calls.cpp"
    source.write_text("\n".join([BEFORE, kernels, *_calls(wrapper), AFTER % counts]))
    options = CppTorchDeviceOptions(vec_isa=pick_vec_isa(), device_type="cpu", aot_mode=True)
    builder = CppBuilder(name=source.stem, sources=str(source), output_dir=str(folder), BuildOption=options)
    builder.build()
    return Path(builder.get_target_file_path())


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
