"""Reads a study's file from whoever sent it: nothing is believed, nothing is unpacked before it was looked at."""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeVar

from pydantic import ValidationError

from scaling.errors import UserError
from scaling.forecast import Forecast, Outcome
from scaling.record import Record, content_hash
from sweeps.bundle.export import CHECKPOINT, FORMAT, RECORDS, CarriedForecast, CarriedPoint, CarriedRun, CarriedStudy
from sweeps.ledger.ledger import GENESIS
from trainer.distributed.marker import MARKER, promised_sums
from trainer.loop.result import RunResult

__all__ = ["Bundle", "checkpoints_in", "read_bundle"]

MOST_RECORD_BYTES = 4 << 30
MOST_TIMES_SMALLER = 200
"""JSON of points shrinks about tenfold and weights hardly; zeros shrink a thousandfold."""
MOST_MEMBERS = 1_000_000
MOST_MARKER_BYTES = 1 << 24
AnyRecord = TypeVar("AnyRecord", bound=Record)


@dataclass
class Bundle:
    """What a file holds, checked: keys are those of the specifications, the chain of forecasts is whole."""

    study: CarriedStudy
    runs: list[CarriedRun]
    points: dict[str, list[CarriedPoint]] = field(default_factory=dict)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    chain: list[CarriedForecast] = field(default_factory=list)
    checkpoints: set[str] = field(default_factory=set)
    """The folders' names of runs that bring any."""


def read_bundle(path: Path) -> Bundle:
    """The study in ``path``; :class:`UserError` for whatever is not as `scaling study export` writes it."""
    texts: dict[str, str] = {}
    checkpoints = _Checkpoints()
    with _as_mistakes(path):
        for member, content in _members(path):
            if member.name in RECORDS and member.name not in texts:
                texts[member.name] = content().read().decode("utf-8")
            elif not ((match := CHECKPOINT.fullmatch(member.name)) and checkpoints.add(match, content())):
                raise UserError(f"{path} holds {member.name!r}, which a study's file does not, or once: not imported")
        if (damaged := checkpoints.damaged()) is not None:
            raise UserError(f"{path} holds {damaged!r} with other files than were saved: not imported")
    missing = [name for name in RECORDS if name not in texts]
    if missing:
        raise UserError(f"{path} has no {missing[0]}: it is no study's file, or cut short")
    try:
        return _checked(texts, {run for run, _ in checkpoints.whole})
    except (ValidationError, ValueError, KeyError, TypeError) as error:
        reason = str(error).splitlines()
        raise UserError(f"{path} does not hold what it should: {' '.join(reason[:3])[:300]}") from None


class _Checkpoints:
    """The checkpoints that a file holds; of those that are folders what is in them, to be held against their marker."""

    def __init__(self) -> None:
        self.whole: dict[tuple[str, str], dict[str, str] | None] = {}
        self._markers: dict[tuple[str, str], bytes] = {}

    def add(self, member: re.Match[str], content: IO[bytes]) -> bool:
        """Whether a file of this name can come now: each once, and those of a folder one after another."""
        run, name, file = member.groups()
        checkpoint = (run, name)
        if file is None:
            if checkpoint in self.whole:
                return False
            self.whole[checkpoint] = None
            return True
        there = self.whole.setdefault(checkpoint, {})
        last = next(reversed(self.whole))
        if there is None or checkpoint != last or file in there or checkpoint in self._markers:
            return False
        if file == MARKER:
            self._markers[checkpoint] = content.read(MOST_MARKER_BYTES)
        else:
            there[file] = hashlib.file_digest(content, "sha256").hexdigest()  # type: ignore[arg-type]
        return True

    def damaged(self) -> str | None:
        """The first folder that does not hold what its marker says."""
        for (run, name), sums in self.whole.items():
            if sums is not None and not self._as_promised((run, name), sums):
                return f"checkpoints/{run}/{name}"
        return None

    def _as_promised(self, checkpoint: tuple[str, str], sums: dict[str, str]) -> bool:
        try:
            return promised_sums(self._markers.get(checkpoint, b"")) == sums
        except ValueError:
            return False


def _checked(texts: dict[str, str], checkpoints: set[str]) -> Bundle:
    (study,) = _rows(texts["study.json"], CarriedStudy)
    if study.format != FORMAT or ".." in study.name:
        raise ValueError(f"format {study.format} of {study.name!r}; this version reads {FORMAT}")
    bundle = Bundle(study, _rows(texts["runs.jsonl"], CarriedRun), checkpoints=checkpoints)
    keys = {run.key for run in bundle.runs}
    for run in bundle.runs:
        if run.key != run.spec.key:
            raise ValueError(f"run {run.key[:16]!r} has the key of another specification")
        if run.state == "finished":
            RunResult.model_validate(run.result)
        if run.carrier is not None and run.carrier not in keys:
            raise ValueError(f"run {run.key[:16]} branches off one that is not in the file")
    for point in _rows(texts["points.jsonl"], CarriedPoint):
        if point.run_key not in keys:
            raise ValueError(f"a point of the unknown run {point.run_key[:16]!r}")
        bundle.points.setdefault(point.run_key, []).append(point)
    for line in texts["facts.jsonl"].splitlines():
        row = json.loads(line)
        if row["run_key"] in keys and isinstance(row["facts"], dict):
            bundle.facts[row["run_key"]] = row["facts"]
    bundle.chain = _rows(texts["forecasts.jsonl"], CarriedForecast)
    previous = GENESIS
    for link in bundle.chain:
        content = link.model_dump(include=set(CarriedForecast.model_fields) - {"hash", "outcome"})
        if link.previous_hash != previous or link.hash != content_hash(content):
            raise ValueError(f"the chain of forecasts is broken at {link.hash[:12]!r}: one was changed or left out")
        if Forecast.model_validate(link.forecast).key != link.forecast_key:
            raise ValueError(f"forecast {link.forecast_key[:12]!r} has the key of another")
        if link.outcome is not None:
            Outcome.model_validate(link.outcome)
        previous = link.hash
    if not checkpoints <= {key[:16] for key in keys}:
        raise ValueError("checkpoints of a run that is not in the file")
    return bundle


def checkpoints_in(path: Path) -> Iterator[tuple[str, str, str | None, IO[bytes]]]:
    """(run folder's name, checkpoint's name, of one that is a folder the file's name in it, content) of each file, one
    after another."""
    with _as_mistakes(path):
        for member, content in _members(path):
            if match := CHECKPOINT.fullmatch(member.name):
                yield match[1], match[2], match[3], content()


def _rows(text: str, record: type[AnyRecord]) -> list[AnyRecord]:
    return [record.model_validate_json(line) for line in text.splitlines()]


def _members(path: Path) -> Iterator[tuple[tarfile.TarInfo, Callable[[], IO[bytes]]]]:
    """The members in turn: plain files alone, and no more of them or larger than the file can honestly hold."""
    try:
        most = max(path.stat().st_size * MOST_TIMES_SMALLER, 1 << 20)
    except OSError as error:
        raise UserError(f"FILE is {path}, which can't be read: {error.strerror}") from None
    total = records = 0
    with tarfile.open(path, "r|gz") as archive:
        for count, member in enumerate(archive):
            total += member.size
            records += member.size if member.name in RECORDS else 0
            if total > most or records > MOST_RECORD_BYTES or count > MOST_MEMBERS:
                raise UserError(f"{path} unpacks to far more than a study's file does: not imported")
            if not member.isreg() or member.sparse is not None:
                raise UserError(f"{path} holds {member.name!r}, which is no plain file: not imported")

            def content(member: tarfile.TarInfo = member) -> IO[bytes]:
                opened = archive.extractfile(member)
                assert opened is not None
                return opened

            yield member, content


@contextmanager
def _as_mistakes(path: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, zlib.error, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no study's file, or a damaged one: {error}") from None
