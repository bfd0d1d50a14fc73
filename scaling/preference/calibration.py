"""Can a reward model be believed: its accuracy on held-out pairs, beside the rule "longer is better", and whether its
margins are the probabilities that they say.

Under Bradley and Terry's model the chosen answer wins with probability σ(Δr), Δr = r(chosen) − r(rejected). Every pair
was won by its chosen answer, so calibration is asked of the answer that the model prefers: it is preferred with
confidence σ(|Δr|), and right where Δr > 0. Shapes: n pairs, b bins.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from scaling.errors import UserError
from scaling.laws.law import FloatArray
from scaling.preference.intervals import one_column, wilson
from scaling.record import Interval, Record

__all__ = ["Calibration", "PairAccuracy", "ReliabilityBin", "calibration", "pair_accuracy"]


class ReliabilityBin(Record):
    """Pairs of like confidence, and how often the model is right of them."""

    low: float
    high: float
    pairs: int
    mean_confidence: float
    accuracy: Interval


class Calibration(Record):
    """``expected_error_if_calibrated`` is the mean expected calibration error that as many pairs show by chance where
    each confidence is true, ``p_value`` how often chance shows as much as these pairs do."""

    pairs: int
    expected_calibration_error: float
    expected_error_if_calibrated: float
    p_value: float
    brier: float
    """Mean of (1 − σ(Δr))²: 0.25 for a model that knows nothing."""
    log_loss: float
    """Mean of −ln σ(Δr), nats: ln 2 for one that knows nothing."""
    bins: tuple[ReliabilityBin, ...]
    level: float


class PairAccuracy(Record):
    """Share of pairs whose chosen answer has the higher reward, ties as halves, beside the longer answer's."""

    pairs: int
    ties: int
    accuracy: Interval
    longer_accuracy: Interval | None = None
    only_model_right: int | None = None
    only_length_right: int | None = None
    p_value: float | None = None
    """McNemar's exact test that both are right equally often (1947), two-sided; pairs that tie for either are left
    out."""
    level: float


def calibration(
    margin: ArrayLike, *, bins: int = 10, level: float = 0.9, chances: int = 1000, seed: int = 0
) -> Calibration:
    """Calibration of reward margins Δr (n,), in ``bins`` of equally many pairs (Naeini et al. 2015; equal counts keep
    the error's own bias small)."""
    margin_n = one_column(margin, "margin")
    if not 1 <= bins <= len(margin_n):
        raise UserError(f"bins is {bins}: choose 1 to the {len(margin_n)} pairs there are, usually 10")
    confidence_n = expit(np.abs(margin_n))
    right_n = np.where(margin_n == 0, 0.5, margin_n > 0)
    order = np.argsort(confidence_n, kind="stable")
    member_n = np.empty(len(order), dtype=np.int64)
    member_n[order] = np.arange(len(order)) * bins // len(order)
    count_b = np.bincount(member_n, minlength=bins)
    rng = np.random.default_rng([seed, 11])
    told = _error(confidence_n, right_n[None], member_n, bins)[0]
    by_chance = np.concatenate(
        [
            _error(confidence_n, rng.random((50, len(order))) < confidence_n, member_n, bins)
            for _ in range(chances // 50)
        ]
    )
    return Calibration(
        pairs=len(margin_n),
        expected_calibration_error=float(told),
        expected_error_if_calibrated=float(by_chance.mean()),
        p_value=float((1 + (by_chance >= told - 1e-12).sum()) / (1 + len(by_chance))),
        brier=float((expit(-margin_n) ** 2).mean()),
        log_loss=float(np.logaddexp(0, -margin_n).mean()),
        bins=tuple(
            ReliabilityBin(
                low=float(confidence_n[member_n == b].min()),
                high=float(confidence_n[member_n == b].max()),
                pairs=int(count_b[b]),
                mean_confidence=float(confidence_n[member_n == b].mean()),
                accuracy=wilson(float(right_n[member_n == b].sum()), int(count_b[b]), level),
            )
            for b in range(bins)
        ),
        level=level,
    )


def pair_accuracy(
    margin: ArrayLike, chosen_length: ArrayLike | None = None, rejected_length: ArrayLike | None = None, *,
    level: float = 0.9,
) -> PairAccuracy:  # fmt: skip
    """Accuracy of reward margins (n,), and where lengths (n,) are given whether it beats taking the longer answer."""
    # It takes seconds to import, and most of who comes here asks for no test.
    from scipy.stats import binomtest

    margin_n = one_column(margin, "margin")
    pairs, ties = len(margin_n), int((margin_n == 0).sum())
    accuracy = wilson(float((margin_n > 0).sum()) + ties / 2, pairs, level)
    if chosen_length is None or rejected_length is None:
        return PairAccuracy(pairs=pairs, ties=ties, accuracy=accuracy, level=level)
    longer_n = one_column(chosen_length, "chosen length", pairs) - one_column(rejected_length, "rejected length", pairs)
    both = (margin_n != 0) & (longer_n != 0)
    model, length = (
        int((both & (margin_n > 0) & (longer_n < 0)).sum()),
        int((both & (margin_n < 0) & (longer_n > 0)).sum()),
    )
    return PairAccuracy(
        pairs=pairs,
        ties=ties,
        accuracy=accuracy,
        longer_accuracy=wilson(float((longer_n > 0).sum()) + float((longer_n == 0).sum()) / 2, pairs, level),
        only_model_right=model,
        only_length_right=length,
        p_value=float(binomtest(model, model + length).pvalue) if model + length else 1.0,
        level=level,
    )


def _error(confidence_n: FloatArray, right_Kn: np.ndarray, member_n: np.ndarray, bins: int) -> FloatArray:
    """Σ_b n_b/n·|accuracy − mean confidence|, (K,)."""
    in_bin_nb = np.eye(bins)[member_n]
    gap_Kb = (right_Kn - confidence_n) @ in_bin_nb
    return np.asarray(np.abs(gap_Kb).sum(axis=1) / len(confidence_n))
