"""One dial for every architecture: from a number of parameters to width and depth, and from those to the rest.

An architecture says what it looks like at each width and which ratio of width to depth it aims at; the search is here.
Widths are multiples of the head width at each scale, so that heads divide and matrix units are filled. Loss is flat in
the ratio of width to depth: what matters is that it moves smoothly, so that the sizes are one family.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

from scaling.shape import ModelShape, ParameterCounts

__all__ = ["TRANSFORMER_WIDTHS", "head_width", "nearest_shape", "shapes_between", "transformer_aspect"]

_MAX_ASPECT = 128.0

TRANSFORMER_WIDTHS = (
    *range(16, 64, 8), *range(64, 128, 16), *range(128, 512, 32), *range(512, 2048, 128),
    *range(2048, 4096, 256), *range(4096, 32768 + 1, 1024),
)  # fmt: skip


def transformer_aspect(params_total: float) -> float:
    """Width over depth aimed at: 20 at 1e5 parameters, 68 at 44M (Chinchilla's smallest), 128 from 1e9 (Llama)."""
    return float(min(_MAX_ASPECT, _MAX_ASPECT * (params_total / 1e9) ** 0.2))


def head_width(width: int) -> int:
    for from_width, heads_are in ((2048, 128), (512, 64), (128, 32)):
        if width >= from_width:
            return heads_are
    return 8 if width % 16 else 16


def nearest_shape(
    params_total: float,
    *,
    widths: Iterable[int],
    one_layer: Callable[[int], ModelShape],
    count: Callable[[ModelShape], ParameterCounts],
    aspect: float,
) -> ModelShape:
    """The shape nearest to ``params_total``: for each width the best depth, then the best of size and aspect.

    one_layer: the architecture's shape of a width, one layer deep. aspect: width over depth aimed at. Raises
    ``ValueError`` if even the smallest shape is over twice ``params_total``.
    """
    best: tuple[float, ModelShape] | None = None
    smallest: ModelShape | None = None
    for width in widths:
        one = one_layer(width)
        smallest = smallest or one
        size_of_one = count(one).total
        per_layer = count(one.model_copy(update={"layers": 2})).total - size_of_one
        around = (params_total - size_of_one) / per_layer + 1
        for layers in {max(1, math.floor(around)), max(1, math.ceil(around))}:
            shape = one.model_copy(update={"layers": layers})
            size_error = abs(math.log(count(shape).total / params_total))
            aspect_error = abs(math.log(width / layers / aspect))
            score = 3 * size_error + aspect_error
            if best is None or score < best[0]:
                best = (score, shape)
    assert best is not None and smallest is not None
    if count(best[1]).total > 2 * params_total:
        raise ValueError(
            f"no shape with a vocabulary of {smallest.vocabulary} comes near {params_total:.3g} parameters; the "
            f"smallest has {count(smallest).total}: use a smaller vocabulary or a larger model"
        )
    return best[1]


def shapes_between(
    least: float,
    most: float,
    *,
    one_layer: Callable[[int], ModelShape],
    count: Callable[[ModelShape], ParameterCounts],
    ratio: float,
) -> Iterator[ModelShape]:
    """Every transformer's shape of ``least`` to ``most`` total parameters whose width over depth is within a factor
    ``ratio`` of what the dial aims at for its size (:func:`transformer_aspect`, which grows with it)."""
    for width in TRANSFORMER_WIDTHS:
        one = one_layer(width)
        size_of_one = count(one).total
        per_layer = count(one.model_copy(update={"layers": 2})).total - size_of_one
        # By the size, and by the ratio at its ends: a narrow width would take millions of layers.
        fewest = max((least - size_of_one) / per_layer + 1, width / transformer_aspect(most) / ratio, 1)
        largest = min((most - size_of_one) / per_layer + 1, width / transformer_aspect(least) * ratio)
        for layers in range(math.ceil(fewest), math.floor(largest) + 1):
            size = size_of_one + (layers - 1) * per_layer
            if 1 / ratio <= width / layers / transformer_aspect(size) <= ratio:
                yield one.model_copy(update={"layers": layers})
