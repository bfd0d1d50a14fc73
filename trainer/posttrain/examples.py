"""What post-training learns from, as rows: an example is a prompt and its answer, a pair a prompt and two answers.

A prompt is a conversation so far. A row of a file gives it as text under ``prompt`` (one message of the user's), or as
``messages`` (a list of ``{"role": …, "content": …}``) of which the last is the answer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field

from scaling.errors import UserError
from scaling.record import Record, canonical_json
from trainer.data.packed_lines import DAMAGED, packed_lines
from trainer.data.pieces import split_of

__all__ = [
    "Example",
    "ExampleFile",
    "Message",
    "Pair",
    "fingerprint",
    "read_examples",
    "read_pairs",
    "split",
    "write_rows",
]

_ROLES = ("system", "user", "assistant")
_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.xz", ".jsonl.zst", ".parquet")


class Message(Record):
    role: Literal["system", "user", "assistant"]
    content: str


class Example(Record):
    """``columns``: what a task's exact score needs to know of the prompt (``trainer.posttrain.tasks``)."""

    prompt: tuple[Message, ...]
    completion: str
    columns: dict[str, str] = Field(default_factory=dict)


class Pair(Record):
    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    columns: dict[str, str] = Field(default_factory=dict)


Row = TypeVar("Row", Example, Pair)


class ExampleFile(Record):
    """A file of rows, and under which keys they hold what."""

    file: str
    prompt: str = "prompt"
    completion: str = "completion"
    chosen: str = "chosen"
    rejected: str = "rejected"
    most: int | None = None
    """Rows, from the beginning."""


def asked(text: str) -> tuple[Message, ...]:
    """``text`` as the one message of a user's."""
    return (Message(role="user", content=text),)


def read_examples(source: ExampleFile) -> list[Example]:
    """:class:`UserError` names the file and row of what can't be read."""
    found = []
    for where, row in _rows(source):
        messages = _messages(row, where)
        if messages is not None:
            if messages[-1].role != "assistant":
                raise UserError(f"{where} ends with a message of the {messages[-1].role}: the last is the answer")
            found.append(Example(prompt=messages[:-1], completion=messages[-1].content))
        else:
            prompt = asked(_text(row, source.prompt, where, "prompt"))
            found.append(Example(prompt=prompt, completion=_text(row, source.completion, where, "completion")))
    return found


def read_pairs(source: ExampleFile) -> list[Pair]:
    """:class:`UserError` names the file and row of what can't be read."""
    found = []
    for where, row in _rows(source):
        given = _messages(row, where, "prompt" if isinstance(row.get("prompt"), list) else "messages")
        prompt = asked(_text(row, source.prompt, where, "prompt")) if given is None else given
        chosen, rejected = (
            _text(row, key, where, name) for key, name in ((source.chosen, "chosen"), (source.rejected, "rejected"))
        )
        found.append(Pair(prompt=prompt, chosen=chosen, rejected=rejected))
    return found


def write_rows(rows: Iterable[Example | Pair], path: Path) -> None:
    """As :func:`read_examples` and :func:`read_pairs` read them, a row a line."""
    from trainer.whole_file import write_whole

    lines: list[dict[str, Any]] = []
    for row in rows:
        messages = [message.model_dump() for message in row.prompt]
        if isinstance(row, Example):
            lines.append({"messages": [*messages, {"role": "assistant", "content": row.completion}]})
        else:
            lines.append({"prompt": messages, "chosen": row.chosen, "rejected": row.rejected})
    write_whole(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def fingerprint(rows: Sequence[Record]) -> str:
    """SHA-256 of the rows in their order."""
    total = hashlib.sha256()
    for row in rows:
        total.update(canonical_json(row.model_dump(mode="json")).encode() + b"\n")
    return total.hexdigest()


def split(rows: Sequence[Row], held_out: float, salt: str = "prompts/1") -> tuple[list[Row], list[Row]]:
    """Training and held-out rows; all rows of one prompt lie on one side, by the prompt's text and ``salt`` alone."""
    sides: dict[str, list[Row]] = {"train": [], "held_out": []}
    for row in rows:
        words = canonical_json([message.model_dump() for message in row.prompt])
        sides[split_of(words, held_out, salt)].append(row)
    return sides["train"], sides["held_out"]


def _rows(source: ExampleFile) -> Iterator[tuple[str, dict[str, Any]]]:
    path = Path(source.file).expanduser()
    if not path.is_file():
        raise UserError(f"{source.file} does not exist: give a file of rows ({', '.join(_SUFFIXES)})")
    if not path.name.endswith(_SUFFIXES):
        raise UserError(f"{source.file} is not of a kind that can be read: the kinds are {', '.join(_SUFFIXES)}")
    read = _parquet(path) if path.name.endswith(".parquet") else _json_lines(path)
    for number, (where, row) in enumerate(read):
        if source.most is not None and number >= source.most:
            return
        yield where, row


def _json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    number = 0
    try:
        for number, line in enumerate(packed_lines(path), 1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UserError(f"{where} is not JSON ({error}): each line must be one JSON object") from None
            if not isinstance(row, dict):
                raise UserError(f"{where} is not a JSON object: each line must be one")
            yield where, row
    except DAMAGED as error:
        raise UserError(f"{path} is damaged after line {number} ({error}): fetch or pack it again") from None
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}): check its permissions") from None


def _parquet(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=256):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path} row {number}", row
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} is damaged after row {number} ({reason}): fetch or write it again") from None


def _messages(row: dict[str, Any], where: str, key: str = "messages") -> tuple[Message, ...] | None:
    given = row.get(key)
    if not isinstance(given, list):
        return None
    messages = []
    for message in given:
        role, content = (message.get("role"), message.get("content")) if isinstance(message, dict) else (None, None)
        if role not in _ROLES or not isinstance(content, str):
            raise UserError(f"{where} has under {key!r} a message without a role ({', '.join(_ROLES)}) and text")
        messages.append(Message(role=role, content=content))
    if not messages:
        raise UserError(f"{where} has no message under {key!r}: give one at least")
    return tuple(messages)


def _text(row: dict[str, Any], key: str, where: str, setting: str) -> str:
    if key not in row:
        keys = ", ".join(repr(str(name)) for name in list(row)[:8])
        raise UserError(f"{where} has no key {key!r} (it has {keys}): set {setting} to the one that holds it")
    if not isinstance(row[key], str):
        raise UserError(f"{where} has under {key!r} a {type(row[key]).__name__}, not text: set {setting} or mend it")
    return str(row[key])
