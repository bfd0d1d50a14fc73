"""A judge in both orders: a fair one is followed, one that leans to a place prefers nothing, each reply counts once."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from scaling.errors import UserError
from trainer.posttrain.endpoint import Endpoint, EndpointSettings
from trainer.posttrain.json_lines import read_json_lines
from trainer.posttrain.judge import SCHEMA, default_template, judge, verdict_of
from trainer.posttrain.text_model import Answer, Asked, Message
from trainer.posttrain.votes import Comparison, Votes

from .endpoint_server import ChatServer, completion, instead, status

# The longer one is better; those of one pair are equally long.
PAIRS = [Comparison(prompt=f"ask {n}", first="x" * (n + 1), second="x" * (13 - 2 * n)) for n in range(7)]


def answers_in(text: str) -> tuple[str, str]:
    one, two = re.findall(r"<answer_\d>\n(.*?)\n</answer_\d>", text, re.DOTALL)
    return one, two


def fair(text: str) -> str:
    one, two = answers_in(text)
    return "1" if len(one) > len(two) else "2" if len(two) > len(one) else "tie"


class Judge:
    name, concurrency = "judge", 1

    def __init__(self, rule: Any, fail_at: int | None = None) -> None:
        self.rule, self.fail_at, self.asked = rule, fail_at, 0

    def answer(self, messages: Sequence[Message], asked: Asked, *, seed: int) -> Answer:
        self.asked += 1
        if self.asked == self.fail_at:
            raise UserError("gone")
        assert asked.json_schema == SCHEMA
        text = json.dumps({"reason": "because", "better": self.rule(messages[0].content)})
        return Answer(text=text, ended="stop", prompt_tokens=100, completion_tokens=10)


def test_a_fair_judge_is_followed_whatever_the_order(tmp_path: Path) -> None:
    out = tmp_path / "pairs.jsonl"
    end = judge(Judge(fair), Votes(PAIRS, out))
    assert (end.judged, end.preferred, end.ties, end.consistency) == (7, 6, 1, 1.0)
    assert end.first_place_wins == end.second_place_wins == 6
    assert (end.requests, end.prompt_tokens, end.completion_tokens) == (14, 1400, 140)
    rows = read_json_lines(out)
    for row in rows:
        assert len(row["chosen"]) > len(row["rejected"]) and row["annotator"] == "judge"
        assert [told["order"] for told in row["orders"]] == ["first", "second"]
        assert {told["better"] for told in row["orders"]} == {row["chosen_label"]}
    assert len(rows) == end.preferred


def test_a_judge_that_leans_to_a_place_prefers_nothing(tmp_path: Path) -> None:
    end = judge(Judge(lambda text: "1"), Votes(PAIRS, tmp_path / "pairs.jsonl"))
    assert (end.preferred, end.ties, end.consistency) == (0, 7, 0.0)
    assert (end.first_place_wins, end.second_place_wins) == (14, 0)
    assert read_json_lines(tmp_path / "pairs.jsonl") == []


def test_stopped_anywhere_it_asks_only_what_is_missing(tmp_path: Path) -> None:
    judge(Judge(fair), Votes(PAIRS, tmp_path / "whole.jsonl"))
    out, asked = tmp_path / "pairs.jsonl", 0
    for _ in range(40):
        model = Judge(fair, fail_at=4)
        try:
            end = judge(model, Votes(PAIRS, out))
            asked += model.asked
            break
        except UserError:
            asked += model.asked - 1
            out.unlink(missing_ok=True)  # a kill before the pairs were written
    assert asked == end.requests == 14
    assert out.read_text() == (tmp_path / "whole.jsonl").read_text()


def test_replies_without_their_vote_are_voted_on_at_the_next_start(tmp_path: Path) -> None:
    out = tmp_path / "pairs.jsonl"
    judge(Judge(fair), Votes(PAIRS, out))
    before = out.read_text()
    (tmp_path / "pairs.votes.jsonl").write_text("")
    model = Judge(fair)
    end = judge(model, Votes(PAIRS, out))
    assert model.asked == 0 and end.judged == 7 and out.read_text() == before


def test_refusals_and_nonsense_are_counted_and_asked_again(tmp_path: Path) -> None:
    faults = [
        instead(completion(None, refusal="I won't compare these.")),
        instead(completion("I like both.")),
        status(400, "response_format is not supported"),
    ]
    with ChatServer(lambda body: f"Well: {fair(body['messages'][0]['content'])!r}.", *faults) as server:
        model = Endpoint(EndpointSettings(base_url=server.base_url, model="m", concurrency=1), lambda note: None)
        server.reply = lambda body: (
            "Sure! " + json.dumps({"better": fair(body["messages"][0]["content"]), "reason": "r"})
        )
        end = judge(model, Votes(PAIRS, tmp_path / "pairs.jsonl"))
        assert (end.refused, end.unreadable, end.judged, end.requests) == (1, 1, 6, 14)
        assert "response_format" in server.bodies[0] and "response_format" not in server.bodies[-1]
        end = judge(model, Votes(PAIRS, tmp_path / "pairs.jsonl"))
        assert (end.refused, end.unreadable, end.judged, end.requests) == (1, 1, 7, 16)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('{"reason": "r", "better": "1"}', "second"),
        ('{"reason": "r", "better": 2}', "first"),
        ('```json\n{"better": "tie", "reason": "r"}\n```', "tie"),
        ('First {"better": "1"}, no: {"reason": "{x}", "better": "Answer 2"} is it', "first"),
        ("**Better: 2**", "first"),
        ("Better: 1 or better: 2", "unreadable"),
        ('{"better": "3"}', "unreadable"),
        ("[" * 5000, "unreadable"),
        ('{"better": ' + "[" * 100_000, "unreadable"),
        ("", "unreadable"),
    ],
)
def test_a_reply_is_read_strictly_and_then_once_leniently(text: str, wanted: str) -> None:
    assert verdict_of(Answer(text=text, ended="stop"), "second")[0] == wanted


def test_texts_stand_where_they_belong_even_if_they_name_places(tmp_path: Path) -> None:
    seen: list[str] = []

    def look(text: str) -> str:
        seen.append(text)
        return "tie"

    pair = Comparison(prompt="ANSWER_1", first="PROMPT \\1", second="ANSWER_2")
    judge(Judge(look), Votes([pair], tmp_path / "pairs.jsonl"))
    assert answers_in(seen[0]) == ("PROMPT \\1", "ANSWER_2") and answers_in(seen[1]) == ("ANSWER_2", "PROMPT \\1")
    assert "<request>\nANSWER_1\n</request>" in seen[0]
    with pytest.raises(UserError, match="PROMPT once"):
        judge(Judge(look), Votes([pair], tmp_path / "x.jsonl"), template="no places")
    assert default_template().count("PROMPT") == 1
