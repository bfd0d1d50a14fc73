"""A table of runs and its fit as something to look at, without a study: what ``scaling fit --figures`` draws."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.study_view import FLOPS_COLUMN, PARAMS_COLUMN, StudyView, empty_curves
from scaling.fit import Fit
from scaling.observation import COLUMNS
from scaling.table import Table

__all__ = ["view_of_table"]

_TEXT = ("run_key", "trunk_key", "study", "label", "phase", "role", "architecture", "parametrisation", "data_key",
         "tokenizer_key", "schedule", "numerics", "status", "device")  # fmt: skip


def view_of_table(table: Table, fit: Fit, name: str) -> StudyView:
    """The runs that ``fit`` used, without curves, forecast or plan; what a bare table does not say is NaN or empty."""
    runs = pd.DataFrame({column: "" if column in _TEXT else np.nan for column in COLUMNS}, index=range(len(table)))
    runs = runs.assign(
        run_key=[f"row {row}" for row in table.rows],
        trunk_key=[f"row {row}" for row in table.rows],
        label=[f"row {row}" for row in table.rows],
        study=name,
        phase="final",
        role="fit",
        status="finished",
        tokens=table.tokens,
        loss_nats=table.loss,
        row=table.rows,
    )
    runs[PARAMS_COLUMN[fit.params_convention]] = table.params
    runs[FLOPS_COLUMN[fit.flops_convention]] = table.flops
    return StudyView(name=name, question="", observations=runs, curves=empty_curves(), fit=fit)
