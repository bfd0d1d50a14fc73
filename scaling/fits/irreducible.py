"""What is known of the irreducible loss before any run: no model of text goes below it, and large ones come near.

A parametric law can describe every line of a small sweep and still level off far too early: what bends the lines (a
model too small, too few steps) is then taken for the frontier's bend, and E comes out above what larger models of the
same text have reached.
"""

from __future__ import annotations

import numpy as np

from scaling.fit import DriftFit, ParametricFit
from scaling.table import Table

__all__ = ["IRREDUCIBLE_BITS_PER_BYTE", "irreducible_range", "levels_off_too_early"]

IRREDUCIBLE_BITS_PER_BYTE = (0.3, 0.8)
"""Chinchilla's E is 0.57 to 0.61 bits per byte (1.69 to 1.82 nats at 4.3 bytes a token; 2203.15556, 2404.10102). The
upper end is what large models measure on books; the lower allows for text that is easier than the web's."""


def irreducible_range(table: Table) -> tuple[float, float] | None:
    """The range of E in nats a token, or None where the table does not say how many bytes a token stands for."""
    if "bits_per_byte" not in table.labels:
        return None
    nats_per_bit = table.loss / table.labels["bits_per_byte"].to_numpy(dtype=np.float64)
    factor = float(np.median(nats_per_bit[np.isfinite(nats_per_bit)])) if np.isfinite(nats_per_bit).any() else 0.0
    low, high = (bits * factor for bits in IRREDUCIBLE_BITS_PER_BYTE)
    return (low, high) if 0 < high < float(table.loss.min()) else None


def levels_off_too_early(parametric: ParametricFit, drift: DriftFit) -> bool:
    """True where the parametric law's E lies above what text admits, and what that is, is known."""
    if parametric.status != "ok" or drift.irreducible is None or "E" not in parametric.parameters:
        return False
    return parametric.parameters["E"].estimate > drift.irreducible[1]
