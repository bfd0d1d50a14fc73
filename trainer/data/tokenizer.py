"""Byte-level BPE (Sennrich et al. 1508.07909, over bytes as in GPT-2): trained on the training part, or loaded.

Text is first split by the regular expression of Llama 3 (that of GPT-4's cl100k), which keeps words with their leading
space and numbers in groups of up to three digits. Every byte is a token, so nothing is out of vocabulary and each
token stands for a known number of bytes of UTF-8: what turns a loss in nats a token into bits per byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from scaling.errors import UserError

__all__ = ["SEPARATOR", "SMALLEST_VOCABULARY", "load_tokenizer", "separator_id", "token_bytes", "train_tokenizer"]

SEPARATOR = "<|endoftext|>"
SMALLEST_VOCABULARY = 257
"""All bytes and the separator."""

PRE_TOKENIZATION = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# The separator under the names that published tokenizers give it.
_SEPARATORS = (SEPARATOR, "<|end_of_text|>", "<|im_end|>", "<|eos|>", "</s>", "<eos>")


def train_tokenizer(texts: Iterator[str], vocabulary: int) -> Tokenizer:
    """A tokenizer of exactly ``vocabulary`` tokens, the separator being token 0; equal texts give equal tokenizers.

    :class:`UserError` if ``vocabulary`` is under 257, or more than the texts can fill.
    """
    if vocabulary < SMALLEST_VOCABULARY:
        raise UserError(
            f"vocabulary {vocabulary} is too small: byte-level BPE has 256 bytes and a separator, so give at least "
            f"{SMALLEST_VOCABULARY}"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRE_TOKENIZATION), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=[SEPARATOR],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    reached = tokenizer.get_vocab_size()
    if reached != vocabulary:
        raise UserError(
            f"vocabulary {vocabulary} is too large for this corpus: its training part fills {reached} tokens; give at "
            f"most {reached}, or more text"
        )
    tokenizer.encode_special_tokens = True
    return tokenizer


def load_tokenizer(path: Path) -> Tokenizer:
    """The byte-level tokenizer in ``path`` (a ``tokenizer.json``), without truncation or padding.

    :class:`UserError` if the file is missing, is no tokenizer, is not byte-level, or has no separator.
    """
    if not path.is_file():
        raise UserError(f"tokenizer {path} is not a file: give a tokenizer.json, or none to train one")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    # The library raises bare Exception, with the parser's message, for whatever it can't read.
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"tokenizer {path} can't be read ({reason}): give a tokenizer.json of `tokenizers`") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    # Text that happens to spell a special token is text; only we put separators.
    tokenizer.encode_special_tokens = True
    if not isinstance(tokenizer.decoder, decoders.ByteLevel):
        raise UserError(
            f"tokenizer {path} is not byte-level (its decoder is {type(tokenizer.decoder).__name__}): bytes can't be "
            "counted by token; give a byte-level BPE, or none to train one"
        )
    separator_id(tokenizer, str(path))
    return tokenizer


def separator_id(tokenizer: Tokenizer, name: str = "tokenizer") -> int:
    """The token between pieces; :class:`UserError` if the tokenizer has none that is known."""
    for separator in _SEPARATORS:
        token = tokenizer.token_to_id(separator)
        if token is not None:
            return int(token)
    raise UserError(f"{name} has no token to put between pieces: it needs one of {', '.join(_SEPARATORS)}")


def token_bytes(tokenizer: Tokenizer) -> NDArray[np.uint16]:
    """UTF-8 bytes that each token stands for, uint16 [vocabulary]; 0 for the special ones.

    In the byte-level alphabet each character is one byte. Ids that no token has count 0.
    """
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    added = tokenizer.get_added_tokens_decoder()
    lengths = np.zeros(max(vocabulary.values()) + 1, dtype=np.int64)
    for token, index in vocabulary.items():
        lengths[index] = len(token)
    for index, added_token in added.items():
        lengths[index] = 0 if added_token.special else len(added_token.content.encode())
    lengths[separator_id(tokenizer)] = 0
    if lengths.max() > np.iinfo(np.uint16).max:
        raise UserError(f"tokenizer has a token of {lengths.max():,} bytes: at most 65,535 can be counted")
    return lengths.astype(np.uint16)
