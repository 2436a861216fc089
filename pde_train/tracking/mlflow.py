"""Runs in MLflow, by way of a journal in each run's folder."""

from __future__ import annotations

import getpass
import logging
import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from pde_train.errors import RunError
from pde_train.tracking.base import PARENT, Row, Tracker
from pde_train.tracking.courier import Courier
from pde_train.tracking.delivery import Store, absolute, away, first_line, masked
from pde_train.tracking.journal import Journal, milliseconds

log = logging.getLogger(__name__)


@dataclass
class MlflowTracker(Tracker):
    """Writes a journal in the run's folder, from which a thread delivers to an MLflow store.

    uri: `sqlite:///file.db`, relative to the working directory, or anything else that MLflow takes as a tracking uri;
    None to deliver nothing, which `python -m pde_train.sync` does later. experiment: its name in the store; of a local
    store the artifacts lie in `mlartifacts/` beside the database.
    """

    uri: str | None
    experiment: str
    _journal: Journal = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.uri = None if self.uri is None else absolute(self.uri)

    @cached_property
    def courier(self) -> Courier | None:
        """Who delivers; trackers of one process may share theirs."""
        return None if self.uri is None else Courier(Store(self.uri))

    @property
    def how_to_look(self) -> str | None:
        if self.uri is None:
            return "python -m pde_train.sync delivers the runs to a tracking store"
        if self.uri.startswith("http"):
            return f"open {masked(self.uri)}"
        return f"mlflow ui --backend-store-uri {masked(self.uri)}   (in a checkout: make ui), then open http://127.0.0.1:5000"

    def prepare(self) -> None:
        if self.courier is None:
            return
        try:
            self.courier.store.experiment_id(self.experiment)
        except Exception as error:
            store = masked(self.courier.store.uri)
            if not away(error, self.courier.store.uri):
                raise RunError(
                    f"the tracking store {store} cannot be used ({first_line(error)}): expected a store of this "
                    "version of MLflow, correct tracking.uri or choose tracking=none"
                ) from error
            log.warning(
                "the tracking store %s does not answer (%s): runs go on, and keep what they have for it until it is "
                "back, or for python -m pde_train.sync",
                store,
                first_line(error),
            )

    def start(self, name: str, folder: Path, params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        self._journal = Journal(folder)
        if self._journal.take_up():
            self._tell(status=("running", None))
            return
        about = {
            "name": name,
            "experiment": self.experiment,
            "uri": self.uri if self.uri is not None and masked(self.uri) == self.uri else None,
            "key": uuid.uuid4().hex,
            "parent": os.path.relpath(os.environ[PARENT], folder) if PARENT in os.environ else None,
            "user": getpass.getuser(),
            "time": milliseconds(),
            "tags": dict(tags),
            "params": dict(params),
        }
        self._tell(run=about)

    def metrics(self, rows: Sequence[Row]) -> None:
        self._journal.metrics(rows)
        self._nudge()

    def tags(self, tags: Mapping[str, str]) -> None:
        self._tell(tags=dict(tags))

    def describe(self, markdown: str, pictures: Sequence[str]) -> None:
        self._tell(note=(markdown, list(pictures)))

    def artifacts(self, files: Iterable[Path]) -> None:
        self._tell(artifacts=[file.name for file in files])

    def finish(self, status: str) -> None:
        self._tell(status=(status, milliseconds()))

    def drain(self, folders: Iterable[Path] = ()) -> None:
        if self.courier is not None:
            self.courier.drain([self._journal.folder, *folders])

    def sibling(self) -> Tracker:
        other = MlflowTracker(self.uri, self.experiment)
        other.courier = self.courier
        return other

    def _tell(self, **entry: object) -> None:
        self._journal.append(**entry)
        self._nudge()

    def _nudge(self) -> None:
        if self.courier is not None:
            self.courier.nudge(self._journal.folder)
