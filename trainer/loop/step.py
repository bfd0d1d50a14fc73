"""One training step, top to bottom: gradient of the batch's mean loss, clipped, looked at, and the optimizer.

Shapes: B sequences a step, b of a micro-batch, T positions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from scaling.errors import UserError
from trainer.distributed.world import ALONE, World
from trainer.distributed.wrap import loss_of_rank
from trainer.loop.numerics import AUTOCAST, Numerics
from trainer.loop.optimizer import Optimizer, clip_gradients
from trainer.loop.spikes import SpikeWatch
from trainer.models import kernels
from trainer.models.model import LanguageModel

__all__ = ["OutOfMemory", "TrainingStep", "rows_of_micro_batch"]

_MOST_SHAPES = 1000


class OutOfMemory(UserError):
    """Not even one sequence at a time can be trained on here."""


class TrainingStep:
    """A step of ``model`` under ``numerics``; call it with a batch and the step's learning rate.

    ``spikes`` is asked about every step, and its update left out if that is the policy; None asks nobody. Under fp16
    the loss is scaled, and an update whose gradients overflow is left out while ``scaler`` finds a smaller scale. The
    processes of ``world`` take the step together.
    """

    def __init__(
        self,
        model: LanguageModel,
        optimizer: Optimizer,
        numerics: Numerics,
        gradient_clip: float,
        spikes: SpikeWatch | None = None,
        world: World = ALONE,
    ) -> None:
        self.model, self.optimizer, self._clip, self._spikes = model, optimizer, gradient_clip, spikes
        self._device, self._precision = numerics.device, numerics.precision
        self._kernels = numerics.kernels
        self.micro_batch_sequences = numerics.micro_batch_sequences
        self.scaler = torch.amp.GradScaler(self._device, enabled=numerics.precision == "fp16")
        self._parameters = list(model.parameters())
        model.recompute = numerics.recompute
        if numerics.compiled and not model.compilable:
            raise UserError(f"an {model.shape.architecture} can't be compiled: run it eager (compiled: false)")
        # Of a sharded model each layer was compiled by itself.
        whole = numerics.compiled and not (world.ranks > 1 and numerics.parallel == "fsdp")
        hidden = _compiled(model.hidden) if whole else model.hidden
        self._loss, self._world = loss_of_rank(model, hidden, numerics, world), world
        self._never = torch.zeros((), dtype=torch.bool, device=self._device)

    def __call__(self, x_BT: Tensor, y_BT: Tensor, rate: float) -> tuple[Tensor, Tensor, Tensor]:
        """Change the weights; returns the batch's mean loss before that, nats a token, its gradient's norm, and
        whether the step is a spike."""
        loss = self.accumulate(x_BT, y_BT)
        return loss, *self.update(loss, rate)

    def update(self, loss: Tensor, rate: float) -> tuple[Tensor, Tensor]:
        """Change the weights by the gradient that is there; returns its norm, and whether the step is a spike."""
        self.scaler.unscale_(self.optimizer)  # type: ignore[arg-type]
        norm = clip_gradients(self._parameters, self._clip)
        spike = self._spikes.look(loss, norm) if self._spikes else self._never
        if self._spikes and self._spikes.policy.action == "skip":
            self.optimizer.skip = spike
        self.scaler.step(self.optimizer, rate)  # type: ignore[arg-type]
        self.scaler.update()
        return norm, spike

    def accumulate(self, x_BT: Tensor, y_BT: Tensor) -> Tensor:
        """Add the gradient of the batch's mean loss to the parameters', a micro-batch at a time; returns the loss.

        Of several processes each gives its rows of the batch, and gets gradient and loss of the whole. Out of memory,
        a single one starts again with half the micro-batch, down to one sequence: ``micro_batch_sequences`` then says
        so.
        """
        while True:
            rows = rows_of_micro_batch(len(x_BT), self.micro_batch_sequences)
            try:
                return self._accumulate(x_BT, y_BT, rows)
            except (RuntimeError, MemoryError) as error:
                if not _is_out_of_memory(error):
                    raise
                if self._world.ranks > 1:
                    raise OutOfMemory(
                        f"a micro-batch of {rows} sequences does not fit into memory, and only a single process finds "
                        "out what does: take smaller micro-batches"
                    ) from error
                if rows == 1:
                    raise OutOfMemory(
                        f"one sequence of {x_BT.shape[1]} tokens does not fit into memory: take recomputed activations "
                        "(recompute), a shorter context or a smaller model"
                    ) from error
            for parameter in self._parameters:
                parameter.grad = None
            if self._device == "cuda":
                torch.cuda.empty_cache()
            self.micro_batch_sequences = rows_of_micro_batch(len(x_BT), rows // 2)

    def _accumulate(self, x_BT: Tensor, y_BT: Tensor, rows: int) -> Tensor:
        loss = torch.zeros((), device=self._device)
        for start in range(0, len(x_BT), rows):
            x_bT, y_bT = x_BT[start : start + rows], y_BT[start : start + rows]
            precision = torch.autocast(self._device, AUTOCAST[self._precision], enabled=self._precision != "fp32")
            with precision, kernels.used(self._kernels):
                loss_of_rows = self._loss(x_bT, y_bT, last=start + rows == len(x_BT))
                share_of_loss = loss_of_rows * (rows / len(x_BT))
            torch.autograd.backward(self.scaler.scale(share_of_loss))
            loss += share_of_loss.detach()
        return self._world.mean(loss)


def rows_of_micro_batch(sequences: int, wanted: int | None) -> int:
    """The most sequences a micro-batch may hold, ``wanted`` at most, so that all micro-batches have one shape."""
    most = min(wanted or sequences, sequences)
    return next(rows for rows in range(most, 0, -1) if sequences % rows == 0)


def _is_out_of_memory(error: BaseException) -> bool:
    """A CPU's allocator has no exception of its own."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


def _compiled(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    # Runs of one shape in one process share their compiled code: 0.4 s to the first step instead of 2 to 3 from the
    # cache on disk. Dynamo gives a function up after eight shapes; a worker trains more than that one after another.
    torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = _MOST_SHAPES
    return torch.compile(function, fullgraph=True, dynamic=False)
