"""What a causal language model says of completions, given their prompts; gradients flow through all of it.

Shapes: B rows, T tokens of completions, V vocabulary, W width of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from trainer.posttrain.answer_batch import AnswerBatch

__all__ = ["Predictions", "answer_log_probs", "predict", "token_entropy", "token_log_probs"]


@dataclass(frozen=True)
class Predictions:
    """Of each token of the completions, from what comes before it; meaningless where it is padding."""

    logits_BTV: Tensor
    """In float32."""
    hidden_BTW: Tensor | None
    """The last hidden state, which the logits are made from."""


def predict(model: nn.Module, batch: AnswerBatch, *, hidden: bool = False) -> Predictions:
    """One forward pass of a transformers causal model; logits are made for the completions alone."""
    columns = batch.tokens_BS.shape[1] - batch.prompt_columns
    output = model(
        input_ids=batch.tokens_BS,
        attention_mask=batch.attention_mask_BS,
        position_ids=batch.positions_BS,
        use_cache=False,
        logits_to_keep=columns + 1,
        output_hidden_states=hidden,
    )
    # What stands at a token predicts the next one.
    return Predictions(
        output.logits[:, :-1].float(), output.hidden_states[-1][:, -columns - 1 : -1] if hidden else None
    )


def token_log_probs(logits_BTV: Tensor, tokens_BT: Tensor) -> Tensor:
    """log π of each token in nats (B, T), at temperature 1."""
    chosen_BT = logits_BTV.gather(-1, tokens_BT.unsqueeze(-1)).squeeze(-1)
    return chosen_BT - logits_BTV.logsumexp(-1)


def token_entropy(logits_BTV: Tensor) -> Tensor:
    """Entropy of each next token's distribution in nats (B, T)."""
    log_p_BTV = torch.log_softmax(logits_BTV, dim=-1)
    return -(log_p_BTV.exp() * log_p_BTV).sum(-1)


def answer_log_probs(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    *,
    average: Literal["sum", "mean"] = "sum",
    rows_at_once: int = 64,
) -> Tensor:
    """log π(completion | prompt) of each row in nats (B,), or its mean over the completion's tokens.

    ``sum`` is what DPO compares, ``mean`` its length-normalised form and SimPO's. With gradients where they are
    enabled; ``rows_at_once`` bounds the memory of a pass without them.
    """
    device = next(model.parameters()).device
    parts = []
    for start in range(0, len(prompts), rows_at_once):
        rows = slice(start, start + rows_at_once)
        batch = AnswerBatch.of(prompts[rows], completions[rows]).to(device)
        log_probs_BT = token_log_probs(predict(model, batch).logits_BTV, batch.completion_tokens_BT)
        mask_BT = batch.completion_mask_BT
        total_B = log_probs_BT.where(mask_BT, 0).sum(1)
        parts.append(total_B if average == "sum" else total_B / mask_BT.sum(1))
    return torch.cat(parts)
