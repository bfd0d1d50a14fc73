"""Answers of a transformers causal model to many prompts at once, with a key-value cache.

Each row has random numbers of its own, drawn beforehand and turned into tokens by the inverse of the cumulated
distribution: an answer does not depend on what else is in the batch, nor on how a call is cut into batches. Rows that
have ended leave the batch (docs/decisions.md says what that and ``model.generate`` cost).

Shapes: B rows, P columns of prompts, T at most ``max_new_tokens``, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scaling.errors import UserError
from trainer.generate.sampling import Sampling
from trainer.posttrain.answer_batch import left_padded
from trainer.posttrain.log_probs import token_log_probs

__all__ = ["SampledAnswers", "check_context", "sample", "stop_tokens"]

_KEPT_SHARE = 0.9
"""Rows leave the batch when fewer than this share of it goes on: to drop one copies the cache of the others."""
_LARGEST_UNIFORM = 1 - 2.0**-40
"""So that its product with the cumulated distribution's end never rounds up to that end."""


@dataclass(frozen=True)
class SampledAnswers:
    """Padded on the right with token 0, log-probability 0."""

    tokens_BT: Tensor
    """With the stop token, where one came."""
    mask_BT: Tensor
    """True where a token is real."""
    log_probs_BT: Tensor
    """Nats, of the model itself: at temperature 1, all tokens allowed. What importance ratios and KL are made of."""
    sampling_log_probs_BT: Tensor
    """Nats, of the distribution that was drawn from; the same where that is the model's own."""
    truncated_B: Tensor
    """True where no stop token had come by ``max_new_tokens``."""

    @property
    def lengths_B(self) -> Tensor:
        """Tokens, the stop token included."""
        return self.mask_BT.sum(1)

    def completions(self) -> list[list[int]]:
        """Token ids of each answer, the stop token included."""
        return [row[:length].tolist() for row, length in zip(self.tokens_BT, self.lengths_B.tolist(), strict=True)]


def stop_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """What ends an answer: ``eos_token_id`` of the folder's generation_config.json, else of its tokenizer."""
    found = getattr(model.generation_config, "eos_token_id", None)
    if found is None:
        found = tokenizer.eos_token_id
    if found is None:
        raise UserError("the model has no eos_token_id: name one in its generation_config.json")
    return frozenset([found] if isinstance(found, int) else found)


def check_context(model: Any, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
    """Raise :class:`UserError` if a prompt has no token, or leaves no room for an answer."""
    longest, shortest = max(map(len, prompts)), min(map(len, prompts))
    if shortest == 0:
        raise UserError("a prompt has no token: give each at least one, such as the beginning-of-text token")
    context = getattr(model.config, "max_position_embeddings", None)
    if context is not None and longest + max_new_tokens > context:
        raise UserError(
            f"max_new_tokens {max_new_tokens} and a prompt of {longest} tokens do not fit into the model's context of "
            f"{context}: leave out prompts longer than {context - max_new_tokens} tokens, or allow shorter answers"
        )


@torch.no_grad()
def sample(
    model: Any,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    max_new_tokens: int,
    stop: Collection[int],
    generator: torch.Generator,
    rows_at_once: int = 256,
    progress: Callable[[float], None] = lambda share: None,
) -> SampledAnswers:
    """One answer to each of ``prompts`` (token ids). ``progress`` is told the share of them that have theirs.

    generator: on the CPU; equal ones give equal answers. The model is used in the mode it is in: put it into ``eval``,
    or dropout draws too.
    """
    check_context(model, prompts, max_new_tokens)
    # Row by row in one call, so that a row's numbers do not depend on how many rows follow it.
    uniforms_BT = torch.rand(len(prompts), max_new_tokens, generator=generator, dtype=torch.float64)
    # Prompts of like length together, for little padding.
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    found = _Rows(len(prompts), max_new_tokens)
    for start in range(0, len(order), rows_at_once):
        rows = order[start : start + rows_at_once]
        _decode(model, [prompts[row] for row in rows], torch.tensor(rows), uniforms_BT, sampling, stop, found)
        progress((start + len(rows)) / len(order))
    longest = int(found.lengths_B.max())
    return SampledAnswers(
        tokens_BT=found.tokens_BT[:, :longest],
        mask_BT=torch.arange(longest) < found.lengths_B.unsqueeze(1),
        log_probs_BT=found.log_probs_BT[:, :longest],
        sampling_log_probs_BT=found.sampling_log_probs_BT[:, :longest],
        truncated_B=~found.ended_B,
    )


class _Rows:
    """What has been found so far, on the CPU."""

    def __init__(self, rows: int, columns: int) -> None:
        self.tokens_BT = torch.zeros(rows, columns, dtype=torch.long)
        self.log_probs_BT = torch.zeros(rows, columns)
        self.sampling_log_probs_BT = torch.zeros(rows, columns)
        self.lengths_B = torch.zeros(rows, dtype=torch.long)
        self.ended_B = torch.zeros(rows, dtype=torch.bool)


def _decode(
    model: Any,
    prompts: Sequence[Sequence[int]],
    rows_B: Tensor,
    uniforms_BT: Tensor,
    sampling: Sampling,
    stop: Collection[int],
    found: _Rows,
) -> None:
    """Fill in ``rows_B`` of ``found``; here B are the rows of the batch, of which those that have ended leave."""
    from transformers import DynamicCache

    device = next(model.parameters()).device
    tokens_BP, mask_BP = left_padded(prompts, pad_id=0)
    inputs_BP, mask_BP = tokens_BP.to(device), mask_BP.to(device)
    padded = not bool(mask_BP[:, 0].all())
    positions_BP = (mask_BP.cumsum(1) - 1).clamp_(min=0)
    mask_BP = mask_BP.long()
    stop_E = torch.tensor(sorted(stop))
    cache = DynamicCache(config=model.config)
    if not all(hasattr(layer, "batch_select_indices") for layer in cache.layers):
        raise UserError(
            f"answers are sampled with a key-value cache, and {model.config.model_type} has none: "
            "use a model of attention alone"
        )
    going_B = torch.ones(len(rows_B), dtype=torch.bool)
    plain = sampling == Sampling()
    for column in range(uniforms_BT.shape[1]):
        output = model(
            input_ids=inputs_BP,
            attention_mask=mask_BP if padded else None,
            position_ids=positions_BP,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits_BV = output.logits[:, -1].float()
        p_BV = sampling.probabilities(logits_BV)
        cumulated_BV = p_BV.cumsum(-1)
        uniform_B1 = uniforms_BT[rows_B, column].clamp_(max=_LARGEST_UNIFORM).unsqueeze(1).to(device)
        token_B1 = torch.searchsorted(cumulated_BV, uniform_B1 * cumulated_BV[:, -1:], right=True)
        log_prob_B = token_log_probs(logits_BV.unsqueeze(1), token_B1)[:, 0].cpu()
        sampling_log_prob_B = log_prob_B if plain else p_BV.gather(1, token_B1)[:, 0].log().float().cpu()
        token_B = token_B1[:, 0].cpu()

        now_R = rows_B[going_B]
        found.tokens_BT[now_R, column] = token_B[going_B]
        found.log_probs_BT[now_R, column] = log_prob_B[going_B]
        found.sampling_log_probs_BT[now_R, column] = sampling_log_prob_B[going_B]
        found.lengths_B[now_R] += 1
        ends_B = going_B & torch.isin(token_B, stop_E)
        found.ended_B[rows_B[ends_B]] = True
        going_B &= ~ends_B

        going = int(going_B.sum())
        if going == 0:
            return
        positions_BP = positions_BP[:, -1:] + 1
        if going < _KEPT_SHARE * len(rows_B):
            kept_B = going_B.nonzero()[:, 0]
            rows_B, token_B1, going_B = rows_B[kept_B], token_B1[kept_B.to(device)], going_B[kept_B]
            kept_B = kept_B.to(device)
            mask_BP, positions_BP = mask_BP[kept_B], positions_BP[kept_B]
            cache.batch_select_indices(kept_B)
        inputs_BP = token_B1
        mask_BP = torch.cat([mask_BP, mask_BP.new_ones(len(rows_B), 1)], 1)
