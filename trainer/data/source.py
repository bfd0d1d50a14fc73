"""Text files to documents: the embedded corpus, or any file, folder or glob of text, JSON lines or parquet.

Documents are streamed in one order on every machine: files by their name relative to the folder given, rows as they
lie; only a .txt file is held in memory whole. A document knows its work (the book, page or file it is a part of), since
losses of pieces of one work go together, and its domain (what kind of text it is) if it has one: what its row says
under ``domain_key``, else, unless that key was chosen, the first subfolder of the folder given that its file lies in.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scaling.errors import UserError
from trainer.data.packed_lines import DAMAGED, packed_lines

__all__ = ["DOMAIN_KEY", "STARTER", "SUFFIXES", "Document", "Source", "check_source", "open_source"]

STARTER = "starter"
DOMAIN_KEY = "domain"
SUFFIXES = (".txt", ".jsonl", ".jsonl.gz", ".jsonl.xz", ".jsonl.zst", ".parquet")

_STARTER_FILE = Path(__file__).resolve().parent / "starter" / "starter_pd.jsonl.xz"
_WORK_KEYS = ("work", "path", "id", "url", "title")
_LONGEST_DOMAIN = 80


@dataclass(frozen=True)
class Document:
    work: str
    text: str
    domain: str | None = None


@dataclass(frozen=True)
class Source:
    """Files that documents are read from; ``names`` are theirs relative to what was given, in the same order."""

    given: str
    paths: tuple[Path, ...]
    names: tuple[str, ...]
    text_key: str
    domain_key: str = DOMAIN_KEY

    def fingerprint(self) -> str:
        """SHA-256 of the files' relative names and contents: it moves with the text and not with its folder."""
        total = hashlib.sha256()
        for path, name in zip(self.paths, self.names, strict=True):
            try:
                with path.open("rb") as file:
                    content = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                raise _unreadable(path, error) from None
            total.update(f"{json.dumps(name)} {content}\n".encode())
        return total.hexdigest()

    def documents(self) -> Iterator[tuple[int, Document]]:
        """Each document that has any text, with the index of its file.

        A work is named by the row's ``work``, ``path``, ``id``, ``url`` or ``title``, the first that it has, else by
        its file and row. :class:`UserError` names file and line of what can't be read.
        """
        for index, (path, name) in enumerate(zip(self.paths, self.names, strict=True)):
            try:
                for document in self._read(path, name):
                    if document.text:
                        yield index, replace(document, domain=_short(document.domain or self._place(document, name)))
            except OSError as error:
                raise _unreadable(path, error) from None

    def _place(self, document: Document, name: str) -> str | None:
        """The first folder of the file's name; of the embedded corpus, which is one file, that of the work's name."""
        if self.given == STARTER:
            return document.work.partition("/")[0]
        folder, inside, _ = name.partition("/")
        return folder if inside and self.domain_key == DOMAIN_KEY else None

    def _read(self, path: Path, name: str) -> Iterator[Document]:
        if path.name.endswith(".parquet"):
            return _parquet(path, name, self.text_key, self.domain_key)
        if path.name.endswith(".txt"):
            return _text(path, name)
        return _json_lines(path, name, self.text_key, self.domain_key)


def open_source(given: str, text_key: str = "text", domain_key: str = DOMAIN_KEY) -> Source:
    """The files that ``given`` means: ``starter``, or a file, a folder (with its subfolders) or a glob of ``SUFFIXES``.

    text_key, domain_key: the fields of JSON lines and parquet that hold a document's text and, if any, its domain.
    :class:`UserError` if it is a network address, if nothing is there, or if nothing there is of a kind we read.
    """
    if given == STARTER:
        return Source(given, (_STARTER_FILE,), (_STARTER_FILE.name,), "text")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", given):
        raise UserError(
            f"corpus source {given} is on a network, and only local files are read: download it yourself and give the "
            f"folder of {_kinds()} files"
        )
    if not given.strip():
        raise UserError(f"corpus source is empty: give {STARTER}, or a file, folder or glob of {_kinds()} files")
    path = Path(given).expanduser()
    if path.is_file():
        if not path.name.endswith(SUFFIXES):
            raise UserError(f"corpus source {given} is not of a kind that can be read; the kinds are {_kinds()}")
        return Source(given, (path,), (path.name,), text_key, domain_key)
    if path.is_dir():
        return _among(given, path, path.rglob("*"), text_key, domain_key)
    if re.search(r"[*?\[]", given):
        fixed = [part for part in path.parts if not re.search(r"[*?\[]", part)]
        folder = Path(*path.parts[: next(i for i, part in enumerate(path.parts) if part not in fixed)])
        return _among(given, folder, folder.glob(str(path.relative_to(folder))), text_key, domain_key)
    raise UserError(
        f"corpus source {given} does not exist: give {STARTER}, or a file, folder or glob of {_kinds()} files (data "
        "sets on a hub must be downloaded first)"
    )


def check_source(given: str, text_key: str = "text") -> None:
    """:class:`UserError` if :func:`open_source` would refuse ``given``; no file is read."""
    open_source(given, text_key)


def _among(given: str, folder: Path, found: Iterator[Path], text_key: str, domain_key: str) -> Source:
    files = {
        path.relative_to(folder).as_posix(): path
        for path in found
        if path.name.endswith(SUFFIXES) and not path.name.startswith(".") and path.is_file()
    }
    if not files:
        raise UserError(f"corpus source {given} has no file that can be read; the kinds are {_kinds()}")
    names = tuple(sorted(files))
    return Source(given, tuple(files[name] for name in names), names, text_key, domain_key)


def _text(path: Path, name: str) -> Iterator[Document]:
    try:
        yield Document(name, path.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 at byte {error.start}: convert it, for instance with iconv") from None


def _json_lines(path: Path, name: str, text_key: str, domain_key: str) -> Iterator[Document]:
    line_number = 0
    try:
        for line_number, line in enumerate(packed_lines(path), 1):
            if line.strip():
                yield _row(line, f"{path}:{line_number}", f"{name}:{line_number}", text_key, domain_key)
    except DAMAGED as error:
        raise UserError(f"{path} is damaged after line {line_number} ({error}): fetch or pack it again") from None


def _row(line: bytes, where: str, default_work: str, text_key: str, domain_key: str) -> Document:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is not UTF-8 at byte {error.start} of the line: convert the file") from None
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{where} is not JSON ({error}): each line must be one JSON object") from None
    if not isinstance(row, dict):
        raise UserError(f"{where} is not a JSON object: each line must be one, with its text under {text_key!r}")
    if text_key not in row:
        raise UserError(f"{where} has no key {text_key!r} (it has {_listed(row)}): set text_key to the one with text")
    text = row[text_key]
    if not isinstance(text, str):
        raise UserError(f"{where} has under {text_key!r} a {type(text).__name__}, not text: set text_key or mend it")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{where} has half a surrogate pair at character {error.start}: mend the escape") from None
    return Document(_named(row, _WORK_KEYS) or default_work, text, _named(row, (domain_key,)))


def _parquet(path: Path, name: str, text_key: str, domain_key: str) -> Iterator[Document]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            columns = file.schema_arrow.names
            if text_key not in columns:
                raise UserError(f"{path} has no column {text_key!r} (it has {_listed(columns)}): set text_key")
            wanted = [text_key, *{key for key in (*_WORK_KEYS, domain_key) if key in columns and key != text_key}]
            for batch in file.iter_batches(batch_size=256, columns=wanted):
                for row in batch.to_pylist():
                    number += 1
                    if not isinstance(row[text_key], str):
                        kind = type(row[text_key]).__name__
                        raise UserError(f"{path} row {number} has under {text_key!r} a {kind}, not text: set text_key")
                    work = _named(row, _WORK_KEYS) or f"{name}:{number}"
                    yield Document(work, row[text_key], _named(row, (domain_key,)))
    except (pa.ArrowException, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} is damaged after row {number} ({reason}): fetch or write it again") from None


def _named(row: dict[str, Any], keys: tuple[str, ...]) -> str | None:
    """The first of the fields that holds a name or a number."""
    for key in keys:
        value = row.get(key)
        if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
            return str(value)
    return None


def _short(domain: str | None) -> str | None:
    # JSON and file names may hold half a surrogate pair, which no file of ours could.
    return domain and domain[:_LONGEST_DOMAIN].encode(errors="replace").decode()


def _listed(names: Any) -> str:
    shown = [repr(str(name)) for name in list(names)[:8]]
    return ", ".join(shown) or "none"


def _kinds() -> str:
    return ", ".join(SUFFIXES)


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path} can't be read ({error.strerror or error}): check the file and its permissions")
