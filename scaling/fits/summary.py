"""A fit as a page of text that fits a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from scaling import laws
from scaling.errors import UserError
from scaling.fit import Diagnostic, DriftFit, EnvelopeFit, Fit, IsoflopFit, LawFit, ParametricFit
from scaling.record import Interval

__all__ = ["summarise", "summarise_law"]

_CONVENTIONS = {
    "total": "all parameters",
    "nonembedding": "parameters without embeddings",
    "with-head": "with the head",
}
_GREEK = {"alpha": "α", "beta": "β", "gamma": "γ", "epsilon": "ε"}
_REJECTED_SHOWN = 5
_WIDTH = 120


def _interval(interval: Interval, digits: str = ".3f") -> str:
    if interval.low is None or interval.high is None or interval.low == interval.high:
        return f"{interval.estimate:{digits}}"
    return f"{interval.estimate:{digits}} [{interval.low:{digits}}, {interval.high:{digits}}]"


def _observations(fit: Fit) -> list[str]:
    counts, span = fit.observations, fit.fitted_range
    flops = "6ND" if fit.flops_convention == "6nd" else "exact FLOPs"
    lines = [
        f"{counts.used} of {counts.rows} rows fitted · N {span.params[0]:.3g} to {span.params[1]:.3g} "
        f"({_CONVENTIONS[fit.params_convention]}) · D {span.tokens[0]:.3g} to {span.tokens[1]:.3g} · "
        f"C {span.flops[0]:.3g} to {span.flops[1]:.3g} ({flops})"
    ]
    if counts.rejected:
        shown = ", ".join(f"{row.row} ({row.reason})" for row in counts.rejected[:_REJECTED_SHOWN])
        more = f" and {len(counts.rejected) - _REJECTED_SHOWN} more" if len(counts.rejected) > _REJECTED_SHOWN else ""
        noun = "row" if len(counts.rejected) == 1 else "rows"
        lines.append(f"{len(counts.rejected)} {noun} can't be used: {shown}{more}")
    return lines


def _symbol(name: str) -> str:
    """``alpha_N`` as α_N."""
    word, underscore, index = name.partition("_")
    return _GREEK.get(word, word) + underscore + index


def _law(name: str, parameters: Mapping[str, Interval]) -> list[str]:
    """The law's formula, its constants with intervals, and in one line those whose unit depends on an exponent."""
    try:
        law = laws.get(name)
        formula, scales = law.formula, law.scales
    except UserError:  # of a package that is not installed here
        formula, scales = name, ()
    lines = [f"law       {formula}"]
    for constant, found in parameters.items():
        largest = max(abs(found.estimate), abs(found.high or 0.0))
        digits = ".3f" if abs(found.estimate) >= 0.01 and largest < 100 else ".3g"
        if constant not in scales:
            lines.append(f"          {_symbol(constant)} {_interval(found, digits)}")
    if scales:
        lines.append("          " + " · ".join(f"{_symbol(name)} {parameters[name].estimate:.4g}" for name in scales))
    return lines


def _parametric(fit: ParametricFit) -> list[str]:
    if fit.status == "refused":
        return [f"law       refused: {fit.reason}"]
    lines = _law(fit.law, fit.parameters)
    if fit.n_exponent is not None and fit.d_exponent is not None:
        lines.append(f"          N* ~ C^{_interval(fit.n_exponent)} · D* ~ C^{_interval(fit.d_exponent)}")
    if fit.residual_sd is not None:
        lines.append(f"          runs scatter by {fit.residual_sd:.2%} of loss")
    return lines


def _isoflop(fit: IsoflopFit) -> list[str]:
    if fit.status == "refused":
        lines = [f"iso-FLOP  refused: {fit.reason}"]
    else:
        usable = sum(optimum.status == "ok" for optimum in fit.optima)
        lines = [f"iso-FLOP  {usable} of {len(fit.optima)} budgets have a minimum"]
        if fit.n_exponent is not None and fit.d_exponent is not None:
            lines.append(f"          N* ~ C^{_interval(fit.n_exponent)} · D* ~ C^{_interval(fit.d_exponent)}")
    for optimum in fit.optima:
        if optimum.status == "ok" and optimum.params is not None and optimum.loss is not None:
            best = f"N* {_interval(optimum.params, '.3g')}, loss {_interval(optimum.loss)}"
            lines.append(f"          C {optimum.flops:.3g}: {best}")
    return lines


def _drift(fit: DriftFit, level: float) -> list[str]:
    if fit.status == "refused" or not fit.back_test:
        return []
    return [
        f"back-test {cut.predicted} runs to {10**cut.extrapolation_orders:.1f} times the {cut.fitted} below "
        f"{cut.largest_fitted_flops:.3g} FLOPs: rms error {cut.rms_error:.2%} (the law alone "
        f"{cut.rms_error_plain_law:.2%}), {cut.inside} inside {level:.0%}"
        for cut in fit.back_test
    ]


def _envelope(fit: EnvelopeFit) -> list[str]:
    if fit.reason == "not asked for":
        return []
    if fit.status == "refused" or fit.n_exponent is None or fit.d_exponent is None:
        return [f"envelope  refused: {fit.reason}"]
    usable = sum(optimum.status == "ok" for optimum in fit.optima)
    among = {"curves": "training curves", "budgets": "runs of one budget", "runs": "runs of like compute"}
    return [
        f"envelope  {usable} of {len(fit.optima)} levels of compute have their lowest loss between the sizes trained "
        f"({among[fit.source or 'runs']})",
        f"          N* ~ C^{_interval(fit.n_exponent)} · D* ~ C^{_interval(fit.d_exponent)}",
    ]


def summarise(fit: Fit) -> str:
    """Rows used, the law, the iso-FLOP optima, and every diagnostic; intervals at ``fit.level``."""
    lines = [
        *_observations(fit),
        "",
        *_parametric(fit.parametric),
        *_isoflop(fit.isoflop),
        *_envelope(fit.envelope),
        *_drift(fit.drift, fit.level),
    ]
    if fit.bootstrap:
        lines.append(f"          intervals at {fit.level:.0%}")
    return "\n".join([*lines, *_told(fit.diagnostics)])


def summarise_law(fit: LawFit) -> str:
    """The rows, the law with its constants, and every diagnostic; intervals at ``fit.level``."""
    spans = " · ".join(f"{name} {low:.3g} to {high:.3g}" for name, (low, high) in fit.fitted_range.items())
    lines = [f"{fit.value} of {fit.rows} rows · {spans}", "", *_law(fit.law, fit.parameters)]
    scatter = f"{fit.residual_sd:.2%}" if fit.residuals == "log" else f"{fit.residual_sd:.3g}"
    lines.append(f"          rows scatter by {scatter}; objective {fit.objective:.6g}")
    if fit.fixed:
        lines.append(f"          held: {', '.join(fit.fixed)}")
    if fit.bootstrap:
        lines.append(f"          intervals at {fit.level:.0%}")
    return "\n".join([*lines, *_told(fit.diagnostics)])


def _told(diagnostics: Sequence[Diagnostic]) -> list[str]:
    """Every diagnostic as a line, after an empty one; a refusal stands with what it refuses."""
    marks = {"note": "·", "warning": "!", "refusal": "!"}
    told = [
        textwrap.fill(f"{marks[note.severity]} {note.message}", _WIDTH, subsequent_indent="  ", break_long_words=False)
        for note in diagnostics
        if note.severity != "refusal"
    ]
    return ["", *told] if told else []
