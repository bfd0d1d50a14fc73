"""What it costs to train a model smaller than the compute optimum, in loss or in compute.

With N = N*/k at the same compute, D = k·D*, and the loss rises by x(k^α − 1) − y(1 − k^−β), where x : y = β : α are the
optimum's size and data terms. At the same loss the compute rises by the factor

    (1/k)·(1 + (β/α)(1 − k^α))^(−1/β)

which depends on the exponents alone and becomes infinite at k = (1 + α/β)^(1/α): no amount of data makes up for a model
smaller than that.
"""

from __future__ import annotations

import math
import textwrap

from scaling.allocation.surface import LossSurface, check_positive
from scaling.fit import Fit
from scaling.quantity import format_count, format_interval, format_percent
from scaling.record import Interval, Record

__all__ = ["Shrunk", "shrink"]


class Shrunk(Record):
    """A model ``factor`` times smaller than the compute optimum of ``flops``."""

    flops: float
    factor: float
    level: float
    params: Interval
    loss_excess: Interval
    """Nats above the optimum, at the same compute."""
    tokens: Interval
    """Seen at the same compute: ``factor`` times the optimum's."""
    wasted_share: Interval
    """Share of the compute that reaching this loss at its own optimum would have saved."""
    equal_loss_tokens: Interval | None
    """Tokens that bring it to the optimum's loss; None where none do."""
    extra_share: Interval | None
    """Compute for that over ``flops``, less 1."""
    largest_factor: Interval
    """The factor from which no amount of data reaches the optimum's loss."""

    def summary(self) -> str:
        """What the smaller model costs, in loss and in compute."""
        if self.equal_loss_tokens is not None and self.extra_share is not None:
            to_equal = (
                f"To reach the optimum's loss it needs {format_count(self.equal_loss_tokens.estimate)} tokens, "
                f"{format_percent(self.extra_share)} more compute"
            )
        else:
            to_equal = "No amount of data brings it to the optimum's loss"
        said = (
            f"{self.factor:g} times smaller than the optimum, {format_count(self.params.estimate)} parameters: at the "
            f"same compute it loses {_nats(self.loss_excess)} nats, as if {format_percent(self.wasted_share)} of the "
            f"compute were wasted. {to_equal}; models {format_interval(self.largest_factor)} times smaller or more "
            "never do."
        )
        return textwrap.fill(said, 100, subsequent_indent="  ")


def shrink(fit: Fit | LossSurface, flops: float, factor: float) -> Shrunk:
    """The costs of N*/``factor`` (below 1: of a larger model) at ``flops``, each against its own draw's optimum.

    Raises :class:`UserError` where the fit has no law to use.
    """
    surface = fit if isinstance(fit, LossSurface) else LossSurface.of(fit)
    check_positive("flops", flops, "1e21")
    check_positive("shrink", factor, "4")
    _, _, _, alpha, beta = surface.constants
    best_params, best_tokens = surface.optimum(flops)
    aim = surface.loss(best_params, best_tokens)
    params, tokens = best_params / factor, best_tokens * factor
    loss = surface.loss(params, tokens)
    needed = surface.tokens_for(aim, params)
    reachable = math.isfinite(needed[0])
    return Shrunk(
        flops=flops,
        factor=factor,
        level=surface.level,
        params=surface.interval(params),
        loss_excess=surface.interval(loss - aim),
        tokens=surface.interval(tokens),
        wasted_share=surface.interval(1 - surface.flops(*surface.cheapest(loss)) / flops),
        equal_loss_tokens=surface.interval(needed) if reachable else None,
        extra_share=surface.interval(surface.flops(params, needed) / flops - 1) if reachable else None,
        largest_factor=surface.interval((1 + alpha / beta) ** (1 / alpha)),
    )


def _nats(interval: Interval) -> str:
    low, high = ("?" if bound is None else f"{bound:.4f}" for bound in (interval.low, interval.high))
    return f"{interval.estimate:.4f} [{low}, {high}]"
