"""ROUGE-L (Lin 2004) of one text with thousands at once: F = 2 LCS / (words of the one + words of the other).

The longest common subsequence by Hyyrö's bit-vectors (2004), V <- (V + (V & M)) | (V & ~M) for each word of the other
text, where M has the bits of the words of the query that equal it; LCS is the number of zeros. Here V is a vector of
64-bit integers, one for each kept text, so that a step serves them all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["RougeIndex", "words_of"]

_BITS = 64
_WIDTHS = (4, 6, 8, 10, 12, 14, 16, 20, 24, 32, 48, 64, 96, 160, 320)


def words_of(text: str) -> list[str]:
    """Lower-case runs of ASCII letters and digits, as the package rouge-score cuts; letters of other alphabets."""
    found = re.findall(r"[a-z0-9]+", text.lower())
    return found or re.findall(r"\w", text.lower())


class _Rows:
    """Texts of at most ``width`` words as a growing matrix of word ids; 0 fills up and equals no word."""

    def __init__(self, width: int) -> None:
        self.ids = np.zeros((width, 256), dtype=np.int32)
        self.lengths = np.zeros(256, dtype=np.int64)
        self.places = np.zeros(256, dtype=np.int64)
        self.used = 0

    def add(self, ids: Sequence[int], place: int) -> None:
        if self.used == self.lengths.size:
            self.ids = np.concatenate([self.ids, np.zeros_like(self.ids)], axis=1)
            self.lengths = np.concatenate([self.lengths, np.zeros_like(self.lengths)])
            self.places = np.concatenate([self.places, np.zeros_like(self.places)])
        self.ids[: len(ids), self.used] = ids
        self.lengths[self.used], self.places[self.used] = len(ids), place
        self.used += 1


class RougeIndex:
    """Texts that were kept, and how similar another is to each of them."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}
        self._rows: dict[int, _Rows] = {}
        self.size = 0

    def add(self, words: Sequence[str]) -> None:
        ids = [self._ids.setdefault(word, len(self._ids) + 1) for word in words]
        width = next((width for width in _WIDTHS if width >= len(ids)), len(ids))
        self._rows.setdefault(width, _Rows(width)).add(ids, self.size)
        self.size += 1

    def similarities(self, words: Sequence[str]) -> NDArray[np.float64]:
        """ROUGE-L of ``words`` with each text that was added, in their order; 0 where either has no word."""
        scores = np.zeros(self.size)
        if not words:
            return scores
        # More words than bits: the masks are of several integers, and what is added carries over.
        parts = -(-len(words) // _BITS)
        masks = np.zeros((parts, len(self._ids) + 1), dtype=np.uint64)
        for position, word in enumerate(words):
            if (known := self._ids.get(word)) is not None:
                masks[position // _BITS, known] |= np.uint64(1) << np.uint64(position % _BITS)
        last = np.uint64((1 << ((len(words) - 1) % _BITS + 1)) - 1)
        for rows in self._rows.values():
            used = rows.used
            state = np.full((parts, used), ~np.uint64(0))
            for ids in rows.ids[:, :used]:
                carry = np.zeros(used, dtype=np.uint64)
                for part in range(parts):
                    old = state[part]
                    met = old & masks[part][ids]
                    added = old + met
                    if parts > 1:
                        over = added < old
                        added = added + carry
                        carry = (over | (added < carry)).astype(np.uint64)
                    state[part] = added | (old - met)
            zeros = ~state
            zeros[-1] &= last
            common = np.bitwise_count(zeros).sum(axis=0)
            lengths = rows.lengths[:used]
            scores[rows.places[:used]] = np.where(lengths > 0, 2 * common / (lengths + len(words)), 0.0)
        return scores
