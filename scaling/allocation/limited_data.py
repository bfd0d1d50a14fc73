"""Where compute should go when text runs out: Muennighoff et al. (2305.16264).

    minimise E + A·N'^−α + B·D'^−β  subject to  c·N·D = C

with D' of D tokens out of U unique ones and N' as ``scaling.laws.effective_data`` has them. While the compute optimum
needs no more than U tokens, nothing changes. Beyond, its N lies between U_N, the size that U tokens call for, and
C/(cU), one epoch; there the two marginal worths cross once.
"""

from __future__ import annotations

import textwrap

import numpy as np

from scaling.allocation.surface import LossSurface, bisect, check_positive
from scaling.errors import UserError
from scaling.fit import Fit
from scaling.laws.effective_data import effective_params, effective_tokens, optimal_params_for, worth_of_a_repeat
from scaling.laws.law import FloatArray
from scaling.published import published_table
from scaling.quantity import format_count, format_interval
from scaling.record import Interval, Record

__all__ = ["LimitedOptimum", "RepetitionConstants", "limited_data_optimum", "repetition_constants"]

CAVEAT = (
    "R_D* and R_N* are of C4 and models up to 9B parameters, and weakly identified there: two pairs that describe the "
    "same runs equally well differ sixfold in R_D*. The interval is that of the fitted law alone. Up to four epochs "
    "both say that a repeat is worth over 0.8 of a fresh token; beyond, take the two answers as the range"
)


class RepetitionConstants(Record):
    """R_D* and R_N*: how many repetitions of the data, and of the fitting size, until a further one is worth 1/e."""

    key: str
    name: str
    r_d: float
    r_n: float
    citation: str


class LimitedOptimum(Record):
    """The best run of ``flops`` on ``unique_tokens``; intervals from the law's draws at ``level``."""

    flops: float
    unique_tokens: float
    level: float
    params: Interval
    tokens: Interval
    """Seen in training, repeats included."""
    epochs: Interval
    loss: Interval
    loss_excess: Interval
    """Nats above the optimum with unlimited text."""
    last_token_worth: Interval
    """What the last token seen is worth, in fresh ones."""
    repeated_worth: Interval
    """What the repeated tokens are worth on average, in fresh ones; 1 where nothing is repeated."""
    floor: Interval
    """The loss that no compute goes below with these tokens."""
    unlimited_params: Interval
    unlimited_tokens: Interval
    constants: RepetitionConstants
    caveat: str | None

    def summary(self) -> str:
        """What to train, how often the text is seen, and what its repeats are worth."""
        have = f"With {format_count(self.unique_tokens)} unique tokens"
        if self.caveat is None:
            return f"{have} nothing need be repeated: the compute optimum sees {format_interval(self.tokens)}."
        said = (
            f"{have} ({self.constants.name}: R_D* {self.constants.r_d:.3g}, R_N* {self.constants.r_n:.3g}): "
            f"{format_interval(self.params)} parameters for {format_interval(self.epochs)} epochs, "
            f"{format_interval(self.tokens)} tokens. The last token is worth {self.last_token_worth.estimate:.2f} "
            f"fresh ones, the repeats on average {self.repeated_worth.estimate:.2f}. Loss {self.loss.estimate:.3f}, "
            f"{self.loss_excess.estimate:.3f} nats above unlimited text "
            f"({format_count(self.unlimited_params.estimate)} on {format_count(self.unlimited_tokens.estimate)}); "
            f"no compute goes below {self.floor.estimate:.3f}."
        )
        return textwrap.fill(said, 100, subsequent_indent="  ")


def repetition_constants(key: str = "muennighoff") -> RepetitionConstants:
    """The published R_D* and R_N* called ``key``: muennighoff or datablations-minimum."""
    known = {row["key"]: RepetitionConstants(**row) for row in published_table()["data_constrained"]}
    if key not in known:
        raise UserError(f"repetition constants {key!r} are not known; choose one of: {', '.join(known)}")
    return known[key]


def limited_data_optimum(
    fit: Fit | LossSurface, flops: float, unique_tokens: float, constants: RepetitionConstants | None = None
) -> LimitedOptimum:
    """N, D and epochs for ``flops`` where only ``unique_tokens`` distinct tokens exist.

    The law's constants are the fit's; what repeats are worth comes from ``constants``, published ones by default, for a
    fit of single-epoch runs knows nothing of it. Raises :class:`UserError` where the fit has no law to use.
    """
    surface = fit if isinstance(fit, LossSurface) else LossSurface.of(fit)
    check_positive("flops", flops, "1e21")
    check_positive("unique_tokens", unique_tokens, "1e11")
    worth = constants or repetition_constants()
    free_params, free_tokens = surface.optimum(flops)
    called_for = optimal_params_for(surface.theta_KP, unique_tokens)
    product = flops / surface.flops_per_param_token

    def imbalance(ln_params: FloatArray) -> FloatArray:
        """Marginal worth of data less that of size, each per unit of its logarithm, as a difference of logs."""
        params, tokens = np.exp(ln_params), product * np.exp(-ln_params)
        return _marginal_data(surface, tokens, unique_tokens, worth.r_d) - _marginal_size(
            surface, params, called_for, worth.r_n
        )

    repeats = free_tokens > unique_tokens
    low, high = np.log(called_for), np.full(len(called_for), np.log(product / unique_tokens))
    ln_params = np.where(repeats, bisect(imbalance, low, np.maximum(low, high)), np.log(free_params))
    params, tokens = np.exp(ln_params), product * np.exp(-ln_params)
    effective = effective_tokens(tokens, unique_tokens, worth.r_d)
    loss = surface.loss(effective_params(params, called_for, worth.r_n), effective)
    extra = np.maximum(tokens - unique_tokens, 0.0)
    repeated = np.where(repeats, (effective - unique_tokens) / np.where(repeats, extra, 1.0), 1.0)
    floor = surface.loss(called_for * (1 + worth.r_n), unique_tokens * (1 + worth.r_d))
    return LimitedOptimum(
        flops=flops,
        unique_tokens=unique_tokens,
        level=surface.level,
        params=surface.interval(params),
        tokens=surface.interval(tokens),
        epochs=surface.interval(tokens / unique_tokens),
        loss=surface.interval(loss),
        loss_excess=surface.interval(loss - surface.loss(free_params, free_tokens)),
        last_token_worth=surface.interval(worth_of_a_repeat(tokens, unique_tokens, worth.r_d)),
        repeated_worth=surface.interval(repeated),
        floor=surface.interval(floor),
        unlimited_params=surface.interval(free_params),
        unlimited_tokens=surface.interval(free_tokens),
        constants=worth,
        caveat=CAVEAT if bool(repeats[0]) else None,
    )


def _marginal_data(surface: LossSurface, tokens: FloatArray, unique: float, r_d: float) -> FloatArray:
    """ln of −∂L/∂ln D."""
    _, _, _, _, beta = surface.constants
    effective = effective_tokens(tokens, unique, r_d)
    ln_worth = -np.maximum(tokens / unique - 1.0, 0.0) / r_d
    return np.asarray(np.log(beta * surface.data_term(effective)) + ln_worth + np.log(tokens / effective))


def _marginal_size(surface: LossSurface, params: FloatArray, called_for: FloatArray, r_n: float) -> FloatArray:
    """ln of −∂L/∂ln N."""
    _, _, _, alpha, _ = surface.constants
    effective = effective_params(params, called_for, r_n)
    ln_worth = -np.maximum(params / called_for - 1.0, 0.0) / r_n
    return np.asarray(np.log(alpha * surface.size_term(effective)) + ln_worth + np.log(params / effective))
