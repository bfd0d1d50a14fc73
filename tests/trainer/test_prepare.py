"""A corpus is what its text says, appears whole or not at all, and is never made twice."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, normalizers

from scaling.errors import UserError
from trainer.data.domains import MOST_DOMAINS, OTHER, held_out_domains
from trainer.data.pieces import cut, split_of
from trainer.data.prepare import prepare
from trainer.data.shards import Corpus, describe, verify

VOCABULARY = 300
SETTINGS: dict[str, Any] = {"vocabulary": VOCABULARY, "held_out": 0.2, "cut_bytes": 256}
WORDS = ["the", "of", "and", "to", "größer", "in", "that", "he", "was", "it", "his", "多い", "for", "with", "as", "had"]


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    draw = random.Random(0)
    return {
        f"work-{work}": "\n\n".join(" ".join(draw.choices(WORDS, k=draw.randrange(5, 40))) + "." for _ in range(40))
        for work in range(12)
    }


@pytest.fixture(scope="module")
def source(texts: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    rows = [{"work": work, "text": text} for work, text in texts.items()]
    # One work twice: its pieces are exact duplicates.
    rows.append({"work": "copy", "text": texts["work-3"]})
    (folder / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def corpus(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return prepare(str(source), **SETTINGS, into=tmp_path_factory.mktemp("corpora"))


@pytest.fixture
def copy(corpus: Corpus, tmp_path: Path) -> Corpus:
    """A copy of the corpus that a test may damage."""
    folder = tmp_path / "corpora" / corpus.directory.name
    shutil.copytree(corpus.directory, folder)
    return Corpus(folder)


def decoded(corpus: Corpus, split: Any) -> list[str]:
    """The pieces of a split, back from its arrays."""
    tokenizer = Tokenizer.from_file(str(corpus.directory / "tokenizer.json"))
    starts = corpus.document_starts(split)
    ends = [*starts[1:], corpus.tokens(split).size]
    tokens = np.asarray(corpus.tokens(split))
    assert (tokens[np.array(ends) - 1] == corpus.manifest.separator_id).all()
    assert (tokens == corpus.manifest.separator_id).sum() == len(starts)
    return [tokenizer.decode(tokens[start : end - 1].tolist()) for start, end in zip(starts, ends, strict=True)]


def test_the_arrays_hold_exactly_the_pieces_of_the_text(corpus: Corpus, texts: dict[str, str]) -> None:
    expected = [piece for text in [*texts.values(), texts["work-3"]] for piece in cut(text, 256)]
    for split in ("train", "held_out"):
        assert sorted(decoded(corpus, split)) == sorted(p for p in expected if split_of(p, 0.2) == split)


def test_no_piece_is_on_both_sides_and_every_copy_is_kept(corpus: Corpus, texts: dict[str, str]) -> None:
    train, held_out = decoded(corpus, "train"), decoded(corpus, "held_out")
    assert not set(train) & set(held_out)
    copied = set(cut(texts["work-3"], 256))
    assert copied & set(held_out)
    assert all((train + held_out).count(piece) == 2 for piece in copied)


def test_the_counts_of_the_manifest_are_those_of_the_arrays(corpus: Corpus) -> None:
    for split in ("train", "held_out"):
        counts = getattr(corpus.manifest, split)
        tokens = corpus.tokens(split)
        assert counts.tokens == tokens.size
        assert counts.documents == corpus.document_starts(split).size
        assert counts.utf8_bytes == sum(len(piece.encode()) for piece in decoded(corpus, split))
        assert counts.utf8_bytes == corpus.token_bytes.astype(np.int64)[tokens].sum()
        assert counts.bytes_per_token == counts.utf8_bytes / counts.tokens
    assert corpus.manifest.vocabulary == corpus.token_bytes.size == VOCABULARY
    assert corpus.tokens("train").dtype == np.uint16


def test_each_held_out_piece_knows_its_work(corpus: Corpus, texts: dict[str, str]) -> None:
    works = [*texts, "copy"]
    pieces = decoded(corpus, "held_out")
    assert corpus.held_out_works.shape == (len(pieces),)
    for piece, number in zip(pieces, corpus.held_out_works, strict=True):
        assert piece in texts["work-3" if works[number] == "copy" else works[number]]
    assert corpus.manifest.held_out.works == len(set(corpus.held_out_works.tolist())) > 8


def test_the_stream_mixes_works(corpus: Corpus) -> None:
    changes = np.mean(np.diff(corpus.held_out_works) != 0)
    assert changes > 0.7


def test_a_second_request_opens_what_is_there(corpus: Corpus, source: Path) -> None:
    stages: list[str] = []
    again = prepare(
        str(source), **SETTINGS, into=corpus.directory.parent, progress=lambda stage, _: stages.append(stage)
    )
    assert again.manifest == corpus.manifest
    assert stages == []


def test_the_same_text_elsewhere_gives_the_same_bytes(corpus: Corpus, source: Path, tmp_path: Path) -> None:
    shutil.copytree(source, tmp_path / "moved")
    moved = prepare(str(tmp_path / "moved"), **SETTINGS, into=tmp_path / "into")
    assert moved.manifest.data_key == corpus.manifest.data_key
    assert moved.manifest.files == corpus.manifest.files


def test_every_setting_is_part_of_the_key(corpus: Corpus, source: Path, tmp_path: Path) -> None:
    keys = {corpus.manifest.data_key}
    for change in ({"vocabulary": 301}, {"held_out": 0.25}, {"cut_bytes": 200}, {"domain_key": "work"}):
        keys.add(prepare(str(source), **(SETTINGS | change), into=tmp_path).manifest.data_key)
    tokenizer = corpus.directory / "tokenizer.json"
    keys.add(prepare(str(source), **SETTINGS, tokenizer=tokenizer, into=tmp_path).manifest.data_key)
    assert len(keys) == 6


@pytest.fixture(scope="module")
def kinds(texts: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The twelve works of three kinds, and one that names none."""
    folder = tmp_path_factory.mktemp("kinds")
    rows = [
        {"work": work, "text": text} | ({"domain": f"kind {number % 3}"} if number else {})
        for number, (work, text) in enumerate(texts.items())
    ]
    (folder / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def test_each_held_out_piece_knows_its_domain(kinds: Path, texts: dict[str, str], tmp_path: Path) -> None:
    prepared = prepare(str(kinds), **SETTINGS, into=tmp_path)
    names, works = prepared.manifest.held_out_domains, list(texts)
    assert names == ("kind 0", "kind 1", "kind 2")
    for work, domain in zip(prepared.held_out_works.tolist(), prepared.held_out_domains.tolist(), strict=True):
        assert domain == (names.index(f"kind {work % 3}") if work else -1)
    pieces = decoded(prepared, "held_out")
    for piece, work in zip(pieces, prepared.held_out_works.tolist(), strict=True):
        assert piece in texts[works[work]]
    verify(prepared)
    assert "held_out.domains.npy" in {file.name for file in prepared.manifest.files}
    assert "Held-out domains: kind 0, kind 1, kind 2." in describe(prepared)


def test_domains_change_no_token(kinds: Path, tmp_path: Path) -> None:
    named = prepare(str(kinds), **SETTINGS, into=tmp_path)
    unnamed = prepare(str(kinds), **SETTINGS, domain_key="work", into=tmp_path)
    assert named.manifest.data_key != unnamed.manifest.data_key
    assert named.manifest.train == unnamed.manifest.train
    assert named.manifest.held_out == unnamed.manifest.held_out


def test_a_domain_key_that_nothing_has_is_refused(kinds: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"domain_key 'genre' names a field that no document of .* has: set it to"):
        prepare(str(kinds), **SETTINGS, domain_key="genre", into=tmp_path)


def test_of_very_many_domains_the_largest_are_kept_and_the_rest_taken_together() -> None:
    names = [f"site {number:03}" for number in range(100)]
    number_P = np.repeat(np.arange(100), np.arange(100))  # site 000 has no piece, site 099 has 99
    index_P, kept = held_out_domains(number_P, names)
    assert kept == (OTHER, *names[100 - MOST_DOMAINS + 1 :])
    assert [kept[index] for index in index_P[number_P >= 69]] == [names[number] for number in number_P[number_P >= 69]]
    assert set(index_P[number_P < 69].tolist()) == {0}


@given(st.lists(st.integers(-1, 4), max_size=30))
def test_few_domains_keep_their_names_and_those_without_pieces_are_left_out(numbers: list[int]) -> None:
    names = ["e", "d", "c", "b", "a"]
    index_P, kept = held_out_domains(np.array(numbers, dtype=np.int64), names)
    assert list(kept) == sorted({names[number] for number in numbers if number >= 0})
    assert [kept[i] if i >= 0 else None for i in index_P] == [names[n] if n >= 0 else None for n in numbers]


def test_a_corpus_of_another_version_is_refused_and_never_misread(copy: Corpus) -> None:
    path = copy.directory / "manifest.json"
    old = json.loads(path.read_text(encoding="utf-8")) | {"schema_version": 1}
    path.write_text(json.dumps(old), encoding="utf-8")
    with pytest.raises(UserError, match=r"manifest\.json is of version 1 and this program reads 2: delete the corpus"):
        Corpus(copy.directory)


def test_progress_of_every_stage_rises_to_one(source: Path, tmp_path: Path) -> None:
    seen: dict[str, list[float]] = {}
    prepare(
        str(source), **SETTINGS, into=tmp_path, progress=lambda stage, done: seen.setdefault(stage, []).append(done)
    )
    assert list(seen) == ["reading", "training the tokenizer", "tokenising"]
    for fractions in seen.values():
        assert fractions == sorted(fractions)
        assert fractions[-1] == 1


def test_a_given_tokenizer_is_used_as_it_is(corpus: Corpus, source: Path, tmp_path: Path) -> None:
    given = corpus.directory / "tokenizer.json"
    other = prepare(str(source), **SETTINGS, tokenizer=given, into=tmp_path)
    assert other.manifest.tokenizer_key == corpus.manifest.tokenizer_key
    assert (other.tokens("train") == corpus.tokens("train")).all()
    with pytest.raises(UserError, match=r"vocabulary 299 is not that of tokenizer .* has 300"):
        prepare(str(source), **(SETTINGS | {"vocabulary": 299}), tokenizer=given, into=tmp_path)


def test_a_tokenizer_that_changes_the_text_is_refused(corpus: Corpus, source: Path, tmp_path: Path) -> None:
    changing = Tokenizer.from_file(str(corpus.directory / "tokenizer.json"))
    changing.normalizer = normalizers.StripAccents()
    changing.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])
    changing.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match="changes the text"):
        prepare(str(source), **SETTINGS, tokenizer=tmp_path / "tokenizer.json", into=tmp_path / "into")
    assert not [path for path in (tmp_path / "into").iterdir() if path.is_dir()]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"held_out": 0.0}, "held_out 0.0 is not a share"),
        ({"held_out": 0.6}, "held_out 0.6 is not a share"),
        ({"vocabulary": 256}, "vocabulary 256 is too small"),
        ({"vocabulary": 50_000}, "vocabulary 50000 is too large for this corpus"),
        ({"cut_bytes": 10}, "cut_bytes 10 is too small"),
        ({"tokenizer": Path("nowhere.json")}, "tokenizer nowhere.json is not a file"),
    ],
)
def test_a_bad_setting_is_one_line_with_its_value(
    source: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        prepare(str(source), **(SETTINGS | change), into=tmp_path)
    assert "\n" not in str(caught.value)


def test_a_corpus_with_too_few_held_out_pieces_is_refused_and_its_remedies_work(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"keeps (\d+) of its (\d+) pieces .* at least 20 are needed") as caught:
        prepare(str(source), **(SETTINGS | {"held_out": 0.01}), into=tmp_path)
    share = float(str(caught.value).split("raise held_out to ")[1].split(",")[0])
    prepared = prepare(str(source), **(SETTINGS | {"held_out": share}), into=tmp_path)
    assert prepared.manifest.held_out.documents >= 20


def test_the_description_warns_of_few_held_out_pieces(corpus: Corpus) -> None:
    text = describe(corpus)
    assert f"{corpus.manifest.train.tokens:,} tokens" in text
    assert f"{corpus.manifest.held_out.bytes_per_token:.3f} bytes a token" in text
    few = corpus.manifest.held_out.documents < 200
    assert ("Fewer than 200 pieces" in text) == few
    assert few


def test_verify_names_the_damaged_file(copy: Corpus) -> None:
    verify(copy)
    for file in copy.manifest.files:
        path = copy.directory / file.name
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(UserError, match=f"{file.name} is damaged"):
            verify(copy)
        path.write_bytes(whole)
    verify(copy)


def test_a_corpus_with_a_file_cut_short_is_not_opened(copy: Corpus, source: Path) -> None:
    path = copy.directory / "train.tokens.npy"
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(UserError, match=r"train\.tokens\.npy is missing or cut short: delete"):
        prepare(str(source), **SETTINGS, into=copy.directory.parent)


def test_what_lies_in_the_corpus_s_place_is_left_alone_and_named(copy: Corpus, source: Path) -> None:
    (copy.directory / "manifest.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match=r"manifest\.json is damaged or of another version"):
        prepare(str(source), **SETTINGS, into=copy.directory.parent)
    (copy.directory / "manifest.json").unlink()
    with pytest.raises(UserError, match="is in the way"):
        prepare(str(source), **SETTINGS, into=copy.directory.parent)


def test_a_corpora_folder_that_can_t_be_made_is_named(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(UserError, match="can't be written"):
        prepare(str(source), **SETTINGS, into=tmp_path / "file" / "corpora")


def run_prepare(source: Path, into: Path, progress: str = "None") -> subprocess.Popen[bytes]:
    """Prepare the corpus in a process of its own; ``progress`` is the source text of its callback."""
    code = (
        "import os, signal, sys, time\n"
        "from pathlib import Path\n"
        "from trainer.data.prepare import prepare\n"
        f"prepare({str(source)!r}, **{SETTINGS!r}, into=Path({str(into)!r}), progress={progress})\n"
    )
    root = str(Path(__file__).resolve().parents[2])
    return subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": root}, stderr=subprocess.PIPE)


@pytest.mark.parametrize("stage", ["reading", "training the tokenizer", "tokenising"])
def test_a_kill_leaves_no_corpus_and_the_next_start_cleans_up(
    corpus: Corpus, source: Path, tmp_path: Path, stage: str
) -> None:
    process = run_prepare(source, tmp_path, f"lambda s, f: s == {stage!r} and os.kill(os.getpid(), signal.SIGKILL)")
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    leftovers = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert len(leftovers) == 1
    assert not (leftovers[0] / "manifest.json").exists()
    assert leftovers[0].name != corpus.directory.name
    # A request for another corpus cleans up too; then this one starts over.
    prepare(str(source), **(SETTINGS | {"vocabulary": 301}), into=tmp_path)
    assert not leftovers[0].exists()
    assert prepare(str(source), **SETTINGS, into=tmp_path).manifest.files == corpus.manifest.files
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 2


@pytest.mark.parametrize("failing", range(9))
def test_a_disk_that_fills_up_leaves_no_corpus(
    source: Path, tmp_path: Path, failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The n-th file to be put on the disk fails, for each n."""
    calls = 0
    fsync: Callable[[int], None] = os.fsync

    def full(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == failing + 1:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        prepare(str(source), **SETTINGS, into=tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_two_processes_that_want_the_same_corpus_make_it_once(corpus: Corpus, source: Path, tmp_path: Path) -> None:
    slow = "lambda s, f: (print(s, file=sys.stderr, flush=True), time.sleep(0.1))"
    processes = [run_prepare(source, tmp_path, slow) for _ in range(2)]
    stages = [process.communicate(timeout=120)[1].decode().splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    made = [lines for lines in stages if "tokenising" in lines]
    assert len(made) == 1
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [corpus.directory.name]
    assert Corpus(tmp_path / corpus.directory.name).manifest.files == corpus.manifest.files


@pytest.mark.slow
def test_the_starter_gives_the_corpus_of_the_quickstart(tmp_path: Path) -> None:
    corpus = prepare("starter", vocabulary=2048, held_out=0.05, cut_bytes=4096, into=tmp_path)
    verify(corpus)
    assert corpus.manifest.train.works == 117
    assert corpus.manifest.held_out.documents >= 200
    assert corpus.manifest.held_out.works >= 60
    assert 2.9 < corpus.manifest.train.bytes_per_token < 3.1
    assert "Fewer than" not in describe(corpus)
