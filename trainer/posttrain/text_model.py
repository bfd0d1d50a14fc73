"""A model that answers in text, wherever it runs: what synthesis, the judge and a conversation ask of it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, Protocol, TypeVar

from pydantic import Field

from scaling.record import Record
from trainer.posttrain.examples import Message

__all__ = ["Answer", "Asked", "Message", "TextModel", "ask_all"]

Key = TypeVar("Key")


class Asked(Record):
    """How an answer is drawn, and how long and of what form it may be."""

    most_tokens: int = Field(default=512, ge=1)
    temperature: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """0 takes the likeliest token always."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    stop: tuple[str, ...] = ()
    """The answer ends before the first of these texts."""
    json_schema: dict[str, Any] | None = None
    """A JSON schema that the answer should obey, where the model's server can be told (``response_format``)."""


class Answer(Record):
    text: str
    ended: Literal["stop", "length", "refused"]
    """``length``: cut after ``most_tokens`` or at the context; ``refused``: by the model's own word, or its filter."""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    """None where the server doesn't say."""


class TextModel(Protocol):
    """Messages to text. A base model, which knows no roles, goes on from the text of the messages."""

    name: str
    concurrency: int
    """How many requests may be under way at once."""

    def answer(self, messages: Sequence[Message], asked: Asked, *, seed: int) -> Answer:
        """One answer; called from ``concurrency`` threads. :class:`~scaling.errors.UserError` if none can be had."""
        ...


def ask_all(
    model: TextModel, requests: Iterable[tuple[Key, Sequence[Message], int]], asked: Asked
) -> Iterator[tuple[Key, Answer]]:
    """The answer to each of ``requests`` (a key, its messages, its seed), in the order in which they come.

    A request is drawn from the iterable when a thread is free to ask it, so a later one may be built from earlier
    answers. The first error ends it. Threads don't outlive the process: Ctrl-C waits for no server.
    """
    todo: queue.SimpleQueue[tuple[Key, Sequence[Message], int] | None] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[Key, Answer | BaseException]] = queue.SimpleQueue()

    def work() -> None:
        while (request := todo.get()) is not None:
            key, messages, seed = request
            try:
                done.put((key, model.answer(messages, asked, seed=seed)))
            except BaseException as error:  # raised again in the thread that waits
                done.put((key, error))

    source, under_way, left = iter(requests), 0, True
    for _ in range(model.concurrency):
        threading.Thread(target=work, daemon=True, name=f"asks {model.name}").start()
    try:
        while True:
            while left and under_way < model.concurrency:
                request = next(source, None)
                left = request is not None
                if request is not None:
                    todo.put(request)
                    under_way += 1
            if not under_way:
                return
            key, answer = done.get()
            under_way -= 1
            if isinstance(answer, BaseException):
                raise answer
            yield key, answer
    finally:
        for _ in range(model.concurrency):
            todo.put(None)
