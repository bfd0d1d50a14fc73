"""The size that is cheapest over a model's life: trained once, then served (Sardana et al. 2401.00448).

    minimise 6·N·D + 2·N·T  subject to  L(N, D) = target,     T tokens served, prompts and completions together

A served token costs a third of a trained one, forward without backward. Along a line of equal loss
d ln D/d ln N = −αA·N^−α/(βB·D^−β), so that at the minimum

    αA·N^−α / (βB·D^−β) = 1 + T/(3·D)

which is 1 at the compute optimum: the more is served, the further the balance moves to small models trained for long.
The same condition holds where the life's compute is given and the loss is minimised.
"""

from __future__ import annotations

import math
import textwrap

import numpy as np

from scaling.allocation.surface import LossSurface, bisect, check_positive
from scaling.errors import UserError
from scaling.fit import Fit
from scaling.laws.law import FloatArray
from scaling.quantity import format_count, format_flops, format_interval, format_percent
from scaling.record import Interval, Record

__all__ = ["InferenceOptimum", "inference_optimum"]


class InferenceOptimum(Record):
    """The model with the lowest loss and life's compute together, beside the compute-optimal one of the same loss."""

    serve_tokens: float
    level: float
    loss: Interval
    """Of both models, nats a token."""
    params: Interval
    tokens: Interval
    training_flops: Interval
    serving_flops: Interval
    compute_optimal_params: Interval
    """N of the model that reaches the same loss with the least training."""
    compute_optimal_tokens: Interval
    saved_flops: Interval
    """Training and serving together, against the compute-optimal model."""
    saved_share: Interval

    def summary(self) -> str:
        """Two sentences: what to train, and what it saves."""
        said = (
            f"To serve {format_count(self.serve_tokens)} tokens: {format_interval(self.params)} parameters on "
            f"{format_interval(self.tokens)} tokens reach the loss of the compute-optimal "
            f"{format_count(self.compute_optimal_params.estimate)} on "
            f"{format_count(self.compute_optimal_tokens.estimate)}. Training costs "
            f"{format_flops(self.training_flops.estimate)} and serving {format_flops(self.serving_flops.estimate)}; "
            f"over its life that saves {format_flops(self.saved_flops.estimate)}, {format_percent(self.saved_share)}."
        )
        return textwrap.fill(said, 100, subsequent_indent="  ")


def inference_optimum(
    fit: Fit | LossSurface,
    *,
    serve_tokens: float,
    flops: float | None = None,
    loss: float | None = None,
    lifetime_flops: float | None = None,
) -> InferenceOptimum:
    """N and D for a model that will process ``serve_tokens`` tokens, given exactly one of three targets.

    ``flops``: as good as the compute-optimal run of so many training FLOPs (each draw's own loss). ``loss``: of this
    loss in nats a token. ``lifetime_flops``: of the lowest loss that training and serving together can buy. Where a
    served FLOP costs r times a trained one (decoding fills an accelerator worse), give r times the tokens.

    Raises :class:`UserError` where the fit has no law to use, the loss can't be reached, or the budget is too small to
    serve any model.
    """
    surface = fit if isinstance(fit, LossSurface) else LossSurface.of(fit)
    check_positive("serve_tokens", serve_tokens, "1e12")
    given = {"flops": flops, "loss": loss, "lifetime_flops": lifetime_flops}
    targets = {name: value for name, value in given.items() if value is not None}
    if len(targets) != 1:
        raise UserError(f"the target is one of flops, loss and lifetime_flops: {len(targets)} of them were given")
    ((name, target),) = targets.items()
    check_positive(name, target, "2.1" if name == "loss" else "1e22")
    if name == "lifetime_flops":
        params, tokens = _best_of_budget(surface, target, serve_tokens)
        aim = surface.loss(params, tokens)
    else:
        aim = surface.optimal_loss(target) if name == "flops" else np.full(len(surface.theta_KP), target)
        if aim[0] <= surface.theta_KP[0, 2]:
            raise UserError(f"loss is {target:g}: this law goes no lower than E = {surface.theta_KP[0, 2]:.4g} nats")
        params, tokens = _cheapest_life(surface, aim, serve_tokens)
    return _compared(surface, aim, params, tokens, serve_tokens)


def _imbalance(surface: LossSurface, params: FloatArray, tokens: FloatArray, serve_tokens: float) -> FloatArray:
    """ln of the left side over the right of the condition: above zero where the model is too small."""
    _, _, _, alpha, beta = surface.constants
    left = np.log(alpha * surface.size_term(params)) - np.log(beta * surface.data_term(tokens))
    return np.asarray(left - np.log1p(serve_tokens / (3.0 * tokens)))


def _cheapest_life(surface: LossSurface, aim: FloatArray, serve_tokens: float) -> tuple[FloatArray, FloatArray]:
    """N and D of loss ``aim`` with the least 6ND + 2NT, (K,) each; infinite where a draw's E lies above it."""
    A, B, E, alpha, beta = surface.constants
    reachable = aim > E
    reducible = np.where(reachable, aim - E, 1.0)

    def split(u: FloatArray) -> tuple[FloatArray, FloatArray]:
        """N and D where ln(size term/data term) = u: along the line of equal loss."""
        ln_reducible = np.log(reducible)
        ln_size, ln_data = ln_reducible - np.logaddexp(0.0, -u), ln_reducible - np.logaddexp(0.0, u)
        return np.exp((np.log(A) - ln_size) / alpha), np.exp((np.log(B) - ln_data) / beta)

    # At the compute optimum the condition misses by ln(1 + T/3D), and further on D only grows: a bracket.
    low = np.log(beta / alpha)
    high = low + np.log1p(serve_tokens / (3.0 * split(low)[1]))
    found = split(bisect(lambda u: _imbalance(surface, *split(u), serve_tokens), low, high))
    return np.where(reachable, found[0], np.inf), np.where(reachable, found[1], np.inf)


def _best_of_budget(surface: LossSurface, budget: float, serve_tokens: float) -> tuple[FloatArray, FloatArray]:
    """N and D of the lowest loss with cND + (c/3)NT = ``budget``, (K,) each."""
    optimal, _ = surface.optimum(budget)
    product = budget / surface.flops_per_param_token

    def tokens_of(ln_params: FloatArray) -> FloatArray:
        return np.asarray(np.maximum(product * np.exp(-ln_params) - serve_tokens / 3.0, 1e-300))

    def too_large(ln_params: FloatArray) -> FloatArray:
        return -_imbalance(surface, np.exp(ln_params), tokens_of(ln_params), serve_tokens)

    high = np.minimum(np.log(optimal), math.log(3.0 * product / serve_tokens))
    found = bisect(too_large, np.log(optimal) - 60.0, high)
    if np.exp(found[0]) < 1:
        raise UserError(
            f"lifetime_flops is {budget:g}: it can't serve {serve_tokens:g} tokens with any model; give more of it"
        )
    return np.exp(found), tokens_of(found)


def _compared(
    surface: LossSurface, aim: FloatArray, params: FloatArray, tokens: FloatArray, serve_tokens: float
) -> InferenceOptimum:
    plain_params, plain_tokens = surface.cheapest(aim)
    per_served = surface.flops_per_param_token / 3.0 * serve_tokens
    with np.errstate(invalid="ignore"):  # a draw under which the loss is out of reach
        training, serving = surface.flops(params, tokens), per_served * params
        plain = surface.flops(plain_params, plain_tokens) + per_served * plain_params
        saved = np.nan_to_num(plain - training - serving, nan=np.inf, posinf=np.inf)
        share = np.nan_to_num(saved / plain, nan=np.inf, posinf=np.inf)
    return InferenceOptimum(
        serve_tokens=serve_tokens,
        level=surface.level,
        loss=surface.interval(aim),
        params=surface.interval(params),
        tokens=surface.interval(tokens),
        training_flops=surface.interval(training),
        serving_flops=surface.interval(serving),
        compute_optimal_params=surface.interval(plain_params),
        compute_optimal_tokens=surface.interval(plain_tokens),
        saved_flops=surface.interval(saved),
        saved_share=surface.interval(share),
    )
