"""How a law carries over to another tokenizer, context or corpus: in bits per byte, or not at all.

A loss in nats a token is of one tokenizer on one text. Over b bytes a token the same model codes L/(b·ln 2) bits a
byte, and D tokens are b·D bytes. Taking bits a byte at equal N and equal bytes not to depend on the tokenizer, a law
measured at b bytes a token becomes at b'

    L'(N, D) = s·L(N, s·D),  s = b'/b:   E' = s·E, A' = s·A, B' = s^(1−β)·B

Another corpus has another entropy and another course of learning, another context another amount to condition on: no
factor turns one into the other. They are refused, unless runs of the new setting show that the law holds there too.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field
from scipy.special import stdtrit

from scaling.allocation.surface import LossSurface, check_positive
from scaling.errors import UserError
from scaling.fit import Fit
from scaling.quantity import format_count
from scaling.record import Interval, Record

__all__ = ["CarriedLaw", "Setting", "bits_per_byte", "carry_over", "nats_per_token"]

_FEWEST_RUNS = 3
_WIDEST = 0.01
"""Runs that leave the mean error of the law uncertain by more than this (of loss, to each side) decide nothing."""


def bits_per_byte(loss: float, bytes_per_token: float) -> float:
    """A loss in nats a token as bits a byte of text; ``bytes_per_token`` of the text it was measured on."""
    return loss / (bytes_per_token * math.log(2))


def nats_per_token(bits: float, bytes_per_token: float) -> float:
    """Bits a byte as nats a token."""
    return bits * bytes_per_token * math.log(2)


class Setting(Record):
    """What a loss is of, besides the model."""

    corpus: str = Field(description="name or hash of the text: equal means the same distribution")
    context: int = Field(ge=1, description="tokens a sequence")
    tokenizer: str
    bytes_per_token: float = Field(gt=0, description="of the tokenizer on the corpus's held-out text")


@dataclass(frozen=True)
class CarriedLaw:
    """A law in the new setting's units: nats a token and tokens of its tokenizer. ``scaling.allocation`` takes the
    ``surface`` wherever it takes a fit."""

    surface: LossSurface
    wanted: Setting
    assumptions: tuple[str, ...]

    def loss(self, params: float, tokens: float) -> Interval:
        """Nats a token of the new tokenizer, N and D of the run; the interval is the law's, without runs' scatter."""
        return self.surface.interval(self.surface.loss(params, tokens))

    def bits_per_byte(self, params: float, tokens: float) -> Interval:
        """The same in bits a byte, which compares across tokenizers."""
        return self.surface.interval(self.surface.loss(params, tokens) / (self.wanted.bytes_per_token * math.log(2)))

    def summary(self) -> str:
        """What the law is now in, and what that rests on."""
        lines = [f"carried over to {self.wanted.tokenizer}, {self.wanted.bytes_per_token:.3g} bytes a token:"]
        lines += [textwrap.fill(f"- {said}", 100, subsequent_indent="  ") for said in self.assumptions]
        return "\n".join(lines)


def carry_over(
    fit: Fit | LossSurface,
    measured: Setting,
    wanted: Setting,
    runs: Sequence[tuple[float, float, float]] = (),
) -> CarriedLaw:
    """The law of ``fit``, whose runs were of ``measured``, in the units of ``wanted``.

    ``runs`` are (params, tokens, loss) measured in the wanted setting, loss in nats of its tokens. With three or more
    they decide: the law is carried over if their mean error is within its interval of nothing, and known to 1%.

    Raises :class:`UserError` where the law can't be carried over, with the reason and what would cure it, or the fit
    has no law to use.
    """
    surface = fit if isinstance(fit, LossSurface) else LossSurface.of(fit)
    scale = wanted.bytes_per_token / measured.bytes_per_token
    theta_KP = surface.theta_KP.copy()
    theta_KP[:, 0] *= scale
    theta_KP[:, 1] *= scale ** (1 - theta_KP[:, 4])
    theta_KP[:, 2] *= scale
    carried = LossSurface(theta_KP, surface.level, surface.flops_per_param_token)
    assumptions = []
    if wanted.tokenizer != measured.tokenizer or wanted.bytes_per_token != measured.bytes_per_token:
        assumptions.append(
            f"bits a byte at equal N and equal bytes do not depend on the tokenizer: a token of {wanted.tokenizer} is "
            f"{scale:.3g} tokens of {measured.tokenizer}. N counts as in the fitted runs; a larger vocabulary takes "
            "its embedding out of the same N"
        )
    foreign = _foreign(measured, wanted)
    if len(runs) >= _FEWEST_RUNS:
        assumptions.append(_tested(carried, runs, foreign))
    elif foreign is not None:
        raise UserError(
            f"{foreign}: train {_FEWEST_RUNS} or more runs there, over a factor of ten in compute, and give them as "
            "runs, or fit them by themselves"
        )
    return CarriedLaw(carried, wanted, tuple(assumptions))


def _foreign(measured: Setting, wanted: Setting) -> str | None:
    """Why no factor leads from one setting to the other."""
    if wanted.corpus != measured.corpus:
        return (
            f"a law of {measured.corpus} says nothing of {wanted.corpus}: another text has another entropy (E) and is "
            "learned at another pace (A, B and the exponents)"
        )
    if wanted.context != measured.context:
        old, new = format_count(measured.context), format_count(wanted.context)
        return (
            f"a law at a context of {old} tokens says nothing of {new}: each token is then predicted from another "
            "amount of text"
        )
    return None


def _tested(carried: LossSurface, runs: Sequence[tuple[float, float, float]], foreign: str | None) -> str:
    """What the runs of the new setting say of the carried law; :class:`UserError` where they contradict it."""
    for params, tokens, loss in runs:
        for name, value in (("params", params), ("tokens", tokens), ("loss", loss)):
            check_positive(f"runs: {name}", value, "2.5" if name == "loss" else "1e8")
    errors = np.array(
        [math.log(float(carried.loss(params, tokens)[0]) / loss) for params, tokens, loss in runs], dtype=np.float64
    )
    mean, count = float(errors.mean()), len(errors)
    half = float(stdtrit(count - 1, (1 + carried.level) / 2)) * float(errors.std(ddof=1)) / math.sqrt(count)
    found = f"{count} runs of the new setting: predicted/measured - 1 is {mean:+.2%} ± {half:.2%} on average"
    if half > _WIDEST:
        remedy = f"that is too uncertain to decide: give more runs, until it is known to {_WIDEST:.0%}"
    elif abs(mean) > half:
        remedy = "the law does not hold there: fit these runs by themselves"
    else:
        return f"{found}, as if the law held there"
    raise UserError(f"{foreign + '; ' if foreign else ''}{found}, and {remedy}")
