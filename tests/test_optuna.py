"""Searches by Optuna: what the words search, what a trial comes to, which runs end early, and that none is lost."""

import csv
import json
import math
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import optuna
import pytest
from fixtures import Compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from optuna.distributions import CategoricalDistribution as Choice
from optuna.distributions import FloatDistribution as Number
from optuna.distributions import IntDistribution as Whole
from optuna.trial import FrozenTrial, TrialState
from sweeping import SMALL, results, runs, started, swept

from pde_train.conf_dir import conf_dir
from pde_train.errors import Pruned, RunError, UsageError
from pde_train.experiment import build
from pde_train.methods.probe import Probe
from pde_train.run_folder import Status
from pde_train.runs.result import Result
from pde_train.runs.run import run
from pde_train.schema import Search
from pde_train.status import main as status
from pde_train.sweeps.optuna_sweeper import OptunaSweeper
from pde_train.sweeps.search_space import Space
from pde_train.training.stop import Bounded, Bounds

SEARCH = ["hydra/sweeper=optuna", *SMALL, "method.log_every=20"]
LR = "optimizer.lr=tag(log,interval(1e-4,1e-1))"
OPTIONS: dict[str, Any] = {
    "params": None,
    "trials": 9,
    "objective": None,
    "direction": "minimize",
    "average": ["seed"],
    "sampler": "tpe",
    "seed": 0,
    "at_once": 1,
    "pruner": "none",
    "pruned_by": "residual_held_out",
    "warmup_steps": 0,
    "warmup_trials": 2,
}


@pytest.fixture
def loader() -> Iterator[Any]:
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
        yield GlobalHydra.instance().config_loader()


def trials(folder: Path) -> list[FrozenTrial]:
    """What Optuna has kept of the only search in a folder."""
    (file,) = folder.glob("multirun/search-*/search.db")
    return optuna.load_study(study_name=file.parent.name, storage=f"sqlite:///{file}").trials


def story(folder: Path) -> list[tuple[Any, ...]]:
    """Everything of each trial but when and where it was."""
    return [(t.number, t.state, t.value, t.params, t.intermediate_values) for t in trials(folder)]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("a=choice(tanh,sin)", Choice(["sin", "tanh"])),
        ("a=tanh,sin", Choice(["sin", "tanh"])),
        ("a=shuffle(tanh,sin,sin)", Choice(["sin", "tanh"])),
        ("a=true,false", Choice(["False", "True"])),
        ("a=[1,2],[3]", Choice(["[1,2]", "[3]"])),
        ("a=1,10", Choice(["1", "10"])),
        ("a=interval(0.5,2)", Number(0.5, 2.0)),
        ("a=interval(1,8)", Number(1.0, 8.0)),  # Hydra's own meaning
        ("a=int(interval(1,8))", Whole(1, 8)),
        ("a=tag(int,interval(1.5,8.5))", Whole(2, 8)),
        ("a=tag(log,interval(1e-4,1e-1))", Number(1e-4, 1e-1, log=True)),
        ("a=tag(log,int,interval(1,1000))", Whole(1, 1000, log=True)),
        ("a=range(10,60,10)", Whole(10, 50, step=10)),
        ("a=range(60,10,-20)", Whole(20, 60, step=20)),
        ("a=range(4)", Whole(0, 3)),
        ("a=tag(log,range(1,9))", Whole(1, 8, log=True)),
        ("a=range(0.0,1.0,0.25)", Number(0.0, 0.75, step=0.25)),
        ("schedule=glob(co*)", Choice(["constant", "cosine"])),
        ("+a=1,2", Choice(["1", "2"])),
    ],
)
def test_the_space_is_what_the_words_say(loader: Any, word: str, expected: object) -> None:
    space = Space.of(["seed=4", word, "name=x"], ["seed"], loader)
    assert list(space.searched.values()) == [expected]
    assert space.fixed == ["seed=4", "name=x"]
    (key,) = space.searched
    assert space.words({key: "v"}) == ["seed=4", "name=x", f"{key}=v"]


def test_a_later_word_wins_and_lists_of_seeds_are_averaged(loader: Any) -> None:
    words = ["seed=0,1,2", "model.seed=range(3)", "model.width=interval(1,9)", "model.width=7", LR]
    space = Space.of(words, ["seed"], loader)
    assert space.averaged == ["seed=0,1,2"]
    assert set(space.searched) == {"model.seed", "optimizer.lr"}
    assert space.fixed == ["model.width=7"]
    assert space.first == {"model.seed": 0, "optimizer.lr": 1e-4}


def test_the_choices_of_groups_are_the_points_that_may_use_different_words(loader: Any) -> None:
    space = Space.of(["method=probe,gradient_descent", "model.activation=sin,tanh", LR], [], loader)
    other = {"model.activation": "sin", "optimizer.lr": 1e-4}
    assert list(space.choices) == [{"method": "gradient_descent", **other}, {"method": "probe", **other}]
    assert next(space.choices) == space.first


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("a=interval(2,1)", "a=interval\\(2,1\\) cannot be searched .*: expected .*, correct it"),
        ("a=tag(log,interval(0,1.0))", "cannot be searched"),
        ("a=interval(0,inf)", "its ends are not finite"),
        ("a=interval(0.0,nan)", "its ends are not finite"),
        ("a=range(3,3)", "it names no value"),
        ("a=tag(log,range(1,9,2))", "cannot be searched"),
        ("a=tag(lin,interval(0,1))", "the tag lin says nothing of such values"),
        ("a=tag(log,choice(1,2))", "the tag log says nothing of such values"),
        ("schedule=glob(x*)", "cannot be searched"),
        ("a=1", "has nothing to search: expected a word such as"),
        ("seed=0,1", "has nothing to search: expected a word such as"),
    ],
)
def test_words_that_cannot_be_searched_are_refused(loader: Any, word: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        Space.of([word], ["seed"], loader)


def ended(loader: Any, found: list[Result], **options: Any) -> FrozenTrial | None:
    sweeper = OptunaSweeper()
    sweeper.options = Search(**{**OPTIONS, **options})
    sweeper.space = Space.of([LR], [], loader)
    sweeper.objective = "error_l2"
    return sweeper._ended({"optimizer.lr": 1e-3}, found, [Path("nowhere")] * len(found))


def finished(value: float | None) -> Result:
    return Result(Status.FINISHED, metrics={"error_l2": value, "residual": 1.0})


FAILED, PRUNED = Result(Status.FAILED), Result(Status.PRUNED)


@pytest.mark.parametrize(
    ("found", "state", "value"),
    [
        ([finished(0.5)], TrialState.COMPLETE, 0.5),
        ([finished(0.5), finished(0.1), finished(0.2)], TrialState.COMPLETE, 0.2),
        ([finished(0.5), finished(0.1), FAILED], TrialState.COMPLETE, 0.5),
        ([finished(0.1), FAILED, PRUNED], TrialState.PRUNED, None),
        ([finished(0.1), FAILED, FAILED], TrialState.FAIL, None),
        ([finished(None)], TrialState.FAIL, None),
        ([PRUNED], TrialState.PRUNED, None),
        ([Result(Status.WAITING)], TrialState.FAIL, None),
    ],
)
def test_what_a_trial_comes_to(loader: Any, found: list[Result], state: TrialState, value: float | None) -> None:
    """A run without a value counts as worse than all others."""
    trial = ended(loader, found)
    assert trial is not None
    assert (trial.state, trial.value) == (state, value)


def test_of_a_trial_that_is_maximised_a_run_without_a_value_is_the_smallest(loader: Any) -> None:
    assert ended(loader, [finished(0.5), finished(0.1), FAILED], direction="maximize").value == 0.1


def test_a_trial_that_was_interrupted_has_come_to_nothing_yet(loader: Any) -> None:
    assert ended(loader, [finished(0.5), Result(Status.INTERRUPTED)]) is None


def test_a_metric_that_no_run_has_is_refused_with_those_there_are(loader: Any) -> None:
    with pytest.raises(RunError, match=r"objective=error_l2 is no metric .* expected one of residual$"):
        ended(loader, [Result(Status.FINISHED, metrics={"residual": 1.0})])


@pytest.mark.parametrize(("pruner", "step_10", "step_20"), [("median", 2.0, 20.0), ("quarter", 1.5, 15.0)])
def test_bounds_are_percentiles_of_finished_trials(
    tmp_path: Path, loader: Any, pruner: str, step_10: float, step_20: float
) -> None:
    sweeper = OptunaSweeper()
    sweeper.options = Search(**{**OPTIONS, "pruner": pruner, "warmup_trials": 3, "warmup_steps": 10})
    study = optuna.create_study()
    values = [{0: 9.0, 10: 1.0, 20: 10.0}, {0: 9.0, 10: 2.0, 20: 20.0}, {0: 9.0, 10: 3.0, 20: 30.0}]
    for value in values:
        assert sweeper._bounds(study, tmp_path) is None
        study.add_trial(optuna.trial.create_trial(value=1.0, intermediate_values=value))
        study.add_trial(optuna.trial.create_trial(state=TrialState.PRUNED, intermediate_values={10: 0.0}))
    file = sweeper._bounds(study, tmp_path)
    assert file is not None
    assert Bounds.read(file).largest == {10: step_10, 20: step_20}
    sweeper.options = Search(**OPTIONS)
    assert sweeper._bounds(study, tmp_path) is None


def test_bounds_end_a_run_whose_best_value_exceeds_them() -> None:
    stop = Bounded(bounds=Bounds("residual_held_out", "the median of 7 finished trials", {20: 0.5}))
    worse = {"residual_held_out": {0: 0.9, 10: 0.6, 20: 0.8}}
    assert stop.pruned(20, worse) == "residual_held_out=0.6 at best, and the median of 7 finished trials is 0.5"
    assert stop.pruned(10, worse) is None
    assert stop.pruned(20, {"residual_held_out": {10: 0.5, 20: 0.8}}) is None
    assert stop.pruned(20, {"error_l2": {20: 0.8}}) is None


@pytest.mark.usefixtures("without_figures")
def test_a_pruned_run_ends_before_its_last_step_and_says_so(tmp_path: Path, compose: Compose) -> None:
    Bounds("residual_held_out", "the median of 7 finished trials", {40: 1e-9, 60: 1e-9}).write(tmp_path / "bounds.json")
    words = [*SMALL, "method.log_every=20", "diagnostics=none"]
    with pytest.raises(Pruned, match="pruned at step 40: residual_held_out="):
        run(build(compose(*words, f"sweep.bounds={tmp_path / 'bounds.json'}")), tmp_path / "run")
    result = Result.read(tmp_path / "run")
    assert result.status is Status.PRUNED
    assert result.error.endswith("at best, and the median of 7 finished trials is 1e-09")
    with (tmp_path / "run" / "history.csv").open() as rows:
        assert max(int(row["step"]) for row in csv.DictReader(rows)) == 40
    short = [*words, "method.steps=40", f"sweep.bounds={tmp_path / 'bounds.json'}"]
    assert run(build(compose(*short)), tmp_path / "short").last()["steps"] == 40  # it has ended by itself


def test_a_method_without_steps_is_not_pruned() -> None:
    assert Probe().bounded(Bounds("residual_held_out", "", {})) == Probe()


def test_without_optuna_the_sweeper_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UsageError, match=r"needs Optuna .*: expected it, pip install 'pde_train\[optuna\]'"):
        OptunaSweeper().train([LR])


def test_optuna_is_imported_by_a_search_alone() -> None:
    program = "import sys, hydra_plugins.pde_train, pde_train.sweeps.optuna_sweeper; print('optuna' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["False"]


def test_a_search_through_its_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trials, their best one, more of them, another space; a run that fails stops nothing."""
    monkeypatch.chdir(tmp_path)
    words = [*SEARCH, "optimizer.lr=choice(1e-3,1e-2,1e200)", "model.width=range(4,8)"]
    out, _ = swept(tmp_path, *words, "hydra.sweeper.trials=5")
    swept(tmp_path, *words, "hydra.sweeper.trials=5")
    before = story(tmp_path)
    assert len(before) == 5
    out, _ = swept(tmp_path, *words, "hydra.sweeper.trials=8")
    kept = trials(tmp_path)
    assert story(tmp_path)[:5] == before
    assert len(kept) == 8
    for trial in kept:
        assert (trial.state is TrialState.FAIL) == (trial.params["optimizer.lr"] == "1e+200")
    assert 0 < out.count("failed: ") < 8
    (table,) = tmp_path.glob("multirun/search-*/table.csv")
    with table.open() as rows:
        errors = {row["config_hash"]: float(row["error_l2"]) for row in csv.DictReader(rows)}
    best = min((t for t in kept if t.value is not None), key=lambda t: t.value or 0.0)
    assert best.value == min(errors.values())
    (command,) = [line.strip() for line in out.splitlines() if line.strip().startswith("python -m pde_train")]
    (folder,) = best.user_attrs["folders"]
    assert shlex.split(command)[3:] == results(tmp_path)[Path(folder).name]["overrides"]
    assert f"error_l2={best.value:.6g}" in out
    (parent,), children = runs(tmp_path)
    assert command in parent.data.tags["mlflow.note.content"]
    assert parent.info.status == "FINISHED"
    assert {c.info.run_name for c in children} == {
        f"width {t.params['model.width']} · lr {t.params['optimizer.lr']}" for t in kept
    }
    assert status([]) == 0
    assert f"{len(results(tmp_path))} cells: " in capsys.readouterr().out
    swept(tmp_path, *SEARCH, "optimizer.lr=choice(1e-3,1e-2)", "model.width=range(4,8)", "hydra.sweeper.trials=1")
    assert len(list(tmp_path.glob("multirun/search-*"))) == 2
    out, _ = swept(tmp_path, *SEARCH, "optimizer.lr=choice(1e199,1e200)", "hydra.sweeper.trials=2", code=1)
    assert "Best of" not in out


def test_a_search_that_is_stopped_goes_on_to_the_same_trials(tmp_path: Path) -> None:
    """kill -9, then Ctrl-C, then the rest: trials, their numbers and who was pruned are those of one left in peace."""
    words = [*SEARCH, LR, "model.width=range(4,8)", "model.activation=tanh,sin", "method.steps=400"]
    words += [
        "method.checkpoint_every=50",
        "hydra.sweeper.trials=14",
        "hydra.sweeper.pruner=median",
        "hydra.sweeper.at_once=2",
    ]
    words += ["hydra.sweeper.warmup_trials=3", "tracking=none"]
    stopped, peace = tmp_path / "stopped", tmp_path / "peace"
    stopped.mkdir()
    peace.mkdir()
    for some, number, code in (("*/checkpoint.ckpt", signal.SIGKILL, -signal.SIGKILL), ("*", signal.SIGINT, 130)):
        process = started(stopped, *words)
        while len(list(stopped.glob(f"multirun/cells/{some}"))) < (6 if some == "*" else 1):
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        os.kill(process.pid, number)
        out, err = process.communicate(timeout=60)
        assert process.returncode == code, out + err
    assert "Best of" in out
    assert "go on with the same command" in out + err
    assert 0 < len(trials(stopped)) < 14
    swept(stopped, *words)
    swept(peace, *words)
    assert story(stopped) == story(peace)
    states = [trial.state for trial in trials(peace)]
    assert TrialState.PRUNED in states[3:]
    assert TrialState.PRUNED not in states[:4]


@pytest.mark.parametrize("launcher", [["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"], ["hydra/launcher=stacked"]])
def test_trials_that_are_launched_together(tmp_path: Path, launcher: list[str]) -> None:
    """Two at once, three seeds each; a trial is the median of its seeds, and runs end early in a stack, too."""
    words = [*SEARCH, LR, "seed=0,1,2", "hydra.sweeper.trials=6", "hydra.sweeper.at_once=2", "method.compile=auto"]
    words += ["hydra.sweeper.pruner=quarter", "hydra.sweeper.warmup_trials=2", *launcher, "method.steps=200"]
    out, _ = swept(tmp_path, *words, "hydra.sweeper.params={model.activation:'tanh,sin'}")
    found = results(tmp_path)
    kept = trials(tmp_path)
    assert len(kept) == 6
    assert len(found) == 18
    for trial in kept:
        assert set(trial.params) == {"optimizer.lr", "model.activation"}
        cells = [found[Path(folder).name] for folder in trial.user_attrs["folders"]]
        assert sorted(word for cell in cells for word in cell["overrides"] if word.startswith("seed")) == [
            "seed=0",
            "seed=1",
            "seed=2",
        ]
        values = [cell["metrics"].get("error_l2", math.inf) for cell in cells]
        assert trial.value == (median(values) if math.isfinite(median(values)) else None)
    pruned = {name: r["error"] for name, r in found.items() if r["status"] == "pruned"}
    assert pruned
    for name, why in pruned.items():
        said, _, _ = why.partition(":")
        with (tmp_path / "multirun" / "cells" / name / "history.csv").open() as rows:
            assert (
                max(int(row["step"]) for row in csv.DictReader(rows)) == int(said.removeprefix("pruned at step ")) < 200
            )
    assert out.count("pruned: ") == len(pruned)
    assert "--multirun" in out.partition("Best of 6 trials")[2]


def test_a_grid_trains_what_a_search_has_pruned_to_its_end(tmp_path: Path) -> None:
    words = [*SMALL, "method.log_every=20", "method.checkpoint_every=20", "tracking=none"]
    rates = "optimizer.lr=choice(1e-2,1e-5)"
    search = ["hydra/sweeper=optuna", rates, "hydra.sweeper.trials=6", "hydra.sweeper.pruner=median"]
    swept(
        tmp_path,
        *words,
        *search,
        "hydra.sweeper.warmup_trials=1",
        "hydra.sweeper.sampler=random",
        "hydra.sweeper.seed=3",
    )
    chosen = [(trial.params["optimizer.lr"], trial.state) for trial in trials(tmp_path)]
    assert set(chosen) == {("0.01", TrialState.COMPLETE), ("1e-05", TrialState.PRUNED)}
    assert sorted(r["status"] for r in results(tmp_path).values()) == ["finished", "pruned"]
    swept(tmp_path, *words, rates)
    (tmp_path / "peace").mkdir()
    swept(tmp_path / "peace", *words, rates)
    assert len(results(tmp_path)) == 2
    for name, found in results(tmp_path / "peace").items():
        assert results(tmp_path)[name]["curves"] == found["curves"]
        assert results(tmp_path)[name]["metrics"]["error_l2"] == found["metrics"]["error_l2"]


def test_a_gaussian_process_searches_too(tmp_path: Path) -> None:
    words = [*SEARCH, "model.width=range(3,6)", "optimizer.lr=interval(0.001,0.1)", "tracking=none", "method.steps=20"]
    swept(tmp_path, *words, "hydra.sweeper.trials=12", "hydra.sweeper.sampler=gp", "hydra.sweeper.direction=maximize")
    assert len({tuple(t.params.values()) for t in trials(tmp_path)}) > 6
    (file,) = tmp_path.glob("multirun/search-*/grid.json")
    assert len(json.loads(file.read_text())["cells"]) == len({tuple(t.params.values()) for t in trials(tmp_path)})


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "hydra/sweeper=optuna has nothing to search: expected a word such as"),
        (
            [LR, "hydra.sweeper.objective=eror_l2"],
            "objective=eror_l2 is no metric of these runs: expected one of error_l2",
        ),
        ([LR, "hydra.sweeper.trials=0"], "hydra.sweeper.trials=0 does not fit: expected greater than 0"),
        ([LR, "hydra.sweeper.sampler=best"], "sampler=best does not fit: expected 'tpe', 'gp' or 'random'"),
        ([LR, "hydra.sweeper.pruner=mean"], "pruner=mean does not fit: expected 'none', 'median' or 'quarter'"),
        ([LR, "hydra.sweeper.direction=down"], "direction=down does not fit: expected 'minimize' or 'maximize'"),
        ([LR, "hydra.sweeper.trails=3"], "trails"),
        (
            [LR, "hydra.sweeper.pruner=median", "hydra.sweeper.pruned_by=residual"],
            "pruned_by=residual is not measured while these runs train: expected one of residual_held_out, error_l2",
        ),
        (
            ["model.seed=range(3)", "method=probe", "hydra.sweeper.pruner=median"],
            "Probe takes no steps: expected hydra.sweeper.pruner=none",
        ),
        (["model.width=range(3,1)"], "model.width=range(3,1) cannot be searched (it names no value): expected"),
        (["model.wdth=range(3,9)"], "model.wdth is no field of pde_train.models.two_layer.two_layer: expected one of"),
        (
            ["model.seed=range(3)", "method=probe", "optimizer.lr=0.1"],
            "optimizer.lr=0.1 changes nothing, as pde_train.methods.probe.Probe uses no optimizer: expected no such",
        ),
        (
            [LR, "method=probe,least_squares", "model=random_features"],
            "optimizer.lr=0.0001 changes nothing, as pde_train.methods.least_squares.LeastSquares uses no optimizer",
        ),
        ([LR, "?model.width=range(3,9)"], "?model.width=range(3,9) is for the cells of a grid: expected"),
    ],
)
def test_what_no_search_can_use_is_said_before_anything_runs(tmp_path: Path, words: list[str], sentence: str) -> None:
    _, err = swept(tmp_path, "hydra/sweeper=optuna", "model=two_layer", "tracking=none", *words, code=2)
    assert sentence in err
    assert len(err.strip().splitlines()) == 1
    assert not list(tmp_path.glob("multirun/cells/*"))


def test_a_metric_with_a_slash_is_looked_for_in_the_first_run(tmp_path: Path) -> None:
    _, err = swept(tmp_path, *SEARCH, LR, "tracking=none", "hydra.sweeper.objective=spectrum/smallest", code=1)
    assert "hydra.sweeper.objective=spectrum/smallest is no metric of these runs: expected one of audit" in err
    assert len(results(tmp_path)) == 1
    swept(tmp_path, *SEARCH, LR, "tracking=none", "hydra.sweeper.objective=spectrum/min", "hydra.sweeper.trials=2")


def test_of_two_commands_at_once_one_searches(tmp_path: Path) -> None:
    words = [*SEARCH, LR, "tracking=none", "method.steps=100000", "method.checkpoint_every=100"]
    first = started(tmp_path, *words)
    while not list(tmp_path.glob("multirun/cells/*/checkpoint.ckpt")):
        assert first.poll() is None, first.communicate()
        time.sleep(0.01)
    _, err = swept(tmp_path, *words, code=2)
    assert "another process is at work in" in err
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=60)
