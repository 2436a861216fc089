"""Views that every experiment of ours has in the MLflow UI: which columns, which charts, and how runs are grouped.

The menu "Views" of the page of an experiment reads them from its tags (MLflow 3.17; the form is that of the UI). Their
ids are fixed, so that no experiment gets one twice.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PREFIX = "mlflow.sharedViewState."
"""Begins the name of the tag of a view; its id follows."""

NOTE = "mlflow.note.content"
"""The tag of an experiment's description."""

DESCRIPTION = (
    "**How to read this page.** Open *Views* (above the table): *Table* has a row for each run with its "
    "differentiator, error, exact residual, entropy and time; *Convergence*, *Spectra* and *Entropy* are charts, "
    'grouped by differentiator. A sweep is one run with its cells below it ("+"); its description has the table of '
    "medians and the overlays. `error_l2` is the relative L2 error, `residual_exact` the residual by exact "
    "derivatives, `entropy/1e-08` the truncated entropy at 1e-8."
)

OF_RUNS = "tags.config_hash != ''"
"""The search that leaves parents of sweeps out."""

OF_SWEEPS = "tags.sweep != ''"
"""The search that finds parents of sweeps alone."""

OF_THE_TABLE = (
    *("tags.`pde`", "tags.`model`", "tags.`differentiator_label`", "params.`seed`"),
    *("metrics.`error_l2`", "metrics.`residual_exact`", "metrics.`entropy/1e-08`", "metrics.`seconds`", "tags.`flags`"),
)
"""The columns of the table of runs, in their order."""

OF_THE_SWEEPS = (
    *("params.`pde`", "params.`differentiator`", "metrics.`least/error_l2`", "metrics.`least/residual_exact`"),
    *("tags.`runs.finished`", "tags.`runs.not_finished`", "params.`model`", "params.`seed`"),
)
"""The columns of the table of sweeps."""


@dataclass(frozen=True)
class Chart:
    """A line chart of a metric.

    Attributes:
        metric: The name of the metric.
        logarithmic: Whether its y-axis is logarithmic.
    """

    metric: str
    logarithmic: bool = True


@dataclass(frozen=True)
class View:
    """A view of an experiment's page.

    Attributes:
        name: In the menu.
        charts: What it draws, with runs grouped by differentiator; without any it shows the table.
        search: Which runs it shows.
        columns: Of the table, the first one of numbers sorts it.
    """

    name: str
    charts: Sequence[Chart] = ()
    search: str = OF_RUNS
    columns: Sequence[str] = OF_THE_TABLE


VIEWS: Mapping[str, View] = {
    "pde-train-1": View("1 Table: differentiator, error, residual, entropy, time"),
    "pde-train-2": View(
        "2 Convergence, by differentiator", (Chart("loss"), Chart("error_l2"), Chart("residual_held_out"))
    ),
    "pde-train-3": View("3 Spectra: singular values by index, by differentiator", (Chart("spectrum/final"),)),
    "pde-train-4": View(
        "4 Entropy during training, by differentiator",
        tuple(Chart(f"entropy/1e-{k:02}", logarithmic=False) for k in (4, 8, 12)),
    ),
    "pde-train-5": View("5 Sweeps: what was swept, and the least median", (), OF_SWEEPS, OF_THE_SWEEPS),
}
"""Each view by its id."""

FIRST = "pde-train-1"
"""The view that links open."""


def tags(milliseconds: int) -> dict[str, str]:
    """The tags that give an experiment its views and its description.

    Args:
        milliseconds: The time, since 1970.

    Returns:
        The values by the names of the tags.
    """
    found = {NOTE: DESCRIPTION}
    for key, view in VIEWS.items():
        state = base64.b64encode(zlib.compress(json.dumps(_state(key, view)).encode())).decode()
        kept = {"name": view.name, "createdAt": milliseconds, "updatedAt": milliseconds, "state": f"deflate;{state}"}
        found[PREFIX + key] = json.dumps(kept)
    return found


def are_in(tags: Mapping[str, str]) -> bool:
    """Whether an experiment with these tags has all views."""
    return all(PREFIX + key in tags for key in VIEWS)


def address(experiment_id: str) -> str:
    """What follows the address of an MLflow server to open an experiment at its first view."""
    return f"/#/experiments/{experiment_id}/runs?viewStateShareKey={FIRST}"


def _state(key: str, view: View) -> dict[str, Any]:
    """The state of the page, as the UI stores it."""
    grouped = {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": "differentiator_label"}]}
    return {
        "searchFilter": view.search,
        "orderByKey": next(column for column in view.columns if column.startswith("metrics.")),
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": list(view.columns),
        "columnOrder": list(view.columns),
        "columnWidths": {},
        "runsHiddenMode": "SHOW_ALL",
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": bool(view.charts),
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": grouped if view.charts else None,
        "groupsExpanded": {},
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
        "compareRunCharts": [_chart(f"{key}-{i}", key, chart) for i, chart in enumerate(view.charts)],
        "compareRunSections": [
            {
                "uuid": key,
                "name": view.name,
                "display": True,
                "isReordered": True,
                "deleted": False,
                "isGenerated": False,
            }
        ]
        if view.charts
        else [],
    }


def _chart(uuid: str, section: str, chart: Chart) -> dict[str, Any]:
    return {
        "uuid": uuid,
        "type": "LINE",
        "runsCountToCompare": 100,
        "metricSectionId": section,
        "deleted": False,
        "isGenerated": False,
        "metricKey": chart.metric,
        "selectedMetricKeys": [chart.metric],
        "lineSmoothness": 0,
        "xAxisScaleType": "linear",
        "scaleType": "log" if chart.logarithmic else "linear",
        "range": {},
        "xAxisKey": "step",
        "selectedXAxisMetricKey": "",
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "ignoreOutliers": False,
        "useGlobalXaxisKey": False,
        "useGlobalLineSmoothing": True,
        "selectedYAxisMetricKey": chart.metric,
    }
