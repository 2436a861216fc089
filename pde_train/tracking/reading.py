"""Runs out of an MLflow store, as a table and as curves."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from pde_train.errors import RunError
from pde_train.tracking.delivery import Store, first_line
from pde_train.tracking.uris import absolute, encoded, masked, sqlite_file

if TYPE_CHECKING:
    import pandas as pd

PAGE = 1000
"""Runs that are asked for at once."""


@dataclass(frozen=True)
class Reader:
    """Reads one experiment of a store; what is wrong with either is a RunError."""

    uri: str
    experiment: str

    def runs(self) -> pd.DataFrame:
        """A row a run: id, name, status, artifacts, start and end (s), params.<key>, tags.<key>, last metrics.<key>."""
        import pandas as pd

        experiment = self._experiment_id
        rows: list[dict[str, Any]] = []
        token = None
        while True:
            page = self._client.search_runs([experiment], max_results=PAGE, page_token=token)
            rows += map(_row, page)
            token = page.token
            if not token:
                return pd.DataFrame(rows)

    def csv(self, artifacts: str, name: str) -> pd.DataFrame:
        """A csv file among the artifacts of a run; empty where there is none. It is faster than the store's rows."""
        import mlflow.artifacts
        import pandas as pd
        from mlflow.exceptions import MlflowException

        where = {"artifact_uri": f"{artifacts}/{name}", "tracking_uri": encoded(absolute(self.uri))}
        in_place = urlsplit(artifacts).scheme in ("", "file")
        try:
            with nullcontext() if in_place else tempfile.TemporaryDirectory() as folder:
                return pd.read_csv(mlflow.artifacts.download_artifacts(**where, dst_path=folder))
        except (OSError, MlflowException):
            return pd.DataFrame()

    def attach(self, run_id: str, folder: Path) -> None:
        """Keep a folder as an artifact of a run."""
        self._client.log_artifacts(run_id, str(folder), folder.name)

    @cached_property
    def _client(self) -> Any:
        return Store(absolute(self.uri)).connect()

    @property
    def _experiment_id(self) -> str:
        file = sqlite_file(absolute(self.uri))
        if file is not None and not file.exists():
            raise RunError(f"{file} does not exist: expected a tracking store, name it by --uri or run the study first")
        try:
            experiment = self._client.get_experiment_by_name(self.experiment)
        except Exception as error:  # a store may answer with anything
            raise RunError(
                f"the tracking store {masked(self.uri)} cannot be read ({first_line(error, self.uri)}): expected one "
                "that answers, name it by --uri"
            ) from error
        if experiment is None:
            raise RunError(
                f"the tracking store {masked(self.uri)} has no experiment {self.experiment!r}: expected one with runs, "
                "name it by --experiment or run the study first"
            )
        return str(experiment.experiment_id)


def downloaded(run_id: str, uri: str) -> Path:
    """The files of a run in a store, in a temporary folder that ends with this process.

    Args:
        run_id: The id of the run.
        uri: The store.

    Returns:
        The folder.

    Raises:
        RunError: The store cannot be read, or has no such run.
    """
    import mlflow.artifacts

    folder = tempfile.mkdtemp(prefix="pde_train-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    try:
        Store(absolute(uri)).connect()
        where = {"run_id": run_id, "tracking_uri": encoded(absolute(uri))}
        return Path(mlflow.artifacts.download_artifacts(**where, dst_path=folder))
    except Exception as error:  # a store may answer with anything
        raise RunError(
            f"the run {run_id} cannot be loaded from {masked(uri)} ({first_line(error, uri)}): expected the id of a "
            "finished run in that store"
        ) from error


def _row(run: Any) -> dict[str, Any]:
    about = {
        "id": run.info.run_id,
        "name": run.info.run_name,
        "status": run.info.status,
        "artifacts": run.info.artifact_uri,
        "start": run.info.start_time / 1000,
        "end": (run.info.end_time or np.nan) / 1000,
    }
    params = {f"params.{k}": run.data.tags.get(k, v) for k, v in run.data.params.items()}  # a tag is newer
    tags = {f"tags.{k}": v for k, v in run.data.tags.items()}
    return about | params | tags | {f"metrics.{k}": v for k, v in run.data.metrics.items()}
