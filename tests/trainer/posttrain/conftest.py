"""Tiny transformers models and a tokenizer of whole words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

WORDS = ("<end>", "ask", "a", "b", "c", "d")
"""Token 0 ends an answer."""


@pytest.fixture
def tiny_llama() -> Callable[..., Any]:
    """A Llama with random weights, and logits far enough from even to tell a mistake."""
    from transformers import LlamaConfig, LlamaForCausalLM

    def make(vocabulary: int = len(WORDS), *, width: int = 32, layers: int = 2, seed: int = 0) -> Any:
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=vocabulary, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=48, initializer_range=0.2,
            bos_token_id=0, eos_token_id=0, pad_token_id=None,
        )  # fmt: skip
        return LlamaForCausalLM(config).eval()

    return make


@pytest.fixture(scope="session")
def word_tokenizer() -> Any:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(WordLevel({word: at for at, word in enumerate(WORDS)}, unk_token="<end>"))
    tokenizer.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>")
