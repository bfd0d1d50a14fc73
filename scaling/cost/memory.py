"""Bytes that a rank holds: weights, gradients, optimiser, activations.

Activations follow Korthikanti et al. (2205.05198, section 4), counted tensor by tensor for blocks without dropout. With
h the width, k that of all keys, f the feed-forward's inner width, per token and layer in values of two bytes:

    norms in and out 4h, queries, keys and values h + 2k, attention's output h, feed-forward 3f (SwiGLU: gate, up and
    their product) or 2f (GELU: in and out)

which for h = k and f = 4h is the paper's 34 bytes h less two for its dropout masks. Attention that is not fused keeps
its scores too, 5 bytes a head and pair of tokens there. Under tensor parallelism with sequence parallelism all of it is
cut by t. A stage i of p keeps min(m, p - i) micro-batches under way (1F1B); interleaved, the first keeps
(1 + (p - 1)/(p v)) times as much.
"""

from __future__ import annotations

from functools import cache

from scaling import architectures
from scaling.cost.parallel_plan import Layout, RankMemory
from scaling.errors import UserError
from scaling.shape import ModelShape

__all__ = ["head_activation_bytes", "layer_activation_bytes", "rank_memory", "stage_layers"]

_WORKING, _FP32, _MOMENTS = 2, 4, 8
"""bf16 to multiply with, fp32 weights and gradients, two fp32 moments: bytes a parameter."""
_LOGITS_BYTES = 6
"""A token's logits in bf16 and once in fp32: a loss that is fused with the softmax. Written out plainly it takes 14."""


def stage_layers(layers: int, stages: int) -> tuple[int, ...]:
    """Layers of each stage: as many each, but for one fewer at the ends first, which hold embedding and head as well
    (Llama 3, 2407.21783, section 3.3.2). Raises :class:`UserError` where a stage would have none."""
    most = -(-layers // stages)
    missing = most * stages - layers
    if stages > layers:
        raise UserError(f"pipeline is {stages}: the shape has {layers} layers, and a stage holds one or more")
    dealt = [most] * stages
    for stage in [-1, 0, *range(-2, 1 - stages, -1)][:missing]:
        dealt[stage] -= 1
    return tuple(dealt)


def layer_activation_bytes(
    shape: ModelShape, tokens: float, *, value_bytes: int = 2, fused_attention: bool = True, fused_kernels: bool = True
) -> float:
    """What one layer keeps of ``tokens`` for its backward pass, everything on one rank.

    Without ``fused_kernels``, as PyTorch's plain operators keep it: a norm keeps its normalised input, rotation its
    results beside the projection they were cut from, SwiGLU the activated gate.
    """
    if architectures.family_of(shape.architecture) != "transformer":
        raise UserError(f"architecture {shape.architecture!r} is no transformer: its activations are not accounted for")
    width, keys, ffn_width = shape.width, shape.kv_heads * shape.head_width, shape.ffn_width
    gated = shape.architecture == "llama"
    values = 6 * width + 2 * keys + (3 if gated else 2) * ffn_width
    if gated and not fused_kernels:
        values += 3 * width + keys + ffn_width
    scores = 0 if fused_attention else 5 * shape.heads * shape.context
    return tokens * (value_bytes * values + scores)


def head_activation_bytes(
    shape: ModelShape, tokens: float, *, value_bytes: int = 2, logits_bytes: float = _LOGITS_BYTES
) -> float:
    """The last norm's input and result, and the logits."""
    return tokens * (2 * value_bytes * shape.width + logits_bytes * shape.vocabulary)


@cache
def _parameters(shape: ModelShape) -> tuple[float, float, float]:
    """Of one layer, of the embedding with positions, of the head as a matrix of its own."""
    counts = architectures.get(shape.architecture).count_parameters(shape)
    head = shape.vocabulary * shape.width
    return counts.nonembedding / shape.layers, counts.total - counts.nonembedding - (0 if shape.tied else head), head


def rank_memory(
    shape: ModelShape,
    layout: Layout,
    micro_batches: int,
    *,
    fused_attention: bool = True,
    sequence_parallel: bool = True,
    logits_bytes: float = _LOGITS_BYTES,
) -> RankMemory:
    """What the fullest rank needs for ``micro_batches`` a step; :class:`UserError` for more stages than layers."""
    dealt = stage_layers(shape.layers, layout.pipeline)
    tokens = layout.micro_batch_sequences * shape.context / layout.context
    kept = layer_activation_bytes(shape, tokens, fused_attention=fused_attention or layout.recompute != "none")
    if sequence_parallel:
        kept /= layout.tensor
    else:
        whole = tokens * 2 * 4 * shape.width
        kept = whole + (kept - whole) / layout.tensor
    again = 0.0
    if layout.recompute == "full":
        # The layer that is computed again has its own activations meanwhile.
        again, kept = kept, tokens * 2 * shape.width / (layout.tensor if sequence_parallel else 1)
    head = head_activation_bytes(shape, tokens, logits_bytes=logits_bytes) / layout.tensor

    def stage(i: int) -> RankMemory:
        first, last = i == 0, i == layout.pipeline - 1
        under_way = _under_way(layout, i, micro_batches) * dealt[i] / layout.virtual_stages
        return _states(shape, layout, dealt[i], first, last).model_copy(
            update={"activations": kept * under_way + again + (head if last else 0.0)}
        )

    # Of those with most layers the second stage is the earliest, which has most micro-batches under way.
    candidates = {0, min(1, layout.pipeline - 1), layout.pipeline - 1}
    return max((stage(i) for i in candidates), key=lambda held: held.total)


def _under_way(layout: Layout, i: int, micro_batches: int) -> int:
    """Pieces of stage ``i`` times micro-batches whose backward pass is still to come when most are."""
    p, v = layout.pipeline, layout.virtual_stages
    # Interleaved, micro-batches go through a stage's pieces in rounds of at least as many as there are stages.
    in_round = micro_batches // max(1, micro_batches // p)
    warm = p - i if v == 1 else (v - 1) * in_round + 2 * (p - i - 1) + 1
    return min(micro_batches * v, warm)


def _states(shape: ModelShape, layout: Layout, layers: int, first: bool, last: bool) -> RankMemory:
    layer, embedding, head = _parameters(shape)
    # A tied head that lies on another stage than the embedding is a second copy of it.
    ends = (embedding if first else 0.0) + (head if last and not (shape.tied and first) else 0.0)
    params = (layers * layer + ends) / layout.tensor
    shards, z = layout.data * layout.context, layout.zero_stage
    if z == 3 and shards > 1:
        # The layer that computes and the one that is gathered meanwhile, embedding and head throughout.
        gathered = _WORKING * (min(2, layers) * layer + ends) / layout.tensor
        weights, optimizer = _FP32 * params / shards + gathered, _MOMENTS * params / shards
    else:
        weights = _WORKING * params
        optimizer = (_FP32 + _MOMENTS) * params / (shards if z >= 1 else 1)
    return RankMemory(
        weights=weights,
        gradients=_FP32 * params / (shards if z >= 2 else 1),
        optimizer=optimizer,
        activations=0.0,
    )
