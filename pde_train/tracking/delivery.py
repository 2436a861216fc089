"""From journals to an MLflow store: a sqlite file, a database or a server."""

from __future__ import annotations

import fcntl
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pde_train.results import RUN_ID_FILE
from pde_train.tracking.journal import BATCH, Entry, Journal

STATUS = {"running": "RUNNING", "finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}

PARAMS = 100
"""Parameters, or tags, that MLflow takes in one call."""

LONGEST = 6000
"""Characters of a parameter; MLflow cuts them with a warning."""

KEY_TAG = "pde_train.journal"
"""Tag that names the journal of a run, by which it is found again where its id did not arrive."""

AWAY = ("ConnectionError", "Timeout", "ConnectTimeout", "MaxRetryError", "OperationalError", "InterfaceError")
"""Names of the exceptions of a store that does not answer (requests, urllib3, SQLAlchemy)."""


@dataclass
class Store:
    """An MLflow store by its uri. Every call may fail; what was not delivered stays in its journal.

    Exactly once: a run is looked for by its journal's key before it is made a second time, and the store takes two rows
    of the same name, step, value and time for one.
    """

    uri: str
    _client: Any = field(default=None, init=False, repr=False)
    _experiments: dict[str, str] = field(default_factory=dict, init=False, repr=False)

    def experiment_id(self, name: str) -> str:
        """The experiment of that name, made where there is none, as are the tables of a new store."""
        if name not in self._experiments:
            with alone(self.uri):  # processes that make a new store's tables at once break it for good
                self._experiments[name] = self._find_or_create_experiment(name)
        return self._experiments[name]

    def deliver(self, folder: Path) -> int:
        """Send what the journal of a run has and the store has not; the number of metric rows that were sent."""
        journal = Journal(folder)
        if not journal.waiting:
            return 0
        with journal.alone():
            return self._deliver(journal)

    def _deliver(self, journal: Journal) -> int:
        run_id = self._run_id(journal)
        rows: list[Sequence] = []
        tags: dict[str, str] = {}
        sent, end = 0, journal.delivered or 0

        def send() -> None:
            self._send(run_id, rows, tags)
            journal.delivered = end
            rows.clear()
            tags.clear()

        for entry, position in journal.entries(end):
            kind, value = next(iter(entry.items()))
            if kind == "metrics":
                if len(rows) + len(value) > BATCH:
                    send()
                rows += value
                sent += len(value)
            elif kind == "tags":
                tags |= value
            else:
                send()
                self._tell(run_id, journal.folder, kind, value)
            end = position
        send()
        return sent

    def _send(self, run_id: str, rows: Sequence[Sequence], tags: Mapping[str, str]) -> None:
        from mlflow.entities import Metric, RunTag

        if rows or tags:
            metrics = [Metric(key, value, now, step) for key, value, step, now in rows]
            self._client.log_batch(run_id, metrics=metrics, tags=[RunTag(*pair) for pair in tags.items()])

    def _tell(self, run_id: str, folder: Path, kind: str, value: Any) -> None:
        if kind == "run":
            self._parameters(run_id, value["params"])
        elif kind == "status":
            name, time = value
            if name == "running":
                self._client.update_run(run_id, status=STATUS[name])
            else:
                self._client.set_terminated(run_id, STATUS[name], end_time=time)
        elif kind == "note":
            text, pictures = value
            shown = [f"![{name}](get-artifact?path={name}&run_uuid={run_id})" for name in pictures]
            self._client.set_tag(run_id, "mlflow.note.content", "\n\n".join([text, *shown]))
        elif kind == "artifacts":
            for name in value:
                file = folder / name
                if file.is_dir():
                    self._client.log_artifacts(run_id, str(file), file.name)
                elif file.exists():  # a later run in the same folder may have cleared it away
                    self._client.log_artifact(run_id, str(file))

    def _parameters(self, run_id: str, params: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        pairs = [Param(key, text[:LONGEST]) for key, text in params.items()]
        for start in range(0, len(pairs), PARAMS):
            self._client.log_batch(run_id, params=pairs[start : start + PARAMS])

    def _run_id(self, journal: Journal) -> str:
        """The run of a journal, made where there is none; its parent is delivered first."""
        file = journal.folder / RUN_ID_FILE
        if file.exists():
            self._connect()
            return file.read_text().strip()
        about = next(entry for entry, _ in journal.entries())["run"]
        parent = self._parent_id(journal.folder, about)
        experiment = self.experiment_id(about["experiment"])
        found = self._known(experiment, about["key"]) if journal.delivered is not None else None
        journal.delivered = journal.delivered or 0
        run_id = found or self._create(experiment, about, parent)
        beside = file.with_suffix(".part")
        beside.write_text(run_id)
        beside.replace(file)
        return run_id

    def _create(self, experiment: str, about: Mapping[str, Any], parent: str | None) -> str:
        tags = {
            **({"mlflow.parentRunId": parent} if parent else {}),
            "mlflow.user": about["user"],
            "mlflow.source.name": "pde_train",
            KEY_TAG: about["key"],
            **about["tags"],
        }
        run = self._client.create_run(experiment, start_time=about["time"], run_name=about["name"], tags=tags)
        return run.info.run_id

    def _known(self, experiment: str, key: str) -> str | None:
        runs = self._client.search_runs([experiment], f"tags.`{KEY_TAG}` = '{key}'", max_results=1)
        return runs[0].info.run_id if runs else None

    def _parent_id(self, folder: Path, about: Entry) -> str | None:
        """The run that a run nests under, if its journal is still there."""
        parent = folder / (about["parent"] or "")
        if parent == folder or not Journal(parent).file.exists():
            return None
        if not (parent / RUN_ID_FILE).exists():
            self.deliver(parent)
        return (parent / RUN_ID_FILE).read_text().strip()

    def _find_or_create_experiment(self, name: str) -> str:
        client = self._connect()
        found = client.get_experiment_by_name(name)
        if found is None:
            local = self.uri.startswith("sqlite:")
            folder = Path(self.uri.removeprefix("sqlite:///")).parent / "mlartifacts" / name
            try:
                return client.create_experiment(name, artifact_location=folder.as_uri() if local else None)
            except Exception:  # another process may have been faster
                found = client.get_experiment_by_name(name)
                if found is None:
                    raise
        return found.experiment_id

    def _connect(self) -> Any:
        if self._client is None:
            os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # our own tries know what may be sent twice
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
            from mlflow.tracking import MlflowClient

            for name in ("mlflow", "alembic", "urllib3"):  # after the import, which sets them up
                logging.getLogger(name).setLevel(logging.ERROR)
            self._client = MlflowClient(self.uri)
        return self._client


@contextmanager
def alone(uri: str) -> Iterator[None]:
    """Hold a lock beside the file of a sqlite store; other stores lock for themselves."""
    if not uri.startswith("sqlite:///"):
        yield
        return
    with Path(f"{uri.removeprefix('sqlite:///')}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def away(error: BaseException, uri: str) -> bool:
    """Whether an error means that a store does not answer now, and not that it never will."""
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)
    names = {base.__name__ for one in causes for base in type(one).__mro__}
    if uri.startswith("sqlite:"):
        return False
    return bool(names & set(AWAY)) or any(re.search(r"error code 5\d\d|max retries", str(e), re.I) for e in causes)


def absolute(uri: str) -> str:
    """A sqlite uri with an absolute path; any other uri as it is."""
    match = re.fullmatch(r"sqlite:///(?!/)(.+)", uri)
    return f"sqlite:///{Path(match[1]).absolute()}" if match else uri


def masked(uri: str) -> str:
    """The uri without a password."""
    return re.sub(r"(?i)(password|token)=[^&\s]*", r"\1=***", re.sub(r"//[^/]*@", "//***@", uri))


def first_line(error: BaseException) -> str:
    """What the first cause of an exception says first, without secrets."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return masked((str(error).strip() or type(error).__name__).splitlines()[0])
