"""Matrix products of compiled code by OpenBLAS: those of torch, for every layout, and used where they should be."""

import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits
from torch import Tensor

from pde_train.training import library, products
from pde_train.training.compiling import trace
from pde_train.training.library import build, load

Pointers = tuple[int, int]


@pytest.fixture
def as_amd(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pointers]:
    """The products that a processor of AMD gets, whatever this one is."""
    if not any(found["internal_api"] == "openblas" for found in threadpool_info()):
        pytest.skip("numpy has no OpenBLAS here")
    monkeypatch.setattr(products, "_is_amd", lambda: True)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    products._openblas.cache_clear()
    with threadpool_limits(1, "blas"):  # as in every run
        yield products.faster_products()
    products._openblas.cache_clear()


def every_layout(a: Tensor, b: Tensor, bias: Tensor, batch: Tensor) -> tuple[Tensor, ...]:
    """Products of (20, 12) by (12, 16) and of their parts: as they are, transposed, broadcast, strided, tiny, added."""
    return (
        torch.mm(a, b),
        torch.mm(b.t(), a.t()),
        torch.mm(a.t().contiguous().t(), b),
        torch.mm(a[:, :8], b[:8]),  # whose rows are further apart than they are long
        torch.mm(a[:, ::2][:, :3], b[:3]),  # too thin for a call
        torch.addmm(bias, a, b),  # a row for all
        torch.addmm(torch.mm(a, b), a, b),
        torch.addmm(bias, a, b, beta=0.5, alpha=2.0),
        torch.bmm(batch, b.expand(3, 12, 16)),  # the same matrix for all
        torch.bmm(batch.transpose(1, 2), batch),
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_products_are_those_of_torch(as_amd: Pointers, tmp_path: Path, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = (20, 12), (12, 16), (16,), (3, 20, 12)
    tensors = [torch.randn(*shape, generator=generator, dtype=dtype) for shape in shapes]
    graph = trace(every_layout, tensors, []).step
    made = build(graph, tensors, tmp_path)
    calls = next(tmp_path.rglob("calls.cpp")).read_text().rpartition("void run_impl(")[2]
    assert {name for name in products.IN_PLACE_OF.values() if name in calls} == set(products.IN_PLACE_OF.values())
    assert not any(name in calls for name in products.IN_PLACE_OF)
    rounding = 20 * torch.finfo(dtype).eps
    for pointers in (as_amd, (0, 0)):
        run = with_products(made, pointers)
        for found, expected in zip(run(list(tensors)), every_layout(*tensors), strict=True):
            torch.testing.assert_close(found, expected, rtol=rounding, atol=rounding * 12)


def with_products(made: Path, pointers: Pointers) -> Callable[..., list[Tensor]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "faster_products", lambda: pointers)
        return load(made).run


def test_openblas_is_called_where_it_serves_and_torch_elsewhere(as_amd: Pointers, tmp_path: Path) -> None:
    """What is called in place of OpenBLAS leaves its result as it is, so what it was called for can be seen."""
    assert all(as_amd)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: 2)
        assert products.faster_products() == (0, 0)
    tensors = [torch.ones(20, 12, dtype=torch.float64), torch.ones(12, 16, dtype=torch.float64)]
    graph = trace(lambda a, b: (torch.addmm(torch.mm(a, b), a, b), torch.mm(a[:, :3], b[:3])), tensors, []).step
    made = build(graph, tensors, tmp_path)
    nothing = products._address(CALLS_NOTHING)
    whole, thin = with_products(made, (nothing, nothing))(list(tensors))
    assert torch.equal(thin, torch.full((20, 16), 3.0, dtype=torch.float64))
    assert not torch.equal(whole, torch.full((20, 16), 24.0, dtype=torch.float64))


CALLS_NOTHING = ctypes.CFUNCTYPE(None)(lambda: None)


def test_other_processors_and_builds_of_torch_keep_their_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    for owner, name in ((products, "_is_amd"), (torch.backends.mkl, "is_available")):
        with monkeypatch.context() as patch:
            patch.setattr(products, "_is_amd", lambda: True)
            patch.setattr(torch.backends.mkl, "is_available", lambda: True)
            patch.setattr(owner, name, lambda: False)
            products._openblas.cache_clear()
            assert products.faster_products() == (0, 0)
    monkeypatch.setattr(products, "_is_amd", lambda: True)
    monkeypatch.setattr(products, "threadpool_info", lambda: [{"internal_api": "mkl", "filepath": "nowhere"}])
    products._openblas.cache_clear()
    assert products.faster_products() == (0, 0)
    products._openblas.cache_clear()
