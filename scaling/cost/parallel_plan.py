"""How a run is laid out over devices, and what is expected of that layout."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from scaling.record import Record

__all__ = ["Layout", "ParallelPlan", "RankMemory", "Recompute", "layout_line"]

Recompute = Literal["none", "selective", "full"]


class RankMemory(Record):
    """Bytes on the fullest rank when it holds most."""

    weights: float
    """What is multiplied with; under ZeRO-3 the rank's shard in fp32 and what is gathered meanwhile."""
    gradients: float
    optimizer: float
    """AdamW's two moments, and the fp32 weights where those that are multiplied with are another copy."""
    activations: float
    """Kept for the backward pass, of all micro-batches under way, logits among them."""

    @property
    def total(self) -> float:
        return self.weights + self.gradients + self.optimizer + self.activations


class Layout(Record):
    """Degrees of parallelism; their product is the number of devices. Devices of one tensor group are neighbours, then
    those of one context group, then data, and pipeline stages are furthest apart."""

    tensor: int = Field(default=1, ge=1)
    """Megatron's, with sequence parallelism (2205.05198): heads, feed-forward and vocabulary are cut."""
    pipeline: int = Field(default=1, ge=1)
    """Stages of consecutive layers, one forward and one backward in turn (1F1B, 2104.04473)."""
    context: int = Field(default=1, ge=1)
    """Parts of one sequence."""
    data: int = Field(default=1, ge=1)
    """Replicas, over which (with the context's parts) states are sharded as ``zero_stage`` says."""
    zero_stage: int = Field(default=2, ge=0, le=3)
    """0 nothing sharded (DDP), 1 optimiser, 2 gradients too, 3 weights too (FSDP); ZeRO 1910.02054."""
    virtual_stages: int = Field(default=1, ge=1)
    """Pieces of each stage in an interleaved schedule (2104.04473); 1 is plain 1F1B."""
    micro_batch_sequences: int = Field(default=1, ge=1)
    recompute: Recompute = "none"
    """none keeps all; selective computes attention's scores again, as fused kernels do anyway; full keeps each layer's
    input alone."""

    @property
    def devices(self) -> int:
        return self.tensor * self.pipeline * self.context * self.data


class ParallelPlan(Layout):
    """A layout for one shape, batch and kind of device, with what it needs and is expected to reach."""

    accelerator: str
    global_batch_sequences: int
    """The batch asked for, or the nearest one that divides among the replicas."""
    micro_batches: int
    """One after the other in each step of each replica."""
    memory: RankMemory
    device_bytes: float
    """What the device has; a plan may use 92% of it."""
    fits: bool
    why_not: str | None
    bubble: float
    """Share of the step that stages wait for each other."""
    communication: float
    """Share of the step spent on messages that no computation hides."""
    step_seconds: float
    mfu: float
    """By the model of compute and bandwidth, for comparing plans; dollars rest on what practice reports."""


def layout_line(plan: Layout) -> str:
    """``8 tensor x 16 pipeline x 128 data, ZeRO-2, 8 pieces a stage``: degrees of one are left out."""
    degrees = [
        f"{degree:,} {name}"
        for name, degree in (
            ("tensor", plan.tensor),
            ("pipeline", plan.pipeline),
            ("context", plan.context),
            ("data", plan.data),
        )
        if degree > 1
    ]
    more = [" x ".join(degrees) or "one device"]
    if plan.zero_stage:
        more.append(f"ZeRO-{plan.zero_stage}")
    if plan.virtual_stages > 1:
        more.append(f"{plan.virtual_stages} pieces a stage")
    if plan.recompute != "none":
        more.append(f"{plan.recompute} recomputation")
    return ", ".join(more)
