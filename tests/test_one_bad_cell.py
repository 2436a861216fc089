"""One bad cell, file or process takes no others along: real sweeps, with something spoiled in them."""

import json
import os
import resource
import time
from pathlib import Path

import forked
import pytest
from sweeping import SMALL, results, swept

from pde_train.status import main as status
from pde_train.sweeps import slurm
from pde_train.sweeps.slurm import SlurmLauncher

STACKED = [*SMALL, "hydra/launcher=stacked", "hydra.launcher.threads=1"]
JOBLIB = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
OFF = "tracking=none"


def statuses(folder: Path) -> list[str]:
    return sorted(r["status"] for r in results(folder).values())


def cell_of(folder: Path, word: str) -> Path:
    """The folder of the cell that has a word among its overrides."""
    return next(
        f.parent for f in folder.glob("multirun/cells/*/result.json") if word in json.loads(f.read_text())["overrides"]
    )


def test_a_learning_rate_that_no_optimiser_takes_leaves_the_rest_of_its_stack(tmp_path: Path) -> None:
    out, _ = swept(tmp_path, *STACKED, OFF, "optimizer.lr=1e-3,1e-2,-1", code=1)
    assert statuses(tmp_path) == ["failed", "finished", "finished"]
    assert "failed: " in out
    assert "Invalid learning rate: -1" in out
    finished = [r for r in results(tmp_path).values() if r["status"] == "finished"]
    assert all(r["notes"]["steps"].startswith("stacked with 1 others") for r in finished)


@pytest.mark.parametrize("spoiled", ["checkpoint", "result"])
def test_a_spoiled_file_leaves_the_rest_of_its_stack(tmp_path: Path, spoiled: str) -> None:
    words = [*STACKED, OFF, "seed=0,1,2"]
    swept(tmp_path, *words)
    bad = cell_of(tmp_path, "seed=1")
    if spoiled == "checkpoint":
        for file in tmp_path.glob("multirun/cells/*/result.json"):
            file.unlink()
        (bad / "checkpoint.ckpt").write_bytes(b"no checkpoint")
        out, _ = swept(tmp_path, *words, code=1)
        assert statuses(tmp_path) == ["failed", "finished", "finished"]
        assert "is damaged, or no checkpoint" in out
        return
    (bad / "result.json").write_text('{"status": "fin')
    out, _ = swept(tmp_path, *words, "sweep.retry=false", code=1)
    assert "is not the result of a run" in out
    swept(tmp_path, *words)
    assert statuses(tmp_path) == ["finished"] * 3


def test_few_open_files_are_enough_for_a_stack(tmp_path: Path) -> None:
    """Each cell at work holds its lock open; of more cells than may be opened some wait."""
    code = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (150, 150))\n"
        f"sys.argv = ['pde_train', '--multirun', *{[*STACKED, OFF, 'method.steps=3', 'seed=range(5)']!r}]\n"
        "from pde_train.cli import main; main()"
    )
    done = forked.run("-c", code, folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert statuses(tmp_path) == ["finished"] * 5
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 150


def test_what_a_job_raises_is_the_result_of_its_cells(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(
        "import os, sys\n"
        "if not any('multirun' in word for word in sys.argv): raise OSError(5, 'Input/output error')\n"
        "from pde_train.pdes.poisson_1d import Poisson1D\n"
        "class Broken(Poisson1D):\n"
        "    def check(self): raise MemoryError('no memory left')\n"
    )
    own = tmp_path / "mine" / "pde"
    own.mkdir(parents=True)
    (own / "broken.yaml").write_text("_target_: broken.Broken\n")
    words = ["--config-dir", "mine", "trusted_modules=[broken]", "pde=broken,poisson_1d", "seed=0,1", OFF]
    os.environ["PYTHONPATH"], before = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}", os.environ.get("PYTHONPATH")
    try:
        began = time.monotonic()
        out, _ = swept(tmp_path, *words, *STACKED, code=1)
    finally:
        os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)
    assert statuses(tmp_path) == ["failed", "failed", "finished", "finished"]
    assert out.count("no memory left") >= 2
    assert time.monotonic() - began < 120


def test_status_finds_the_parts_of_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    swept(tmp_path, "experiment=study/contour", "pde=poisson_1d", "seed=0,1", "differentiator=reverse", OFF)
    assert status([]) == 0
    assert "2 cells: 2 finished" in capsys.readouterr().out
    (grid,) = (tmp_path / "multirun" / "study").glob("contour-*")
    assert status([str(grid)]) == 0
    assert "2 cells: 2 finished" in capsys.readouterr().out


def test_an_empty_queue_is_no_silent_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs that SLURM no longer knows are over; before, the launcher waited for ever."""
    launcher = object.__new__(SlurmLauncher)
    launcher.params = {"submitit_folder": str(tmp_path / "%j")}
    cell = tmp_path / "cell"
    cell.mkdir()
    (cell / "slurm_job").write_text("17_3")
    monkeypatch.setattr(slurm, "queue", dict)
    launcher._wait({cell: ["seed=0"]})
    assert json.loads((cell / "result.json").read_text())["status"] == "interrupted"


def test_cells_of_another_version_are_kept_or_run_again(tmp_path: Path) -> None:
    words = [*SMALL, OFF, "seed=0,1"]
    swept(tmp_path, *words)
    for file in tmp_path.glob("multirun/cells/*/result.json"):
        about = json.loads(file.read_text())
        about["versions"]["pde_train_source"] = "0123456789ab"
        file.write_text(json.dumps(about))
    models = list(tmp_path.glob("multirun/cells/*/model.pt"))
    before = [file.stat().st_mtime_ns for file in models]
    out, err = swept(tmp_path, *words)
    assert (out + err).count("2 finished cells are of another version of pde_train's code: they are kept") == 1
    assert [file.stat().st_mtime_ns for file in models] == before
    out, err = swept(tmp_path, *words, "sweep.stale=rerun")
    assert "they are trained again" in out + err
    assert all(file.stat().st_mtime_ns > old for file, old in zip(models, before, strict=True))
    out, err = swept(tmp_path, *words)
    assert "another version" not in out + err


def test_a_change_of_ones_own_source_makes_new_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "mine" / "pde"
    own.mkdir(parents=True)
    (own / "rod.yaml").write_text("_target_: rod_of_sweep.Rod\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    words = ["--config-dir", "mine", "trusted_modules=[rod_of_sweep]", "pde=rod", "seed=0,1", OFF, "model.features=20"]
    errors = []
    for source in ("2.0", "1.0"):
        (tmp_path / "rod_of_sweep.py").write_text(
            "from dataclasses import dataclass\n"
            "from pde_train.geometry import Box\n"
            "from pde_train.pdes.base import PDE, on\n"
            "@dataclass(frozen=True)\n"
            "class Rod(PDE):\n"
            "    coordinates = ('x',)\n"
            "    domain = Box((0.0,), (1.0,))\n"
            "    def exact(self, d): return d.x * (1 - d.x) / 2\n"
            "    @on('interior', needs='u_xx')\n"
            f"    def heat(self, d): return -d.u_xx - {source}\n"
            "    @on('boundary', needs='u')\n"
            "    def ends(self, d): return d.u\n"
        )
        out, _ = swept(tmp_path, *words)
        errors.append(max(r["metrics"]["error_l2"] for r in results(tmp_path).values()))
        assert ("other_solution" in out) == (source == "2.0")
    found = results(tmp_path)
    assert len(found) == 4
    assert sum(r["metrics"]["error_l2"] < 1e-6 for r in found.values()) == 2
