"""Runs in an MLflow store: a sqlite file, a database or a server."""

from __future__ import annotations

import fcntl
import getpass
import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pde_train.errors import RunError
from pde_train.results import RUN_ID_FILE
from pde_train.tracking.base import PARENT, Row, Tracker

BATCH = 1000
"""MLflow takes at most this many metrics in one call."""

STATUS = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}

log = logging.getLogger(__name__)


@dataclass
class MlflowTracker(Tracker):
    """Synchronous batches to an MLflow store.

    uri: `sqlite:///file.db`, relative to the working directory, or anything else that MLflow takes as a tracking uri.
    experiment: its name there; of a local store the artifacts lie in `mlartifacts/` beside the database.

    A store that cannot be reached at the start is an error. One that goes away later costs one warning: the run goes
    on, everything stays in its folder, and rows that were not delivered are offered again.
    """

    uri: str
    experiment: str
    run_id: str | None = field(default=None, init=False)
    _client: Any = field(default=None, init=False, repr=False)
    _warned: bool = field(default=False, init=False)
    _known: dict[str, set[int]] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.uri = absolute(self.uri)

    @property
    def how_to_look(self) -> str | None:
        if self.uri.startswith("http"):
            return f"open {masked(self.uri)}"
        return f"mlflow ui --backend-store-uri {masked(self.uri)}   (in a checkout: make ui), then open http://127.0.0.1:5000"

    def prepare(self) -> None:
        self._reach(self._experiment_id)

    def start(self, name: str, folder: Path, params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        self._reach(lambda: self._start(name, folder, params, tags))

    def metrics(self, rows: Sequence[Row]) -> bool:
        delivered = self._send(len(rows), lambda: self._metrics(rows))
        if not delivered:
            self._known = {}  # part of the rows may have arrived: ask the store before the next try
        return delivered

    def tags(self, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        self._send(len(tags), lambda: self._client.log_batch(self.run_id, tags=[RunTag(*t) for t in tags.items()]))

    def describe(self, markdown: str, pictures: Sequence[str]) -> None:
        shown = [f"![{name}](get-artifact?path={name}&run_uuid={self.run_id})" for name in pictures]
        self.tags({"mlflow.note.content": "\n\n".join([markdown, *shown])})

    def artifacts(self, files: Iterable[Path]) -> None:
        for file in files:
            if file.is_dir():
                self._send(1, lambda f=file: self._client.log_artifacts(self.run_id, str(f), f.name))  # type: ignore[misc]
            else:
                self._send(1, lambda f=file: self._client.log_artifact(self.run_id, str(f)))  # type: ignore[misc]

    def finish(self, status: str) -> None:
        self._send(1, lambda: self._client.set_terminated(self.run_id, STATUS[status]))

    def _start(self, name: str, folder: Path, params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        experiment = self._experiment_id()
        file = folder / RUN_ID_FILE
        if file.exists():
            self.run_id = file.read_text().strip()
            self._known = {}
            self._client.update_run(self.run_id, status="RUNNING")
            return
        parent = {"mlflow.parentRunId": os.environ[PARENT]} if PARENT in os.environ else {}
        system = {"mlflow.user": getpass.getuser(), "mlflow.source.name": "pde_train"}
        run = self._client.create_run(experiment, run_name=name, tags={**parent, **system, **tags})
        self.run_id = run.info.run_id
        file.write_text(run.info.run_id)
        pairs = [Param(k, v) for k, v in params.items()]
        for start in range(0, len(pairs), 100):
            self._client.log_batch(self.run_id, params=pairs[start : start + 100])

    def _experiment_id(self) -> str:
        with alone(self.uri):  # processes that make a new store's tables at once break it for good
            return self._find_or_create_experiment()

    def _find_or_create_experiment(self) -> str:
        client = self._connect()
        found = client.get_experiment_by_name(self.experiment)
        if found is None:
            local = self.uri.startswith("sqlite:")
            folder = Path(self.uri.removeprefix("sqlite:///")).parent / "mlartifacts" / self.experiment
            try:
                return client.create_experiment(self.experiment, artifact_location=folder.as_uri() if local else None)
            except Exception:  # another process may have been faster
                found = client.get_experiment_by_name(self.experiment)
                if found is None:
                    raise
        return found.experiment_id

    def _connect(self) -> Any:
        if self._client is None:
            os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
            from mlflow.tracking import MlflowClient

            for name in ("mlflow", "alembic", "urllib3"):  # after the import, which sets them up
                logging.getLogger(name).setLevel(logging.ERROR)
            self._client = MlflowClient(self.uri)
        return self._client

    def _metrics(self, rows: Sequence[Row]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        fresh = [Metric(key, value, now, step) for key, value, step in rows if not self._has(key, step)]
        for start in range(0, len(fresh), BATCH):
            self._client.log_batch(self.run_id, metrics=fresh[start : start + BATCH])
        if self._known is not None:
            for metric in fresh:
                self._known[metric.key].add(metric.step)

    def _has(self, key: str, step: int) -> bool:
        """Whether the store has this row already; asked only where it may: in a resumed run, or after a failed call."""
        if self._known is None:
            return False
        if key not in self._known:
            self._known[key] = {m.step for m in self._client.get_metric_history(self.run_id, key)}
        return step in self._known[key]

    def _reach(self, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception as error:
            raise RunError(
                f"the tracking store {masked(self.uri)} cannot be used ({first_line(error)}): expected a store that "
                "answers, start it, correct tracking.uri or choose tracking=none"
            ) from error

    def _send(self, count: int, call: Callable[[], object]) -> bool:
        """Deliver something, if there is anything; a store that has gone away is said once and never fails the run."""
        if count == 0:
            return True
        try:
            call()
        except Exception as error:
            if not self._warned:
                log.warning(
                    "the tracking store %s went away (%s): the run goes on, and its folder keeps everything",
                    masked(self.uri),
                    first_line(error),
                )
            self._warned = True
            return False
        return True


@contextmanager
def alone(uri: str) -> Iterator[None]:
    """Hold a lock beside the file of a sqlite store; other stores lock for themselves."""
    if not uri.startswith("sqlite:///"):
        yield
        return
    with Path(f"{uri.removeprefix('sqlite:///')}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


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
