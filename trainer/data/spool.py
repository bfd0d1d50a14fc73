"""Pieces of one split waiting on disk, so that a corpus larger than memory can be shuffled before it is tokenised."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["Spool"]


class Spool:
    """Pieces written in the order they come and read in the order of their keys; 32 bytes of memory a piece."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("w+b")
        self._ends = array("q", [0])
        self._keys = array("q")
        self._works = array("q")
        self._domains = array("q")

    def add(self, text: str, work: int, key: int, domain: int = -1) -> None:
        """``domain`` is its number, -1 if it has none."""
        self._file.write(text.encode())
        self._ends.append(self._file.tell())
        self._keys.append(key)
        self._works.append(work)
        self._domains.append(domain)

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def utf8_bytes(self) -> int:
        return self._ends[-1]

    def works(self) -> NDArray[np.int64]:
        """The work of each piece, in the order of :meth:`texts`."""
        return np.array(self._works, dtype=np.int64)[self._order()]

    def domains(self) -> NDArray[np.int64]:
        """The domain of each piece, in the order of :meth:`texts`."""
        return np.array(self._domains, dtype=np.int64)[self._order()]

    def texts(self) -> Iterator[str]:
        """The pieces by ascending key; nothing may be added while this is read."""
        self._file.flush()
        for index in self._order():
            start, end = self._ends[index], self._ends[index + 1]
            self._file.seek(start)
            yield self._file.read(end - start).decode()

    def _order(self) -> NDArray[np.int64]:
        return np.argsort(np.array(self._keys, dtype=np.int64), kind="stable")

    def close(self) -> None:
        """Delete the file; no more can be read."""
        self._file.close()
        self._path.unlink(missing_ok=True)
