"""Pieces to token arrays on disk, a chunk at a time."""

from __future__ import annotations

import hashlib
import io
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from scaling.errors import UserError
from trainer.data import atomic_folder
from trainer.data.shards import Split, SplitName
from trainer.data.spool import Spool
from trainer.data.tokenizer import separator_id, token_bytes

__all__ = ["file_sha256", "save_array", "tokenise"]

# A megabyte of text is some 300,000 tokens, whose encodings take a few tens of megabytes.
_CHUNK_BYTES = 2**20


def tokenise(
    spool: Spool, name: SplitName, tokenizer: Tokenizer, folder: Path, report_bytes: Callable[[int], None]
) -> Split:
    """Write the arrays of split ``name`` into ``folder``: each piece's tokens, and the separator after them.

    ``report_bytes`` is told the bytes of text done. :class:`UserError` if the tokens don't stand for exactly the bytes
    of the text, as a tokenizer that normalises would have it.
    """
    separator = separator_id(tokenizer)
    bytes_of = token_bytes(tokenizer).astype(np.int64)
    kind = np.dtype(np.min_scalar_type(len(bytes_of) - 1)).newbyteorder("<")
    lengths: list[NDArray[np.int64]] = []
    done = 0
    with atomic_folder.new_file(folder / f"{name}.tokens.npy") as file:
        header = _npy_header(kind, 0)
        file.write(header)
        for texts in _chunks(spool.texts()):
            encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
            ids = np.fromiter(
                itertools.chain.from_iterable((*encoding.ids, separator) for encoding in encodings), dtype=np.int64
            )
            text_bytes = sum(len(text.encode()) for text in texts)
            if int(bytes_of[ids].sum()) != text_bytes:
                raise UserError(
                    "tokenizer changes the text it is given (a normaliser or an added space): bits per byte "
                    "would be wrong; give one that keeps every byte, or none to train one"
                )
            file.write(ids.astype(kind).tobytes())
            lengths.append(np.fromiter((len(encoding.ids) + 1 for encoding in encodings), dtype=np.int64))
            done += text_bytes
            report_bytes(done)
        length = np.concatenate(lengths)
        tokens = int(length.sum())
        final = _npy_header(kind, tokens)
        if len(final) != len(header):
            raise RuntimeError("the .npy header changed its length")
        file.seek(0)
        file.write(final)
    save_array(folder / f"{name}.documents.npy", np.cumsum(length) - length)
    works = spool.works()
    if name == "held_out":
        save_array(folder / "held_out.works.npy", works)
    return Split(
        tokens=tokens,
        utf8_bytes=spool.utf8_bytes,
        documents=len(spool),
        works=len(np.unique(works)),
        sha256=file_sha256(folder / f"{name}.tokens.npy"),
    )


def _chunks(texts: Iterator[str]) -> Iterator[list[str]]:
    chunk: list[str] = []
    size = 0
    for text in texts:
        chunk.append(text)
        size += len(text)
        if size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _npy_header(kind: np.dtype[np.generic], tokens: int) -> bytes:
    """The header of a 1-D .npy file; numpy pads it so that the length can be filled in afterwards."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": kind.str, "fortran_order": False, "shape": (tokens,)})
    return header.getvalue()


def save_array(path: Path, values: NDArray[np.generic]) -> None:
    with atomic_folder.new_file(path) as file:
        np.save(file, values, allow_pickle=False)


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
