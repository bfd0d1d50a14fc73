"""Win rates: raw, of a judge asked in both orders, and with the length of the answers taken out.

A preference is how far a model's answer is preferred to the baseline's: 1 for a win, 0.5 for a tie, 0 for a loss, or a
probability between. Shapes: n comparisons, p prompts, q covariates, K resamples.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from scaling.errors import UserError
from scaling.laws.law import FloatArray
from scaling.preference.intervals import bootstrap_interval, mean_interval, one_column
from scaling.record import Interval, Record

__all__ = ["LengthControlledWinRate", "WinRate", "combine_orders", "length_controlled_win_rate", "win_rate"]

_STEPS = 60
_ENOUGH = 1e-9
_PRIOR_SD = (10.0, 5.0)
"""Of the model's own term and of the covariates': so weak that they only keep a separable sample from infinity."""


class WinRate(Record):
    """``rate`` at ``level``; ``wins``, ``ties`` and ``losses`` count comparisons above, at and below one half."""

    rate: Interval
    comparisons: int
    prompts: int
    wins: int
    ties: int
    losses: int
    level: float


class LengthControlledWinRate(Record):
    """What the win rate would be, were the answers as long as the baseline's, beside the raw one and the lengths."""

    rate: Interval
    raw: Interval
    length_effect: Interval
    """Change of the logit from answers equally long to much longer ones."""
    mean_length: float
    baseline_mean_length: float
    comparisons: int
    prompts: int
    level: float


def combine_orders(shown_first: ArrayLike, shown_second: ArrayLike) -> FloatArray:
    """A judge's preference for the model when its answer is shown first and second, (n,) each, as one: their mean.

    A judge that only likes the place says 1 and 0, which is a tie.
    """
    first = one_column(shown_first, "shown_first", share=True)
    second = one_column(shown_second, "shown_second", len(first), share=True)
    return np.asarray(0.5 * (first + second))


def win_rate(
    preference: ArrayLike,
    prompt: ArrayLike | None = None,
    *,
    level: float = 0.9,
    bootstrap: int = 1000,
    seed: int = 0,
) -> WinRate:
    """The mean over prompts of ``preference`` (n,), with an interval by resampling prompts.

    Comparisons of one ``prompt`` (n,) are averaged first and drawn together. Raises :class:`UserError` for a preference
    outside 0 to 1.
    """
    preference_n = one_column(preference, "preference", share=True)
    member_n = _members(prompt, len(preference_n))
    by_prompt = np.bincount(member_n, preference_n) / np.bincount(member_n)
    return WinRate(
        rate=mean_interval(by_prompt, bootstrap=bootstrap, level=level, seed=seed),
        comparisons=len(preference_n),
        prompts=len(by_prompt),
        wins=int((preference_n > 0.5).sum()),
        ties=int((preference_n == 0.5).sum()),
        losses=int((preference_n < 0.5).sum()),
        level=level,
    )


def length_controlled_win_rate(
    preference: ArrayLike,
    length: ArrayLike,
    baseline_length: ArrayLike,
    *,
    difficulty: ArrayLike | None = None,
    prompt: ArrayLike | None = None,
    level: float = 0.9,
    bootstrap: int = 1000,
    seed: int = 0,
) -> LengthControlledWinRate:
    """AlpacaEval's length-controlled win rate (Dubois et al. 2404.04475) of one model and its baseline.

        logit P(preferred) = θ + φ·tanh(Δlength/sd(Δlength)) + ψ·difficulty

    fitted to ``preference`` (n,), then its mean with the length term at zero. ``difficulty`` (n,) is how hard each
    instruction is for the baseline, zero for an average one; the paper has it from many models at once. Swapping model
    and baseline gives one less the rate. Normal priors of SD 10 on θ and 5 on the others keep a model that wins always
    from infinity; the paper chooses an L2 penalty by cross-validation and adds adversarial answers of the baseline.
    Intervals come from resampling prompts. It is no remedy where the model is longer or shorter nearly everywhere by
    as much: what is due to length and what to the model then can't be told apart, and the interval says so.
    """
    preference_n = one_column(preference, "preference", share=True)
    rows = len(preference_n)
    length_n, base_n = one_column(length, "length", rows), one_column(baseline_length, "baseline_length", rows)
    difference_n = length_n - base_n
    spread = float(difference_n.std())
    if not spread > 0:
        raise UserError("length − baseline_length is the same in every row: there is no length to control for")
    columns = [np.ones(rows), np.tanh(difference_n / spread)]
    if difficulty is not None:
        columns.append(one_column(difficulty, "difficulty", rows))
    design_nq = np.column_stack(columns)
    at_zero_nq = design_nq.copy()
    at_zero_nq[:, 1] = 0.0
    member_n = _members(prompt, rows)
    # Prompts weigh alike, however many comparisons they have.
    weight_n = 1 / np.bincount(member_n)[member_n]
    prompts = int(member_n.max()) + 1

    def fitted(count_Kp: FloatArray) -> tuple[FloatArray, FloatArray]:
        weight_Kn = count_Kp[:, member_n] * weight_n
        return _logistic(design_nq, preference_n, weight_Kn), weight_Kn

    def controlled(count_Kp: FloatArray) -> FloatArray:
        coefficient_Kq, weight_Kn = fitted(count_Kp)
        chance_Kn = expit(coefficient_Kq @ at_zero_nq.T)
        return np.asarray((chance_Kn * weight_Kn).sum(axis=1) / weight_Kn.sum(axis=1))

    def effect(count_Kp: FloatArray) -> FloatArray:
        return fitted(count_Kp)[0][:, 1]

    options = {"bootstrap": bootstrap, "level": level, "seed": seed}
    at_once = max(1, 4_000_000 * prompts // rows)
    return LengthControlledWinRate(
        rate=bootstrap_interval(prompts, controlled, at_once=at_once, **options),  # type: ignore[arg-type]
        raw=win_rate(preference_n, member_n, **options).rate,  # type: ignore[arg-type]
        length_effect=bootstrap_interval(prompts, effect, at_once=at_once, **options),  # type: ignore[arg-type]
        mean_length=float(length_n.mean()),
        baseline_mean_length=float(base_n.mean()),
        comparisons=rows,
        prompts=prompts,
        level=level,
    )


def _members(prompt: ArrayLike | None, rows: int) -> np.ndarray:
    if prompt is None:
        return np.arange(rows)
    labels = np.asarray(prompt)
    if labels.shape != (rows,):
        raise UserError(f"prompt has shape {labels.shape} where {rows} rows were expected")
    return np.unique(labels, return_inverse=True)[1]


def _logistic(design_nq: FloatArray, share_n: FloatArray, weight_Kn: FloatArray) -> FloatArray:
    """Penalised maximum likelihood of shares from 0 to 1 for each row of weights, (K, q), by Newton's method."""
    covariates = design_nq.shape[1]
    ridge_q = np.array([_PRIOR_SD[0], *[_PRIOR_SD[1]] * (covariates - 1)]) ** -2.0
    coefficient_Kq = np.zeros((len(weight_Kn), covariates))
    for _ in range(_STEPS):
        chance_Kn = expit(coefficient_Kq @ design_nq.T)
        gradient_Kq = (weight_Kn * (share_n - chance_Kn)) @ design_nq - ridge_q * coefficient_Kq
        curvature_Kn = weight_Kn * chance_Kn * (1 - chance_Kn)
        hessian_Kqq = np.einsum("kn,nq,nr->kqr", curvature_Kn, design_nq, design_nq, optimize=True) + np.diag(ridge_q)
        step_Kq = np.linalg.solve(hessian_Kqq, gradient_Kq[..., None])[..., 0]
        coefficient_Kq = coefficient_Kq + np.clip(step_Kq, -2.0, 2.0)
        if float(np.abs(step_Kq).max()) < _ENOUGH:
            break
    return coefficient_Kq
