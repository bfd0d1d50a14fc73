"""Approach 3 of Hoffmann et al. (2203.15556): one law through all runs, with intervals and a back-test.

    minimise over the law's constants   Σ_i Huber_δ(ln L̂(N_i, D_i) − ln L_i),  δ = 1e-3, the sum

as corrected by Besiroglu et al. (2404.10102).
"""

from __future__ import annotations

import numpy as np

from scaling.fit import Diagnostic, ParametricFit
from scaling.fits.backtest import model_sd_per_decade
from scaling.fits.bootstrap import BootstrapMethod, interval_of, residual_scale, stored_draws
from scaling.fits.estimate import Estimate, draw, estimate
from scaling.fits.identifiability import parametric_refusal
from scaling.laws.chinchilla import CHINCHILLA
from scaling.laws.law import FloatArray, LossLaw
from scaling.table import Table

__all__ = ["fit_parametric"]

_WIDE_EXPONENT = 0.6


def fit_parametric(
    table: Table,
    *,
    law: LossLaw = CHINCHILLA,
    huber_delta: float = 1e-3,
    bootstrap: int = 1000,
    level: float = 0.9,
    seed: int = 0,
    method: BootstrapMethod = "residuals",
) -> tuple[ParametricFit, tuple[Diagnostic, ...]]:
    """The law through a table's runs, and what to know before trusting it.

    Intervals at ``level`` come from ``bootstrap`` refits of resampled residuals (``method="points"`` is the published
    procedure). A table whose exponents are not identified gives status "refused" with the reason and the cure.
    """
    refusal = parametric_refusal(table.params, table.tokens)
    if refusal is None and len(table.loss) <= len(law.parameters):
        refusal = f"{len(table.loss)} runs can't carry the {len(law.parameters)} constants of {law.name}: add runs"
    if refusal is not None:
        refused = ParametricFit(status="refused", reason=refusal, law=law.name, huber_delta=huber_delta)
        return refused, (Diagnostic(severity="refusal", code="parametric", message=refusal),)
    inputs = table.params, table.tokens
    found = estimate(law, inputs, table.loss, huber_delta)
    draws_KP = np.empty((0, len(law.NAMES)))
    if bootstrap:
        rng = np.random.default_rng([seed, 3])
        draws_KP = draw(
            found, inputs, table.loss, huber_delta, draws=bootstrap, rng=rng, method=method, clusters=_trunks(table)
        )
    model_sd, cuts = model_sd_per_decade(
        law, *inputs, table.flops, table.loss, huber_delta, np.random.default_rng([seed, 4])
    )
    # Where the exponents change with compute they are told at the largest budget fitted.
    top = float(table.flops.max())
    n_exponent, d_exponent = law.exponents(found.theta, top)
    n_draws, d_draws = law.exponents(draws_KP, top)
    fit = ParametricFit(
        status="ok",
        law=law.name,
        parameters={
            name: interval_of(float(found.theta[i]), draws_KP[:, i], level) for i, name in enumerate(law.NAMES)
        },
        objective=found.objective,
        n_exponent=interval_of(float(n_exponent), n_draws, level),
        d_exponent=interval_of(float(d_exponent), d_draws, level),
        huber_delta=huber_delta,
        residual_sd=residual_scale(found.residuals, len(law.NAMES)),
        model_sd_per_decade=model_sd,
        draws=stored_draws(draws_KP),
    )
    return fit, _diagnostics(fit, found, draws_KP, cuts)


def _trunks(table: Table) -> np.ndarray | None:
    """Which runs share a trunk, (n,), or None if none do."""
    if "trunk_key" not in table.labels:
        return None
    trunks = table.labels["trunk_key"].astype(str).to_numpy(dtype=object)
    return trunks if len(set(trunks)) < len(trunks) else None


def _diagnostics(fit: ParametricFit, found: Estimate, draws_KP: FloatArray, cuts: int) -> tuple[Diagnostic, ...]:
    notes = []
    if found.at_bound:
        names = ", ".join(found.at_bound)
        message = (
            f"{names} at the edge of what is searched: the runs do not separate the terms of the law; add runs at "
            "other sizes and token counts"
        )
        notes.append(Diagnostic(severity="warning", code="at-bound", message=message))
    exponent = fit.n_exponent
    if exponent is not None and exponent.low is not None and exponent.high is not None:
        width = exponent.high - exponent.low
        if width > _WIDE_EXPONENT:
            message = (
                f"the exponent of N* is anywhere from {exponent.low:.2f} to {exponent.high:.2f}: more runs, over a "
                "wider range of compute or at other tokens a parameter, would narrow it"
            )
            notes.append(Diagnostic(severity="warning", code="wide-exponent", message=message))
    if len(found.alternatives):
        other = found.theta_of(found.alternatives[0])
        exponents = ", ".join(
            f"{parameter.name} {value:.3f}"
            for parameter, value in zip(found.law.parameters, other, strict=True)
            if not parameter.log
        )
        message = (
            f"another optimum fits within 1% as well ({exponents}): the exponents are weakly identified; trust the "
            "predicted loss before the parameters"
        )
        notes.append(Diagnostic(severity="warning", code="second-optimum", message=message))
    if cuts == 0:
        message = (
            "too few runs to leave the largest budget out and predict it: the model's error a decade is a prior "
            f"({fit.model_sd_per_decade:.2%})"
        )
        notes.append(Diagnostic(severity="note", code="no-back-test", message=message))
    return tuple(notes)
