"""All there is to know of a file of preference pairs: what is wrong with it, how length goes with being chosen, and
whether annotators, judges and reward models agree with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from scaling.errors import UserError
from scaling.preference.agreement import Agreement, OrderConsistency, agreement, order_consistency
from scaling.preference.calibration import Calibration, PairAccuracy, calibration, pair_accuracy
from scaling.preference.length import LengthBias, LengthStatistics, length_bias
from scaling.preference.pairs import REASONS, clean
from scaling.preference.win_rate import LengthControlledWinRate, length_controlled_win_rate
from scaling.record import Interval, Record

__all__ = ["UNITS", "ModelComparison", "PreferenceReport", "report"]

UNITS: Mapping[str, Callable[[str], int]] = {"characters": len, "words": lambda text: len(text.split())}
_FEWEST = 10
"""Comparisons from which on a win rate is told."""


class ModelComparison(Record):
    """One model against another, or against all that it met."""

    model: str
    baseline: str
    win_rate: LengthControlledWinRate


class PreferenceReport(Record):
    """Of a file of pairs; statistics are of the pairs that are left after cleaning, intervals at ``level``."""

    schema_version: int = 1
    rows: int
    pairs: int = Field(description="left after cleaning")
    dropped: dict[str, int]
    prompts: int
    unit: Literal["characters", "words"]
    prompt_length: float = Field(description="mean")
    length: LengthBias | None = Field(description="None: no pair is left")
    agreement: Agreement | None = Field(description="where two or more annotators saw one pair")
    judge_orders: OrderConsistency | None
    accuracy: PairAccuracy | None = Field(description="of the scores")
    calibration: Calibration | None
    models: int = Field(description="that wrote answers; 0 where it isn't said")
    comparison: ModelComparison | None
    level: float

    def summary(self) -> str:
        """The report as a page of text."""
        dropped = ", ".join(f"{count:,} {reason}" for reason, count in self.dropped.items())
        lines = [f"{self.rows:,} pairs, {self.pairs:,} left; dropped: {dropped}"]
        if self.length is None:
            return lines[0]
        lines += [f"{self.prompts:,} prompts, {self.prompt_length:,.0f} {self.unit} on average", ""]
        lines += _length_lines(self.length, self.unit)
        if self.agreement is not None:
            told, alpha = self.agreement, self.agreement.krippendorff_alpha
            lines += [
                "",
                f"annotators     {told.annotators}, {told.items:,} pairs seen by two or more: agree in "
                f"{_share(told.percent)}" + ("" if alpha is None else f", Krippendorff's alpha {_number(alpha)}"),
            ]
        if self.judge_orders is not None:
            orders = self.judge_orders
            lines += [
                "",
                f"judge          one verdict in both orders in {_share(orders.consistent)}; the answer shown first is "
                f"preferred in {_share(orders.first_preferred)}",
            ]
        if self.accuracy is not None and self.calibration is not None:
            lines += ["", *_score_lines(self.accuracy, self.calibration)]
        if self.comparison is not None:
            lines += ["", *_model_lines(self.comparison, self.unit)]
        elif self.models > 2:
            lines += ["", f"models         {self.models} wrote these answers: name one with --model for its win rate"]
        return "\n".join([*lines, "", f"intervals at {self.level:.0%}"])


def report(
    pairs: pd.DataFrame,
    *,
    unit: str = "characters",
    model: str | None = None,
    level: float = 0.9,
    bootstrap: int = 1000,
    seed: int = 0,
    say: Callable[[str], None] = lambda part: None,
) -> PreferenceReport:
    """The report of ``pairs`` as :func:`scaling.preference.pairs.read_pairs` gives them.

    Win rates are of ``model`` against whatever it met, or where two models wrote all answers of the one that comes
    first by name. ``say`` is told which part comes next. Raises :class:`UserError` for a unit or model that is not
    there.
    """
    if unit not in UNITS:
        raise UserError(f"--length is {unit!r}: choose {' or '.join(UNITS)}")
    cleaned = clean(pairs)
    left, options = cleaned.pairs, {"level": level, "bootstrap": bootstrap, "seed": seed}
    chosen, rejected, asked = (
        np.array([UNITS[unit](text) for text in left[name]], dtype=float) for name in ("chosen", "rejected", "prompt")
    )
    margin = _margin(left)
    models = (
        sorted({*left["chosen_model"].dropna(), *left["rejected_model"].dropna()})
        if _has(left, "chosen_model", "rejected_model")
        else []
    )
    if model is not None and model not in models:
        known = ", ".join(map(str, models)) or "no model is named"
        raise UserError(f"--model is {model!r}, which wrote none of these answers: {known}")
    say("lengths")
    length = length_bias(chosen, rejected, **options) if len(left) else None  # type: ignore[arg-type]
    say("agreement")
    agreed, orders = _agreement(left, options), _orders(left, level)
    say("scores")
    told = None if margin is None else pair_accuracy(margin, chosen, rejected, level=level)
    calibrated = None if margin is None else calibration(margin, bins=min(10, len(margin)), level=level, seed=seed)
    say("win rate")
    compared = _comparison(left, chosen, rejected, models, model, options)
    return PreferenceReport(
        rows=len(pairs),
        pairs=len(left),
        dropped={reason: cleaned.counts[reason] for reason in REASONS},
        prompts=left["prompt"].nunique(),
        unit="words" if unit == "words" else "characters",
        prompt_length=float(asked.mean()) if len(left) else 0.0,
        length=length,
        agreement=agreed,
        judge_orders=orders,
        accuracy=told,
        calibration=calibrated,
        models=len(models),
        comparison=compared,
        level=level,
    )


def _has(pairs: pd.DataFrame, *names: str) -> bool:
    return len(pairs) > 0 and all(name in pairs for name in names)


def _margin(pairs: pd.DataFrame) -> NDArray[np.float64] | None:
    if not _has(pairs, "chosen_score", "rejected_score"):
        return None
    return np.asarray(pairs["chosen_score"] - pairs["rejected_score"], dtype=np.float64)


def _orders(pairs: pd.DataFrame, level: float) -> OrderConsistency | None:
    if not _has(pairs, "judge_chosen_first", "judge_rejected_first"):
        return None
    return order_consistency(pairs["judge_chosen_first"], pairs["judge_rejected_first"], level=level)


def _agreement(pairs: pd.DataFrame, options: dict[str, float]) -> Agreement | None:
    """Each annotator's choice between the two answers, whichever was given first in the file."""
    if not _has(pairs, "annotator"):
        return None
    answers = np.sort(
        np.array(
            [(one.strip(), other.strip()) for one, other in zip(pairs["chosen"], pairs["rejected"], strict=True)],
            dtype=object,
        ),
        axis=1,
    )
    items = pd.MultiIndex.from_arrays([pairs["prompt"].str.strip(), answers[:, 0], answers[:, 1]])
    rating = (pairs["chosen"].str.strip().to_numpy() == answers[:, 0]).astype(float)
    table = pd.DataFrame({"item": pd.factorize(items)[0], "annotator": pairs["annotator"], "rating": rating})
    ratings = table.pivot_table(index="item", columns="annotator", values="rating").to_numpy()
    if not ((~np.isnan(ratings)).sum(axis=1) >= 2).any():
        return None
    return agreement(ratings, **options)  # type: ignore[arg-type]


def _comparison(
    pairs: pd.DataFrame,
    chosen: NDArray[np.float64],
    rejected: NDArray[np.float64],
    models: list[str],
    model: str | None,
    options: dict[str, float],
) -> ModelComparison | None:
    if model is None and len(models) != 2:
        return None
    model = models[0] if model is None else model
    won, lost = (pairs["chosen_model"] == model).to_numpy(), (pairs["rejected_model"] == model).to_numpy()
    met = (won != lost) & pairs[["chosen_model", "rejected_model"]].notna().all(axis=1).to_numpy()
    if met.sum() < _FEWEST:
        return None
    others = sorted({*pairs["rejected_model"][won & met], *pairs["chosen_model"][lost & met]})
    own, theirs = np.where(won, chosen, rejected)[met], np.where(won, rejected, chosen)[met]
    if np.ptp(own - theirs) == 0:
        return None
    told = length_controlled_win_rate(
        won[met].astype(float),
        own,
        theirs,
        prompt=pairs["prompt"][met],
        **options,  # type: ignore[arg-type]
    )
    return ModelComparison(
        model=model, baseline=others[0] if len(others) == 1 else f"{len(others)} other models", win_rate=told
    )


def _length_lines(length: LengthBias, unit: str) -> list[str]:
    def row(name: str, of: LengthStatistics) -> str:
        return f"{name:<14} {of.mean:>9,.1f} {of.sd:>9,.1f} {of.p05:>9,.0f} {of.median:>9,.0f} {of.p95:>9,.0f}"

    lines = [
        f"{unit:<14} {'mean':>9} {'sd':>9} {'5%':>9} {'median':>9} {'95%':>9}",
        row("chosen", length.chosen),
        row("rejected", length.rejected),
        f"chosen longer  {_share(length.chosen_longer)} of pairs",
    ]
    if length.longer_of_unequal is not None and length.equally_long:
        lines[-1] += (
            f"; {_share(length.longer_of_unequal)} of the {length.pairs - length.equally_long:,} of unequal length"
        )
    if length.point_biserial is None:
        return lines
    told = f"by length      correlation with being chosen {_number(length.point_biserial)}"
    if length.logistic_slope is not None:
        told += f"; logit of preference {_number(length.logistic_slope)} for each SD of difference"
    return [*lines, told]


def _score_lines(accuracy: PairAccuracy, told: Calibration) -> list[str]:
    lines = [f"scores         right in {_share(accuracy.accuracy)}"]
    if accuracy.longer_accuracy is not None and accuracy.p_value is not None:
        lines[0] += f"; taking the longer answer {_share(accuracy.longer_accuracy)} (McNemar p {accuracy.p_value:.2g})"
    lines.append(
        f"  calibration  error {told.expected_calibration_error:.3f} ({told.expected_error_if_calibrated:.3f} by "
        f"chance, p {told.p_value:.2g}), Brier {told.brier:.3f}, log loss {told.log_loss:.3f}"
    )
    return lines


def _model_lines(told: ModelComparison, unit: str) -> list[str]:
    rate = told.win_rate
    return [
        f"{told.model} against {told.baseline}, {rate.comparisons:,} comparisons",
        f"  win rate     {_share(rate.raw)}",
        f"  equal length {_share(rate.rate)}",
        f"  {unit:<12} {rate.mean_length:,.0f} against {rate.baseline_mean_length:,.0f}",
    ]


def _share(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return f"{interval.estimate:.1%}"
    return f"{interval.estimate:.1%} [{interval.low:.1%}, {interval.high:.1%}]"


def _number(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return f"{interval.estimate:.3f}"
    return f"{interval.estimate:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
