"""Sweeps on a real SLURM on one machine: jobs end in every way there is, and no cell is lost or trained twice."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import forked
import pytest
import torch
from mlflow.tracking import MlflowClient
from sweeping import assert_losses_in_store

from pde_train.runs.result import Result

pytestmark = pytest.mark.slurm

ONE_MACHINE = Path(__file__).parent / "slurm" / "one_machine.sh"

MISSING = [tool for tool in ("slurmctld", "slurmd", "munged", "sbatch", "ps", "free") if shutil.which(tool) is None]

TINY = ["model=two_layer", "model.width=5", "diagnostics=none", "method.compile=never"]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A SLURM for the tests of this file; the environment by which commands find it."""
    if MISSING or os.geteuid() != 0:
        pytest.skip(f"no SLURM: needs root and Debian's slurm-wlm, munge and procps (missing: {MISSING or 'root'})")
    folder = tmp_path_factory.mktemp("slurm")
    environment = {**os.environ, "SLURM_DIR": str(folder), "SLURM_CPUS": "4", "OMP_NUM_THREADS": "1"}
    environment["SLURM_PORT"] = str(free_ports(4))
    subprocess.run([ONE_MACHINE, "start"], env=environment, check=True, timeout=60)
    yield {**environment, "SLURM_CONF": str(folder / "slurm.conf"), "PATH": f"{folder / 'bin'}:{environment['PATH']}"}
    subprocess.run([ONE_MACHINE, "stop"], env=environment, check=True, timeout=60)


def free_ports(count: int) -> int:
    """The first of some ports in a row that nobody listens on, so that tests of two checkouts may run at once."""
    for first in random.SystemRandom().sample(range(16000, 30000, count), 100):
        with contextlib.ExitStack() as held, contextlib.suppress(OSError):
            for port in range(first, first + count):
                held.enter_context(socket.create_server(("127.0.0.1", port)))
            return first
    raise RuntimeError(f"no {count} ports in a row are free")


SLEEPY = """
import time, torch

class SleepyAdam(torch.optim.Adam):
    def step(self, closure=None):
        time.sleep(0.02)
        return super().step(closure)
"""
"""The module sleepy: an optimiser whose steps take long, and nothing from what else runs."""

SLEEPILY = ["trusted_modules=[sleepy]", "optimizer._target_=sleepy.SleepyAdam"]
STEPS = 700
LONG = [*SLEEPILY, f"method.steps={STEPS}", "method.chunk=50", "method.checkpoint_every=50", "method.log_every=1000"]


@pytest.fixture(scope="module")
def timed(slurm: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator["Sweep"]:
    """A sweep of one cell that needs far longer than its time limit, under way while the other tests run."""
    folder = tmp_path_factory.mktemp("timed")
    (folder / "sleepy.py").write_text(SLEEPY)
    endless = ["method.steps=10000000", "method.chunk=1000", "method.checkpoint_every=1000", "method.log_every=100000"]
    limit = ["hydra.launcher.timeout_min=1", "hydra.launcher.signal_delay_s=10"]
    sweep = Sweep(slurm, folder, *SLEEPILY, *endless, *limit)
    yield sweep
    sweep.process.kill()
    sweep.end()


class Sweep:
    """The command of a sweep under way in a folder of its own."""

    def __init__(self, environment: dict[str, str], folder: Path, *words: str, launcher: str = "slurm_cpu") -> None:
        self.environment, self.folder = environment, folder
        command = ["-m", "pde_train", "--multirun", f"hydra/launcher={launcher}", *TINY, *words]
        with tempfile.NamedTemporaryFile(dir=folder, prefix="printed-", delete=False) as file:
            self.file = Path(file.name)
        self.process = forked.server().start_into(self.file, command, folder, environment)

    def end(self) -> tuple[int, str]:
        """Its exit code and what it printed."""
        return self.process.wait(timeout=170), self.file.read_text()

    def wait(self, until: Callable[[], bool]) -> None:
        while not until():
            assert self.process.poll() is None, self.end()
            time.sleep(0.1)

    def cell(self, word: str) -> Path:
        """The folder of the only cell with this override."""
        (grid,) = self.folder.glob("multirun/*/grid.json")
        (name,) = {cell["name"] for cell in json.loads(grid.read_text())["cells"] if word in cell["overrides"]}
        return self.folder / "multirun" / "cells" / name

    def job(self, word: str) -> str:
        return (self.cell(word) / "slurm_job").read_text()

    def send(self, name: str, job: str) -> None:
        """Send a job a signal; scancel is stopped before it sends another to a job that is just ending."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(["scancel", f"--signal={name}", job], env=self.environment, timeout=1)

    def ask(self, *command: str) -> str:
        return subprocess.run(command, env=self.environment, check=True, capture_output=True, text=True).stdout


def history(folder: Path) -> list[str]:
    """Every measured number of a run with all its digits, but for wall times."""
    return [line for line in (folder / "history.csv").read_text().splitlines() if not line.startswith("seconds")]


def assert_one_whole_run_each(folder: Path, cells: int, steps: int) -> None:
    """The store has a run for each cell and their parent, all finished, and every row of a metric once."""
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("pde_train").experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"] * (cells + 1)
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert len(children) == cells
    for run in children:
        rows = {key: [m.step for m in client.get_metric_history(run.info.run_id, key)] for key in run.data.metrics}
        assert_losses_in_store(rows["loss"], steps, stops=3)
        assert all(len(set(steps)) == len(steps) for steps in rows.values())


def test_where_there_is_no_slurm_it_is_one_sentence(tmp_path: Path) -> None:
    sweep = Sweep({**os.environ, "PATH": str(tmp_path)}, tmp_path)
    code, printed = sweep.end()
    assert code == 2
    assert printed.startswith("sbatch, srun, squeue, scontrol of SLURM is not on the PATH: expected")
    assert len(printed.splitlines()) == 1


def test_jobs_are_accounted_for(slurm: dict[str, str]) -> None:
    """All of this file runs with real accounting where this passes: sacct tells what only a database knows."""
    if "accounting_storage/slurmdbd" not in Path(slurm["SLURM_CONF"]).read_text():
        pytest.skip(
            "SLURM runs without accounting: Debian's slurmdbd and mariadb-server-core are missing, or do not start"
        )

    def ask(*command: str) -> str:
        return subprocess.run(command, env=slurm, check=True, capture_output=True, text=True, timeout=60).stdout.strip()

    job = ask("sbatch", "--wait", "--parsable", "--output=/dev/null", "--wrap=sleep 2")
    until = time.monotonic() + 30  # slurmctld tells slurmdbd a moment later
    sacct = ("sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={job}", "--format=State,ElapsedRaw")
    while not (told := ask(*sacct)).startswith("COMPLETED"):
        assert time.monotonic() < until, told
        time.sleep(0.2)
    assert int(told.removeprefix("COMPLETED|")) >= 2


@pytest.mark.parametrize(
    ("word", "reason"),
    [("partition=nowhere", "Invalid partition name specified"), ("gpus_per_node=3", "configuration is not available")],
)
def test_what_sbatch_refuses_is_its_own_sentence(
    slurm: dict[str, str], timed: Sweep, tmp_path: Path, word: str, reason: str
) -> None:
    sweep = Sweep(slurm, tmp_path, f"hydra.launcher.{word}")
    code, printed = sweep.end()
    assert code == 2
    assert printed.splitlines()[-1].startswith("sbatch refused the jobs (")
    assert reason in printed.splitlines()[-1]
    assert len(printed.splitlines()) <= 2  # after Hydra's count of cells


def test_an_array_with_gpus_in_which_a_cell_fails(slurm: dict[str, str], timed: Sweep, tmp_path: Path) -> None:
    words = ["accelerator=cpu", "method.steps=20", "optimizer.lr=0.01,1e300"]
    sweep = Sweep(slurm, tmp_path, *words, launcher="slurm_gpu")
    code, printed = sweep.end()
    assert code == 1
    named = [line for line in printed.splitlines() if line.startswith("failed: ")]
    assert len(named) == 1
    assert "optimizer.lr=1e+300" in named[0]
    assert "nan or infinite" in named[0]
    assert Result.read(sweep.cell("optimizer.lr=0.01")).status == "finished"
    array, *others = {sweep.job(f"optimizer.lr={rate}").partition("_")[0] for rate in ("0.01", "1e+300")}
    assert not others
    gpus = sweep.ask("squeue", "--states=all", "--noheader", "--array", f"--jobs={array}", "--format=%b").split()
    assert gpus == ["gres:gpu:1"] * 2


def test_stacks_of_cells_are_jobs_of_the_array(slurm: dict[str, str], timed: Sweep, tmp_path: Path) -> None:
    words = ["hydra/launcher@hydra.launcher.through=slurm_cpu", "hydra.launcher.size=3", "seed=range(5)"]
    sweep = Sweep(slurm, tmp_path, *words, "method.steps=50", launcher="stacked")
    code, printed = sweep.end()
    assert code == 0, printed
    assert "5 cells in 2 stacks" in printed
    assert "2 jobs queued, 0 were queued before" in printed
    assert_one_whole_run_each(tmp_path, cells=5, steps=50)


def test_the_study_runs_unchanged_through_submitits_own_launcher(
    slurm: dict[str, str], timed: Sweep, tmp_path: Path
) -> None:
    words = ["--small", "--parts", "contour", "hydra/launcher=submitit_slurm", "pde=poisson_1d", "seed=0,1"]
    done = forked.run("-m", "pde_train.study", *words, folder=tmp_path, environment=slurm, timeout=170)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((tmp_path / "study-small/multirun/.submitit").glob("[0-9]*_[0-9]*"))) == 2  # a folder a job
    assert (tmp_path / "study-small/report/report.html").exists()


def test_cells_survive_preemption_sigterm_scancel_and_the_death_of_their_launcher(
    slurm: dict[str, str], timed: Sweep, tmp_path: Path
) -> None:
    undisturbed = tmp_path / "undisturbed"
    undisturbed.mkdir()
    for folder in (undisturbed, tmp_path):
        (folder / "sleepy.py").write_text(SLEEPY)
    reference = Sweep(slurm, undisturbed, *LONG, "seed=0,1", launcher="basic")
    words = [*LONG, "seed=0,1,2,3", "hydra.launcher.array_parallelism=2"]
    first = Sweep(slurm, tmp_path, *words)
    first.wait(lambda: len(list(tmp_path.glob("multirun/cells/*/checkpoint.ckpt"))) == 2)
    jobs = {seed: first.job(f"seed={seed}") for seed in range(4)}
    for seed in (0, 1):  # two jobs run, two are still pending; a launch may take longer than a cell
        first.send("STOP", jobs[seed])
    first.process.kill()
    first.end()

    again = Sweep(slurm, tmp_path, *words)
    again.wait(lambda: "0 jobs queued, 4 were queued before" in again.file.read_text())
    for seed in (0, 1):
        again.send("CONT", jobs[seed])
    again.send("USR2", jobs[0])
    again.send("TERM", jobs[1])
    again.ask("scancel", jobs[3])
    code, printed = again.end()
    assert code == 1
    assert {seed: again.job(f"seed={seed}") for seed in range(4)} == jobs
    named = sorted(line for line in printed.splitlines() if line.startswith("interrupted: "))
    assert len(named) == 2
    assert "seed=1" in named[0]
    assert "stopped by signal 15" in named[0]
    assert "seed=3" in named[1]
    # what waited when it was cancelled is forgotten by SLURM at once
    assert re.search(rf"SLURM job {jobs[3]} ended \((CANCELLED|gone from the queue, as after scancel)\)", named[1])
    assert "training 16 parameters on" in log_of(again, 0)
    assert log_of(again, 0).count("from step") == 2  # the requeued job went on
    assert "from step 0\n" in log_of(again, 0)

    last = Sweep(slurm, tmp_path, *words)
    code, printed = last.end()
    assert code == 0, printed
    assert "2 jobs queued, 0 were queued before" in printed
    assert last.job("seed=0") == jobs[0]
    assert reference.end()[0] == 0
    for seed in (0, 1):
        ours, theirs = last.cell(f"seed={seed}"), reference.cell(f"seed={seed}")
        assert history(ours) == history(theirs)
        models = [torch.load(folder / "model.pt", weights_only=True) for folder in (ours, theirs)]
        assert all(torch.equal(models[0][k], models[1][k]) for k in models[1])
    assert_one_whole_run_each(tmp_path, cells=4, steps=STEPS)


def test_a_cell_that_runs_out_of_time_goes_on_and_outlives_its_launcher(timed: Sweep) -> None:
    timed.wait(lambda: len(list(timed.folder.glob("multirun/cells/*/pde_train.log"))) == 1)
    (log,) = timed.folder.glob("multirun/cells/*/pde_train.log")
    timed.wait(lambda: log.read_text().count("from step") >= 2)
    stopped = re.search(r"stopped by signal 12 at step (\d+), a checkpoint was written", log.read_text())
    assert stopped is not None
    assert f"from step {stopped[1]}\n" in log.read_text()
    assert "this job is timed-out" in log.read_text()
    timed.process.send_signal(signal.SIGINT)
    code, printed = timed.end()
    assert code == 130
    (job,) = (file.read_text() for file in timed.folder.glob("multirun/cells/*/slurm_job"))
    assert f"1 jobs stay with SLURM and go on; to end them too: scancel {job}" in printed
    until = time.monotonic() + 90  # its minute may be over just now: it is queued again, and runs again
    while (state := timed.ask("squeue", "--noheader", f"--jobs={job}", "--format=%T").strip()) != "RUNNING":
        assert state in ("PENDING", "COMPLETING", "CONFIGURING"), state
        assert time.monotonic() < until, state
        time.sleep(0.5)


TWO_NODES = ["hydra.launcher.partition=both", "hydra.launcher.nodes=2", "hydra.launcher.mem_gb=1"]


def test_a_cell_on_two_nodes_is_that_of_two_processes_on_one(
    slurm: dict[str, str], timed: Sweep, tmp_path: Path
) -> None:
    words = ["accelerator=ddp", "pde=burgers_1d", "sampler=uniform", "method.steps=30"]
    folders = [tmp_path / "two nodes", tmp_path / "one"]
    for folder in folders:
        folder.mkdir()
    two = Sweep(slurm, folders[0], *words, "seed=0", *TWO_NODES)
    one = Sweep(slurm, folders[1], *words, "seed=0", launcher="basic")
    for sweep in (two, one):
        code, printed = sweep.end()
        assert code == 0, printed
    nodes = two.ask("squeue", "--states=all", "--noheader", f"--jobs={two.job('seed=0')}", "--format=%N")
    assert "," in nodes or "[" in nodes, nodes
    assert history(two.cell("seed=0")) == history(one.cell("seed=0"))
    results = [Result.read(sweep.cell("seed=0")) for sweep in (two, one)]
    assert results[0].notes["steps"].endswith("; 2 processes share the points")
    assert results[0].config_hash == results[1].config_hash
    assert results[0].overrides == results[1].overrides
    assert_one_whole_run_each(folders[0], cells=1, steps=30)


def test_a_job_of_two_nodes_is_queued_again_and_ends_with_a_word_where_a_task_dies(
    slurm: dict[str, str], timed: Sweep, tmp_path: Path
) -> None:
    (tmp_path / "sleepy.py").write_text(SLEEPY)
    sweep = Sweep(slurm, tmp_path, *LONG, "method.steps=100000", "accelerator=ddp", "seed=0", *TWO_NODES)
    sweep.wait(lambda: len(list(tmp_path.glob("multirun/cells/*/checkpoint.ckpt"))) == 1)
    log = sweep.cell("seed=0") / "pde_train.log"
    sweep.send("USR2", sweep.job("seed=0"))
    sweep.wait(lambda: log.read_text().count("from step") == 2)
    assert "from step 0\n" in log.read_text()
    os.kill(process_of_task(sweep.job("seed=0"), 1), signal.SIGKILL)
    began = time.monotonic()
    code, printed = sweep.end()
    assert code == 1
    assert time.monotonic() - began < 60
    assert "lost touch" in printed


def process_of_task(job: str, rank: int) -> int:
    """The process of a task of a job, by what SLURM has put into its environment."""
    wanted = {f"SLURM_JOB_ID={job}", f"SLURM_PROCID={rank}"}
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            inside = "submitit" in (folder / "cmdline").read_text() and "srun" not in (folder / "cmdline").read_text()
            if inside and wanted <= set((folder / "environ").read_text().split("\0")):
                found.append(int(folder.name))
    (process,) = found
    return process


def test_tasks_that_would_train_the_same_cell_are_refused(slurm: dict[str, str], timed: Sweep, tmp_path: Path) -> None:
    code, printed = Sweep(slurm, tmp_path, *TWO_NODES, "hydra.launcher.tasks_per_node=2", "accelerator=ddp").end()
    assert code == 2
    assert printed.splitlines()[-1] == (
        "hydra.launcher.nodes=2 with tasks_per_node=2 makes 4 tasks of a job, which share the points of a cell, and "
        "accelerator.processes=2: expected as many, choose accelerator=ddp accelerator.processes=4 or one task"
    )


def log_of(sweep: Sweep, seed: int) -> str:
    return (sweep.cell(f"seed={seed}") / "pde_train.log").read_text()
