"""Arrays of compiled code that stay from call to call, in place of those that every call allocates."""

from __future__ import annotations

import re

KEPT = r"""
// An array that no result is, which stays for the next call on the same thread: allocating it takes as long as filling
// it in small networks, and one of 128 kB or more would go back to the system and come as pages of zeros. Larger ones
// than LARGEST_KEPT would only keep memory, as filling them takes far longer.
constexpr int64_t LARGEST_KEPT = 1 << 20;  // bytes
thread_local RAIIAtenTensorHandle kept[%(kept)d + 1];
AOTITorchError kept_empty_strided(int place, int64_t dim, const int64_t* sizes, const int64_t* strides, int32_t dtype,
                                  int32_t device, int32_t index, AtenTensorHandle* out) {
  if (kept[place].get() != nullptr) return aoti_torch_new_tensor_handle(kept[place], out);
  AOTITorchError failed = aoti_torch_empty_strided(dim, sizes, strides, dtype, device, index, out);
  int64_t count = 0;
  if (failed || aoti_torch_get_storage_size(*out, &count) || count > LARGEST_KEPT) return failed;
  AtenTensorHandle another = nullptr;
  failed = aoti_torch_new_tensor_handle(*out, &another);
  if (!failed) kept[place] = RAIIAtenTensorHandle(another);
  return failed;
}
"""


def with_kept_arrays(body: str) -> tuple[str, int]:
    """The calls of kernels with KEPT in place of allocations, but for arrays that are results or that results view.

    Args:
        body: Of `run_impl`.

    Returns:
        The same with other allocations, and how many.
    """
    name = r"\b[A-Za-z_]\w*\b"
    # each name, and what it is or may be a view of
    declared = rf"\b(?:auto|RAIIAtenTensorHandle) (?P<name>{name})(?: = |\()(?P<of>.*)"
    called = r"\baoti_torch_(?!empty_strided)\w+\((?P<arguments>.*), &(?P<result>\w+)_handle\)"
    lines = re.finditer(f"{declared}|{called}", body)
    made = [(line["name"] or line["result"], line["of"] or line["arguments"]) for line in lines]
    results = set(re.findall(name, " ".join(re.findall(r"output_handles\[.*", body))))
    for one, of in reversed(made):  # what results are made of stands before them
        if one in results:
            results |= set(re.findall(name, of.replace("_handle", "")))
    count = 0

    def kept(allocation: re.Match[str]) -> str:
        nonlocal count
        if allocation[2] in results:
            return allocation[0]
        count += 1
        return f"kept_empty_strided({count - 1}, {allocation[1]}, &{allocation[2]}_handle)"

    return re.sub(r"aoti_torch_empty_strided\((.*), &(buf\d+)_handle\)", kept, body), count
