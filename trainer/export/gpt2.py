"""Our GPT-2 as transformers' ``GPT2LMHeadModel``: the same names inside a layer, its matrices stored transposed.

The factor of the logits goes into the last norm, that of attention scores into the queries, and what a block's output
is multiplied with into the matrix and the bias that write it, so that a head stays tied.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from trainer.models.gpt2 import NORM_EPS
from trainer.models.model import LanguageModel

__all__ = ["config", "tensors"]

_OUTSIDE = {"embed_tokens.weight": "wte.weight", "embed_positions.weight": "wpe.weight"}


def config(model: LanguageModel) -> dict[str, Any]:
    shape = model.shape
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": shape.vocabulary,
        "n_embd": shape.width,
        "n_inner": shape.ffn_width,
        "n_layer": shape.layers,
        "n_head": shape.heads,
        "n_positions": shape.context,
        "layer_norm_epsilon": NORM_EPS,
        "activation_function": "gelu_new",
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "tie_word_embeddings": shape.tied,
    }


def tensors(model: LanguageModel) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight":
            if not model.shape.tied:
                found[name] = weight
        elif name in _OUTSIDE:
            found[f"transformer.{_OUTSIDE[name]}"] = weight
        elif name.startswith("norm."):
            found[f"transformer.ln_f.{name.removeprefix('norm.')}"] = weight * model.scaling.logits
        else:
            made = weight.T.clone() if weight.ndim == 2 else weight.clone()
            if ".c_attn." in name:
                made[..., : model.shape.width] *= model.scaling.scores  # the queries come first
            elif ".c_proj." in name:
                made *= model.scaling.residual
            found[f"transformer.h.{name.removeprefix('layers.')}"] = made
    return found
