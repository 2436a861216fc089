"""All ways of taking derivatives at the same point: the same parameters, the same training points."""

from __future__ import annotations

import copy
import logging
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, reduce
from operator import or_
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pde_train import linear_system
from pde_train.differentiators.base import Differentiator
from pde_train.differentiators.forward import Forward
from pde_train.differentiators.reverse import Reverse
from pde_train.differentiators.stochastic import Stochastic
from pde_train.differentiators.taylor import Taylor
from pde_train.errors import PdeTrainError, sentence
from pde_train.geometry import Batch
from pde_train.problem import Problem, fitted, steady_draws
from pde_train.progress import blocks
from pde_train.singular_values import Spectrum
from pde_train.spectra import singular_values
from pde_train.tracking.record import Measured

log = logging.getLogger(__name__)


def compare(
    problem: Problem,
    batch: Batch,
    differentiators: Mapping[str, Differentiator],
    max_dense: int,
    repeats: int,
    rows: str = "loss",
) -> dict[str, Measured]:
    """Measure every differentiator on the present parameters of the problem's model at the points of a batch.

    The oracle is Taylor mode in float64; for Taylor mode itself and what is made of it, or where it cannot serve the
    model, nested reverse mode, and then forward mode. A differentiator that cannot serve this problem is left out with
    a warning: a comparison ends no run. Those that draw directions draw the same ones each time.
    rows: scaling of the rows of the residual Jacobian whose spectrum is taken, see `Problem.jacobian`; `system` takes
    that of the assembled matrix of a linear problem.

    Returns:
        By name the spectrum, and these numbers:
        ``error/<name>``: |D u - D* u| / |D* u| of each derivative that the equations name, at the interior training
        points (for a model that is linear in its parameters: of all its features at once).
        ``residual``: the relative residual as this differentiator sees it.
        ``gradient_cosine``, ``gradient_ratio``, ``gradient_error``: of the gradient g of the loss, its cosine with the
        oracle's g*, |g| / |g*| and |g - g*| / |g*|.
        ``seconds``, ``memory``: of one loss and gradient, the median of several; the most bytes of tensors alive at
        once in it.
        A number is nan where the oracle's derivative, or its gradient, is 0.
    """
    oracle_by = cache(lambda exact: _oracle(problem, batch, exact))
    measured = {}
    for name, differentiator in differentiators.items():
        try:
            here = replace(problem, differentiator=fitted(differentiator, problem.pde, problem.sampler))
            oracle = _first_served(oracle_by, differentiator)
            with steady_draws():
                numbers = _measured(here, batch, oracle, repeats)
            measured[name] = Measured(numbers, _spectrum(here, batch, max_dense, rows))
        except Exception as error:  # a comparison ends no run
            log.warning("%s is left out of the comparison: %s", name, sentence(error))
    return measured


def _first_served(oracle_by: Callable[[Differentiator], _Exact], differentiator: Differentiator) -> _Exact:
    """The first exact way, of another kind than this one, that can serve the model."""
    kind = Taylor if isinstance(differentiator, Stochastic) else type(differentiator)
    *others, last = [exact for exact in (Taylor(), Reverse(), Forward()) if type(exact) is not kind]
    for exact in others:
        with suppress(PdeTrainError):
            return oracle_by(exact)
    return oracle_by(last)


@dataclass(frozen=True)
class _Exact:
    derivatives: dict[str, Tensor]
    gradient: Tensor


def _oracle(problem: Problem, batch: Batch, exact: Differentiator) -> _Exact:
    model = copy.deepcopy(problem.model).double()
    here = replace(problem, model=model, differentiator=exact, dtype=torch.float64)
    precise = {region: points.to(dtype=torch.float64, device=problem.device) for region, points in batch.items()}
    return _Exact(_derivatives(here, precise), _gradient(here, precise))


def _measured(problem: Problem, batch: Batch, oracle: _Exact, repeats: int) -> dict[str, float]:
    problem.tune(problem.field, batch)
    numbers = {
        f"error/{name}": _distance(column, oracle.derivatives[name])
        for name, column in _derivatives(problem, batch).items()
    }
    gradient = _gradient(problem, batch).double()
    lengths = torch.linalg.vector_norm(gradient), torch.linalg.vector_norm(oracle.gradient)
    numbers |= {
        "residual": problem.residual(batch),
        "gradient_cosine": float(gradient @ oracle.gradient / (lengths[0] * lengths[1])),
        "gradient_ratio": float(lengths[0] / lengths[1]),
        "gradient_error": float(torch.linalg.vector_norm(gradient - oracle.gradient) / lengths[1]),
    }
    with PeakMemory() as memory:
        _gradient(problem, batch)
    times = [_seconds(lambda: _gradient(problem, batch)) for _ in range(repeats)]
    numbers |= {"seconds": statistics.median(times), "memory": float(memory.peak)}
    return numbers


def _spectrum(problem: Problem, batch: Batch, max_dense: int, rows: str) -> Spectrum:
    with steady_draws():
        if rows == "system":
            with torch.no_grad():
                matrix, _ = linear_system.assemble(
                    problem.pde, problem.field, problem.differentiator, batch, blocks("assembling")
                )
            return Spectrum(singular_values(matrix))
        jacobian = problem.jacobian(batch, rows)
    return jacobian.spectrum(max_dense, wrap=blocks("Jacobian"))


def _derivatives(problem: Problem, batch: Batch) -> dict[str, Tensor]:
    """Every derivative that some equation names at the interior points: (n, 1), or (n, P) of all features."""
    request = reduce(or_, (request for _, request in problem.pde.regions.values()))
    with torch.no_grad():
        jet = problem.differentiator(problem.field, batch["interior"].x, request.of_field)
    columns = request.split(jet.columns, shared=problem.linear_form is not None)
    return {name: columns[name] for name in sorted(request.names - set(problem.pde.unknowns))}


def _gradient(problem: Problem, batch: Batch) -> Tensor:
    parameters = [p for p in problem.model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(problem.loss(batch), parameters, materialize_grads=True)
    return torch.cat([g.flatten() for g in gradients])


def _distance(actual: Tensor, exact: Tensor) -> float:
    return float(torch.linalg.vector_norm(actual.double() - exact) / torch.linalg.vector_norm(exact))


def _seconds(call: Callable[[], Tensor]) -> float:
    began = time.perf_counter()
    float(call()[0])  # waits for a GPU, too
    return time.perf_counter() - began


class PeakMemory(TorchDispatchMode):
    """The most bytes of tensors, made while it is on, that are alive at once: `peak`.

    Counted from storages, not from the process, so that it is the same each time and on every device.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch declares no types here
        self.peak = 0
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        fresh = func is torch.ops.aten.lift_fresh.default  # of torch.tensor: its argument was made just before, unseen
        given = () if fresh else tree_leaves((args, kwargs))
        older = {t.untyped_storage()._cdata for t in given if isinstance(t, Tensor)}
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in older or storage._cdata in self._alive:  # this one may have grown
                    self._alive[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self._alive = {key: held for key, held in self._alive.items() if not held[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._alive.values()))
        return result
