"""Python's door: compose and run experiments, load what they left, and take derivatives of any network.

    import pde_train as pt

    experiment = pt.compose("pde=burgers_1d", "model=two_layer", "model.width=50")
    run = experiment.run("my_run")
    run.history.plot(x="step", y="loss")
    run.predict([[0.0, 0.5]])

Words are those of the command line. `pde_train` itself imports nothing of this before it is used.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from subprocess import PIPE, Popen, TimeoutExpired
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from pde_train import experiment as root
from pde_train.conf_dir import choices, conf_dir
from pde_train.derivatives import Field, Jet, Request
from pde_train.differentiators.base import Differentiator
from pde_train.entropy import TruncatedEntropy as TruncatedEntropy  # these two belong to the names of `pde_train`
from pde_train.entropy import truncated_entropy as truncated_entropy
from pde_train.errors import RunError, UsageError, nearest
from pde_train.guards import check_trusted, refuse_secrets
from pde_train.instantiate import build_group
from pde_train.models.options import Options
from pde_train.problem import Problem
from pde_train.runs.earlier_run import Resume
from pde_train.runs.loaded import LoadedRun as LoadedRun
from pde_train.runs.loaded import as_points
from pde_train.runs.loaded import load_run as load_run
from pde_train.runs.run import Run
from pde_train.singular_values import Spectrum
from pde_train.spectra import singular_values
from pde_train.status import newest
from pde_train.sweeps.compose import group_choices, quoted
from pde_train.sweeps.workers import SAVE_SECONDS

if TYPE_CHECKING:
    import pandas as pd

COORDINATES = ("x", "y", "z", "t")
"""The names of coordinates where none are given: x; x, y; x, y, z; x, y, z, t; from five on x1, x2, ..."""

PATIENCE = 2 * SAVE_SECONDS
"""For how long a sweep may save and end after Ctrl-C, which its process hears, too, before it is told to."""

MOST_DENSE = 16_000_000
"""Entries of the largest residual Jacobian whose spectrum is taken densely, as `diagnostics.max_dense` has it."""


@dataclass(frozen=True)
class Experiment(root.Experiment):
    """An experiment from Python, see `pde_train.experiment.Experiment`.

    Attributes:
        choices: The choice of each configuration group.
        words: The overrides by which it was composed.
    """

    choices: Mapping[str, str] = field(default_factory=dict)
    words: Sequence[str] = ()

    def run(self, folder: str | Path, resume: bool = False) -> LoadedRun:
        """Train, as `python -m pde_train hydra.run.dir=<folder>` does, and load what was left.

        Args:
            folder: Of the run; an earlier run in it is overwritten, but for this one, interrupted.
            resume: Go on with what an interrupted run of this experiment left there instead.

        Returns:
            The run.

        Raises:
            PdeTrainError: What went wrong, as one sentence.
        """
        how = Resume.REQUIRED if resume or self.config["resume"] else Resume.NEVER
        figures = self.config["figures"] is not False
        with Run.open(Path(folder).absolute(), self.choices, self.words, how, figures=figures) as run:
            run.fit(replace(self, problem=copy.deepcopy(self.problem)))  # the next run begins as this one does
        return load_run(folder)


def compose(*words: str, config_dir: str | Path | None = None) -> Experiment:
    """Compose and build an experiment from overrides.

    Args:
        words: Overrides as on the command line, such as `pde=burgers_1d` and `model.width=50`.
        config_dir: A folder of your own configuration, as `--config-dir` takes it.

    Returns:
        The experiment, checked and ready to run.

    Raises:
        UsageError: A word is wrong, there is no such folder, or no run can use the configuration.
        HydraException: There is no such group, choice or key.

    Examples:
        >>> experiment = compose("pde=poisson_1d", "model=two_layer", "method.steps=100", "tracking=none")
        >>> experiment.choices["differentiator"], experiment.method.total_steps, experiment.precision
        ('taylor', 100, 'float64')
    """
    refuse_secrets(words)
    extra = []
    if config_dir is not None:
        own_folder = Path(config_dir).absolute()
        if not own_folder.is_dir():
            raise UsageError(f"config_dir={config_dir} is no folder: expected one with your own configuration")
        extra = [f"hydra.searchpath=[{quoted(f'file://{own_folder}')}]"]
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
        cfg = hydra_compose("config", [*extra, *words], return_hydra_config=True)
    check_trusted(cfg, words)
    runtime = {"runtime.cwd": str(Path.cwd()), "runtime.output_dir": str(Path.cwd()), "mode": "RUN"}
    for key, value in runtime.items():
        OmegaConf.update(cfg.hydra, key, value)
    HydraConfig.instance().set_config(cfg)  # ${hydra:...} in the name of the run and in the uri of the store
    own = cfg.copy()
    OmegaConf.set_struct(own, False)
    own.pop("hydra")
    OmegaConf.resolve(own)
    built = root.build(own)
    return Experiment(
        **{f.name: getattr(built, f.name) for f in fields(built)}, choices=group_choices(cfg), words=words
    )


def sweep(*words: str, folder: str | Path = "multirun") -> pd.DataFrame:
    """Run a sweep, as `python -m pde_train --multirun` does in a process of its own, and load its table.

    Args:
        words: Overrides with lists of choices, such as `seed=range(0,5)`.
        folder: Where the cells go; a sweep that was begun there goes on.

    Returns:
        The table of `load_sweep`.

    Raises:
        RunError: A cell of the sweep is not finished, or a word is wrong; the sentence is the command's.
        KeyboardInterrupt: Ctrl-C was pressed, and the sweep has saved and ended.
    """
    own = f"hydra.sweep.dir={quoted(Path(folder).absolute())}"
    command = [sys.executable, "-m", "pde_train", "--multirun", *words, own]
    process = Popen(command, stderr=PIPE, text=True)
    try:
        _, said = process.communicate()
    except KeyboardInterrupt:
        try:
            process.communicate(timeout=PATIENCE)
        except TimeoutExpired:  # it was this process alone that heard it
            process.terminate()
            process.communicate()
        raise
    if process.returncode:
        raise RunError(said.strip().splitlines()[-1] if said.strip() else "the sweep is not finished")
    return load_sweep(newest(Path(folder)))


def load_sweep(folder: str | Path) -> pd.DataFrame:
    """The table of a sweep: a row for each cell, with its choices, its metrics and its folder.

    Args:
        folder: Of the sweep, as the sweep's last lines name it.

    Returns:
        The table.

    Raises:
        RunError: The folder has no table.
    """
    import pandas as pd

    file = Path(folder) / "table.csv"
    if not file.exists():
        raise RunError(f"{file} does not exist: expected the folder of a sweep, such as multirun/sweep-1a2b3c4d")
    return pd.read_csv(file)


def model(words: str, dimension: int, unknowns: int = 1) -> nn.Module:
    """A model by the words of the command line, with the defaults of its YAML file.

    Args:
        words: A choice, and settings after it, such as `mlp hidden=[20,20] activation=sin`.
        dimension: The number of coordinates.
        unknowns: The number of unknowns.

    Returns:
        The model, in float64.

    Raises:
        UsageError: There is no such choice or setting, or the setting is one of `pde_train.models.options.Options`,
            which needs the domain of a PDE or a run.

    Examples:
        >>> u = model("mlp hidden=[8] activation=sin", dimension=2)
        >>> u(torch.zeros(3, 2, dtype=torch.float64)).shape
        torch.Size([3, 1])
    """
    cfg = _chosen("model", words)
    of_runs = {option.name for option in fields(Options)}
    for setting in words.split()[1:]:
        if setting.partition("=")[0] in of_runs:
            raise UsageError(
                f"model.{setting} is for the model of a run, and this one stands alone: expected those of its class, "
                f'or compose("model.{setting}", ...).problem.model'
            )
    more = {"outputs": unknowns} if unknowns > 1 else {}
    built: nn.Module = build_group(cfg, "model", dimension=dimension, **more)
    return built.double()


def differentiator(by: str | Differentiator) -> Differentiator:
    """A differentiator by the words of the command line.

    Args:
        by: A choice, and settings after it, such as `taylor` or `finite_difference accuracy=8 step=1e-2`; or a
            differentiator, which is returned as it is.

    Returns:
        The differentiator.

    Raises:
        UsageError: There is no such choice or setting.

    Examples:
        >>> by = differentiator("finite_difference accuracy=8 step=1e-2")
        >>> by.label, by.exact
        ('FD8 h=0.01', False)
    """
    if isinstance(by, Differentiator):
        return by
    built: Differentiator = build_group(_chosen("differentiator", by), "differentiator")
    return built


def _chosen(group: str, words: str) -> DictConfig:
    """The configuration of a choice and its settings."""
    name, *settings = words.split() or [""]
    if name not in (known := choices(group)):
        raise UsageError(f"{name} is no {group}: expected one of {', '.join(known)}{nearest(name, known)}")
    overrides = [f"{group}={name}", *(f"{group}.{setting}" for setting in settings)]
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
            return hydra_compose("config", ["name=api", "tracking=none", *overrides])
    except HydraException as error:
        raise UsageError(
            f"{words!r} is no {group} with its settings ({' '.join(str(error).split())}): expected a choice and "
            f"key=value, see python -m pde_train --help {group}"
        ) from error


def derivatives(
    u: Field, x: Any, names: str, by: str | Differentiator = "taylor", coordinates: Sequence[str] | None = None
) -> Jet:
    """Derivatives of a network, or of any row-wise function, at points.

    Args:
        u: The function, from points (n, d) to values (n, m); a `torch.nn.Module`, or any function of torch.
        x: The points (n, d), or (n,) in one dimension. A module gets them in the precision of its parameters.
        names: What is wanted, such as `u u_xx u_xy lap_u`.
        by: How derivatives are taken, see `differentiator`.
        coordinates: The names of the coordinates; by default COORDINATES.

    Returns:
        The columns (n, m) by name, as attributes: `derivatives(...).u_xx`.

    Raises:
        UsageError: The names, the points, the coordinates or the differentiator cannot be used.

    Examples:
        >>> jet = derivatives(lambda x: x[:, :1] ** 2 * x[:, 1:], [[1.0, 2.0]], "u_xy lap_u")
        >>> jet.u_xy.item(), jet.lap_u.item()
        (2.0, 4.0)
    """
    points = as_points(x)
    parameter = next(u.parameters(), None) if isinstance(u, nn.Module) else None
    points = points if parameter is None else points.to(parameter)
    named = tuple(coordinates or _coordinates(points.shape[1]))
    if not len(set(named)) == len(named) == points.shape[1]:
        raise UsageError(
            f"points of {points.shape[1]} coordinates were given with the names {', '.join(named)}: expected a name "
            "for each, and different ones"
        )
    chosen = differentiator(by)
    try:
        request = Request.parse(names, named)
    except ValueError as error:
        raise UsageError(str(error)) from error
    tuned = chosen.tuned_to(u, points, request.axes)
    return tuned(u, points, request)


def spectrum(of: Problem | LoadedRun | Experiment | Tensor) -> Spectrum:
    """The singular values of a matrix, or of the residual Jacobian of a problem at its training points.

    A differentiator with automatic settings, such as `step=optimal`, chooses them for the model as it is.

    Args:
        of: A matrix (n, p), a problem, or the experiment or the run that has it.

    Returns:
        The spectrum.

    Raises:
        UsageError: The tensor is no matrix, or the Jacobian has too many entries; train with `diagnostics=spectrum`
            then.

    Examples:
        >>> spectrum(torch.diag(torch.tensor([1.0, 3.0, 2.0]))).values.tolist()
        [3.0, 2.0, 1.0]
    """
    if isinstance(of, Tensor):
        if of.dim() != 2:
            raise UsageError(f"a tensor of the shape {tuple(of.shape)} is no matrix: expected the shape (n, p)")
        return Spectrum(singular_values(of))
    problem = copy.copy(of if isinstance(of, Problem) else of.problem)
    batch = problem.placed(problem.draw(np.random.default_rng(problem.sampler.seed)))
    problem.tune(problem.field, batch)
    jacobian = problem.jacobian(batch)
    rows, columns = jacobian.shape
    if rows * columns > MOST_DENSE:
        raise UsageError(
            f"a Jacobian of {rows} rows and {columns} columns has more than {MOST_DENSE} entries: expected fewer "
            "points or parameters, or a run with diagnostics=spectrum, which takes a randomised SVD"
        )
    return Spectrum(singular_values(jacobian.dense()))


def compare(
    u: Field, x: Any, names: str, by: Sequence[str] = ("reverse", "taylor", "finite_difference")
) -> pd.DataFrame:
    """Several ways of taking derivatives of one function at the same points.

    Args:
        u: The function, from points (n, d) to values (n, m).
        x: The points (n, d), or (n,) in one dimension.
        names: The derivatives that are compared.
        by: The ways; the first one is the reference.

    Returns:
        A row for each way, with its relative L2 distance from the reference in each derivative.

    Raises:
        UsageError: The names, the points or a differentiator cannot be used, or there is none.

    Examples:
        >>> table = compare(torch.sin, [0.1, 0.2], "u_xx", ["reverse", "finite_difference step=1e-2"])
        >>> [f"{distance:.1e}" for distance in table["u_xx"]]  # h^2 / 12 for this stencil
        ['0.0e+00', '8.3e-06']
    """
    import pandas as pd

    if not by:
        raise UsageError("there is no way of taking derivatives to compare: expected some, such as by=['taylor']")
    found = {way: derivatives(u, x, names, way) for way in by}
    exact = found[by[0]]
    rows = [
        {"by": way, **{name: _distance(getattr(jet, name), getattr(exact, name)) for name in names.split()}}
        for way, jet in found.items()
    ]
    return pd.DataFrame(rows)


def _distance(found: Tensor, exact: Tensor) -> float:
    size = float(torch.linalg.vector_norm(exact.detach())) or 1.0
    return float(torch.linalg.vector_norm((found - exact).detach())) / size


def _coordinates(dimension: int) -> tuple[str, ...]:
    if dimension <= len(COORDINATES):
        return COORDINATES[:dimension]
    return tuple(f"x{i + 1}" for i in range(dimension))
