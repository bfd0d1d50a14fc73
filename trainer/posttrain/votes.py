"""Which of two answers is better, by people or a judge: a log of votes, and the pairs that follow from it.

``pairs.votes.jsonl`` beside ``pairs.jsonl`` is the truth: a line a vote, ties and skips too, the later one of an
annotator holds. ``pairs.jsonl`` is made from it, whole each time, and has what training needs: a line ``{"prompt",
"chosen", "rejected", "annotator", "pair", "order"}`` for each vote that preferred one answer.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from scaling.errors import UserError
from scaling.record import Record, content_hash
from trainer.posttrain.json_lines import JsonLines, as_lines, read_json_lines
from trainer.whole_file import write_whole

__all__ = ["Comparison", "Vote", "Votes", "read_comparisons"]

Choice = Literal["first", "second", "tie", "skip"]
_NAMES = (("first", "second"), ("chosen", "rejected"), ("a", "b"), ("answer_a", "answer_b"))


class Comparison(Record):
    """Two answers to one prompt; which is first says nothing about which is better."""

    prompt: str
    first: str
    second: str

    @property
    def pair(self) -> str:
        """The same for the same texts, wherever they stand: 16 hexadecimal digits."""
        return content_hash(self.model_dump())[:16]


class Vote(Record):
    pair: str
    annotator: str
    choice: Choice | Literal["undo"]
    """``undo``: as if this annotator had not voted on the pair."""
    left: Literal["first", "second"] | None = None
    """Which answer stood on the left, or was read first."""
    seconds: float | None = None
    """From the showing to the choice."""
    at: float = Field(default_factory=time.time)
    """Seconds since the epoch."""
    details: dict[str, Any] | None = None
    """What a judge said in each order."""


def read_comparisons(path: Path) -> list[Comparison]:
    """From JSON lines with ``prompt`` and ``first``, ``second`` (or chosen, rejected; a, b; answer_a, answer_b).

    Prompt and answers are texts, or lists of messages with ``role`` and ``content``. Repeated pairs count once.
    """
    found: dict[str, Comparison] = {}
    for number, row in enumerate(read_json_lines(path), start=1):
        names = next((names for names in _NAMES if names[0] in row and names[1] in row), None)
        texts = [_text(row.get(name)) for name in ("prompt", *(names or ("first", "second")))]
        prompt, first, second = texts
        if prompt is None or first is None or second is None:
            raise UserError(
                f"{path}, pair {number}: a pair has the texts prompt, first and second (or chosen and rejected); "
                f"this one has {', '.join(row) or 'nothing'}"
            )
        comparison = Comparison(prompt=prompt, first=first, second=second)
        found.setdefault(comparison.pair, comparison)
    if not found:
        raise UserError(f"{path} holds no pair: give JSON lines with prompt, first and second")
    return list(found.values())


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    try:
        said = [(str(message["role"]), str(message["content"])) for message in value]
    except (TypeError, LookupError):
        return None
    return said[0][1] if len(said) == 1 else "\n\n".join(f"{role}: {content}" for role, content in said)


class Votes:
    """Votes on ``comparisons`` in ``out``; those of other processes are seen when :meth:`catch_up` is called."""

    def __init__(self, comparisons: Iterable[Comparison], out: Path) -> None:
        if out.suffix != ".jsonl":
            raise UserError(f"--out {out}: give a name that ends in .jsonl")
        self.out = out
        self.comparisons = {comparison.pair: comparison for comparison in comparisons}
        log = out.with_suffix(".votes.jsonl")
        if out.exists() and not log.exists():
            raise UserError(
                f"--out {out} already exists and was not made here ({log.name} is missing): give another name"
            )
        self._log = JsonLines(log)
        self._held: dict[tuple[str, str], Vote] = {}
        self.catch_up()

    @property
    def log_file(self) -> Path:
        return self._log.path

    def add(self, vote: Vote) -> None:
        """Written to the disk before it counts."""
        if vote.pair not in self.comparisons:
            raise UserError(f"there is no pair {vote.pair!r} here")
        self._log.add(vote.model_dump(mode="json", exclude_none=True))
        self.catch_up()

    def catch_up(self) -> None:
        for row in self._log.news():
            try:
                vote = Vote.model_validate(row)
            except ValidationError:
                raise UserError(f"{self._log.path} is damaged or of another version: move it away") from None
            # Taken out first, so that the order of what is held is that of the votes.
            self._held.pop((vote.pair, vote.annotator), None)
            if vote.choice != "undo":
                self._held[vote.pair, vote.annotator] = vote

    def of(self, annotator: str) -> dict[str, Vote]:
        """By pair, in the order of voting; only of pairs that are here."""
        return {pair: vote for (pair, who), vote in self._held.items() if who == annotator and pair in self.comparisons}

    def counts(self, annotator: str) -> dict[str, int]:
        choices = [vote.choice for vote in self.of(annotator).values()]
        return {
            "pairs": len(self.comparisons),
            "voted": len(choices),
            "preferred": sum(choice in ("first", "second") for choice in choices),
            "ties": choices.count("tie"),
            "skipped": choices.count("skip"),
            "left_chosen": sum(vote.choice == vote.left for vote in self.of(annotator).values()),
        }

    def write_pairs(self) -> None:
        """``out`` anew from all votes on pairs that are here."""
        rows = []
        for (pair, annotator), vote in self._held.items():
            comparison = self.comparisons.get(pair)
            if comparison is None or vote.choice not in ("first", "second"):
                continue
            texts = (comparison.first, comparison.second)
            chosen, rejected = texts if vote.choice == "first" else texts[::-1]
            row: dict[str, Any] = {
                "prompt": comparison.prompt,
                "chosen": chosen,
                "rejected": rejected,
                "annotator": annotator,
                "pair": pair,
                "chosen_label": vote.choice,
            }
            if vote.left is not None:
                row["order"] = ["first", "second"] if vote.left == "first" else ["second", "first"]
            rows.append(row | (vote.details or {}))
        write_whole(self.out, as_lines(rows))
