"""The composition root: the only place that turns a configuration into the objects of a run."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from pde_train import residuals, schema
from pde_train.diagnostics.audit import Audit
from pde_train.diagnostics.base import Diagnostics
from pde_train.differentiators.reverse import Reverse
from pde_train.entropy import Entropy
from pde_train.errors import UsageError
from pde_train.instantiate import build_group, build_options, fields, locate, plain
from pde_train.methods.base import Method
from pde_train.models.ansatz import behind_ansatz
from pde_train.models.base import linear_form, smoothness_of
from pde_train.models.numbers import WithNumbers
from pde_train.models.options import Options
from pde_train.models.separate import Separate
from pde_train.pdes.base import PDE
from pde_train.pdes.options import Options as PdeOptions
from pde_train.problem import Problem, fitted
from pde_train.tracking.base import Tracker
from pde_train.training.parameters import take_parameters
from pde_train.training.stop import Bounds
from pde_train.training.workers import limit_threads

PRECISIONS = {"float64": torch.float64, "float32": torch.float32}

FEW_POINTS = 16
"""Points of each region at which an ansatz is looked at."""

APART = 10**6
"""The distance between the seeds of separate networks, so that no run has a network of another run's seed."""

LEAST_LIMIT = 8
"""Threads, or processes, that every machine may be asked for, however few processors it has."""

SET_BY_SWEEPS = ("parent", "stack", "tasks", "bounds")
"""The keys of `sweep` that sweeps and launchers set: folders and files, which are no part of what is run."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Experiment:
    """Everything of one run, built and checked.

    Attributes:
        name: Shown by the tracking store.
        problem: What is solved, by which model, differentiator and points.
        method: Finds the parameters.
        diagnostics: Measure the model at some steps.
        entropy: Thresholds and normalisation of truncated entropies.
        audit: Measures after the run whether the equation is solved.
        tracker: Keeps the run in a store.
        config: The resolved configuration, without the uri of the store.
        parent: Folder of the sweep to which the run belongs, None for a run of its own.
    """

    name: str
    problem: Problem
    method: Method
    diagnostics: Diagnostics
    entropy: Entropy
    audit: Audit
    tracker: Tracker
    config: Mapping[str, Any]
    parent: Path | None = None

    @property
    def precision(self) -> str:
        """``float64`` or ``float32``."""
        return str(self.problem.dtype).removeprefix("torch.")


def build(cfg: DictConfig) -> Experiment:
    """Instantiate a composed configuration. Facts such as dimension, spacing and precision are supplied by code.

    Args:
        cfg: The configuration.

    Returns:
        The objects of a run, checked against each other.

    Raises:
        UsageError: No run can use it, see `pde_train.schema.check` and the constructors of the classes.
    """
    schema.check(cfg)
    dtype, device, processes = _place(cfg)
    torch.manual_seed(cfg.seed)  # of what models of users draw; fixed here, so that no earlier experiment matters
    pde = build_group(cfg, "pde")
    pde.check()
    conditions: PdeOptions = build_options(cfg, "pde")
    soft, pde = pde, conditions.of(pde)
    chosen = {name for name, weight in pde.weights.items() if weight != 1}
    if idle := chosen - {equation.name for equation in pde.equations()}:
        log.warning(
            "pde.weights of %s changes nothing: these conditions of the PDE have no such term in the loss",
            ", ".join(sorted(idle)),
        )
    sampler = build_group(cfg, "sampler")
    model = _model(cfg, pde, dtype, device)
    smoothness = smoothness_of(model)
    if pde.order > smoothness:
        raise UsageError(
            f"model.activation={cfg.model.get('activation')} has useful derivatives up to order {smoothness:g}, and "
            f"{type(pde).__name__} needs order {pde.order}: choose a smooth activation such as tanh, sin or gelu"
        )
    if pde.has_exact_conditions:
        _check_ansatz(Problem(soft, model, Reverse(), sampler), pde.learned)
    differentiator = fitted(build_group(cfg, "differentiator"), pde, sampler)
    taken = frozenset(axes for equation in pde.equations() for axes in equation.request.axes)
    for i, distance in sorted(differentiator.reach(taken).items()):
        if distance > pde.domain.lengths[i]:
            raise UsageError(
                f"{type(differentiator).__name__} evaluates u at a distance of {distance:g} along "
                f"{pde.coordinates[i]}, and the domain has a length of {pde.domain.lengths[i]:g} there: expected a "
                "smaller differentiator.step or radius"
            )
    method: Method = build_group(cfg, "method")
    if cfg.sweep.bounds is not None:
        method = method.bounded(Bounds.read(Path(cfg.sweep.bounds)))
    diagnostics = build_group(cfg, "diagnostics")
    diagnostics.check_steps(method.total_steps)
    if processes > 1 and not method.shares_points:
        raise UsageError(
            f"{type(method).__name__} works in one process, and accelerator.processes={processes} were asked for: "
            "expected one, choose accelerator=cpu or gpu, or method=gradient_descent"
        )
    return Experiment(
        name=str(cfg.name),
        problem=Problem(
            pde,
            model,
            differentiator,
            sampler,
            dtype,
            device,
            processes,
            Path(cfg.sweep.tasks) if cfg.sweep.tasks else None,
        ),
        method=method,
        diagnostics=diagnostics,
        entropy=build_group(cfg, "entropy"),
        audit=build_group(cfg, "audit") if cfg.audit is not None else Audit(None),
        tracker=build_group(cfg, "tracking"),
        config=_public(plain(cfg)),
        parent=None if cfg.sweep.parent is None else Path(cfg.sweep.parent),
    )


def _model(cfg: DictConfig, pde: PDE, dtype: torch.dtype, device: str) -> nn.Module:
    """The model with its options, and with the parameters from which it is to start."""
    options: Options = build_options(cfg, "model")
    inputs = options.inputs(pde.domain, pde.coordinates)
    dimension = pde.domain.dimension if inputs is None else inputs.width
    inner = _inner_model(cfg, dimension, len(pde.unknowns), options.separate)
    model = options.around(inner, inputs).to(device=device, dtype=dtype)
    if pde.has_exact_conditions:
        some = pde.domain.place(np.random.default_rng(0).random((FEW_POINTS, pde.domain.dimension)))
        model = behind_ansatz(model, pde.ansatz_at, torch.as_tensor(some, dtype=dtype, device=device))
    if pde.learned:
        model = WithNumbers(model, pde.starts_and_bounds).to(device=device, dtype=dtype)
    if options.start is not None:
        take_parameters(model, options.start, device, "model.start")
    return model


def _inner_model(cfg: DictConfig, dimension: int, unknowns: int, separate: bool) -> nn.Module:
    """The model of the configuration: with an output for each unknown, or once for each of them."""
    takes = fields(locate(cfg.model["_target_"], tuple(cfg.trusted_modules), "model"), "model")
    if separate and unknowns == 1:
        log.warning("model.separate=true changes nothing: the PDE has one unknown, and so one network")
    if not separate or unknowns == 1:
        outputs = {"outputs": unknowns} if unknowns > 1 and "outputs" in takes else {}
        return cast(nn.Module, build_group(cfg, "model", dimension=dimension, **outputs))
    seeds = [{"seed": cfg.model.seed + i * APART} for i in range(unknowns)] if "seed" in takes else [{}] * unknowns
    models = [build_group(cfg, "model", dimension=dimension, **seed) for seed in seeds]
    if linear_form(models[0]) is not None:
        raise UsageError(
            f"model.separate=true is for networks, and all unknowns share the features of {type(models[0]).__name__}: "
            "expected false, choose it"
        )
    return Separate(models)


def _check_ansatz(soft: Problem, learned: Collection[str]) -> None:
    """Refuse an ansatz that does not fulfil what it says, seen at some points, or that holds what is to be learnt."""
    pde = soft.pde
    few = {}
    for region, points in soft.draw(np.random.default_rng(0)).items():
        few[region] = points.some(FEW_POINTS)

    def u(x: Tensor) -> Tensor:
        shifts = torch.arange(1, len(pde.unknowns) + 1, dtype=x.dtype)
        return pde.ansatz_at(x, torch.sin(x.sum(1, keepdim=True) + shifts))

    for name, values in residuals.evaluate(pde, u, soft.differentiator, few).items():
        largest = float(values.detach().abs().max())
        if name in pde.fulfilled and not largest < 1e-8:
            raise UsageError(
                f"the ansatz of {type(pde).__name__} is said to fulfil {name!r}, and misses it by {largest:.1e}: "
                "correct its formula or the names in @fulfils, or choose pde.conditions=soft"
            )
    interior = few["interior"].x
    raw = interior.new_ones(len(interior), len(pde.unknowns))
    for name in learned:
        value = float(getattr(pde, name))
        other = pde.with_numbers({name: interior.new_tensor(1.1 * value + 0.1)})
        if not torch.equal(*(own.ansatz_at(interior, raw) for own in (pde, other))):
            raise UsageError(
                f"the ansatz of {type(pde).__name__} holds {name}={value:g}, and pde.learn.{name} is to find it: "
                "expected conditions that leave it open, choose pde.conditions=soft"
            )


def _place(cfg: DictConfig) -> tuple[torch.dtype, str, int]:
    """Precision, device and number of processes."""
    at = cfg.accelerator
    precision, accelerator, threads, processes = at.precision, at.accelerator, at.threads, at.get("processes", 1)
    if accelerator == "gpu" and not torch.cuda.is_available():
        raise UsageError("accelerator=gpu was asked for and torch sees no GPU: expected one, choose accelerator=cpu")
    here = 1 if cfg.sweep.tasks else processes
    for name, number in (("threads", threads), ("processes", here)):
        if number > max(LEAST_LIMIT, os.cpu_count() or 1):
            raise UsageError(
                f"accelerator.{name}={number} is more than this machine has processors, {os.cpu_count()}: expected at "
                "most as many, choose fewer"
            )
    if accelerator == "gpu" and here > torch.cuda.device_count():
        raise UsageError(
            f"accelerator.processes={processes} needs a GPU each, and torch sees {torch.cuda.device_count()}: expected "
            "at most as many, choose fewer"
        )
    if precision == "float32" and (products := torch.get_float32_matmul_precision()) != "highest":
        raise UsageError(
            f"accelerator.precision=float32 with torch.set_float32_matmul_precision({products!r}) would round products "
            "to TF32 or bfloat16, which have 10 or 7 bits: expected 'highest', set that and unset "
            "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"
        )
    if accelerator == "gpu":
        one = torch.ones(1, device="cuda", requires_grad=True)
        one.sum().backward()  # autograd's thread meets the GPU here: its first product would warn that it has not
    limit_threads(threads)
    return PRECISIONS[precision], "cuda" if accelerator == "gpu" else "cpu", processes


def _public(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration without the tracking uri, which may hide a password, and without folders of a sweep."""
    tracking = {k: v for k, v in config["tracking"].items() if k != "uri"}
    sweep = {k: v for k, v in config["sweep"].items() if k not in SET_BY_SWEEPS}
    return {**config, "tracking": tracking, "sweep": sweep}
