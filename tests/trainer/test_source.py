"""Documents come whole and in one order from every kind of file, and each bad file is one line naming it."""

from __future__ import annotations

import gzip
import hashlib
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from scaling.errors import UserError
from trainer.data.source import check_source, open_source

TEXTS = ["One.\n\nFirst text.", "Zwei: größer, 多い, 🙂", "three\u2028four"]
LINES = "".join(json.dumps({"id": f"doc-{i}", "text": text}) + "\n" for i, text in enumerate(TEXTS)).encode()


def documents(given: Path | str, text_key: str = "text") -> list[tuple[str, str]]:
    return [(document.work, document.text) for _, document in open_source(str(given), text_key).documents()]


def refusal(given: Path | str, text_key: str = "text") -> str:
    with pytest.raises(UserError) as caught:
        documents(given, text_key)
    message = str(caught.value)
    assert "\n" not in message
    return message


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "a.jsonl": bytes,
    "a.jsonl.gz": gzip.compress,
    "a.jsonl.xz": lzma.compress,
    "a.jsonl.zst": zstandard.compress,
}


@pytest.mark.parametrize("name", PACKERS)
def test_every_packing_of_json_lines_gives_the_same_documents(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(PACKERS[name](LINES))
    assert documents(tmp_path) == [(f"doc-{i}", text) for i, text in enumerate(TEXTS)]


def test_zstandard_files_of_many_frames_are_read_to_the_end(tmp_path: Path) -> None:
    middle = len(LINES) // 2
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(zstandard.compress(LINES[:middle]) + zstandard.compress(LINES[middle:]))
    assert [text for _, text in documents(path)] == TEXTS


def test_parquet_rows_are_documents(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [10, 11, 12], "body": TEXTS}), tmp_path / "a.parquet")
    assert documents(tmp_path, "body") == list(zip(["10", "11", "12"], TEXTS, strict=True))


def test_a_text_file_is_one_document_named_by_its_place_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.txt").write_bytes("\ufeffwith a mark\r\n".encode())
    (tmp_path / "a.txt").write_text("plain", encoding="utf-8")
    assert documents(tmp_path) == [("a.txt", "plain"), ("b/x.txt", "with a mark\r\n")]


def test_a_glob_takes_what_matches_and_can_be_read(tmp_path: Path) -> None:
    for name in ("a/1.txt", "a/2.md", "b/3.txt", "b/.hidden.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name, encoding="utf-8")
    assert [text for _, text in documents(f"{tmp_path}/**/*")] == ["a/1.txt", "b/3.txt"]
    assert [text for _, text in documents(f"{tmp_path}/b/*.txt")] == ["b/3.txt"]


def test_an_existing_name_with_brackets_is_no_glob(tmp_path: Path) -> None:
    (tmp_path / "[1].txt").write_text("here", encoding="utf-8")
    assert documents(tmp_path / "[1].txt") == [("[1].txt", "here")]


def test_rows_without_a_name_are_named_by_file_and_line_and_empty_ones_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n\n{"text": ""}\n{"text": "two"}', encoding="utf-8")
    assert documents(tmp_path) == [("a.jsonl:1", "one"), ("a.jsonl:4", "two")]


def test_the_starter_holds_its_117_works() -> None:
    found = documents("starter")
    assert len({work for work, _ in found}) == len(found) == 117
    assert 15_000_000 < sum(len(text.encode()) for _, text in found) < 16_500_000
    readme = (Path(open_source("starter").paths[0]).parent / "README.md").read_text(encoding="utf-8")
    assert hashlib.sha256(open_source("starter").paths[0].read_bytes()).hexdigest() in readme


def test_the_fingerprint_moves_with_text_and_names_and_not_with_the_folder(tmp_path: Path) -> None:
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.txt").write_text("same", encoding="utf-8")
    here, there = (open_source(str(tmp_path / folder)).fingerprint() for folder in ("here", "there"))
    assert here == there
    (tmp_path / "there" / "a.txt").write_text("Same", encoding="utf-8")
    assert open_source(str(tmp_path / "there")).fingerprint() != here
    (tmp_path / "here" / "a.txt").rename(tmp_path / "here" / "b.txt")
    assert open_source(str(tmp_path / "here")).fingerprint() != here


def domains(given: Path | str, **keys: str) -> list[str | None]:
    return [document.domain for _, document in open_source(str(given), **keys).documents()]


def test_a_row_names_its_domain_in_json_lines_and_in_parquet_alike(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"text": "a", "kind": kind} for kind in ("novel", 7, "", None)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert domains(tmp_path, domain_key="kind") == ["novel", "7", None, None]
    pq.write_table(pa.table({"text": ["a", "b"], "domain": ["novel", None]}), tmp_path / "b.parquet")
    assert domains(tmp_path / "b.parquet") == ["novel", None]


def test_without_a_name_the_first_subfolder_is_the_domain_unless_a_key_was_chosen(tmp_path: Path) -> None:
    for name in ("plays/acts/1.txt", "novels/2.txt", "3.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name, encoding="utf-8")
    (tmp_path / "plays" / "4.jsonl").write_text('{"text": "a", "domain": "sonnets"}', encoding="utf-8")
    assert domains(tmp_path) == [None, "novels", "sonnets", "plays"]
    assert domains(tmp_path, domain_key="kind") == [None] * 4


def test_a_domain_that_no_file_could_hold_is_mended(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a", "domain": "\\ud800' + "x" * 1000 + '"}', encoding="utf-8")
    assert domains(tmp_path) == ["?" + "x" * 79]


def test_the_starter_s_domains_are_its_five_collections() -> None:
    assert set(domains("starter")) == {"austen", "devils_dictionary", "jargon", "kjv", "shakespeare"}


@pytest.mark.parametrize("given", ["hf:HuggingFaceFW/fineweb-edu", "https://example.org/a.jsonl", "s3://bucket/x"])
def test_the_network_is_refused_with_the_remedy(given: str) -> None:
    message = refusal(given)
    assert given in message
    assert "download" in message
    with pytest.raises(UserError):
        check_source(given)


def test_what_is_not_there_or_not_readable_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("x", encoding="utf-8")
    assert "HuggingFaceFW/fineweb-edu does not exist" in refusal("HuggingFaceFW/fineweb-edu")
    assert "not of a kind" in refusal(tmp_path / "notes.md")
    assert "no file that can be read" in refusal(tmp_path)
    assert "no file that can be read" in refusal(f"{tmp_path}/*.txt")
    assert "empty" in refusal(" ")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "cut', "is not JSON"),
        (b'["text"]', "is not a JSON object"),
        (b'{"body": "x", "n": 1}', "has no key 'text' (it has 'body', 'n')"),
        (b'{"text": 3}', "a int, not text"),
        (b'{"text": "\xff"}', "is not UTF-8"),
        (b'{"text": "\\ud800"}', "half a surrogate pair"),
    ],
)
def test_a_bad_line_is_named_by_file_and_line(tmp_path: Path, line: bytes, reason: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "good"}\n' + line + b"\n")
    message = refusal(tmp_path)
    assert f"{tmp_path}/a.jsonl:2 " in message
    assert reason in message


def test_undecodable_text_is_named_by_its_byte(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"good \xe9 bad")
    assert f"{tmp_path}/a.txt is not UTF-8 at byte 5" in refusal(tmp_path)


@pytest.mark.parametrize("name", [name for name in PACKERS if name != "a.jsonl"])
@pytest.mark.parametrize("share", [0.3, 0.95])
def test_a_packed_file_cut_short_is_refused_and_never_read_as_a_smaller_one(
    tmp_path: Path, name: str, share: float
) -> None:
    packed = PACKERS[name](LINES * 200)
    (tmp_path / name).write_bytes(packed[: int(share * len(packed))])
    assert "is damaged after line" in refusal(tmp_path)


def test_a_parquet_file_that_is_none_or_lacks_the_column_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"body": ["x", None]}), tmp_path / "a.parquet")
    assert "no column 'text' (it has 'body')" in refusal(tmp_path / "a.parquet")
    assert "row 2 has under 'body' a NoneType" in refusal(tmp_path / "a.parquet", "body")
    (tmp_path / "b.parquet").write_bytes(b"not parquet at all")
    assert "is damaged" in refusal(tmp_path / "b.parquet")
