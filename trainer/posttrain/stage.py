"""One stage of post-training in its folder: what it is, its curve, its checkpoints, the model it made, its result.

A stage is known by the hash of its settings and of all that goes into it, so a finished one is never trained twice, and
a changed input makes a new one. A stage that was stopped or killed continues from its newest whole checkpoint.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from scaling.errors import UserError
from scaling.record import Interval, Record, content_hash
from trainer.data.atomic_folder import sole_writer
from trainer.whole_file import write_whole

__all__ = ["Interrupted", "StageFolder", "StageKind", "StageResult", "StageRun", "StageSpec", "run_stage"]

StageKind = Literal["sft", "pairs", "reward", "best_of_n", "dpo", "kto", "simpo", "ppo", "grpo", "rloo", "compare"]
_SPEC, _RESULT, _CURVE = "stage.json", "result.json", "curve.jsonl"


class Interrupted(Exception):
    """The stage was asked to stop, and has saved."""


class StageSpec(Record):
    """What a stage is. ``inputs``: the fingerprint of each model and of all rows that it reads, by their part in it."""

    schema_version: int = 1
    kind: StageKind
    settings: dict[str, Any]
    inputs: dict[str, str]
    seed: int

    @property
    def key(self) -> str:
        return content_hash(self.model_dump(mode="json"))


class StageResult(Record):
    """``metrics``: what was measured, with an interval (``level``) where it is an estimate from a sample."""

    key: str
    kind: StageKind
    metrics: dict[str, float] = Field(default_factory=dict)
    intervals: dict[str, Interval] = Field(default_factory=dict)
    level: float = 0.9
    notes: tuple[str, ...] = ()
    steps: int = 0
    seconds: float = 0.0
    libraries: dict[str, str] = Field(default_factory=dict)


@dataclass
class StageRun:
    """A stage at work: where it writes, whom it tells, and when it must stop."""

    folder: StageFolder
    seed: int
    progress: Callable[[str, float | None, Mapping[str, float]], None]
    """Told what the stage does, the share that is done (None: not known), and the newest metrics."""
    should_stop: Callable[[], bool]
    notes: list[str] = field(default_factory=list)
    steps: int = 0

    def log(self, step: int, metrics: Mapping[str, float], of: int | None = None) -> None:
        """One row of the curve; ``of`` is the number of steps in all."""
        self.steps = max(self.steps, step)
        with (self.folder.path / _CURVE).open("a", encoding="utf-8") as curve:
            curve.write(json.dumps({"step": step, **metrics}) + "\n")
        self.progress("training", step / of if of else None, metrics)

    def sampling(self, share: float, what: str = "sampling") -> None:
        """Between batches of answers, which are soon made anew: :class:`Interrupted` if the stage was asked to stop."""
        self.progress(what, share, {})
        if self.should_stop():
            raise Interrupted

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def continue_from(self, step: int) -> None:
        """What a lost process wrote of later steps will be written again."""
        rows = [row for row in self.folder.curve() if row["step"] <= step]
        write_whole(self.folder.path / _CURVE, "".join(json.dumps(row) + "\n" for row in rows))


class StageFolder:
    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def model(self) -> Path:
        """What the stage made, in the Hugging Face layout."""
        return self.path / "model"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def rows(self) -> Path:
        """The rows that the stage made, or answers that it looked at."""
        return self.path / "rows.jsonl"

    def spec(self) -> StageSpec:
        return StageSpec.model_validate_json((self.path / _SPEC).read_text(encoding="utf-8"))

    def result(self) -> StageResult | None:
        """None until the stage has ended."""
        path = self.path / _RESULT
        try:
            return StageResult.model_validate_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise UserError(f"{path} is damaged or of another version ({error}): move the folder away") from None

    def curve(self) -> list[dict[str, float]]:
        """Rows of metrics by step; a row that a kill cut short is left out."""
        path = self.path / _CURVE
        rows = []
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
            try:
                rows.append(json.loads(line))
            except ValueError:
                continue
        return rows

    @classmethod
    def of(cls, spec: StageSpec, root: Path) -> StageFolder:
        return cls(root / f"{spec.kind}-{spec.key[:16]}")

    @contextmanager
    def sole_trainer(self, on_wait: Callable[[], None]) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with sole_writer(self.path, on_wait):
            yield


def run_stage(
    spec: StageSpec,
    root: Path,
    work: Callable[[StageRun], Mapping[str, float | Interval]],
    *,
    progress: Callable[[str, float | None, Mapping[str, float]], None],
    should_stop: Callable[[], bool],
    libraries: Mapping[str, str],
) -> StageFolder:
    """The folder of the stage at its end: what is there already, or what ``work`` makes.

    ``work`` returns the stage's metrics. :class:`Interrupted` if it was asked to stop.
    """
    folder = StageFolder.of(spec, root)
    with folder.sole_trainer(lambda: progress("waiting for another process that trains it", None, {})):
        if folder.result() is not None:
            return folder
        folder.path.mkdir(exist_ok=True)
        write_whole(folder.path / _SPEC, spec.model_dump_json(indent=2) + "\n")
        began = time.monotonic()
        run = StageRun(folder, spec.seed, progress, should_stop)
        measured = work(run)
        result = StageResult(
            key=spec.key,
            kind=spec.kind,
            metrics={name: each.estimate if isinstance(each, Interval) else each for name, each in measured.items()},
            intervals={name: each for name, each in measured.items() if isinstance(each, Interval)},
            notes=tuple(run.notes),
            steps=run.steps,
            seconds=time.monotonic() - began,
            libraries=dict(libraries),
        )
        write_whole(folder.path / _RESULT, result.model_dump_json(indent=2) + "\n")
        # What is finished needs no checkpoint, and they are several times the model.
        shutil.rmtree(folder.checkpoints, ignore_errors=True)
        return folder
