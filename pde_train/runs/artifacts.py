"""The files that a run leaves in its folder and in the tracking store."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from matplotlib.figure import Figure

from pde_train import plots
from pde_train.entropy import Entropy
from pde_train.problem import Problem
from pde_train.run_folder import FIGURES_FOLDER, SPECTRA
from pde_train.runs import figures, tables
from pde_train.singular_values import save_spectra
from pde_train.tracking.record import Record


def write(
    folder: Path,
    config: Mapping[str, Any],
    problem: Problem,
    record: Record,
    entropy: Entropy,
    heading: str | None,
) -> list[Path]:
    """Write the files of a run.

    Args:
        folder: Of the run.
        config: Its configuration.
        problem: With its trained model.
        record: What was measured.
        entropy: Of the figure of entropies.
        heading: What was run, above every figure; None for no figures.

    Returns:
        What was written: config.yaml, model.pt, history.csv, spectrum.npz, spectrum.csv and figures.
    """
    files = [folder / "config.yaml", folder / "model.pt", folder / "history.csv"]
    files[0].write_text(yaml.dump(dict(config), Dumper=yaml.CSafeDumper, sort_keys=False))
    buffer = io.BytesIO()  # torch.save to a full disk raises no OSError
    torch.save(problem.model.state_dict(), buffer)
    files[1].write_bytes(buffer.getvalue())
    rows = [(key, step, value) for key, values in record.series.items() for step, value in values.items()]
    files[2].write_text(tables.csv_text(["metric", "step", "value"], rows))
    if record.spectra:
        save_spectra(folder / SPECTRA, record.spectra)
        rows_of_final = list(enumerate(record.spectra[max(record.spectra)].values.tolist(), 1))
        (folder / "spectrum.csv").write_text(tables.csv_text(["index", "singular_value"], rows_of_final))
        files += [folder / SPECTRA, folder / "spectrum.csv"]
    if record.comparison:
        (folder / "comparison.csv").write_text(tables.csv_comparison(numbers(record)))
        files.append(folder / "comparison.csv")
    if heading is None:
        return files
    return [*files, save_figures(folder, draw(problem, record, entropy), heading)]


def heading_of(problem: Problem, choices: Mapping[str, str], seed: int) -> str:
    """What was run, as it stands above every figure."""
    named = [
        choices.get(group, type(thing).__name__) for group, thing in (("pde", problem.pde), ("model", problem.model))
    ]
    return ", ".join([*named, problem.differentiator.label, f"seed {seed}"])


def save_figures(folder: Path, drawn: Mapping[str, Figure], heading: str) -> Path:
    """Write figures, each with the heading, below the folder of their run; their own folder."""
    figures_of_run = folder / FIGURES_FOLDER
    figures_of_run.mkdir(exist_ok=True)
    for name, figure in drawn.items():
        plots.headed(figure, heading).savefig(figures_of_run / f"{name}.png", dpi=120)
    return figures_of_run


def draw(problem: Problem, record: Record, entropy: Entropy) -> dict[str, Figure]:
    """Every figure of a run by its name."""
    drawn = {"solution": figures.solution(problem)}
    if problem.pde.has_exact:
        drawn["error"] = figures.error(problem)
    if len(record.series.get("loss", {})) > 1:
        drawn["loss_and_error"] = figures.history(record.series)
    if record.spectra:
        values = {step: spectrum.values for step, spectrum in record.spectra.items()}
        drawn["singular_values"] = figures.spectra(values)
        drawn["entropy"] = figures.entropy_by_threshold(values, entropy)
    if record.comparison:
        drawn["comparison"] = figures.comparison(numbers(record))
        compared = {name: measured.spectrum.values for name, measured in record.comparison.items()}
        lines = {name: [(np.arange(1.0, len(v) + 1), v)] for name, v in compared.items()}
        drawn["compared_singular_values"] = plots.bands(
            {"Same parameters, same points": lines}, "index k", "singular value s_k", "y", marks="o"
        )
    return drawn


def numbers(record: Record) -> dict[str, Mapping[str, float]]:
    """The numbers of the last comparison by differentiator; empty without one."""
    return {name: measured.numbers for name, measured in record.comparison.items()}
