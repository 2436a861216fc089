"""What a run leaves in its folder."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures import Compose
from matplotlib.image import imread

from pde_train.experiment import build
from pde_train.runs.run import run

NETWORK = ["model=two_layer", "model.width=5", "method.steps=30", "method.log_every=10", "sampler.interior=16"]


@pytest.mark.parametrize(
    ("overrides", "figures"),
    [
        (NETWORK, {"solution", "error", "loss_and_error", "singular_values", "entropy"}),
        ([*NETWORK, "pde=biharmonic_2d", "diagnostics=none"], {"solution", "error", "loss_and_error"}),
        (["model.features=20"], {"solution", "error", "singular_values", "entropy"}),
    ],
)
def test_figures_show_something(compose: Compose, tmp_path: Path, overrides: list[str], figures: set[str]) -> None:
    run(build(compose(*overrides)), tmp_path)
    found = {file.stem: imread(file) for file in (tmp_path / "figures").iterdir()}
    assert set(found) == figures
    for image in found.values():
        assert min(image.shape[:2]) > 300
        assert image[..., :3].std() > 0.02  # an empty page has none


def test_files_hold_every_digit(compose: Compose, tmp_path: Path) -> None:
    experiment = build(compose(*NETWORK))
    record = run(experiment, tmp_path)
    with np.load(tmp_path / "spectrum.npz") as stored:
        assert set(stored) == {
            f"{word}_{step}" for word in ("step", "resolution", "method") for step in (0, 1, 3, 10, 30)
        }
        assert all(np.array_equal(stored[f"step_{k}"], spectrum.values) for k, spectrum in record.spectra.items())
    with (tmp_path / "spectrum.csv").open() as spectrum, (tmp_path / "history.csv").open() as history:
        rows, metrics = list(csv.reader(spectrum))[1:], list(csv.reader(history))[1:]
    assert [float(s) for _, s in rows] == record.spectra[30].values.tolist()
    assert [float(v) for k, _, v in metrics if k == "loss"] == list(record.series["loss"].values())
    assert len(record.series["loss"]) == 30
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    assert all(torch.equal(state[k], v) for k, v in experiment.problem.model.state_dict().items())
