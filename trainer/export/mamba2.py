"""Our Mamba-2 as transformers' ``Mamba2ForCausalLM``: the same names inside a layer.

The factor of the logits goes into the last norm's scale, and what a block's output is multiplied with into the matrix
that writes it, so that a head stays tied.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from scaling.architectures.mamba2 import CONVOLUTION, EXPANSION, chunk_length
from trainer.models.mamba2 import NORM_EPS
from trainer.models.model import LanguageModel

__all__ = ["config", "tensors"]

_OUTSIDE = {"embed_tokens.weight": "embeddings.weight", "norm.weight": "norm_f.weight"}


def config(model: LanguageModel) -> dict[str, Any]:
    shape = model.shape
    return {
        "architectures": ["Mamba2ForCausalLM"],
        "model_type": "mamba2",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.width,
        "num_hidden_layers": shape.layers,
        "num_heads": shape.heads,
        "head_dim": shape.ffn_width // shape.heads,
        "state_size": shape.state_width,
        "n_groups": shape.kv_heads,
        "expand": EXPANSION,
        "conv_kernel": CONVOLUTION,
        "chunk_size": chunk_length(shape.context),
        "layer_norm_epsilon": NORM_EPS,
        "hidden_act": "silu",
        "use_bias": False,
        "use_conv_bias": True,
        "tie_word_embeddings": shape.tied,
    }


def tensors(model: LanguageModel) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight":
            if not model.shape.tied:
                found[name] = weight
        elif name == "norm.weight":
            found[f"backbone.{_OUTSIDE[name]}"] = weight * model.scaling.logits
        elif name.endswith(model.residual_writers):
            found[f"backbone.{name}"] = weight * model.scaling.residual
        else:
            found[f"backbone.{_OUTSIDE.get(name, name)}"] = weight
    return found
