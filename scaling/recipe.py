"""The large run's hyperparameters: peak learning rate, batch, warm-up and cooldown, and what each of them rests on."""

from __future__ import annotations

from scaling.batch_rule import BatchRule, whole_sequences
from scaling.hyperparameters import LearningRateLaw, published_rates
from scaling.laws.olmo_ladder import OLMO_LADDER
from scaling.laws.power_lines import BATCH_EXPONENT
from scaling.laws.step_law import STEP_LAW_BATCH
from scaling.quantity import format_count
from scaling.record import Interval, Record
from scaling.shape import ParameterCounts

__all__ = ["Recipe", "recipe_from_literature", "recipe_from_study"]

COOLDOWN_SHARE = 0.2
"""Decay over the last fifth, by which a stable schedule reaches a full one's loss (Hägele et al. 2405.18392)."""
WARMUP_SHARE = 0.1
MOST_WARMUP_STEPS = 2000
"""Chinchilla's and Llama's habit (2302.13971, section 2.2); a tenth of the run where that is shorter."""
PUBLISHED_SPREAD = 1.5
"""Factor around a published law inside its range. On Step Law's own grid a rate 1.4 times too low costs 0.14% of loss
on average and one 1.4 times too high 0.36%, measured."""
UNPROBED_SPREAD = 3.0


class Recipe(Record):
    """``steps`` of ``global_batch_tokens``, warm-up and cooldown among them."""

    learning_rate: Interval
    global_batch_tokens: int
    steps: int
    warmup_steps: int
    cooldown_steps: int
    basis: str

    @property
    def tokens(self) -> int:
        return self.steps * self.global_batch_tokens


def recipe_from_study(
    law: LearningRateLaw, batch: BatchRule, counts: ParameterCounts, tokens: float, context: int
) -> Recipe:
    """The study's own law of learning rates at this size, and its batch at ``tokens``: by the rule of its sweep, or
    carried there by Power Lines where its runs had one batch for all.

    ``context`` is tokens a sequence. Published laws that hold at this size and length are named beside.
    """
    beside = "".join(f"; {known.name} says {known.rate:.2g}" for known in published_rates(counts.nonembedding, tokens))
    tuned = law.tuned.predict(counts.total, tokens).get("global_batch_tokens") if law.tuned else None
    if tuned is not None:
        wanted = tuned.estimate
        grown = f"by the same trials, {format_count(tuned.low or 0)} to {format_count(tuned.high or 0)} tokens"
    else:
        exponent = batch.exponent or BATCH_EXPONENT
        wanted = batch.model_copy(update={"exponent": exponent}).at(tokens)
        source = " (Power Lines 2505.13738)" if exponent == BATCH_EXPONENT else ""
        grown = f"{format_count(batch.batch_tokens)} tokens at {format_count(batch.at_tokens)}, grown by D^{exponent}"
        grown += source + (", as in the sweep" if batch.exponent else "")
    basis = (
        f"learning rate: {law.basis}, carried from {format_count(law.params_at)} to {format_count(counts.total)} "
        f"parameters{beside}; batch: {grown}"
    )
    return _recipe(law.rate_interval(counts.total, tokens), wanted, tokens, context, basis)


def recipe_from_literature(counts: ParameterCounts, tokens: float, context: int) -> Recipe:
    """Published laws inside the range they were fitted on; where none holds, the OLMo ladder's slope, marked so."""
    held = published_rates(counts.nonembedding, tokens)
    if held:
        first, *others = held
        rates = [law.rate for law in held]
        rate = Interval(
            estimate=first.rate,
            low=min(min(rates), first.rate / PUBLISHED_SPREAD),
            high=max(max(rates), first.rate * PUBLISHED_SPREAD),
        )
        beside = "".join(f"; {law.name} says {law.rate:.2g}" for law in others)
        rests = f"{first.citation}, inside its fitted range, give or take a factor of {PUBLISHED_SPREAD:g}{beside}"
    else:
        guess = OLMO_LADDER.extended(counts.nonembedding, tokens)
        rate = Interval(estimate=guess, low=guess / UNPROBED_SPREAD, high=guess * UNPROBED_SPREAD)
        rests = (
            "no published law was fitted here and no run was probed. This carries the OLMo ladder's N^(-1/3) "
            f"(2412.04403) beyond its 190M to 1.3B, give or take a factor of {UNPROBED_SPREAD:g}: probe two sizes "
            "before spending"
        )
    basis = f"learning rate: {rests}; batch: Step Law's 0.58 D^0.571 (2503.04715, fitted on 2B to 100B tokens)"
    return _recipe(rate, STEP_LAW_BATCH.extended(counts.nonembedding, tokens), tokens, context, basis)


def _recipe(rate: Interval, wanted_batch: float, tokens: float, context: int, basis: str) -> Recipe:
    batch = whole_sequences(min(wanted_batch, tokens), context, even=True)
    steps = max(1, int(tokens / batch))
    warmup = min(int(WARMUP_SHARE * steps), MOST_WARMUP_STEPS)
    return Recipe(
        learning_rate=rate,
        global_batch_tokens=batch,
        steps=steps,
        warmup_steps=warmup,
        cooldown_steps=int(COOLDOWN_SHARE * steps),
        basis=f"{basis}; warm-up: the shorter of {WARMUP_SHARE:.0%} and {MOST_WARMUP_STEPS} steps; cooldown: the last "
        f"{COOLDOWN_SHARE:.0%} (2405.18392)",
    )
