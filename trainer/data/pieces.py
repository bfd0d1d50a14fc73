"""Cutting long documents at chapters and paragraphs, and the stable split of the pieces into training and held-out.

Whether a piece is held out depends on its text alone: adding or removing other documents moves no piece across, and
two copies of a text always lie on the same side.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Literal

from scaling.errors import UserError

__all__ = ["CUT_BYTES", "SALT", "cut", "order_key", "split_of"]

CUT_BYTES = 16384
SALT = "pieces/1"
"""Changed, it draws another split and another order of the pieces."""

_SMALLEST_CUT_BYTES = 64

_PARAGRAPH = re.compile(r"\n(?:[ \t]*\r?\n)+")
_LINE = re.compile(r"\n")
_SENTENCE = re.compile(r"[.!?][\"'”’)\]]*\s+|[。！？]")
_SPACE = re.compile(r"\s+")
_LEVELS = (_PARAGRAPH, _LINE, _SENTENCE, _SPACE)

# The first line of a paragraph that opens a chapter: "CHAPTER IV", "Scene II. A room", "# Title", "XIV", "Genesis 3".
_HEADING = re.compile(
    r"[ \t]*(?:"
    r"(?i:chapter|book|volume|part|act|scene|canto|letter|section|psalm|sonnet|stave|appendix)"
    r"[ \t]+(?:[0-9]{1,4}|[IVXLCDMivxlcdm]+|[A-Z]|[A-Z][A-Za-z-]{2,14})\b[^\n]{0,80}"
    r"|\#{1,6}[ \t]+[^\n]{1,120}"
    r"|[IVXLCDM]{1,8}\.?"
    r"|(?:[1-3][ ])?[A-Z][a-z]+(?:[ ](?:of|[A-Z][a-z]+)){0,3}[ ][0-9]{1,3}"
    r")[ \t]*\r?(?:\n|\Z)"
)


def cut(text: str, cut_bytes: int = CUT_BYTES) -> list[str]:
    """Pieces of ``text`` that joined are ``text`` again, each of at most ``cut_bytes`` bytes of UTF-8.

    A text within the limit is one piece. A longer one is cut before every chapter heading (unless that would leave
    less than an eighth of the limit), and a chapter over the limit into pieces of like size between paragraphs; where
    a paragraph is over it, between lines, sentences, words, and at last characters. :class:`UserError` if
    ``cut_bytes`` is under 64.
    """
    if cut_bytes < _SMALLEST_CUT_BYTES:
        raise UserError(
            f"cut_bytes {cut_bytes} is too small: give at least {_SMALLEST_CUT_BYTES} ({CUT_BYTES} is usual)"
        )
    if not text:
        return []
    if _size(text) <= cut_bytes:
        return [text]
    return [piece for chapter in _chapters(text, cut_bytes // 8) for piece in _fit(chapter, cut_bytes)]


def split_of(text: str, held_out: float, salt: str = SALT) -> Literal["train", "held_out"]:
    """The side of the split that a piece lies on; ``held_out`` is the expected share of pieces held out, in (0, 1)."""
    digest = hashlib.sha256(f"{salt}/split/".encode() + text.encode()).digest()
    return "held_out" if int.from_bytes(digest[:8], "big") < held_out * 2**64 else "train"


def order_key(text: str, ordinal: int, salt: str = SALT) -> int:
    """Rank, in [0, 2**63), of a piece in the shuffled stream; ``ordinal`` keeps copies of one text apart."""
    digest = hashlib.sha256(f"{salt}/order/{ordinal}/".encode() + text.encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _split_after(pattern: re.Pattern[str], text: str) -> list[str]:
    ends = [match.end() for match in pattern.finditer(text)]
    starts = [0, *ends]
    return [text[start:end] for start, end in zip(starts, [*ends, len(text)], strict=True) if start < end]


def _chapters(text: str, smallest: int) -> list[str]:
    chapters: list[str] = []
    paragraphs: list[str] = []
    size = 0
    for paragraph in _split_after(_PARAGRAPH, text):
        # Title pages, tables of contents and "ACT I" above "Scene I" are headings with nothing under them.
        if size >= smallest and _HEADING.match(paragraph):
            chapters.append("".join(paragraphs))
            paragraphs, size = [], 0
        paragraphs.append(paragraph)
        size += _size(paragraph)
    last = "".join(paragraphs)
    if chapters and size < smallest:
        chapters[-1] += last
    else:
        chapters.append(last)
    return chapters


def _fit(text: str, limit: int) -> list[str]:
    size = _size(text)
    if size <= limit:
        return [text]
    # Pieces of like size: filling each to the limit would leave a crumb at the end of most chapters.
    like_size = size / -(-size // limit)
    pieces: list[str] = []
    current: list[str] = []
    filled = 0
    for atom in _atoms(text, limit):
        atom_size = _size(atom)
        if current and (filled + atom_size > limit or filled + atom_size / 2 > like_size):
            pieces.append("".join(current))
            current, filled = [], 0
        current.append(atom)
        filled += atom_size
    last = "".join(current)
    if pieces and filled < limit // 8 and _size(pieces[-1]) + filled <= limit:
        pieces[-1] += last
    else:
        pieces.append(last)
    return pieces


def _atoms(text: str, limit: int, levels: tuple[re.Pattern[str], ...] = _LEVELS) -> Iterator[str]:
    """Parts of ``text`` between which it may be cut, none over ``limit``: the finer levels only where they must."""
    for part in _split_after(levels[0], text):
        if _size(part) <= limit:
            yield part
        elif len(levels) > 1:
            yield from _atoms(part, limit, levels[1:])
        else:
            yield from _between_characters(part, limit)


def _between_characters(text: str, limit: int) -> list[str]:
    data = text.encode()
    pieces = []
    start = 0
    while start < len(data):
        end = min(start + limit, len(data))
        while end < len(data) and data[end] & 0xC0 == 0x80:
            end -= 1
        pieces.append(data[start:end].decode())
        start = end
    return pieces
