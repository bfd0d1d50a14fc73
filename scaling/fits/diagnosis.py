"""What to know before trusting a fitted law, from the fit and its runs, with the runs that would settle each finding.

Constants at the edge of what is searched, profiles without an end, exponents that could be almost anything, a second
optimum; and by row number, runs far from the law and runs that move the answer by more than its standard error.
"""

from __future__ import annotations

import numpy as np

from scaling.fit import Cure, Diagnostic, ParametricFit
from scaling.fits.bootstrap import residual_scale
from scaling.fits.cures import again, beyond, described, separating
from scaling.fits.estimate import Estimate
from scaling.fits.influence import AFFORDABLE, DECADES_BEYOND, influence, target_beyond
from scaling.fits.linearised import linearise
from scaling.fits.profile import Profile, profile
from scaling.fits.quantities import constant
from scaling.laws.law import FloatArray, LossLaw
from scaling.table import Table
from scaling.table_rows import listed

__all__ = ["findings"]

_WIDE_EXPONENT = 0.6
_FAR = 5.0
"""Robust standard deviations beyond which a run is not of the law's noise: one in 1.7 million normal runs."""
_STANDS_OUT = 4.0
_MORE_COMPUTE = 4.0
"""Of the largest budget, for runs that are to show where loss ends."""
_ROWS_TOLD = 2
_MOST_AGAIN = 12
_POINTS_OF_A_CURVE = 4


def findings(
    table: Table, found: Estimate, fit: ParametricFit, draws_KP: FloatArray, *, level: float, refits: bool
) -> tuple[Diagnostic, ...]:
    """Every finding about ``fit``, the record of the estimate ``found`` of ``table`` with ``draws_KP`` (K, P).

    ``refits`` False leaves out what needs the law to be fitted again (profiles and influence).
    """
    notes = [*_along_runs(table), *_at_bound(table, found), *_wide(table, fit), *_second_optimum(table, found)]
    notes += _far(table, found)
    if refits:
        notes += _flat(table, found, fit.huber_delta, level)
        notes += _influential(table, found, fit.huber_delta, draws_KP)
    return tuple(notes)


def _warning(code: str, message: str, cure: Cure) -> Diagnostic:
    """A warning that ends with its cure."""
    return Diagnostic(severity="warning", code=code, message=f"{message}: {described(cure)} would help", cure=cure)


def _along_runs(table: Table) -> list[Diagnostic]:
    """Points along single runs, of which nothing says that they were cooled down."""
    if "phase" in table.labels:
        return []
    for name in ("trunk_key", "run_key"):
        if name not in table.labels:
            continue
        points = table.labels[name].map(table.labels[name].value_counts()).to_numpy()
        along = points >= _POINTS_OF_A_CURVE
        if along.any():
            message = (
                f"{int(along.sum())} of {len(table)} rows are points along {table.labels[name][along].nunique()} runs "
                f"({name}): under a learning rate that decays, a loss on the way lies above that of a run which ends "
                "there; keep each run's last row, or say in a column phase which rows were cooled down"
            )
            return [Diagnostic(severity="warning", code="along-runs", message=message)]
    return []


def _separating(table: Table, names: tuple[str, ...]) -> Cure:
    """Runs that show the terms of these constants; both terms where they belong to neither."""
    size, data = bool({"A", "alpha"} & set(names)), bool({"B", "beta"} & set(names))
    return separating(
        table.params, table.tokens, table.flops_per_param_token, size=size or not data, data=data or not size
    )


def _at_bound(table: Table, found: Estimate) -> list[Diagnostic]:
    if not found.at_bound:
        return []
    names = ", ".join(found.at_bound)
    message = f"{names} at the edge of what is searched: the runs do not separate the terms of the law"
    return [_warning("at-bound", message, _separating(table, found.at_bound))]


def _wide(table: Table, fit: ParametricFit) -> list[Diagnostic]:
    exponent = fit.n_exponent
    if exponent is None or exponent.low is None or exponent.high is None:
        return []
    if exponent.high - exponent.low <= _WIDE_EXPONENT:
        return []
    message = f"the exponent of N* is anywhere from {exponent.low:.2f} to {exponent.high:.2f}"
    return [_warning("wide-exponent", message, _separating(table, ()))]


def _second_optimum(table: Table, found: Estimate) -> list[Diagnostic]:
    if not len(found.alternatives):
        return []
    other = found.theta_of(found.alternatives[0])
    exponents = ", ".join(
        f"{parameter.name} {value:.3f}"
        for parameter, value in zip(found.law.parameters, other, strict=True)
        if not parameter.log
    )
    message = (
        f"another optimum fits within 1% as well ({exponents}), so the exponents are weakly identified; trust the "
        "predicted loss before the parameters"
    )
    return [_warning("second-optimum", message, _separating(table, ()))]


def _flat(table: Table, found: Estimate, delta: float, level: float) -> list[Diagnostic]:
    """Exponents and E that nothing bounds on a side, by their profiles."""
    inputs = table.params, table.tokens
    plane = linearise(found, inputs, delta)
    names = [parameter.name for parameter in found.law.parameters if not parameter.log]
    names += [name for name in ("E",) if name in found.law.NAMES]
    open_ones: list[Profile] = []
    for name in names:
        if name in found.at_bound:
            continue
        one = profile(found, inputs, table.loss, delta, constant(found, name), level=level, plane=plane)
        if one.flat:
            open_ones.append(one)
    exponents = [one for one in open_ones if one.name != "E"]
    notes = []
    if exponents:
        told = " and ".join(f"{one.name} {_bounds(one)}" for one in exponents)
        message = f"profile likelihood at {level:.0%} leaves {told}"
        notes.append(_warning("flat-profile", message, _separating(table, tuple(one.name for one in exponents))))
    for one in open_ones:
        if one.name == "E" and isinstance(found.law, LossLaw):
            flops = _MORE_COMPUTE * float(table.flops.max())
            best = target_beyond(found, table.params, flops, table.flops_per_param_token)
            message = (
                f"profile likelihood at {level:.0%} leaves E {_bounds(one)}: these runs do not show where loss ends"
            )
            notes.append(_warning("flat-profile", message, beyond(*best, table.flops_per_param_token)))
    return notes


def _bounds(one: Profile) -> str:
    if one.low is None and one.high is None:
        return "anywhere"
    return f"anywhere below {one.high:.3g}" if one.low is None else f"anywhere above {one.low:.3g}"


def _far(table: Table, found: Estimate) -> list[Diagnostic]:
    """Runs whose loss is not the law's and its noise."""
    scaled = found.residuals / max(residual_scale(found.residuals, found.unknowns), 1e-12)
    far = np.flatnonzero((np.abs(scaled) > _FAR) & (np.abs(found.residuals) > 1e-3))
    if not far.size:
        return []
    worst = far[np.argsort(-np.abs(scaled[far]))]
    told = "; ".join(
        f"row {table.rows[at]} has {table.loss[at]:.4g} where the law says "
        f"{table.loss[at] * np.exp(-found.residuals[at]):.4g} ({scaled[at]:+.0f} SD)"
        for at in worst[:_ROWS_TOLD]
    )
    message = (
        f"{listed(table.rows[far])} lie{'s' if far.size == 1 else ''} far from the law ({told}): diverged, mistuned or "
        "mistyped? The fit weighs such runs little; drop them, or train them again"
    )
    cure = again(table.params[worst[:_MOST_AGAIN]], table.tokens[worst[:_MOST_AGAIN]], table.flops_per_param_token)
    return [_warning("far-from-law", message, cure)]


def _influential(table: Table, found: Estimate, delta: float, draws_KP: FloatArray) -> list[Diagnostic]:
    """Runs without which the answer is another."""
    if not isinstance(found.law, LossLaw):
        return []
    pull = influence(
        found,
        (table.params, table.tokens),
        table.loss,
        table.flops,
        delta,
        flops_per_param_token=table.flops_per_param_token,
        draws=draws_KP,
        most=AFFORDABLE // len(table),
    )
    moving = np.flatnonzero(pull.largest_shift > 1)
    if not moving.size:
        return []
    worst = moving[np.argsort(-pull.largest_shift[moving])]
    told = "; ".join(
        f"without row {table.rows[at]} the exponent of N* is {pull.n_exponent[at]:.3f} "
        f"({pull.n_exponent_shift[at]:+.1f} SE) and the loss at {10**DECADES_BEYOND:g} times the largest budget "
        f"{pull.loss[at]:.4g} ({pull.loss_shift[at]:+.1f} SE)"
        for at in worst[:_ROWS_TOLD]
    )
    cure = again(table.params[worst[:_MOST_AGAIN]], table.tokens[worst[:_MOST_AGAIN]], table.flops_per_param_token)
    verb, them = ("moves", "it") if moving.size == 1 else ("move", "them")
    message = (
        f"{listed(table.rows[moving])} {verb} the answer by more than its standard error ({told}): make sure of "
        f"{them}: {described(cure)} would help"
    )
    # With a dozen runs the answer hangs on several of them: only a run that stands out from the others is odd.
    shift = pull.largest_shift
    odd = bool((shift[moving] > _STANDS_OUT * np.nanmedian(shift)).any())
    return [Diagnostic(severity="warning" if odd else "note", code="influential", message=message, cure=cure)]
