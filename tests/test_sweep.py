"""Sweeps as a user types them: every cell is trained once, whatever died in between."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from sweeping import SMALL, results, rows, runs, started, store, swept

from pde_train.claim import claim
from pde_train.entropy import Entropy
from pde_train.errors import UsageError
from pde_train.status import main as status
from pde_train.sweeps.grid import Cell, Grid


def folders(where):
    return {f.name: f for f in where.glob("multirun/cells/*")}


def trained(where):
    """When each cell's model was written."""
    return {
        name: (f / "model.pt").stat().st_mtime_ns for name, f in folders(where).items() if (f / "model.pt").exists()
    }


def test_a_grid_through_its_life(tmp_path, monkeypatch, capsys):
    """Failing cells, more cells, another entropy, a fresh start: each command trains only what is not done."""
    monkeypatch.chdir(tmp_path)
    words = [*SMALL, "seed=0,1", "optimizer.lr=1e-3,1e200"]
    out, _ = swept(tmp_path, *words, code=1)
    assert out.count("failed: ") == 2
    assert all("expected finite numbers" in line for line in out.splitlines() if line.startswith("failed: "))
    assert sorted(r["status"] for r in results(tmp_path).values()) == ["failed", "failed", "finished", "finished"]
    (parent,), children = runs(tmp_path)
    assert parent.info.status == "FAILED"
    assert (parent.data.tags["runs.finished"], parent.data.tags["runs.not_finished"]) == ("2", "2")
    assert sorted(c.info.status for c in children) == ["FAILED", "FAILED", "FINISHED", "FINISHED"]
    names = {f"poisson_1d two_layer taylor seed={seed} lr={lr}" for seed in (0, 1) for lr in ("0.001", "1e+200")}
    assert {c.info.run_name for c in children} == names
    assert all(
        "lr=1e+200" in line for line in parent.data.tags["mlflow.note.content"].splitlines() if "| failed |" in line
    )
    artifacts = {a.path for a in store(tmp_path).list_artifacts(parent.info.run_id)}
    assert {"table.csv", "loss.png", "spectra.png", "entropy.png"} <= artifacts
    assert "| lr=0.001 | taylor |" in parent.data.tags["mlflow.note.content"]

    assert status([]) == 0
    said = capsys.readouterr().out
    assert "4 cells: 2 failed, 2 finished" in said
    assert said.count("nan or infinite: expected finite numbers") == 2

    before = trained(tmp_path)
    out, err = swept(tmp_path, *words, "sweep.retry=false", code=1)
    assert "4 cells, 4 of them done" in out + err
    assert trained(tmp_path) == before

    swept(tmp_path, *SMALL, "seed=0,1,2")  # another grid, which shares two cells
    after = trained(tmp_path)
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 1

    swept(tmp_path, *SMALL, "seed=0,1,2", "entropy=absolute", "entropy.thresholds=[1e-3,1e-5]")
    assert trained(tmp_path) == after
    _, children = runs(tmp_path)
    views = [r for r in children if "view_of" in r.data.tags]
    assert len(views) == 3
    for view in views:
        with np.load(folders(tmp_path)[view.data.tags["view_of"]] / "spectrum.npz") as kept:
            for name in (n for n in kept.files if n.startswith("step_")):
                expected = Entropy([1e-3, 1e-5], relative=False).metrics(kept[name])["entropy/1e-05"]
                assert dict(rows(tmp_path, view, "entropy/1e-05"))[int(name[5:])] == expected

    swept(tmp_path, *SMALL, "seed=0", "sweep.fresh=true")
    again = trained(tmp_path)
    assert len({name for name in after if again[name] != after[name]}) == 1


def test_what_was_swept_names_a_cell(tmp_path):
    always = ["pde=poisson_1d", "method.steps=9"]
    sweeps = [["seed=0", "model.hidden=[4,3]", "entropy=relative"], ["seed=1", "model.hidden=[5]", "entropy=absolute"]]
    cells = [Cell((*always, "tracking.uri=a", *words), words[0], tmp_path, {}) for words in sweeps]
    assert Grid("sweep", cells, tmp_path).labels == {"seed=0": " seed=0 hidden=[4,3]", "seed=1": " seed=1 hidden=[5]"}
    assert Grid("sweep", cells[:1], tmp_path).labels == {"seed=0": ""}


def test_a_cell_is_what_the_same_words_give_alone(tmp_path):
    words = [*SMALL, "differentiator=finite_difference", "seed=3"]
    swept(tmp_path, *words, "sampler=uniform,grid", "tracking=none")
    command = [sys.executable, "-m", "pde_train", *words, "sampler=uniform", "tracking=none", "hydra.run.dir=alone"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    name = (tmp_path / "alone" / "config_hash").read_text()
    alone, cell = (torch.load(f / "model.pt") for f in (tmp_path / "alone", folders(tmp_path)[name]))
    assert all(torch.equal(alone[key], cell[key]) for key in alone)


def test_a_launcher_that_is_killed_and_one_beside_it_leave_a_complete_grid(tmp_path):
    """kill -9, then two launchers at once: each cell is one run whose numbers are those of a grid left in peace."""
    words = [*SMALL, "seed=0,1,2", "method.steps=2000", "method.checkpoint_every=100", "optimizer.lr=1e-3"]
    process = started(tmp_path, *words)
    while not list(tmp_path.glob("multirun/cells/*/checkpoint.ckpt")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    both = [started(tmp_path, *words) for _ in range(2)]
    for one in both:
        out, err = one.communicate(timeout=300)
        assert one.returncode == 0, out + err
    (parent,), children = runs(tmp_path)
    assert parent.info.status == "FINISHED"
    assert len(children) == 3
    assert {c.info.status for c in children} == {"FINISHED"}
    for child in children:
        assert [step for step, _ in rows(tmp_path, child)] == list(range(2000))
    (tmp_path / "peace").mkdir()
    swept(tmp_path / "peace", *words, "tracking=none")
    undisturbed = results(tmp_path / "peace")
    for name, found in results(tmp_path).items():
        assert found["curves"] == undisturbed[name]["curves"]
        assert found["metrics"]["error_l2"] == undisturbed[name]["metrics"]["error_l2"]


def test_ctrl_c_ends_with_the_table_and_the_same_command_goes_on(tmp_path):
    words = [*SMALL, "seed=0,1", "method.steps=3000", "method.checkpoint_every=100"]
    process = started(tmp_path, *words)
    while not list(tmp_path.glob("multirun/cells/*/checkpoint.ckpt")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted: " in out
    assert "waiting: " in out
    assert "go on with the same command" in out + err
    (parent,), _ = runs(tmp_path)
    assert parent.info.status == "KILLED"
    swept(tmp_path, *words)
    (parent,), children = runs(tmp_path)
    assert parent.info.status == "FINISHED"
    assert len(children) == 2


def test_several_processes_train_a_grid(tmp_path):
    processes = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    swept(tmp_path, *SMALL, *processes, "seed=range(6)", "optimizer.lr=1e-3,1e200", code=1)
    (parent,), children = runs(tmp_path)
    assert len(children) == 12
    assert parent.data.tags["runs.finished"] == "6"
    for child in children:
        if child.info.status == "FINISHED":
            assert [step for step, _ in rows(tmp_path, child)] == list(range(60))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["pde.speed=1,2"], "pde.speed is no key of this configuration: expected one of frequency, weights"),
        (["pde=poisson_1d,heat"], "pde=heat is no choice: expected one of biharmonic_1d"),
        (["sweep.retry=maybe"], "sweep.retry=maybe does not fit: expected a valid boolean"),
    ],
)
def test_a_key_or_choice_that_does_not_exist_is_said_before_anything_runs(tmp_path, words, sentence):
    _, err = swept(tmp_path, "seed=0,1", "tracking=none", *words, code=2)
    assert sentence in err
    assert len(err.strip().splitlines()) == 1
    assert not list(tmp_path.glob("multirun/cells/*"))


def test_a_folder_is_claimed_by_one_process_until_it_ends(tmp_path):
    code = (
        "from pathlib import Path; from pde_train.claim import claim\n"
        f"with claim(Path({str(tmp_path)!r})) as mine: print(mine)"
    )

    def ask():
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()

    with claim(tmp_path) as mine:
        assert mine
        assert ask() == "False"
    assert ask() == "True"


def test_status_says_what_is_no_grid(tmp_path, capsys):
    assert status([str(tmp_path)]) == 2
    assert "is no grid" in capsys.readouterr().err
    assert status(["--sweeps", str(tmp_path)]) == 2
    assert "holds no sweep: expected one" in capsys.readouterr().err
    with pytest.raises(UsageError, match="expected the folder of a sweep"):
        Grid.read(tmp_path)
