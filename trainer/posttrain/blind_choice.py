"""A person's turn through pairs: which comes next, on which side each answer stands, and taking a choice back."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import Literal

from scaling.errors import UserError
from trainer.posttrain.votes import Comparison, Vote, Votes

__all__ = ["BlindChoice", "Shown"]

Side = Literal["left", "right", "tie", "skip"]


@dataclass(frozen=True)
class Shown:
    pair: str
    prompt: str
    left: str
    right: str


class BlindChoice:
    """``annotator`` votes on pairs in an order, and with sides, that follow from ``seed`` and the pair alone."""

    def __init__(self, votes: Votes, annotator: str, seed: int = 0) -> None:
        if not annotator.strip() or not annotator.isprintable():
            raise UserError(f"--annotator {annotator!r}: give a name of printable characters")
        self.votes, self.annotator, self._seed = votes, annotator, seed
        self._order = sorted(votes.comparisons, key=lambda pair: self._drawn(pair, "order"))
        self._shown_at: tuple[str, float] = ("", 0.0)
        votes.write_pairs()

    def _drawn(self, pair: str, what: str) -> bytes:
        return hashlib.sha256(f"{self._seed}/{what}/{pair}".encode()).digest()

    def _left(self, pair: str) -> Literal["first", "second"]:
        return "first" if self._drawn(pair, "side")[0] % 2 else "second"

    def next(self) -> Shown | None:
        """The first pair without a vote of this annotator; None at the end."""
        voted = self.votes.of(self.annotator)
        pair = next((pair for pair in self._order if pair not in voted), None)
        if pair is None:
            return None
        if self._shown_at[0] != pair:
            self._shown_at = (pair, time.monotonic())
        comparison: Comparison = self.votes.comparisons[pair]
        texts = (comparison.first, comparison.second)
        left, right = texts if self._left(pair) == "first" else texts[::-1]
        return Shown(pair=pair, prompt=comparison.prompt, left=left, right=right)

    def choose(self, pair: str, side: Side) -> None:
        """Vote on ``pair``; a second time on one that has a vote (two tabs, a repeated request) changes nothing."""
        if pair in self.votes.of(self.annotator):
            return
        left = self._left(pair)
        choice: Literal["first", "second", "tie", "skip"]
        if side in ("tie", "skip"):
            choice = "tie" if side == "tie" else "skip"
        else:
            choice = left if side == "left" else ("second" if left == "first" else "first")
        shown, since = self._shown_at
        seconds = round(time.monotonic() - since, 2) if shown == pair else None
        self.votes.add(Vote(pair=pair, annotator=self.annotator, choice=choice, left=left, seconds=seconds))
        self.votes.write_pairs()

    def undo(self) -> str | None:
        """Take back the last vote of this annotator; its pair comes next. None if there is none."""
        voted = list(self.votes.of(self.annotator))
        if not voted:
            return None
        self.votes.add(Vote(pair=voted[-1], annotator=self.annotator, choice="undo"))
        self.votes.write_pairs()
        return voted[-1]
