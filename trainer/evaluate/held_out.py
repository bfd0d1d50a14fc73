"""Loss on the fixed held-out tokens, all of them and by domain: nats a token with its standard error, and bits a byte.

The set is ``held_out_tokens`` in whole windows of one context, evenly spread over the held-out split so that all its
pieces and works take part; each token is the target of one window, predicted from the tokens before it in that window.
Batches have a fixed size, whatever the training's micro-batch, so that the same weights give the same loss to the bit.

Pieces of one work share its author and subject, so the standard error is clustered by work. It is that of this model on
other works like these; two models on the same set differ by much less.

Separators between pieces are targets like any other in nats a token, as they are in the training loss. Bits a byte
leaves them out of both sums: they stand for no bytes of text. A separator belongs to the domain of the piece it ends.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from scaling.errors import UserError
from scaling.record import Record
from trainer.data.shards import Corpus
from trainer.evaluate.domain_loss import DomainLoss
from trainer.models.model import LanguageModel

__all__ = ["HeldOutLoss", "HeldOutSet", "clustered_standard_error", "domain_loss"]

BATCH_TOKENS_CPU = 4096
BATCH_TOKENS_CUDA = 65_536


class HeldOutLoss(Record):
    loss_nats: float = Field(description="mean nats a token; NaN or infinite if the model has diverged")
    loss_sem: float = Field(description="its standard error, clustered by work")
    bits_per_byte: float
    tokens: int
    domains: dict[str, DomainLoss] = Field(description="by name, those that the corpus names; empty if diverged")


class HeldOutSet:
    """The fixed windows of one corpus."""

    def __init__(self, corpus: Corpus, held_out_tokens: int, context: int) -> None:
        """Take ``held_out_tokens``, rounded down to whole windows of ``context``, spread over the split.

        Raises :class:`UserError` if the split holds fewer, or if they fill no window.
        """
        available = corpus.manifest.held_out.tokens
        if held_out_tokens > available:
            raise UserError(
                f"held_out_tokens {held_out_tokens} exceeds the held-out split's {available} tokens in "
                f"{corpus.directory}: ask for fewer, or hold out a larger share of the corpus"
            )
        # The last target lies one token after the last input.
        windows = min(held_out_tokens // context, (available - 1) // context)
        if windows < 1:
            raise UserError(
                f"held_out_tokens {held_out_tokens} fills no window of context {context}: ask for "
                f"at least {context + 1}"
            )
        spread = np.linspace(0, (available - 1) // context - 1, windows).round().astype(np.int64)
        positions_WT = spread[:, None] * context + np.arange(context)
        stream = corpus.tokens("held_out")
        self.x_WT = stream[positions_WT].astype(np.int64)
        self.y_WT = stream[positions_WT + 1].astype(np.int64)
        starts = corpus.document_starts("held_out")
        piece_WT = np.searchsorted(starts, positions_WT + 1, side="right") - 1
        self.work_WT = corpus.held_out_works[piece_WT]
        self.domains = corpus.manifest.held_out_domains
        self.domain_WT = corpus.held_out_domains[piece_WT]
        if len(np.unique(self.work_WT)) < 2:
            raise UserError(
                f"held_out_tokens {held_out_tokens} covers a single held-out work, which gives no standard error: "
                "ask for more tokens, or hold out a larger share of the corpus"
            )
        self.bytes_WT = corpus.token_bytes[self.y_WT].astype(np.int64)
        self.text_WT = self.y_WT != corpus.manifest.separator_id

    def __len__(self) -> int:
        return len(self.x_WT)

    def subset(self, windows: int) -> NDArray[np.int64]:
        """Indices of at most ``windows`` windows, evenly spread over the set, always the same."""
        count = max(1, min(windows, len(self)))
        return np.linspace(0, len(self) - 1, count).round().astype(np.int64)

    def token_nats(
        self, model: LanguageModel, windows: NDArray[np.int64] | None = None, *, precision: str = "fp32"
    ) -> NDArray[np.float32]:
        """-ln p of every target, (W, T), of the given windows or all; model in eval mode or not, without gradients."""
        device = model.embed_tokens.weight.device
        chosen = np.arange(len(self)) if windows is None else windows
        rows = max(1, (BATCH_TOKENS_CUDA if device.type == "cuda" else BATCH_TOKENS_CPU) // self.x_WT.shape[1])
        parts = []
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            for start in range(0, len(chosen), rows):
                index = chosen[start : start + rows]
                x_BT, y_BT = (torch.from_numpy(a[index]).to(device) for a in (self.x_WT, self.y_WT))
                parts.append(model.token_nats(x_BT, y_BT).float().cpu().numpy())
        return np.concatenate(parts)

    def loss(self, model: LanguageModel, *, precision: str = "fp32") -> HeldOutLoss:
        """Loss over the whole set."""
        return self.loss_of(self.token_nats(model, precision=precision))

    def loss_of(self, token_nats_WT: NDArray[np.floating]) -> HeldOutLoss:
        """The same of all windows' ``token_nats``."""
        nats_WT = token_nats_WT.astype(np.float64)
        return HeldOutLoss(
            loss_nats=float(nats_WT.mean()),
            loss_sem=clustered_standard_error(nats_WT.ravel(), self.work_WT.ravel()),
            bits_per_byte=float(nats_WT[self.text_WT].sum() / (math.log(2) * self.bytes_WT[self.text_WT].sum())),
            tokens=nats_WT.size,
            domains=self._by_domain(nats_WT) if np.isfinite(nats_WT).all() else {},
        )

    def bits_per_byte(self, nats_WT: NDArray[np.floating], windows: NDArray[np.int64]) -> float:
        """Of the ``token_nats`` of some windows."""
        text_WT, bytes_WT = self.text_WT[windows], self.bytes_WT[windows]
        return float(nats_WT[text_WT].sum(dtype=np.float64) / (math.log(2) * bytes_WT[text_WT].sum()))

    def _by_domain(self, nats_WT: NDArray[np.float64]) -> dict[str, DomainLoss]:
        losses = {}
        for index, name in enumerate(self.domains):
            mine_WT = self.domain_WT == index
            if mine_WT.any():
                taken = (nats_WT, self.work_WT, self.bytes_WT, self.text_WT)
                losses[name] = domain_loss(*(a[mine_WT] for a in taken))
        return losses


def domain_loss(
    nats: NDArray[np.float64], work: NDArray[np.int64], utf8_bytes: NDArray[np.int64], text: NDArray[np.bool_]
) -> DomainLoss:
    """The loss over some tokens, each (n,) with its work, its bytes and whether it stands for text."""
    works, text_bytes = len(np.unique(work)), int(utf8_bytes[text].sum())
    return DomainLoss(
        loss_nats=float(nats.mean()),
        loss_sem=clustered_standard_error(nats, work) if works > 1 else None,
        bits_per_byte=float(nats[text].sum() / (math.log(2) * text_bytes)) if text_bytes else None,
        tokens=nats.size,
        works=works,
    )


def clustered_standard_error(values: NDArray[np.float64], cluster: NDArray[np.int64]) -> float:
    """Standard error of the mean of ``values`` (n,) that are correlated within clusters of unequal size.

    The linearised ratio estimator, sqrt(G/(G-1) sum_g (sum of residuals in g)^2) / n for G clusters (Cameron & Miller
    2015, "A Practitioner's Guide to Cluster-Robust Inference"). Raises ``ValueError`` if there is one cluster only.
    """
    _, index = np.unique(cluster, return_inverse=True)
    count = int(index.max()) + 1
    if count < 2:
        raise ValueError("one cluster says nothing about the spread between clusters")
    residuals = np.bincount(index, weights=values - values.mean(), minlength=count)
    return float(math.sqrt(count / (count - 1) * np.square(residuals).sum()) / values.size)
