"""A sentence with a given word in it: constrained continuation of any plain text, scored by rule.

The examples are sentences of a corpus; each is asked for by one of its longer words. An answer should hold the word,
be one sentence, have a sentence's length, and not say one word over and over: the score is the mean of the four.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from scaling.record import Record
from trainer.data.source import STARTER, open_source
from trainer.posttrain.examples import Example, asked

__all__ = ["Sentences"]

_SENTENCE = re.compile(r"(?<=[.!?])[\"'”’)]*\s+")
_WORD = re.compile(r"[A-Za-z]+(?:['’-][A-Za-z]+)*")
_PLAIN = re.compile(r"[A-Z][A-Za-z ,;:'’-]*[.!?]")
_END = re.compile(r"[.!?]")
_SHORTEST_WORD = 5
_OFTEN = 3


class Sentences(Record):
    """Settings and rule in one: equal settings give equal examples."""

    kind: Literal["sentences"] = "sentences"
    source: str = STARTER
    """Plain text, as a corpus's source is given."""
    text_key: str = "text"
    count: int = Field(default=20_000, ge=100)
    fewest_words: int = Field(default=6, ge=2)
    most_words: int = Field(default=14, ge=3)

    def examples(self) -> list[Example]:
        """``count`` sentences with different words, spread over the whole source by their hash."""
        ranked: list[tuple[bytes, str]] = []
        for _, document in open_source(self.source, self.text_key).documents():
            for found in _SENTENCE.split(document.text):
                sentence = " ".join(found.split())
                if _PLAIN.fullmatch(sentence) and self._fits(sentence):
                    ranked.append((hashlib.sha256(sentence.encode()).digest(), sentence))
        examples, seen = [], set()
        for digest, sentence in sorted(ranked):
            words = sorted({word.lower() for word in _WORD.findall(sentence) if len(word) >= _SHORTEST_WORD})
            if not words or sentence in seen:
                continue
            seen.add(sentence)
            word = words[digest[-1] % len(words)]
            examples.append(Example(prompt=asked(word), completion=sentence, columns={"word": word}))
            if len(examples) == self.count:
                break
        return examples

    def checks(self, completion: str, columns: Mapping[str, str]) -> dict[str, float]:
        text = completion.strip()
        words = [word.lower() for word in _WORD.findall(text)]
        ends = len(_END.findall(text.rstrip("\"'”’)")))
        most = max(Counter(word for word in words if len(word) > _SHORTEST_WORD - 2).values(), default=0)
        return {
            "word": float(columns["word"].lower() in words),
            "one_sentence": float(ends == 1 and _END.search(text.rstrip("\"'”’)")[-1:] or "") is not None),
            "length": float(self._fits(text)),
            "varied": float(bool(words) and most < _OFTEN),
        }

    def score(self, completion: str, columns: Mapping[str, str]) -> float:
        found = self.checks(completion, columns)
        return sum(found.values()) / len(found)

    def _fits(self, sentence: str) -> bool:
        return self.fewest_words <= len(_WORD.findall(sentence)) <= self.most_words
