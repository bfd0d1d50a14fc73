"""The account of activations that plans rest on, against those that torch keeps (counted on tensors without memory)."""

from __future__ import annotations

import pytest

from scaling.cost.memory import head_activation_bytes, layer_activation_bytes
from scaling.run_spec import OptimizerSpec
from scaling.shape import ModelShape
from trainer.loop.memory import estimate_memory
from trainer.loop.numerics import Numerics

ADAMW = OptimizerSpec(learning_rate=1e-3)


@pytest.mark.parametrize(
    "shape",
    [
        ModelShape(layers=4, width=256, heads=4, kv_heads=4, ffn_width=704, vocabulary=1024, context=256),
        ModelShape(layers=8, width=512, heads=8, kv_heads=2, ffn_width=1408, vocabulary=4096, context=512),
        ModelShape(layers=12, width=768, heads=12, kv_heads=12, ffn_width=2048, vocabulary=8192, context=1024),
        ModelShape(
            architecture="gpt2", layers=6, width=384, heads=6, kv_heads=6, ffn_width=1536, vocabulary=4096, context=256
        ),
        ModelShape(
            architecture="gpt2",
            layers=12,
            width=768,
            heads=12,
            kv_heads=12,
            ffn_width=3072,
            vocabulary=8192,
            context=1024,
        ),
    ],
    ids=lambda shape: f"{shape.architecture}-{shape.width}x{shape.layers}",
)
def test_the_account_is_what_torch_keeps_to_within_three_percent(shape: ModelShape) -> None:
    """In fp32 with plain operators; the trainer's loss keeps no logits. In bf16 on a CPU attention and norms stay in
    fp32, so that more is kept there than the account says."""
    numerics = Numerics(precision="fp32")
    one, two = (estimate_memory(shape, rows, numerics, ADAMW).activations for rows in (2, 4))
    measured = (two - one) / 2
    layers = shape.layers * layer_activation_bytes(shape, shape.context, value_bytes=4, fused_kernels=False)
    account = layers + head_activation_bytes(shape, shape.context, value_bytes=4, logits_bytes=0)
    assert account == pytest.approx(measured, rel=0.03)
    assert estimate_memory(shape, 2, numerics.model_copy(update={"recompute": True}), ADAMW).activations < one
