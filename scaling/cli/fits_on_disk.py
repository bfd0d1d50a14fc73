"""Reads a fit that ``scaling fit --out`` or a study wrote."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from scaling.errors import UserError

if TYPE_CHECKING:
    from scaling.fit import Fit

__all__ = ["load_fit"]


def load_fit(path: Path) -> Fit:
    """The fit in ``path``; :class:`UserError` if it is not one."""
    from pydantic import ValidationError

    from scaling.fit import Fit

    try:
        return Fit.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}; `scaling fit TABLE --out {path}` writes it") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UserError(
            f"{path} is not a fit of this software: {where}: {first['msg']}; "
            f"write it again with `scaling fit TABLE --out {path}`"
        ) from None
