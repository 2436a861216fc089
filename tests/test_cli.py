"""The command as a user types it, in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import forked
import pytest

import pde_train as pde_train_package
from pde_train.conf_dir import conf_dir
from pde_train.errors import sentence


def environment_of(**more: str) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PDE_TRAIN", "HYDRA"))}
    return {**clean, "OMP_NUM_THREADS": "1", **more}


def pde_train(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command from its very start."""
    command = [sys.executable, "-m", "pde_train", *arguments]
    return subprocess.run(command, cwd=folder, env=environment_of(), capture_output=True, text=True, timeout=300)


def refused(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command without the time that its imports take."""
    return forked.run("-m", "pde_train", *arguments, folder=folder, environment=environment_of(**environment))


def test_help_shows_groups_choices_and_three_examples(tmp_path: Path) -> None:
    done = pde_train(tmp_path, "--help")
    assert done.returncode == 0
    for group in (g.name for g in conf_dir().iterdir() if g.is_dir() and g.name != "hydra"):
        assert f"\n{group}: " in done.stdout
    assert "poisson_1d" in done.stdout
    assert done.stdout.partition("Three to try:")[2].partition("\n\n")[0].count("python -m pde_train") == 3


def test_help_for_a_group_shows_its_choices_with_the_comments_of_their_keys(tmp_path: Path) -> None:
    for words in (("--help", "differentiator"), ("differentiator", "-h")):
        done = refused(tmp_path, *words)
        assert done.returncode == 0
        for file in (conf_dir() / "differentiator").rglob("*.yaml"):
            assert file.read_text().rstrip() in done.stdout
        assert "== differentiator=finite_difference/grid\n" in done.stdout
        assert "== model" not in done.stdout


def test_help_names_the_other_commands(tmp_path: Path) -> None:
    said = refused(tmp_path, "--help").stdout
    for module in ("status", "figures", "sync", "study", "report"):
        assert f"python -m pde_train.{module} " in said
        assert forked.run("-m", f"pde_train.{module}", "--help", folder=tmp_path).returncode == 0


def test_words_may_stand_on_both_sides_of_multirun(tmp_path: Path) -> None:
    words = ["model.features=5", "--multirun", "seed=0,1", "tracking=none", "diagnostics=none"]
    done = refused(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    assert "2 cells, 0 of them done" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--help", "tayler"], "tayler is no group: expected --help and one of accelerator, "),
        (["--confdir", "mine"], "--confdir is no option: expected one of --cfg, "),
        (["seed=0,1"], "seed=0,1 names several values, and this is one run: expected one value, or --multirun"),
        (
            ["method.steps=5"],
            "method.steps is no key of LeastSquares: expected one of rcond, or method=gauss_newton or ",
        ),
        (["optimizer.l=3"], "optimizer.l is no key of Adam: expected one of lr, betas, eps, did you mean lr?"),
        (["pde=of_mine"], "pde=of_mine is no choice: expected one of allen_cahn_1d, "),
    ],
)
def test_a_wrong_word_is_one_sentence_that_knows_more(words: list[str], said: str, tmp_path: Path) -> None:
    done = refused(tmp_path, *words)
    assert (done.returncode, done.stdout) == (2, "")
    (sentence,) = done.stderr.strip().splitlines()
    assert sentence.startswith(said)
    assert ("--config-dir with your own" in sentence) == (words == ["pde=of_mine"])
    assert not list(tmp_path.iterdir())


def test_help_for_a_group_shows_choices_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "own" / "pde").mkdir(parents=True)
    (tmp_path / "own" / "pde" / "fisher.yaml").write_text("_target_: fisher.Fisher\nrate: 1.0  # of growth\n")
    done = refused(tmp_path, "--config-dir", "own", "--help", "pde")
    assert "== pde=fisher\n_target_: fisher.Fisher\nrate: 1.0  # of growth\n" in done.stdout
    assert "== pde=poisson_1d\n" in done.stdout


def test_the_version_is_ours(tmp_path: Path) -> None:
    assert refused(tmp_path, "--version").stdout == f"pde_train {pde_train_package.__version__}\n"


def test_quiet_and_verbose(tmp_path: Path) -> None:
    """`-q` leaves the table and the log file; `-v` adds the errors at every measurement."""
    words = ["model=two_layer", "model.width=5", "sampler.interior=16", "method.steps=20", "method.log_every=10"]
    said, logs = {}, {}
    for word in ("-q", "-v"):
        done = refused(tmp_path, *words, word, "tracking=none", "diagnostics=none", f"hydra.run.dir={word}")
        assert done.returncode == 0, done.stderr
        said[word], logs[word] = done.stdout + done.stderr, (tmp_path / word / "pde_train.log").read_text()
    assert "poisson_1d, two_layer" in said["-q"]
    assert "training 16 parameters" not in said["-q"]
    assert "training 16 parameters" in logs["-q"]
    assert "step 10: error_l2" not in logs["-q"]
    for place in (said["-v"], logs["-v"]):
        assert place.count("residual_held_out") >= 3
        assert "step 10: error_l2" in place


def test_an_experiment_that_describes_a_sweep_says_so_where_one_run_is_asked_for(tmp_path: Path) -> None:
    done = refused(tmp_path, "experiment=first_look", "tracking=none", "diagnostics=none")
    assert done.returncode == 0, done.stderr
    assert "experiment=first_look describes a sweep (pde=poisson_1d,biharmonic_1d model=" in done.stdout + done.stderr
    assert "this is one run: --multirun trains all of it" in done.stdout + done.stderr


@pytest.mark.parametrize("argument", ["--help", "--cfg=job"])
def test_help_and_cfg_load_neither_torch_nor_lightning_nor_mlflow(tmp_path: Path, argument: str) -> None:
    code = (
        f"import sys; sys.argv[1:] = {argument.split('=')!r}\n"
        "from pde_train.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "sys.exit(len({'torch', 'lightning', 'mlflow', 'matplotlib', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_default_run_leaves_results_and_says_how_to_look(tmp_path: Path) -> None:
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
            ["+experiment=first_look"],
            2,
            "adds a group that every configuration has: expected experiment=first_look, drop",
        ),
        (["pde=heat"], 2, "pde=heat is no choice: expected one of allen_cahn_1d, "),
        (["pde=poison_1d"], 2, "did you mean poisson_1d?"),
        (["mdoel=mlp"], 2, "did you mean model?"),
        (["pde.frequncy=2"], 2, "did you mean frequency?"),
        (["experiment=first_lok"], 2, "did you mean first_look?"),
        (["--multirun", "experiment=first_lok"], 2, "did you mean first_look?"),
        (["tracking=null"], 2, "tracking=null is no choice: expected one of mlflow, none, offline"),
        (["diagnostics=null"], 2, "diagnostics=null is no choice: expected one of compare, none, spectrum"),
        (["model=7"], 2, "model=7 is no choice: expected one of fourier_features, mlp, modified_mlp, "),
        (["model=[1,2]"], 2, "model=[1,2] is no choice"),
        (["~model"], 2, "~model leaves no model"),
        (["~seed"], 2, "seed is missing"),
        (["--multirun", "seed=range(0)"], 2, "seed=range(0) names no value: expected at least one"),
        (["--multirun", "seed=range(3,0)"], 2, "seed=range(3,0) names no value"),
        (["--multirun", "model=glob(zz*)"], 2, "model=glob(zz*) names no value"),
        (
            ["--multirun", "differentiator=taylor,finite_difference", "differentiator.accuracy=4"],
            2,
            "differentiator.accuracy is no key of one choice of differentiator, which has none",
        ),
        (
            ["--multirun", "hydra/launcher=joblib", "hydra.launcher.n_jobs=0", "seed=0,1"],
            2,
            "hydra.launcher.n_jobs=0 is no number of processes",
        ),
        (["--multirun", "+precision=float32", "seed=0,1"], 2, "precision is no key of the configuration"),
        (["--multirun", "+callbacks.x=1", "seed=0,1"], 2, "callbacks is no key of the configuration"),
        (["sweep.fresh=true"], 2, "sweep.fresh=true changes nothing in a single run"),
        (["--multirun", "resume=true", "seed=0,1"], 2, "resume=true is for a single run"),
        (["optimizer.lr=0.1", "tracking=none"], 2, "changes nothing, as pde_train.methods.least_squares.LeastSquares"),
        (
            ["model=two_layer", "optimizer=lbfgs", "optimizer.max_eval=0", "tracking=none"],
            2,
            "optimizer.max_eval=0 is of no use",
        ),
        (["pde.speed=1"], 2, "pde.speed is no key of Poisson1D: expected one of frequency, weights"),
        (["differentiator=finite_difference", "differentiator.accuracy=3"], 2, "expected 2, 4, 6 or 8, choose one"),
        (["tracking.uri=gopher://127.0.0.1"], 1, "cannot be used ('gopher'): expected a store of this version"),
        (["tracking.uri=http://bob:s3cret@127.0.0.1"], 2, "tracking.uri holds a password or a token"),
    ],
)
def test_bad_input_is_one_line_and_an_exit_code(tmp_path: Path, arguments: list[str], code: int, sentence: str) -> None:
    done = refused(tmp_path, *arguments)
    assert done.returncode == code
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_traceback_only_when_asked_for(tmp_path: Path) -> None:
    done = refused(tmp_path, "+pde.speed=1", "tracking=none", HYDRA_FULL_ERROR="1")
    assert "Traceback" in done.stderr
    assert "Traceback" not in refused(tmp_path, "+pde.speed=1", "tracking=none").stderr


def test_one_store_wherever_hydra_runs_the_job(tmp_path: Path) -> None:
    done = refused(tmp_path, "--multirun", "hydra.job.chdir=true", "model.features=5,6", "hydra.sweep.dir=sweep")
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.rglob("mlflow.db")) == [tmp_path / "mlflow.db"]


@pytest.mark.parametrize(
    "words",
    [
        ["tracking.uri=http://bob:s3/cret@127.0.0.1:1"],
        ["++tracking.uri=http://bob:s3cret@127.0.0.1:1"],
        ["+tracking.uri=http://bob:s3cret@127.0.0.1:1"],
        ["tracking.uri='postgresql://127.0.0.1:1/db?user=bob&password=s3cret'"],
        ["tracking.uri=http://s3cret@127.0.0.1:1"],
        ["tracking={_target_:pde_train.tracking.mlflow.MlflowTracker,uri:http://bob:s3cret@127.0.0.1:1,experiment:x}"],
        ["--multirun", "tracking.uri=http://bob:s3cret@127.0.0.1:1", "seed=0,1"],
        ["--multirun", "tracking.uri=sqlite:///a.db,http://bob:s3cret@127.0.0.1:1"],
    ],
)
def test_a_secret_reaches_no_file_and_no_terminal(tmp_path: Path, words: list[str]) -> None:
    done = refused(tmp_path, *words)
    assert done.returncode == 2
    assert "tracking.uri holds a password or a token" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "cret" not in done.stdout + done.stderr
    assert not [f for f in tmp_path.rglob("*") if f.is_file() and b"cret" in f.read_bytes()]


def test_a_file_that_is_missing_is_not_told_as_one_to_be_written(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        (tmp_path / "input.csv").read_text()
    assert sentence(missing.value) == (
        f"{tmp_path / 'input.csv'} does not exist: expected this file or folder, correct its name or make it"
    )
    with pytest.raises(IsADirectoryError) as folder:
        tmp_path.read_text()
    assert "cannot be used (Is a directory): expected a file or folder that may be read" in sentence(folder.value)
