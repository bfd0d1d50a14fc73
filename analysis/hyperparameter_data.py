"""What the figure of hyperparameters shows: each size's valley of loss, and the law through their bottoms.

An excess is loss over the loss at the valley's bottom, less one. Of tuned hyperparameters a valley is seen along one of
them: the surface with the others at their best, and each trial's distance from the whole surface on top of it (partial
residuals), so that what the others cost does not scatter it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.figure_data import Band
from analysis.study_view import StudyView
from scaling import architectures
from scaling.fits.tuned_law import LAWS_OF_SIZE, TunedCell, TunedLaw
from scaling.hyperparameters import LearningRateLaw, Valley, published_rates
from scaling.quantity import format_count
from scaling.recommendation import Recommendation
from scaling.record import Interval

__all__ = ["TITLES", "Bottom", "HyperparameterPanel", "Hyperparameters", "ValleyLine", "hyperparameters"]

Floats = NDArray[np.float64]

TITLES = {
    "learning_rate": "peak learning rate",
    "global_batch_tokens": "batch (tokens)",
    "weight_decay": "weight decay",
    "warmup": "warm-up (share of the tokens)",
    "1-beta1": "1 − β1",
    "1-beta2": "1 − β2",
}
_LINE_POINTS = 60
_BEYOND = math.log(4.0)
"""A curve is drawn this far around its bottom at most: further off no valley is a parabola."""


@dataclass(frozen=True)
class Bottom:
    params: float
    value: Interval
    trusted: bool
    """Not at the edge of what was tried."""


@dataclass(frozen=True)
class ValleyLine:
    """One size, and one length of it where several were tuned."""

    label: str
    values: Floats
    excess: Floats
    lost: Floats
    """Values whose run diverged or was pruned: they have no loss."""
    curve_values: Floats
    curve_excess: Floats
    """Empty where there is no valley."""


@dataclass(frozen=True)
class HyperparameterPanel:
    name: str
    title: str
    valleys: tuple[ValleyLine, ...]
    bottoms: tuple[Bottom, ...]
    law: Band | None
    """The best value over N; of a tuned one along the lengths between the trials' and the target's. None where one
    value holds for all sizes."""
    target: tuple[float, Interval] | None
    """N of the recommended run, and the value there."""
    published: tuple[tuple[str, float, float], ...]
    """Name, N and value of each published law that was fitted at such a size and length."""


@dataclass(frozen=True)
class Hyperparameters:
    panels: tuple[HyperparameterPanel, ...]


def hyperparameters(view: StudyView) -> Hyperparameters | None:
    """None where nothing was probed or tuned."""
    rates = view.learning_rates
    if rates is None:
        return None
    if rates.tuned is not None and rates.tuned.cells:
        return Hyperparameters(
            tuple(_tuned(rates.tuned, k, view.recommendation) for k in range(len(rates.tuned.names)))
        )
    if rates.valleys:
        return Hyperparameters((_probed(rates, view),))
    return None


def _probed(rates: LearningRateLaw, view: StudyView) -> HyperparameterPanel:
    made, last = view.recommendation, float(view.fit.fitted_range.params[1])
    sizes = [params for params, _ in rates.valleys]
    x = np.geomspace(min(sizes), max([last, *sizes] + ([made.params.estimate] if made else [])), _LINE_POINTS)
    return HyperparameterPanel(
        name="learning_rate",
        title=TITLES["learning_rate"],
        valleys=tuple(_probed_line(params, valley) for params, valley in rates.valleys),
        bottoms=tuple(Bottom(params, valley.rate, valley.status == "ok") for params, valley in rates.valleys),
        law=Band.of(x, [rates.rate_interval(float(params)) for params in x]),
        target=(made.params.estimate, rates.rate_interval(made.params.estimate)) if made else None,
        published=_published(made),
    )


def _probed_line(params: float, valley: Valley) -> ValleyLine:
    values, losses = np.array(valley.learning_rates), np.array(valley.losses)
    floor, curve_x, curve_y = float(losses[np.isfinite(losses)].min()), np.zeros(0), np.zeros(0)
    if valley.polynomial is not None:
        constant, slope, square = valley.polynomial
        floor = constant - slope**2 / (4 * square)
        tried = np.log(values)
        bottom = math.log(valley.rate.estimate)
        inside = max(tried[0], bottom - _BEYOND), min(tried[-1], bottom + _BEYOND)
        z = np.linspace(*inside, _LINE_POINTS)
        curve_x, curve_y = np.exp(z), (constant + slope * z + square * z**2) / floor - 1
    known = np.isfinite(losses)
    return ValleyLine(
        label=format_count(params), values=values[known], excess=losses[known] / floor - 1, lost=values[~known],
        curve_values=curve_x, curve_excess=curve_y,
    )  # fmt: skip


def _tuned(law: TunedLaw, k: int, made: Recommendation | None) -> HyperparameterPanel:
    name = law.names[k]
    of_size = name in LAWS_OF_SIZE
    band = target = None
    if made is not None:
        target = (made.params.estimate, law.predict(made.params.estimate, made.tokens.estimate)[name])
    if of_size:
        end = (made.params.estimate, made.tokens.estimate) if made else _largest(law)
        start = min(cell.params for cell in law.cells)
        slope = math.log(end[1] / law.tokens_at) / math.log(end[0] / law.params_at)
        x = np.geomspace(start, end[0], _LINE_POINTS)
        tokens = law.tokens_at * (x / law.params_at) ** slope
        band = Band.of(x, [law.predict(float(n), float(d))[name] for n, d in zip(x, tokens, strict=True)])
    return HyperparameterPanel(
        name=name,
        title=TITLES.get(name, name),
        valleys=tuple(_tuned_line(law, k, cell) for cell in law.cells),
        bottoms=tuple(Bottom(c.params, law.predict(c.params, c.tokens)[name], _inside(c, name)) for c in law.cells),
        law=band,
        target=target,
        published=_published(made) if name == "learning_rate" else (),
    )


def _largest(law: TunedLaw) -> tuple[float, float]:
    cell = max(law.cells, key=lambda cell: (cell.params, cell.tokens))
    return cell.params, cell.tokens


def _inside(cell: TunedCell, name: str) -> bool:
    tried = [trial.values[name] for trial in cell.trials]
    return min(tried) <= cell.optimum[name] <= max(tried)


def _tuned_line(law: TunedLaw, k: int, cell: TunedCell) -> ValleyLine:
    name, best = law.names[k], cell.optimum[law.names[k]]
    kept = [trial for trial in cell.trials if trial.loss is not None]
    values = np.array([trial.values[name] for trial in kept])
    whole = np.array([law.excess({n: t.values[n] / cell.optimum[n] for n in law.names}) for t in kept])
    along = np.array([law.excess({name: value / best}) for value in values])
    losses = np.array([trial.loss for trial in kept], dtype=np.float64)
    excess = losses / cell.floor * (1 + along) / (1 + whole) - 1
    tried = np.log([trial.values[name] for trial in cell.trials])
    z = np.linspace(
        max(tried.min(), math.log(best) - _BEYOND), min(tried.max(), math.log(best) + _BEYOND), _LINE_POINTS
    )
    return ValleyLine(
        label=f"{format_count(cell.params)} on {format_count(cell.tokens)}",
        values=values,
        excess=excess,
        lost=np.array([trial.values[name] for trial in cell.trials if trial.loss is None]),
        curve_values=np.exp(z),
        curve_excess=np.array([law.excess({name: math.exp(at) / best}) for at in z]),
    )


def _published(made: Recommendation | None) -> tuple[tuple[str, float, float], ...]:
    if made is None:
        return ()
    counts = architectures.get(made.shape.architecture).count_parameters(made.shape)
    return tuple(
        (law.name, made.params.estimate, law.rate) for law in published_rates(counts.nonembedding, made.tokens.estimate)
    )
