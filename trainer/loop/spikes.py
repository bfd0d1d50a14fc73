"""Steps whose loss or gradient norm stands out: OLMo-core's rule (its ``SkipStepOptimizer``, 2501.00656 section 3.2).

A step is a spike if either of the two lies more than ``sigma`` standard deviations above the mean of the ``window``
steps before it, once half a window has been seen. Everything stays on the device: nobody waits for the answer unless
the policy is to rewind.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from scaling.run_spec import SpikePolicy

__all__ = ["SpikeWatch"]


class SpikeWatch:
    """The last losses and gradient norms of one run, and the verdict on the next."""

    def __init__(self, policy: SpikePolicy, device: str) -> None:
        self.policy = policy
        self._seen_W2 = torch.zeros(policy.window, 2, device=device)
        self._count = 0

    def look(self, loss: Tensor, norm: Tensor) -> Tensor:
        """Whether this step is a spike (a boolean scalar on the device); it then belongs to what later ones are held
        against, so that a lasting change of level is not a spike for ever.

        Values that aren't finite count as those of the step before: they are divergence, or fp16's overflow, and would
        blind the watch.
        """
        filled, at = min(self._count, self.policy.window), self._count % self.policy.window
        values_2 = torch.stack([loss.detach(), norm])
        values_2 = torch.where(torch.isfinite(values_2), values_2, self._seen_W2[at - 1])
        if filled < self.policy.window // 2:
            spike = torch.zeros((), dtype=torch.bool, device=values_2.device)
        else:
            deviation_2, mean_2 = torch.std_mean(self._seen_W2[:filled], dim=0)
            spike = (values_2 - mean_2 > self.policy.sigma * deviation_2).any()
        self._seen_W2[at] = values_2
        self._count += 1
        return spike

    def dump(self) -> dict[str, Any]:
        return {"seen": self._seen_W2.clone(), "count": self._count}

    def restore(self, saved: dict[str, Any]) -> None:
        self._seen_W2.copy_(saved["seen"])
        self._count = saved["count"]
