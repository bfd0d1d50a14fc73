"""A conversation with a model on this machine, cut to what its context holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from scaling.errors import UserError
from scaling.record import Record
from trainer.posttrain.local_model import LocalModel
from trainer.posttrain.text_model import Asked, Message
from trainer.whole_file import write_whole

__all__ = ["Conversation", "Reply"]


class Reply(Record):
    text: str
    ended: Literal["stop", "length", "interrupted"]
    prompt_tokens: int
    completion_tokens: int | None
    """None where it was interrupted."""


class Conversation:
    """Messages in turn; with a base model one text that both write, which has no roles.

    The k-th answer (from 0) is drawn with ``seed + k``, so equal conversations repeat. ``note`` is told when something
    that was said no longer fits.
    """

    def __init__(
        self,
        model: LocalModel,
        asked: Asked,
        *,
        system: str | None = None,
        seed: int = 0,
        note: Callable[[str], None],
    ) -> None:
        if system is not None and not model.has_template:
            raise UserError(
                f"--system can't be given to {model.name}: it is a base model without a chat template, which goes on "
                "from a text; say it in the text instead"
            )
        self.model, self._asked, self._seed, self._note = model, asked, seed, note
        self._system = [] if system is None else [Message(role="system", content=system)]
        self._said: list[Message] = []

    @property
    def messages(self) -> list[Message]:
        return [*self._system, *self._said]

    def reset(self) -> None:
        """Forget everything but the system's message."""
        self._said = []

    def say(self, text: str, show: Callable[[str], None]) -> Reply:
        """The model's answer to ``text``, told to ``show`` as it comes; Ctrl-C ends it, and what had come stays."""
        turn = sum(message.role == "assistant" for message in self._said)
        self._said.append(Message(role="user", content=text))
        came: list[str] = []

        def keep(piece: str) -> None:
            came.append(piece)
            show(piece)

        try:
            shown, tokens = self._what_fits()
            try:
                answer = self.model.answer(shown, self._asked, seed=self._seed + turn, show=keep)
            except KeyboardInterrupt:
                reply = Reply(text="".join(came), ended="interrupted", prompt_tokens=tokens, completion_tokens=None)
            else:
                ended: Literal["stop", "length"] = "length" if answer.ended == "length" else "stop"
                reply = Reply(
                    text=answer.text, ended=ended, prompt_tokens=tokens, completion_tokens=answer.completion_tokens
                )
        except BaseException:
            self._said.pop()
            raise
        self._said.append(Message(role="assistant", content=reply.text))
        return reply

    def _what_fits(self) -> tuple[list[Message], int]:
        """The messages that leave room for an answer, and their tokens: the oldest turns go first, the last is cut."""
        context = self.model.context
        if not self.model.has_template:
            # One text without seams: what was said and answered belongs together letter by letter.
            text = Message(role="user", content="".join(message.content for message in self._said))
            return self._cut([], text) if context is not None else ([text], len(self.model.encode([text])))
        said = list(self._said)
        tokens = len(self.model.encode([*self._system, *said]))
        if context is None:
            return [*self._system, *said], tokens
        dropped = 0
        while tokens > self._room(context) and len(said) > 1:
            dropped += 1
            # A question goes with its answer, so that what is left begins with a question.
            said = said[2:]
            tokens = len(self.model.encode([*self._system, *said]))
        if dropped:
            self._note(
                f"the conversation is longer than the model's context of {context} tokens: its first "
                + ("turn is" if dropped == 1 else f"{dropped} turns are")
                + " left out"
            )
        return self._cut(self._system, said[-1]) if len(said) == 1 else ([*self._system, *said], tokens)

    def _cut(self, before: list[Message], last: Message) -> tuple[list[Message], int]:
        context = self.model.context
        assert context is not None
        content, tokens = last.content, len(self.model.encode([*before, last]))
        while tokens > self._room(context):
            if len(content) < 2:
                raise UserError(
                    f"the system's message leaves no room in the context of {context} tokens: make it shorter"
                )
            # The share that fits, and a little less: tokens differ in length.
            share = min(0.9, self._room(context) / tokens)
            content = content[-max(1, int(share * len(content))) :]
            tokens = len(self.model.encode([*before, Message(role="user", content=content)]))
        if content != last.content:
            self._note(
                f"longer than the model's context of {context} tokens: it goes on from the last "
                f"{len(content):,} of {len(last.content):,} characters"
            )
        return [*before, Message(role="user", content=content)], tokens

    def _room(self, context: int) -> int:
        return max(1, context - min(self._asked.most_tokens, context // 2))

    def save(self, path: Path) -> None:
        """Write the conversation as JSON; never over a file."""
        if path.exists():
            raise UserError(f"{path} already exists: give another name")
        record = {
            "model": self.model.name,
            "seed": self._seed,
            **self._asked.model_dump(mode="json", include={"most_tokens", "temperature", "top_p"}),
            "messages": [message.model_dump() for message in self.messages],
        }
        try:
            write_whole(path, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
        except OSError as error:
            raise UserError(f"{path} can't be written: {error.strerror}; give another name") from None
