"""Lines of text files, plain or packed by gzip, xz or Zstandard, read as a stream."""

from __future__ import annotations

import gzip
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path

import zstandard

__all__ = ["DAMAGED", "packed_lines"]

DAMAGED = (EOFError, lzma.LZMAError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError)


def packed_lines(path: Path) -> Iterator[bytes]:
    """The lines of ``path``, unpacked if its name ends in .gz, .xz or .zst; one of ``DAMAGED`` where that fails."""
    if path.name.endswith(".zst"):
        yield from _zstd_lines(path)
    elif path.name.endswith(".gz"):
        with gzip.open(path, "rb") as unzipped:
            yield from unzipped
    elif path.name.endswith(".xz"):
        with lzma.open(path, "rb") as unpacked:
            yield from unpacked
    else:
        with path.open("rb") as plain:
            yield from plain


def _zstd_lines(path: Path) -> Iterator[bytes]:
    """Lines of a file of Zstandard frames; ``EOFError`` if the last is cut short (zstandard's own reader is silent)."""
    started: list[bytes] = []
    frame = None
    with path.open("rb") as packed:
        while chunk := packed.read(2**17):
            while chunk:
                frame = frame or zstandard.ZstdDecompressor().decompressobj()
                first, *others = frame.decompress(chunk).split(b"\n")
                started.append(first)
                for other in others:
                    yield b"".join(started)
                    started = [other]
                chunk, frame = (frame.unused_data, None) if frame.eof else (b"", frame)
    if frame is not None:
        raise EOFError("the last frame is cut short")
    yield b"".join(started)
