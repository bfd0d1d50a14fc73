"""What each run does to the answer: its leverage, and the fit without it.

The delete-one refits are exact, all in one batch of the solver with the weight of one run set to zero. From them comes
the jackknife's standard error, which sees what the bootstrap of points blurs: on Epoch's 240 points 0.0226 for α where
the bootstrap says 0.0152.

Shapes: n runs, P constants of the law.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scaling.fits.estimate import Estimate, refit
from scaling.fits.linearised import Linearised, linearise
from scaling.laws.law import FloatArray, LossLaw

__all__ = ["AFFORDABLE", "DECADES_BEYOND", "Influence", "influence", "jackknife_error", "target_beyond"]

DECADES_BEYOND = 1.0
"""Influence on the loss is told at ten times the largest budget."""
_FARTHEST = 1e3
_SMALLEST_ERROR = 1e-6
"""Below this a standard error is rounding: without noise no run moves the answer."""
AFFORDABLE = 200_000
"""Refits times runs that take about a second: all of 450 runs, the hundred of most pull of 2,000."""


@dataclass(frozen=True)
class Influence:
    """Each run's pull. Rows are runs in the table's order; NaN where a run was not left out, for want of time."""

    leverage: FloatArray
    """h_ii of the law linearised at its estimate, (n,)."""
    scale: float
    """Robust SD of the log loss around the law."""
    scaled_residuals: FloatArray
    """Residual of log loss over ``scale``, (n,): above zero where the run lost more than the law says."""
    theta_nP: FloatArray
    """The constants without each run."""
    n_exponent: FloatArray
    """The exponent of N* without each run, (n,)."""
    loss: FloatArray
    """The loss at ``target`` without each run, (n,)."""
    target: tuple[float, float]
    """Parameters and tokens of the fit's own optimum at ten times the largest budget."""
    n_exponent_shift: FloatArray
    """Change of the exponent of N* when the run is left out, in its standard errors, (n,)."""
    loss_shift: FloatArray
    """Change of the log of the loss at ``target``, in its standard errors, (n,)."""

    @property
    def largest_shift(self) -> FloatArray:
        """The larger of the two shifts in size, (n,)."""
        return np.fmax(np.abs(self.n_exponent_shift), np.abs(self.loss_shift))


def jackknife_error(values: FloatArray) -> FloatArray:
    """Delete-one jackknife SE over the first axis: sqrt((n − 1)/n · Σ(v_i − mean)²); NaN rows are left out."""
    known = values[np.isfinite(values).reshape(len(values), -1).all(axis=1)]
    count = len(known)
    return np.asarray(np.sqrt((count - 1) / count * ((known - known.mean(axis=0)) ** 2).sum(axis=0)))


def target_beyond(
    found: Estimate, params: FloatArray, flops: float, flops_per_param_token: float = 6.0
) -> tuple[float, float]:
    """N* and D* of the law at ``flops``, N* within a factor of a thousand of the runs' own ``params`` (n,): with a
    constant at its bound a law can have its optimum anywhere."""
    assert isinstance(found.law, LossLaw)
    with np.errstate(over="ignore"):
        best, _ = found.law.optimum(found.theta, flops, flops_per_param_token)
    size = float(np.clip(best, params.min() / _FARTHEST, params.max() * _FARTHEST))
    return size, flops / flops_per_param_token / size


def influence(
    found: Estimate,
    inputs: tuple[FloatArray, FloatArray],
    value: FloatArray,
    flops: FloatArray,
    delta: float,
    *,
    flops_per_param_token: float = 6.0,
    draws: FloatArray | None = None,
    most: int | None = None,
) -> Influence:
    """Leverage and delete-one refits of the law of loss ``found`` through runs of ``inputs`` (N, D), (n,) each.

    Of more runs than ``most`` those of most leverage times residual are left out in turn. Shifts are measured in the
    standard errors that ``draws`` (K, P) of the constants show, or without draws in those of the linearised law.
    """
    law = found.law
    assert isinstance(law, LossLaw)
    plane = linearise(found, inputs, delta)
    top = float(flops.max())
    target = target_beyond(found, inputs[0], top * 10**DECADES_BEYOND, flops_per_param_token)
    if draws is not None and len(draws):
        told = np.stack((law.exponents(draws, top)[0], np.log(law.predict(draws, *target))))
        # Half the central 68%: a few wild draws should not hide what a run does.
        errors = np.ptp(np.quantile(told, (0.16, 0.84), axis=1), axis=0) / 2
    else:
        errors = _linear_errors(found, plane, target, top)
    count = len(value)
    left_out = np.argsort(-plane.leverage * np.abs(found.residuals), kind="stable")[:most]
    weight_Kn = np.ones((len(left_out), count))
    weight_Kn[np.arange(len(left_out)), left_out] = 0.0
    target_Kn = np.broadcast_to(law.to_response(value), weight_Kn.shape)
    theta_nP = np.full((count, len(found.theta)), np.nan)
    theta_nP[left_out] = refit(found, inputs, target_Kn, weight_Kn, delta)
    n_exponent, loss = np.full(count, np.nan), np.full(count, np.nan)
    n_exponent[left_out] = law.exponents(theta_nP[left_out], top)[0]
    loss[left_out] = law.predict(theta_nP[left_out], *target)
    whole_exponent = float(law.exponents(found.theta, top)[0])
    whole_loss = float(law.predict(found.theta, *target))
    return Influence(
        leverage=plane.leverage,
        scale=plane.scale,
        scaled_residuals=found.residuals / plane.scale,
        theta_nP=theta_nP,
        n_exponent=n_exponent,
        loss=loss,
        target=target,
        n_exponent_shift=(n_exponent - whole_exponent) / max(float(errors[0]), _SMALLEST_ERROR),
        loss_shift=np.log(loss / whole_loss) / max(float(errors[1]), _SMALLEST_ERROR),
    )


def _linear_errors(found: Estimate, plane: Linearised, target: tuple[float, float], flops: float) -> FloatArray:
    """SE of the exponent of N* (at ``flops``) and of the log of the loss at ``target``, by the linearised law."""
    law = found.law
    assert isinstance(law, LossLaw)
    ln_target_V1 = found.centred(np.array([target[0]]), np.array([target[1]]))
    _, gradient_1P = law.response_and_gradient(found.free, ln_target_V1)
    step = 1e-4 * np.eye(len(found.free))
    above = law.exponents(found.theta_of(found.free + step), flops)[0]
    below = law.exponents(found.theta_of(found.free - step), flops)[0]
    return plane.standard_error(np.stack(((above - below) / 2e-4, gradient_1P[0])))
