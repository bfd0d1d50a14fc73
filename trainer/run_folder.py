"""The folder of one run that ``scaling train`` made, and what a trained run is to those who use it.

It holds ``run.json`` (what is trained, and how), ``tokenizer.json``, the checkpoints, ``curve.csv`` and, at the end,
``result.json``.
"""

from __future__ import annotations

import csv
import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError
from tokenizers import Tokenizer

from scaling.errors import UserError
from scaling.record import Record
from scaling.run_spec import RunSpec
from trainer.data.shards import Corpus
from trainer.data.tokenizer import load_tokenizer
from trainer.loop.checkpoint import DamagedCheckpoint, load
from trainer.loop.numerics import Numerics
from trainer.loop.result import RunResult
from trainer.loop.state import Progress
from trainer.models import build
from trainer.models.model import LanguageModel
from trainer.whole_file import write_whole

__all__ = ["CurveFile", "RunFolder", "RunRecord", "TrainedRun"]

AnyRecord = TypeVar("AnyRecord", bound=Record)

_RECORD, _TOKENIZER, _RESULT, _CURVE = "run.json", "tokenizer.json", "result.json", "curve.csv"


class RunRecord(Record):
    """What is trained in a folder, on which corpus, and how it is computed."""

    schema_version: int = 1
    spec: RunSpec
    numerics: Numerics
    peak_flops_per_second: float | None = None
    """Measured, of a CPU; a known accelerator's is on its data sheet."""
    corpus: str
    begun_at: float | None = None
    """Seconds since the epoch when the folder was begun, by the clock of whoever trains."""


@dataclass(frozen=True)
class TrainedRun:
    """A run to be used: its specification, the folder of its checkpoints, and its tokenizer's file."""

    spec: RunSpec
    folder: Path
    tokenizer_file: Path

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return load_tokenizer(self.tokenizer_file)

    def model(self, note: Callable[[str], None]) -> LanguageModel:
        """The model with the weights of the newest whole checkpoint; ``note`` is told if the run isn't at its end.

        Reads alone: another process may be training the run.
        """
        for path in sorted(self.folder.glob("step-*.checkpoint"), reverse=True):
            try:
                saved = load(path)
            except FileNotFoundError:
                continue  # the process that trains it has a newer one
            except DamagedCheckpoint as error:
                note(f"warning: {error}; using the one before")
                continue
            progress = Progress.model_validate_json(saved["progress"])
            if progress.run_key != self.spec.key:
                raise UserError(f"{path} is of run {progress.run_key[:16]}, not of {self.spec.key[:16]}: move it away")
            if progress.step < self.spec.steps:
                note(
                    f"this run is at step {progress.step:,} of {self.spec.steps:,}: its weights are not the final ones"
                )
            model = build(self.spec.shape, self.spec.parametrisation)
            model.load_state_dict(saved["model"])
            return model.eval()
        raise UserError(f"{self.folder} holds no checkpoint: train the run first")


class RunFolder:
    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def sole_trainer(self) -> Iterator[None]:
        """Hold the right to train here; :class:`UserError` if another process has it, or nothing can be written."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / ".lock").open("ab")
        except OSError as error:
            raise UserError(f"--out {self.path} can't be written: {error.strerror}; choose another folder") from None
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"another process is training in {self.path}: wait for it, or stop it") from None
            yield

    def record(self) -> RunRecord | None:
        """What the folder says that it holds; None if nothing was begun here."""
        return _read(self.path / _RECORD, RunRecord)

    def result(self) -> RunResult | None:
        return _read(self.path / _RESULT, RunResult)

    def begin(self, record: RunRecord, corpus: Corpus) -> None:
        """Write down what is trained; :class:`UserError` if the folder holds another run."""
        before = self.record()
        if before is not None and before.spec != record.spec:
            raise UserError(
                f"--out {self.path} holds the run {before.spec.key[:16]}, and this one is {record.spec.key[:16]}: give "
                "another folder"
            )
        tokenizer = self.path / _TOKENIZER
        if not tokenizer.exists():
            write_whole(tokenizer, (corpus.directory / _TOKENIZER).read_bytes())
        write_whole(self.path / _RECORD, record.model_dump_json(indent=2) + "\n")

    def end(self, result: RunResult) -> None:
        write_whole(self.path / _RESULT, result.model_dump_json(indent=2) + "\n")

    def curve(self) -> CurveFile:
        return CurveFile(self.path / _CURVE)

    def trained(self) -> TrainedRun:
        """The run that was trained here; :class:`UserError` if none was."""
        record = self.record()
        if record is None:
            raise UserError(f"{self.path} is no run's folder: it has no {_RECORD}")
        return TrainedRun(record.spec, self.path, self.path / _TOKENIZER)


class CurveFile:
    """A tracker that appends the curve to a file of comma-separated values: step, tokens, flops, name, value.

    Points that a resumed run repeats are written once. A value that differs the second time, a speed or that of a step
    taken again with other data after a spike, has two rows: the later one holds.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[tuple[int, str], float] = {}
        self._rows: list[tuple[int, int, float, str, float]] = []
        if path.exists():
            self._read_and_mend()
        else:
            write_whole(path, "step,tokens,flops,name,value\n")

    def _read_and_mend(self) -> None:
        # A killed process may have left its last row without an end.
        content = self._path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            os.truncate(self._path, len(whole))
        for row in csv.DictReader(whole.decode().splitlines()):
            self._known[int(row["step"]), row["name"]] = float(row["value"])

    def points(self) -> list[dict[str, float | int | str]]:
        """The rows of the file, the later one of two of the same step and name."""
        rows: dict[tuple[int, str], dict[str, float | int | str]] = {}
        with self._path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                step, name = int(row["step"]), row["name"]
                rows[step, name] = {
                    "step": step,
                    "tokens": int(row["tokens"]),
                    "flops": float(row["flops"]),
                    "name": name,
                    "value": float(row["value"]),
                }
        return list(rows.values())

    def metrics(self, step: int, tokens: int, flops: float, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            if self._known.get((step, name)) != value:
                self._known[step, name] = value
                self._rows.append((step, tokens, flops, name, value))

    def progress(self, step: int, tokens: int, tokens_per_second: float, loss: float) -> None:
        return

    def note(self, message: str) -> None:
        return

    def flush(self) -> None:
        with self._path.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(self._rows)
            file.flush()
            os.fsync(file.fileno())
        self._rows.clear()


def _read(path: Path, kind: type[AnyRecord]) -> AnyRecord | None:
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        problem = error.strerror if isinstance(error, OSError) else f"{error.error_count()} fields can't be read"
        raise UserError(f"{path} is damaged or of another version ({problem}): give another folder") from None
