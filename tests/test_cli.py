"""The command as a user types it, in a process of its own."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from pde_train.conf_dir import conf_dir


def pde_train(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PDE_TRAIN", "HYDRA"))}
    return subprocess.run(
        [sys.executable, "-m", "pde_train", *arguments],
        cwd=folder,
        env={**clean, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_help_shows_groups_choices_and_three_examples(tmp_path):
    done = pde_train(tmp_path, "--help")
    assert done.returncode == 0
    for group in (g.name for g in conf_dir().iterdir() if g.is_dir() and g.name != "hydra"):
        assert f"\n{group}: " in done.stdout
    assert "poisson_1d" in done.stdout
    assert done.stdout.partition("Three to try:")[2].partition("\n\n")[0].count("python -m pde_train") == 3


@pytest.mark.parametrize("argument", ["--help", "--cfg=job"])
def test_help_and_cfg_load_neither_torch_nor_lightning_nor_mlflow(tmp_path, argument):
    code = (
        f"import sys; sys.argv[1:] = {argument.split('=')!r}\n"
        "from pde_train.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "sys.exit(len({'torch', 'lightning', 'mlflow', 'matplotlib', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_default_run_leaves_results_and_says_how_to_look(tmp_path):
    done = pde_train(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "exact residual" in done.stdout
    assert "make ui" in done.stdout.splitlines()[-1]
    (folder,) = (tmp_path / "outputs").glob("*/*")
    result = json.loads((folder / "result.json").read_text())
    assert result["status"] == "finished"
    assert result["metrics"]["error_l2"] < 1e-12
    assert (tmp_path / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (
            ["pde=heat"],
            2,
            "Could not find 'pde/heat' Available options in 'pde': biharmonic_1d biharmonic_2d ",
        ),
        (["pde.speed=1"], 2, "pde.speed is no key of this configuration: expected one of frequency, weights"),
        (["differentiator=finite_difference", "differentiator.accuracy=3"], 2, "expected 2, 4, 6 or 8, choose one"),
        (["tracking.uri=http://127.0.0.1:9"], 1, "cannot be used ([Errno 111] Connection refused): expected a store"),
    ],
)
def test_bad_input_is_one_line_and_an_exit_code(tmp_path, arguments, code, sentence):
    done = pde_train(tmp_path, *arguments)
    assert done.returncode == code
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_traceback_only_when_asked_for(tmp_path):
    done = pde_train(tmp_path, "+pde.speed=1", "tracking=none", HYDRA_FULL_ERROR="1")
    assert "Traceback" in done.stderr
    assert "Traceback" not in pde_train(tmp_path, "+pde.speed=1", "tracking=none").stderr


def test_a_sweep_goes_on_after_a_failing_run_and_ends_with_its_table(tmp_path):
    arguments = ["--multirun", "hydra.sweep.dir=sweep", "differentiator=reverse,finite_difference/1e-3"]
    done = pde_train(tmp_path, *arguments, "model.activation=relu,tanh", "model.features=20")
    assert done.returncode == 1
    assert done.stdout.count("failed: ") == 2
    assert "model.activation=relu has useful derivatives up to order 1" in done.stdout
    rows = (tmp_path / "sweep" / "table.csv").read_text().splitlines()
    assert rows[0].startswith("run,derivatives,spectrum/max")
    assert [row.partition(",")[0] for row in rows[1:]] == ['"activation=tanh"'] * 2
    assert (tmp_path / "sweep" / "spectra.png").exists()

    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("pde_train").experiment_id])
    (parent,) = [r for r in runs if "mlflow.parentRunId" not in r.data.tags]
    children = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert [c.info.status for c in children] == ["FINISHED"] * 2
    assert parent.info.status == "FAILED"
    assert (parent.data.tags["runs.finished"], parent.data.tags["runs.not_finished"]) == ("2", "2")
    assert "| activation=tanh | reverse |" in parent.data.tags["mlflow.note.content"]
    assert {a.path for a in client.list_artifacts(parent.info.run_id)} == {"table.csv", "spectra.png"}


def test_a_sweep_that_was_stopped_ends_with_its_table_and_goes_on(tmp_path):
    arguments = ["--multirun", "hydra.sweep.dir=sweep", "differentiator=reverse,finite_difference", "model=two_layer"]
    arguments += ["model.width=5", "sampler.interior=16", "method.steps=3000", "method.checkpoint_every=100"]
    command = [sys.executable, "-m", "pde_train", *arguments]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PDE_TRAIN", "HYDRA"))}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
    while not (tmp_path / "sweep" / "1" / "checkpoint.ckpt").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted: " in output
    assert "resume=true hydra.sweep.dir=sweep" in output

    def parent():
        client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
        runs = client.search_runs([client.get_experiment_by_name("pde_train").experiment_id])
        assert len(runs) == 3
        return next(r for r in runs if "mlflow.parentRunId" not in r.data.tags)

    assert parent().info.status == "KILLED"
    done = pde_train(tmp_path, *arguments, "resume=true")
    assert done.returncode == 0, done.stderr
    assert parent().info.status == "FINISHED"
    assert parent().data.tags["runs.finished"] == "2"
    with (tmp_path / "sweep" / "table.csv").open() as table:
        titles = [row[0] for row in csv.reader(table)]
    assert titles == ["run", "poisson_1d, two_layer", "poisson_1d, two_layer"]  # one pair, though one was resumed


def test_one_store_wherever_hydra_runs_the_job(tmp_path):
    done = pde_train(tmp_path, "--multirun", "hydra.job.chdir=true", "model.features=5,6", "hydra.sweep.dir=sweep")
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.rglob("mlflow.db")) == [tmp_path / "mlflow.db"]


def test_a_sweep_that_cannot_be_composed_still_ends_with_what_it_did(tmp_path):
    done = pde_train(tmp_path, "--multirun", "hydra.sweep.dir=sweep", "pde=poisson_1d,heat", "tracking=none")
    assert done.returncode == 2
    assert "Could not find 'pde/heat'" in done.stderr
