"""Models whose authors published how they laid them out."""

from __future__ import annotations

from scaling.shape import ModelShape

LLAMA_405B = ModelShape(
    layers=126, width=16384, heads=128, kv_heads=8, ffn_width=53248, vocabulary=128_256, context=8192, tied=False
)
"""2407.21783, table 3."""
LLAMA_70B = ModelShape(
    layers=80, width=8192, heads=64, kv_heads=8, ffn_width=28672, vocabulary=128_256, context=8192, tied=False
)
LLAMA_8B = ModelShape(
    layers=32, width=4096, heads=32, kv_heads=8, ffn_width=14336, vocabulary=128_256, context=8192, tied=False
)
GPT3_175B = ModelShape(
    architecture="gpt2", layers=96, width=12288, heads=96, kv_heads=96, ffn_width=49152, vocabulary=51_200, context=2048
)
"""As Megatron trains it, 2205.05198, table 3."""
GPT_145B = GPT3_175B.model_copy(update={"layers": 80})
"""2104.04473, table 1."""
