"""Our Llama as transformers' ``LlamaForCausalLM``: the same arithmetic, its stacked matrices taken apart.

The factor of the logits goes into the last norm's scale, that of attention scores into the queries, and what a block's
output is multiplied with into the matrix that writes it, so that a head stays tied.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from trainer.models.llama import NORM_EPS, ROTARY_BASE
from trainer.models.model import LanguageModel

__all__ = ["config", "tensors"]


def config(model: LanguageModel) -> dict[str, Any]:
    shape = model.shape
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.width,
        "intermediate_size": shape.ffn_width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_width,
        "max_position_embeddings": shape.context,
        "rope_parameters": {"rope_type": "default", "rope_theta": ROTARY_BASE},
        "rms_norm_eps": NORM_EPS,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": shape.tied,
    }


def tensors(model: LanguageModel) -> dict[str, Tensor]:
    parts = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
    blocks = model.row_blocks()
    found: dict[str, Tensor] = {}
    for name, weight in model.state_dict().items():
        if name in blocks:
            stacked = name.split(".")[-2]
            for part, rows in zip(parts[stacked], weight.split(blocks[name]), strict=True):
                factor = model.scaling.scores if part == "q_proj" else 1.0
                found[f"model.{name.replace(stacked, part)}"] = rows * factor
        elif name == "lm_head.weight":
            if not model.shape.tied:
                found[name] = weight
        elif name == "norm.weight":
            found[f"model.{name}"] = weight * model.scaling.logits
        elif name.endswith(model.residual_writers):
            found[f"model.{name}"] = weight * model.scaling.residual
        else:
            found[f"model.{name}"] = weight
    return found
