"""What is expected of an answer at each of its tokens: a head on the policy, or a model of its own.

Shapes: B answers, T tokens, W width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from scaling.errors import UserError
from trainer.posttrain.answer_batch import AnswerBatch

__all__ = ["ValueHead", "ValueModel", "explained_variance"]


class ValueHead(nn.Module):
    """A linear map of the policy's last hidden state; it begins at 0, and its loss also moves the policy's trunk."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def values(self, batch: AnswerBatch, hidden_BTW: Tensor | None) -> Tensor:
        """V of what comes before each token of the completions (B, T)."""
        assert hidden_BTW is not None, "a head reads the policy's last hidden state"
        values_BT: Tensor = self.linear(hidden_BTW.float()).squeeze(-1)
        return values_BT


class ValueModel(nn.Module):
    """A transformers sequence classifier of one label, read at every token: a copy of the reward model, as a rule.

    Its value of a token then begins as the reward model's score of what has been said before it.
    """

    def __init__(self, classifier: Any) -> None:
        super().__init__()
        labels = getattr(classifier.config, "num_labels", None)
        if not isinstance(getattr(classifier, "score", None), nn.Linear) or labels != 1:
            raise UserError(
                f"value_model {type(classifier).__name__} with {labels} labels is no sequence classifier of one label: "
                "give a reward model (AutoModelForSequenceClassification, num_labels=1), or none for a head on the "
                "policy"
            )
        self.trunk, self.score = classifier.base_model, classifier.score

    def values(self, batch: AnswerBatch, hidden_BTW: Tensor | None) -> Tensor:
        """V of what comes before each token of the completions (B, T); the policy's hidden state is not looked at."""
        output = self.trunk(
            input_ids=batch.tokens_BS,
            attention_mask=batch.attention_mask_BS,
            position_ids=batch.positions_BS,
            use_cache=False,
        )
        states_BTW: Tensor = output.last_hidden_state[:, batch.prompt_columns - 1 : -1]
        values_BT: Tensor = self.score(states_BTW).float().squeeze(-1)
        return values_BT


def explained_variance(returns_N: Tensor, values_N: Tensor) -> Tensor:
    """1 − var(return − value) / var(return): 1 where values foretell all, 0 where no more than a constant would."""
    return 1 - (returns_N - values_N).var(correction=0) / returns_N.var(correction=0).clamp_min(
        torch.finfo(returns_N.dtype).tiny
    )
