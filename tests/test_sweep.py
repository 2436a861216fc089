"""Sweeps as a user types them: every cell is trained once, whatever died in between."""

import contextlib
import csv
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import forked
import numpy as np
import pytest
import torch
from fixtures import Compose
from sweeping import SMALL, results, rows, runs, started, store, swept

from pde_train.entropy import Entropy
from pde_train.errors import UsageError
from pde_train.instantiate import plain
from pde_train.overrides import Overrides
from pde_train.run_folder import OUTBOX, RESULT_FILE, Status, clear, lock
from pde_train.runs.result import Result
from pde_train.status import main as status
from pde_train.sweeps.grid import Cell, Grid
from pde_train.tracking import saved_views


def folders(where: Path) -> dict[str, Path]:
    return {f.name: f for f in where.glob("multirun/cells/*")}


def trained(where: Path) -> dict[str, int]:
    """When each cell's model was written."""
    return {
        name: (f / "model.pt").stat().st_mtime_ns for name, f in folders(where).items() if (f / "model.pt").exists()
    }


def test_a_grid_through_its_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Failing cells, more cells, another entropy, a fresh start: each command trains only what is not done."""
    monkeypatch.chdir(tmp_path)
    words = [*SMALL, "seed=0,1", "optimizer.lr=1e-3,1e200"]
    out, _ = swept(tmp_path, *words, code=1, figures=True)
    assert out.count("failed: ") == 2
    assert all("expected finite numbers" in line for line in out.splitlines() if line.startswith("failed: "))
    assert sorted(r["status"] for r in results(tmp_path).values()) == ["failed", "failed", "finished", "finished"]
    (parent,), children = runs(tmp_path)
    assert parent.info.status == "FAILED"
    assert (parent.data.tags["runs.finished"], parent.data.tags["runs.not_finished"]) == ("2", "2")
    assert sorted(c.info.status for c in children) == ["FAILED", "FAILED", "FINISHED", "FINISHED"]
    names = {f"lr {lr} · seed {seed}" for seed in (0, 1) for lr in ("0.001", "1e+200")}
    assert {c.info.run_name for c in children} == names
    assert parent.data.params["optimizer.lr"] == "0.001, 1e+200"
    assert (parent.data.params["seed"], parent.data.params["pde"]) == ("0, 1", "poisson_1d")
    errors = [c.data.metrics["error_l2"] for c in children if c.info.status == "FINISHED"]
    assert parent.data.metrics["median/error_l2/taylor"] == pytest.approx(np.median(errors))
    assert parent.data.metrics["least/error_l2"] == parent.data.metrics["median/error_l2/taylor"]
    (shown,) = store(tmp_path).search_runs([parent.info.experiment_id], saved_views.OF_SWEEPS)
    for column in saved_views.OF_THE_SWEEPS:
        kind, name = column.rstrip("`").split(".`")
        assert name in getattr(shown.data, kind)
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
        assert view.data.tags["differentiator_label"] == "taylor"
        with np.load(folders(tmp_path)[view.data.tags["view_of"]] / "spectrum.npz") as kept:
            for name in (n for n in kept.files if n.startswith("step_")):
                expected = Entropy([1e-3, 1e-5], relative=False).metrics(kept[name])["entropy/1e-05"]
                assert dict(rows(tmp_path, view, "entropy/1e-05"))[int(name[5:])] == expected

    swept(tmp_path, *SMALL, "seed=0", "sweep.fresh=true")
    again = trained(tmp_path)
    assert len({name for name in after if again[name] != after[name]}) == 1


def test_medians_of_other_results_are_delivered_again(tmp_path: Path) -> None:
    words = ["model=random_features", "model.features=10", "seed=0,1"]
    swept(tmp_path, *words)
    for file in tmp_path.glob("multirun/cells/*/result.json"):
        file.write_text(re.sub('"error_l2": [^,]*', '"error_l2": 0.125', file.read_text()))
    swept(tmp_path, *words)
    (parent,), _ = runs(tmp_path)
    assert parent.data.metrics["median/error_l2/taylor"] == parent.data.metrics["least/error_l2"] == 0.125


def test_what_was_swept_names_a_cell(tmp_path: Path) -> None:
    always = ["pde=poisson_1d", "method.steps=9"]
    sweeps = [["seed=0", "model.hidden=[4,3]", "entropy=relative"], ["seed=1", "model.hidden=[5]", "entropy=absolute"]]
    cells = [Cell(Overrides.parse([*always, "tracking.uri=a", *words]), words[0], tmp_path, {}) for words in sweeps]
    assert Grid("sweep", cells, tmp_path).labels == {"seed=0": "hidden [4,3] · seed 0", "seed=1": "hidden [5] · seed 1"}
    assert Grid("sweep", cells[:1], tmp_path).labels == {"seed=0": ""}


@pytest.mark.parametrize(
    ("words", "labels"),
    [
        (["differentiator=taylor,reverse"], ["taylor", "reverse"]),
        (["differentiator=finite_difference/grid,taylor"], ["FD2 grid", "taylor"]),
        (["differentiator=finite_difference/rounding,hybrid"], ["FD2 auto rounding", "hybrid FD2 auto"]),
        (["differentiator=finite_difference", "differentiator.step=1e-3,auto"], ["FD2 0.001", "FD2 auto"]),
        (
            ["differentiator=finite_difference", "differentiator.accuracy=4,8", "model=two_layer,mlp"],
            ["FD4 auto · two_layer", "FD4 auto · mlp", "FD8 auto · two_layer", "FD8 auto · mlp"],
        ),
        (
            ["differentiator=complex_step", "differentiator.radius=0.1,0.2"],
            ["complex_step radius 0.1", "complex_step radius 0.2"],
        ),
    ],
)
def test_a_label_names_the_way_of_taking_derivatives_in_short(
    compose: Compose, words: list[str], labels: list[str]
) -> None:
    fixed = [word for word in words if "," not in word]
    swept = [word for word in words if "," in word]
    lists = [[f"{word.partition('=')[0]}={value}" for value in word.partition("=")[2].split(",")] for word in swept]
    cells = []
    for combination in itertools.product(*lists):
        overrides = Overrides.parse([*fixed, *combination])
        config, choice = plain(compose(*overrides.words)), overrides.value_of("differentiator")
        name = " ".join(overrides.words)
        cells.append(Cell(overrides, name, Path(), {}, config, {"differentiator": str(choice)}))
    assert [*Grid("sweep", cells, Path()).labels.values()] == labels


def test_a_cell_is_what_the_same_words_give_alone(tmp_path: Path) -> None:
    words = [*SMALL, "differentiator=finite_difference", "seed=3"]
    swept(tmp_path, *words, "sampler=uniform,grid", "tracking=none")
    command = ["-m", "pde_train", *words, "sampler=uniform", "tracking=none", "hydra.run.dir=alone"]
    assert forked.run(*command, folder=tmp_path).returncode == 0
    name = (tmp_path / "alone" / "config_hash").read_text()
    alone, cell = (torch.load(f / "model.pt") for f in (tmp_path / "alone", folders(tmp_path)[name]))
    assert all(torch.equal(alone[key], cell[key]) for key in alone)


def test_a_launcher_that_is_killed_and_one_beside_it_leave_a_complete_grid(tmp_path: Path) -> None:
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


def test_ctrl_c_ends_with_the_table_and_the_same_command_goes_on(tmp_path: Path) -> None:
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


@pytest.mark.parametrize(
    ("where", "signalled", "launcher", "most"),
    [
        ("training.loop.Loop.close", "signal.raise_signal(signal.SIGINT)", [], 1),
        ("training.loop.Loop.close", "signal.raise_signal(signal.SIGINT)", ["hydra/launcher=stacked"], 4),
        ("runs.run.Run.finish", "Cleared()", [], 2),
    ],
)
def test_ctrl_c_ends_a_sweep_wherever_it_comes(
    where: str, signalled: str, launcher: list[str], most: int, tmp_path: Path
) -> None:
    """After the last step, where a run has nothing left to stop, and where Python ignores what is raised."""
    words = [*SMALL, "seed=range(4)", "tracking=none", *launcher]
    module, owner, method = where.rsplit(".", 2)
    code = f"""
import signal, sys
from pde_train.cli import main
from pde_train.{module} import {owner}

class Cleared:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

def replaced(self, *arguments, original={owner}.{method}):
    original(self, *arguments)
    {signalled}

{owner}.{method} = replaced
sys.argv[1:] = {["--multirun", *words]!r}
main()
"""
    done = forked.run("-c", code, folder=tmp_path)
    assert done.returncode == 130, done.stdout + done.stderr
    assert "go on with the same command" in done.stdout + done.stderr
    ended = [r["status"] for r in results(tmp_path).values()]
    assert ended.count("finished") <= most, ended
    swept(tmp_path, *words)
    assert [r["status"] for r in results(tmp_path).values()] == ["finished"] * 4


def test_several_processes_train_a_grid(tmp_path: Path) -> None:
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
        (["pde.speed=1,2"], "pde.speed is no key of Poisson1D: expected one of frequency, weights"),
        (["pde=poisson_1d,heat"], "pde=heat is no choice: expected one of allen_cahn_1d"),
        (
            ["model=random_features", "method=least_squares", "optimizer.lr=1e-3,1e-2"],
            "optimizer.lr=0.001 changes nothing",
        ),
        (["sweep.retry=maybe"], "sweep.retry=maybe does not fit: expected a valid boolean"),
    ],
)
def test_a_key_or_choice_that_does_not_exist_is_said_before_anything_runs(
    tmp_path: Path, words: list[str], sentence: str
) -> None:
    _, err = swept(tmp_path, "seed=0,1", "tracking=none", *words, code=2)
    assert sentence in err
    assert len(err.strip().splitlines()) == 1
    assert not list(tmp_path.glob("multirun/cells/*"))


def test_a_folder_is_claimed_by_one_process_until_it_ends(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from pde_train.run_folder import lock\n"
        f"with lock(Path({str(tmp_path)!r})) as mine: print(mine)"
    )

    def ask() -> str:
        return forked.run("-c", code, folder=tmp_path).stdout.strip()

    with lock(tmp_path) as mine:
        assert mine
        assert ask() == "False"
    assert ask() == "True"


def test_who_looks_whether_a_folder_is_locked_keeps_it_from_nobody(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from pde_train.run_folder import is_locked\n"
        f"while True: is_locked(Path({str(tmp_path)!r}))"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as watching:
        try:
            for _ in range(3000):
                with lock(tmp_path) as mine:
                    assert mine
        finally:
            watching.kill()


def test_what_is_set_aside_takes_the_place_of_nothing(tmp_path: Path) -> None:
    view = tmp_path / "entropy-raw"
    view.mkdir()
    for k in range(3):
        for folder in (tmp_path, view):
            (folder / OUTBOX).write_text(f"{k}")
            (folder / RESULT_FILE).write_text("{}")
        clear(tmp_path)
        if k == 1:
            shutil.rmtree(tmp_path / "earlier-1")
    for folder in (tmp_path, view):
        assert not (folder / RESULT_FILE).exists()
        assert (folder / "earlier-2" / OUTBOX).read_text() == "1"
        assert (folder / "earlier-3" / OUTBOX).read_text() == "2"


def test_status_says_what_is_no_grid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status([str(tmp_path)]) == 2
    assert "is no grid" in capsys.readouterr().err
    assert status(["--sweeps", str(tmp_path)]) == 2
    assert "holds no sweep: expected one" in capsys.readouterr().err
    with pytest.raises(UsageError, match="expected the folder of a sweep"):
        Grid.read(tmp_path)


JOBLIB = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", *SMALL]
LONG = ["seed=range(4)", "method.steps=1000000", "method.chunk=50", "method.checkpoint_every=100"]
LONG += ["method.log_every=1000000", "diagnostics=none"]


def until_two_train(folder: Path, process: forked.Forked) -> None:
    while len(list(folder.glob("multirun/cells/*/checkpoint.ckpt"))) < 2:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def workers_of(folder: Path) -> list[int]:
    """Processes whose working directory is this one."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cwd").resolve() == folder and (process / "stat").read_text().split()[2] != "Z":
                found.append(int(process.name))
    return found


@pytest.mark.parametrize(("number", "everybody"), [("SIGINT", True), ("SIGINT", False), ("SIGTERM", False)])
def test_no_run_stays_open_where_several_processes_are_stopped(tmp_path: Path, number: str, everybody: bool) -> None:
    """By Ctrl-C, which all processes of a terminal hear, or by a signal to the launcher: what trains saves and ends."""
    process = started(tmp_path, *JOBLIB, *LONG)
    until_two_train(tmp_path, process)
    (os.killpg if everybody else os.kill)(process.pid, signal.Signals[number])
    out, err = process.communicate(timeout=100)
    assert process.returncode == 128 + signal.Signals[number], out + err
    (parent,), children = runs(tmp_path)
    assert parent.info.status == "KILLED"
    assert [child.info.status for child in children] == ["KILLED"] * 2  # no other cell has begun since
    saved = [r for r in results(tmp_path).values() if "a checkpoint was written" in (r["error"] or "")]
    assert len(saved) == 2, results(tmp_path)
    assert not workers_of(tmp_path)


def test_workers_end_with_a_launcher_that_is_killed(tmp_path: Path) -> None:
    process = started(tmp_path, *JOBLIB, *LONG)
    until_two_train(tmp_path, process)
    process.kill()
    process.communicate()
    until = time.monotonic() + 60
    while workers_of(tmp_path):
        assert time.monotonic() < until, workers_of(tmp_path)
        time.sleep(0.2)
    saved = [r for r in results(tmp_path).values() if "a checkpoint was written" in (r["error"] or "")]
    assert len(saved) == 2, results(tmp_path)


def test_a_result_that_cannot_be_read_is_that_of_a_failed_cell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    contents = [b"", b"{", b"\xff", b"[]", b"{}", b'{"status": "well"}', None]
    words = [*SMALL, f"seed=range({len(contents) + 1})", "tracking=none"]
    swept(tmp_path, *words)
    *spoiled, whole = sorted(folders(tmp_path).values())
    before = (whole / "model.pt").stat().st_mtime_ns
    for folder, content in zip(spoiled, contents, strict=True):
        (folder / "result.json").unlink()
        if content is None:  # a folder cannot be removed like a file, either
            (folder / "result.json").mkdir()
        else:
            (folder / "result.json").write_bytes(content)
    assert status([]) == 0
    assert "8 cells: 7 failed, 1 finished" in capsys.readouterr().out
    out, _ = swept(tmp_path, *words, "sweep.retry=false", code=1)
    for folder in spoiled:
        (said,) = (line for line in out.splitlines() if line.startswith("failed: ") and folder.name in line)
        assert "is not the result of a run" in said
    (spoiled[-1] / "result.json").rmdir()
    swept(tmp_path, *words)
    assert {r["status"] for r in results(tmp_path).values()} == {"finished"}
    assert (whole / "model.pt").stat().st_mtime_ns == before


def test_other_files_that_cannot_be_read_stop_no_sweep(tmp_path: Path) -> None:
    words = [*SMALL, "seed=0,1", "tracking=none"]
    swept(tmp_path, *words)
    first, _ = sorted(folders(tmp_path).values())
    (first / "spectrum.npz").write_bytes(b"PK\x03\x04 nonsense")
    (first / "spectrum.csv").write_text("index,singular_value\n0,nonsense\n")
    (first / "tracking.jsonl").write_text("nonsense\n")
    swept(tmp_path, *words)
    out, _ = swept(tmp_path, *words, "entropy=absolute", code=1)
    assert out.count("failed: ") == 1


def test_a_result_is_on_the_disk_before_it_stands_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that loses power leaves the old result or the new one: the file first, then its name."""
    said = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda d: said.append(str(Path(f"/proc/self/fd/{d}").readlink())) or fsync(d))
    monkeypatch.setattr(Path, "replace", lambda self, to: said.append(str(to)) or replace(self, to))
    Result(Status.FINISHED).write(tmp_path)
    part, name, folder = said
    assert part.startswith(f"{tmp_path}/result.json.")
    assert (name, folder) == (f"{tmp_path}/result.json", str(tmp_path))


def test_what_a_job_raises_is_said_and_is_the_result_of_its_cell(tmp_path: Path) -> None:
    """A folder that no lock can be put into: three tries would not change it."""
    words = [*SMALL, "seed=0,1", "tracking=none"]
    swept(tmp_path, *words)
    first, _ = sorted(folders(tmp_path).values())
    (first / "result.json").unlink()
    (first / "lock").unlink()
    (first / "lock").mkdir()
    out, err = swept(tmp_path, *words, code=1)
    assert "lock cannot be used (Is a directory)" in out + err
    assert out.count("failed: ") == 1
    assert "1 cells, 0 of them done" not in out
    assert len(results(tmp_path)) == 2
    assert "Traceback" not in out + err


def test_an_optional_word_is_for_the_cells_that_have_its_key(tmp_path: Path) -> None:
    words = ["differentiator=taylor,finite_difference", "?differentiator.accuracy=4,8", "seed=0,1"]
    swept(tmp_path, *words, "model.features=5", "tracking=none", "diagnostics=none")
    cells = results(tmp_path)
    chosen = sorted(
        (cell["choices"]["differentiator"], *(w for w in cell["overrides"] if "accuracy" in w))
        for cell in cells.values()
    )
    plain, four, eight = ("taylor",), *(("finite_difference", f"differentiator.accuracy={p}") for p in (4, 8))
    assert chosen == sorted([plain, four, eight] * 2)
    (table,) = tmp_path.glob("multirun/*/table.csv")
    rows_of_table = list(csv.DictReader(table.read_text().splitlines()))
    assert {(row["differentiator"], row["differentiator.accuracy"]) for row in rows_of_table} == {
        ("taylor", ""),
        ("finite_difference", "4"),
        ("finite_difference", "8"),
    }
    assert {row["status"] for row in rows_of_table} == {"finished"}
    assert {row["config_hash"] for row in rows_of_table} == {Path(row["folder"]).name for row in rows_of_table}
    assert "model.features" not in rows_of_table[0]  # all cells share it


def test_status_is_watched_until_all_cells_have_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cell = Cell(Overrides.parse(["seed=0"]), "0", tmp_path / "multirun" / "cells" / "0", {})
    grid = Grid.of("sweep", [cell], tmp_path / "multirun")
    grid.folder.mkdir(parents=True)
    grid.write([])

    def end() -> None:
        time.sleep(0.3)
        cell.folder.mkdir(parents=True)
        Result(Status.FINISHED, ["seed=0"]).write(cell.folder)

    ending = threading.Thread(target=end)
    ending.start()
    assert status([str(grid.folder), "--watch", "0.1"]) == 0
    ending.join()
    said = capsys.readouterr().out
    assert "1 cells: 1 waiting" in said
    assert said.rstrip().splitlines()[-2].endswith("1 cells: 1 finished")
