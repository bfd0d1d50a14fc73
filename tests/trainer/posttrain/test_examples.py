from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.errors import UserError
from trainer.posttrain.examples import (
    Example,
    ExampleFile,
    Pair,
    asked,
    fingerprint,
    read_examples,
    read_pairs,
    split,
    write_rows,
)


def _file(tmp_path: Path, *rows: Any) -> ExampleFile:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return ExampleFile(file=str(path))


def test_rows_of_text_and_of_messages_are_one_thing(tmp_path: Path) -> None:
    said = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
    assert (
        read_examples(_file(tmp_path, {"prompt": "Q", "completion": "A"}, {"messages": said}))
        == [Example(prompt=asked("Q"), completion="A")] * 2
    )


def test_keys_are_named_and_packed_files_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.xz"
    path.write_bytes(lzma.compress(json.dumps({"ask": "Q", "say": "A"}).encode() + b"\n"))
    assert read_examples(ExampleFile(file=str(path), prompt="ask", completion="say"))[0].completion == "A"


def test_parquet_reads_as_json_lines_do(tmp_path: Path) -> None:
    import pandas as pd

    pd.DataFrame({"prompt": ["Q"], "chosen": ["A"], "rejected": ["B"]}).to_parquet(tmp_path / "rows.parquet")
    (pair,) = read_pairs(ExampleFile(file=str(tmp_path / "rows.parquet")))
    assert (pair.prompt[0].content, pair.chosen, pair.rejected) == ("Q", "A", "B")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"question": "Q"}, r"rows.jsonl:1 has no key 'prompt' \(it has 'question'\): set prompt"),
        ({"prompt": 3, "completion": "A"}, "has under 'prompt' a int, not text"),
        ([1], "is not a JSON object"),
        ({"messages": [{"role": "user", "content": "Q"}]}, "ends with a message of the user"),
        ({"messages": [{"role": "robot", "content": "Q"}]}, "a message without a role"),
        ({"messages": []}, "has no message"),
    ],
)
def test_a_mistake_is_told_by_file_and_line(tmp_path: Path, row: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_examples(_file(tmp_path, row))


def test_what_cannot_be_opened_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read_examples(ExampleFile(file=str(tmp_path / "no.jsonl")))
    (tmp_path / "a.csv").write_text("x")
    with pytest.raises(UserError, match="not of a kind"):
        read_examples(ExampleFile(file=str(tmp_path / "a.csv")))
    (tmp_path / "a.jsonl.xz").write_bytes(lzma.compress(b"\n" * 99)[:-20])
    with pytest.raises(UserError, match="damaged"):
        read_examples(ExampleFile(file=str(tmp_path / "a.jsonl.xz")))


@given(st.lists(st.tuples(st.text(), st.text(), st.text()), min_size=1, max_size=5))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, texts: list[tuple[str, str, str]]) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    examples = [Example(prompt=asked(p), completion=c) for p, c, _ in texts]
    pairs = [Pair(prompt=asked(p), chosen=c, rejected=r) for p, c, r in texts]
    try:
        write_rows(examples, path)
    except UnicodeEncodeError:  # half a surrogate pair is no text
        return
    assert read_examples(ExampleFile(file=str(path))) == examples
    write_rows(pairs, path)
    assert read_pairs(ExampleFile(file=str(path))) == pairs


def test_rows_of_one_prompt_lie_on_one_side_whatever_else_there_is() -> None:
    rows = [Example(prompt=asked(f"prompt {i % 200}"), completion=str(i)) for i in range(400)]
    train, held_out = split(rows, 0.2)
    assert 40 < len(held_out) < 120 and len(train) + len(held_out) == 400
    assert not {row.prompt for row in train} & {row.prompt for row in held_out}
    assert {row.prompt for row in split(rows[:100], 0.2)[1]} <= {row.prompt for row in held_out}


def test_the_fingerprint_moves_with_any_row() -> None:
    rows = [Example(prompt=asked("a"), completion="b"), Example(prompt=asked("c"), completion="d")]
    assert len({fingerprint(rows), fingerprint(rows[::-1]), fingerprint(rows[:1])}) == 3
