"""The tokenised corpus on disk: two memory-mapped token arrays and a manifest that says exactly what they are.

A corpus folder holds ``manifest.json``, ``tokenizer.json``, ``token_bytes.npy`` (UTF-8 bytes of each token of the
vocabulary) and, for each split, ``SPLIT.tokens.npy`` (1-D, the smallest integer type that holds the vocabulary) and
``SPLIT.documents.npy`` (the index of each piece's first token). The manifest is written last: a folder without one
is no corpus.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scaling.errors import UserError
from scaling.record import Record

__all__ = ["Corpus", "CorpusManifest", "Split", "SplitName"]

SplitName = Literal["train", "held_out"]


class Split(Record):
    tokens: int
    utf8_bytes: int
    documents: int
    works: int
    sha256: str


class CorpusManifest(Record):
    """What was tokenised, from what, and how; ``data_key`` is the hash of all of it."""

    schema_version: int = 1
    data_key: str
    tokenizer_key: str
    vocabulary: int
    separator_id: int
    source: str
    cut_bytes: int
    train: Split
    held_out: Split


class Corpus:
    """A tokenised corpus opened for reading; the arrays are memory-mapped and never loaded whole."""

    def __init__(self, directory: Path) -> None:
        """Open the corpus in ``directory``; :class:`UserError` if its manifest is missing."""
        self.directory = Path(directory)
        path = self.directory / "manifest.json"
        if not path.is_file():
            raise UserError(f"{self.directory} is not a tokenised corpus: it has no manifest.json; prepare it first")
        self.manifest = CorpusManifest.model_validate_json(path.read_text(encoding="utf-8"))

    def tokens(self, split: SplitName) -> NDArray[Any]:
        """All tokens of ``split``: 1-D, uint16 or uint32, read-only."""
        return np.load(self.directory / f"{split}.tokens.npy", mmap_mode="r")

    def document_starts(self, split: SplitName) -> NDArray[np.int64]:
        """Index of the first token of each piece, ascending."""
        return np.load(self.directory / f"{split}.documents.npy")

    @cached_property
    def token_bytes(self) -> NDArray[np.uint16]:
        """UTF-8 bytes of each token of the vocabulary; 0 for the separator."""
        return np.load(self.directory / "token_bytes.npy")
