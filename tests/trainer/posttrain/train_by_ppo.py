"""A process that trains a tiny Llama by PPO: ``python train_by_ppo.py FOLDER`` prints the hash of its final weights."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from trainer.posttrain.ppo import PPOSettings, train_ppo


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    words = Tokenizer(WordLevel({"<end>": 0, "a": 1, "b": 2, "c": 3}, unk_token="<end>"))
    words.pre_tokenizer = Whitespace()
    config = LlamaConfig(
        vocab_size=4, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=16, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    policy = LlamaForCausalLM(config)

    def reward(*, completions: Any, **columns: Any) -> list[float]:
        return [float(text.count("a")) for text in completions]

    settings = PPOSettings(
        steps=25, answers_per_step=32, minibatch_answers=8, max_new_tokens=6, learning_rate=3e-3, kl_coefficient=0.1
    )
    train_ppo(
        policy,
        PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>"),
        ["a", "b c"],
        reward,
        settings,
        folder,
        log=lambda step, row: print(step, file=sys.stderr),
        note=lambda line: None,
        checkpoint_seconds=0.0,
    )
    digest = hashlib.sha256()
    for weight in policy.parameters():
        digest.update(weight.detach().numpy().tobytes())
    print(digest.hexdigest())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
