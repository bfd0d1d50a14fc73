"""What the forecasts of a table rest on: the runs for the law and its drift, and how they would have done before."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scaling.fit import DriftFit
from scaling.fits.backtest import back_test
from scaling.fits.irreducible import irreducible_range
from scaling.laws.law import FloatArray, LossLaw
from scaling.table import Table

__all__ = ["fit_forecaster", "representatives"]

_MOST_RUNS = 400
_CELLS_A_DECADE = 12


def representatives(params: FloatArray, tokens: FloatArray, loss: FloatArray) -> FloatArray:
    """Runs (m, 3), all of them up to 400; of more, the geometric means of those that lie together.

    A thousand checkpoints of a few trunks tell the drift little more than a point each twelfth of a decade does, for
    what they share is not noise.
    """
    logs_N3 = np.log10(np.column_stack((params, tokens, loss)))
    cells_a_decade = _CELLS_A_DECADE
    while len(logs_N3) > _MOST_RUNS and cells_a_decade > 1:
        _, cell_N = np.unique(np.round(logs_N3[:, :2] * cells_a_decade), axis=0, return_inverse=True)
        counts = np.bincount(cell_N)
        logs_N3 = np.column_stack([np.bincount(cell_N, weights=column) / counts for column in logs_N3.T])
        cells_a_decade //= 2
    return np.asarray(10**logs_N3) if len(logs_N3) < len(params) else np.column_stack((params, tokens, loss))


def fit_forecaster(
    table: Table, laws: Sequence[LossLaw], *, huber_delta: float, level: float, back_tested: bool = True
) -> DriftFit:
    """The record that ``scaling.prediction`` forecasts from, of a table in which the law's constants are identified.

    ``back_tested`` False leaves out what needs the law to be fitted again.
    """
    irreducible = irreducible_range(table)
    runs = representatives(table.params, table.tokens, table.loss)
    return DriftFit(
        status="ok",
        laws=tuple(law.name for law in laws),
        irreducible=irreducible,
        huber_delta=huber_delta,
        runs=tuple((float(n), float(d), float(loss)) for n, d, loss in runs),
        back_test=back_test(table, laws, irreducible=irreducible, level=level) if back_tested else None,
    )
