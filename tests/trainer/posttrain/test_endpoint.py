"""An OpenAI-compatible endpoint against a real server with every fault that one has, and a key that is never said."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from scaling.errors import UserError
from trainer.posttrain import endpoint
from trainer.posttrain.endpoint import Endpoint, EndpointSettings
from trainer.posttrain.text_model import Asked, Message, ask_all

from .endpoint_server import ChatServer, Fault, completion, drip, hang_up, instead, status

KEY = "sk-secret-0123456789"
SAID = [Message(role="user", content="hello")]
Made = Callable[..., tuple[ChatServer, Endpoint]]


def echo(body: dict[str, Any]) -> str:
    return str(body["messages"][-1]["content"]).upper()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[Made]:
    """A server and an endpoint to it, whose back-off is a hundred times shorter."""
    opened: list[ChatServer] = []
    monkeypatch.setattr(endpoint.random, "uniform", lambda low, high: 0.01)
    monkeypatch.setenv("TEST_KEY", KEY)

    def make(*faults: Fault, always: Fault | None = None, wait: float = 0.0, **settings: Any):  # type: ignore[no-untyped-def]
        server = ChatServer(echo, *faults, always=always, wait=wait).__enter__()
        opened.append(server)
        model = Endpoint(EndpointSettings(base_url=server.base_url, model="m", **settings), lambda note: None)
        return server, model

    yield make
    for server in opened:
        server.__exit__()


def test_a_request_says_what_was_asked_and_carries_the_key(made: Made) -> None:
    server, model = made(key_variable="TEST_KEY")
    schema = {"type": "object"}
    answer = model.answer(
        SAID, Asked(most_tokens=7, temperature=0.5, top_p=0.9, stop=("#",), json_schema=schema), seed=4
    )
    assert (answer.text, answer.ended, answer.prompt_tokens, answer.completion_tokens) == ("HELLO", "stop", 100, 10)
    body = server.bodies[0]
    assert body.pop("response_format")["json_schema"]["schema"] == schema
    assert body == {
        "model": "m",
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop": ["#"],
        "seed": 4,
    }
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    "fault",
    [
        status(500),
        status(503),
        status(429),
        status(408),
        instead(b"<html>bad gateway</html>"),
        instead(b'{"choices": []}'),
        instead({"choices": [{"message": {"content": 5}}]}),
        instead([1]),
        hang_up,
        drip,
    ],
    ids=["500", "503", "429", "408", "html", "empty", "number", "list", "hung up", "drips"],
)
def test_what_may_pass_is_tried_again(made: Made, fault: Fault) -> None:
    server, model = made(fault, fault, timeout_seconds=0.5)
    assert model.answer(SAID, Asked(), seed=0).text == "HELLO"
    assert len(server.bodies) == 3


@pytest.mark.parametrize("dated", [False, True])
def test_the_server_says_how_long_to_wait_and_all_threads_do(made: Made, dated: bool) -> None:
    wait = 2 if dated else 1  # a date has whole seconds
    told = formatdate(time.time() + wait, usegmt=True) if dated else str(wait)
    server, model = made(status(429, Retry_After=told), concurrency=3)
    answers = list(ask_all(model, ((n, SAID, n) for n in range(6)), Asked()))
    assert sorted(key for key, _ in answers) == list(range(6))
    told_at = server.times[0]
    later = [at - told_at for at in server.times if at - told_at > 0.25]
    assert later and min(later) > wait - 1.1, "nobody asks before"
    assert len(server.bodies) == 7


@pytest.mark.parametrize(
    ("fault", "part"),
    [
        (status(401, f"Incorrect API key provided: {KEY}"), "look at the key in TEST_KEY"),
        (status(404, "no such model"), "the model's name 'm'"),
        (status(400, "context length exceeded"), "context length exceeded"),
        (status(302, "moved", Location="http://elsewhere.invalid/"), "leads elsewhere"),
    ],
)
def test_what_will_not_pass_is_said_at_once_in_a_line_without_the_key(made: Made, fault: Fault, part: str) -> None:
    server, model = made(always=fault, key_variable="TEST_KEY")
    with pytest.raises(UserError, match=part) as caught:
        model.answer(SAID, Asked(), seed=0)
    assert KEY not in str(caught.value) and "\n" not in str(caught.value)
    assert len(server.bodies) == 1


def test_a_server_that_stays_broken_is_said_in_a_line(made: Made) -> None:
    server, model = made(always=status(500, f"stack trace\nwith {KEY}"), key_variable="TEST_KEY", tries=3)
    with pytest.raises(UserError, match=r"no answer in 3 tries, the last: HTTP 500 stack trace with \(the key\)"):
        model.answer(SAID, Asked(), seed=0)
    assert len(server.bodies) == 3


def test_nobody_there_is_a_line() -> None:
    with ChatServer(echo) as server:
        url = server.base_url
    model = Endpoint(EndpointSettings(base_url=url, model="m", tries=1), lambda note: None)
    with pytest.raises(UserError, match="the connection was refused or closed"):
        model.answer(SAID, Asked(), seed=0)


def test_what_a_server_does_not_take_is_left_out_from_then_on(made: Made) -> None:
    def picky(handler: Any, body: dict[str, Any]) -> bool:
        for name, said in (
            ("response_format", "'response_format.type' must be json_object"),
            ("seed", "Unknown parameter: seed"),
            ("max_tokens", "'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."),
        ):
            if name in body:
                handler.send(400, {"error": {"message": said}})
                return True
        return False

    server, model = made(always=picky, wait=0.05, concurrency=3)
    asked = Asked(json_schema={"type": "object"})
    answers = list(ask_all(model, ((n, SAID, n) for n in range(6)), asked))
    assert [answer.text for _, answer in answers] == ["HELLO"] * 6
    before = len(server.bodies)
    assert model.answer(SAID, asked, seed=0).text == "HELLO" and len(server.bodies) == before + 1
    assert set(server.bodies[-1]) == {"model", "messages", "max_completion_tokens", "temperature"}


def test_a_refusal_and_a_cut_are_told_apart(made: Made) -> None:
    faults = [
        instead(completion(None, refusal="I can't")),
        instead(completion("", finish_reason="content_filter")),
        instead(completion("half", finish_reason="length")),
    ]
    _, model = made(*faults)
    assert [model.answer(SAID, Asked(), seed=0).ended for _ in range(3)] == ["refused", "refused", "length"]


def test_as_many_at_once_as_allowed_and_no_faster_than_the_rate(made: Made) -> None:
    server, model = made(wait=0.1, concurrency=3)
    answers = dict(ask_all(model, ((n, [Message(role="user", content=f"n{n}")], n) for n in range(9)), Asked()))
    assert {key: answer.text for key, answer in answers.items()} == {n: f"N{n}" for n in range(9)}
    assert server.most_at_once == 3
    server, model = made(concurrency=4, requests_per_minute=600)
    list(ask_all(model, ((n, SAID, n) for n in range(6)), Asked()))
    assert server.times[-1] - server.times[0] > 0.45


def test_an_error_in_one_thread_ends_all_of_it(made: Made) -> None:
    _, model = made(status(401), concurrency=2)
    with pytest.raises(UserError, match="401"):
        list(ask_all(model, ((n, SAID, n) for n in range(100)), Asked()))


@pytest.mark.parametrize("url", ["ftp://x/v1", "nonsense", "http://user:pass@host/v1", "http://host/v1?key=1"])
def test_a_wrong_address_is_a_line(url: str) -> None:
    with pytest.raises(UserError, match="--endpoint"):
        Endpoint(EndpointSettings(base_url=url, model="m"), lambda note: None)


def test_a_key_that_is_not_there_and_one_that_travels_in_the_open(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="--key-from NOT_SET"):
        Endpoint(EndpointSettings(base_url="http://127.0.0.1:1/v1", model="m", key_variable="NOT_SET"), print)
    notes: list[str] = []
    monkeypatch.setenv("TEST_KEY", KEY)
    Endpoint(EndpointSettings(base_url="http://far.example/v1", model="m", key_variable="TEST_KEY"), notes.append)
    assert "unencrypted" in notes[0] and KEY not in notes[0]


def test_a_netrc_does_not_replace_the_key(made: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    server, model = made(key_variable="TEST_KEY")
    model.answer(SAID, Asked(), seed=0)
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
