"""Tokens one after another, from a model that reads each once; past its context it goes on from the last half of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from trainer.generate.sampling import Sampling
from trainer.models.model import LanguageModel

__all__ = ["generate"]


def generate(
    model: LanguageModel,
    prompt: Sequence[int],
    sampling: Sampling,
    *,
    seed: int,
    most: int,
    stop: int | None = None,
    note: Callable[[str], None],
) -> Iterator[int]:
    """At most ``most`` tokens that follow ``prompt`` (one token or more), ending before the token ``stop``.

    A prompt longer than the context counts by its last half context alone, and so do the tokens so far whenever the
    context is full: ``note`` is told once.
    """
    context, device = model.shape.context, model.embed_tokens.weight.device
    generator = torch.Generator().manual_seed(seed)
    tokens = list(prompt)
    told = False
    state, unread = model.start_state(1), tokens
    read = 0
    for _ in range(most):
        if read + len(unread) > context:
            unread = tokens[-max(1, context // 2) :]
            state, read = model.start_state(1), 0
            if not told:
                told = True
                note(f"longer than the model's context of {context} tokens: it goes on from the last {len(unread)}")
        logits_BV, state = model.decode(torch.tensor([unread], device=device), state)
        read += len(unread)
        token = sampling.draw(logits_BV[0], generator)
        if token == stop:
            return
        yield token
        tokens.append(token)
        unread = [token]
