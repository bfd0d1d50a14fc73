"""Warm-up, stable, decay: the learning rate as a share of its peak (Hu et al. 2404.06395; Hägele et al. 2405.18392)."""

from __future__ import annotations

import math

from scaling.run_spec import RunSpec, ScheduleSpec

__all__ = ["learning_rate", "schedule_factor"]


def schedule_factor(schedule: ScheduleSpec, tokens: float, total_tokens: int) -> float:
    """Share of the peak rate, 0 to 1, after ``tokens`` of ``total_tokens``.

    Rises linearly over ``warmup_tokens``, stays at 1, and falls to 0 at ``total_tokens`` over the last
    ``cooldown_tokens``: linearly, or as 1 - sqrt(share of the cooldown that has passed), equation 1 of Hägele et al.
    """
    if schedule.warmup_tokens and tokens < schedule.warmup_tokens:
        return tokens / schedule.warmup_tokens
    cooled = tokens - (total_tokens - schedule.cooldown_tokens)
    if cooled <= 0 or not schedule.cooldown_tokens:
        return 1.0
    share = min(1.0, cooled / schedule.cooldown_tokens)
    return 1.0 - (math.sqrt(share) if schedule.cooldown_shape == "1-sqrt" else share)


def learning_rate(spec: RunSpec, step: int) -> float:
    """The rate of step ``step`` (from 0), taken at the middle of its batch so that no step is spent at rate 0."""
    middle = (step + 0.5) * spec.global_batch_tokens
    return spec.optimizer.learning_rate * schedule_factor(spec.schedule, middle, spec.tokens)
