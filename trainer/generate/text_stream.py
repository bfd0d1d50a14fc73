"""Tokens to text as they come: a character whose bytes lie in several tokens appears once, when it is whole."""

from __future__ import annotations

import codecs

from tokenizers import Tokenizer, pre_tokenizers

__all__ = ["TextStream"]


class TextStream:
    """The pieces that :meth:`add` and :meth:`end` return are together what the tokenizer decodes all tokens to.

    Special tokens are no text. Bytes that are not UTF-8 become U+FFFD.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder()
        self._special = {index for index, token in added.items() if token.special}
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, token: int) -> str:
        """The text that is certain now; often that of the token, empty while a character lacks bytes."""
        word = None if token in self._special else self._tokenizer.id_to_token(token)
        return "" if word is None else self._decoder.decode(_bytes_of(word))

    def end(self) -> str:
        """What is left: U+FFFD if the last character never became whole."""
        return self._decoder.decode(b"", final=True)


def _bytes_of(word: str) -> bytes:
    """In the byte-level alphabet each character is one byte; a word with another character stands for itself."""
    try:
        return bytes(_BYTE_OF[character] for character in word)
    except KeyError:
        return word.encode()


def _byte_level_alphabet() -> dict[str, int]:
    """GPT-2's: printable bytes of Latin-1 are their own characters, the others are numbered from U+0100 on."""
    alphabet = set(pre_tokenizers.ByteLevel.alphabet())
    own = {chr(byte): byte for byte in range(256) if chr(byte) in alphabet}
    others = sorted(set(range(256)) - set(own.values()))
    return own | {chr(0x100 + number): byte for number, byte in enumerate(others)}


_BYTE_OF = _byte_level_alphabet()
