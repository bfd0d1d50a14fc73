"""Asks a model for tasks until enough are kept; stopped or killed, the same call goes on.

The folder holds ``settings.json``, ``requests.jsonl`` (the truth: a line a request, with the tasks that were kept
of it, why others were not, and its tokens), and ``tasks.jsonl``, the kept tasks alone.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pydantic import Field, ValidationError

from scaling.errors import UserError
from scaling.record import Record, content_hash
from trainer.posttrain.json_lines import JsonLines, as_lines
from trainer.posttrain.synthesis.filters import fault
from trainer.posttrain.synthesis.prompt import choose_examples, parse, prompt
from trainer.posttrain.synthesis.rouge import RougeIndex, words_of
from trainer.posttrain.synthesis.task import Task
from trainer.posttrain.text_model import Answer, Asked, Message, TextModel, ask_all
from trainer.whole_file import write_whole

__all__ = ["MadeTask", "Progress", "RequestRow", "Settings", "SynthesisFolder", "synthesise"]


PATIENCE = 100
"""Requests in a row of which nothing is kept before it is given up."""


class Settings(Record):
    model: str
    seeds_hash: str
    """Of the seed tasks."""
    tasks_per_request: int = Field(default=8, ge=1)
    rouge_below: float = Field(default=0.7, gt=0, le=1)
    """A task is new if the ROUGE-L of its instruction with every kept one and every seed is below this."""
    temperature: float = Field(default=1.0, ge=0)
    top_p: float | None = Field(default=None, gt=0, le=1)
    most_tokens: int = Field(default=2048, ge=1)
    """Of one answer."""
    seed: int = 0


class MadeTask(Task):
    id: str
    """Of its request and its place there."""
    request: int
    nearest: float
    """ROUGE-L of its instruction with the most similar one that was there before."""
    nearest_to: str
    """That instruction."""


class RequestRow(Record):
    request: int
    kept: tuple[MadeTask, ...]
    dropped: dict[str, int]
    """Reason to count."""
    ended: str
    prompt_tokens: int | None
    completion_tokens: int | None
    seconds: float
    """Since the request before it was finished."""


class Progress(Record):
    wanted: int
    kept: int
    dropped: dict[str, int]
    requests: int
    prompt_tokens: int
    completion_tokens: int
    kept_now: int = 0
    """Since this process began."""
    seconds_now: float = 0.0

    @property
    def seconds_left(self) -> float | None:
        """By the rate so far; None before the first task is kept."""
        return self.seconds_now / self.kept_now * (self.wanted - self.kept) if self.kept_now else None


class SynthesisFolder:
    """What lies in the folder, read; :class:`UserError` where it is damaged."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def settings(self) -> Settings:
        try:
            return Settings.model_validate_json((self.path / "settings.json").read_bytes())
        except FileNotFoundError:
            raise UserError(
                f"{self.path} holds no synthesis: begin one by `scaling synthesise {self.path} --seeds FILE --model M`"
            ) from None
        except (OSError, ValidationError):
            raise UserError(
                f"{self.path}/settings.json is damaged or of another version: give another folder"
            ) from None

    def begin(self, settings: Settings) -> None:
        """Write down what is asked; :class:`UserError` if the folder was begun with something else."""
        if (self.path / "settings.json").exists():
            before = self.settings
            for name in Settings.model_fields:
                if getattr(before, name) != getattr(settings, name):
                    raise UserError(
                        f"{self.path} was begun with {name} {getattr(before, name)}, and now it is "
                        f"{getattr(settings, name)}: give the same, or another folder"
                    )
            return
        try:
            write_whole(self.path / "settings.json", settings.model_dump_json(indent=2) + "\n")
        except OSError as error:
            raise UserError(f"{self.path} can't be written: {error.strerror}; choose another folder") from None

    def log(self) -> JsonLines:
        return JsonLines(self.path / "requests.jsonl")

    def rows(self) -> list[RequestRow]:
        _ = self.settings  # says it if nothing was begun here, before anything is made
        return _rows(self.log())

    def tasks(self) -> list[MadeTask]:
        return [task for row in self.rows() for task in row.kept]


def _rows(log: JsonLines) -> list[RequestRow]:
    try:
        return [RequestRow.model_validate(row) for row in log.news()]
    except ValidationError as error:
        raise UserError(f"{log.path} is damaged or of another version ({error.error_count()} faults)") from None


def synthesise(
    model: TextModel,
    seeds: Sequence[Task],
    folder: SynthesisFolder,
    settings: Settings,
    *,
    wanted: int,
    most_requests: int | None = None,
    tell: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Progress:
    """Ask until ``wanted`` tasks are kept in all, or ``most_requests`` were made in all; tells of each request.

    With one request at a time, a model of equal seeds makes equal tasks, also when it was stopped in between: the
    examples of request k are drawn by ``settings.seed`` and k among the seeds and the tasks kept by then.
    """
    if settings.seeds_hash != content_hash([task.model_dump() for task in seeds]):
        raise ValueError("settings.seeds_hash is not that of seeds")
    folder.begin(settings)
    started, last = time.monotonic(), time.monotonic()
    log = folder.log()
    rows = _rows(log)
    kept = [task for row in rows for task in row.kept]
    dropped = sum((Counter(row.dropped) for row in rows), Counter())
    write_whole(folder.path / "tasks.jsonl", as_lines(task.model_dump() for task in kept))
    kept_before = len(kept)
    index = RougeIndex()
    for task in (*seeds, *kept):
        index.add(words_of(task.instruction))
    taken = {row.request for row in rows}
    tokens = [sum(row.prompt_tokens or 0 for row in rows), sum(row.completion_tokens or 0 for row in rows)]
    count = len(rows)

    def progress() -> Progress:
        return Progress(
            wanted=wanted,
            kept=len(kept),
            dropped=dict(dropped.most_common()),
            requests=count,
            prompt_tokens=tokens[0],
            completion_tokens=tokens[1],
            kept_now=len(kept) - kept_before,
            seconds_now=time.monotonic() - started,
        )

    def requests() -> Iterator[tuple[int, list[Message], int]]:
        number = -1
        while len(kept) < wanted and not should_stop():
            number += 1
            if number in taken:
                continue
            if most_requests is not None and number >= most_requests:
                return
            examples = choose_examples(seeds, kept, random.Random(f"{settings.seed}/{number}"))
            text = prompt(examples, settings.tasks_per_request)
            yield number, [Message(role="user", content=text)], settings.seed * 1_000_003 + number

    last_number = 8 + settings.tasks_per_request
    asked = Asked(
        most_tokens=settings.most_tokens,
        temperature=settings.temperature,
        top_p=settings.top_p,
        stop=(f"\n{last_number + 1}. Instruction",),
    )
    tell(progress())
    fruitless = 0
    tasks_file = JsonLines(folder.path / "tasks.jsonl")
    for number, answer in ask_all(model, requests(), asked):
        row = _sift(number, answer, seeds, kept, index, settings, time.monotonic() - last)
        last = time.monotonic()
        log.add(row.model_dump(mode="json"))
        for task in row.kept:
            tasks_file.add(task.model_dump())
        count += 1
        dropped.update(row.dropped)
        tokens[0] += row.prompt_tokens or 0
        tokens[1] += row.completion_tokens or 0
        tell(progress())
        fruitless = 0 if row.kept else fruitless + 1
        if fruitless == PATIENCE:
            reason, times = dropped.most_common(1)[0] if dropped else ("empty", count)
            raise UserError(
                f"the last {PATIENCE} answers held no new task (most often: {reason}, {times} times): try another "
                f"model or a higher --temperature; {folder.path} keeps its {len(kept)} tasks"
            )
    return progress()


def _sift(
    number: int,
    answer: Answer,
    seeds: Sequence[Task],
    kept: list[MadeTask],
    index: RougeIndex,
    settings: Settings,
    seconds: float,
) -> RequestRow:
    """The tasks of one answer that are well formed and new, added to ``kept`` and ``index``."""
    dropped: Counter[str] = Counter()
    new: list[MadeTask] = []
    if answer.ended == "refused":
        dropped["refused"] += 1
        tasks: list[Task] = []
    else:
        tasks, unread = parse(answer.text, cut=answer.ended == "length")
        if unread:
            dropped["not in the form asked for"] += unread
    for place, task in enumerate(tasks):
        if (reason := fault(task)) is not None:
            dropped[reason] += 1
            continue
        words = words_of(task.instruction)
        similar = index.similarities(words)
        nearest = int(similar.argmax())
        if similar[nearest] >= settings.rouge_below:
            dropped[f"ROUGE-L {settings.rouge_below:g} or more with another"] += 1
            continue
        other = seeds[nearest] if nearest < len(seeds) else kept[nearest - len(seeds)]
        made = MadeTask(
            **task.model_dump(),
            id=f"{number}.{place}",
            request=number,
            nearest=round(float(similar[nearest]), 4),
            nearest_to=other.instruction,
        )
        index.add(words)
        kept.append(made)
        new.append(made)
    return RequestRow(
        request=number,
        kept=tuple(new),
        dropped=dict(dropped),
        ended=answer.ended,
        prompt_tokens=answer.prompt_tokens,
        completion_tokens=answer.completion_tokens,
        seconds=round(seconds, 3),
    )
