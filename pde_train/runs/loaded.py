"""A run that has ended, loaded from what it left: its history, its spectra, its model."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import yaml
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from pde_train.errors import RunError, UsageError
from pde_train.experiment import SET_BY_SWEEPS, Experiment, build
from pde_train.geometry import Domain
from pde_train.problem import Problem
from pde_train.run_folder import SPECTRA
from pde_train.runs import artifacts, figures
from pde_train.runs.result import Result
from pde_train.singular_values import Spectrum, load_spectra
from pde_train.tracking.reading import downloaded
from pde_train.tracking.record import Record
from pde_train.training.parameters import MODEL, take_parameters

if TYPE_CHECKING:
    import pandas as pd

POINTS_A_SIDE = {2: 101, 3: 41}
"""Points of a mesh along each coordinate, by the number of coordinates."""


@dataclass(frozen=True, repr=False)
class LoadedRun:
    """What a run has left.

    Attributes:
        folder: Its folder.
        config: Its configuration.
        result: How it ended, with the last value of every metric.
    """

    folder: Path
    config: DictConfig
    result: Result

    def __repr__(self) -> str:
        chosen = ", ".join(self.result.choices.get(group, "") for group in ("pde", "model", "differentiator"))
        error = self.result.metrics.get("error_l2")
        ended = str(self.result.status) if error is None else f"error_l2={error:.3g}"
        return f"LoadedRun({str(self.folder)!r}: {chosen}, {ended})"

    @cached_property
    def experiment(self) -> Experiment:
        """What was run, whose model has the parameters with which the run ended; it delivers to no store."""
        cfg = self.config.copy()
        cfg.tracking = {"_target_": "pde_train.tracking.none.NoTracker"}
        cfg.sweep.update(dict.fromkeys(SET_BY_SWEEPS))
        cfg.name, cfg.figures = "loaded", False  # runs of earlier versions have no key `figures`
        cfg.accelerator.accelerator = "cpu"
        if cfg.model.get("start"):  # of a run that may not be there any more; what came of it is in model.pt
            cfg.model.start = None
        experiment = build(cfg)
        take_parameters(experiment.problem.model, str(self.folder / MODEL), "cpu", "folder")
        return experiment

    @property
    def problem(self) -> Problem:
        """The problem, whose model is the trained one."""
        return self.experiment.problem

    @property
    def model(self) -> nn.Module:
        """The trained model, from points (n, d) to values (n, k) of the k unknowns and the numbers that are learnt."""
        return self.problem.model

    @cached_property
    def history(self) -> pd.DataFrame:
        """Every metric at every step at which it was measured: a column `step`, and one for each metric."""
        wide = self._measured.pivot_table(index="step", columns="metric", values="value")
        return wide.reset_index().rename_axis(columns=None)

    @property
    def _measured(self) -> pd.DataFrame:
        """A row for each metric and step."""
        import pandas as pd

        return pd.read_csv(self.folder / "history.csv")

    def spectrum(self, step: int | None = None) -> Spectrum:
        """The singular values at a step.

        Args:
            step: The step, one of those at which `diagnostics.when` measured; None for the last of them.

        Returns:
            The spectrum.

        Raises:
            UsageError: The run has none, or none at that step.
        """
        found = load_spectra(self.folder / SPECTRA)
        if not found or (step is not None and step not in found):
            raise UsageError(
                f"{self.folder} has singular values at the steps {', '.join(map(str, found)) or 'none'}: expected "
                f"{step}, or a run with diagnostics=spectrum"
            )
        return found[max(found) if step is None else step]

    def draw(self) -> Path:
        """Draw the figures that every run has which was trained alone: cells of `hydra/launcher=stacked` have none.

        Returns:
            Their folder, in that of the run.
        """
        record = Record(self.experiment.tracker, self.experiment.entropy)
        record.spectra.update(load_spectra(self.folder / SPECTRA))
        for metric, rows in self._measured.groupby("metric"):
            record.series[str(metric)] = dict(zip(rows["step"], rows["value"], strict=True))
        drawn = artifacts.draw(self.problem, record, self.experiment.entropy)
        if self.result.comparison:
            numbers = {
                name: {key: np.nan if value is None else value for key, value in own.items()}
                for name, own in self.result.comparison.items()
            }
            drawn["comparison"] = figures.comparison(numbers)
        heading = artifacts.heading_of(self.problem, self.result.choices, self.config.seed)
        return artifacts.save_figures(self.folder, drawn, heading)

    def predict(self, x: Any) -> pd.DataFrame:
        """The solution at points.

        Args:
            x: The points (n, d), or (n,) in one dimension: an array, a tensor or nested lists.

        Returns:
            A column for each coordinate and for each unknown; those of a model with several columns for one unknown are
            `u.0`, `u.1`, ...

        Raises:
            UsageError: The points have another number of coordinates.
        """
        import pandas as pd

        pde, points = self.problem.pde, as_points(x).to(self.problem.dtype)
        if points.shape[1] != len(pde.coordinates):
            raise UsageError(
                f"points of {points.shape[1]} coordinates were given, and this PDE has "
                f"{', '.join(pde.coordinates)}: expected an array (n, {len(pde.coordinates)})"
            )
        with torch.no_grad():
            values = self.model(points)
        unknowns = pde.names_of_columns(values.shape[1] - len(pde.learned))
        table = torch.cat([points, values[:, : len(unknowns)]], dim=1).numpy()
        return pd.DataFrame(table, columns=[*pde.coordinates, *unknowns])

    def to_vtk(self, file: str | Path, points_a_side: int | None = None) -> Path:
        """Write the solution on a mesh, which ParaView and PyVista read.

        Args:
            file: The file; its ending is a format of meshio, such as `.vtu` or `.vtk`.
            points_a_side: Points along each coordinate of the box around the domain; by default POINTS_A_SIDE.

        Returns:
            The file. It has the field of each unknown; where the solution is known, `exact_<unknown>` and
            `error_<unknown>`, too.

        Raises:
            UsageError: meshio is not installed, or the PDE has another number of coordinates than 2 or 3.
        """
        try:
            import meshio
        except ImportError as error:
            raise UsageError("to_vtk needs meshio: expected it to be installed, by pip install meshio") from error
        pde = self.problem.pde
        d = len(pde.coordinates)
        if d not in POINTS_A_SIDE:
            raise UsageError(f"to_vtk draws 2 or 3 coordinates, and this PDE has {d}: expected predict(x).to_csv(file)")
        x, cells = _mesh(pde.domain, points_a_side or POINTS_A_SIDE[d])
        points = as_points(x).to(self.problem.dtype)
        with torch.no_grad():
            fields = dict(zip(pde.unknowns, self.model(points).T.double().numpy(), strict=False))
            if pde.has_exact:
                exact = dict(zip(pde.unknowns, self.problem.exact(points).T.double().numpy(), strict=False))
                fields |= {f"error_{name}": fields[name] - values for name, values in exact.items()}
                fields |= {f"exact_{name}": values for name, values in exact.items()}
        in_space = np.pad(x, ((0, 0), (0, 3 - d)))
        meshio.Mesh(in_space, [({2: "quad", 3: "hexahedron"}[d], cells)], point_data=fields).write(file)
        return Path(file)


def load_run(run: str | Path, uri: str | None = None) -> LoadedRun:
    """Load a run that has ended.

    Args:
        run: Its folder, or the id of a run in an MLflow store, whose files are downloaded to a temporary folder.
        uri: The store, where an id is given.

    Returns:
        The run.

    Raises:
        RunError: There is no such run, or it has not ended.
    """
    folder = downloaded(str(run), uri) if uri is not None else Path(run).absolute()
    if not (folder / "config.yaml").exists():
        sweep = ", or load_sweep for the folder of a sweep" if (folder / "table.csv").exists() else ""
        raise RunError(
            f"{folder} holds no finished run: expected a folder with config.yaml, or the id of a run and uri=, the "
            f"store that has it{sweep}"
        )
    config = OmegaConf.create(yaml.safe_load((folder / "config.yaml").read_text()))
    result = Result.read(folder)
    if result is None:
        raise RunError(f"{folder} has no result.json: expected a run that has ended, resume it")
    return LoadedRun(folder, config, result)


def as_points(x: Any) -> Tensor:
    """Points (n, d) of floating-point numbers.

    Args:
        x: An array, a tensor or nested lists; (n,) in one dimension are taken as (n, 1).

    Returns:
        The points, in float64 where they are integers.

    Raises:
        UsageError: They have another shape.
    """
    points = x if isinstance(x, Tensor) else torch.as_tensor(np.asarray(x, dtype=float))
    if points.dim() not in (1, 2):
        raise UsageError(
            f"points of the shape {tuple(points.shape)} were given: expected (n, d), or (n,) in one dimension"
        )
    points = points if points.is_floating_point() else points.double()
    return points.unsqueeze(1) if points.dim() == 1 else points


def _mesh(domain: Domain, side: int) -> tuple[np.ndarray, np.ndarray]:
    """A mesh of rectangles, or of cuboids, over the cells whose corners all lie in a domain.

    Args:
        domain: Of d = 2 or 3 coordinates.
        side: Points along each coordinate.

    Returns:
        The corners (n, d), and those of each cell (m, 2^d) in VTK's order.
    """
    d = domain.dimension
    unit = np.stack(np.meshgrid(*[np.linspace(0.0, 1.0, side)] * d, indexing="ij"), axis=-1).reshape(-1, d)
    x = domain.place(unit)
    numbers = np.arange(side**d).reshape([side] * d)
    ring = [(0, 0), (1, 0), (1, 1), (0, 1)]
    corners = ring if d == 2 else [(*corner, level) for level, corner in itertools.product((0, 1), ring)]
    cells = np.stack([numbers[tuple(slice(c, side - 1 + c) for c in corner)].ravel() for corner in corners], axis=1)
    corners_of = x[cells] + 1e-9 * (x[cells].mean(axis=1, keepdims=True) - x[cells])  # as some lie on the boundary
    cells = cells[domain.contains(corners_of.reshape(-1, d)).reshape(cells.shape).all(axis=1)]
    used, inverse = np.unique(cells, return_inverse=True)
    return x[used], inverse.reshape(cells.shape)
