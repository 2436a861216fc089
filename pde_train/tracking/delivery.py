"""From outboxes to an MLflow store: a sqlite file, a database or a server."""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pde_train.errors import PdeTrainError, brief
from pde_train.run_folder import Status, written_in
from pde_train.tracking import saved_views
from pde_train.tracking.calls import Call, Waiting
from pde_train.tracking.database import Database
from pde_train.tracking.outbox import BATCH, Entry, Mark, Outbox, milliseconds
from pde_train.tracking.store_files import (
    alone,
    artifact_location,
    check_experiment,
    check_file,
    follow_a_move,
    own_file,
)
from pde_train.tracking.uris import encoded, masked, without_secrets

STATUS = {
    Status.RUNNING: "RUNNING",
    Status.FINISHED: "FINISHED",
    Status.FAILED: "FAILED",
    Status.INTERRUPTED: "KILLED",
    Status.PRUNED: "KILLED",
}
"""MLflow's names."""

DATABASE_BATCH = 20_000
"""Rows that a database gets in one transaction, a tenth of a second in which others wait for it."""

KEY_TAG = "mlflow.pde_train.outbox"
"""Tag that names the outbox of a run, by which it is found again where its id did not arrive.

MLflow's pages show no tag that begins with `mlflow.`.
"""

TIMEOUT_SECONDS = 10
"""For one request to a server, and to connect to a database."""

AWAY = ("ConnectionError", "Timeout", "ConnectTimeout", "MaxRetryError", "OperationalError", "InterfaceError")
"""Names of the exceptions of a store that does not answer (requests, urllib3, SQLAlchemy)."""


@dataclass
class Store:
    """An MLflow store by its uri. Every call may fail; what was not delivered stays in its outbox.

    Exactly once: a run is looked for by its outbox's key before it is made a second time, and the store takes two rows
    of the same name, step, value and time for one.
    """

    uri: str
    again: bool = False
    """Send everything of every outbox once more, and make the runs that the store has not (any more)."""
    answered: Callable[[], None] = lambda: None
    """Called after every answer of the store."""
    delivered: set[Path] = field(default_factory=set, init=False, repr=False)
    """Folders of which something has been delivered."""
    rows: int = field(default=0, init=False, repr=False)
    """Metric rows that have been delivered."""
    _client: Any = field(default=None, init=False, repr=False)
    _log: Callable[..., None] = field(init=False, repr=False)
    """Takes the id of a run and a `Call`."""
    _at_once: int = field(default=BATCH, init=False, repr=False)
    """Rows of a call."""
    _experiments: dict[str, str] = field(default_factory=dict, init=False, repr=False)
    _afresh: set[Path] = field(default_factory=set, init=False, repr=False)
    """Folders that have been begun again, which happens once."""
    _at_work: set[Path] = field(default_factory=set, init=False, repr=False)
    """Folders that are being delivered: a run and its parents, none of which is its own."""

    @property
    def name(self) -> str:
        """What the store is called in outboxes."""
        return masked(self.uri)

    def experiment_id(self, name: str) -> str:
        """The experiment of that name, made where there is none, as are the tables of a new store."""
        if name not in self._experiments:
            check_experiment(name)
            check_file(self.uri)
            self.load()
            with alone(self.uri):  # processes that make a new store's tables at once break it for good
                self._experiments[name] = self._find_or_create_experiment(name)
        return self._experiments[name]

    def deliver(self, folder: Path) -> None:
        """Send what the outbox of a run has and the store has not.

        Where the store knows its run no more, as it was emptied since, everything is sent again.
        """
        folder = folder.resolve()
        outbox = Outbox(folder)
        afresh = self.again and folder not in self._afresh and outbox.file.exists()
        if folder in self._at_work or not (afresh or outbox.waits_for(self.name)):
            return
        with outbox.alone(), self._working(folder):
            if afresh:
                self._afresh.add(folder)
                outbox.keep(self.name, None)
            try:
                self._deliver(outbox)
            except Exception as error:  # MLflow has no class of its own for an unknown run
                if getattr(error, "error_code", "") != "RESOURCE_DOES_NOT_EXIST":
                    raise
                outbox.keep(self.name, None)
                self._experiments.clear()
                self._deliver(outbox)
        self.delivered.add(folder)

    @contextmanager
    def _working(self, folder: Path) -> Iterator[None]:
        self._at_work.add(folder)
        try:
            yield
        finally:
            self._at_work.discard(folder)

    def _deliver(self, outbox: Outbox) -> None:
        run_id = self._run_id(outbox)
        waiting = Waiting(self._at_once)
        end = outbox.mark(self.name).position

        def send(calls: Iterator[Call]) -> None:
            for call in calls:
                self._log(run_id, *call)
                self.answered()

        for entry, position in outbox.entries(end):
            kind, value = next(iter(entry.items()))
            if waiting.take(kind, value, run_id):
                self.rows += len(value) if kind == "metrics" else 0
                if len(waiting.rows) >= self._at_once:
                    send(waiting.full())
                    if len(waiting.rows) <= len(value):  # what is left is of this entry
                        outbox.keep(self.name, Mark(run_id, end))
            else:
                send(waiting.all())
                outbox.keep(self.name, Mark(run_id, end))
                self._tell(run_id, outbox.folder, kind, value)
            end = position
        send(waiting.all())
        outbox.keep(self.name, Mark(run_id, end))

    def _tell(self, run_id: str, folder: Path, kind: str, value: Any) -> None:
        if kind == "status":
            status, time = Status(value[0]), value[1]
            if status.is_end:
                self._client.set_terminated(run_id, STATUS[status], end_time=time)
            else:
                self._client.update_run(run_id, status=STATUS[status])
        elif kind == "discard":
            if self._client.get_run(run_id).info.lifecycle_stage == "active":  # it may be told a second time
                self._client.delete_run(run_id)
        elif kind == "artifacts":
            with tempfile.TemporaryDirectory() as together:  # every call asks the store for the run first
                for file in (own_file(folder, name) for name in value):
                    if file.is_dir():
                        shutil.copytree(file, Path(together) / file.name)
                    elif file.exists():  # a later run in the same folder may have cleared it away
                        shutil.copy(file, together)
                self._client.log_artifacts(run_id, together)
            self.answered()

    def _run_id(self, outbox: Outbox) -> str:
        """The run of an outbox, made where there is none; its parent is delivered first."""
        if (run_id := outbox.mark(self.name).run) is not None:
            self.connect()
            return run_id
        opening = outbox.opening()
        parent = self._parent_id(outbox.folder, opening)
        experiment = self.experiment_id(opening["experiment"])
        known = self._known(experiment, opening["key"]) if outbox.tried else None
        outbox.keep(self.name, Mark(None, 0))
        run_id = known or self._create(experiment, opening, parent)
        self.answered()
        outbox.keep(self.name, Mark(run_id, 0))
        return run_id

    def _create(self, experiment: str, opening: Mapping[str, Any], parent: str | None) -> str:
        tags = {
            **({"mlflow.parentRunId": parent} if parent else {}),
            "mlflow.user": opening["user"],
            "mlflow.source.name": "pde_train",
            KEY_TAG: opening["key"],
            **opening["tags"],
        }
        run = self._client.create_run(experiment, start_time=opening["time"], run_name=opening["name"], tags=tags)
        return str(run.info.run_id)

    def _known(self, experiment: str, key: str) -> str | None:
        runs = self._client.search_runs([experiment], f"tags.`{KEY_TAG}` = '{key}'", max_results=1)
        return runs[0].info.run_id if runs else None

    def _parent_id(self, folder: Path, opening: Entry) -> str | None:
        """The run that a run nests under, if its outbox is still there."""
        if opening["parent"] is None:
            return None
        parent = (written_in(folder) / opening["parent"]).resolve()
        if parent == folder or not Outbox(parent).file.exists():
            return None
        if self.again or Outbox(parent).mark(self.name).run is None:
            self.deliver(parent)
        return Outbox(parent).mark(self.name).run

    def _find_or_create_experiment(self, name: str) -> str:
        client = self.connect()
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            views = saved_views.tags(milliseconds())
            try:
                return str(client.create_experiment(name, artifact_location(self.uri, name), views))
            except Exception:  # another process may have been faster
                experiment = client.get_experiment_by_name(name)
                if experiment is None:
                    raise
        elif not saved_views.are_in(experiment.tags):  # it was made by hand, or by an earlier version
            for key, value in saved_views.tags(milliseconds()).items():
                if key not in experiment.tags:
                    client.set_experiment_tag(experiment.experiment_id, key, value)
        return str(experiment.experiment_id)

    def load(self) -> None:
        """Import MLflow, which takes a second or more."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # our own tries know what may be sent twice
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(TIMEOUT_SECONDS))
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # a bar for every small file
        os.environ.setdefault("PGCONNECT_TIMEOUT", str(TIMEOUT_SECONDS))
        import mlflow.tracking  # noqa: F401

        for name in ("mlflow", "alembic", "urllib3", "psycopg"):  # after the import, which sets them up
            logging.getLogger(name).setLevel(logging.ERROR)

    def connect(self) -> Any:
        """MLflow's client of the store, whose experiments know where its files are, also after they were moved."""
        if self._client is None:
            self.load()
            from mlflow.tracking import MlflowClient

            follow_a_move(self.uri)
            self._client = MlflowClient(encoded(self.uri))
            database = Database.of(self._client)
            self._log = self._log_batches if database is None else database.log
            self._at_once = BATCH if database is None else DATABASE_BATCH
        return self._client

    def _log_batches(
        self, run_id: str, rows: Sequence[Sequence[Any]], params: Mapping[str, str], tags: Mapping[str, str]
    ) -> None:
        """By MLflow's own call, which takes BATCH rows, parameters and tags together."""
        from mlflow.entities import Metric, Param, RunTag

        self._client.log_batch(
            run_id,
            metrics=[Metric(key, value, now, step) for key, value, step, now in rows],
            params=[Param(key, value) for key, value in params.items()],
            tags=[RunTag(key, value) for key, value in tags.items()],
        )


def is_unreachable(error: BaseException, uri: str) -> bool:
    """Whether an error means that a store does not answer now, and not that it never will."""
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)
    if uri.startswith("sqlite:"):  # another process is writing, and does not end
        return any("database is locked" in str(cause) for cause in causes)
    names = {base.__name__ for cause in causes for base in type(cause).__mro__}
    return bool(names & set(AWAY)) or any(re.search(r"error code 5\d\d|max retries", str(e), re.I) for e in causes)


def first_line(error: BaseException, uri: str = "") -> str:
    """What the first cause of an exception says first, without the secrets of a store."""
    while not isinstance(error, PdeTrainError) and (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return without_secrets(brief(error), [uri])
