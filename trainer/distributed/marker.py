"""The marker of a checkpoint that is a folder: the file that is written last, with the SHA-256 of every other."""

from __future__ import annotations

import json
from collections.abc import Mapping

__all__ = ["MARKER", "marker", "promised_sums"]

MARKER = "whole.json"
_FORMAT = "lossfrontier shared checkpoint 1"


def marker(sums: Mapping[str, str]) -> str:
    """``sums``: SHA-256 by file name."""
    return json.dumps({"format": _FORMAT, "sha256": sums}, indent=2) + "\n"


def promised_sums(content: bytes) -> dict[str, str]:
    """The sums in a marker; ``ValueError`` if it is not as :func:`marker` writes it."""
    try:
        sums = dict(json.loads(content)["sha256"])
    except (TypeError, KeyError) as error:
        raise ValueError(f"no {MARKER}: {error}") from None
    if content != marker(sums).encode():
        raise ValueError(f"no {MARKER} as it is written here")
    return sums
