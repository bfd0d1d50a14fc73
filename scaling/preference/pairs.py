"""Preference pairs from files: prompt, chosen and rejected answer as text, and what is wrong with some of them.

Known columns beside these: ``annotator``; ``chosen_model`` and ``rejected_model``, who wrote the answers;
``chosen_score`` and ``rejected_score``, of a reward model; ``judge_chosen_first`` and ``judge_rejected_first``, how far
a judge prefers the chosen answer, from 0 to 1, when the chosen and when the rejected one is shown first. Others are
kept as they are.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from scaling.errors import UserError
from scaling.table_file import load_rows

__all__ = ["KNOWN", "REASONS", "Cleaned", "clean", "read_pairs"]

KNOWN = (
    "prompt", "chosen", "rejected", "annotator", "chosen_model", "rejected_model", "chosen_score", "rejected_score",
    "judge_chosen_first", "judge_rejected_first",
)  # fmt: skip
NUMBERS = KNOWN[6:]
REASONS = ("empty", "identical", "duplicate", "contradictory")
"""Why a pair is dropped, in this order: an answer is blank; both are the same; the pair was there before; elsewhere the
same annotator chose the other answer (both are dropped)."""
_PROMPTS = ("prompt", "instruction", "question", "conversations", "messages")
_OPENERS: dict[str, Any] = {".xz": lzma.open, ".gz": gzip.open, ".bz2": bz2.open}
_TURN = "\n\nAssistant:"
"""Where an answer begins in dialogues that are one text (Bai et al. 2204.05862)."""


@dataclass(frozen=True)
class Cleaned:
    """Pairs that are left, and for each that is not its row, from 1, and the reason."""

    pairs: pd.DataFrame
    dropped: Mapping[int, str]

    @property
    def counts(self) -> dict[str, int]:
        """How many were dropped for each of ``REASONS``."""
        return {reason: sum(each == reason for each in self.dropped.values()) for reason in REASONS}


def read_pairs(path: Path, columns: Mapping[str, str] | None = None) -> pd.DataFrame:
    """The pairs of a JSON Lines (also .xz, .gz or .bz2), CSV or parquet file, one a row, with the columns named above.

    ``columns`` says what ours are called in the file. Answers may be texts, messages (``{"role", "content"}`` or
    ``{"from", "value"}``) or whole conversations; without a prompt it is what both conversations begin with. Raises
    :class:`UserError`, in one line, for a file, line, column or value that is wrong.
    """
    if not path.is_file():
        raise UserError(f"{path} is not a file: give preference pairs as .jsonl, .csv or .parquet")
    suffixes = [suffix.lower() for suffix in path.suffixes]
    kind = next((suffix for suffix in reversed(suffixes) if suffix not in _OPENERS), "")
    if kind in (".jsonl", ".ndjson", ".json"):
        frame = _read_lines(path)
    elif kind in (".csv", ".tsv", ".parquet", ".pq") and kind == suffixes[-1]:
        frame, malformed = load_rows(path)
        for row, reason in malformed.items():
            raise UserError(f"{path}, row {row} {reason}")
    else:
        raise UserError(f"{path}: pairs are read from .jsonl (also .xz, .gz, .bz2), .csv, .tsv or .parquet")
    return _as_pairs(frame, path, dict(columns or {}))


def clean(pairs: pd.DataFrame) -> Cleaned:
    """``pairs`` without those that ``REASONS`` names. Spaces at either end of an answer make no difference."""
    keys = [
        (str(prompt).strip(), chosen.strip(), rejected.strip(), None if pd.isna(annotator) else annotator)
        for prompt, chosen, rejected, annotator in zip(
            pairs["prompt"], pairs["chosen"], pairs["rejected"],
            pairs["annotator"] if "annotator" in pairs else [None] * len(pairs), strict=True,
        )
    ]  # fmt: skip
    said = set(keys)
    seen: set[tuple[Any, ...]] = set()
    dropped: dict[int, str] = {}
    for row, (prompt, chosen, rejected, annotator) in enumerate(keys, start=1):
        key = (prompt, chosen, rejected, annotator)
        if not chosen or not rejected:
            dropped[row] = "empty"
        elif chosen == rejected:
            dropped[row] = "identical"
        elif key in seen:
            dropped[row] = "duplicate"
        elif (prompt, rejected, chosen, annotator) in said:
            dropped[row] = "contradictory"
        seen.add(key)
    kept = [row not in dropped for row in range(1, len(pairs) + 1)]
    return Cleaned(pairs[kept].reset_index(drop=True), dropped)


def _read_lines(path: Path) -> pd.DataFrame:
    opener = _OPENERS.get(path.suffix.lower(), open)
    rows = []
    try:
        with opener(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except json.JSONDecodeError as error:
                    raise UserError(
                        f"{path}, line {number} is not JSON ({error.msg}): give one object a line"
                    ) from None
                if not isinstance(row, dict):
                    raise UserError(f"{path}, line {number} is no JSON object: give one object a line")
                rows.append(row)
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text: save it as JSON Lines in UTF-8") from None
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise UserError(f"{path} can't be read ({error}): check the file and its permissions") from None
    if not rows:
        raise UserError(f"{path} is empty: it needs at least one pair")
    return pd.DataFrame(rows)


def _as_pairs(frame: pd.DataFrame, path: Path, columns: dict[str, str]) -> pd.DataFrame:
    for ours, theirs in columns.items():
        if ours not in KNOWN:
            raise UserError(f"--columns has {ours!r}: the columns of pairs are {', '.join(KNOWN)}")
        if theirs not in frame:
            raise UserError(f"{path} has no column {theirs!r} (it has {', '.join(map(str, frame))})")
    frame = frame.rename(columns={theirs: ours for ours, theirs in columns.items()})
    for needed in ("chosen", "rejected"):
        if needed not in frame:
            raise UserError(
                f"{path} has no column {needed!r} (it has {', '.join(map(str, frame))}): say which it is with "
                f"--columns {needed}=NAME"
            )
    prompt = next((name for name in _PROMPTS if name in frame), None)
    prompts = frame[prompt] if prompt else [None] * len(frame)
    texts = [_split(*row) for row in zip(prompts, frame["chosen"], frame["rejected"], strict=True)]
    made = pd.DataFrame(texts, columns=["prompt", "chosen", "rejected"], dtype=object)
    for name in frame.columns:
        if name not in (prompt, "chosen", "rejected"):
            made[name] = frame[name].to_numpy()
    for name in NUMBERS:
        if name in made:
            made[name] = _numbers(made[name], name, path)
    return made


def _numbers(column: pd.Series[Any], name: str, path: Path) -> pd.Series[float]:
    numbers = pd.to_numeric(column, errors="coerce")
    wrong = numbers.isna()
    if name.startswith("judge"):
        wrong |= (numbers < 0) | (numbers > 1)
    if wrong.any():
        row = int(wrong.to_numpy().argmax())
        allowed = "a number from 0 to 1" if name.startswith("judge") else "a number"
        raise UserError(f"{path}, row {row + 1}: {name} is {column.iloc[row]!r}; it must be {allowed}")
    return numbers.astype(float)


def _split(prompt: Any, chosen: Any, rejected: Any) -> tuple[str, str, str]:
    """Prompt and both answers as texts."""
    if isinstance(chosen, str) and isinstance(rejected, str):
        if prompt is not None:
            return _text(prompt), chosen, rejected
        shared = _shared_beginning(chosen, rejected)
        turn = shared.rfind(_TURN)
        cut = turn + len(_TURN) if turn >= 0 else shared.rfind(" ") + 1
        return chosen[:cut], chosen[cut:].strip(), rejected[cut:].strip()
    theirs, others = _messages(chosen), _messages(rejected)
    before = 0
    while before < min(len(theirs), len(others)) - 1 and theirs[before] == others[before]:
        before += 1
    asked = _text(prompt) if prompt is not None else "\n\n".join(theirs[:before])
    return asked, "\n\n".join(theirs[before:]), "\n\n".join(others[before:])


def _shared_beginning(one: str, other: str) -> str:
    length = next(
        (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )
    return one[:length]


def _messages(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        content = value.get("content", value.get("value", ""))
        return [content if isinstance(content, str) else ""]
    if value is None or isinstance(value, (float, int)):
        return [""]
    return [text for message in value for text in _messages(message)]


def _text(value: Any) -> str:
    return "\n\n".join(_messages(value))
