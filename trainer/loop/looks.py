"""When a run is looked at: the steps after which it reports its training loss, and those at which it is evaluated.

A step is ever the same number of tokens, so what is evenly spaced in steps or their log is so in tokens.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

__all__ = ["evaluation_steps", "report_steps"]


def report_steps(steps: int, also: Collection[int] = ()) -> tuple[int, ...]:
    """About 160 steps to report the training loss at, the last among them: half evenly spaced, half by their log.

    ``also``: further ones, at which a branch leaves its trunk; nothing is then unread that both would report.
    """
    spaced = np.concatenate([np.linspace(steps / 100, steps, 100), np.geomspace(1, steps, 80)])
    within = {step for step in also if 0 < step < steps}
    return tuple(sorted({*np.ceil(spaced).astype(int).clip(1, steps).tolist(), *within, steps}))


def evaluation_steps(steps: int, count: int) -> tuple[int, ...]:
    """At most ``count`` steps evenly spaced by their log from a hundredth of the run on, without the last."""
    spaced = np.geomspace(max(1.0, steps / 100), steps, count + 1)[:-1].round().astype(int)
    return tuple(sorted({step for step in spaced.tolist() if step < steps}))
