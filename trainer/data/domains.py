"""The domains of the held-out pieces: few enough to look at each, numbered by name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["MOST_DOMAINS", "OTHER", "held_out_domains"]

MOST_DOMAINS = 32
OTHER = "(other)"


def held_out_domains(number_P: NDArray[np.int64], names: Sequence[str]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Each held-out piece's index into the names that are kept, -1 for none, and those names in their order.

    number_P: each piece's place in ``names``, -1 for none. A corpus may name thousands of domains (web sites, say): the
    ``MOST_DOMAINS`` - 1 with the most pieces are kept then, and the others taken together as ``OTHER``.
    """
    found, pieces = np.unique(number_P[number_P >= 0], return_counts=True)
    by_size = sorted(zip((-pieces).tolist(), [names[number] for number in found.tolist()], strict=True))
    kept = {name for _, name in by_size}
    if len(by_size) > MOST_DOMAINS:
        kept = {name for _, name in by_size[: MOST_DOMAINS - 1]} | {OTHER}
    place = {name: index for index, name in enumerate(sorted(kept))}
    index_N = [place.get(name, place.get(OTHER, -1)) for name in names]
    index_P = [index_N[number] if number >= 0 else -1 for number in number_P.tolist()]
    return np.array(index_P, dtype=np.int64), tuple(place)
