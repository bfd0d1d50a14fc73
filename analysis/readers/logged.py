"""Runs that other software logged, one row a run, and which of their columns are what a law is fitted to.

A column is ``KIND.NAME``: ``params.lr``, ``metrics.loss`` (its last value), ``metrics.loss.min``, ``tags.team``,
``user_attrs.note``; what a source has without a kind (``name``, ``status``) stands as it is. People may leave the kind
out where one column alone has the name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import pandas as pd

from scaling.errors import UserError
from scaling.observation import ParamsConvention
from scaling.table import FIELDS, usual_names

__all__ = ["KINDS", "MINIMUM", "Asked", "LoggedRuns", "Progress", "frame_of", "short_name"]

KINDS = ("params", "metrics", "tags", "user_attrs")
MINIMUM = ".min"
"""Ends the column of a metric's least value."""
_OURS = "scaling."
_MEASURED = ("metrics", "params", "user_attrs", "tags")
_CHOSEN = ("params", "user_attrs", "tags", "metrics")
_KINDS_OF = {"params": _CHOSEN, "tokens": _MEASURED, "loss": _MEASURED, "flops": _MEASURED}
"""In which order kinds are looked through for a field: of tokens, what was trained before what was planned."""
_ALSO_CALLED = {
    "params": ("num_params", "num_parameters", "n_parameters", "parameter_count", "total_params", "model_size"),
    "tokens": ("tokens_seen", "num_tokens", "total_tokens", "train_tokens", "n_train_tokens", "consumed_tokens"),
    "loss": ("val_loss", "valid_loss", "validation_loss", "eval_loss", "held_out_loss", "heldout_loss", "test_loss",
             "loss_nats", "loss_val", "loss_eval", "loss_validation", "loss_test"),
    "flops": ("total_flops", "train_flops"),
}  # fmt: skip
"""Names that trackers' users give, ``/``, ``-``, ``.`` and blanks written as ``_``: a loss measured on other data than
the training's is looked for before a plain ``loss``."""
_LISTED = 60


class Progress(Protocol):
    """Hears how many of how many runs were read; the total is None where the source does not say it."""

    def __call__(self, done: int, total: int | None) -> None: ...


@dataclass(frozen=True)
class Asked:
    """What is asked of a reader."""

    columns: frozenset[str] = frozenset()
    """Names that were typed, for readers to which some columns are dear."""
    unfinished: bool = False
    """Whether runs that failed, were stopped or still run are wanted too."""
    tracking_uri: str | None = None
    progress: Progress = lambda done, total: None


@dataclass(frozen=True)
class LoggedRuns:
    frame: pd.DataFrame = field(repr=False)
    source: str
    """As people call it, ``MLflow experiment ladder``."""
    name: str
    left_out: int = 0
    """Runs that did not finish."""

    def columns_for(self, asked: Mapping[str, str], params_convention: ParamsConvention = "total") -> dict[str, str]:
        """The column of each field: as asked, else by the usual names.

        Raises ``UserError`` for a name that no column or several have, and for a field of which none can be guessed;
        both name the columns that exist.
        """
        unknown = [name for name in asked if name not in FIELDS]
        if unknown:
            raise UserError(f"--columns: {unknown[0]} is not a field; the fields are {', '.join(FIELDS)}")
        found = {ours: self._column(ours, theirs) for ours, theirs in asked.items()}
        usual = usual_names(params_convention)
        for ours in FIELDS:
            if ours not in found and (guess := self._guess(ours, usual[ours])) is not None:
                found[ours] = guess
        missing = [ours for ours in ("params", "tokens", "loss") if ours not in found]
        if missing:
            remedy = ",".join(f"{ours}=COLUMN" for ours in missing)
            raise UserError(
                f"{self.source}: no column for {', '.join(missing)}; say which with --columns {remedy}. "
                f"Its {len(self.frame)} runs have {self._present()}"
            )
        return found

    def table(self, columns: Mapping[str, str]) -> pd.DataFrame:
        """The rows to fit: ``columns`` under their full names, the rest without kind where one alone has the name.

        Runs that have none of the fields, as parents of nested runs, are no rows.
        """
        needed = list(dict.fromkeys(columns.values()))
        empty = self.frame[needed].isna() | (self.frame[needed] == "")
        rows = self.frame[~empty.all(axis=1)]
        short: dict[str, list[str]] = {}
        for column in rows.columns:
            short.setdefault(short_name(column), []).append(column)
        renamed = {those[0]: name for name, those in short.items() if len(those) == 1 and those[0] not in needed}
        return rows.rename(columns=renamed).reset_index(drop=True)

    def _column(self, ours: str, theirs: str) -> str:
        if theirs in self.frame.columns:
            return theirs
        those = [column for column in self.frame.columns if short_name(column) == theirs]
        if len(those) == 1:
            return str(those[0])
        if those:
            raise UserError(f"--columns: {ours}={theirs} is {' and '.join(those)} in {self.source}; write one of them")
        raise UserError(
            f"--columns: {ours}={theirs} names no column of {self.source}; its {len(self.frame)} runs have "
            f"{self._present()}"
        )

    def _guess(self, ours: str, usual: tuple[str, ...]) -> str | None:
        """The column by the best known name, of the first kind that has it."""
        names = (*_ALSO_CALLED[ours], *usual) if ours == "loss" else (*usual, *_ALSO_CALLED[ours])
        for name in names:
            for kind in ("", *_KINDS_OF[ours]):
                for column in self.frame.columns:
                    if _kind(column) == kind and name in (short_name(column), _plain(short_name(column))):
                        return str(column)
        return None

    def _present(self) -> str:
        names = [str(column) for column in self.frame.columns if not column.endswith(MINIMUM)]
        names.sort(key=lambda name: name.startswith("tags."))
        more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        return ", ".join(names[:_LISTED]) + more


def _kind(column: str) -> str:
    kind = column.partition(".")[0]
    return kind if kind in KINDS and "." in column else ""


def short_name(column: str) -> str:
    """The name without kind, and without the prefix of this software's own tags."""
    name = column.removeprefix(f"{_kind(column)}.") if _kind(column) else column
    return name.removeprefix(_OURS)


def _plain(name: str) -> str:
    return re.sub(r"[/\-. ]+", "_", name).lower()


def frame_of(runs: Iterable[Mapping[str, object]]) -> pd.DataFrame:
    """One row a run, a column for whatever any of them has, in the order of their first appearance."""
    rows = list(runs)
    columns = dict.fromkeys(name for row in rows for name in row)
    return pd.DataFrame(rows, columns=list(columns), dtype=object)
