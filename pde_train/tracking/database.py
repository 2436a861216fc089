"""What a run has logged, straight into the tables of an MLflow database: one transaction for any number of rows.

MLflow's `log_batch` makes an object of every row and takes a thousand rows a call, 85 us of Python a row, which is most
of what a sweep costs a store. The tables are MLflow's own; a store whose tables are others gets `log_batch`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

TABLES = {
    "metrics": {"key", "value", "timestamp", "step", "is_nan", "run_uuid"},
    "latest_metrics": {"key", "value", "timestamp", "step", "is_nan", "run_uuid"},
    "params": {"key", "value", "run_uuid"},
    "tags": {"key", "value", "run_uuid"},
}
"""The columns that are written."""

NAME_TAG = "mlflow.runName"
"""The tag that MLflow keeps in the run itself, too."""

LARGEST = 1.7976931348623157e308
"""What MLflow writes for infinity."""


class Database:
    """Takes the place of `log_batch`.

    Args:
        client: MLflow's client of the store.
        store: The store of this client, whose tables are as expected.
    """

    def __init__(self, client: Any, store: Any):
        from mlflow.store.tracking.dbmodels import models

        self.client, self.store = client, store
        self.tables = {
            model.__tablename__: model.__table__
            for model in (models.SqlMetric, models.SqlLatestMetric, models.SqlParam, models.SqlTag)
        }
        self.runs = models.SqlRun.__table__

    @classmethod
    def of(cls, client: Any) -> Database | None:
        """The database of a client; None where it is a server, another database, or has other tables."""
        store = getattr(getattr(client, "_tracking_client", None), "store", None)
        if getattr(store, "db_type", "") not in ("sqlite", "postgresql") or not hasattr(store, "ManagedSessionMaker"):
            return None
        found = cls(client, store)
        same = {name: set(table.columns.keys()) for name, table in found.tables.items()} == TABLES
        return found if same else None

    def log(
        self,
        run_id: str,
        rows: Sequence[tuple[str, float, int, int]],
        params: Mapping[str, str],
        tags: Mapping[str, str],
    ) -> None:
        """Write rows, parameters and tags of a run; what the database has is left as it is, but for tags.

        Args:
            run_id: The run.
            rows: Name, value, step and time in milliseconds.
            params: Parameters.
            tags: Tags, which replace those of the same names.

        Raises:
            MlflowException: There is no such run, it was deleted, or the database does not answer.
        """
        if NAME_TAG in tags:
            self.client.set_tag(run_id, NAME_TAG, tags[NAME_TAG])
        own = {"run_uuid": run_id}
        metrics: list[dict[str, Any]] = [
            {**own, "key": key, "value": _finite(value), "timestamp": time, "step": step, "is_nan": math.isnan(value)}
            for key, value, step, time in rows
        ]
        latest: dict[str, dict[str, Any]] = {}
        for row in metrics:
            if row["key"] not in latest or _age(row) > _age(latest[row["key"]]):
                latest[row["key"]] = row
        with self.store.ManagedSessionMaker(read_only=False) as session:
            self._check(session, run_id)
            self._insert(session, "metrics", metrics)
            self._insert(session, "latest_metrics", [latest[key] for key in sorted(latest)], newer=True)
            self._insert(session, "params", [{**own, "key": key, "value": value} for key, value in params.items()])
            texts = [{**own, "key": key, "value": value} for key, value in tags.items() if key != NAME_TAG]
            self._insert(session, "tags", texts, replace=True)

    def _check(self, session: Any, run_id: str) -> None:
        """Refuse a run that is not there (any more), in MLflow's words."""
        from mlflow.exceptions import MlflowException
        from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST
        from sqlalchemy import select

        stage = session.scalar(select(self.runs.c.lifecycle_stage).where(self.runs.c.run_uuid == run_id))
        if stage is None:
            raise MlflowException(f"Run with id={run_id} not found", RESOURCE_DOES_NOT_EXIST)
        if stage != "active":
            said = f"The run {run_id} must be in the 'active' state. Current state is {stage}."
            raise MlflowException(said, INVALID_PARAMETER_VALUE)

    def _insert(
        self,
        session: Any,
        name: str,
        rows: Sequence[Mapping[str, Any]],
        newer: bool = False,
        replace: bool = False,
    ) -> None:
        """Insert rows; one whose key is there is left, replaces it, or does so where it is newer."""
        from sqlalchemy import tuple_
        from sqlalchemy.dialects import postgresql, sqlite

        if not rows:
            return
        table = self.tables[name]
        dialect: Any = sqlite if self.store.db_type == "sqlite" else postgresql
        statement = dialect.insert(table)
        if newer or replace:
            order = [column for column in ("step", "timestamp", "value") if column in table.c]
            new, old = (tuple_(*(columns[column] for column in order)) for columns in (statement.excluded, table.c))
            statement = statement.on_conflict_do_update(
                index_elements=[column.name for column in table.primary_key],
                set_={c.name: statement.excluded[c.name] for c in table.c if not c.primary_key},
                where=new > old if newer else None,
            )
        else:
            statement = statement.on_conflict_do_nothing()
        session.execute(statement, rows)


def _finite(value: float) -> float:
    """A number as MLflow writes it."""
    if math.isnan(value):
        return 0.0
    return max(-LARGEST, min(LARGEST, value))


def _age(row: Mapping[str, Any]) -> tuple[int, int, float]:
    return row["step"], row["timestamp"], row["value"]
