"""The shared library of one compiled graph, and its call from Python.

torch's AOTInductor writes two C++ sources for a graph: kernels, and a wrapper that calls them one after another inside
a container for weights, streams and several models. Of the container nothing is used here, and compiling it takes most
of the time. A library has the kernels and their calls alone, compiled in one go.
"""

from __future__ import annotations

import ctypes
import hashlib
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor, fx

from pde_train.training.compiler import HEADERS, compile_source
from pde_train.training.decompositions import SUM, TANH, with_fast_functions
from pde_train.training.kept_arrays import KEPT, with_kept_arrays
from pde_train.training.products import IN_PLACE_OF, PRODUCTS, USE_BLAS, faster_products

Function = Callable[..., Any]

MODEL = r"""
namespace torch::aot_inductor {
namespace {  // of this library alone: otherwise libraries of one process would share the arrays of their first one
using DeviceStreamType = void*;
constexpr bool _check_aoti_runtime_check_inputs_env() { return false; }
template <typename... Any> void assert_size_stride(Any&&...) {}
template <typename... Any> void __check_inputs_outputs(Any&&...) {}
"""

STRUCT = r"""
struct Model {
  int32_t device_idx_ = 0;
"""

AFTER = r"""
};
}  // namespace
}  // namespace torch::aot_inductor

// Capsules of the results that a body writes to `out` without Python's lock, or its error.
template <typename Body>
static PyObject* computed(Body body, AtenTensorHandle* out) {
  std::string error;
  Py_BEGIN_ALLOW_THREADS
  try {
    body();
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

static AtenTensorHandle input(PyObject* inputs, Py_ssize_t i) {
  return static_cast<AtenTensorHandle>(PyCapsule_GetPointer(PyList_GET_ITEM(inputs, i), nullptr));
}

// A list of capsules of tensors, which are taken, to one of results.
extern "C" PyObject* run(PyObject* inputs) {
  AtenTensorHandle in[%(inputs)d + 1], out[%(outputs)d + 1];
  for (Py_ssize_t i = 0; i < %(inputs)d; ++i) in[i] = input(inputs, i);
  return computed([&] { torch::aot_inductor::Model().run_impl(in, out, nullptr, nullptr); }, out);
}

// The same `count` times: each output but the last becomes the input of its place, and the last ones are one vector.
// The input `varying` has a row for each time.
extern "C" PyObject* repeat(PyObject* inputs, PyObject* places, long varying, long count) {
  using torch::aot_inductor::RAIIAtenTensorHandle;
  if (PyTuple_GET_SIZE(places) != %(outputs)d - 1)
    return PyErr_Format(PyExc_RuntimeError, "a place is needed for each output but the last");
  std::vector<RAIIAtenTensorHandle> held;
  for (Py_ssize_t i = 0; i < %(inputs)d; ++i) held.emplace_back(input(inputs, i));
  long place[%(outputs)d];
  for (Py_ssize_t i = 0; i < %(outputs)d - 1; ++i) place[i] = PyLong_AsLong(PyTuple_GET_ITEM(places, i));
  AtenTensorHandle out[%(outputs)d];
  return computed([&] {
    int64_t row = 0, one = 1, size = count;
    AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_size(held[varying], 1, &row));
    RAIIAtenTensorHandle last;
    char* values = nullptr;
    size_t bytes = 0;
    for (long k = 0; k < count; ++k) {
      AtenTensorHandle in[%(inputs)d];
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
        AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(value, &dtype));
        bytes = dtype == aoti_torch_dtype_float64() ? sizeof(double) : sizeof(float);
        AOTI_TORCH_ERROR_CODE_CHECK(
            aoti_torch_empty_strided(1, &size, &one, dtype, aoti_torch_device_type_cpu(), 0, &made));
        last = RAIIAtenTensorHandle(made);
        values = static_cast<char*>(last.data_ptr());
      }
      std::memcpy(values + k * bytes, value.data_ptr(), bytes);
    }
    for (long i = 0; i < %(outputs)d - 1; ++i) out[i] = held[place[i]].release();
    out[%(outputs)d - 1] = last.release();
  }, out);
}
"""

TEXT = [HEADERS, TANH, SUM, MODEL, PRODUCTS, KEPT, STRUCT, AFTER, USE_BLAS]
FRAME = hashlib.sha256("".join([*TEXT, "2"]).encode()).hexdigest()
"""Names what stands around the code of a graph, and a version: libraries that an earlier one made are not used."""


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

        def compiled(graph: Any, wrapper: str, kernels: str, *_: Any, **__: Any) -> Any:
            counts = {"inputs": len(graph.graph_input_names), "outputs": len(graph.graph_outputs)}
            parts = [HEADERS, TANH, SUM, with_fast_functions(kernels), *_calls(wrapper), AFTER % counts, USE_BLAS]
            return str(compile_source("\n".join(parts), folder))

        with mock.patch.object(AotCodeCompiler, "compile", compiled):
            # the vector instructions that torch found for itself, and compiles a program to try, are taken on trust
            options = {"aot_inductor.output_path": str(folder / "whole.so"), "cpp.vec_isa_ok": True}
            return Path(str(torch._inductor.aot_compile(step, tuple(inputs), options=options)))


def load(library: Path) -> Library:
    """The functions of a library.

    Args:
        library: The library.

    Returns:
        The functions.

    Raises:
        RuntimeError: The file is damaged, or of another machine.
    """
    aoti: Any = torch._C._aoti
    try:
        opened_library = ctypes.PyDLL(str(library))
        once, often, use_blas = opened_library.run, opened_library.repeat, opened_library.use_blas
    except (OSError, AttributeError) as error:
        raise RuntimeError(str(error)) from error
    once.argtypes, once.restype = [ctypes.py_object], ctypes.py_object
    often.argtypes, often.restype = [ctypes.py_object, ctypes.py_object, ctypes.c_long, ctypes.c_long], ctypes.py_object
    use_blas.argtypes, use_blas.restype = [ctypes.c_void_p, ctypes.c_void_p], None
    use_blas(*faster_products())
    opened, closed = aoti.unsafe_alloc_void_ptrs_from_tensors, aoti.alloc_tensors_by_stealing_from_void_ptrs

    def run(tensors: list[Tensor]) -> list[Tensor]:
        results: list[Tensor] = closed(once(opened(tensors)))
        return results

    def repeated(tensors: list[Tensor], places: Sequence[int], varying: int, count: int) -> list[Tensor]:
        results: list[Tensor] = closed(often(opened(tensors), tuple(places), varying, count))
        return results

    return Library(run, repeated)


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
    for theirs, ours in IN_PLACE_OF.items():
        body = body.replace(theirs, ours)
    body, count = with_kept_arrays(body)
    return [declarations, MODEL, PRODUCTS, KEPT % {"kept": count}, STRUCT, f"void run_impl({signature}{{{body}}}"]
