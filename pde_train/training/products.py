"""Matrix products of compiled code by the BLAS of numpy, where that is faster than torch's.

torch multiplies by MKL, which takes a third longer than OpenBLAS on processors of AMD: 256 x 64 by 64 x 64 doubles at
33 instead of 42 GFLOP/s, and such products are three quarters of the step of a network with layers of 64. Which of the
two is used depends on the processor and the number of threads, and not on a measurement, so that a resumed run computes
the same bits.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import torch
from threadpoolctl import threadpool_info

NAMES = ("scipy_cblas_{}64_", "cblas_{}64_")
"""Of the functions with 64-bit integers in builds of OpenBLAS."""

PRODUCTS = r"""
// C = A B + beta C in row-major order: op(A) (m, k), op(B) (k, n).
template <typename T>
using Gemm = void (*)(
    int, int, int, int64_t, int64_t, int64_t, T, const T*, int64_t, const T*, int64_t, T, T*, int64_t);
Gemm<double> dgemm = nullptr;  // null: torch's own products
Gemm<float> sgemm = nullptr;
constexpr int64_t LEAST = 8;  // rows and columns of a matrix below which a call costs more than it saves

struct Matrix {  // a tensor of two dimensions, or one of a batch
  int64_t rows, columns, row, column;  // sizes and strides
  char* data;
  bool plain() const { return column == 1 && row >= std::max<int64_t>(1, columns); }
  bool transposed() const { return row == 1 && column >= std::max<int64_t>(1, rows); }
};

struct View {
  int64_t dim = 0, *sizes = nullptr, *strides = nullptr;
  int32_t dtype = 0;
  void* data = nullptr;
  explicit View(AtenTensorHandle tensor) {
    AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dim(tensor, &dim));
    AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_sizes(tensor, &sizes));
    AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_strides(tensor, &strides));
    AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(tensor, &dtype));
    AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_data_ptr(tensor, &data));
  }
  Matrix at(int64_t i, int64_t bytes) const {  // the i-th of a batch
    char* start = static_cast<char*>(data) + (dim == 3 ? i * strides[0] * bytes : 0);
    return {sizes[dim - 2], sizes[dim - 1], strides[dim - 2], strides[dim - 1], start};
  }
};

bool serves(const View& out, const View& a, const View& b) {
  if (out.dtype != a.dtype || out.dtype != b.dtype) return false;
  const bool doubles = dgemm && out.dtype == aoti_torch_dtype_float64();
  if (!doubles && !(sgemm && out.dtype == aoti_torch_dtype_float32())) return false;
  const Matrix A = a.at(0, 1), B = b.at(0, 1), C = out.at(0, 1);
  if (std::min({A.rows, A.columns, B.columns}) < LEAST || !C.plain()) return false;
  return (A.plain() || A.transposed()) && (B.plain() || B.transposed());
}

template <typename T>
void multiply(Gemm<T> gemm, const View& out, const View& a, const View& b, T beta) {
  const int64_t batch = out.dim == 3 ? out.sizes[0] : 1;
  for (int64_t i = 0; i < batch; ++i) {
    const Matrix A = a.at(i, sizeof(T)), B = b.at(i, sizeof(T)), C = out.at(i, sizeof(T));
    gemm(101, A.plain() ? 111 : 112, B.plain() ? 111 : 112, C.rows, C.columns, A.columns, T(1),
         reinterpret_cast<T*>(A.data), A.plain() ? A.row : A.column, reinterpret_cast<T*>(B.data),
         B.plain() ? B.row : B.column, beta, reinterpret_cast<T*>(C.data), C.row);
  }
}

void multiply(const View& out, const View& a, const View& b, int beta) {
  if (out.dtype == aoti_torch_dtype_float64()) {
    multiply<double>(dgemm, out, a, b, beta);
  } else {
    multiply<float>(sgemm, out, a, b, beta);
  }
}

template <typename T>
void fill(const View& out, const View& value) {  // a row, a matrix, or what is broadcast to one
  auto stride = [&](int64_t from_last) {
    const int64_t i = value.dim - 1 - from_last;
    return i < 0 || value.sizes[i] == 1 ? 0 : value.strides[i];
  };
  const T* from = static_cast<const T*>(value.data);
  T* to = static_cast<T*>(out.data);
  for (int64_t i = 0; i < out.sizes[0]; ++i)
    for (int64_t j = 0; j < out.sizes[1]; ++j) to[i * out.strides[0] + j] = from[i * stride(1) + j * stride(0)];
}

AOTITorchError product_mm(AtenTensorHandle out, AtenTensorHandle a, AtenTensorHandle b) {
  const View C(out), A(a), B(b);
  if (!serves(C, A, B)) return aoti_torch_cpu_mm_out(out, a, b);
  multiply(C, A, B, 0);
  return AOTI_TORCH_SUCCESS;
}

AOTITorchError product_bmm(AtenTensorHandle out, AtenTensorHandle a, AtenTensorHandle b) {
  const View C(out), A(a), B(b);
  if (!serves(C, A, B)) return aoti_torch_cpu_bmm_out(out, a, b);
  multiply(C, A, B, 0);
  return AOTI_TORCH_SUCCESS;
}

AOTITorchError product_addmm(
    AtenTensorHandle out, AtenTensorHandle self, AtenTensorHandle a, AtenTensorHandle b, double beta, double alpha) {
  const View C(out), S(self), A(a), B(b);
  if (alpha != 1 || beta != 1 || C.dtype != S.dtype || !serves(C, A, B))
    return aoti_torch_cpu_addmm_out(out, self, a, b, beta, alpha);
  if (C.data != S.data) {
    if (C.dtype == aoti_torch_dtype_float64()) {
      fill<double>(C, S);
    } else {
      fill<float>(C, S);
    }
  }
  multiply(C, A, B, 1);
  return AOTI_TORCH_SUCCESS;
}
"""
"""C++ that compiled code calls in place of torch's functions, which serve where these do not."""

IN_PLACE_OF = {f"aoti_torch_cpu_{name}_out(": f"product_{name}(" for name in ("mm", "bmm", "addmm")}
"""What stands in the calls that torch has written."""

USE_BLAS = r"""
// The products of doubles and of floats that are used from now on.
extern "C" void use_blas(void* doubles, void* floats) {
  torch::aot_inductor::dgemm = reinterpret_cast<torch::aot_inductor::Gemm<double>>(doubles);
  torch::aot_inductor::sgemm = reinterpret_cast<torch::aot_inductor::Gemm<float>>(floats);
}
"""


def faster_products() -> tuple[int, int]:
    """The products of doubles and of floats for compiled code on this machine.

    OpenBLAS serves where both work with one thread: two pools of threads would compete for the processors.

    Returns:
        The addresses of OpenBLAS's functions; zeros where torch's own are to be used.
    """
    of_openblas = (found["num_threads"] for found in threadpool_info() if found["internal_api"] == "openblas")
    return (0, 0) if max(torch.get_num_threads(), *of_openblas, 1) > 1 else _openblas()


@cache
def _openblas() -> tuple[int, int]:
    if not (torch.backends.mkl.is_available() and _is_amd()):
        return 0, 0
    for found in threadpool_info():
        if found["internal_api"] == "openblas":
            library = ctypes.CDLL(found["filepath"])
            for name in NAMES:
                try:
                    doubles, floats = (getattr(library, name.format(kind)) for kind in ("dgemm", "sgemm"))
                except AttributeError:  # a build that names them otherwise
                    continue
                return _address(doubles), _address(floats)
    return 0, 0


def _address(function: object) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0  # type: ignore[arg-type]  # of any function


def _is_amd() -> bool:
    """Whether the processor is one of AMD, where MKL does not use all of its instructions."""
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
