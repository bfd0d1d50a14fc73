"""The fit of what has been trained so far, made anew in a thread whenever another run has ended."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.figure_data import Allocation, Band, Isoflop, allocation, isoflop, loss_against_compute
from analysis.study_view import StudyView, empty_curves
from scaling.errors import UserError
from scaling.fit import Fit
from scaling.fits.together import fit_table
from scaling.prediction import predict
from scaling.record import Interval
from sweeps.planning.plan import Plan

__all__ = ["Interim", "InterimFit", "interim"]

_DRAWS = 200
"""Fewer than the study's own fit takes: enough for an interval that will change with the next run."""


@dataclass(frozen=True)
class Interim:
    """What the finished runs say so far: a fit, or why there is none, in words."""

    runs: int
    fit: Fit | None
    refusal: str | None
    frontier: Band | None = None
    lines: Isoflop | None = None
    allocation: Allocation | None = None

    def told(self, plan: Plan) -> list[tuple[str, Interval]]:
        """What the fit says, by name."""
        if self.fit is None:
            return []
        fit, found = self.fit, list[tuple[str, Interval]]()
        for name, estimator in (("parametric law", fit.parametric), ("iso-FLOP lines", fit.isoflop)):
            if estimator.status == "ok" and estimator.n_exponent is not None:
                found.append((f"N* exponent, {name}", estimator.n_exponent))
        if fit.parametric.status != "ok":
            return found
        found += [(name, value) for name, value in fit.parametric.parameters.items() if name == "E"]
        if fit.drift.status == "ok":
            point = plan.hold_out.point
            expected = predict(fit, params=point.params.total, tokens=point.tokens, flops=point.flops)
            found.append(("hold-out, expected nats", expected.loss))
        return found


class InterimFit:
    """The newest fit of a growing table. ``update`` returns at once; the fit follows when it is ready."""

    def __init__(self, study: str) -> None:
        self._study = study
        self._thread: threading.Thread | None = None
        self._fitted: tuple[Any, ...] | None = None
        self.newest: Interim | None = None
        self.version = 0

    @property
    def working(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def update(self, table: pd.DataFrame) -> None:
        """Fit ``table`` unless it is fitted already, or another fit is being made; the next look tries again then."""
        runs = tuple(table.loc[table["role"] == "fit", "run_key"])
        if self.working or runs == self._fitted:
            return
        self._fitted = runs
        self._thread = threading.Thread(target=self._fit, args=(table,), name="interim fit", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        if self._thread is not None:
            self._thread.join()

    def _fit(self, table: pd.DataFrame) -> None:
        try:
            self.newest = interim(self._study, table)
        except Exception as error:
            # The page goes on without a fit: half a sweep is a table that nothing else is ever asked to fit.
            self.newest = Interim(len(table), None, f"the interim fit failed ({type(error).__name__}: {error})")
        self.version += 1


def interim(study: str, table: pd.DataFrame, fit: Fit | None = None) -> Interim:
    """The fit of the runs to be fitted in ``table``, as the study makes it but for its diagnoses, or the refusal.

    ``fit``: the study's own, where it has been made.
    """
    to_fit = table[table["role"] == "fit"]
    finished = int((to_fit["status"] == "finished").sum())
    if not finished:
        return Interim(0, None, "no run of the sweep has finished yet")
    try:
        made = fit or fit_table(
            to_fit,
            params_convention="total",
            flops_convention="exact",
            methods=("parametric", "isoflop"),
            bootstrap=_DRAWS,
            diagnose=False,
        )
    except UserError as error:
        return Interim(finished, None, str(error))
    if "ok" not in (made.parametric.status, made.isoflop.status):
        # Without the runs that would cure it: the study has its own still to come.
        reasons = [str(each.reason).partition(": ")[0] for each in (made.parametric, made.isoflop)]
        return Interim(finished, None, "; iso-FLOP lines: ".join(reasons))
    # What is slow of the figures is worked out here, in the fit's thread.
    view = StudyView(study, "", table, empty_curves(), made)
    return Interim(finished, made, None, loss_against_compute(view).frontier, isoflop(view), allocation(view))
