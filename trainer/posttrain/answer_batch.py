"""Prompts and their completions as one rectangle of tokens.

Prompts are padded on the left and completions on the right, so that all completions begin in one column. Positions
count real tokens, and padding is never attended to: what a model says of a row does not depend on the other rows.

Shapes: B rows, P columns of prompts, T columns of completions, S = P + T.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["AnswerBatch", "left_padded"]

Tokens = Sequence[int]


def left_padded(rows: Sequence[Tokens], pad_id: int) -> tuple[Tensor, Tensor]:
    """Token ids (B, P) and which of them are real (B, P, bool)."""
    width = max(len(row) for row in rows)
    tokens_BP = torch.tensor([[pad_id] * (width - len(row)) + list(row) for row in rows], dtype=torch.long)
    lengths_B = torch.tensor([len(row) for row in rows])
    return tokens_BP, torch.arange(width) >= width - lengths_B.unsqueeze(1)


@dataclass(frozen=True)
class AnswerBatch:
    """Rows of one prompt token and one completion token or more."""

    tokens_BS: Tensor
    mask_BS: Tensor
    """True where a token is real."""
    prompt_columns: int

    @classmethod
    def of(cls, prompts: Sequence[Tokens], completions: Sequence[Tokens], pad_id: int = 0) -> AnswerBatch:
        """``ValueError`` if a prompt or a completion has no token, or there is no row."""
        if not prompts or not all(map(len, prompts)) or not all(map(len, completions)):
            raise ValueError("a batch of answers has one row or more, each with a token of prompt and of completion")
        prompts_BP, prompt_mask_BP = left_padded(prompts, pad_id)
        # Right padding is left padding of the reversed rows, reversed.
        tokens_BT, mask_BT = (x.flip(1) for x in left_padded([row[::-1] for row in completions], pad_id))
        return cls(torch.cat([prompts_BP, tokens_BT], 1), torch.cat([prompt_mask_BP, mask_BT], 1), prompts_BP.shape[1])

    def __len__(self) -> int:
        return len(self.tokens_BS)

    @property
    def completion_tokens_BT(self) -> Tensor:
        return self.tokens_BS[:, self.prompt_columns :]

    @property
    def completion_mask_BT(self) -> Tensor:
        return self.mask_BS[:, self.prompt_columns :]

    @property
    def positions_BS(self) -> Tensor:
        """Position of each real token in its row, from 0; padding has some valid one."""
        return (self.mask_BS.cumsum(1) - 1).clamp_(min=0)

    @property
    def attention_mask_BS(self) -> Tensor | None:
        """None where no prompt is padded: what is padded on the right comes after all that attends, and without a mask
        attention is faster."""
        return None if bool(self.mask_BS[:, 0].all()) else self.mask_BS.long()

    def rows(self, index_R: Tensor) -> AnswerBatch:
        """Some of the rows, without the columns that are padding in all of them."""
        mask_RS = self.mask_BS[index_R]
        used = mask_RS.any(0).nonzero()[:, 0]
        first, last = int(used[0]), int(used[-1])
        return AnswerBatch(
            self.tokens_BS[index_R, first : last + 1], mask_RS[:, first : last + 1], self.prompt_columns - first
        )

    def to(self, device: torch.device) -> AnswerBatch:
        return AnswerBatch(self.tokens_BS.to(device), self.mask_BS.to(device), self.prompt_columns)
