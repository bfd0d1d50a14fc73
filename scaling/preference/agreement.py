"""Do annotators agree, and does a judge stay with its verdict when the answers change places?

Shapes: n items, a annotators. A rating is a number; NaN where an annotator did not rate an item.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from scaling.errors import UserError
from scaling.laws.law import FloatArray
from scaling.preference.intervals import bootstrap_interval, one_column, wilson
from scaling.record import Interval, Record

__all__ = ["Agreement", "OrderConsistency", "agreement", "cohen_kappa", "order_consistency"]

Level = Literal["nominal", "ordinal", "interval"]


class Agreement(Record):
    """Agreement of several annotators; ``krippendorff_alpha`` is None where every rating is the same."""

    items: int
    """Rated by two or more."""
    annotators: int
    percent: Interval
    """The chance that two annotators of one item agree."""
    krippendorff_alpha: Interval | None
    level: float


class OrderConsistency(Record):
    """A judge asked twice, its answers shown in either order."""

    pairs: int
    consistent: Interval
    """Share of pairs with one verdict in both orders."""
    first_preferred: Interval
    """Share of all verdicts that went to whichever answer was shown first, ties as halves; 0.5 without a bias."""
    level: float


def agreement(
    ratings: ArrayLike, *, scale: Level = "nominal", level: float = 0.9, bootstrap: int = 1000, seed: int = 0
) -> Agreement:
    """Percent agreement and Krippendorff's α of ``ratings`` (n, a), with intervals by resampling items.

    α = 1 − D_o/D_e (Krippendorff 2011), of unordered categories, ranks or numbers by ``scale``; any annotator may miss
    any item. Raises :class:`UserError` where no item has two ratings.
    """
    ratings_na = np.asarray(ratings, dtype=np.float64)
    if ratings_na.ndim != 2:
        raise UserError(f"ratings have shape {ratings_na.shape}: give (items, annotators), NaN where one is missing")
    ratings_na = ratings_na[(~np.isnan(ratings_na)).sum(axis=1) >= 2]
    if not len(ratings_na):
        raise UserError("no item has two ratings: agreement takes items that two or more annotators rated")
    count_nv, values_v = _counts(ratings_na)
    rated_n = count_nv.sum(axis=1)
    agreeing_n = (count_nv * (count_nv - 1)).sum(axis=1) / (rated_n * (rated_n - 1))
    options = {"bootstrap": bootstrap, "level": level, "seed": seed}

    def percent(times_Kn: FloatArray) -> FloatArray:
        return np.asarray(times_Kn @ agreeing_n / times_Kn.sum(axis=1))

    def alpha(times_Kn: FloatArray) -> FloatArray:
        return _krippendorff(count_nv, values_v, times_Kn, scale)

    return Agreement(
        items=len(ratings_na),
        annotators=int((~np.isnan(ratings_na)).any(axis=0).sum()),
        percent=bootstrap_interval(len(ratings_na), percent, **options),  # type: ignore[arg-type]
        krippendorff_alpha=bootstrap_interval(len(ratings_na), alpha, **options)  # type: ignore[arg-type]
        if len(values_v) > 1
        else None,
        level=level,
    )


def cohen_kappa(
    first: ArrayLike, second: ArrayLike, *, level: float = 0.9, bootstrap: int = 1000, seed: int = 0
) -> Interval:
    """Cohen's κ (1960) = (p_o − p_e)/(1 − p_e) of two annotators' categories, (n,) each, resampling items."""
    pair_n2 = np.column_stack((one_column(first, "first"), one_column(second, "second", len(np.asarray(first)))))
    values_v, code_N = np.unique(pair_n2, return_inverse=True)
    if len(values_v) < 2:
        raise UserError(f"both annotators say {values_v[0]:g} of every item: kappa needs two categories")
    one_n2v = np.eye(len(values_v))[code_N.reshape(pair_n2.shape)]
    same_n = (one_n2v[:, 0] * one_n2v[:, 1]).sum(axis=1)

    def kappa(times_Kn: FloatArray) -> FloatArray:
        share_Kn = times_Kn / times_Kn.sum(axis=1, keepdims=True)
        observed_K = share_Kn @ same_n
        expected_K = ((share_Kn @ one_n2v[:, 0]) * (share_Kn @ one_n2v[:, 1])).sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray((observed_K - expected_K) / (1 - expected_K))

    return bootstrap_interval(len(pair_n2), kappa, bootstrap=bootstrap, level=level, seed=seed)


def order_consistency(shown_first: ArrayLike, shown_second: ArrayLike, *, level: float = 0.9) -> OrderConsistency:
    """A judge's preference for one and the same answer when it is shown first and when second, (n,) each from 0 to 1;
    above one half, at it and below are its three verdicts. Wilson's intervals, over pairs."""
    first = one_column(shown_first, "shown_first", share=True)
    second = one_column(shown_second, "shown_second", len(first), share=True)
    verdict_first, verdict_second = np.sign(first - 0.5), np.sign(second - 0.5)
    to_the_first = 0.25 * (2 + verdict_first - verdict_second)
    pairs = len(first)
    return OrderConsistency(
        pairs=pairs,
        consistent=wilson(float((verdict_first == verdict_second).sum()), pairs, level),
        first_preferred=wilson(float(to_the_first.sum()), pairs, level),
        level=level,
    )


def _counts(ratings_na: FloatArray) -> tuple[FloatArray, FloatArray]:
    """How often each item was given each value, (n, v), and the values."""
    values_v = np.unique(ratings_na[~np.isnan(ratings_na)])
    return np.asarray((ratings_na[:, :, None] == values_v).sum(axis=1), dtype=np.float64), values_v


def _krippendorff(count_nv: FloatArray, values_v: FloatArray, times_Kn: FloatArray, scale: Level) -> FloatArray:
    """α of each resample of items, (K,); NaN where one has a single value."""
    rated_n = count_nv.sum(axis=1)
    # Σ_c Σ_k δ²_ck·n_c·n_k of one item, by its pairs of values; a value with itself is at distance zero.
    total_Kv = times_Kn @ count_nv
    if scale == "ordinal":
        return np.array(
            [_ordinal(count_nv, rated_n, times, total) for times, total in zip(times_Kn, total_Kv, strict=True)]
        )
    distance_vv = (values_v[:, None] - values_v) ** 2 if scale == "interval" else 1.0 - np.eye(len(values_v))
    observed_n = np.einsum("nv,vw,nw->n", count_nv, distance_vv, count_nv, optimize=True) / (rated_n - 1)
    expected_K = np.einsum("kv,vw,kw->k", total_Kv, distance_vv, total_Kv, optimize=True) / (total_Kv.sum(axis=1) - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(1 - times_Kn @ observed_n / expected_K)


def _ordinal(count_nv: FloatArray, rated_n: FloatArray, times_n: FloatArray, total_v: FloatArray) -> float:
    """Distances between ranks are how many ratings lie between, which every resample changes."""
    middle_v = np.cumsum(total_v) - total_v / 2
    distance_vv = (middle_v[:, None] - middle_v) ** 2
    observed = float(times_n @ (np.einsum("nv,vw,nw->n", count_nv, distance_vv, count_nv) / (rated_n - 1)))
    expected = float(total_v @ distance_vv @ total_v) / (float(total_v.sum()) - 1)
    return 1 - observed / expected if expected > 0 else math.nan
