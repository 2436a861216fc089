"""The notebooks run from their first cell to their last one, and are stored without outputs."""

import json
from pathlib import Path
from typing import Any

import matplotlib
import pytest

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def cells(notebook: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(notebook.read_text())["cells"]
    return found


@pytest.mark.usefixtures("forked_sweeps")
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_runs(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in cells(notebook):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{notebook.name}: {cell['id']}", "exec"), names)
    if notebook.stem == "ad_against_fd":
        assert 1e-3 < names["best"] < 1e-1  # truncation h^2 and rounding eps / h^4 meet near eps^(1/6) = 2e-3
        assert names["run"].result.metrics["error_l2"] > 0
    if notebook.stem == "own_equation":
        assert names["problem"].errors()["error_l2"] < 1e-2
    if notebook.stem == "reading_a_sweep":
        assert names["values"]["reverse"].size == 80


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_is_stored_without_outputs(notebook: Path) -> None:
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells(notebook) if "outputs" in cell)
