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
from pde_train.runs import figures, tables
from pde_train.tracking.record import Record, comparison_in


def write(
    folder: Path,
    config: Mapping[str, Any],
    problem: Problem,
    record: Record,
    entropy: Entropy,
    drawn: bool = True,
) -> list[Path]:
    """Write config.yaml, model.pt, history.csv, spectrum.npz, spectrum.csv and figures; return what was written."""
    files = [folder / "config.yaml", folder / "model.pt", folder / "history.csv"]
    files[0].write_text(yaml.dump(dict(config), Dumper=yaml.CSafeDumper, sort_keys=False))
    buffer = io.BytesIO()  # torch.save to a full disk raises no OSError
    torch.save(problem.model.state_dict(), buffer)
    files[1].write_bytes(buffer.getvalue())
    rows = [f"{key},{step},{value!r}" for key, values in record.series.items() for step, value in values.items()]
    files[2].write_text("\n".join(["metric,step,value", *rows]) + "\n")
    if record.spectra:
        resolution = record.series["spectrum/resolution"]
        kept = {f"step_{k}": v for k, v in record.spectra.items()}
        kept |= {f"resolution_{k}": np.array(resolution[k]) for k in record.spectra}
        np.savez(folder / "spectrum.npz", allow_pickle=False, **kept)
        final = record.spectra[max(record.spectra)]
        lines = [f"{k},{s!r}" for k, s in enumerate(final.tolist())]
        (folder / "spectrum.csv").write_text("\n".join(["index,singular_value", *lines]) + "\n")
        files += [folder / "spectrum.npz", folder / "spectrum.csv"]
    comparison = comparison_in(record.last())
    if comparison:
        (folder / "comparison.csv").write_text(tables.csv_comparison(comparison))
        files.append(folder / "comparison.csv")
    if not drawn:
        return files
    (folder / "figures").mkdir(exist_ok=True)
    for name, figure in draw(problem, record, entropy).items():
        figure.savefig(folder / "figures" / f"{name}.png", dpi=120)
    return [*files, folder / "figures"]


def draw(problem: Problem, record: Record, entropy: Entropy) -> dict[str, Figure]:
    """Every figure of a run by its name."""
    drawn = {"solution": figures.solution(problem)}
    if problem.pde.has_exact:
        drawn["error"] = figures.error(problem)
    if len(record.series.get("loss", {})) > 1:
        drawn["loss_and_error"] = figures.history(record.series)
    if record.spectra:
        drawn["singular_values"] = figures.spectra(record.spectra)
        drawn["entropy"] = figures.entropy_by_threshold(record.spectra, entropy)
    comparison = comparison_in(record.last())
    if comparison:
        drawn["comparison"] = figures.comparison(comparison)
        lines = {name: [(np.arange(1.0, len(v) + 1), v)] for name, v in record.compared_spectra.items()}
        drawn["compared_singular_values"] = plots.bands(
            {"Same parameters, same points": lines}, "index k", "singular value s_k", "y", marks="o"
        )
    return drawn
