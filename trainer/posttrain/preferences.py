"""Pairs for preference learning out of a policy's own samples, ranked by a score: a task's rule, or a reward model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from pydantic import Field

from scaling.record import Record
from trainer.generate.sampling import Sampling
from trainer.posttrain.chat_template import Chat
from trainer.posttrain.examples import Example, Pair
from trainer.posttrain.reward import Reward

__all__ = ["SampledPairs", "columns_of", "sample_pairs"]


class SampledPairs(Record):
    """Two answers to each of ``prompts`` prompts.

    ``noise`` is the choice's temperature: of two answers the first is chosen with probability σ((s₁ − s₂)/noise)
    (Bradley and Terry), as people choose who do not always agree; at 0 the better one is always chosen.
    """

    prompts: int = Field(default=2000, ge=1)
    noise: float = Field(default=0.0, ge=0)
    temperature: float = Field(default=1.0, gt=0)


def sample_pairs(
    policy: Any,
    chat: Chat,
    examples: Sequence[Example],
    score: Reward,
    settings: SampledPairs,
    *,
    max_new_tokens: int,
    seed: int,
    progress: Callable[[float], None] = lambda share: None,
) -> list[Pair]:
    """At most ``settings.prompts`` pairs; those of two equal texts, or of equal score without noise, are left out."""
    import torch

    from trainer.posttrain.sampling import sample, stop_tokens

    order = np.random.default_rng([seed, 1]).permutation(len(examples))[: settings.prompts]
    chosen_rows = [examples[i] for i in order]
    prompts = [chat.prompt(row.prompt) for row in chosen_rows]
    ids = [chat.ids(prompt) for prompt in prompts]
    generator = torch.Generator().manual_seed(seed)
    policy.eval()
    texts = []
    for side in range(2):
        answers = sample(
            policy,
            ids,
            Sampling(temperature=settings.temperature),
            max_new_tokens=max_new_tokens,
            stop=stop_tokens(policy, chat.tokenizer),
            generator=generator,
            progress=partial(_of_two, progress, side),
        )
        texts.append([chat.text(each) for each in answers.completions()])
    columns = columns_of(chosen_rows)
    first, second = (score(prompts=prompts, completions=each, **columns) for each in texts)
    draws = np.random.default_rng([seed, 2]).random(len(prompts))
    pairs = []
    for i, row in enumerate(chosen_rows):
        better = _chance(first[i] - second[i], settings.noise)
        if texts[0][i] == texts[1][i] or better is None:
            continue
        one, other = (texts[0][i], texts[1][i]) if draws[i] < better else (texts[1][i], texts[0][i])
        pairs.append(Pair(prompt=row.prompt, chosen=one, rejected=other, columns=row.columns))
    return pairs


def columns_of(rows: Sequence[Example | Pair]) -> dict[str, list[str]]:
    """The rows' columns as a reward takes them."""
    return {name: [row.columns[name] for row in rows] for name in (rows[0].columns if rows else ())}


def _chance(difference: float, noise: float) -> float | None:
    """That the first is chosen; None if nothing tells the two apart."""
    if noise == 0:
        return None if difference == 0 else float(difference > 0)
    # By tanh, which does not overflow.
    return 0.5 * (1 + math.tanh(difference / noise / 2))


def _of_two(progress: Callable[[float], None], done: int, share: float) -> None:
    progress((done + share) / 2)
