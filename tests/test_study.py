"""A miniature of the study, from its command to its page: every kind of part, every kind of comparison."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import forked
import pandas as pd
import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from sweeping import swept

from pde_train.conf_dir import conf_dir
from pde_train.errors import RunError
from pde_train.run_folder import is_locked
from pde_train.runs.result import Result
from pde_train.study import parts
from pde_train.study.hypotheses import Outcome, read_hypotheses, word
from pde_train.study.pairs import LOST
from pde_train.study.parts import PARTS, Part
from pde_train.study.report import main as report
from pde_train.study.run_table import LABEL, _table, read
from pde_train.study.verdicts import judge
from pde_train.tracking.reading import Reader

pytestmark = pytest.mark.slow  # whichever test is the first waits for the miniature

RAN = {
    **{"random_features": 10, "networks": 6, "floor": 4, "floor_deep": 8, "causes": 12, "contour": 2, "optimal": 4},
    "thresholds": 24,
}
"""Parts of the miniature, and the cells that it makes of them: one equation, two seeds."""

WORDS = ["--small", "--parts", ",".join(RAN), "pde=poisson_1d", "seed=0,1"]
FEWER = "differentiator=reverse,finite_difference,finite_difference/grid,finite_difference/1e-3,finite_difference/1e-1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the miniature has run once."""
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(parts, "Popen", forked.in_place_of_popen)
        patch.setitem(PARTS, "random_features", Part(1, [*(PARTS["random_features"].small or []), FEWER]))
        patch.setitem(PARTS, "networks", Part(1, ["method.steps=40"]))
        patch.setitem(PARTS, "floor", Part(1, ["differentiator=taylor,finite_difference", "method.steps=40"]))
        patch.setitem(PARTS, "floor_deep", Part(1, ["model.hidden=[20],[20,20]", "method.steps=20"]))
        assert parts.main(WORDS) == 0
        yield folder / "study-small"


def test_every_part_is_an_experiment_and_the_other_way_round() -> None:
    assert set(PARTS) == {file.stem for file in (conf_dir() / "experiment" / "study").glob("*.yaml")}


@pytest.mark.parametrize("stopped", ["a part", "the study"])
def test_a_signal_that_stops_a_part_stops_the_study(
    stopped: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun: list[str] = []
    interrupted = threading.Event()

    def interrupt(*_: object) -> NoReturn:
        interrupted.set()
        raise KeyboardInterrupt

    def run_part(part: str, *_: object) -> int:
        begun.append(part)
        if len(begun) == 2 and stopped == "a part":
            return 130
        if len(begun) == 2:
            os.kill(os.getpid(), signal.SIGINT)
            assert interrupted.wait(60)
            time.sleep(0.5)
        return 0

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(parts, "run_part", run_part)
    monkeypatch.setattr(parts, "report", lambda _: pytest.fail("a study that was stopped has no report"))
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        assert parts.main(["--at-once", "1", "--parts", "widths,contour,optimal,causes"]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert begun == ["widths", "contour"]
    assert capsys.readouterr().err == "The study was stopped: the same command goes on where it was\n"


def test_sigterm_stops_the_study_and_its_sweeps_which_save(tmp_path: Path) -> None:
    words = ["--small", "--parts", "networks", "pde=poisson_1d", "seed=0,1", "differentiator=taylor"]
    long = ["method.steps=10000000", "method.checkpoint_every=100", "method.compile=never", "diagnostics=none"]
    study = forked.started("-m", "pde_train.study", *words, *long, folder=tmp_path)
    cells = tmp_path / "study-small" / "multirun" / "cells"
    while len(list(cells.glob("*/checkpoint.ckpt"))) < 2:
        assert study.poll() is None, study.communicate()
        time.sleep(0.05)
    study.send_signal(signal.SIGTERM)
    _, said = study.communicate(timeout=100)
    assert study.returncode == 128 + signal.SIGTERM, said
    assert "The study was stopped: the same command goes on where it was" in said
    kept = [Result.read(file.parent) for file in cells.glob("*/result.json")]
    assert [result is not None and "a checkpoint was written" in str(result.error) for result in kept] == [True] * 2
    assert not any(is_locked(folder) for folder in cells.iterdir())


def test_the_time_that_is_left_counts_what_running_parts_have_done(monkeypatch: pytest.MonkeyPatch) -> None:
    parts_of = {"floor_2d": 50.0, "cross": 12.0, "order": 12.0, "contour": 1.0}
    monkeypatch.setattr(parts, "PARTS", {name: parts.Part(minutes) for name, minutes in parts_of.items()})
    # 12 of cross and 30 of floor_2d in half an hour, 33 are left
    assert parts.minutes_left(parts_of, ["cross"], {"floor_2d": 30.0, "cross": 30.0}) == pytest.approx(33 * 30 / 42)
    assert parts.minutes_left(parts_of, parts_of, dict.fromkeys(parts_of, 40.0)) == 0.0


def test_the_page_has_every_hypothesis_its_figures_and_no_address_of_another_machine(folder: Path) -> None:
    page = (folder / "report" / "report.html").read_text()
    for hypothesis in read_hypotheses():
        assert f'id="hypothesis-{hypothesis.number}"' in page
        for part in hypothesis.parts:
            assert f"python -m pde_train --multirun experiment=study/{part} " in page
    assert 'id="causes"' in page
    pictures = sorted((folder / "report").glob("*.png"))
    assert {p.stem for p in pictures} == {
        *(
            "1-tested",
            "1-floors",
            "2-levels",
            "2-frontier",
            "2-losses",
            "2-ratios",
            "3-tested",
            "3-spectra",
            "4-tested",
            "4-entropies",
            "5-gaps",
            "9-training",
            "causes",
        )
    }
    assert {p.with_suffix(".pdf") for p in pictures} == set((folder / "report").glob("*.pdf"))
    assert page.count('src="data:image/png;base64,') == len(pictures)
    assert not re.search(r"(src|href)=\"?(http|//|/)", page)


def test_the_page_counts_every_run(folder: Path) -> None:
    about = json.loads((folder / "report" / "verdicts.json").read_text())["about"]
    # the plain entropy of a threshold's cells, and the step that causes and random features share, are runs already
    views = RAN["thresholds"] * 5 // 6
    assert about["views"] == views
    shared = 2 * 2  # h = auto and 1e-3, two seeds
    trained = sum(RAN.values()) - RAN["thresholds"] - shared
    assert about["distinct"] == about["finished"] == about["runs"] == trained + views
    assert about["not finished"] == {}
    assert about["failed cells"] == 0


def test_verdicts_follow_from_primary_strata_by_the_rule(folder: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not strict JSON")

    found = json.loads((folder / "report" / "verdicts.json").read_text(), parse_constant=refuse)["verdicts"]
    for hypothesis, verdict in zip(read_hypotheses(), found, strict=True):
        primary = [stratum for stratum in verdict["strata"] if stratum["when"]]
        assert len(primary) == len(hypothesis.primary)
        assert verdict["word"] == word([Outcome(stratum["outcome"]) for stratum in primary])
        assert verdict["word"] in ("not decidable", "no data")  # two seeds
        assert all(stratum["p"] is None for stratum in verdict["strata"] if not stratum["when"])
        assert {s["comparison"] for s in verdict["strata"]} <= {c.name for c in hypothesis.comparisons}
    floors = [s for s in found[0]["strata"] if s["when"] == "second order in 1D"]
    assert [(s["estimate"]["n"], s["reachable"]) for s in floors] == [(2, 0.5), (2, 0.5)]
    assert floors[0]["estimate"]["value"] > 4  # decades: a number that is seen, whatever two seeds can prove


def test_the_page_says_that_two_seeds_decide_nothing(folder: Path) -> None:
    page = (folder / "report" / "report.html").read_text()
    assert "not decidable with 2 pairs; smallest reachable p =" in page
    assert "does not hold:" not in re.sub(r"<ul>.*?</ul>", "", page, count=1, flags=re.S)


def test_entropies_of_the_same_runs_are_no_pairs(folder: Path) -> None:
    strata = json.loads((folder / "report" / "verdicts.json").read_text())["verdicts"][0]["strata"]
    assert {stratum["estimate"]["n"] for stratum in strata} == {0, 2}  # two seeds, and what the miniature left out
    assert all(stratum["lost"] == {} for stratum in strata)


def test_a_run_that_did_not_finish_is_counted_where_it_belongs(folder: Path, tmp_path: Path) -> None:
    store = tmp_path / "mlflow.db"
    shutil.copy(folder / "mlflow.db", store)
    client = MlflowClient(f"sqlite:///{store}")
    experiment = client.get_experiment_by_name("study").experiment_id
    failed = next(
        run
        for run in client.search_runs([experiment], "tags.model = 'random_features'", max_results=1000)
        if run.data.params.get("differentiator.step") == "auto"
        and run.data.params.get("differentiator.part") is None
        and run.data.params.get("differentiator.accuracy") == "2"
        and run.data.params.get("seed") == "1"
        and run.data.tags.get("config_hash")
    )
    for run in client.search_runs([experiment], f"tags.config_hash = '{failed.data.tags['config_hash']}'"):
        client.set_terminated(run.info.run_id, "FAILED")
    verdict = judge(read_hypotheses()[0], read(Reader(f"sqlite:///{store}", "study"), []))
    of_auto = [s for s in verdict.strata if s.labels["scheme"] == "FD2 h=auto" and s.labels["pde"] == "poisson_1d"]
    assert [(s.estimate.n, s.lost) for s in of_auto if s.estimate.n] == [(1, {LOST[0]: 1})] * 2


def test_the_steps_of_a_configuration_are_not_those_after_which_a_run_ended() -> None:
    ended = {"id": "a", "params.method.steps": "15000", "metrics.steps": 2300.0, "metrics.error_l2": 0.1}
    table = _table(pd.DataFrame([{**ended, LABEL: "taylor"}]))
    assert table[["steps", "error_l2"]].to_dict("records") == [{"steps": 15000, "error_l2": 0.1}]


def again(client: MlflowClient, experiment: str, run: Run, **changes: Any) -> str:
    """Log a run once more, later, with other parameters, tags or metrics."""
    metrics = run.data.metrics | changes.pop("metrics", {})
    params = run.data.params | changes.pop("params", {})
    new = client.create_run(experiment, tags=run.data.tags | changes, start_time=run.info.start_time + 1000)
    for key, value in metrics.items():
        client.log_metric(new.info.run_id, key, value)
    for key, value in params.items():
        client.log_param(new.info.run_id, key, value)
    client.set_terminated(new.info.run_id)
    return new.info.run_id


def test_a_configuration_counts_once_and_another_choice_is_refused(folder: Path, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    shutil.copy(folder / "mlflow.db", tmp_path / "mlflow.db")
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("study").experiment_id
    both = "tags.model = 'random_features' and params.seed = '0' and params.entropy.normalisation = 'log_cutoff'"
    runs = [r for r in client.search_runs([experiment], both, max_results=1000) if "view_of" not in r.data.tags]
    by_way = {(r.data.params["differentiator"], r.data.params.get("differentiator.step")): r for r in runs}
    newer = again(
        client, experiment, by_way["reverse", None], config_hash="of another source", metrics={"residual": 1.0}
    )
    found = read(Reader(store, "study"), [])
    exact = found.trained[(found.trained["scheme"] == "reverse") & (found.trained["seed"] == 0)]
    assert list(exact["id"]) == [newer]
    assert found.summary["repeated"] == 1
    for run in (by_way["reverse", None], by_way["finite_difference", "auto"]):
        again(
            client, experiment, run, config_hash=f"{run.info.run_id} of other points", params={"sampler.boundary": "7"}
        )
    with pytest.raises(
        RunError, match=r"has 2 runs of seed 0 in the stratum .* which differ in sampler.boundary: expe"
    ):
        judge(read_hypotheses()[0], read(Reader(store, "study"), []))


def test_an_empty_experiment_is_one_sentence(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(folder / "mlflow.db", tmp_path / "mlflow.db")
    MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}").create_experiment("empty")
    words = ["--uri", f"sqlite:///{tmp_path / 'mlflow.db'}", "--experiment", "empty"]
    assert report([*words, "--folder", str(tmp_path / "report")]) == 1
    printed = capsys.readouterr().err
    assert (
        printed == "the experiment 'empty' has no finished run (0 others): expected those of the study, run it first\n"
    )
    assert not (tmp_path / "report").exists()


def test_a_report_loads_no_library_of_training(folder: Path, tmp_path: Path) -> None:
    """A report is made within seconds, on a machine that may have no torch."""
    program = """
import sys
import pde_train.report
from pde_train.study.parts import report
code = report(sys.argv[1:])
print("loaded:", *sorted({"torch", "lightning", "pytorch_lightning"} & set(sys.modules)))
sys.exit(code)
"""
    words = ["--uri", f"sqlite:///{folder / 'mlflow.db'}", "--folder", str(tmp_path / "report")]
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded:"
    assert (tmp_path / "report" / "report.html").exists()


def test_every_run_has_stored_the_label_of_its_differentiator(folder: Path) -> None:
    runs = Reader(f"sqlite:///{folder / 'mlflow.db'}", "study").runs()
    trained = runs[runs["tags.config_hash"].notna() & runs["tags.view_of"].isna()].to_dict("records")
    assert {run[LABEL] for run in trained} > {"reverse", "taylor", "complex_step", "FD2 h=0.001", "FD8 h=optimal"}


def test_the_parts_of_the_error_add_up_in_the_page(folder: Path) -> None:
    page = (folder / "report" / "report.html").read_text()
    for scheme in ("complex_step", "FD8 h=optimal", "FD2 h=auto, truncation alone", "FD2 h=auto, rounding alone"):
        assert f"<tr><td>{scheme}</td>" in page


def test_every_parent_run_has_the_report(folder: Path) -> None:
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("study").experiment_id], max_results=1000)
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == len(RAN)
    for parent in parents:
        assert "report/report.html" in [file.path for file in client.list_artifacts(parent.info.run_id, "report")]


def test_the_same_command_trains_nothing_again(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "report", lambda words: 0)
    assert parts.main(WORDS) == 0
    assert capfd.readouterr().err == ""
    for part, cells in RAN.items():
        trained = cells // 6 if part == "thresholds" else cells  # six definitions of one training
        assert f"{trained} cells, {trained} of them done" in (folder / "study-logs" / f"{part}.log").read_text()


def test_a_part_that_does_not_exist_is_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert parts.main(["--parts", "networks,widts"]) == 2
    every = ", ".join(parts.PARTS)
    assert capsys.readouterr().err == (f"--parts widts is no part of the study: expected some of {every}, correct it\n")
    assert parts.main(["--small", "--parts", "floor_2d"]) == 2
    small = ", ".join(name for name, part in parts.PARTS.items() if part.small is not None)
    assert capsys.readouterr().err == f"--small leaves out --parts floor_2d: expected some of {small}\n"
    assert not list(tmp_path.iterdir())


def test_the_report_looks_where_the_runs_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told: list[Sequence[str]] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(parts, "run_part", lambda *_: 0)
    monkeypatch.setattr(parts, "report", lambda words: told.append(words) or 0)
    assert parts.main(["--parts", "contour", "tracking.experiment=mine", "tracking.uri=sqlite:///a.db"]) == 0
    assert told == [["--uri", "sqlite:///a.db", "--experiment", "mine", "--folder", "report"]]


PLANTED = """
number: {number}
title: {title}
source: planted
parts: []
alpha: 0.01
comparisons:
  - name: the error is {expected} with {scheme}
    kind: paired
    quantity: [error_l2]
    scale: log10
    expected: {expected}
    margin: 0.301
    exact: reverse
    schemes: [{scheme}]
    strata: [pde, scheme]
    primary:
      - {{when: {title}, pde: poisson_1d, scheme: {scheme}}}
"""


def test_a_planted_effect_and_a_planted_null_are_both_called_right(tmp_path: Path) -> None:
    """A step of 0.1 has an error of pi^2 h^2 / 12; two exact modes differ by rounding alone."""
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    schemes = "reverse,taylor,finite_difference/1e-1"
    sweep = [
        *("model=random_features", "pde=poisson_1d", f"differentiator={schemes}", "seed=range(0,12)"),
        *("model.features=20", "sampler.interior=50", "diagnostics=none", "audit.factor=null"),
        *("tracking.experiment=planted", f"tracking.uri={store}", f"hydra.sweep.dir={tmp_path / 'multirun'}"),
    ]
    swept(tmp_path, *sweep)
    claims = [("an effect", "greater", "FD2 h=0.1"), ("its opposite", "less", "FD2 h=0.1")]
    claims += [("a null", "same", "taylor"), ("an effect that is none", "greater", "taylor")]
    for number, (title, expected, scheme) in enumerate(claims, start=1):
        text = PLANTED.format(number=number, title=title, expected=expected, scheme=scheme)
        (tmp_path / f"{number}.yaml").write_text(text)
    words = ["--uri", store, "--experiment", "planted", "--hypotheses", str(tmp_path), "--folder", str(tmp_path / "r")]
    assert report(words) == 0
    found = json.loads((tmp_path / "r" / "verdicts.json").read_text())["verdicts"]
    assert [verdict["word"] for verdict in found] == ["holds", "does not hold", "holds", "does not hold"]
    (effect,), (_,), (null,), (_,) = ([s for s in verdict["strata"] if s["when"]] for verdict in found)
    assert effect["estimate"]["n"] == null["estimate"]["n"] == 12
    assert effect["estimate"]["low"] > 1 > 0.301 > null["estimate"]["high"] >= null["estimate"]["low"] > -0.301
    page = (tmp_path / "r" / "report.html").read_text()
    for (title, *_), verdict in zip(claims, found, strict=True):
        assert f"{title}: <span" in page.replace(verdict["word"], "", 0)
        assert f">{verdict['word']}</span></h2>" in page.partition(f"{title}: <span")[2].partition("\n")[0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--uri", "sqlite:///nowhere.db"], "nowhere.db does not exist: expected a tracking store, name it by --uri"),
        (["--uri", "sqlite:///{folder}/mlflow.db", "--experiment", "other"], "has no experiment 'other': expected one"),
    ],
)
def test_a_store_without_the_study_is_one_sentence(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    words = [word.format(folder=folder) for word in words]
    assert report([*words, "--folder", str(tmp_path / "report")]) != 0
    printed = capsys.readouterr().err
    assert said in printed
    assert len(printed.splitlines()) == 1
    assert not (tmp_path / "report").exists()
