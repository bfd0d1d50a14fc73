"""Every estimator on one table: the whole of ``scaling fit``."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import pandas as pd

from scaling.errors import UserError
from scaling.fit import Diagnostic, DriftFit, EnvelopeFit, Fit, FittedRange, IsoflopFit, ParametricFit
from scaling.fits.bootstrap import BootstrapMethod, check_intervals
from scaling.fits.envelope import fit_envelope
from scaling.fits.forecasting import fit_forecaster
from scaling.fits.isoflop import InterpolatorName, fit_isoflop
from scaling.fits.parametric import fit_parametric
from scaling.laws import get_loss_law
from scaling.laws.law import FloatArray, LossLaw
from scaling.observation import FlopsConvention, ParamsConvention
from scaling.record import Interval
from scaling.table import Table, read_table

__all__ = ["Method", "disagreement", "fit_table"]

Method = Literal["parametric", "isoflop", "envelope"]
_METHODS: tuple[Method, ...] = ("parametric", "isoflop", "envelope")
_NOT_ASKED = "not asked for"


def _check(methods: Sequence[str], huber_delta: float, bootstrap: int, level: float) -> None:
    for method in methods:
        if method not in _METHODS:
            raise UserError(f"methods has {method!r}: choose among {', '.join(_METHODS)}")
    if not methods:
        raise UserError(f"methods is empty: choose among {', '.join(_METHODS)}")
    if not 0 < huber_delta < float("inf"):
        raise UserError(f"huber_delta is {huber_delta}: it is a difference of log losses above zero, usually 0.001")
    check_intervals(bootstrap, level)


def _range(values: FloatArray) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def disagreement(parametric: Interval | None, isoflop: Interval | None) -> Diagnostic | None:
    """Two estimators whose intervals of the exponent do not even meet."""
    if parametric is None or isoflop is None:
        return None
    bounds = (parametric.low, parametric.high, isoflop.low, isoflop.high)
    if any(bound is None for bound in bounds):
        return None
    low_p, high_p, low_i, high_i = (float(bound) for bound in bounds if bound is not None)
    if low_p <= high_i and low_i <= high_p:
        return None
    message = (
        f"the approaches disagree on N* ~ C^a: {parametric.estimate:.3f} [{low_p:.3f}, {high_p:.3f}] by the law, "
        f"{isoflop.estimate:.3f} [{low_i:.3f}, {high_i:.3f}] by iso-FLOP lines; trust neither far from the data"
    )
    return Diagnostic(severity="warning", code="approaches-disagree", message=message)


def fit_table(
    source: Table | Path | str | pd.DataFrame,
    *,
    columns: Mapping[str, str] | None = None,
    params_convention: ParamsConvention = "total",
    flops_convention: FlopsConvention | None = None,
    methods: Sequence[Method] = _METHODS,
    law: str | LossLaw = "chinchilla",
    average: Sequence[str] = (),
    huber_delta: float = 1e-3,
    interpolator: InterpolatorName = "parabola",
    bootstrap: int = 1000,
    level: float = 0.9,
    seed: int = 0,
    resample: BootstrapMethod = "residuals",
    diagnose: bool = True,
) -> Fit:
    """Fit a table of runs (see ``read_table``) by each of ``methods``, the parametric one with ``law``.

    Forecasts are made by ``law``, or by it and the laws of ``average`` together, weighted by their evidence.

    The same runs give the same ``Fit.key`` on one machine, in whatever order they stand. An approach that the data
    cannot support is refused inside the fit, with the reason and the cure; ``UserError`` is raised only for input
    that is wrong: an unreadable table, missing columns, no usable row, an option out of range.
    """
    started = time.perf_counter()
    _check(methods, huber_delta, bootstrap, level)
    law = get_loss_law(law) if isinstance(law, str) else law
    averaged = [law, *(get_loss_law(name) for name in average if name != law.name)]
    if isinstance(source, Table):
        table = source
    else:
        table = read_table(
            source, columns=columns, params_convention=params_convention, flops_convention=flops_convention
        )
    incomparable = next((note.message for note in table.diagnostics if note.severity == "refusal"), None)
    asked = () if incomparable else methods
    parametric = ParametricFit(
        status="refused", reason=incomparable or _NOT_ASKED, law=law.name, huber_delta=huber_delta
    )
    isoflop = IsoflopFit(status="refused", reason=incomparable or _NOT_ASKED)
    envelope = EnvelopeFit(status="refused", reason=incomparable or _NOT_ASKED)
    drift = DriftFit(status="refused", reason=incomparable or _NOT_ASKED)
    diagnostics = list(table.diagnostics)
    if "parametric" in asked:
        parametric, found = fit_parametric(
            table,
            law=law,
            huber_delta=huber_delta,
            bootstrap=bootstrap,
            level=level,
            seed=seed,
            method=resample,
            diagnose=diagnose,
        )
        diagnostics.extend(found)
    if "isoflop" in asked:
        isoflop, found = fit_isoflop(table, interpolator=interpolator, bootstrap=bootstrap, level=level, seed=seed)
        diagnostics.extend(found)
    if "envelope" in asked:
        envelope, found = fit_envelope(table, bootstrap=bootstrap, level=level, seed=seed)
        diagnostics.extend(found)
    if "parametric" in asked:
        drift, found = fit_forecaster(
            table, averaged, parametric, huber_delta=huber_delta, level=level, back_tested=diagnose
        )
        diagnostics.extend(found)
    apart = disagreement(parametric.n_exponent, isoflop.n_exponent)
    return Fit(
        observations=table.counts,
        flops_per_param_token=table.flops_per_param_token,
        fitted_range=FittedRange(
            params=_range(table.params),
            tokens=_range(table.tokens),
            flops=_range(table.flops),
            tokens_per_param=_range(table.tokens / table.params),
        ),
        parametric=parametric,
        isoflop=isoflop,
        envelope=envelope,
        drift=drift,
        diagnostics=(*diagnostics, apart) if apart else tuple(diagnostics),
        level=level,
        bootstrap=bootstrap,
        seconds=time.perf_counter() - started,
    )
