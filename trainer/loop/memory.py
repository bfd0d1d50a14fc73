"""How much memory a step needs, before it is taken, and whether an error says that there was none left."""

from __future__ import annotations

import os
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from scaling import architectures
from scaling.record import Record
from scaling.run_spec import OptimizerSpec, RunSpec
from scaling.shape import ModelShape
from trainer.loop.numerics import AUTOCAST, Numerics
from trainer.loop.step import OutOfMemory, rows_of_micro_batch
from trainer.models import build

__all__ = ["MemoryEstimate", "device_memory", "estimate_memory", "micro_batch_that_fits"]

_FP32_BYTES = 4
USABLE_SHARE = 0.85
"""Of the free memory, what a plan may count on: allocators lose some to fragments, kernels to their workspaces."""


class MemoryEstimate(Record):
    """Bytes on the device at the end of a step's forward pass, when most is held."""

    weights: int
    gradients: int
    optimizer: int
    activations: int = Field(description="kept for the backward pass, of one micro-batch")

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations


def device_memory(device: Literal["cpu", "cuda"]) -> int:
    """Bytes: a GPU's free ones; otherwise all of the machine's, so that what else runs there decides nothing, shared by
    the ranks on it."""
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def estimate_memory(shape: ModelShape, sequences: int, numerics: Numerics, optimizer: OptimizerSpec) -> MemoryEstimate:
    """What a micro-batch of ``sequences`` needs. Activations are counted on tensors without memory; a GPU's are counted
    by the CPU's kernels where this build of torch has no CUDA, which keep more. In shards (fsdp) a rank holds its part,
    and whole the embedding, the head, the layer that computes and the one that is gathered meanwhile."""
    counts = architectures.get(shape.architecture).count_parameters(shape)
    params, gathered = counts.total, 0
    if numerics.parallel == "fsdp" and numerics.ranks > 1:
        params = -(-counts.total // numerics.ranks)
        gathered = counts.total - counts.nonembedding + 2 * counts.nonembedding // shape.layers
    # AdamW keeps two moments; Muon one of each matrix, which are nearly all parameters, and is not told apart here.
    moments = 2 if optimizer.name == "adamw" else 1
    return MemoryEstimate(
        weights=(params + gathered) * _FP32_BYTES,
        gradients=params * _FP32_BYTES,
        optimizer=params * _FP32_BYTES * moments,
        activations=_activations(shape, sequences, numerics),
    )


def _activations(shape: ModelShape, sequences: int, numerics: Numerics) -> int:
    device = "cuda" if numerics.device == "cuda" and torch.cuda.is_available() else "cpu"
    with FakeTensorMode():
        with torch.device(device):
            model = build(shape)
            x_BT = torch.zeros(sequences, shape.context, dtype=torch.int64)
        kept = _saved_bytes(model, x_BT, numerics, recompute=numerics.recompute)
        if numerics.recompute:
            # While a layer is computed again, its own activations are there too.
            kept += _saved_bytes(model, x_BT, numerics, recompute=False) // shape.layers
    return kept


def _saved_bytes(model: torch.nn.Module, x_BT: Tensor, numerics: Numerics, *, recompute: bool) -> int:
    model.recompute = recompute  # type: ignore[assignment]
    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    saved: dict[int, tuple[int, Tensor]] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            saved[storage._cdata] = (storage.nbytes(), tensor)
        return tensor

    autocast = torch.autocast(x_BT.device.type, AUTOCAST[numerics.precision], enabled=numerics.precision != "fp32")
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast:
        model.loss(x_BT, x_BT)  # type: ignore[operator]
    return sum(size for size, _ in saved.values())


def micro_batch_that_fits(spec: RunSpec, numerics: Numerics, available_bytes: int) -> int:
    """The most sequences of a micro-batch, a divisor of the rank's in a step, that ``USABLE_SHARE`` of the bytes hold.

    Raises :class:`OutOfMemory` if a single one is too many.
    """
    one, two = (estimate_memory(spec.shape, rows, numerics, spec.optimizer).total for rows in (1, 2))
    usable = USABLE_SHARE * available_bytes
    if one > usable:
        remedy = "a smaller model" if numerics.recompute else "recomputed activations (recompute), or a smaller model"
        raise OutOfMemory(
            f"one sequence of context {spec.shape.context} needs {one / 2**30:.2f} GiB in training and "
            f"{usable / 2**30:.2f} GiB can be used: take {remedy}"
        )
    return rows_of_micro_batch(spec.sequences_per_step // numerics.ranks, int(1 + (usable - one) // max(1, two - one)))
