"""What there is to look at: one study, gathered from its ledger into one frozen value that every picture is drawn from.

Nothing here opens a file or a database. Whoever holds a study (the command line, a notebook with a CSV of runs) fills a
``StudyView``; figures, page, report and MLflow read only this.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scaling.errors import UserError
from scaling.fit import Fit
from scaling.forecast import Forecast, Outcome
from scaling.hyperparameters import LearningRateLaw
from scaling.observation import COLUMNS
from scaling.recommendation import Recommendation

if TYPE_CHECKING:
    from analysis.diagnosis_data import Diagnosis

__all__ = ["CURVE_COLUMNS", "LargerRun", "PlanRow", "StudyView", "TrainedRun", "empty_curves"]

T = TypeVar("T")

CURVE_COLUMNS: tuple[str, ...] = ("run_key", "step", "tokens", "flops", "train_loss", "held_out_loss")
"""One row a logged step: ``tokens`` and ``flops`` spent so far, losses in nats a token, NaN where not measured.

``flops`` follows the fit's FLOP convention, so that curves and fitted points lie on one axis."""

PARAMS_COLUMN = {"total": "params_total", "nonembedding": "params_nonembedding", "with-head": "params_with_head"}
FLOPS_COLUMN = {"exact": "flops_exact", "6nd": "flops_6nd"}


@dataclass(frozen=True)
class PlanRow:
    """One line of the frozen plan: usually one compute budget, or the probe, or the hold-out."""

    label: str
    runs: int
    params: tuple[float, float]
    """Smallest and largest model."""
    tokens: tuple[float, float]
    """Fewest and most training tokens of a run."""
    flops: float
    """FLOPs of all its runs together."""
    minutes: float | None = None
    """Expected wall-clock minutes on the machine the plan was calibrated on."""
    why: str = ""


@dataclass(frozen=True)
class TrainedRun:
    """When one run of the study was trained, as its ledger tells; seconds, and since the epoch where they are times."""

    run_key: str
    label: str
    stage: str
    """``probe``, ``tune``, ``sweep`` or ``hold-out``."""
    state: str
    started_at: float
    """The first time, if it was interrupted."""
    ended_at: float
    trained_seconds: float | None = None
    """Spent on it, without interruptions; None if nobody counted."""
    expected_seconds: float | None = None
    """By the plan's calibration."""


@dataclass(frozen=True)
class LargerRun:
    """A run beyond the sweep whose loss was forecast before it started, and what came of it."""

    run_key: str
    label: str
    stage: str
    """``rung`` or ``final``."""
    state: str
    """As the ledger has it: ``planned``, ``running``, ``finished`` and so on."""
    forecast: Forecast
    outcome: Outcome | None = None
    problems: tuple[str, ...] = ()
    """Why the forecast can't be believed; empty for nearly all."""

    @property
    def without_outcome(self) -> str:
        """How a run stands that has no outcome."""
        return "not ended" if self.state in ("planned", "running") else self.state


@dataclass(frozen=True)
class StudyView:
    """One study and its answers.

    ``observations`` is the table of :mod:`scaling.observation` with both roles, ``fit`` and ``hold-out``; ``curves``
    has ``CURVE_COLUMNS`` and may be empty. ``verdict`` None lets the report compose its own sentence.
    Raises ``UserError`` where a table lacks a column.
    """

    name: str
    question: str
    observations: pd.DataFrame
    curves: pd.DataFrame
    fit: Fit
    forecast: Forecast | None = None
    outcome: Outcome | None = None
    recommendation: Recommendation | None = None
    learning_rates: LearningRateLaw | None = None
    """What rates the runs were trained at, with what was probed or tuned for it."""
    verdict: str | None = None
    plan: tuple[PlanRow, ...] = ()
    corpus: str = ""
    """What the models were trained and measured on, in a sentence or two."""
    machine: str = ""
    """Processor, workers, precision, and how long the study took."""
    reproduce_command: str = ""
    mlflow_command: str = ""
    notes: tuple[str, ...] = field(default=())
    """Anything else the reader must know: failed runs, what was skipped, limits of this study."""
    trained: tuple[TrainedRun, ...] = ()
    """Every run of the plan that was started and has ended, of all stages."""
    expected_stage_seconds: Mapping[str, float] = field(default_factory=dict)
    """By stage, what the plan expected it to take all workers together."""
    larger: tuple[LargerRun, ...] = ()
    """Rungs and large runs that were forecast, the smallest first; a run that was forecast twice is here twice."""
    _kept: dict[Callable[[StudyView], Any], Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def once(self, figure_data: Callable[[StudyView], T]) -> T:
        """``figure_data`` of this view, computed the first time it is asked for: figures, page and report draw it."""
        if figure_data not in self._kept:
            self._kept[figure_data] = figure_data(self)
        made: T = self._kept[figure_data]
        return made

    def __post_init__(self) -> None:
        _require_columns("observations", self.observations, COLUMNS)
        _require_columns("curves", self.curves, CURVE_COLUMNS)

    @property
    def params_column(self) -> str:
        """The column of ``observations`` that the fit calls N."""
        return PARAMS_COLUMN[self.fit.params_convention]

    @property
    def flops_column(self) -> str:
        """The column of ``observations`` that the fit calls C."""
        return FLOPS_COLUMN[self.fit.flops_convention]

    @property
    def fitted(self) -> pd.DataFrame:
        """Finished points that the fit may use."""
        rows = self.observations
        return rows[(rows["role"] == "fit") & (rows["status"] == "finished")]

    @property
    def fitted_rows(self) -> NDArray[np.int64]:
        """The number of each of ``fitted`` as the fit's diagnostics count rows: among the rows to be fitted, from 1, or
        as ``observations`` say in a column ``row``."""
        if "row" in self.observations:
            return self.fitted["row"].to_numpy(dtype=np.int64)
        to_fit = self.observations[self.observations["role"] == "fit"]
        return np.flatnonzero(to_fit["status"] == "finished").astype(np.int64) + 1

    @cached_property
    def diagnosis(self) -> Diagnosis | None:
        """Residuals, influence and profiles, computed once a view; None where the law was refused."""
        from analysis.diagnosis_data import diagnosis

        return diagnosis(self)

    @property
    def held_out(self) -> pd.DataFrame:
        """Finished points that were forecast and not fitted; usually replicates of one run."""
        rows = self.observations
        return rows[(rows["role"] == "hold-out") & (rows["status"] == "finished")]

    @property
    def target_flops(self) -> float | None:
        """The compute the study is for, where a recommendation names it."""
        return None if self.recommendation is None else self.recommendation.flops


def empty_curves() -> pd.DataFrame:
    """A table without curves, for studies that have only their last losses."""
    return pd.DataFrame({name: pd.Series(dtype="object" if name == "run_key" else "float64") for name in CURVE_COLUMNS})


def _require_columns(field_name: str, table: pd.DataFrame, columns: tuple[str, ...]) -> None:
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise UserError(f"{field_name} lacks the columns {', '.join(missing)}; it needs {', '.join(columns)}")
