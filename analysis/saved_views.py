"""Views of a study's runs for the menu *Views* of MLflow's run list: search, order, columns and charts, ready to open.

MLflow (3.17) keeps such a view as a tag of the experiment, ``mlflow.sharedViewState.KEY``: JSON whose ``state`` is the
page's own state, compressed by zlib. The page shows runs as a flat list only where they are not sorted by their
creation, and draws the first ten unless it is told otherwise.
"""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["SavedView", "saved_views"]

_TAG = "mlflow.sharedViewState."
_SECTION = "scaling"
_RUNS = "tags.scaling.run_key LIKE '%'"
_LOSS = "metrics.`final_loss_nats`"
_COLUMNS = (
    _LOSS,
    "metrics.`params_total`",
    "metrics.`tokens_per_param`",
    "params.`tokens`",
    "params.`learning_rate`",
    "tags.`scaling.budget`",
    "tags.`scaling.stage`",
)
Chart = dict[str, Any]


def _line(metric: str, *others: str, x: str | None = None, section: str = _SECTION) -> Chart:
    """``metric`` and ``others`` over their step, or over another metric ``x`` of the same steps; losses and sizes
    on a logarithmic axis."""
    axis = {"xAxisKey": "metric", "selectedXAxisMetricKey": x} if x else {"xAxisKey": "step"}
    return axis | {
        "type": "LINE",
        "metricKey": metric,
        "selectedMetricKeys": [metric, *others],
        "useGlobalXaxisKey": False,
        "scaleType": "log",
        "lineSmoothness": 0,
        "range": {},
        "metricSectionId": section,
    }


def _scatter(x: str, y: str) -> Chart:
    axes = {side: {"key": key, "type": "METRIC"} for side, key in (("xaxis", x), ("yaxis", y))}
    return {"type": "SCATTER", "runsCountToCompare": 100, "metricSectionId": _SECTION, **axes}


def _without(section: str, *metrics: str) -> tuple[Chart, ...]:
    """Charts that MLflow would make by itself, marked as deleted."""
    return tuple(_line(f"{section}/{metric}", section=section) | {"deleted": True} for metric in metrics)


@dataclass(frozen=True)
class SavedView:
    key: str
    name: str
    """As the menu lists it."""
    search: str
    order_by: str = _LOSS
    columns: tuple[str, ...] = _COLUMNS
    charts: tuple[Chart, ...] = ()
    """Laid over the run list; without any, the list alone is shown."""
    group_by: str | None = None
    """A tag; of each group the least of a metric is shown."""

    @property
    def mode(self) -> Literal["CHART", "TABLE"]:
        return "CHART" if self.charts else "TABLE"

    def address(self, experiment_id: str) -> str:
        """The page within MLflow's own."""
        return f"#/experiments/{experiment_id}/runs?viewStateShareKey={self.key}&compareRunsMode={self.mode}"

    def tag(self) -> tuple[str, str]:
        """Name and value of the experiment's tag."""
        packed = base64.b64encode(zlib.compress(json.dumps(self._state()).encode(), 9)).decode()
        value = {"name": self.name, "createdAt": 0, "updatedAt": 0, "state": f"deflate;{packed}"}
        return _TAG + self.key, json.dumps(value)

    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = {
            "searchFilter": self.search,
            "orderByKey": self.order_by,
            "orderByAsc": True,
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "datasetsFilter": [],
            "modelVersionFilter": "All Runs",
            "selectedColumns": list(self.columns),
            "columnOrder": [],
            "columnWidths": {},
            "runsHiddenMode": "SHOWALL",
            "viewMaximized": False,
            "runListHidden": False,
            "isAccordionReordered": False,
            "useGroupedValuesInCharts": True,
            "hideEmptyCharts": True,
            "groupBy": None,
            "groupsExpanded": {},
            "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
        }
        if self.group_by is not None:
            keys = [{"mode": "tag", "groupByData": self.group_by}]
            state["groupBy"] = {"aggregateFunction": "min", "groupByKeys": keys}
        if self.charts:
            ours: dict[str, Any] = {"isGenerated": False, "deleted": False}
            charts = [ours | {"uuid": f"{self.key}-{at}"} | chart for at, chart in enumerate(self.charts)]
            sections = [
                ours | {"uuid": name, "name": self.name if name == _SECTION else name, "display": True,
                        "isReordered": False}
                for name in dict.fromkeys(chart["metricSectionId"] for chart in charts)
            ]  # fmt: skip
            state |= {"compareRunCharts": charts, "compareRunSections": sections}
        return state


_OF_RUNS = (
    SavedView("scaling1runs", "Every run, best loss first", _RUNS),
    SavedView("scaling2best", "The best run of each budget", "tags.scaling.best_of_budget = 'true'",
              order_by="metrics.`params_total`"),
    SavedView("scaling3budget", "Runs by budget, least loss", f"{_RUNS} and tags.scaling.stage = 'sweep'",
              group_by="scaling.budget"),
    SavedView(
        "scaling4curves", "Curves against compute, tokens and size", f"{_RUNS} and tags.scaling.stage = 'sweep'",
        charts=(
            _line("held_out_loss", x="log10_flops"),
            _line("held_out_loss", x="tokens"),
            _scatter("log10_flops", "final_loss_nats"),
            _scatter("log10_params", "final_loss_nats"),
        ),
    ),
)  # fmt: skip


def saved_views(frontier: str = "frontier", optimum: str = "optimum") -> tuple[SavedView, ...]:
    """All views, of a study whose lines are logged under these names."""
    last = SavedView(
        "scaling5frontier",
        "The fitted frontier",
        "tags.scaling.kind = 'study'",
        order_by="metrics.`law_E`",
        columns=(
            "metrics.`recommended_params`",
            "metrics.`recommended_tokens`",
            "metrics.`forecast_relative_error`",
            "tags.`scaling.verdict`",
        ),
        charts=(
            _line(*(f"{frontier}/{name}" for name in ("loss", "loss_low", "loss_high")), section=frontier),
            *_without(frontier, "flops", "loss_low", "loss_high"),
            _line(*(f"{optimum}/{name}" for name in ("params", "params_low", "params_high")), section=optimum),
            _line(*(f"{optimum}/{name}" for name in ("tokens", "tokens_low", "tokens_high")), section=optimum),
            *_without(optimum, "flops", "params_low", "params_high", "tokens_low", "tokens_high"),
        ),
    )
    return (*_OF_RUNS, last)
