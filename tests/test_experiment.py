import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures import Compose, KilledAt
from omegaconf import DictConfig

from pde_train.errors import RunError, UsageError
from pde_train.experiment import build
from pde_train.problem import Problem
from pde_train.runs.provenance import config_hash
from pde_train.runs.result import Result
from pde_train.runs.run import run, run_config
from pde_train.training.checkpoint import load
from pde_train.training.checkpoint import write as write_checkpoint
from pde_train.training.schedule import Schedule

pytestmark = pytest.mark.usefixtures("without_figures")

NETWORK = ["model=two_layer", "model.width=8", "sampler.interior=20", "method.steps=40", "method.log_every=10"]


def test_both_differentiators_of_a_seed_start_from_the_same_bits(compose: Compose) -> None:
    for sampler in ("grid", "uniform", "sobol", "latin_hypercube"):
        for model in ("random_features", "two_layer", "mlp"):
            problems: list[Problem] = []
            for how in ("reverse", "finite_difference"):
                torch.manual_seed(len(problems))  # torch's global generator must not matter
                problems.append(
                    build(compose(f"differentiator={how}", f"model={model}", f"sampler={sampler}", "seed=3")).problem
                )
            one, other = (p.model.state_dict() for p in problems)
            assert one.keys() == other.keys()
            assert all(torch.equal(one[k], other[k]) for k in one)
            batches = [p.draw(np.random.default_rng(p.sampler.seed)) for p in problems]
            assert all(torch.equal(batches[0][r].x, batches[1][r].x) for r in ("interior", "boundary"))


def test_another_seed_starts_elsewhere(compose: Compose) -> None:
    one, other = (build(compose("model=two_layer", f"seed={s}")).problem.model.state_dict() for s in (0, 1))
    assert not torch.equal(one["layers.0.weight"], other["layers.0.weight"])


def test_a_run_does_not_depend_on_its_chunks(compose: Compose, tmp_path: Path) -> None:
    records = [
        run(build(compose(*NETWORK, "diagnostics.when=[first,7,last]", f"method.chunk={chunk}")), tmp_path / str(chunk))
        for chunk in (1, 13, 40)
    ]
    for record in records[1:]:
        assert record.series["loss"] == records[0].series["loss"]
        assert record.series["error_l2"] == records[0].series["error_l2"]
        assert sorted(record.spectra) == [0, 7, 40]
        assert all(np.array_equal(record.spectra[k].values, records[0].spectra[k].values) for k in record.spectra)


def test_points_are_drawn_again_when_asked(compose: Compose, tmp_path: Path) -> None:
    fixed, changing = (
        run(build(compose(*NETWORK, "sampler=uniform", f"sampler.resample_every={n}")), tmp_path / str(n)).series[
            "loss"
        ]
        for n in (0, 10)
    )
    assert [fixed[k] for k in range(10)] == [changing[k] for k in range(10)]
    assert all(fixed[k] != changing[k] for k in range(10, 40))


def test_least_squares_and_gradient_descent_minimise_the_same_residual(compose: Compose, tmp_path: Path) -> None:
    small = ["model.features=6", "sampler.interior=30", "model.weight_range=1"]
    solved = run(build(compose(*small)), tmp_path / "solved").last()
    descent = ["method=gradient_descent", "optimizer=lbfgs", "method.steps=300", "diagnostics=none"]
    # equal weights of rows (least squares) and of means (loss) differ: weight the two boundary rows accordingly
    weight = (30 / 2) ** 0.5
    trained = run(build(compose(*small, *descent, f"pde.weights.value={1 / weight}")), tmp_path / "trained").last()
    assert trained["error_l2"] == pytest.approx(solved["error_l2"], rel=1e-3)


def test_products_of_fewer_bits_than_float32_are_refused(compose: Compose) -> None:
    words = compose(*NETWORK, "accelerator.precision=float32")
    torch.set_float32_matmul_precision("high")
    try:
        with pytest.raises(UsageError, match=r"precision\('high'\) would round products to TF32 or bfloat16"):
            build(words)
    finally:
        torch.set_float32_matmul_precision("highest")


def test_float32_is_float32_throughout(compose: Compose, tmp_path: Path) -> None:
    single, double = (
        run(build(compose(*NETWORK, f"accelerator.precision={p}")), tmp_path / p) for p in ("float32", "float64")
    )
    state = torch.load(tmp_path / "float32" / "model.pt", weights_only=True)
    assert {t.dtype for t in state.values()} == {torch.float32}
    assert 1e-9 < abs(single.series["loss"][0] / double.series["loss"][0] - 1) < 1e-5


def test_nan_fails_with_a_sentence_and_keeps_what_was_computed(compose: Compose, tmp_path: Path) -> None:
    cfg = compose(*NETWORK, "optimizer=gradient", "optimizer.lr=1e6", "diagnostics=none", "method.chunk=5")
    with pytest.raises(
        RunError, match=r"nan or infinite at step \d+: expected finite numbers, choose a smaller optimizer.lr"
    ):
        run_config(cfg, tmp_path, {}, [])
    result = Result.read(tmp_path)
    assert result.status == "failed"
    assert "choose a smaller optimizer.lr" in str(result.error)
    assert len((tmp_path / "history.csv").read_text().splitlines()) > 5


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["differentiator=finite_difference", "differentiator.accuracy=3"], "expected 2, 4, 6 or 8"),
        (["differentiator=finite_difference", "differentiator.step=-0.1"], "optimal or a positive number"),
        (["model.activation=relu"], "up to order 1, and Poisson1D needs order 2: choose a smooth activation"),
        (["model=two_layer", "method=least_squares"], "needs a model that is linear in its parameters"),
        (["pde=poisson_2d", "sampler.interior=1000"], r"not square: expected 961, 1024 or a list"),
        (["model=two_layer", "method.steps=0"], "method.steps=0 is no number of steps"),
        (["entropy.thresholds=[]"], "expected numbers >= 0"),
        (["diagnostics.when=[sometimes]"], "expected first, log, last or steps"),
        (["method.rcond=2"], "expected 0 <= rcond < 1"),
        (["pde.frequency=0"], "pde.frequency=0 makes no wave"),
        (["sampler=uniform", "sampler.interior=[10,20]"], "is for a grid: expected one number, 200 in all"),
        (["model=two_layer", "optimizer.lr=-1"], "optimizer cannot be made"),
    ],
)
def test_bad_input_is_refused_with_a_sentence(
    compose: Compose, tmp_path: Path, overrides: list[str], sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        run_config(compose(*overrides), tmp_path, {}, overrides)
    assert Result.read(tmp_path).status == "failed"


def test_a_step_below_rounding_is_refused(compose: Compose, tmp_path: Path) -> None:
    cfg = compose("differentiator=finite_difference", "differentiator.step=1e-15")
    with pytest.raises(UsageError, match=r"lost in the rounding of torch.float64 coordinates: expected at least 2e-14"):
        run_config(cfg, tmp_path, {}, [])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_gpu_is_refused_where_there_is_none(compose: Compose) -> None:
    with pytest.raises(UsageError, match="torch sees no GPU: expected one, choose accelerator=cpu"):
        build(compose("accelerator=gpu"))


def test_a_full_disk_is_one_sentence_and_the_old_checkpoint_stays(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import os

    written = []

    def fsync(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(RunError, match=r"no space left on the disk of .*resume=true"):
        run_config(compose(*NETWORK, "method.checkpoint_every=10"), tmp_path, {}, [])
    assert torch.load(tmp_path / "checkpoint.ckpt", weights_only=True)["pde_train"]["step"] == 10
    assert not list(tmp_path.glob("*.part"))
    monkeypatch.undo()
    result = run_config(compose(*NETWORK, "method.checkpoint_every=10", "resume=true"), tmp_path, {}, [])
    assert result.status == "finished"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pde=clamped_plate_2d", "pde.weights.value=2"], None),
        (["pde=poisson_2d", "pde.conditions=exact", "pde.weights.value=2"], "pde.weights of value changes nothing"),
        (["model.separate=true"], "model.separate=true changes nothing: the PDE has one unknown"),
        (["pde=poisson_2d", "pde.conditions=exact"], None),
        (["pde=kovasznay_2d", "model.separate=true"], None),
    ],
)
def test_what_changes_nothing_is_said(
    compose: Compose, words: list[str], said: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    build(compose("model=two_layer", "model.width=4", "sampler.interior=16", *words))
    assert (said in caplog.text) if said else ("changes nothing" not in caplog.text)


def test_a_randomised_spectrum_says_so_and_gives_no_number_that_it_does_not_resolve(
    compose: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    overrides = ["pde=biharmonic_2d", "model=mlp", "model.hidden=[10,10]", "sampler.interior=64", "method.steps=2"]
    overrides += ["diagnostics.when=[last]", "diagnostics.max_dense=1000"]
    result = run_config(compose(*overrides), tmp_path, {}, overrides)
    assert "adaptive randomised SVD: nothing below" in caplog.text
    assert result.notes["spectrum_method"] == "randomised"
    metrics = json.loads((tmp_path / "result.json").read_text())["metrics"]
    assert metrics["spectrum/resolution"] > 1e-4
    assert metrics["spectrum/max"] > 1
    for name in ("spectrum/min", "spectrum/condition", "spectrum/count/1e-12", "entropy/1e-08", "cutoff/1e-08"):
        assert metrics[name] is None


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_lbfgs_trains_where_gradients_are_large(compose: Compose, tmp_path: Path, precision: str) -> None:
    overrides = ["pde=biharmonic_1d", "model=two_layer", "optimizer=lbfgs", "method.steps=60", "diagnostics=none"]
    losses = run(build(compose(*overrides, f"accelerator.precision={precision}")), tmp_path).series["loss"]
    assert losses[59] < losses[0] / 10


def test_a_password_reaches_no_file_and_no_sentence(
    compose: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    overrides = ["tracking=mlflow", "tracking.uri=http://bob:s3cret@127.0.0.1:9"]
    assert run_config(compose(*overrides), tmp_path, {}, overrides).status == "finished"
    assert "does not answer" in caplog.text
    assert "s3cret" not in caplog.text
    for file in (f for f in tmp_path.rglob("*") if f.is_file()):
        assert b"s3cret" not in file.read_bytes(), file


def test_result_names_what_decided_it(compose: Compose, tmp_path: Path) -> None:
    overrides = ["seed=5", "differentiator=finite_difference"]
    run_config(compose(*overrides), tmp_path, {"pde": "poisson_1d"}, overrides)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["overrides"] == overrides
    assert result["versions"]["torch"].startswith(torch.__version__.partition("+")[0])
    same = config_hash(build(compose(*overrides, "name=other")).config)
    assert result["config_hash"] == same
    assert config_hash(build(compose("differentiator=finite_difference")).config) != same


def test_tracking_none_never_imports_mlflow_and_least_squares_never_lightning(tmp_path: Path) -> None:
    code = (
        "import sys; from pde_train.cli import main; sys.argv[1:] = ['tracking=none']; main();"
        "bad = {'mlflow', 'lightning'} & set(sys.modules); print('imported', bad); sys.exit(bool(bad))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def interrupted(compose: Compose, folder: Path, killed_at: KilledAt, *words: str) -> DictConfig:
    """A run of NETWORK that was stopped at step 20, and has a checkpoint there."""
    cfg = compose(*NETWORK, "method.checkpoint_every=10", *words)
    with killed_at(20):
        run_config(cfg, folder, {}, [])
    cfg.resume = True
    return cfg


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def change(**about: Any) -> Callable[[Path], None]:
    """Write the checkpoint again, with its checksum, after a change of what it says."""

    def write(file: Path) -> None:
        state = load(file)
        for key, value in about.items():
            if key == "parameters":
                state["state_dict"] = {k: v * value for k, v in state["state_dict"].items()}
            else:
                state["pde_train"][key] = value
        write_checkpoint(file, state)

    return write


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (flip, "is damaged, or no checkpoint of this version"),
        (lambda file: file.write_bytes(file.read_bytes()[:-10]), "is damaged"),
        (lambda file: file.write_bytes(b""), "is damaged"),
        (change(step=10**9), "is of step 1000000000, and the run has 40"),
        (change(step=-1), "is of step -1"),
        (change(config_hash="0123456789ab"), "is the checkpoint of another configuration .0123456789ab, not"),
        (change(parameters=float("nan")), "holds parameters that are nan or infinite"),
    ],
)
def test_a_spoiled_checkpoint_is_not_taken_up(
    compose: Compose, tmp_path: Path, killed_at: KilledAt, spoil: Callable[[Path], object], sentence: str
) -> None:
    cfg = interrupted(compose, tmp_path, killed_at)
    spoil(tmp_path / "checkpoint.ckpt")
    with pytest.raises(RunError, match=sentence):
        run_config(cfg, tmp_path, {}, [])
    assert Result.read(tmp_path).status == "failed"
    (tmp_path / "checkpoint.ckpt").unlink()
    assert run_config(cfg, tmp_path, {}, []).status == "finished"


def test_the_checkpoint_of_another_equation_of_the_same_shape_is_not_taken_up(
    compose: Compose, tmp_path: Path, killed_at: KilledAt
) -> None:
    interrupted(compose, tmp_path / "other", killed_at, "pde=biharmonic_1d")
    cfg = interrupted(compose, tmp_path / "run", killed_at)
    (tmp_path / "other" / "checkpoint.ckpt").replace(tmp_path / "run" / "checkpoint.ckpt")
    with pytest.raises(RunError, match="is the checkpoint of another configuration"):
        run_config(cfg, tmp_path / "run", {}, [])


def test_only_what_a_run_wrote_is_removed_from_its_folder(compose: Compose, tmp_path: Path) -> None:
    words = ["model.features=5", "diagnostics=none"]
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "holiday.png").write_text("mine")
    (tmp_path / "model.pt").write_text("mine")
    with pytest.raises(UsageError, match=r"holds model.pt, figures of no run: expected a folder of its own"):
        run_config(compose(*words), tmp_path, {}, [])
    assert (tmp_path / "model.pt").read_text() == "mine"
    assert not (tmp_path / "result.json").exists()
    (tmp_path / "model.pt").unlink()
    (tmp_path / "figures" / "holiday.png").rename(tmp_path / "holiday.png")
    (tmp_path / "figures").rmdir()
    run_config(compose(*words), tmp_path, {}, [])
    (tmp_path / "holiday.png").rename(tmp_path / "figures" / "holiday.png")
    (tmp_path / "figures" / "error.png").write_text("an older run's")
    run_config(compose(*words, "seed=1"), tmp_path, {}, [])
    assert (tmp_path / "figures" / "holiday.png").read_text() == "mine"
    assert not (tmp_path / "figures" / "error.png").exists()


def test_a_trillion_steps_are_planned_as_they_come(compose: Compose) -> None:
    import itertools
    import time

    build(compose("model=two_layer", "method.steps=1000000000000", "diagnostics.when=[first,7,last]"))
    schedule = Schedule(10**12, chunk=1000, log_every=100, checkpoint_every=1000, compile="auto")
    began = time.monotonic()
    stops = list(itertools.islice(schedule.stops(0, frozenset({0, 7, 10**12}), 0), 3))
    assert stops == [7, 1000, 2000]
    assert time.monotonic() - began < 1
    assert list(schedule.stops(10**12 - 1500, frozenset({10**12}), 0)) == [10**12 - 1000, 10**12]
