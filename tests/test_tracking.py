"""Outboxes and their delivery: what a run says arrives in a store once, whenever the store is there."""

import base64
import contextlib
import json
import logging
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import forked
import pytest
import torch
from fixtures import Compose
from mlflow.entities import Run as StoredRun
from mlflow.tracking import MlflowClient
from sqlalchemy import make_url

from pde_train import sync
from pde_train.entropy import Entropy
from pde_train.errors import RunError, UsageError
from pde_train.experiment import build
from pde_train.run_folder import DELIVERED, Status, set_aside
from pde_train.runs.run import Run, run
from pde_train.tracking import mlflow, saved_views
from pde_train.tracking.base import Row
from pde_train.tracking.calls import LONGEST_TAG, Waiting
from pde_train.tracking.database import Database
from pde_train.tracking.delivery import Store
from pde_train.tracking.follower import ASKED
from pde_train.tracking.mlflow import MlflowTracker
from pde_train.tracking.none import NoTracker
from pde_train.tracking.outbox import Mark, Outbox
from pde_train.tracking.reading import Reader
from pde_train.tracking.record import Record
from pde_train.tracking.uris import absolute, encoded, holds_secret, masked, without_secrets

pytestmark = pytest.mark.usefixtures("without_figures")

NETWORK = ["model=two_layer", "model.width=5", "method.steps=30", "method.log_every=10", "sampler.interior=16"]


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


def runs_in(uri: str, experiment: str = "pde_train") -> tuple[MlflowClient, list[StoredRun]]:
    client = MlflowClient(uri)
    return client, client.search_runs([client.get_experiment_by_name(experiment).experiment_id])


def only_run(uri: str, experiment: str = "pde_train") -> tuple[MlflowClient, StoredRun]:
    client, (found,) = runs_in(uri, experiment)
    return client, found


def rows_of(uri: str, key: str = "loss", experiment: str = "pde_train") -> list[tuple[int, float]]:
    client, found = only_run(uri, experiment)
    return sorted((m.step, m.value) for m in client.get_metric_history(found.info.run_id, key))


def run_of(uri: str, folder: Path) -> str:
    """The id of a folder's run in a store."""
    run = Outbox(folder).mark(masked(uri)).run
    assert run is not None
    return run


def opened(
    uri: str | None, folder: Path, params: dict[str, str] | None = None, parent: Path | None = None
) -> MlflowTracker:
    """A tracker with an open run, of which nothing is delivered before it is drained."""
    tracker = MlflowTracker(uri, "pde_train")
    tracker._follow = lambda: None  # type: ignore[method-assign]  # nobody hears of what it writes
    folder.mkdir(exist_ok=True)
    tracker.start("run", folder, params or {}, {}, parent)
    return tracker


def test_a_run_keeps_every_row_parameter_tag_and_artifact(compose: Compose, uri: str, tmp_path: Path) -> None:
    experiment = build(compose("tracking=mlflow", f"tracking.uri={uri}", *NETWORK))
    record = run(experiment, tmp_path / "run", {"pde": "poisson_1d"})
    client, found = only_run(uri)
    assert found.info.status == "FINISHED"
    assert found.data.metrics.keys() == {*record.last(), "spectrum/final"} - one_point(record)
    for key, values in record.series.items():
        if key in one_point(record):
            continue
        rows = client.get_metric_history(found.info.run_id, key)
        assert {m.step: m.value for m in rows} == values
        assert len(rows) == len(values)
    spectrum = client.get_metric_history(found.info.run_id, "spectrum/final")
    assert {m.step: m.value for m in spectrum} == dict(enumerate(record.spectra[30].values.tolist(), 1))
    assert float(found.data.tags["audit/ratio"]) == pytest.approx(record.last()["audit/ratio"], rel=1e-5)
    assert found.data.params["model.width"] == "5"
    assert found.data.params["entropy.thresholds"].startswith("[0.0001")
    assert (found.info.run_name, found.data.params["pde"]) == ("test", "poisson_1d")
    shown = [*found.data.params, *(tag for tag in found.data.tags if not tag.startswith("mlflow."))]
    assert not [name for name in shown if re.search(r"_target_|^sweep|^tracking|^name|^resume|outbox", name)]
    assert found.data.tags["mlflow.pde_train.class.model"] == "pde_train.models.two_layer.two_layer"
    for tag in ("git_commit", "config_hash", "precision", "version.torch", "pde", "spectrum_method"):
        assert found.data.tags[tag]
    names = {a.path for a in client.list_artifacts(found.info.run_id)}
    assert {"config.yaml", "spectrum.npz", "spectrum.csv", "history.csv", "model.pt", "figures"} <= names
    assert found.info.artifact_uri.startswith((tmp_path / "mlartifacts" / "pde_train").as_uri())


def one_point(record: Record) -> set[str]:
    """The metrics that a store has as tags, or says in the tag `flags`."""
    return {key for key in record.last() if key.startswith(("audit/", "flag/"))}


def test_a_run_that_is_refused_before_its_first_step_is_no_run_of_the_store(
    compose: Compose, uri: str, tmp_path: Path
) -> None:
    """What its method refuses when it begins; the same folder then takes a run that is right."""
    words = ["tracking=mlflow", f"tracking.uri={uri}", "model=two_layer", "model.width=5", "sampler.interior=16"]
    with pytest.raises(UsageError):
        run(build(compose(*words, "method=least_squares")), tmp_path / "run")
    assert runs_in(uri)[1] == []
    experiment = build(compose(*words, "method.steps=2"))
    with Run.open(tmp_path / "run") as current:
        current.fit(experiment)
    assert only_run(uri)[1].info.status == "FINISHED"


def test_a_store_that_was_moved_knows_where_its_files_are(compose: Compose, tmp_path: Path) -> None:
    """A project's folder moves with its store: old files are found, new ones do not go to the old place."""
    before, after = tmp_path / "before", tmp_path / "after"
    words = ["tracking=mlflow", *NETWORK, "method.steps=2"]
    run(build(compose(*words, f"tracking.uri=sqlite:///{before}/mlflow.db")), before / "first")
    before.rename(after)
    uri = f"sqlite:///{after}/mlflow.db"
    (first,) = Reader(uri, "pde_train").runs().to_dict("records")
    assert not Reader(uri, "pde_train").csv(first["artifacts"], "history.csv").empty
    run(build(compose(*words, f"tracking.uri={uri}")), after / "second")
    client, found = runs_in(uri)
    assert [run.info.artifact_uri.startswith(after.as_uri()) for run in found] == [True, True]
    assert all("config.yaml" in {a.path for a in client.list_artifacts(run.info.run_id)} for run in found)
    assert not before.exists()


def test_a_place_for_files_that_somebody_chose_is_kept(tmp_path: Path) -> None:
    uri, chosen = f"sqlite:///{tmp_path}/mlflow.db", (tmp_path / "elsewhere").as_uri()
    MlflowClient(uri).create_experiment("pde_train", chosen)
    experiment = Store(uri).connect().get_experiment_by_name("pde_train")
    assert experiment.artifact_location == chosen


def test_a_failed_run_is_marked_and_keeps_its_losses(compose: Compose, uri: str, tmp_path: Path) -> None:
    cfg = compose("tracking=mlflow", f"tracking.uri={uri}", *NETWORK, "optimizer.lr=1e200", "method.chunk=5")
    with pytest.raises(RunError, match="expected finite numbers"):
        run(build(cfg), tmp_path / "run")
    client, found = only_run(uri)
    assert found.info.status == "FAILED"
    assert client.get_metric_history(found.info.run_id, "loss")


@pytest.mark.parametrize("bad", ["sqlite:////proc/nowhere/mlflow.db", "gopher://127.0.0.1"])
def test_a_store_that_can_never_be_used_is_one_sentence(compose: Compose, tmp_path: Path, bad: str) -> None:
    cfg = compose("tracking=mlflow", f"tracking.uri={bad}")
    with pytest.raises(RunError, match=r"the tracking store .* cannot be used .*choose tracking=none"):
        run(build(cfg), tmp_path)


def test_a_store_of_a_newer_schema_is_one_sentence_and_keeps_what_it_has(
    compose: Compose, uri: str, tmp_path: Path
) -> None:
    code = f"from pde_train.tracking.mlflow import MlflowTracker; MlflowTracker({uri!r}, 'new').prepare()"
    done = forked.run("-c", code, folder=tmp_path)  # MLflow looks at a schema once a process
    assert done.returncode == 0, done.stderr
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    before = (tmp_path / "mlflow.db").read_bytes()
    with pytest.raises(RunError, match=r"cannot be used .*expected a store of this version of MLflow"):
        run(build(compose("tracking=mlflow", f"tracking.uri={uri}")), tmp_path / "run")
    assert (tmp_path / "mlflow.db").read_bytes() == before


def test_a_run_without_its_store_ends_and_sync_delivers_it_once(
    compose: Compose, uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.WARNING):
        record = run(
            build(compose("tracking=mlflow", "tracking.uri=http://127.0.0.1:9", *NETWORK)), tmp_path / "outputs" / "run"
        )
    assert any("does not answer" in r.getMessage() for r in caplog.records)
    assert sync.main(["--uri", uri]) == 0
    assert "delivered 1 runs" in capsys.readouterr().out
    assert dict(rows_of(uri)) == record.series["loss"]
    assert len(rows_of(uri)) == 30
    assert sync.main(["--uri", uri]) == 0
    assert "nothing was waiting" in capsys.readouterr().out
    assert len(rows_of(uri)) == 30


def test_an_offline_run_never_imports_mlflow_and_sync_nests_it_under_its_sweep(tmp_path: Path) -> None:
    words = ["model=random_features", "model.features=10", "seed=0,1", "tracking=offline"]
    code = (
        f"import sys; sys.argv[1:] = {['--multirun', *words]!r}\n"
        "from pde_train.cli import main\n"
        "try: main()\n"
        "except SystemExit as stop: sys.exit(stop.code or 'mlflow' in sys.modules)"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW")}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, env=environment, timeout=120)
    (tmp_path / "multirun").rename(tmp_path / "copied")  # as from a node without a network
    assert forked.run("-m", "pde_train.sync", "copied", folder=tmp_path, environment=environment).returncode == 0
    _, found = runs_in(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (parent,) = (r for r in found if "sweep" in r.data.tags)
    children = [r for r in found if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == 2
    assert {r.info.status for r in found} == {"FINISHED"}


def test_sync_says_what_is_wrong(uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match=r"nowhere is no folder: expected that of a run or a sweep"):
        sync.sync([tmp_path / "nowhere"], uri)
    MlflowTracker(None, "pde_train").start("run", tmp_path, {}, {})
    assert sync.main([str(tmp_path), "--uri", "http://bob:s3cret@127.0.0.1:9"]) == 1
    said = capsys.readouterr().err
    assert "does not answer" in said
    assert "s3cret" not in said
    assert sync.main([str(tmp_path), "--uri", uri]) == 0


class Flaky:
    """A client that fails at one call: before it reaches the store, or after, when only the answer is lost."""

    def __init__(self, client: MlflowClient, at: int, after: bool) -> None:
        self.client, self.at, self.after, self.calls = client, at, after, 0

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return self.counted(getattr(self.client, name))

    def counted(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self.calls += 1
            if self.calls == self.at and not self.after:
                raise ConnectionError("away")
            result = method(*arguments, **options)
            if self.calls == self.at:
                raise ConnectionError("away")
            return result

        return call


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("calls", [5, 7])
def test_whichever_call_fails_everything_arrives_once(
    uri: str, tmp_path: Path, after: bool, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By transactions of the database, or by MLflow's own calls, of which 2500 rows take three."""
    if calls > 5:
        monkeypatch.setattr(Database, "of", lambda client: None)
    MlflowTracker(uri, "pde_train").prepare()
    client = MlflowClient(uri)
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    at = 0
    while True:
        at += 1
        tracker = opened(uri, tmp_path / str(at), {"a": "1"})
        (tmp_path / str(at) / "config.yaml").write_text("seed: 0\n")
        tracker.metrics([("loss", 1.0 / (k + 1), k) for k in range(2500)])
        tracker.tags({"b": "2"})
        tracker.artifacts([tmp_path / str(at) / "config.yaml"])
        tracker.finish(Status.FINISHED)
        store = Store(uri)
        store.connect()
        flaky = store._client = Flaky(client, at, after)
        if calls == 5:  # otherwise it is calls of the client
            store._log = flaky.counted(store._log)
        try:
            store.deliver(tmp_path / str(at))
        except ConnectionError:
            store.deliver(tmp_path / str(at))
        run_id = run_of(uri, tmp_path / str(at))
        assert len(client.get_metric_history(run_id, "loss")) == 2500
        found = client.get_run(run_id)
        assert (found.info.status, found.data.params, found.data.tags["b"]) == ("FINISHED", {"a": "1"}, "2")
        assert [a.path for a in client.list_artifacts(run_id)] == ["config.yaml"]
        if flaky.calls < at:  # no call was left to fail
            break
    assert at == calls + 1
    assert len(runs_in(uri)[1]) == at


def test_special_numbers_that_are_sent_twice_stand_once(uri: str, tmp_path: Path) -> None:
    tracker = opened(uri, tmp_path / "run")
    tracker.metrics([("loss", value, k) for k, value in enumerate([float("nan"), float("inf"), 1e-320, -0.0])])
    tracker.drain()
    Outbox(tmp_path / "run").keep(uri, Mark(run_of(uri, tmp_path / "run"), 0))
    tracker.drain()
    client, found = only_run(uri)
    assert len(client.get_metric_history(found.info.run_id, "loss")) == 4


def test_a_reopened_run_takes_only_rows_that_it_has_not(uri: str, tmp_path: Path) -> None:
    first = opened(uri, tmp_path / "run", {"a": "1"})
    first.metrics([("loss", 1.0, 0), ("loss", 0.5, 1)])
    first.drain()
    with Outbox(tmp_path / "run").file.open("a") as file:
        file.write('{"metrics": [["loss", 0.2')  # the process was killed
    again = opened(uri, tmp_path / "run", {"a": "1"})
    again.metrics([("loss", 0.5, 1), ("loss", 0.25, 2)])
    again.finish(Status.FINISHED)
    again.drain()
    assert rows_of(uri) == [(0, 1.0), (1, 0.5), (2, 0.25)]
    assert only_run(uri)[1].info.status == "FINISHED"


def test_parameters_of_a_run_that_goes_on_otherwise_are_tags(uri: str, tmp_path: Path) -> None:
    """MLflow refuses another value of a parameter."""
    for steps in ("10", "20", "30"):
        opened(uri, tmp_path / "run", {"method.steps": steps, "seed": "0"}).drain()
    data = only_run(uri)[1].data
    assert data.params == {"method.steps": "10", "seed": "0"}
    assert {key: text for key, text in data.tags.items() if not key.startswith("mlflow.")} == {"method.steps": "30"}
    assert Reader(uri, "pde_train").runs()["params.method.steps"].tolist() == ["30"]


def test_what_is_measured_anew_is_delivered_where_its_value_is_another(uri: str, tmp_path: Path) -> None:
    for value in (1.0, 1.0, 0.5, 0.75, 0.75):  # a store shows the newest row of the greatest step
        tracker = opened(uri, tmp_path / "grid")
        tracker.renew([("median", value, 4), ("other", 2.0, 4)])
        tracker.metrics([("median", 3.0, 4)])
        tracker.drain()
        assert only_run(uri)[1].data.metrics == {"median": value, "other": 2.0}
    assert [value for _, value in rows_of(uri, "median")] == [0.5, 0.75, 1.0]
    assert len(rows_of(uri, "other")) == 1


def test_children_are_nested_under_the_sweep_that_names_its_folder(uri: str, tmp_path: Path) -> None:
    opened(uri, tmp_path / "grid")
    child = opened(uri, tmp_path / "child", parent=tmp_path / "grid")
    child.drain()  # delivers the parent first
    client, found = runs_in(uri)
    assert len(found) == 2
    parent_id = run_of(uri, tmp_path / "grid")
    run_id = run_of(uri, tmp_path / "child")
    assert client.get_run(run_id).data.tags["mlflow.parentRunId"] == parent_id


def test_an_outbox_that_was_set_aside_is_nested_under_its_sweep(uri: str, tmp_path: Path) -> None:
    opened(uri, tmp_path / "grid").finish(Status.FINISHED)
    for _ in range(2):
        opened(uri, tmp_path / "child", parent=tmp_path / "grid").finish(Status.FAILED)
        set_aside(tmp_path / "child")
    assert sync.main([str(tmp_path)]) == 0
    parents = [found.data.tags.get("mlflow.parentRunId") for found in runs_in(uri)[1]]
    assert sorted(parents, key=str) == sorted([None, *[run_of(uri, tmp_path / "grid")] * 2], key=str)


def test_processes_that_make_a_new_store_at_once_all_succeed(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(forked.NEW_STORE)
    code = f"from pde_train.tracking.mlflow import MlflowTracker; MlflowTracker({uri!r}, 'many').prepare()"
    started = [forked.started("-c", code, folder=tmp_path) for _ in range(3)]
    said = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], said


@pytest.fixture
def black_hole() -> Iterator[str]:
    """A server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_a_store_that_hangs_delays_nothing_but_start_and_end(
    tmp_path: Path, black_hole: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening, ending = 1.0, 0.5
    monkeypatch.setattr(mlflow, "OPEN_SECONDS", opening)
    monkeypatch.setattr(mlflow, "SHORT_SECONDS", ending)
    tracker = MlflowTracker(black_hole, "pde_train")
    seconds = []
    for step in (
        tracker.prepare,
        lambda: tracker.start("run", tmp_path, {}, {}),
        lambda: [tracker.metrics([("loss", 1.0, k)]) for k in range(200)],
        lambda: tracker.finish(Status.FINISHED),
        tracker.drain,
    ):
        began = time.monotonic()
        step()
        seconds.append(time.monotonic() - began)
    loading = 30  # of MLflow, on a busy machine
    assert opening <= seconds[0] < opening + loading
    assert max(seconds[1:4]) < 2
    assert ending <= seconds[4] < ending + 3
    assert caplog.text.count("does not answer") == 1
    assert caplog.text.count("python -m pde_train.sync delivers it") == 1


def test_a_file_that_another_process_keeps_locked_is_a_store_that_is_away(
    compose: Compose, uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Store(uri).experiment_id("pde_train")
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        with caplog.at_level(logging.WARNING):
            record = run(build(compose("tracking=mlflow", f"tracking.uri={uri}", *NETWORK)), tmp_path / "run")
        assert caplog.text.count("python -m pde_train.sync delivers it") == 1
    assert sync.main([str(tmp_path)]) == 0
    assert dict(rows_of(uri)) == record.series["loss"]


def test_an_uploader_that_was_killed_is_replaced(uri: str, tmp_path: Path) -> None:
    tracker = MlflowTracker(uri, "pde_train")
    tracker.start("run", tmp_path, {}, {})
    tracker.metrics([("loss", 1.0, 0)])
    tracker.uploader._process.kill()
    tracker.metrics([("loss", 0.5, 1)])
    tracker.uploader._process.kill()
    tracker.finish(Status.FINISHED)
    tracker.drain()
    assert rows_of(uri) == [(0, 1.0), (1, 0.5)]
    assert tracker.uploader._process is None  # and none is left behind


def test_uris(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute("sqlite:///mlflow.db") == f"sqlite:///{tmp_path}/mlflow.db"
    assert absolute("sqlite:////data/mlflow.db") == "sqlite:////data/mlflow.db"
    assert absolute("http://127.0.0.1:5000") == "http://127.0.0.1:5000"
    for name in ("a b=c", "a#b", "a%b", "it's"):
        assert absolute(f"sqlite:////{name}/mlflow.db") == f"sqlite:////{name}/mlflow.db"
    for name in ("a?b", "a?b=c", "a%41b"):  # these name other files
        with pytest.raises(UsageError, match="expected a folder without them"):
            absolute(f"sqlite:////{name}/mlflow.db")
    (tmp_path / "a?b").mkdir()
    monkeypatch.chdir(tmp_path / "a?b")
    with pytest.raises(UsageError, match="expected a folder without them"):
        absolute("sqlite:///mlflow.db")
    assert masked("postgresql+psycopg2://user:secret@host/db") == "postgresql+psycopg2://***@host/db"
    assert masked("http://user:se@cret@host/db?password=hidden&x=1") == "http://***@host/db?password=***&x=1"


PASSWORDS = ["s3cret", "sl/ash3s", "a@t/3", "qu?3st", "c:o:3", "p%2Fq3", "#has3h", "[s]3"]


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize("where", ["http://bob:{}@host:5000/a", "postgresql://bob:{}@host/db", "https://{}@host"])
def test_no_sign_in_a_password_shows_any_of_it(where: str, password: str) -> None:
    uri = where.format(password)
    assert not any(part in masked(uri) for part in re.split(r"[/@?:#%\[\]]", password) if len(part) > 2)
    assert holds_secret(uri)
    text = without_secrets(f"cannot parse {uri}, nor {password} nor {quote(password, safe='')}", [uri])
    assert password not in text
    assert quote(password, safe="") not in text


@pytest.mark.parametrize(
    "uri",
    [
        "http://host/?token=s3cret",
        "postgresql://host/db?user=bob&password=s3cret",
        "mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BPWD%3Ds3cret",
        "http://bob:s3cret@host/db?password=s3cret@x",
        "sqlite+pysqlcipher://:s3cret@/mlflow.db",
        "http://s3cret:@host",
        "s3cret@host",
        "http://host/#s3cret",
        "http://${oc.env:USER}:s3cret@host",
        "http://${oc.env:USER,s3cret}@host",
    ],
)
def test_secrets_are_found_wherever_a_uri_holds_them(uri: str) -> None:
    assert holds_secret(uri)
    assert "s3cret" not in masked(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "sqlite:////data/bob@home/a?b.db",
        "http://127.0.0.1:5000",
        "postgresql://bob@host/db?sslmode=require",
        "http://${oc.env:USER_AND_PASSWORD}@host",
        "http://bob:${oc.env:PASSWORD}@host",
        "http://host/?token=${oc.env:TOKEN}",
    ],
)
def test_what_is_no_secret_may_be_typed(uri: str) -> None:
    assert not holds_secret(uri)


def test_libraries_find_the_host_and_the_password_of_an_encoded_uri() -> None:
    for password in ("sl/ashes", "a@t", "#hash"):
        url = make_url(encoded(f"postgresql://bob:{password}@host:5/db"))
        assert (url.host, url.port, url.password, url.database) == ("host", 5, password, "db")
        assert urlsplit(encoded(f"http://bob:{password}@host:5/db")).hostname == "host"


def finished_run(folder: Path, uri: str, **options: Any) -> MlflowTracker:
    """A run with ten losses and a file, all delivered."""
    tracker = opened(uri, folder, **options)
    tracker.metrics([("loss", 1.0 / (k + 1), k) for k in range(10)])
    (folder / "note.txt").write_text("note")
    tracker.artifacts([folder / "note.txt"])
    tracker.finish(Status.FINISHED)
    tracker.drain()
    return tracker


def test_a_spoiled_mark_ends_no_sync_and_everything_stands_once(
    uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for k, spoiled in enumerate([b"", b"nonsense", b"17", b"99999", b'{"a": 3}', b"[1]", b"\xff\xfe"], start=1):
        folder = tmp_path / str(k)
        folder.mkdir()
        for name in ("a", "b"):
            finished_run(folder / name, uri)
        (folder / "a" / DELIVERED).write_bytes(spoiled)
        assert sync.main([str(folder)]) == 0
        assert "Traceback" not in capsys.readouterr().err
        client, found = runs_in(uri)
        assert len(found) == 2 * k
        for one in found:
            assert len(client.get_metric_history(one.info.run_id, "loss")) == 10
        assert sync.main([str(folder), "--uri", uri]) == 0


def test_a_spoiled_outbox_stops_no_other(uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b", "c"):
        tracker = opened(None, tmp_path / name)
        tracker.finish(Status.FINISHED)
    (tmp_path / "a" / "tracking.jsonl").write_text("nonsense\n")
    with (tmp_path / "b" / "tracking.jsonl").open("a") as file:
        file.write("7\n")
    assert sync.main([str(tmp_path), "--uri", uri]) == 1
    said = capsys.readouterr()
    assert "delivered 1 runs" in said.out
    assert said.err.count("has no entry of an outbox at byte") == 2
    again = opened(None, tmp_path / "a")  # a run goes on in that folder
    assert again._outbox.status == "running"
    assert (tmp_path / "a" / "earlier-1" / "tracking.jsonl").read_text() == "nonsense\n"


def test_sync_refills_a_store_that_was_deleted_and_copies_to_another(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finished_run(tmp_path / "grid", uri)
    finished_run(tmp_path / "child", uri, parent=tmp_path / "grid")
    assert sync.main([str(tmp_path)]) == 0
    assert "nothing was waiting" in capsys.readouterr().out
    other = f"sqlite:///{tmp_path / 'other.db'}"
    third = f"sqlite:///{tmp_path / 'third.db'}"
    assert sync.main([str(tmp_path), "--uri", other]) == 0
    for file in tmp_path.glob("mlflow.db*"):
        file.unlink()
    for arguments in (["--again"], ["--again", "--uri", third], ["--again", "--uri", third]):
        done = forked.run("-m", "pde_train.sync", str(tmp_path / "child"), str(tmp_path), *arguments, folder=tmp_path)
        assert done.stdout == "delivered 2 runs with 20 metric rows\n"
    for store in (uri, other, third):
        client, found = runs_in(store)
        assert len(found) == 2
        (child,) = (r for r in found if "mlflow.parentRunId" in r.data.tags)
        assert child.data.tags["mlflow.parentRunId"] in {r.info.run_id for r in found}
        for one in found:
            assert one.info.status == "FINISHED"
            assert [m.step for m in client.get_metric_history(one.info.run_id, "loss")] == list(range(10))
            assert [a.path for a in client.list_artifacts(one.info.run_id)] == ["note.txt"]


def test_a_run_goes_on_in_a_store_that_was_emptied_since(uri: str, tmp_path: Path) -> None:
    tracker = finished_run(tmp_path / "run", uri)
    code = (
        "import sys; from mlflow.tracking import MlflowClient; from pde_train.tracking.delivery import Store; "
        "Store(sys.argv[1]).experiment_id('pde_train')"
    )
    for file in tmp_path.glob("mlflow.db*"):
        file.unlink()
    assert forked.run("-c", code, uri, folder=tmp_path).returncode == 0
    tracker.metrics([("loss", 0.0, 10)])
    tracker.drain()
    assert [step for step, _ in rows_of(uri)] == list(range(11))


def test_a_store_that_is_away_keeps_no_other_from_its_runs(
    uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opened("http://127.0.0.1:9", tmp_path / "a").finish(Status.FINISHED)
    opened("http://127.0.0.1:9", tmp_path / "b").finish(Status.FINISHED)
    opened(uri, tmp_path / "c").finish(Status.FINISHED)
    assert sync.main([str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert "delivered 1 runs" in said.out
    assert "2 runs are kept for it" in said.err


@pytest.mark.parametrize("how", ["above", "absolute", "link", "link in a folder", "itself"])
def test_an_outbox_names_only_files_of_its_own_folder(
    uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    (tmp_path / "secret.txt").write_text("private")
    folder = tmp_path / "run"
    tracker = opened(uri, folder)
    (folder / "figures").mkdir()
    (folder / "link").symlink_to(tmp_path / "secret.txt")
    if how == "link in a folder":
        (folder / "figures" / "deep").symlink_to(tmp_path)
    names = {"above": "../secret.txt", "absolute": str(tmp_path / "secret.txt"), "link": "link", "itself": "."}
    tracker._tell(artifacts=[names.get(how, "figures")])
    tracker.finish(Status.FINISHED)
    assert sync.main([str(tmp_path)]) == 1
    assert "leads out of that folder: expected files of the run alone" in capsys.readouterr().err
    assert not list((tmp_path / "mlartifacts").rglob("secret.txt"))


def test_outboxes_that_name_each_other_as_parents_end(uri: str, tmp_path: Path) -> None:
    for name, parent in (("a", "b"), ("b", "a")):
        opened(uri, tmp_path / name, parent=tmp_path / parent).finish(Status.FINISHED)
    assert sync.main([str(tmp_path)]) == 0
    assert len(runs_in(uri)[1]) == 2


@pytest.mark.parametrize("name", ["../../x", "/x", "a/../../x", "", "a//b/.", ".."])
def test_files_of_an_experiment_stay_in_their_folder(uri: str, tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="no name of an experiment"):
        MlflowTracker(uri, name)
    with pytest.raises(UsageError, match="no name of an experiment"):
        Store(uri).experiment_id(name)  # of an outbox
    assert MlflowTracker(uri, "my/study").experiment == "my/study"


@pytest.mark.parametrize("made", ["folder", "text"])
def test_what_can_never_be_a_store_is_said_at_once(compose: Compose, uri: str, tmp_path: Path, made: str) -> None:
    if made == "folder":
        (tmp_path / "mlflow.db").mkdir()
    else:
        (tmp_path / "mlflow.db").write_text("a letter to a friend, longer than the header of a database" * 99)
    MlflowTracker(uri, "pde_train").uploader.close()
    began = time.monotonic()
    with pytest.raises(RunError, match=r"cannot be used \(.* is no (sqlite )?file.*: expected a sqlite file"):
        run(build(compose("tracking=mlflow", f"tracking.uri={uri}")), tmp_path / "run")
    assert time.monotonic() - began < 30  # loading of libraries, on a busy machine


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user that the system does not know")
def test_a_user_whom_the_system_does_not_know_has_a_number() -> None:
    code = (
        "import os, sys; from pathlib import Path; from pde_train.tracking.mlflow import MlflowTracker; "
        "os.setuid(54321); MlflowTracker(None, 'x').start('run', Path(sys.argv[1]), {}, {})"
    )
    environment = {k: v for k, v in os.environ.items() if k not in ("LOGNAME", "USER", "LNAME", "USERNAME")}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        subprocess.run([sys.executable, "-c", code, folder], env=environment, check=True, timeout=120)
        assert Outbox(Path(folder)).opening()["user"] == "54321"


def test_an_uploader_that_does_nothing_blocks_no_training(uri: str, tmp_path: Path) -> None:
    """The end delivers what was written while the process was stopped."""
    tracker = MlflowTracker(uri, "pde_train")
    tracker.start("run", tmp_path, {}, {})
    stopped = tracker.uploader._process.pid
    os.kill(stopped, signal.SIGSTOP)
    asked = tracker.uploader._folder / ASKED
    size = asked.stat().st_size
    began = time.monotonic()
    for k in range(1000):
        tracker.metrics([("loss", 1.0, k)])
    assert time.monotonic() - began < 10
    assert asked.stat().st_size == size  # nothing is said again of a run that is followed
    os.kill(stopped, signal.SIGCONT)
    tracker.finish(Status.FINISHED)
    tracker.drain()
    assert [step for step, _ in rows_of(uri)] == list(range(1000))


def until(happened: Callable[[], object]) -> None:
    began = time.monotonic()
    while not happened():
        assert time.monotonic() - began < 60
        time.sleep(0.01)


def test_what_a_run_writes_is_delivered_while_it_goes_on(uri: str, tmp_path: Path) -> None:
    tracker = MlflowTracker(uri, "pde_train")
    tracker.start("run", tmp_path, {}, {})
    for k in range(3):
        tracker.metrics([("loss", 1.0, k)])
        until(lambda: not tracker._outbox.waits_for(masked(uri)))
    assert [step for step, _ in rows_of(uri)] == [0, 1, 2]
    assert only_run(uri)[1].info.status == "RUNNING"


def test_an_uploader_delivers_what_a_killed_process_wrote_and_ends(uri: str, tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from pde_train.tracking.mlflow import MlflowTracker; "
        "t = MlflowTracker(sys.argv[1], 'pde_train'); t.start('run', Path(sys.argv[2]), {}, {}); "
        "t.metrics([('loss', 1.0, k) for k in range(1000)]); "
        "print(t.uploader._process.pid, t.uploader._folder, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, uri, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL
    pid, folder = done.stdout.split()
    assert Path(f"/proc/{pid}").exists()
    until(lambda: not Path(folder).exists())  # which is the last that the process does
    assert [step for step, _ in rows_of(uri)] == list(range(1000))


def test_only_a_folder_of_a_run_is_followed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sync.main(["--follow", str(tmp_path)]) == 2
    assert "names no runs to follow: expected a folder that a run has made" in capsys.readouterr().err


class Breaking(NoTracker):
    def drain(self, folders: Iterable[Path] = ()) -> None:
        raise BrokenPipeError("the delivery broke")


def test_a_delivery_that_breaks_at_the_end_leaves_a_finished_run(
    compose: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    experiment = replace(build(compose(*NETWORK)), tracker=Breaking())
    record = run(experiment, tmp_path / "run")
    assert record.last()["steps"] == 30
    assert "the delivery broke" in caplog.text
    assert "python -m pde_train.sync delivers it" in caplog.text


def test_an_uploader_that_cannot_be_started_fails_no_run(
    uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    code = (
        "import resource, sys, logging; from pathlib import Path; "
        "from pde_train.tracking.mlflow import MlflowTracker; from pde_train.tracking.base import drained; "
        "logging.basicConfig(); t = MlflowTracker(sys.argv[1], 'x'); "
        "resource.setrlimit(resource.RLIMIT_NOFILE, (5, 5)); "
        "t.start('run', Path(sys.argv[2]), {}, {}); t.finish('finished'); drained(t)"
    )
    done = subprocess.run([sys.executable, "-c", code, uri, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "Too many open files" in done.stderr
    assert Outbox(tmp_path).status == "finished"
    assert sync.main([str(tmp_path)]) == 0


def test_a_store_has_every_loss_at_first_then_each_tenth_and_the_last_one() -> None:
    class Rows(NoTracker):
        def __init__(self) -> None:
            self.rows: list[Row] = []

        def metrics(self, rows: Sequence[Row]) -> None:
            self.rows += rows

    tracker = Rows()
    record = Record(tracker, Entropy([1e-8]))
    record.losses(0, torch.arange(2600.0))
    record.losses(2600, torch.arange(2600.0, 3008.0))
    record.flush(last=True)
    expected = [*range(2001), *range(2010, 3008, 10), 3007]
    assert [(key, value, step) for key, value, step in tracker.rows] == [("loss", float(k), k) for k in expected]
    assert len(record.series["loss"]) == 3008
    other = Rows()
    again = Record(other, Entropy([1e-8]))
    again.load_state_dict(record.state_dict())
    again.flush(last=True)
    assert other.rows == tracker.rows


def test_an_experiment_has_views_whose_columns_and_charts_its_runs_have(
    uri: str, compose: Compose, tmp_path: Path
) -> None:
    MlflowClient(uri).create_experiment("by hand")
    for name in ("pde_train", "by hand"):
        words = ["tracking=mlflow", f"tracking.uri={uri}", f"tracking.experiment='{name}'"]
        run(build(compose(*NETWORK, *words)), tmp_path / name, {"pde": "poisson_1d", "model": "two_layer"})
        client, found = only_run(uri, name)
        experiment = client.get_experiment_by_name(name)
        assert "Views" in experiment.tags[saved_views.NOTE]
        assert saved_views.are_in(experiment.tags)
        for key, of in saved_views.VIEWS.items():
            view = json.loads(experiment.tags[saved_views.PREFIX + key])
            kind, _, packed = view["state"].partition(";")
            state = json.loads(zlib.decompress(base64.b64decode(packed)))
            assert (view["name"], kind) == (of.name, "deflate")
            assert [chart["metricKey"] for chart in state["compareRunCharts"]] == [chart.metric for chart in of.charts]
            assert {chart.metric for chart in of.charts} <= set(found.data.metrics)
            shown = client.search_runs([experiment.experiment_id], state["searchFilter"])
            assert len(shown) == (state["searchFilter"] == saved_views.OF_RUNS)
        for column in saved_views.OF_THE_TABLE:
            kind, name_of = column.rstrip("`").split(".`")
            assert name_of in getattr(found.data, kind)
        address = f"/#/experiments/{experiment.experiment_id}/runs?viewStateShareKey=pde-train-1"
        tracker = MlflowTracker(uri, name)
        assert str(tracker.how_to_look).endswith(address)


def test_without_an_experiment_the_link_is_that_of_the_server(tmp_path: Path) -> None:
    tracker = MlflowTracker(f"sqlite:///{tmp_path}/none.db", "pde_train")
    assert str(tracker.how_to_look).endswith("http://127.0.0.1:5000")


def test_a_record_is_saved_again_and_again_with_what_came_since() -> None:
    """A save converts what is new alone, so it must be whole after every order of rows, saves and loads."""

    def record() -> Record:
        return Record(NoTracker(), Entropy([1e-8]))

    first = record()
    for k in range(3):
        first.losses(100 * k, torch.arange(100.0) / (k + 1))
        first.log(100 * k, {"error": 1.0 / (k + 1), f"once/{k}": 0.5})
        first.losses(100 * k, torch.full((50,), 7.0))  # rows that it has
        state = first.state_dict()
        again = record()
        again.load_state_dict(state)
        assert again.series == first.series
        again.losses(100 * (k + 1), torch.ones(2))
        assert list(again.state_dict()["series"]["loss"]["steps"]) == list(range(100 * (k + 1) + 2))
    first.load_state_dict(state)
    first.load_state_dict({**state, "series": {"loss": {"steps": torch.tensor([5]), "values": torch.tensor([2.0])}}})
    assert first.state_dict()["series"]["loss"]["values"].tolist() == [2.0]


def test_a_description_is_cut_at_a_line_where_a_store_has_no_room_for_it() -> None:
    text = "\n".join(f"| row {k} |" for k in range(2000))
    waiting = Waiting(1000)
    assert waiting.take("note", (text, ["a.png"]), "run")
    note = waiting.tags["mlflow.note.content"]
    assert len(note) <= LONGEST_TAG
    table, picture = note.split("\n\n")
    assert text.startswith(f"{table}\n")
    assert len(table) > 7800
    assert picture == "![a.png](get-artifact?path=a.png&run_uuid=run)"
    waiting.take("note", ("x" * 9000, []), "run")
    assert waiting.tags["mlflow.note.content"] == "x" * LONGEST_TAG
