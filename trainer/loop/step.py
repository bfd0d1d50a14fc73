"""One training step, top to bottom: gradient of the batch's mean loss, clipped, and AdamW.

Shapes: B sequences a step, b of a micro-batch, T positions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from trainer.loop.numerics import Numerics
from trainer.loop.optimizer import Optimizer, clip_gradients
from trainer.models.model import LanguageModel

__all__ = ["TrainingStep"]


class TrainingStep:
    """A step of ``model`` under ``numerics``; call it with a batch and the step's learning rate."""

    def __init__(self, model: LanguageModel, optimizer: Optimizer, numerics: Numerics, gradient_clip: float) -> None:
        self._model, self._optimizer, self._numerics, self._clip = model, optimizer, numerics, gradient_clip
        self._parameters = list(model.parameters())
        self._hidden = _compiled(model.hidden) if numerics.compiled else model.hidden

    def __call__(self, x_BT: Tensor, y_BT: Tensor, rate: float) -> tuple[Tensor, Tensor]:
        """Change the weights; returns the batch's mean loss before that, nats a token, and its gradient's norm."""
        device, precision = self._numerics.device, self._numerics.precision
        rows = self._numerics.micro_batch_sequences or len(x_BT)
        loss = torch.zeros((), device=device)
        for x_bT, y_bT in zip(torch.split(x_BT, rows), torch.split(y_BT, rows), strict=True):
            with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
                share_of_loss = self._model.loss(x_bT, y_bT, hidden=self._hidden) * (len(x_bT) / len(x_BT))
            torch.autograd.backward(share_of_loss)
            loss += share_of_loss.detach()
        norm = clip_gradients(self._parameters, self._clip)
        self._optimizer.step(rate)
        return loss, norm


def _compiled(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    # Dynamo gives a function up after eight shapes, and a worker trains more than that one after another.
    torch.compiler.reset()
    return torch.compile(function, fullgraph=True, dynamic=False)
