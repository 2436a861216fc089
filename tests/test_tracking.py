import logging
import subprocess
import sys

import pytest
from mlflow.tracking import MlflowClient

import pde_train.record as record_module
from pde_train.entropy import Entropy
from pde_train.errors import RunError
from pde_train.experiment import build, run
from pde_train.record import Record
from pde_train.tracking.mlflow import MlflowTracker, absolute, masked

pytestmark = pytest.mark.usefixtures("without_figures")

NETWORK = ["model=two_layer", "model.width=5", "method.steps=30", "method.log_every=10", "sampler.interior=16"]


@pytest.fixture
def uri(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PDE_TRAIN_PARENT_RUN", raising=False)
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


def only_run(uri, experiment="pde_train"):
    client = MlflowClient(uri)
    (found,) = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    return client, found


def test_a_run_keeps_every_row_parameter_tag_and_artifact(compose, uri, tmp_path):
    experiment = build(compose("tracking=mlflow", f"tracking.uri={uri}", *NETWORK))
    record = run(experiment, tmp_path / "run", {"pde": "poisson_1d"})
    client, found = only_run(uri)
    assert found.info.status == "FINISHED"
    for key, values in record.series.items():
        rows = client.get_metric_history(found.info.run_id, key)
        assert {m.step: m.value for m in rows} == values
        assert len(rows) == len(values)
    spectrum = client.get_metric_history(found.info.run_id, "spectrum/final")
    assert [m.value for m in sorted(spectrum, key=lambda m: m.step)] == record.spectra[30].tolist()
    assert found.data.params["model.width"] == "5"
    assert found.data.params["entropy.thresholds"].startswith("[0.0001")
    assert "tracking.uri" not in found.data.params
    for tag in ("git_commit", "config_hash", "precision", "version.torch", "pde", "spectrum_method"):
        assert found.data.tags[tag]
    names = {a.path for a in client.list_artifacts(found.info.run_id)}
    assert {"config.yaml", "spectrum.npz", "spectrum.csv", "history.csv", "model.pt", "figures"} <= names
    assert found.info.artifact_uri.startswith((tmp_path / "mlartifacts" / "pde_train").as_uri())


def test_a_failed_run_is_marked_and_keeps_its_losses(compose, uri, tmp_path):
    cfg = compose("tracking=mlflow", f"tracking.uri={uri}", *NETWORK, "optimizer.lr=1e200", "method.chunk=5")
    with pytest.raises(RunError, match="expected finite numbers"):
        run(build(cfg), tmp_path / "run")
    client, found = only_run(uri)
    assert found.info.status == "FAILED"
    assert client.get_metric_history(found.info.run_id, "loss")


def test_an_unreachable_store_is_one_sentence(compose, tmp_path):
    cfg = compose("tracking=mlflow", "tracking.uri=sqlite:////proc/nowhere/mlflow.db")
    with pytest.raises(RunError, match=r"the tracking store sqlite:.* cannot be used .*choose tracking=none"):
        run(build(cfg), tmp_path)


def test_a_store_that_goes_away_costs_one_warning_and_no_number(compose, uri, tmp_path, caplog):
    experiment = build(compose("tracking=mlflow", f"tracking.uri={uri}", *NETWORK))

    class Gone:
        def __getattr__(self, name):
            raise ConnectionError("the store is gone: mysql://someone:secret@host/db")

    start = experiment.tracker.start

    def start_then_lose(*arguments):
        start(*arguments)
        experiment.tracker._client = Gone()

    experiment.tracker.start = start_then_lose
    with caplog.at_level(logging.WARNING):
        record = run(experiment, tmp_path / "run")
    assert len(record.series["loss"]) == 30
    assert len((tmp_path / "run" / "history.csv").read_text().splitlines()) > 30
    (warning,) = [r.getMessage() for r in caplog.records if "went away" in r.getMessage()]
    assert "secret" not in warning


def test_rows_of_a_flush_that_failed_are_delivered_later_and_once(uri, tmp_path, monkeypatch):
    tracker = MlflowTracker(uri, "flaky")
    tracker.start("run", tmp_path, {}, {})
    record = Record(tracker, Entropy([1e-8]))
    record.log(0, {"loss": 1.0})
    record.flush()
    client = tracker._client
    monkeypatch.setattr(record_module, "FLUSH_ROWS", 2)

    class Away:
        def __init__(self):
            self.calls = 0

        def __getattr__(self, name):
            self.calls += 1
            raise ConnectionError("away")

    tracker._client = Away()
    for step in range(1, 50):
        record.log(step, {"loss": 1.0 / step})
    assert tracker._client.calls == 1  # a store that is away is not asked again at every row
    tracker._client = client
    resumed = Record(tracker, Entropy([1e-8]))  # and a resumed run offers every row again
    resumed.load_state_dict(record.state_dict())
    for again in (record, resumed):
        again.flush()
    _, found = only_run(uri, "flaky")
    rows = client.get_metric_history(found.info.run_id, "loss")
    assert sorted(m.step for m in rows) == list(range(50))


def test_processes_that_make_a_new_store_at_once_all_succeed(uri, tmp_path):
    code = f"from pde_train.tracking.mlflow import MlflowTracker; MlflowTracker({uri!r}, 'many').prepare()"
    started = [subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path) for _ in range(3)]
    assert [process.wait(timeout=120) for process in started] == [0, 0, 0]


def test_children_are_nested_under_the_parent_that_the_launcher_names(uri, tmp_path, monkeypatch):
    parent = MlflowTracker(uri, "nested")
    parent.prepare()
    parent.start("parent", tmp_path, {}, {})
    monkeypatch.setenv("PDE_TRAIN_PARENT_RUN", parent.run_id)
    (tmp_path / "child").mkdir()
    child = MlflowTracker(uri, "nested")
    child.start("child", tmp_path / "child", {}, {})
    run = MlflowClient(uri).get_run(child.run_id)
    assert run.data.tags["mlflow.parentRunId"] == parent.run_id


def test_a_reopened_run_takes_only_rows_that_it_has_not(uri, tmp_path):
    first = MlflowTracker(uri, "again")
    first.start("run", tmp_path, {"a": "1"}, {})
    first.metrics([("loss", 1.0, 0), ("loss", 0.5, 1)])
    again = MlflowTracker(uri, "again")
    again.start("run", tmp_path, {"a": "1"}, {})
    again.metrics([("loss", 0.5, 1), ("loss", 0.25, 2)])
    again.finish("finished")
    client, found = only_run(uri, "again")
    assert found.info.run_id == first.run_id
    assert [(m.step, m.value) for m in client.get_metric_history(first.run_id, "loss")] == [
        (0, 1.0),
        (1, 0.5),
        (2, 0.25),
    ]


def test_more_rows_than_one_batch_takes_all_arrive(uri, tmp_path):
    tracker = MlflowTracker(uri, "many")
    tracker.start("run", tmp_path, {}, {})
    tracker.metrics([("loss", float(k), k) for k in range(2500)])
    client, found = only_run(uri, "many")
    assert len(client.get_metric_history(found.info.run_id, "loss")) == 2500


def test_uris(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute("sqlite:///mlflow.db") == f"sqlite:///{tmp_path}/mlflow.db"
    assert absolute("sqlite:////data/mlflow.db") == "sqlite:////data/mlflow.db"
    assert absolute("http://127.0.0.1:5000") == "http://127.0.0.1:5000"
    assert masked("postgresql+psycopg2://user:secret@host/db") == "postgresql+psycopg2://***@host/db"
    assert masked("http://user:se@cret@host/db?password=hidden&x=1") == "http://***@host/db?password=***&x=1"
