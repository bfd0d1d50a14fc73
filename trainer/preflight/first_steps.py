"""Do the run's first steps give finite numbers, and does its loss begin where chance would?"""

from __future__ import annotations

import math

from scaling.run_spec import RunSpec
from trainer.preflight.check import Check
from trainer.preflight.trial import Steps

__all__ = ["check_first_steps"]

MOST_ABOVE_CHANCE = 1.5
"""Of a uniform guess: initial weights give 1.0 to 1.1 of it."""


def check_first_steps(spec: RunSpec, steps: Steps) -> Check:
    chance = math.log(spec.shape.vocabulary)
    figures: dict[str, float | int | str | None] = {"steps": len(steps.losses), "chance_nats": chance}
    if steps.bad_step is not None:
        return Check(
            name="first steps",
            status="fail",
            said=f"loss or gradient of step {steps.bad_step} is no finite number",
            remedy=f"lower the learning rate ({spec.optimizer.learning_rate:g}), warm up for longer "
            f"({spec.schedule.warmup_tokens:,} tokens), or take --precision fp32",
            figures=figures | {"bad_step": steps.bad_step},
        )
    first, last = steps.losses[0], steps.losses[-1]
    figures |= {"first_loss_nats": first, "last_loss_nats": last, "largest_gradient_norm": max(steps.norms)}
    said = f"{len(steps.losses)} steps, loss {first:.3f} to {last:.3f} nats (chance {chance:.3f}), all finite"
    if max(steps.losses) > MOST_ABOVE_CHANCE * chance:
        return Check(
            name="first steps",
            status="warn",
            said=f"{said}; it rose to {max(steps.losses):.3f}, far above chance",
            remedy=f"lower the learning rate ({spec.optimizer.learning_rate:g}) or warm up for longer",
            figures=figures,
        )
    return Check(name="first steps", status="ok", said=said, figures=figures)
