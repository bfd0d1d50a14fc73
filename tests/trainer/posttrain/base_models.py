"""A base model in a folder: a Llama of a few thousand weights and a byte-level tokenizer trained on a page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from trainer.data.tokenizer import train_tokenizer

_TEXT = (
    "The lighthouse stood alone on the rocks. A sailor knew every harbour by its lantern. "
    "She carried the letter to the garden and read it twice. Nobody remembered the winter when the river froze. "
)
SENTENCES = [
    "The sailor came home before the winter.",
    "A letter lay upon the table in the garden.",
    "She remembered every lantern of the harbour.",
    "Nobody read the letter that the sailor carried.",
    "The river froze in the middle of the winter.",
    "He stood alone beside the old lighthouse gate.",
]


def write_base(folder: Path, *, context: int = 64, layers: int = 2, seed: int = 0) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=train_tokenizer(iter([_TEXT * 4]), 300), eos_token="<|endoftext|>", bos_token="<|endoftext|>"
    )
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=layers, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=context, initializer_range=0.1, bos_token_id=0, eos_token_id=0,
        tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_corpus(path: Path, repeats: int = 60) -> Path:
    """Different sentences with the same words: the base's own, numbered by their names."""
    names = ("Anne", "Henry", "Clara", "Edmund", "Louisa", "George", "Harriet", "Walter", "Sophia", "Arthur")
    text = [
        sentence.replace("the ", f"the {word} ", 1).replace("letter", f"letter for {name}")
        for sentence in SENTENCES
        for name in names
        for word in ("gentle", "silent", "little", "famous", "broken", "golden")[: max(1, repeats // 10)]
    ]
    path.write_text(" ".join(text), encoding="utf-8")
    return path


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")
