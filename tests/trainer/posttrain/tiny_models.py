"""Models of a few thousand weights in the Hugging Face layout, with and without a chat template."""

from __future__ import annotations

import json
from pathlib import Path

from trainer.data.tokenizer import train_tokenizer
from trainer.export.hugging_face import configuration_files

CONTEXT = 64
TEMPLATE = (
    "{% for message in messages %}[{{ message['role'] }}]{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def tiny_model(folder: Path, *, template: str | None = TEMPLATE, context: int = CONTEXT, ends: bool = True) -> Path:
    """A Llama of random weights large enough that its choices are uneven, written as our export writes one.

    ends: whether it has a token that ends an answer.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    tokenizer = train_tokenizer(iter(["the cat sat on the mat and sat — naïve 🦜 "] * 50), 280)
    config = LlamaConfig(
        vocab_size=280,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        initializer_range=0.5,
        bos_token_id=0,
        eos_token_id=0 if ends else None,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save(str(folder / "own.json"))
    for name, content in configuration_files({}, tokenizer, folder / "own.json", context).items():
        if name not in ("config.json", "generation_config.json"):
            (folder / name).write_bytes(content)
    (folder / "own.json").unlink()
    settings = json.loads((folder / "tokenizer_config.json").read_text()) | {"chat_template": template}
    if not ends:
        del settings["eos_token"]
        (folder / "special_tokens_map.json").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder
