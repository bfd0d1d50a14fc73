"""Cutting loses nothing, keeps to its limit and prefers chapters; the split depends on a piece's text alone."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.errors import UserError
from trainer.data.pieces import cut, order_key, split_of
from trainer.data.source import open_source

FRAGMENTS = [
    "CHAPTER IV\n\n",
    "\n\n",
    "\n",
    "word ",
    "Sentence end. ",
    "größer",
    "多い",
    "🙂",
    "\r\n\r\n",
    "x" * 90,
    " \t",
    "é",
]


@given(st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=30), max_size=60).map("".join), st.integers(64, 400))
def test_pieces_joined_are_the_text_and_none_is_over_the_limit(text: str, limit: int) -> None:
    cuts = cut(text, limit)
    assert "".join(cuts) == text
    assert all(0 < len(piece.encode()) <= limit for piece in cuts)


def test_the_starter_loses_no_character_and_gives_hundreds_of_held_out_pieces() -> None:
    held_out, works, total = 0, set(), 0
    for _, document in open_source("starter").documents():
        cuts = cut(document.text, 4096)
        assert "".join(cuts) == document.text
        assert max(len(piece.encode()) for piece in cuts) <= 4096
        kept = [piece for piece in cuts if split_of(piece, 0.05) == "held_out"]
        held_out, total = held_out + len(kept), total + len(cuts)
        works |= {document.work for _ in kept}
    assert held_out >= 200
    assert len(works) >= 60
    # Binomial: the share is within four standard deviations of what was asked.
    assert abs(held_out - 0.05 * total) < 4 * (0.05 * 0.95 * total) ** 0.5


def test_a_text_within_the_limit_is_one_piece_and_no_text_is_none() -> None:
    assert cut("CHAPTER I\n\nshort\n\nCHAPTER II\n\nshort", 64) == ["CHAPTER I\n\nshort\n\nCHAPTER II\n\nshort"]
    assert cut("", 64) == []


@pytest.mark.parametrize(
    "style", ["CHAPTER {r}", "Chapter {n}", "# Title {n}", "{r}.", "Genesis {n}", "Scene {r}. A room."]
)
def test_a_long_text_is_cut_before_each_chapter(style: str) -> None:
    romans = ["I", "II", "III", "IV", "V"]
    chapters = [
        style.format(r=roman, n=number) + "\n\n" + "It was a day like others.\n\n" * 12
        for number, roman in enumerate(romans, 1)
    ]
    assert cut("".join(chapters), 512) == chapters


def test_headings_with_nothing_under_them_stay_with_their_chapter() -> None:
    scenes = "ACT I\n\nScene I\n\n" + "Enter two men.\n\n" * 30 + "ACT II\n\nScene I\n\n" + "Exeunt.\n\n" * 50
    assert [piece[:6] for piece in cut(scenes, 512)] == ["ACT I\n", "ACT II"]


def test_prose_is_cut_between_sentences_where_a_paragraph_is_too_long() -> None:
    text = "A sentence of some length stands here. " * 50
    assert all(piece.endswith(". ") for piece in cut(text, 256))


def test_pieces_of_a_long_chapter_are_of_like_size() -> None:
    sizes = [len(piece) for piece in cut("Forty characters and a few more of them.\n\n" * 100, 1024)]
    assert max(sizes) - min(sizes) <= 2 * 42


def test_a_limit_that_is_too_small_is_refused() -> None:
    with pytest.raises(UserError, match="cut_bytes 63 is too small"):
        cut("text", 63)


@given(st.text(min_size=1), st.floats(0.01, 0.5), st.floats(0.01, 0.5))
def test_raising_the_share_only_moves_pieces_into_the_held_out_side(text: str, one: float, other: float) -> None:
    low, high = sorted((one, other))
    if split_of(text, low) == "held_out":
        assert split_of(text, high) == "held_out"


def test_the_split_is_the_same_on_every_machine() -> None:
    """Recorded once; a change here would silently make another held-out set."""
    sides = "".join(split_of(f"piece {i}", 0.3)[0] for i in range(24))
    assert sides == "hthththtttthtthhttttthht"


def test_the_order_mixes_and_keeps_copies_apart() -> None:
    keys = [order_key("the same text", ordinal) for ordinal in range(1000)]
    assert len(set(keys)) == 1000
    rising = sum(later > earlier for earlier, later in itertools.pairwise(keys))
    assert 420 < rising < 580
    assert all(0 <= key < 2**63 for key in keys)
