"""A corpus from text in one call: read, cut, split, train the BPE, tokenise, and appear whole in its folder.

The folder is named by the key of everything that the tokens depend on, so the same request opens what is there. Text
waits on disk between the steps: memory holds a chunk of it, whatever the corpus's size.
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from scaling.errors import UserError
from scaling.record import content_hash
from trainer.data import atomic_folder, pieces
from trainer.data.domains import held_out_domains
from trainer.data.shards import CORPUS_SCHEMA_VERSION, Corpus, CorpusFile, CorpusManifest, Split, SplitName
from trainer.data.source import DOMAIN_KEY, Source, open_source
from trainer.data.spool import Spool
from trainer.data.tokenizer import (
    PRE_TOKENIZATION,
    SMALLEST_VOCABULARY,
    load_tokenizer,
    separator_id,
    token_bytes,
    train_tokenizer,
)
from trainer.data.tokens import file_sha256, save_array, tokenise

__all__ = ["FEWEST_HELD_OUT", "TOKENIZER_BYTES", "Progress", "prepare"]

Progress = Callable[[str, float], None]
"""Called with the stage's name and its fraction done, from 0 to 1."""

FEWEST_HELD_OUT = 20
TOKENIZER_BYTES = 256 * 2**20
"""The BPE is trained on this much text, the first of the shuffled training part; more changes hardly a merge."""

_LARGEST_HELD_OUT = 0.5


@dataclass(frozen=True)
class _Request:
    source: Source
    vocabulary: int
    held_out: float
    cut_bytes: int
    tokenizer: Path | None

    def key(self) -> str:
        """What the tokens depend on, and no path: a corpus moved elsewhere keeps its key."""
        trained = {"pre_tokenization": PRE_TOKENIZATION, "bytes": TOKENIZER_BYTES}
        return content_hash(
            {
                "schema_version": CORPUS_SCHEMA_VERSION,
                "source": self.source.fingerprint(),
                "text_key": self.source.text_key,
                "domain_key": self.source.domain_key,
                "cut_bytes": self.cut_bytes,
                "held_out": self.held_out,
                "salt": pieces.SALT,
                "vocabulary": self.vocabulary,
                "tokenizer": trained if self.tokenizer is None else file_sha256(self.tokenizer),
            }
        )


def prepare(
    source: str,
    *,
    vocabulary: int,
    held_out: float,
    cut_bytes: int = pieces.CUT_BYTES,
    text_key: str = "text",
    domain_key: str = DOMAIN_KEY,
    tokenizer: Path | None = None,
    into: Path,
    progress: Progress | None = None,
) -> Corpus:
    """The tokenised corpus of ``source`` in a folder of its own within ``into``; opened without work if it is there.

    source: ``starter``, or a file, folder or glob (:func:`trainer.data.source.open_source`). vocabulary: tokens of the
    BPE, at least 257. held_out: share of the pieces kept for measuring. cut_bytes: longer documents are cut.
    text_key: the field with the text in JSON lines and parquet. domain_key: the one that names a document's domain.
    tokenizer: a ``tokenizer.json`` to use instead of training one. :class:`UserError` for whatever of these can't be
    used, with the remedy.
    """
    report = progress or (lambda stage, fraction: None)
    if not 0 < held_out <= _LARGEST_HELD_OUT:
        raise UserError(f"held_out {held_out} is not a share of the pieces: give more than 0 and at most 0.5")
    if vocabulary < SMALLEST_VOCABULARY:
        raise UserError(f"vocabulary {vocabulary} is too small: give at least {SMALLEST_VOCABULARY}")
    # Errors of the tokenizer file and of cut_bytes come before the work.
    loaded = None if tokenizer is None else _checked_tokenizer(tokenizer, vocabulary)
    pieces.cut("", cut_bytes)
    request = _Request(open_source(source, text_key, domain_key), vocabulary, float(held_out), cut_bytes, tokenizer)
    key = request.key()
    folder = Path(into) / key[:16]
    try:
        if folder.exists():
            return _opened(folder, key)
        Path(into).mkdir(parents=True, exist_ok=True)
        with atomic_folder.sole_writer(folder, on_wait=lambda: report("waiting for another process", 0.0)):
            if not folder.exists():
                with atomic_folder.partial_folder(folder) as partial:
                    _build(request, key, loaded, partial, report)
                    atomic_folder.publish(partial, folder)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
            raise UserError(
                f"corpus folder {into} can't be written ({error.strerror}): mend that or choose another folder"
            ) from None
        raise
    return _opened(folder, key)


def _opened(folder: Path, key: str) -> Corpus:
    if not (folder / "manifest.json").is_file():
        raise UserError(f"{folder} is in the way: it is no corpus; move it away or choose another corpora folder")
    corpus = Corpus(folder)
    if corpus.manifest.data_key != key:
        raise UserError(f"{folder} holds another corpus than its name says: delete the folder and prepare it again")
    corpus.check_sizes()
    return corpus


def _checked_tokenizer(path: Path, vocabulary: int) -> Tokenizer:
    loaded = load_tokenizer(path)
    size = len(token_bytes(loaded))
    if size != vocabulary:
        raise UserError(f"vocabulary {vocabulary} is not that of tokenizer {path}, which has {size}: set it to {size}")
    return loaded


def _build(request: _Request, key: str, loaded: Tokenizer | None, folder: Path, report: Progress) -> None:
    with closing(Spool(folder / "train.pieces")) as train, closing(Spool(folder / "held_out.pieces")) as held_out:
        names = _read(request, {"train": train, "held_out": held_out}, report)
        _check_counts(request, train, held_out)
        report("training the tokenizer", 0.0)
        tokenizer = loaded or train_tokenizer(_sample(train, report), request.vocabulary)
        report("training the tokenizer", 1.0)
        _write_tokenizer(tokenizer, request.tokenizer, folder)
        total = train.utf8_bytes + held_out.utf8_bytes
        splits: dict[SplitName, Split] = {
            "train": tokenise(train, "train", tokenizer, folder, lambda done: report("tokenising", done / total)),
            "held_out": tokenise(
                held_out,
                "held_out",
                tokenizer,
                folder,
                lambda done: report("tokenising", (train.utf8_bytes + done) / total),
            ),
        }
        domain_P, domains = held_out_domains(held_out.domains(), names)
        if domains:
            save_array(folder / "held_out.domains.npy", domain_P)
    # The spools are gone: what lies in the folder now is the corpus.
    manifest = CorpusManifest(
        data_key=key,
        tokenizer_key=file_sha256(folder / "tokenizer.json"),
        vocabulary=request.vocabulary,
        separator_id=separator_id(tokenizer),
        source=request.source.given,
        cut_bytes=request.cut_bytes,
        held_out_share=request.held_out,
        train=splits["train"],
        held_out=splits["held_out"],
        held_out_domains=domains,
        files=tuple(
            CorpusFile(name=path.name, size_bytes=path.stat().st_size, sha256=file_sha256(path))
            for path in sorted(folder.iterdir())
        ),
    )
    with atomic_folder.new_file(folder / "manifest.json") as file:
        file.write(manifest.model_dump_json(indent=2).encode() + b"\n")


def _read(request: _Request, spools: dict[SplitName, Spool], report: Progress) -> list[str]:
    """Documents, cut and split, into the spools; works and domains are numbered as they first appear, and the names of
    the domains returned."""
    sizes = [0, *itertools.accumulate(path.stat().st_size for path in request.source.paths)]
    works: dict[str, int] = {}
    domains: dict[str, int] = {}
    ordinal = 0
    report("reading", 0.0)
    for file_index, document in request.source.documents():
        work = works.setdefault(document.work, len(works))
        domain = -1 if document.domain is None else domains.setdefault(document.domain, len(domains))
        for piece in pieces.cut(document.text, request.cut_bytes):
            side = pieces.split_of(piece, request.held_out)
            spools[side].add(piece, work, pieces.order_key(piece, ordinal), domain)
            ordinal += 1
        report("reading", sizes[file_index] / max(1, sizes[-1]))
    report("reading", 1.0)
    source = request.source
    if not domains and source.domain_key != DOMAIN_KEY:
        raise UserError(
            f"domain_key {source.domain_key!r} names a field that no document of {source.given} has: set it to the one "
            "with the domain, or leave it out"
        )
    return list(domains)


def _check_counts(request: _Request, train: Spool, held_out: Spool) -> None:
    total = len(train) + len(held_out)
    if len(held_out) >= FEWEST_HELD_OUT and len(train):
        return
    wanted = 1.5 * FEWEST_HELD_OUT / max(1, total)
    remedies = ["give more text"]
    if wanted <= _LARGEST_HELD_OUT:
        remedies.append(f"raise held_out to {wanted:.2g}")
    smaller = int((train.utf8_bytes + held_out.utf8_bytes) * request.held_out / (2 * FEWEST_HELD_OUT))
    if 256 <= smaller < request.cut_bytes:
        remedies.append(f"lower cut_bytes to {smaller}")
    raise UserError(
        f"corpus source {request.source.given} is too small: held_out {request.held_out:g} keeps {len(held_out)} of "
        f"its {total} pieces for measuring, and at least {FEWEST_HELD_OUT} are needed: {', or '.join(remedies)}"
    )


def _sample(spool: Spool, report: Progress) -> Iterator[str]:
    limit = min(TOKENIZER_BYTES, spool.utf8_bytes)
    seen = 0
    for number, text in enumerate(spool.texts()):
        if seen >= limit:
            return
        yield text
        seen += len(text.encode())
        if number % 256 == 0:
            report("training the tokenizer", min(1.0, seen / limit))


def _write_tokenizer(tokenizer: Tokenizer, given: Path | None, folder: Path) -> None:
    """``tokenizer.json``, byte for byte the given one if there was one, and ``token_bytes.npy``."""
    with atomic_folder.new_file(folder / "tokenizer.json") as file:
        file.write(tokenizer.to_str(pretty=True).encode() if given is None else given.read_bytes())
    save_array(folder / "token_bytes.npy", token_bytes(tokenizer))
