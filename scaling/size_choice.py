"""Which size and length a target buys once limits are known: the compute optimum, or what a limit makes of it."""

from __future__ import annotations

from typing import Literal, NamedTuple

from scaling.accounting import Accounting
from scaling.allocation import Allocation
from scaling.allocation.inference_aware import InferenceOptimum, inference_optimum
from scaling.allocation.limited_data import LimitedOptimum, limited_data_optimum
from scaling.allocation.surface import LossSurface
from scaling.errors import UserError
from scaling.fit import Fit
from scaling.limits import Cap, Limits
from scaling.quantity import format_count
from scaling.record import Interval

__all__ = ["Pick", "SizeChoice", "choose_size"]

Pick = Literal["optimum", "serving", "dollars"]
"""The compute optimum; the size that is cheapest over its life; the shape that is cheapest to train."""


class SizeChoice(NamedTuple):
    """N and D with intervals, N as the fit counts it; ``flops`` differ from the target's for a served model."""

    params: Interval
    tokens: Interval
    flops: float
    reasons: tuple[str, ...]
    """Why it is not the compute optimum, a sentence each; empty where it is."""
    fresh_share: float
    """What a token seen is worth on average, in fresh ones: 1 without repeats."""
    serving: InferenceOptimum | None
    limited: LimitedOptimum | None


def choose_size(
    fit: Fit, allocation: Allocation, limits: Limits, cap: Cap | None, accounting: Accounting, pick: Pick
) -> SizeChoice:
    """The run for ``allocation.flops`` under ``limits``; ``pick`` "serving" takes the model that is cheapest over its
    life in place of the compute optimum.

    Scarce text and serving are worked out on the law: :class:`UserError` where the fit has none that can be used.
    """
    flops, params, tokens = allocation.flops, allocation.params, allocation.tokens
    reasons: list[str] = []
    serving = limited = None
    fresh_share = 1.0
    if limits.serve_tokens is None and pick == "serving":
        raise UserError("pick serving needs serve_tokens: how many tokens the model will process")
    if limits.serve_tokens is not None:
        serving = inference_optimum(LossSurface.of(fit), serve_tokens=limits.serve_tokens, flops=flops)
        if pick == "serving":
            params, tokens = serving.params, serving.tokens
            flops = accounting.flops_per_token(params.estimate) * tokens.estimate
            reasons.append(
                f"The size is the cheapest over training and {format_count(limits.serve_tokens)} tokens served, of the "
                "loss that the target's compute optimum would reach."
            )
    if limits.unique_tokens is not None and tokens.estimate > limits.unique_tokens:
        limited = limited_data_optimum(LossSurface.of(fit), flops, limits.unique_tokens)
        params = limited.params
        tokens = _bought(flops, params, accounting)
        fresh_share = _fresh_share(limited, tokens.estimate, limits.unique_tokens)
        reasons.append(
            f"There are {format_count(limits.unique_tokens)} distinct tokens: they are seen "
            f"{limited.epochs.estimate:.3g} times, by a smaller model than with unlimited text (2305.16264)."
        )
    if cap is not None and accounting.total(params.estimate) > cap.params:
        held = params.estimate * cap.params / accounting.total(params.estimate)
        params = Interval(estimate=held, low=held, high=held)
        tokens = _bought(flops, params, accounting)
        reasons.append(f"The size is held to {format_count(cap.params)} parameters by {cap.reason}.")
    return SizeChoice(params, tokens, flops, tuple(reasons), fresh_share, serving, limited)


def _bought(flops: float, params: Interval, accounting: Accounting) -> Interval:
    """The tokens that ``flops`` buy at each end of N."""

    def tokens(size: float | None) -> float | None:
        return None if size is None else flops / accounting.flops_per_token(size)

    return Interval(
        estimate=flops / accounting.flops_per_token(params.estimate), low=tokens(params.high), high=tokens(params.low)
    )


def _fresh_share(limited: LimitedOptimum, tokens: float, unique: float) -> float:
    repeats = max(0.0, tokens - unique)
    return (min(tokens, unique) + repeats * limited.repeated_worth.estimate) / tokens
