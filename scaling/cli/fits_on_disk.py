"""Reads a fit that ``scaling fit --out`` or a study wrote."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from scaling.errors import UserError
from scaling.record import Record

if TYPE_CHECKING:
    from scaling.fit import Fit, LawFit

__all__ = ["load_fit", "load_law_fit"]

_Record = TypeVar("_Record", bound=Record)


def load_fit(path: Path) -> Fit:
    """The fit in ``path``; :class:`UserError` if it is not one."""
    from scaling.fit import Fit

    return _load(path, Fit)


def load_law_fit(path: Path) -> LawFit:
    """The fit of one law through columns of any kind in ``path``; :class:`UserError` if it is not one."""
    from scaling.fit import LawFit

    return _load(path, LawFit)


def _load(path: Path, kind: type[_Record]) -> _Record:
    from pydantic import ValidationError

    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}; `scaling fit TABLE --out {path}` writes it") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UserError(
            f"{path} is not a fit of this software: {where}: {first['msg']}; "
            f"write it again with `scaling fit TABLE --out {path}`"
        ) from None
