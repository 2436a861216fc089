"""Runs in MLflow, by way of an outbox in each run's folder."""

from __future__ import annotations

import getpass
import logging
import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pde_train.errors import RunError, UsageError
from pde_train.run_folder import Status, set_aside
from pde_train.tracking import saved_views
from pde_train.tracking.base import Row, Tracker
from pde_train.tracking.delivery import first_line
from pde_train.tracking.outbox import Outbox, milliseconds
from pde_train.tracking.store_files import check_experiment
from pde_train.tracking.uploader import Uploader, uploader_to
from pde_train.tracking.uris import absolute, experiment_in_file, masked

HERE = "http://127.0.0.1:5000"
"""Where `mlflow ui` and `make ui` serve."""

OPEN_SECONDS, END_SECONDS = 3.0, 10.0
"""For how long a store may be silent before a run goes on without it: at the start, and at the end."""

SHORT_SECONDS = 2.0
"""The same for the end, where the store was silent before, or a sweep's end will deliver what is left."""

FILE_SECONDS = 60.0
"""The same for a sqlite file, which is never away, but which many may want to write at once."""

log = logging.getLogger(__name__)


@dataclass
class MlflowTracker(Tracker):
    """Writes an outbox in the run's folder, from which another process delivers to an MLflow store.

    Artifacts lie where the experiment has them. Where it is made here, that is `mlartifacts/` beside a
    sqlite file, for any other database in the working directory; a server has its own place.

    Attributes:
        uri: `sqlite:///file.db`, relative to the working directory, or anything else that MLflow takes
            as a tracking uri. None to deliver nothing, which `python -m pde_train.sync` does later.
        experiment: Its name in the store.

    Raises:
        UsageError: A uri that is no text, or a name that no experiment can have.
    """

    uri: str | None
    experiment: str
    _outbox: Outbox = field(init=False, repr=False)
    _nested: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        if not (self.uri is None or isinstance(self.uri, str)):
            raise UsageError("tracking.uri is no text: expected a uri such as sqlite:///mlflow.db, or null for none")
        check_experiment(self.experiment)
        self.uri = None if self.uri is None else absolute(self.uri)

    @property
    def uploader(self) -> Uploader | None:
        """Who delivers; shared by the trackers of one process."""
        return None if self.uri is None else uploader_to(self.uri, os.getpid())

    @property
    def how_to_look(self) -> str | None:
        if self.uri is None:
            return "python -m pde_train.sync delivers the runs to a tracking store"
        if self.uri.startswith("http"):
            return f"open {masked(self.uri)}"
        known = experiment_in_file(self.uri, self.experiment)
        page = HERE + (saved_views.address(known) if known else "")
        return f"mlflow ui --backend-store-uri {masked(self.uri)}   (in a checkout: make ui), then open {page}"

    def prepare(self, wait: bool = True) -> None:
        if self.uploader is None:
            return
        if not wait:
            self.uploader.request(self.experiment)
            return
        answer = self.uploader.ask(self._patience(OPEN_SECONDS), self.experiment)
        store = masked(self.uploader.uri)
        if answer.unreachable:
            log.warning(
                "the tracking store %s does not answer (%s): runs go on, and keep what they have for it until it is "
                "back, or for python -m pde_train.sync",
                store,
                answer.error,
            )
        elif answer.error is not None and answer.folder is None:
            self.uploader.close()
            raise RunError(
                f"the tracking store {store} cannot be used ({answer.error}): expected a store of this "
                "version of MLflow, correct tracking.uri or choose tracking=none"
            )

    def start(
        self,
        name: str,
        folder: Path,
        params: Mapping[str, str],
        tags: Mapping[str, str],
        parent: Path | None = None,
    ) -> None:
        self._outbox = Outbox(folder)
        self._nested = parent is not None
        if self._taken_up():
            self._tell(status=(Status.RUNNING, None))
            first = self._outbox.opening()["params"]  # which MLflow never changes; more steps, for instance, are a tag
            changed = {key: text for key, text in params.items() if first.get(key) != text}
            self._tell(tags={**tags, **changed})  # a run that was extended has another configuration and version
            return
        opening = {
            "name": name,
            "experiment": self.experiment,
            "uri": self.uri if self.uri is not None and masked(self.uri) == self.uri else None,
            "key": uuid.uuid4().hex,
            "parent": None if parent is None else os.path.relpath(parent, folder),
            "user": user(),
            "time": milliseconds(),
            "tags": dict(tags),
            "params": dict(params),
        }
        self._tell(run=opening)

    def metrics(self, rows: Sequence[Row]) -> None:
        self._outbox.metrics(rows)
        self._follow()

    def renew(self, rows: Sequence[Row]) -> None:
        self._outbox.metrics(rows, renew=True)
        self._follow()

    def tags(self, tags: Mapping[str, str]) -> None:
        self._tell(tags=dict(tags))

    def describe(self, markdown: str, pictures: Sequence[str]) -> None:
        self._tell(note=(markdown, list(pictures)))

    def artifacts(self, files: Iterable[Path]) -> None:
        self._tell(artifacts=[file.name for file in files])

    def finish(self, status: Status) -> None:
        self._tell(status=(status, milliseconds()))

    def discard(self) -> None:
        self.finish(Status.FAILED)
        self._tell(discard=True)

    def drain(self, folders: Iterable[Path] = ()) -> None:
        if self.uploader is None:
            return
        if self._nested and self.uploader.silent:
            return
        outboxes = [self._outbox.folder, *folders]
        short = self._nested or self.uploader.silent
        answer = self.uploader.ask(self._patience(SHORT_SECONDS if short else END_SECONDS), folders=outboxes)
        if answer.error is not None:
            self.uploader.warn(answer.error, str(self._outbox.folder))
        if not self._nested:  # the next cell of a sweep wants it, too
            self.uploader.close()

    def sibling(self) -> Tracker:
        return MlflowTracker(self.uri, self.experiment)

    def _patience(self, seconds: float) -> float:
        return FILE_SECONDS if (self.uri or "").startswith("sqlite:") else seconds

    def _taken_up(self) -> bool:
        """Whether an earlier process has begun the outbox; one that cannot be read or was discarded is set aside."""
        try:
            begun = self._outbox.take_up()
            if not (begun and self._outbox.is_discarded):
                return begun
        except (RunError, ValueError, TypeError) as error:
            log.warning("%s; the run begins another outbox", error)
        set_aside(self._outbox.folder)
        self._outbox = Outbox(self._outbox.folder)
        return False

    def _tell(self, **entry: object) -> None:
        self._outbox.append(**entry)
        self._follow()

    def _follow(self) -> None:
        if self.uploader is not None:
            try:
                self.uploader.follow(self._outbox.folder)
            except Exception as error:  # no room for another process, for instance: the outbox has it
                self.uploader.warn(first_line(error, self.uploader.uri), str(self._outbox.folder))


def user() -> str:
    """Who runs this: a name, or a number where the system knows none, as in many containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
