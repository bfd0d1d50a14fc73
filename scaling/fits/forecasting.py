"""What the forecasts of a table rest on: the runs for the law and its drift, and how they would have done before."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import bdtr

from scaling.fit import Diagnostic, DriftFit, ParametricFit
from scaling.fits.backtest import back_test
from scaling.fits.irreducible import irreducible_range, levels_off_too_early
from scaling.laws.law import FloatArray, IntArray, LossLaw
from scaling.table import Table

__all__ = ["fit_forecaster", "representatives"]

_MOST_RUNS = 400
_CELLS_A_DECADE = 12


def representatives(
    params: FloatArray, tokens: FloatArray, loss: FloatArray, trunks: IntArray | None = None
) -> tuple[FloatArray, IntArray | None]:
    """Runs (m, 3) and their trunks (m,), all of them up to 400; of more, the geometric means of those that lie
    together, of branches within their trunk.

    A thousand checkpoints of a few trunks tell the drift little more than a point each twelfth of a decade does, for
    what they share is not noise.
    """
    logs_N3 = np.log10(np.column_stack((params, tokens, loss)))
    branched_N = np.full(len(params), -1)
    if trunks is not None:
        _, trunk_N, branches_t = np.unique(trunks, return_inverse=True, return_counts=True)
        branched_N = np.where(branches_t[trunk_N] > 1, trunk_N, -1)
    cells_a_decade = _CELLS_A_DECADE
    while len(logs_N3) > _MOST_RUNS and cells_a_decade > 1:
        places_N3 = np.column_stack((np.round(logs_N3[:, :2] * cells_a_decade), branched_N))
        cells_C3, cell_N = np.unique(places_N3, axis=0, return_inverse=True)
        counts = np.bincount(cell_N)
        logs_N3 = np.column_stack([np.bincount(cell_N, weights=column) / counts for column in logs_N3.T])
        branched_N = cells_C3[:, 2].astype(np.int64)
        cells_a_decade //= 2
    runs_N3 = 10**logs_N3 if len(logs_N3) < len(params) else np.column_stack((params, tokens, loss))
    if trunks is None:
        return runs_N3, None
    # Runs that share none get numbers of their own.
    own_N = branched_N.max(initial=-1) + 1 + np.arange(len(branched_N))
    return runs_N3, np.where(branched_N < 0, own_N, branched_N)


def _implausible(parametric: ParametricFit, drift: DriftFit) -> tuple[Diagnostic, ...]:
    """The law's E above what text admits: its level must not be extrapolated."""
    if not levels_off_too_early(parametric, drift):
        return ()
    assert drift.irreducible is not None
    e = parametric.parameters["E"].estimate
    message = (
        f"the law levels off at E = {e:.2f} nats a token, above the {drift.irreducible[1]:.2f} that larger models "
        "reach on text: runs this small can't show E. Forecasts hold E to what text admits, and N* and D* come from "
        "the iso-FLOP lines where there are any; runs of more compute would settle it"
    )
    return (Diagnostic(severity="warning", code="irreducible-implausible", message=message),)


def _back_tested(drift: DriftFit, level: float) -> tuple[Diagnostic, ...]:
    """What the back-test says of the intervals: a note where it could not be made, a warning where they failed."""
    if drift.back_test is None:
        return ()
    if not drift.back_test:
        message = (
            "too few runs to leave the largest budget out and predict it: how far this table's law drifts is a prior, "
            "learned from published sweeps"
        )
        return (Diagnostic(severity="note", code="no-back-test", message=message),)
    inside = sum(cut.inside for cut in drift.back_test)
    predicted = sum(cut.predicted for cut in drift.back_test)
    # Of as many independent intervals at this level so few would hold by chance one time in a hundred at most.
    if bdtr(inside, predicted, level) > 0.01:
        return ()
    message = (
        f"forecasts of this table's own largest budgets held {inside} of {predicted} runs in their {level:.0%} "
        "intervals: take the intervals of what lies beyond for too narrow"
    )
    return (Diagnostic(severity="warning", code="back-test-missed", message=message),)


def fit_forecaster(
    table: Table,
    laws: Sequence[LossLaw],
    parametric: ParametricFit,
    *,
    huber_delta: float,
    level: float,
    back_tested: bool = True,
) -> tuple[DriftFit, tuple[Diagnostic, ...]]:
    """The record that ``scaling.prediction`` forecasts from, and what to know of it; refused where the fit of the first
    law, ``parametric``, was.

    ``back_tested`` False leaves out what needs the law to be fitted again.
    """
    names = tuple(law.name for law in laws)
    if parametric.status != "ok":
        return DriftFit(status="refused", reason=parametric.reason, laws=names), ()
    irreducible = irreducible_range(table)
    runs, trunks = representatives(table.params, table.tokens, table.loss, table.trunks)
    drift = DriftFit(
        status="ok",
        laws=names,
        irreducible=irreducible,
        huber_delta=huber_delta,
        runs=tuple((float(n), float(d), float(loss)) for n, d, loss in runs),
        trunks=() if trunks is None else tuple(trunks.tolist()),
        back_test=back_test(table, laws, irreducible=irreducible, level=level) if back_tested else None,
    )
    return drift, (*_implausible(parametric, drift), *_back_tested(drift, level))
