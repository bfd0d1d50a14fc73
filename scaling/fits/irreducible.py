"""What is known of the irreducible loss before any run: no model of text goes below it, and large ones come near.

A parametric law can describe every line of a small sweep and still level off far too early: what bends the lines (a
model too small, too few steps) is then taken for the frontier's bend, and E comes out above what larger models of the
same text have reached.
"""

from __future__ import annotations

import math

import numpy as np

from scaling.fit import DriftFit, ParametricFit
from scaling.table import Table

__all__ = ["IRREDUCIBLE_BITS_PER_BYTE", "irreducible_range", "levels_off_too_early"]

IRREDUCIBLE_BITS_PER_BYTE = (0.3, 0.8)
"""With a context of thousands of tokens. Chinchilla's E is 0.57 to 0.61 bits per byte (1.69 to 1.82 nats at 4.3 bytes a
token; 2203.15556, 2404.10102). The upper end is what large models measure on books; the lower allows for text that is
easier than the web's."""
_AFTER_100_BYTES = (0.6, 1.3)
"""Bits per letter of English that follows 100 letters (Shannon 1951, "Prediction and entropy of printed English")."""


def irreducible_range(table: Table) -> tuple[float, float] | None:
    """The range of E in nats a token, or None where the table does not say how many bytes a token stands for.

    A short ``context``, where the table has one, leaves more to be guessed, however large the model
    (:func:`short_context`).
    """
    if "bits_per_byte" not in table.labels:
        return None
    nats_per_bit = table.loss / table.labels["bits_per_byte"].to_numpy(dtype=np.float64)
    factor = float(np.median(nats_per_bit[np.isfinite(nats_per_bit)])) if np.isfinite(nats_per_bit).any() else 0.0
    context = _context(table)
    more = (0.0, 0.0) if context is None else short_context(context * factor / math.log(2))
    low, high = ((bits + extra) * factor for bits, extra in zip(IRREDUCIBLE_BITS_PER_BYTE, more, strict=True))
    return (low, high) if 0 < high < float(table.loss.min()) else None


def short_context(context_bytes: float) -> tuple[float, float]:
    """What the ends of the range gain in bits per byte from a context of so many bytes.

    What a letter leaves to be guessed falls towards its limit with the square root of the letters before it (Hilberg
    1990, from Shannon's estimates); what is lacking after 100 is the difference of ``_AFTER_100_BYTES`` to the limit.
    A model's loss is a mean over all places of its context, the first of which have next to none before them.
    """
    places = np.arange(1, max(2, round(context_bytes) + 1))
    share = float(np.sqrt(100 / places).mean())
    low, high = (
        (short - limit) * share for short, limit in zip(_AFTER_100_BYTES, IRREDUCIBLE_BITS_PER_BYTE, strict=True)
    )
    return low, high


def _context(table: Table) -> float | None:
    if "context" not in table.labels:
        return None
    contexts = table.labels["context"].to_numpy(dtype=np.float64)
    known = contexts[np.isfinite(contexts)]
    return float(np.median(known)) if len(known) else None


def levels_off_too_early(parametric: ParametricFit, drift: DriftFit) -> bool:
    """True where the parametric law's E lies above what text admits, and what that is, is known."""
    if parametric.status != "ok" or drift.irreducible is None or "E" not in parametric.parameters:
        return False
    return parametric.parameters["E"].estimate > drift.irreducible[1]
