"""The learning rate as a share of its peak: warm-up, stable, decay (Hu et al. 2404.06395; Hägele et al. 2405.18392), or
a cosine (Loshchilov & Hutter 1608.03983)."""

from __future__ import annotations

import math

from scaling.run_spec import RunSpec, ScheduleSpec

__all__ = ["learning_rate", "schedule_factor"]


def schedule_factor(schedule: ScheduleSpec, tokens: float, total_tokens: int) -> float:
    """Share of the peak rate, 0 to 1, after ``tokens`` of ``total_tokens``.

    Rises linearly over ``warmup_tokens`` to 1 and falls to ``floor`` at ``total_tokens``: along half a cosine, or over
    the last ``cooldown_tokens``, linearly or as 1 - sqrt(share of the cooldown that has passed), equation 1 of Hägele
    et al.
    """
    if schedule.warmup_tokens and tokens < schedule.warmup_tokens:
        return tokens / schedule.warmup_tokens
    falling = total_tokens - schedule.warmup_tokens if schedule.kind == "cosine" else schedule.cooldown_tokens
    fallen = tokens - (total_tokens - falling)
    if fallen <= 0 or not falling:
        return 1.0
    share = min(1.0, fallen / falling)
    if schedule.kind == "cosine":
        left = (1.0 + math.cos(math.pi * share)) / 2
    else:
        left = 1.0 - (math.sqrt(share) if schedule.cooldown_shape == "1-sqrt" else share)
    return schedule.floor + (1.0 - schedule.floor) * left


def learning_rate(spec: RunSpec, step: int) -> float:
    """The rate of step ``step`` (from 0), taken at the middle of its batch so that no step is spent at rate 0."""
    middle = (step + 0.5) * spec.global_batch_tokens
    return spec.optimizer.learning_rate * schedule_factor(spec.schedule, middle, spec.tokens)
