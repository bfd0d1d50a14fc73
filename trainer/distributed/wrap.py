"""A model as several processes hold it: whole on each (DDP), or each layer's weights in shards (FSDP2).

Either way a rank computes the mean loss of its rows, and the gradient that it then finds is the mean over all ranks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from trainer.distributed.world import World
from trainer.loop.numerics import AUTOCAST, Numerics
from trainer.models.model import LanguageModel

__all__ = ["Loss", "loss_of_rank", "shard"]


class Loss(Protocol):
    def __call__(self, x_bT: Tensor, y_bT: Tensor, *, last: bool) -> Tensor:
        """Mean nats a token of a micro-batch; ``last`` of the step's, after which gradients must be those of all
        ranks."""


def shard(model: LanguageModel, numerics: Numerics, world: World) -> None:
    """Move ``model`` to the device in shards: a layer's weights are whole only while it computes.

    Embedding, head and last norm are gathered as they are. Under mixed precision a GPU gathers a layer's weights
    already rounded to what autocast would round them to, and sums gradients in fp32; a CPU gathers them in fp32, since
    its fused norm takes no scale that is rounded otherwise than its input.
    """
    # Takes 1.5 seconds, which a run by a single process need not wait for.
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(numerics.device, (world.ranks,))
    options: dict[str, Any] = {"mesh": mesh}
    if numerics.device == "cuda" and numerics.precision != "fp32" and model.layers_in_half:
        options["mp_policy"] = MixedPrecisionPolicy(
            param_dtype=AUTOCAST[numerics.precision], reduce_dtype=torch.float32, cast_forward_inputs=False
        )
    if numerics.compiled:
        torch.compiler.reset()
    layers = getattr(model, "layers", ())
    for layer in layers:
        if numerics.compiled:
            # Gathering can't be traced, so it happens around each compiled layer.
            layer.compile(fullgraph=True, dynamic=False)
        fully_shard(layer, **options)
    fully_shard(model, mesh=mesh)
    for method in ("loss", "token_nats"):
        register_fsdp_forward_method(model, method)


def loss_of_rank(model: LanguageModel, hidden: Callable[[Tensor], Tensor], numerics: Numerics, world: World) -> Loss:
    """The loss to go backward from; ``hidden`` is the model's, or compiled."""
    if world.ranks > 1 and numerics.parallel == "ddp":
        return _Replica(model, hidden)
    return lambda x_bT, y_bT, *, last: model.loss(x_bT, y_bT, hidden=hidden)


class _Replica:
    """A whole model whose gradients are averaged bucket by bucket during the last micro-batch's backward pass."""

    def __init__(self, model: LanguageModel, hidden: Callable[[Tensor], Tensor]) -> None:
        self._parameters = list(model.parameters())
        self._parallel = DistributedDataParallel(
            _LossModule(model, hidden), forward_sync_buffers=False, gradient_as_bucket_view=True
        )
        self._buckets_final = False

    def __call__(self, x_bT: Tensor, y_bT: Tensor, *, last: bool) -> Tensor:
        if not self._buckets_final:
            # DDP lays its buckets out anew after its first backward pass. A sum of three or more ranks depends on where
            # a number lies in its bucket, so a run that was taken up again would differ in the last digit.
            self._buckets_final = True
            torch.autograd.backward(self._parallel(x_bT, y_bT))
            for parameter in self._parameters:
                parameter.grad = None
        self._parallel.require_backward_grad_sync = last
        loss: Tensor = self._parallel(x_bT, y_bT)
        return loss


class _LossModule(nn.Module):
    def __init__(self, model: LanguageModel, hidden: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model = model
        self._hidden = hidden

    def forward(self, x_bT: Tensor, y_bT: Tensor) -> Tensor:
        return self.model.loss(x_bT, y_bT, hidden=self._hidden)
