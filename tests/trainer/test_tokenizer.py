"""The BPE is exact in size, the same every time, loses no byte, and knows how many bytes each token stands for."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from scaling.errors import UserError
from trainer.data.pieces import cut
from trainer.data.source import open_source
from trainer.data.tokenizer import SEPARATOR, load_tokenizer, separator_id, token_bytes, train_tokenizer

AUSTEN = next(open_source("starter").documents())[1].text[:200_000]
TOKENIZER = train_tokenizer(iter(cut(AUSTEN, 4096)), 500)
LENGTHS = token_bytes(TOKENIZER)


def ids(text: str, tokenizer: Tokenizer = TOKENIZER) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


def test_the_vocabulary_is_exact_and_the_separator_is_token_0() -> None:
    assert TOKENIZER.get_vocab_size() == len(LENGTHS) == 500
    assert separator_id(TOKENIZER) == TOKENIZER.token_to_id(SEPARATOR) == 0
    assert LENGTHS[0] == 0
    assert LENGTHS[1:].min() == 1


@given(st.text())
def test_tokens_stand_for_exactly_the_bytes_of_any_text(text: str) -> None:
    tokens = ids(text)
    assert LENGTHS[tokens].sum() == len(text.encode())
    assert TOKENIZER.decode(tokens, skip_special_tokens=False) == text


def test_text_that_spells_the_separator_is_text() -> None:
    text = f"a {SEPARATOR} b"
    assert 0 not in ids(text)
    assert LENGTHS[ids(text)].sum() == len(text)


def test_training_is_the_same_for_any_number_of_threads_and_any_hash_seed() -> None:
    code = (
        "import hashlib, itertools\n"
        "from trainer.data.source import open_source\n"
        "from trainer.data.pieces import cut\n"
        "from trainer.data.tokenizer import train_tokenizer\n"
        "documents = itertools.islice(open_source('starter').documents(), 6, 30)\n"
        "texts = (piece for _, document in documents for piece in cut(document.text, 4096))\n"
        "print(hashlib.sha256(train_tokenizer(texts, 1024).to_str().encode()).hexdigest())\n"
    )
    found = set()
    for threads, hash_seed in (("1", "0"), ("2", "1"), ("5", "2")):
        environment = os.environ | {"RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": hash_seed}
        ran = subprocess.run(
            [sys.executable, "-c", code],
            env=environment | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
            capture_output=True,
            text=True,
            check=True,
        )
        found.add(ran.stdout.strip())
    assert len(found) == 1


def test_a_corpus_too_small_for_the_vocabulary_is_refused_with_what_it_can_fill() -> None:
    with pytest.raises(UserError, match=r"vocabulary 5000 is too large .* fills (\d+) tokens; give at most \1"):
        train_tokenizer(iter([AUSTEN[:2000]]), 5000)
    with pytest.raises(UserError, match="vocabulary 256 is too small"):
        train_tokenizer(iter([AUSTEN]), 256)


def test_a_saved_tokenizer_loads_and_gives_the_same_tokens(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    TOKENIZER.save(str(path))
    loaded = load_tokenizer(path)
    assert ids(AUSTEN[:5000], loaded) == ids(AUSTEN[:5000])
    assert 0 not in ids(SEPARATOR, loaded)
    assert (token_bytes(loaded) == LENGTHS).all()


def test_a_published_style_tokenizer_is_taken_without_its_truncation_template_or_added_words(tmp_path: Path) -> None:
    """Ids with a gap, an added word outside the byte-level alphabet, and what post-processors add."""
    published = Tokenizer(models.BPE.from_file(*_bpe_files(tmp_path)))
    published.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    published.decoder = decoders.ByteLevel()
    published.add_special_tokens(["<|im_end|>"])
    published.add_tokens(["größer"])
    published.enable_truncation(3)
    end = published.token_to_id("<|im_end|>")
    published.post_processor = processors.TemplateProcessing(
        single="$A <|im_end|>", special_tokens=[("<|im_end|>", end)]
    )
    published.save(str(tmp_path / "tokenizer.json"))
    loaded = load_tokenizer(tmp_path / "tokenizer.json")
    text = "viel größer als vorher"
    assert separator_id(loaded) == end
    assert end not in ids(text, loaded)
    assert token_bytes(loaded)[[0, end]].tolist() == [0, 0]
    assert token_bytes(loaded)[ids(text, loaded)].sum() == len(text.encode())


def _bpe_files(folder: Path) -> tuple[str, str]:
    """The files of ``TOKENIZER``'s merges, in which no token has id 0."""
    TOKENIZER.model.save(str(folder))
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    del vocabulary[SEPARATOR]
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    return str(folder / "vocab.json"), str(folder / "merges.txt")


def test_a_file_that_is_no_byte_level_tokenizer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with pytest.raises(UserError, match="is not a file"):
        load_tokenizer(path)
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="can't be read"):
        load_tokenizer(path)
    Tokenizer(models.WordLevel({SEPARATOR: 0, "a": 1}, unk_token="a")).save(str(path))
    with pytest.raises(UserError, match="is not byte-level"):
        load_tokenizer(path)
    nameless = Tokenizer(models.BPE())
    nameless.decoder = decoders.ByteLevel()
    nameless.save(str(path))
    with pytest.raises(UserError, match="no token to put between pieces"):
        load_tokenizer(path)


def test_token_bytes_agree_with_decoding_each_token() -> None:
    """For tokens that are whole characters, decoding gives the bytes themselves."""
    whole = 0
    for token in random.Random(0).sample(range(1, 500), 200):
        text = TOKENIZER.decode([token])
        if "\ufffd" not in text:
            assert len(text.encode()) == LENGTHS[token]
            whole += 1
    assert whole > 80
