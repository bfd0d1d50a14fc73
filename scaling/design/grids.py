"""Designs that are laid out by hand: multiples of the size in tokens, a grid, Kaplan's curves, a table of runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from scaling.design.design import Design, DesignPoint
from scaling.design.family import Family
from scaling.errors import UserError
from scaling.shape import ModelShape

__all__ = ["csv_design", "curves_design", "grid_design", "ratio_design"]


def ratio_design(
    family: Family, total_flops: float, *, sizes: int, size_step: float, tokens_per_param: Sequence[float]
) -> Design:
    """``sizes`` a step apart, each trained on every ratio D / N: iso tokens-per-parameter lines.

    The sizes are as large as ``total_flops`` allow. Raises :class:`UserError` where those are below the family's.
    """
    each = [size_step**rung for rung in range(sizes)]
    # C = 6 N D = 6 r N², summed over sizes and ratios.
    smallest = math.sqrt(total_flops / 6 / sum(tokens_per_param) / sum(step**2 for step in each))
    shapes = _shapes(family, [smallest * step for step in each], size_step)
    points = [
        family.run(shape, ratio * family.count(shape).total) for shape in shapes for ratio in sorted(tokens_per_param)
    ]
    return _design("ratio", family, _scaled(family, points, total_flops), float(np.median(tokens_per_param)))


def grid_design(family: Family, *, params: Sequence[float], tokens: Sequence[float]) -> Design:
    """Every size on every number of tokens."""
    # The dial is coarse at the small end: two sizes may be one shape.
    shapes = list(dict.fromkeys(family.shape(size) for size in sorted(params)))
    points = [family.run(shape, length) for shape, length in product(shapes, sorted(tokens))]
    return _design("grid", family, points, _middle_ratio(points))


def curves_design(
    family: Family,
    total_flops: float,
    *,
    sizes: int,
    size_step: float,
    tokens_per_param: tuple[float, float],
    points: int,
    cooldown: float,
) -> Design:
    """Kaplan's design (2001.08361): one long run a size, whose loss is known at ``points`` numbers of tokens, evenly
    spaced in their logarithm between two multiples of the size.

    Each but the longest is a branch that costs its ``cooldown`` (a share of its tokens) alone; a loss on the way at a
    constant rate would not be the loss of a run of that length.
    """
    ratios = np.geomspace(*tokens_per_param, points)
    cost = ratios[-1] + cooldown * ratios[:-1].sum()
    each = [size_step**rung for rung in range(sizes)]
    smallest = math.sqrt(total_flops / 6 / cost / sum(step**2 for step in each))
    runs: list[DesignPoint] = []
    for shape in _shapes(family, [smallest * step for step in each], size_step):
        size = family.count(shape).total
        runs += [
            family.run(shape, ratio * size, branched=True, cost_share=1.0 if at == points - 1 else cooldown)
            for at, ratio in enumerate(ratios)
        ]
    scaled = _scaled(family, runs, total_flops)
    return _design("curves", family, scaled, float(np.sqrt(tokens_per_param[0] * tokens_per_param[1])))


def csv_design(family: Family, path: Path) -> Design:
    """The runs of a table with the columns params and tokens; the nearest shape of the family stands for each size.

    Raises :class:`UserError` naming the row (from 1, the header not counted) and its value where one can't be trained.
    """
    try:
        table = pd.read_csv(path)
    except OSError as error:
        raise UserError(f"design.file {path} can't be read: {error.strerror}") from None
    except (ValueError, pd.errors.ParserError) as error:
        raise UserError(f"design.file {path} is no CSV: {' '.join(str(error).split())}") from None
    missing = [column for column in ("params", "tokens") if column not in table.columns]
    if missing or table.empty:
        what = f"has no column {missing[0]}" if missing else "has no rows"
        raise UserError(f"design.file {path} {what}: write the columns params and tokens, one run a row")
    points: list[DesignPoint] = []
    for row, (size, length) in enumerate(zip(table["params"], table["tokens"], strict=True), 1):
        for field, value in (("params", size), ("tokens", length)):
            if not isinstance(value, int | float | np.number) or not (math.isfinite(value) and value > 0):
                raise UserError(f"{path}: row {row}: {field} is {value!r}: write a number above 0")
        try:
            point = family.run(family.shape(float(size)), float(length))
        except UserError as error:
            raise UserError(f"{path}: row {row}: {error}") from None
        same = sum((p.shape, p.tokens) == (point.shape, point.tokens) for p in points)
        points.append(point.model_copy(update={"replicate": same}))
    return _design("csv", family, points, _middle_ratio(points))


def _shapes(family: Family, sizes: Sequence[float], size_step: float) -> list[ModelShape]:
    least = family.count(family.least()).total
    if sizes[0] < least:
        raise UserError(
            f"the smallest of {len(sizes)} sizes would have {sizes[0]:.3g} parameters, and the smallest shape with a "
            f"vocabulary of {family.vocabulary} has {least}: use more FLOPs, fewer sizes (design.sizes, now "
            f"{len(sizes)}), a smaller design.size_step (now {size_step:g}) or a smaller vocabulary"
        )
    shapes = [family.shape(size) for size in sizes]
    if len(set(shapes)) < len(shapes):
        raise UserError(f"design.size_step is {size_step:g}: two sizes have the same shape; use a larger step")
    return shapes


def _scaled(family: Family, points: Sequence[DesignPoint], total_flops: float) -> list[DesignPoint]:
    """The same runs with tokens changed by one factor, so that they cost ``total_flops``: sizes come in steps."""
    factor = total_flops / sum(point.cost_flops for point in points)
    return [
        family.run(
            point.shape,
            point.tokens * factor,
            branched=point.branched,
            cost_share=point.cost_flops / point.flops,
            replicate=point.replicate,
            rounding=math.floor,
        )
        for point in points
    ]


def _middle_ratio(points: Sequence[DesignPoint]) -> float:
    return float(np.median([point.tokens / point.params.total for point in points]))


def _design(kind: str, family: Family, points: Sequence[DesignPoint], ratio: float) -> Design:
    ordered = sorted(points, key=lambda point: (point.params.total, point.tokens))
    return Design.model_validate(
        {
            "kind": kind,
            "points": tuple(ordered),
            "tokens_per_param_centre": ratio,
            "global_batch_tokens": family.global_batch_tokens,
        }
    )
