"""Under which conventions a table was measured, and whether its rows share them.

Two ways of counting parameters or FLOPs, two tokenizers or two kinds of loss in one table make no law: exponents move
from 0.37 to 0.70 by counting alone. What can be told from the numbers is told here; what makes rows incomparable is a
refusal, what merely looks odd a warning.

Arrays are (n,), one entry a row of the table that can be fitted; ``rows`` are their numbers, from 1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import numpy as np
import pandas as pd

from scaling.fit import Diagnostic
from scaling.laws.law import FloatArray
from scaling.observation import ParamsConvention
from scaling.table_rows import UNIFORM_GUESS, listed, numbers, shown, text

__all__ = ["PARAMS_COLUMNS", "loss_unit", "mixed_params", "mixed_ratios", "mixed_sources", "untuned"]

PARAMS_COLUMNS: Mapping[ParamsConvention, tuple[str, ...]] = {
    "total": ("params_total",),
    "nonembedding": ("params_nonembedding", "params_no_embed"),
    "with-head": ("params_with_head",),
}
"""Columns that say by their name how parameters were counted."""
_INCOMPARABLE = {
    "tokenizers": ("tokenizer_key", "tokenizer"),
    "data sets": ("data_key", "dataset", "dataset_name", "corpus", "training_data", "eval_set", "eval_data"),
    "kinds of loss": ("metric", "loss_unit", "task"),
    "ways of counting": ("params_convention", "param_count", "flops_convention"),
}
_UNALIKE = {
    "contexts": ("context", "context_length", "seq_len", "sequence_length"),
    "architectures": ("architecture", "arch", "model_family"),
    "schedules": ("schedule", "lr_schedule"),
    "optimisers": ("optimizer", "optimiser", "hparams"),
}
_TUNED = ("lr", "learning_rate", "bs", "batch_size", "batch_tokens")
_FEWEST_TO_JUDGE = 6
_RISES = 0.5
"""Rank correlation of loss with compute above which it is no loss: laws fall."""
_APART = math.log(1.15)


def _grouped(frame: pd.DataFrame, names: tuple[str, ...], keep: np.ndarray) -> tuple[str, pd.Series] | None:
    """The first of these columns that sorts the fitted rows into several groups, and how many rows each has.

    A column that names every row anew identifies rows and groups nothing.
    """
    for name in names:
        if name not in frame.columns:
            continue
        counts = pd.Series([cell for cell in text(frame.loc[keep, name]) if cell], dtype=object).value_counts()
        if len(counts) > 1 and int(counts.iloc[0]) > 1 and 2 * len(counts) <= int(counts.sum()) + 1:
            return name, counts
    return None


def mixed_sources(frame: pd.DataFrame, keep: np.ndarray) -> list[Diagnostic]:
    """Columns by which the rows are not of one kind: refused where their losses can't be compared, else warned of.

    ``keep`` (rows of the frame,) marks those to be fitted.
    """
    notes = []
    for severity, kinds in (("refusal", _INCOMPARABLE), ("warning", _UNALIKE)):
        for kind, names in kinds.items():
            found = _grouped(frame, names, keep)
            if found is None:
                continue
            name, counts = found
            told = ", ".join(f"{shown(value)} {count}" for value, count in counts.iloc[:4].items())
            told += f" and {len(counts) - 4} more" if len(counts) > 4 else ""
            remedy = (
                "they are not one law: keep the rows of one, or drop the column if they are the same"
                if severity == "refusal"
                else "their losses may not follow one law: fit one alone and see whether the answer moves"
            )
            message = f"the rows are of {len(counts)} {kind} (column {name}: {told}); {remedy}"
            notes.append(Diagnostic.model_validate({"severity": severity, "code": "mixed-sources", "message": message}))
    return notes


def untuned(frame: pd.DataFrame, keep: np.ndarray, params: FloatArray, tokens: FloatArray) -> list[Diagnostic]:
    """A grid over learning rates or batches at each size and length is no set of replicates."""
    columns = [name for name in _TUNED if name in frame.columns]
    if not columns or len(params) < _FEWEST_TO_JUDGE:
        return []
    points = pd.Series(list(zip(params.tolist(), tokens.tolist(), strict=True)))
    settings = pd.Series(
        [" ".join(row) for row in zip(*(text(frame.loc[keep, name]) for name in columns), strict=True)]
    )
    distinct = int(points.nunique())
    tried = settings.groupby(points.to_numpy(dtype=object)).nunique()
    if distinct * 3 > len(points) or float((tried > 1).mean()) < 0.5:
        return []
    message = (
        f"{len(points)} rows are {distinct} sizes and lengths at several settings of {', '.join(columns)}: a law of "
        "loss wants tuned runs, so keep the lowest loss of each size and length"
    )
    return [Diagnostic(severity="warning", code="tuning-grid", message=message)]


def mixed_params(
    frame: pd.DataFrame, column: str, params: FloatArray, rows: np.ndarray, convention: ParamsConvention
) -> list[Diagnostic]:
    """Rows whose parameters are those of a column that counts them another way than ``convention``.

    ``params`` are those of ``column`` at the table's ``rows``.
    """
    own = PARAMS_COLUMNS[convention]
    if column in own:
        return []
    others = {
        other: numbers(frame[name])[rows - 1]
        for other, names in PARAMS_COLUMNS.items()
        for name in names
        if name in frame.columns and name != column
    }
    mine = others.pop(convention, None)
    as_said = np.zeros(len(params), dtype=bool) if mine is None else np.isclose(params, mine, rtol=1e-6)
    for other, values in others.items():
        here = np.isclose(params, values, rtol=1e-6) & ~as_said
        if not here.any():
            continue
        if here.all():
            message = (
                f"column {column} equals the {other} parameters in every row, but is taken as {convention}: "
                f"use --params-convention {other}"
            )
            return [Diagnostic(severity="warning", code="params-convention", message=message)]
        message = (
            f"column {column} holds {other} parameters in {int(here.sum())} of {len(params)} rows "
            f"({listed(rows[here])}) and others elsewhere: counts of two kinds are not one law; count every row alike"
        )
        return [Diagnostic(severity="refusal", code="mixed-conventions", message=message)]
    return []


def mixed_ratios(column: str, ratio: FloatArray, params: FloatArray, rows: np.ndarray) -> list[Diagnostic]:
    """FLOPs over 6ND that fall into two groups at the same sizes, or lie a factor of a thousand off.

    Exact FLOPs over 6ND change smoothly with N; at one size there is one ratio (at one context).
    """
    middle = float(np.median(ratio))
    if not 0.02 < middle < 50:
        nearest = 3 * round(math.log10(middle) / 3)
        guess = f", as if a count were given in units of 1e{abs(nearest)}" if nearest else ""
        message = (
            f"column {column} is {middle:.3g} times 6ND{guess}: parameters, tokens and FLOPs must be plain counts; "
            "multiply them out"
        )
        return [Diagnostic(severity="warning", code="flops-scale", message=message)]
    if len(ratio) < _FEWEST_TO_JUDGE:
        return []
    order = np.argsort(ratio)
    logs = np.log(ratio[order])
    gaps = np.diff(logs)
    cut = int(np.argmax(gaps))
    low, high = order[: cut + 1], order[cut + 1 :]
    spread = max(float(np.ptp(logs[: cut + 1])), float(np.ptp(logs[cut + 1 :])))
    if gaps[cut] < _APART or spread > gaps[cut] or min(len(low), len(high)) < 2:
        return []
    if params[low].min() > params[high].max() or params[high].min() > params[low].max():
        return []  # two ranges of size, each with its own ratio
    fewer = low if len(low) < len(high) else high
    message = (
        f"column {column} is {np.exp(logs[: cut + 1].mean()):.3g} times 6ND in {len(low)} rows and "
        f"{np.exp(logs[cut + 1 :].mean()):.3g} times in {len(high)} of the same sizes ({listed(rows[fewer])}): "
        "parameters or FLOPs are counted in two ways; count every row alike"
    )
    return [Diagnostic(severity="warning", code="mixed-conventions", message=message)]


_NAMED_UNITS = (
    ({"ppl", "perplexity"}, "perplexity", "take its natural logarithm"),
    ({"bpb"}, "bits per byte", "multiply by 0.6931 and by the bytes a token stands for"),
    (
        {"bits", "bpt", "bpc"},
        "bits",
        "multiply by 0.6931, and by the bytes or characters a token if they are per those",
    ),
    ({"acc", "accuracy", "score"}, "an accuracy", "a law of loss falls; fit the loss, and the accuracy from the loss"),
)
"""Words of a column's name, what it then is, and how to get nats a token."""


def loss_unit(column: str, loss: FloatArray, flops: FloatArray, bits_per_byte: FloatArray | None) -> list[Diagnostic]:
    """Losses that are not nats a token, by their column's name, their size, or because they rise with compute."""
    if not loss.size:
        return []
    span = f"column {column} runs from {loss.min():.4g} to {loss.max():.4g}"
    if len(loss) >= _FEWEST_TO_JUDGE and np.ptp(loss) > 0 and np.ptp(flops) > 0:
        # pandas' ranks rather than scipy.stats, whose import takes longer than reading the table
        ranks = pd.DataFrame({"flops": flops, "loss": loss}).rank().to_numpy()
        rises = float(np.corrcoef(ranks.T)[0, 1])
        if rises > _RISES:
            message = (
                f"{span} and rises with compute (rank correlation {rises:.2f}): an accuracy, or a wrong column? A law "
                "of loss falls; give the loss in nats a token"
            )
            return [Diagnostic(severity="refusal", code="loss-unit", message=message)]
    words = set(re.split(r"[^a-z]+", column.lower()))
    for named, unit, remedy in _NAMED_UNITS:
        if words & named:
            return [_not_nats(f"column {column} is {unit} by its name, not nats a token: {remedy}")]
    if bits_per_byte is not None and np.allclose(loss, bits_per_byte, rtol=1e-6):
        remedy = _NAMED_UNITS[1][2]
        return [_not_nats(f"column {column} equals bits_per_byte, so it is not nats a token: {remedy}")]
    if float(np.median(loss)) > UNIFORM_GUESS:
        return [
            _not_nats(
                f"{span}, above a uniform guess over any vocabulary ({UNIFORM_GUESS:.1f} nats): a perplexity? Take its "
                "natural logarithm"
            )
        ]
    if loss.max() < 0.2:
        return [
            _not_nats(
                f"{span}, below any text's entropy a token: an error rate, or nats a byte or character? Convert it to "
                "nats a token (times the bytes a token stands for)"
            )
        ]
    return []


def _not_nats(message: str) -> Diagnostic:
    return Diagnostic(severity="warning", code="loss-unit", message=message)
