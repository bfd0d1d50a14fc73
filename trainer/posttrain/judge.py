"""A model as judge over pairs: each is asked in both orders, and preferred is what is better in both.

A judge leans to a place (Zheng et al. 2306.05685), so an answer that wins in one order alone is a tie. Each reply is
written down when it comes (``pairs.judged.jsonl``); a stopped judge goes on with what is missing.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from scaling.errors import UserError
from scaling.record import Record
from trainer.posttrain.json_lines import JsonLines
from trainer.posttrain.text_model import Answer, Asked, Message, TextModel, ask_all
from trainer.posttrain.votes import Comparison, Vote, Votes

__all__ = ["SCHEMA", "JudgeReport", "default_template", "judge", "verdict_of"]

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"reason": {"type": "string"}, "better": {"type": "string", "enum": ["1", "2", "tie"]}},
    "required": ["reason", "better"],
    "additionalProperties": False,
}
_PLACES = ("PROMPT", "ANSWER_1", "ANSWER_2")

Order = Literal["first", "second"]
"""Which answer the judge reads first."""
Better = Literal["first", "second", "tie", "refused", "unreadable"]


class _Reply(Record):
    pair: str
    judge: str
    order: Order
    better: Better
    reason: str
    prompt_tokens: int | None
    completion_tokens: int | None


class JudgeReport(Record):
    pairs: int
    judged: int
    """In both orders, with a verdict in each."""
    preferred: int
    ties: int
    """All that were not preferred: a tie in both orders, or the orders disagree."""
    consistent: int
    """Pairs with the same verdict in both orders."""
    first_place_wins: int
    second_place_wins: int
    """Verdicts for the answer that was read first, and second, over both orders."""
    refused: int
    unreadable: int
    """Replies. Their pairs have no verdict and are asked again when the judge is started again."""
    requests: int
    prompt_tokens: int
    completion_tokens: int

    @property
    def consistency(self) -> float | None:
        return self.consistent / self.judged if self.judged else None


def default_template() -> str:
    return files("trainer.posttrain").joinpath("judge_prompt.txt").read_text(encoding="utf-8")


def verdict_of(answer: Answer, order: Order) -> tuple[Better, str]:
    """Which answer a reply prefers, and why; read strictly, else once leniently, as servers without schemas need."""
    if answer.ended == "refused":
        return "refused", answer.text[:500]
    found = _strictly(answer.text) or _leniently(answer.text)
    if found is None:
        return "unreadable", answer.text[:500]
    word, reason = found
    if word == "tie":
        return "tie", reason
    other: Order = "second" if order == "first" else "first"
    return (order if word == "1" else other), reason


def _strictly(text: str) -> tuple[str, str] | None:
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return _read(said)


def _read(said: Any) -> tuple[str, str] | None:
    if not isinstance(said, dict):
        return None
    word = str(said.get("better")).strip().lower()
    word = re.sub(r"^answer[ _]?", "", word)
    return (word, str(said.get("reason", ""))[:500]) if word in ("1", "2", "tie") else None


def _leniently(text: str) -> tuple[str, str] | None:
    """The last JSON object inside other text that has a verdict; else a verdict in words, if there is one alone."""
    decoder = json.JSONDecoder()
    for at in reversed([found.start() for found in re.finditer(r"\{", text)]):
        try:
            said, _ = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            continue
        if (read := _read(said)) is not None:
            return read
    words = {found.lower() for found in re.findall(r"better\W{1,6}(?:answer[ _]?)?(1|2|tie)\b", text, re.IGNORECASE)}
    return (words.pop(), text[:500]) if len(words) == 1 else None


def judge(
    model: TextModel,
    votes: Votes,
    *,
    template: str | None = None,
    temperature: float = 0.0,
    most_tokens: int = 512,
    tell: Callable[[JudgeReport], None] = lambda report: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> JudgeReport:
    """Judge all pairs of ``votes`` without a verdict of ``model``; one vote a pair, with what was said in each order.

    template: a text with PROMPT, ANSWER_1 and ANSWER_2, each once.
    """
    template = default_template() if template is None else template
    for place in _PLACES:
        if len(re.findall(rf"\b{place}\b", template)) != 1:
            raise UserError(f"the judge's template has to have {place} once, where that text goes")
    log = JsonLines(_log_path(votes.out))
    replies: dict[tuple[str, Order], _Reply] = {}
    spent = _Spent()
    for row in log.news():
        try:
            reply = _Reply.model_validate(row)
        except ValidationError:
            raise UserError(f"{log.path} is damaged or of another version: move it away") from None
        if reply.judge == model.name:
            spent.add(reply)
            if reply.better not in ("refused", "unreadable"):
                replies[reply.pair, reply.order] = reply

    def requests() -> Iterator[tuple[tuple[Comparison, Order], list[Message], int]]:
        orders: tuple[Order, Order] = ("first", "second")
        for comparison in votes.comparisons.values():
            for order in orders:
                if should_stop():
                    return
                if (comparison.pair, order) not in replies:
                    text = _filled(template, comparison, order)
                    yield (comparison, order), [Message(role="user", content=text)], 0

    def report() -> JudgeReport:
        return _report(votes, replies, spent)

    _vote_all(votes, replies, model.name)
    tell(report())
    tell_at = time.monotonic()
    asked = Asked(most_tokens=most_tokens, temperature=temperature, json_schema=SCHEMA)
    for (comparison, order), answer in ask_all(model, requests(), asked):
        better, reason = verdict_of(answer, order)
        reply = _Reply(
            pair=comparison.pair,
            judge=model.name,
            order=order,
            better=better,
            reason=reason,
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.completion_tokens,
        )
        log.add(reply.model_dump(mode="json"))
        spent.add(reply)
        if better not in ("refused", "unreadable"):
            replies[comparison.pair, order] = reply
            _vote(votes, replies, comparison.pair, model.name)
        # A report counts all pairs anew, which shouldn't take longer than the judge.
        if time.monotonic() >= tell_at:
            tell(report())
            tell_at = time.monotonic() + 0.5
    votes.write_pairs()
    tell(report())
    return report()


def _log_path(out: Path) -> Path:
    return out.with_suffix(".judged.jsonl")


class _Spent:
    """What was asked and what it took, replies without a verdict included."""

    def __init__(self) -> None:
        self.requests = self.refused = self.unreadable = self.prompt_tokens = self.completion_tokens = 0

    def add(self, reply: _Reply) -> None:
        self.requests += 1
        self.refused += reply.better == "refused"
        self.unreadable += reply.better == "unreadable"
        self.prompt_tokens += reply.prompt_tokens or 0
        self.completion_tokens += reply.completion_tokens or 0


def _filled(template: str, comparison: Comparison, order: Order) -> str:
    texts = (comparison.first, comparison.second)
    one, two = texts if order == "first" else texts[::-1]
    into = dict(zip(_PLACES, (comparison.prompt, one, two), strict=True))
    # In one pass: a text that holds the name of a place is a text.
    return re.sub(rf"\b(?:{'|'.join(_PLACES)})\b", lambda found: into[found[0]], template)


def _vote(votes: Votes, replies: dict[tuple[str, Order], _Reply], pair: str, name: str) -> None:
    one, two = replies.get((pair, "first")), replies.get((pair, "second"))
    if one is None or two is None:
        return
    choice: Literal["first", "second", "tie"] = "tie"
    if one.better == two.better and one.better in ("first", "second"):
        choice = "first" if one.better == "first" else "second"
    told = [{"order": reply.order, "better": reply.better, "reason": reply.reason} for reply in (one, two)]
    votes.add(Vote(pair=pair, annotator=name, choice=choice, details={"orders": told}))


def _vote_all(votes: Votes, replies: dict[tuple[str, Order], _Reply], name: str) -> None:
    """Votes that a killed process owes to replies it had."""
    voted = votes.of(name)
    for pair in dict.fromkeys(pair for pair, _ in replies):
        if pair not in voted and pair in votes.comparisons:
            _vote(votes, replies, pair, name)
    votes.write_pairs()


def _report(votes: Votes, replies: dict[tuple[str, Order], _Reply], spent: _Spent) -> JudgeReport:
    here: Iterable[tuple[_Reply, _Reply]] = [
        (replies[pair, "first"], replies[pair, "second"])
        for pair in votes.comparisons
        if (pair, "first") in replies and (pair, "second") in replies
    ]
    same = [one.better for one, two in here if one.better == two.better]
    given = [reply for both in here for reply in both if reply.better != "tie"]
    preferred = sum(better != "tie" for better in same)
    judged = len(list(here))
    return JudgeReport(
        pairs=len(votes.comparisons),
        judged=judged,
        preferred=preferred,
        ties=judged - preferred,
        consistent=len(same),
        first_place_wins=sum(reply.better == reply.order for reply in given),
        second_place_wins=sum(reply.better != reply.order for reply in given),
        refused=spent.refused,
        unreadable=spent.unreadable,
        requests=spent.requests,
        prompt_tokens=spent.prompt_tokens,
        completion_tokens=spent.completion_tokens,
    )
