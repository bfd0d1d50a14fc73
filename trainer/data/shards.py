"""The tokenised corpus on disk: two memory-mapped token arrays and a manifest that says exactly what they are.

A corpus folder holds ``manifest.json``, ``tokenizer.json``, ``token_bytes.npy`` (UTF-8 bytes of each token of the
vocabulary) and, for each split, ``SPLIT.tokens.npy`` (1-D, the smallest integer type that holds the vocabulary) and
``SPLIT.documents.npy`` (the index of each piece's first token); ``held_out.works.npy`` numbers the work that each
held-out piece is from, and ``held_out.domains.npy`` its domain, if the manifest names any. Each piece is followed by
the separator. The folder appears whole: without a manifest it is no corpus.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from scaling.errors import UserError
from scaling.record import Record

__all__ = [
    "CORPUS_SCHEMA_VERSION",
    "Corpus",
    "CorpusFile",
    "CorpusManifest",
    "Split",
    "SplitName",
    "describe",
    "verify",
]

CORPUS_SCHEMA_VERSION = 2
SplitName = Literal["train", "held_out"]

_ENOUGH_HELD_OUT = 200
_REMEDY = "delete the corpus folder and prepare it again"


class Split(Record):
    """One side of the corpus. ``tokens`` counts separators, ``utf8_bytes`` only text; ``documents`` are its pieces,
    and ``sha256`` is that of its token file."""

    tokens: int
    utf8_bytes: int
    documents: int
    works: int
    sha256: str

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes of text a token, the separators among the tokens."""
        return self.utf8_bytes / self.tokens


class CorpusFile(Record):
    name: str
    size_bytes: int
    sha256: str


class CorpusManifest(Record):
    """What was tokenised, from what, and how; ``data_key`` is the hash of all of it."""

    schema_version: int = CORPUS_SCHEMA_VERSION
    data_key: str
    tokenizer_key: str
    vocabulary: int
    separator_id: int
    source: str
    cut_bytes: int
    held_out_share: float | None = None
    train: Split
    held_out: Split
    held_out_domains: tuple[str, ...] = ()
    files: tuple[CorpusFile, ...] = ()


class Corpus:
    """A tokenised corpus opened for reading; the arrays are memory-mapped and never loaded whole."""

    def __init__(self, directory: Path) -> None:
        """Open the corpus in ``directory``; :class:`UserError` if its manifest is missing."""
        self.directory = Path(directory)
        path = self.directory / "manifest.json"
        if not path.is_file():
            raise UserError(f"{self.directory} is not a tokenised corpus: it has no manifest.json; prepare it first")
        try:
            self.manifest = CorpusManifest.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise UserError(
                f"{path} is damaged or of another version ({error.error_count()} fields can't be read): {_REMEDY}"
            ) from None

        if self.manifest.schema_version != CORPUS_SCHEMA_VERSION:
            raise UserError(
                f"{path} is of version {self.manifest.schema_version} and this program reads {CORPUS_SCHEMA_VERSION}: "
                f"{_REMEDY}"
            )

    def tokens(self, split: SplitName) -> NDArray[Any]:
        """All tokens of ``split``: 1-D, uint16 or uint32, read-only."""
        tokens: NDArray[Any] = np.load(self.directory / f"{split}.tokens.npy", mmap_mode="r")
        return tokens

    def document_starts(self, split: SplitName) -> NDArray[np.int64]:
        """Index of the first token of each piece, ascending."""
        starts: NDArray[np.int64] = np.load(self.directory / f"{split}.documents.npy")
        return starts

    @cached_property
    def token_bytes(self) -> NDArray[np.uint16]:
        """UTF-8 bytes of each token of the vocabulary; 0 for the separator."""
        lengths: NDArray[np.uint16] = np.load(self.directory / "token_bytes.npy")
        return lengths

    @cached_property
    def held_out_works(self) -> NDArray[np.int64]:
        """The number of the work that each held-out piece is from: standard errors are clustered by it."""
        works: NDArray[np.int64] = np.load(self.directory / "held_out.works.npy")
        return works

    @cached_property
    def held_out_domains(self) -> NDArray[np.int64]:
        """The domain of each held-out piece, an index into the manifest's names; -1 if it has none."""
        if not self.manifest.held_out_domains:
            return np.full(self.manifest.held_out.documents, -1)
        domains: NDArray[np.int64] = np.load(self.directory / "held_out.domains.npy")
        return domains

    def check_sizes(self) -> None:
        """:class:`UserError` if a file is missing or not of its recorded size; costs no reading."""
        for file in self.manifest.files:
            path = self.directory / file.name
            if not path.is_file() or path.stat().st_size != file.size_bytes:
                raise UserError(f"{path} is missing or cut short: {_REMEDY}")


def verify(corpus: Corpus) -> None:
    """Read every file of the corpus; :class:`UserError` names the first whose SHA-256 is not the recorded one."""
    corpus.check_sizes()
    for file in corpus.manifest.files:
        path = corpus.directory / file.name
        with path.open("rb") as content:
            if hashlib.file_digest(content, "sha256").hexdigest() != file.sha256:
                raise UserError(f"{path} is damaged (its SHA-256 is not the one in manifest.json): {_REMEDY}")


def describe(corpus: Corpus) -> str:
    """One paragraph for a person: what the corpus holds, and a caution if few pieces are held out."""
    manifest = corpus.manifest

    def side(split: Split) -> str:
        return (
            f"{split.documents:,} pieces of {split.works:,} works, {split.tokens:,} tokens "
            f"({split.bytes_per_token:.3f} bytes a token)"
        )

    text = (
        f"Corpus {manifest.data_key[:16]} from {manifest.source}, BPE of {manifest.vocabulary:,} tokens: "
        f"{side(manifest.train)} to train on; {side(manifest.held_out)} held out."
    )
    if manifest.held_out_domains:
        text += f" Held-out domains: {', '.join(manifest.held_out_domains)}."
    if manifest.held_out.documents < _ENOUGH_HELD_OUT:
        text += (
            f" Fewer than {_ENOUGH_HELD_OUT} pieces are held out, so losses will be uncertain: raise held_out or lower "
            f"cut_bytes (now {manifest.cut_bytes:,})."
        )
    return text
