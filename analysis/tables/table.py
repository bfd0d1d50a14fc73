"""What a table is: numbers already formatted, each cell with the value that sorting goes by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Cell", "Table", "table"]


@dataclass(frozen=True)
class Cell:
    text: str
    sort: float | str | None = None


@dataclass(frozen=True)
class Table:
    """Column titles starting with ``#`` hold numbers and are set flush right; ``marked`` rows are highlighted."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    marked: frozenset[int] = frozenset()


def table(columns: Sequence[str], rows: Sequence[Sequence[Cell | str]], marked: frozenset[int] = frozenset()) -> Table:
    cells = tuple(tuple(c if isinstance(c, Cell) else Cell(c) for c in row) for row in rows)
    return Table(tuple(columns), cells, marked)
