"""How long a step takes under a layout: products, messages that no computation hides, and stages that wait.

A model for comparing layouts, from peaks and bandwidths alone. Products run at the device's ``kernel_share`` of its
peak, on an accelerator less where the narrowest side of what is left to one rank is small
(``scaling.cost.mfu.width_share``). Messages reach 80% of their link. Those of tensor and context parallelism and
between stages wait in full; those that shard states overlap with the products of the micro-batch they belong to, and
only what is longer counts.
"""

from __future__ import annotations

from scaling import architectures
from scaling.cost.memory import stage_layers
from scaling.cost.mfu import width_share
from scaling.cost.parallel_plan import Layout
from scaling.hardware import Accelerator
from scaling.record import Record
from scaling.serving import forward_flops
from scaling.shape import ModelShape

__all__ = ["StepTime", "step_time"]

_LINK_SHARE = 0.8
"""Of a link's stated bandwidth that collective messages of this size reach; an outside estimate."""


class StepTime(Record):
    """Seconds of one step and the shares of it that are not products; ``mfu`` counts the model's own FLOPs."""

    seconds: float
    bubble: float
    communication: float
    mfu: float


def step_time(shape: ModelShape, layout: Layout, device: Accelerator, micro_batches: int) -> StepTime:
    """One step of ``micro_batches`` on each replica. Raises :class:`UserError` for more stages than layers."""
    t, p, c, v = layout.tensor, layout.pipeline, layout.context, layout.virtual_stages
    most = max(stage_layers(shape.layers, p))
    tokens = layout.micro_batch_sequences * shape.context / c
    model = architectures.get(shape.architecture)
    per_token = model.training_flops_per_token(shape)

    passes = 4 / 3 if layout.recompute == "full" else 1.0
    if layout.recompute == "selective":
        passes += forward_flops(shape, shape.context).scores / per_token
    reached = device.bf16_flops * device.kernel_share
    if device.kind != "cpu":
        reached *= width_share(min(shape.width / t, tokens))
    # The slowest stage sets the pace.
    products = passes * per_token * tokens / (t * p) * (most * p / shape.layers) / reached

    up, out = (1e9 * _LINK_SHARE * speed for speed in (device.scale_up_gb_s, device.scale_out_gb_s))
    residual = 2 * shape.width * tokens
    # Two blocks a layer, each gathering and scattering the residual stream once forward and once backward.
    collectives = (12 if layout.recompute == "full" else 8) * most
    waits = collectives * (t - 1) / t * residual / up
    keys_values = 2 * 2 * shape.kv_heads * shape.head_width * tokens * c / t
    waits += 3 * most * (c - 1) / c * keys_values / (up if t * c <= device.scale_up_domain else out)
    if p > 1:
        waits += 2 * v * residual / t / (up if layout.devices <= device.scale_up_domain else out)

    every, once = _state_messages(shape, layout, device, up, out)
    each = waits + max(products, every)
    fill = (p - 1) / v
    seconds = (micro_batches + fill) * each + max(0.0, once - products)
    ideal = per_token * layout.micro_batch_sequences * shape.context * micro_batches * layout.data
    return StepTime(
        seconds=seconds,
        bubble=fill * each / seconds,
        communication=1 - (micro_batches * products + fill * each) / seconds,
        mfu=ideal / (seconds * layout.devices * device.bf16_flops),
    )


def _state_messages(
    shape: ModelShape, layout: Layout, device: Accelerator, up: float, out: float
) -> tuple[float, float]:
    """Seconds of messages that shard states, each micro-batch's and once a step: weights in bf16, gradients in fp32."""
    ranks = layout.data * layout.context
    if ranks == 1:
        return 0.0, 0.0
    weights = architectures.total_params(shape) / (layout.tensor * layout.pipeline)
    # Neighbours share what comes in over their own network cards.
    beside = min(ranks, max(1, device.scale_up_domain // layout.tensor))
    outside = 0.0 if beside == ranks else (1 - beside / ranks) / (beside * out)
    a_byte = max(outside, (beside - 1) / beside / up)
    gather, reduce = 2 * weights * a_byte, 4 * weights * a_byte
    if layout.zero_stage == 3:
        return 2 * gather + reduce, 0.0
    if layout.zero_stage == 2:
        return reduce, gather
    return 0.0, gather + reduce
