"""Pairs from files in other people's formats, and what cleaning drops and why."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling.errors import UserError
from scaling.preference.pairs import REASONS, clean, read_pairs


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def texts(pairs: pd.DataFrame) -> list[tuple[str, ...]]:
    return list(pairs[["prompt", "chosen", "rejected"]].itertuples(index=False, name=None))


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Q", "chosen": "good", "rejected": "bad"},
        {
            "question": "Q",
            "chosen": {"role": "assistant", "content": "good"},
            "rejected": {"from": "gpt", "value": "bad"},
        },
        {"conversations": [{"from": "human", "value": "Q"}], "chosen": {"value": "good"}, "rejected": {"value": "bad"}},
        {
            "chosen": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "good"}],
            "rejected": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "bad"}],
        },
    ],
)
def test_one_pair_in_four_formats_is_one_pair(tmp_path: Path, row: dict[str, object]) -> None:
    assert texts(read_pairs(write(tmp_path / "pairs.jsonl", row))) == [("Q", "good", "bad")]


def test_a_dialogue_without_a_prompt_is_split_at_the_last_turn_that_both_share(tmp_path: Path) -> None:
    before = "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: how are you?\n\nAssistant:"
    row = {"chosen": f"{before} I am well.", "rejected": f"{before} I am a teapot."}
    assert texts(read_pairs(write(tmp_path / "pairs.jsonl", row))) == [(before, "I am well.", "I am a teapot.")]


def test_csv_parquet_and_packed_lines_say_the_same(tmp_path: Path) -> None:
    rows = [
        {"prompt": "a, b", "chosen": 'say "x"', "rejected": "two\nlines", "chosen_score": 1.5, "rejected_score": -1.0}
    ]
    frame = pd.DataFrame(rows)
    frame.to_csv(tmp_path / "pairs.csv", index=False)
    frame.to_parquet(tmp_path / "pairs.parquet")
    with gzip.open(tmp_path / "pairs.jsonl.gz", "wt") as file:
        file.write(json.dumps(rows[0]))
    for name in ("pairs.csv", "pairs.parquet", "pairs.jsonl.gz"):
        read = read_pairs(tmp_path / name)
        assert texts(read) == [("a, b", 'say "x"', "two\nlines")], name
        assert read["chosen_score"][0] == 1.5


def test_each_fault_is_dropped_for_its_reason() -> None:
    pairs = pd.DataFrame(
        [
            ("q", "good", "bad"), ("q", " good", "bad "), ("q", "same", "same "), ("q", "", "bad"),
            ("r", "x", "y"), ("r", "y", "x"), ("s", "x", "y"),
        ],
        columns=["prompt", "chosen", "rejected"],
    )  # fmt: skip
    told = clean(pairs)
    assert told.dropped == {2: "duplicate", 3: "identical", 4: "empty", 5: "contradictory", 6: "contradictory"}
    assert list(told.pairs["prompt"]) == ["q", "s"]
    assert told.counts == {"empty": 1, "identical": 1, "duplicate": 1, "contradictory": 2}


def test_annotators_may_disagree_and_only_one_can_contradict_himself() -> None:
    pairs = pd.DataFrame(
        [("q", "x", "y", "ann"), ("q", "y", "x", "bob"), ("q", "x", "y", "cyd"), ("q", "y", "x", "cyd")],
        columns=["prompt", "chosen", "rejected", "annotator"],
    )
    assert clean(pairs).dropped == {3: "contradictory", 4: "contradictory"}


def test_an_annotator_who_is_not_named_is_one_and_the_same() -> None:
    rows = [{"prompt": "q", "chosen": "x", "rejected": "y", "annotator": float("nan")} for _ in range(2)]
    assert clean(pd.DataFrame([*rows, rows[0] | {"annotator": "ann"}])).dropped == {2: "duplicate"}


@given(st.lists(st.tuples(*[st.sampled_from(["", "a", "b", " a"])] * 3), min_size=1, max_size=12))
@settings(max_examples=60)
def test_cleaning_accounts_for_every_row_and_cleaned_pairs_are_clean(rows: list[tuple[str, str, str]]) -> None:
    pairs = pd.DataFrame(rows, columns=["prompt", "chosen", "rejected"])
    told = clean(pairs)
    assert len(told.pairs) + sum(told.counts.values()) == len(pairs)
    assert set(told.counts) == set(REASONS)
    assert not clean(told.pairs).dropped


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("pairs.jsonl", '{"chosen": "a"}\n{"chosen"\n', "line 2 is not JSON"),
        ("pairs.jsonl", "[1]\n", "line 1 is no JSON object"),
        ("pairs.jsonl", "\n", "is empty: it needs at least one pair"),
        ("pairs.jsonl", '{"prompt": "q", "chosen": "a"}\n', "no column 'rejected' .* --columns rejected=NAME"),
        ("pairs.txt", "a", "pairs are read from .jsonl"),
        ("pairs.csv", "prompt,chosen,rejected\na,b\n", "row 1 has 2 fields"),
        ("pairs.jsonl", '{"chosen": "a", "rejected": "b", "chosen_score": "x"}\n', "chosen_score is 'x'; it must be a"),
        (
            "pairs.jsonl",
            '{"chosen": "a", "rejected": "b", "judge_chosen_first": 2}\n',
            "it must be a number from 0 to 1",
        ),
        ("pairs.jsonl.xz", "not packed", "can't be read"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, name: str, content: str, says: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=says) as told:
        read_pairs(tmp_path / name)
    assert "\n" not in str(told.value)


def test_columns_may_have_other_names(tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.jsonl", {"prompt": "q", "better": "a", "worse": "b"})
    assert texts(read_pairs(path, {"chosen": "better", "rejected": "worse"})) == [("q", "a", "b")]
    with pytest.raises(UserError, match="has no column 'best'"):
        read_pairs(path, {"chosen": "best"})
    with pytest.raises(UserError, match="--columns has 'winner'"):
        read_pairs(path, {"winner": "better"})
