"""What serving a model costs: reading the prompt (prefill), then one token at a time with a key-value cache (decode).

Exact FLOPs, for the serving side of ``scaling.allocation.inference_aware``, which counts 2·N a token. Attention is
causal here: a token attends to those before it and itself, unlike in training FLOPs, where the PaLM convention counts
the whole context. The head is needed for the last token of the prompt alone.
"""

from __future__ import annotations

from scaling import architectures
from scaling.architectures import llama_moe
from scaling.errors import UserError
from scaling.shape import ForwardFlops, ModelShape

__all__ = ["decode_flops", "forward_flops", "kv_cache_bytes", "prefill_flops", "request_flops"]


def forward_flops(shape: ModelShape, attended: int) -> ForwardFlops:
    """One token's forward pass by part, of a dense shape or a mixture of experts."""
    if isinstance(shape, llama_moe.MoeShape):
        return llama_moe.forward_flops(shape, attended)
    return architectures.get(shape.architecture).forward_flops(shape, attended)


def prefill_flops(shape: ModelShape, tokens: int) -> float:
    """FLOPs of reading a prompt of ``tokens`` and scoring its next token. Raises :class:`UserError` beyond the
    context."""
    _within(shape, "prompt", tokens)
    return _between(shape, 0, tokens, heads=1)


def decode_flops(shape: ModelShape, position: int) -> int:
    """FLOPs of one new token at ``position`` (from 1), the ones before it in the cache."""
    _within(shape, "position", position)
    return forward_flops(shape, position).total


def request_flops(shape: ModelShape, prompt: int, completion: int) -> float:
    """FLOPs of one request: ``completion`` tokens written after a ``prompt``. The last one written is never read."""
    _within(shape, "completion", completion)
    _within(shape, "prompt and completion", prompt + completion)
    return prefill_flops(shape, prompt) + _between(shape, prompt, prompt + completion - 1, heads=completion - 1)


def kv_cache_bytes(shape: ModelShape, tokens: int, bytes_per_value: float = 2.0) -> float:
    """Memory of the keys and values of ``tokens``: what grouped queries are for. None if there is a state instead."""
    if not forward_flops(shape, 1).scores:
        return 0.0
    return 2.0 * shape.layers * shape.kv_heads * shape.head_width * tokens * bytes_per_value


def _between(shape: ModelShape, first: int, last: int, heads: int) -> float:
    """Positions first + 1 to last, with the head at ``heads`` of them."""
    one = forward_flops(shape, 1)
    count, attended = last - first, (last * (last + 1) - first * (first + 1)) // 2
    every_token = one.total - one.scores - one.head
    return float(count * every_token + attended * one.scores + heads * one.head)


def _within(shape: ModelShape, name: str, tokens: int) -> None:
    if not 1 <= tokens <= shape.context:
        raise UserError(f"{name} is {tokens} tokens: the shape's context holds 1 to {shape.context}")
