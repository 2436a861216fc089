"""A real process is killed in training and resumed: the same numbers bit for bit, no metric row and no run twice."""

import os
import signal
import time
from pathlib import Path

import forked
import pytest
import torch
from fixtures import Compose, KilledAt
from mlflow.tracking import MlflowClient
from torch import Tensor

from pde_train.cache import CACHE
from pde_train.errors import Interrupted, UsageError
from pde_train.runs.result import Result
from pde_train.runs.run import run_config
from pde_train.training import compiling, training
from pde_train.training.training import Training

pytestmark = pytest.mark.usefixtures("without_figures")

STEPS = 1500

ARGUMENTS = [
    "model=two_layer",
    "model.width=10",
    "optimizer=adam_then_lbfgs",
    "optimizer.switch=1200",
    "sampler=uniform",
    "sampler.interior=20",
    "sampler.resample_every=70",
    f"method.steps={STEPS}",
    "method.chunk=25",
    "method.log_every=100",
    "method.checkpoint_every=50",
    "diagnostics.when=[first,100,last]",
    "method.compile=never",  # two runs whose bits are compared: auto goes by the time of one step, and may decide twice
]


FOLLOWING = [
    *(word for word in ARGUMENTS if not word.startswith(("sampler=", "optimizer"))),
    *("sampler=residual_based", "sampler.candidates=200", "sampler.batch_size=15"),
]
"""The same with points that follow the residual, and with mini-batches of them."""


def start(store: Path, folder: Path, *more: str, arguments: list[str] = ARGUMENTS) -> forked.Forked:
    words = [*arguments, f"hydra.run.dir={folder}", *more, f"tracking.uri=sqlite:///{store / 'mlflow.db'}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", forked.WITHOUT_FIGURES: ""}
    return forked.started("-m", "pde_train", *words, folder=store, environment=environment)


def finish(process: forked.Forked) -> tuple[int, str]:
    _, errors = process.communicate(timeout=120)
    return process.wait(), errors


def wait_for(file: Path, process: forked.Forked) -> None:
    while not file.exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)


def rows_of(store: Path) -> dict[str, list[int]]:
    """The steps of every metric row of the only run in a store."""
    client = MlflowClient(f"sqlite:///{store / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("pde_train")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    return {key: [m.step for m in client.get_metric_history(run.info.run_id, key)] for key in run.data.metrics}


def final_spectrum(store: Path) -> list[float]:
    """The metric `spectrum/final` of the only run in a store."""
    client = MlflowClient(f"sqlite:///{store / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("pde_train").experiment_id])
    rows = client.get_metric_history(run.info.run_id, "spectrum/final")
    return [m.value for m in sorted(rows, key=lambda m: m.step)]


def history(folder: Path) -> list[str]:
    """Every measured number of a run with all its digits, but for wall times."""
    return [line for line in (folder / "history.csv").read_text().splitlines() if not line.startswith("seconds")]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("undisturbed")
    process = start(store, store / "run")
    code, errors = finish(process)
    assert code == 0, errors
    return store / "run"


@pytest.mark.parametrize(("signal_number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_killed_run_resumes_to_the_same_bits(
    tmp_path: Path, undisturbed: Path, signal_number: signal.Signals, code: int
) -> None:
    folder = tmp_path / "run"
    process = start(tmp_path, folder)
    wait_for(folder / "checkpoint.ckpt", process)
    process.send_signal(signal_number)
    returned, _ = finish(process)
    assert returned == code
    step = torch.load(folder / "checkpoint.ckpt", weights_only=True)["pde_train"]["step"]
    assert 0 < step < STEPS

    returned, errors = finish(start(tmp_path, folder, "resume=true"))
    assert returned == 0, errors

    assert history(folder) == history(undisturbed)
    ours, theirs = (torch.load(f / "model.pt", weights_only=True) for f in (folder, undisturbed))
    assert all(torch.equal(ours[k], theirs[k]) for k in theirs)
    rows = rows_of(tmp_path)
    assert sorted(rows["loss"]) == list(range(STEPS))
    assert all(len(set(steps)) == len(steps) for steps in rows.values())
    stored = (folder / "spectrum.csv").read_text().splitlines()[1:]
    assert final_spectrum(tmp_path) == [float(line.partition(",")[2]) for line in stored]
    assert Result.read(folder).status == "finished"


@pytest.mark.parametrize("step", [10, 11, 20])
def test_a_signal_in_the_step_before_a_measurement_does_not_leave_it_out(
    step: int, compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The spectrum is measured at step 10 and at the last one, 20."""
    words = ["model=two_layer", "model.width=5", "sampler.interior=16", "method.steps=20", "method.compile=never"]
    cfg = compose(*words, "diagnostics.when=[first,10,last]")
    advance = Training.advance

    def signalled(self: Training, losses: Tensor, seconds: float) -> None:
        advance(self, losses, seconds)
        if self.step >= step:
            signal.raise_signal(signal.SIGINT)

    run_config(cfg, tmp_path / "undisturbed", {}, [])
    with monkeypatch.context() as patch:
        patch.setattr(Training, "advance", signalled)
        with pytest.raises(Interrupted):
            run_config(
                compose(*words, "diagnostics.when=[first,10,last]", "method.chunk=1"), tmp_path / "killed", {}, []
            )
    cfg = compose(*words, "diagnostics.when=[first,10,last]", "method.chunk=1", "resume=true")
    run_config(cfg, tmp_path / "killed", {}, [])
    assert history(tmp_path / "killed") == history(tmp_path / "undisturbed")


def test_an_interrupted_run_is_not_begun_anew_by_the_way(compose: Compose, tmp_path: Path, killed_at: KilledAt) -> None:
    """The same command without resume=true: what is there stays, and a resumed run goes on from it."""
    words = ["model=two_layer", "model.width=5", "sampler.interior=16", "method.steps=20", "method.compile=never"]
    words += ["method.chunk=5", "method.checkpoint_every=5"]
    with killed_at(10):
        run_config(compose(*words), tmp_path, {}, [])
    for _ in range(2):
        with pytest.raises(UsageError, match="holds this run, interrupted: expected resume=true to go on with it"):
            run_config(compose(*words), tmp_path, {}, [])
    run_config(compose(*words, "resume=true"), tmp_path, {}, [])
    assert Result.read(tmp_path).is_finished
    run_config(compose(*words), tmp_path, {}, [])  # one that has ended is overwritten, as ever


@pytest.mark.parametrize(("killed", "of_a_sweep"), [(True, False), (False, False), (True, True)])
def test_what_is_refused_before_it_begins_leaves_a_run_that_may_go_on(
    compose: Compose, tmp_path: Path, killed_at: KilledAt, killed: bool, of_a_sweep: bool
) -> None:
    """By force, which leaves no result, or by a signal; a sweep is told why its cell did not go on."""
    words = ["model=two_layer", "model.width=5", "sampler.interior=16", "method.steps=20", "method.compile=never"]
    words += ["method.chunk=5", "method.checkpoint_every=5"]
    with killed_at(10):
        run_config(compose(*words), tmp_path, {}, [])
    if killed:
        (tmp_path / "result.json").unlink()
    before = {file: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    again = [] if of_a_sweep else ["resume=true"]
    with pytest.raises(UsageError, match="choose a smooth activation"):
        run_config(compose(*words, *again, "model.activation=relu"), tmp_path, {}, [], of_a_sweep)
    if of_a_sweep:
        result = Result.read(tmp_path)
        assert result is not None
        assert (result.status, "choose a smooth activation" in str(result.error)) == ("interrupted", True)
    else:
        assert {file: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()} == before
    with pytest.raises(UsageError, match="holds this run, interrupted: expected resume=true to go on with it"):
        run_config(compose(*words), tmp_path, {}, [])
    run_config(compose(*words, *again), tmp_path, {}, [], of_a_sweep)
    assert Result.read(tmp_path).is_finished


def test_a_killed_run_whose_points_follow_the_residual_resumes_to_the_same_bits(tmp_path: Path) -> None:
    folders = tmp_path / "undisturbed", tmp_path / "killed"
    for folder in folders:
        folder.mkdir()
    code, errors = finish(start(folders[0], folders[0] / "run", arguments=FOLLOWING))
    assert code == 0, errors
    process = start(folders[1], folders[1] / "run", arguments=FOLLOWING)
    wait_for(folders[1] / "run" / "checkpoint.ckpt", process)
    process.send_signal(signal.SIGKILL)
    assert finish(process)[0] == -9
    code, errors = finish(start(folders[1], folders[1] / "run", "resume=true", arguments=FOLLOWING))
    assert code == 0, errors
    assert history(folders[1] / "run") == history(folders[0] / "run")
    ours, theirs = (torch.load(f / "run" / "model.pt", weights_only=True) for f in folders)
    assert all(torch.equal(ours[k], theirs[k]) for k in theirs)


def test_resume_of_a_finished_run_does_nothing_and_of_no_run_is_refused(tmp_path: Path) -> None:
    short = ["method.steps=20", "diagnostics.when=[first,last]"]
    code, errors = finish(start(tmp_path, tmp_path / "typo", *short, "resume=true"))
    assert code == 2
    assert "holds no run to resume" in errors
    assert not (tmp_path / "typo" / "result.json").exists()
    assert finish(start(tmp_path, tmp_path / "run", *short))[0] == 0
    before = (tmp_path / "run" / "model.pt").stat().st_mtime_ns
    assert finish(start(tmp_path, tmp_path / "run", *short, "resume=true"))[0] == 0
    assert (tmp_path / "run" / "model.pt").stat().st_mtime_ns == before
    assert rows_of(tmp_path)["steps"] == [20]
    code, errors = finish(start(tmp_path, tmp_path / "run", "resume=true", *short, "seed=1"))
    assert code == 2
    assert "holds a run of another configuration" in errors


def test_a_finished_run_goes_on_to_more_steps_as_if_it_had_been_asked_for_them_at_once(tmp_path: Path) -> None:
    short, long = ["method.steps=300", "optimizer.switch=250"], ["method.steps=500", "optimizer.switch=250"]
    stores = [tmp_path / name for name in ("longer", "at_once")]
    for store in stores:
        store.mkdir()
    assert finish(start(stores[0], stores[0] / "run", *short))[0] == 0
    code, errors = finish(start(stores[0], stores[0] / "run", *long, "resume=true"))
    assert code == 0, errors
    assert "goes on to 500" in errors + (stores[0] / "run" / "pde_train.log").read_text()
    assert finish(start(stores[1], stores[1] / "run", *long))[0] == 0
    longer, at_once = (Result.read(store / "run") for store in stores)
    assert longer is not None
    assert at_once is not None
    assert longer.config_hash == at_once.config_hash
    for name in ("steps", "error_l2", "loss", "residual_exact", "spectrum/min", "entropy/1e-08"):
        assert longer.metrics[name] == at_once.metrics[name], name
    ours, theirs = (torch.load(store / "run" / "model.pt", weights_only=True) for store in stores)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    client = MlflowClient(f"sqlite:///{stores[0] / 'mlflow.db'}")
    (stored,) = client.search_runs([client.get_experiment_by_name("pde_train").experiment_id])
    assert stored.info.status == "FINISHED"
    assert stored.data.metrics["steps"] == 500
    assert (stored.data.params["method.steps"], stored.data.tags["method.steps"]) == ("300", "500")
    rows = client.get_metric_history(stored.info.run_id, "spectrum/final")
    newest = {m.step: m.value for m in sorted(rows, key=lambda m: m.timestamp)}
    kept = (stores[0] / "run" / "spectrum.csv").read_text().splitlines()[1:]
    assert newest == {int(k): float(s) for k, s in (line.split(",") for line in kept)}
    code, errors = finish(start(stores[0], stores[0] / "run", *short, "resume=true"))
    assert code == 2
    assert "or the same with more method.steps" in errors


def test_whatever_the_number_of_steps_a_run_goes_on_to_more(compose: Compose, tmp_path: Path) -> None:
    """The last step has a checkpoint, although `method.checkpoint_every` does not divide it."""
    words = ["model=two_layer", "model.width=5", "sampler.interior=16", "method.compile=never", "diagnostics=none"]
    words += ["method.checkpoint_every=7", "method.log_every=5"]
    run_config(compose(*words, "method.steps=10"), tmp_path / "longer", {}, [])
    step = torch.load(tmp_path / "longer" / "checkpoint.ckpt", weights_only=True)["pde_train"]["step"]
    assert step == 10
    run_config(compose(*words, "method.steps=15", "resume=true"), tmp_path / "longer", {}, [])
    run_config(compose(*words, "method.steps=15"), tmp_path / "at_once", {}, [])
    assert history(tmp_path / "longer") == history(tmp_path / "at_once")


def test_a_run_that_goes_on_without_compiled_code_says_so(
    compose: Compose, tmp_path: Path, killed_at: KilledAt, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["model=two_layer", "model.width=5", "sampler.interior=16", "diagnostics=none"]
    words += ["method.steps=20", "method.chunk=10", "method.checkpoint_every=10"]
    with killed_at(10):
        run_config(compose(*words, "method.compile=always"), tmp_path, {}, [])
    monkeypatch.setattr(compiling, "build", lambda *_: (_ for _ in ()).throw(RuntimeError("no compiler")))
    monkeypatch.setenv(CACHE, str(tmp_path / "another machine"))
    run_config(compose(*words, "method.compile=always", "resume=true"), tmp_path, {}, [])
    steps = Result.read(tmp_path).notes["steps"]
    assert steps.startswith("compiled: ")
    assert steps.endswith("; from step 10 on eager: the compilation failed")


def test_checkpoints_of_short_steps_are_few_and_the_last_step_has_one(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One takes longer than a fiftieth of forty steps."""
    saved, save = [], Training.save

    def noted(self: Training) -> None:
        saved.append(self.step)
        save(self)

    monkeypatch.setattr(Training, "save", noted)
    monkeypatch.setattr(training, "SAVING", 0.02)
    words = ["model=two_layer", "model.width=3", "sampler.interior=5", "method.compile=never", "diagnostics=none"]
    often = [*words, "method.steps=40", "method.checkpoint_every=1", "method.log_every=20"]
    run_config(compose(*often), tmp_path / "often", {}, [])
    assert saved[0] == 1
    assert saved[-1] == 40
    assert len(saved) < 20
