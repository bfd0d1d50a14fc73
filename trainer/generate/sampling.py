"""The distribution that the next token is drawn from.

Logits are divided by the temperature; of the tokens, the most probable first, ``top_k`` stay; of these, those before
which less than ``top_p`` has been made up (nucleus sampling, Holtzman et al. 1904.09751); what stays is normalised. Of
equally probable tokens the lower id comes first.

Shapes: V vocabulary, "..." any number of rows before it.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from scaling.record import Record

__all__ = ["Sampling"]


class Sampling(Record):
    """Greedy where the temperature is 0."""

    temperature: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    top_k: int | None = Field(default=None, ge=1)
    top_p: float | None = Field(default=None, gt=0, le=1)

    def probabilities(self, logits_V: Tensor) -> Tensor:
        """Of each token, in float64: (..., V) as the logits."""
        logits_V = logits_V.double()
        if self.temperature == 0:
            return torch.zeros_like(logits_V).scatter_(-1, logits_V.argmax(-1, keepdim=True), 1.0)
        # The largest is taken off first, or a tiny temperature would make it infinite.
        scaled_V = (logits_V - logits_V.amax(-1, keepdim=True)) / self.temperature
        p_V = torch.softmax(scaled_V, dim=-1)
        if self.top_k is None and self.top_p is None:
            return p_V
        p_V, order_V = p_V.sort(descending=True, stable=True)
        if self.top_k is not None:
            p_V[..., self.top_k :] = 0
            p_V /= p_V.sum(-1, keepdim=True)
        if self.top_p is not None:
            p_V[p_V.cumsum(-1) - p_V >= self.top_p] = 0
        return torch.zeros_like(p_V).scatter_(-1, order_V, p_V / p_V.sum(-1, keepdim=True))

    def draw(self, logits_V: Tensor, generator: torch.Generator) -> int:
        """One token; equal generators draw equal ones."""
        return int(torch.multinomial(self.probabilities(logits_V.cpu()), 1, generator=generator))
