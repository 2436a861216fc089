"""sqlite, PostgreSQL, an MLflow server: every row arrives once, from many processes and after an absence."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import forked
import pytest
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy import text
from sweeping import SMALL, results, started

from benchmarks.stores import Server, postgres, postgres_programs, server
from pde_train import sync
from pde_train.run_folder import Status
from pde_train.tracking.database import TABLES, Database
from pde_train.tracking.delivery import Store
from pde_train.tracking.mlflow import MlflowTracker
from pde_train.tracking.reading import Reader

PROCESSES, STEPS, KEYS = 8, 500, ("loss", "error", "entropy/1e-08")

LOGGING = f"""
import sys
from pathlib import Path
from pde_train.tracking.database import TABLES, Database
from pde_train.tracking.delivery import Store
from pde_train.tracking.mlflow import MlflowTracker

uri, name, parent = sys.argv[1:]
folder = Path(name)
folder.mkdir()
(folder / "note.txt").write_text(name)
tracker = MlflowTracker(uri, "many")
tracker.start(name, folder, {{"name": name}}, {{"first": name}}, Path(parent))
for start in range(0, {STEPS}, 100):
    tracker.metrics([(key, k + len(key) / 100, k) for k in range(start, start + 100) for key in {KEYS}])
tracker.tags({{"second": name}})
tracker.artifacts([folder / "note.txt"])
tracker.finish("finished")
tracker.drain()
"""


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    if postgres_programs() is None:
        pytest.skip("no PostgreSQL server is installed: initdb is neither in PATH nor below /usr/lib/postgresql")
    with postgres() as uri:
        yield uri


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with server(tmp_path_factory.mktemp("server")) as one:
        yield one.uri


@pytest.fixture(params=["sqlite", "postgresql", "server"])
def uri(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'mlflow.db'}"
    return request.getfixturevalue("database" if request.param == "postgresql" else "mlflow_server")


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_database_holds_what_mlflow_itself_would_have_written(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    """Two runs get the same calls, one by MLflow's `log_batch`; their rows of all tables are the same."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}" if kind == "sqlite" else request.getfixturevalue("database")
    client = MlflowClient(uri)
    experiment = client.create_experiment("compared")
    ours, theirs = (client.create_run(experiment).info.run_id for _ in range(2))
    database = Database.of(client)
    assert database is not None
    calls = [
        ([("loss", 0.5, 3, 7), ("loss", float("nan"), 4, 7), ("error", float("inf"), 0, 1)], {"a": "1"}, {"t": "old"}),
        ([("loss", 0.25, 2, 9), ("error", -float("inf"), 0, 1), ("small", 1e-320, 0, 0), ("zero", -0.0, 1, 1)], {}, {}),
        ([("loss", 0.5, 3, 7), ("loss", 0.5, 3, 7), ("loss", 0.125, 4, 7)], {"b": "2" * 6000}, {"t": "new", "u": "é"}),
        ([("error", 1.0, 0, 2), ("loss", 0.5, 4, 6)], {"a": "1"}, {"mlflow.runName": "renamed"}),
        ([], {}, {}),
    ]
    whole = Store(uri)
    whole._client = client
    for rows, params, tags in calls:
        database.log(ours, rows, params, tags)
        whole._log_batches(theirs, rows, params, tags)

    def written(run_id: str, table: str) -> list[tuple[Any, ...]]:
        with database.store.engine.connect() as connection:
            columns = sorted(TABLES[table] - {"run_uuid"})
            chosen = f"SELECT {', '.join(columns)} FROM {table} WHERE run_uuid = '{run_id}'"
            return sorted(tuple(row) for row in connection.execute(text(chosen)))

    for table in TABLES:
        assert written(ours, table) == written(theirs, table)
        assert written(ours, table)
    assert [client.get_run(run_id).info.run_name for run_id in (ours, theirs)] == ["renamed"] * 2
    with pytest.raises(MlflowException, match="not found") as missing:
        database.log("0" * 32, [("loss", 1.0, 0, 0)], {}, {})
    assert missing.value.error_code == "RESOURCE_DOES_NOT_EXIST"
    client.delete_run(ours)
    with pytest.raises(MlflowException, match="must be in the 'active' state"):
        database.log(ours, [("loss", 1.0, 0, 0)], {}, {})


def test_a_server_and_unknown_tables_get_calls_of_mlflow(
    mlflow_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Database.of(MlflowClient(mlflow_server)) is None
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert Database.of(client) is not None
    monkeypatch.setitem(TABLES, "tags", {"key", "value", "run_uuid", "colour"})
    assert Database.of(client) is None


def found(
    uri: str, experiment: str, by: Callable[[Run], str] = lambda run: run.info.run_name
) -> tuple[MlflowClient, dict[str, Run]]:
    """Every run of an experiment, by its name; none may be there twice."""
    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name(experiment).experiment_id], max_results=1000)
    by_name = {by(run): run for run in runs}
    assert len(by_name) == len(runs)
    return client, by_name


def rows(client: MlflowClient, run: Run, key: str) -> list[tuple[int, float]]:
    return sorted((m.step, m.value) for m in client.get_metric_history(run.info.run_id, key))


def test_eight_processes_at_once_lose_nothing(uri: str, tmp_path: Path) -> None:
    parent = MlflowTracker(uri, "many")
    parent.prepare()
    (tmp_path / "grid").mkdir()
    parent.start("grid", tmp_path / "grid", {}, {})
    names = [f"run-{k}" for k in range(PROCESSES)]
    words = ["-c", LOGGING, uri]
    processes = [forked.started(*words, name, str(tmp_path / "grid"), folder=tmp_path) for name in names]
    said = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0] * PROCESSES, said
    parent.finish(Status.FINISHED)
    parent.drain([tmp_path / name for name in names])
    client, runs = found(uri, "many")
    assert set(runs) == {"grid", *names}
    for name in names:
        run = runs[name]
        assert run.info.status == "FINISHED"
        assert run.data.params == {"name": name}
        assert (run.data.tags["first"], run.data.tags["second"]) == (name, name)
        assert run.data.tags["mlflow.parentRunId"] == runs["grid"].info.run_id
        for key in KEYS:
            assert rows(client, run, key) == [(k, k + len(key) / 100) for k in range(STEPS)]
        assert [a.path for a in client.list_artifacts(run.info.run_id)] == ["note.txt"]
        if not uri.startswith("http"):
            kept = tmp_path / "mlartifacts" / "many" / run.info.run_id / "artifacts" / "note.txt"
            assert kept.read_text() == name


def test_a_report_reads_runs_and_their_files_and_is_attached_to_them(uri: str, tmp_path: Path) -> None:
    tracker = MlflowTracker(uri, "read")
    tracker.start("run", tmp_path, {"model.width": "5"}, {"pde": "p"})
    tracker.metrics([("loss", 1 / 2**k, k) for k in range(5)])
    (tmp_path / "history.csv").write_text("metric,step,value\n" + "".join(f"loss,{k},{1 / 2**k}\n" for k in range(5)))
    tracker.artifacts([tmp_path / "history.csv"])
    tracker.finish(Status.FINISHED)
    tracker.drain()
    reader = Reader(uri, "read")
    (run,) = reader.runs().to_dict("records")
    assert (run["name"], run["status"], run["params.model.width"], run["tags.pde"]) == ("run", "FINISHED", "5", "p")
    assert run["metrics.loss"] == 1 / 16
    assert run["end"] >= run["start"] > 1e9
    assert list(reader.csv(run["artifacts"], "history.csv")["value"]) == [1 / 2**k for k in range(5)]
    assert reader.csv(run["artifacts"], "spectrum.csv").empty
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "report.html").write_text("<p>")
    reader.attach(run["id"], tmp_path / "report")
    assert [f.path for f in MlflowClient(uri).list_artifacts(run["id"], "report")] == ["report/report.html"]


def test_processes_that_make_a_new_database_at_once_all_succeed(database: str, tmp_path: Path) -> None:
    import psycopg

    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE DATABASE another")
    uri = database.replace("/postgres", "/another")
    code = f"from pde_train.tracking.mlflow import MlflowTracker; MlflowTracker({uri!r}, 'many').prepare()"
    processes = [forked.started("-c", code, folder=tmp_path) for _ in range(3)]
    said = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], said


@pytest.mark.parametrize(("cells", "comes_back"), [(6, True), (2, False)])
def test_a_sweep_whose_server_is_killed_ends_well_and_nothing_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], cells: int, comes_back: bool
) -> None:
    (tmp_path / "server").mkdir()
    one = Server(tmp_path / "server")
    try:
        one.start()
        # long enough for the server to come back before the end
        steps = 1500 if comes_back else 200
        words = [*SMALL, f"method.steps={steps}", f"tracking.uri={one.uri}", f"seed=range({cells})"]
        sweep = started(tmp_path, *words)
        until(lambda: list(tmp_path.glob("multirun/cells/*/tracking.jsonl")), sweep)
        one.kill()
        if comes_back:
            until(lambda: len(results(tmp_path)) >= 2, sweep)
            one.start()
        out, err = sweep.communicate(timeout=300)
        assert sweep.returncode == 0, out + err
        assert [r["status"] for r in results(tmp_path).values()] == ["finished"] * cells
        assert (out + err).count("python -m pde_train.sync delivers it") <= 1, out + err
        if not comes_back:
            assert (out + err).count("python -m pde_train.sync delivers it") == 1, out + err
            one.start()
            for said in (f"delivered {cells + 1} runs", "nothing was waiting"):
                assert sync.main([str(tmp_path / "multirun")]) == 0
                assert said in capsys.readouterr().out
        client, runs = found(one.uri, "pde_train", by=lambda run: run.info.run_id)
        assert {run.info.status for run in runs.values()} == {"FINISHED"}
        (parent,) = (run for run in runs.values() if "sweep" in run.data.tags)
        children = [run for run in runs.values() if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
        assert len(children) == len(runs) - 1 == cells
        for child in children:
            assert [step for step, _ in rows(client, child, "loss")] == list(range(steps))
    finally:
        one.kill()


def until(happened: Callable[[], object], sweep: forked.Forked) -> None:
    while not happened():
        assert sweep.poll() is None, sweep.communicate()
        time.sleep(0.01)
