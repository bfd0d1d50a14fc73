"""What the figure of exponents shows, once: the resamples of the fit as a cloud, and each estimator's a of N* ∝ C^a
beside the published laws'.

A fit keeps its resamples (``Fit.parametric.draws``, ``Fit.isoflop.draws``): nothing is resampled here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from contourpy import contour_generator
from numpy.typing import NDArray

from analysis.figure_data import SHORT_NAMES, draws_of, theta_of
from analysis.study_view import StudyView
from scaling.fit import Fit
from scaling.laws import get_loss_law
from scaling.published import chinchilla_constants, published_optima, published_table
from scaling.record import Interval

__all__ = ["Cloud", "Exponents", "ExponentsOfN", "PublishedExponent", "exponents", "published_exponents",
           "short_name"]  # fmt: skip

Floats = NDArray[np.float64]

_POINTS = 500
"""Resamples that are drawn, and that the density is taken from: more would only be darker."""
_GRID = 64
_FEWEST = 40
"""Resamples from which a density is told."""
_SHOWN = 0.995
"""Share of the resamples that the axes hold, to either side; a few lie anywhere."""


@dataclass(frozen=True)
class PublishedExponent:
    key: str
    name: str
    citation: str
    n_exponent: float
    alpha_beta: tuple[float, float] | None
    """Of laws of Chinchilla's form."""


@dataclass(frozen=True)
class Cloud:
    """Two exponents of the law, resampled together."""

    names: tuple[str, str]
    estimate: tuple[float, float]
    draws: Floats
    """(R, 2), an even sample."""
    outlines: tuple[Floats, ...]
    """Closed lines (n, 2) around the densest part that holds the fit's level of the resamples; empty with few."""
    limits: tuple[tuple[float, float], tuple[float, float]]


@dataclass(frozen=True)
class ExponentsOfN:
    """a of N* ∝ C^a by one estimator, with the density of its resamples (empty with few)."""

    kind: str
    name: str
    interval: Interval
    values: Floats
    density: Floats
    """1 at its highest."""


@dataclass(frozen=True)
class Exponents:
    level: float
    cloud: Cloud | None
    """None where the law has not two exponents, or was refused."""
    estimators: tuple[ExponentsOfN, ...]
    published: tuple[PublishedExponent, ...]


def published_exponents() -> tuple[PublishedExponent, ...]:
    """Each published law's a: its slope far above the embeddings that Kaplan's count leaves out."""
    found = []
    for low, high in zip(published_optima(1e20), published_optima(1e22), strict=True):
        constants = chinchilla_constants(low.key)
        found.append(
            PublishedExponent(
                key=low.key,
                name=low.name,
                citation=low.citation,
                n_exponent=math.log(high.params / low.params) / math.log(100),
                alpha_beta=None if constants is None else (float(constants[3]), float(constants[4])),
            )
        )
    alone = published_table()["exponent"]
    return (*found, *(PublishedExponent(**row, alpha_beta=None) for row in alone))


def exponents(view: StudyView) -> Exponents | None:
    """None where no estimator has an exponent with an interval."""
    fit = view.fit
    told = [each for each in (_by_law(fit), _by_lines(fit)) if each is not None]
    if not told:
        return None
    return Exponents(fit.level, _cloud(fit), tuple(told), published_exponents())


def short_name(law: PublishedExponent) -> str:
    return SHORT_NAMES.get(law.key, law.name)


def _cloud(fit: Fit) -> Cloud | None:
    if fit.parametric.status != "ok":
        return None
    law = get_loss_law(fit.parametric.law)
    places = [place for place, parameter in enumerate(law.parameters) if not parameter.log][:2]
    draws = draws_of(fit.parametric)
    if len(places) < 2 or len(draws) < 2:
        return None
    estimate, draws = theta_of(fit.parametric)[places], draws[:, places]
    draws = draws[np.isfinite(draws).all(axis=1)]
    sample = _sample(draws)
    limits = [_limits(np.append(draws[:, axis], estimate[axis])) for axis in (0, 1)]
    return Cloud(
        names=(law.NAMES[places[0]], law.NAMES[places[1]]),
        estimate=(float(estimate[0]), float(estimate[1])),
        draws=sample,
        outlines=_outlines(sample, fit.level, limits),
        limits=(limits[0], limits[1]),
    )


def _sample(draws: Floats) -> Floats:
    """At most so many rows as are drawn, evenly taken."""
    return draws[np.unique(np.linspace(0, len(draws) - 1, min(len(draws), _POINTS)).round().astype(np.intp))]


def _limits(values: Floats) -> tuple[float, float]:
    low, high = np.quantile(values, [1 - _SHOWN, _SHOWN])
    margin = 0.08 * float(high - low) or 0.05 * abs(float(high))
    return max(float(low) - margin, 0.0), float(high) + margin


def _outlines(draws: Floats, level: float, limits: list[tuple[float, float]]) -> tuple[Floats, ...]:
    """Where the density of ``draws`` (R, 2) is as high as at the draw that ``level`` of them exceed."""
    from scipy.stats import gaussian_kde  # a third of a second that pages without a cloud don't need

    if len(draws) < _FEWEST:
        return ()
    try:
        density = gaussian_kde(draws.T)
    except np.linalg.LinAlgError:  # resamples that all lie on a line have no density
        return ()
    x, y = (np.linspace(low - 0.1 * (high - low), high + 0.1 * (high - low), _GRID) for low, high in limits)
    grid = density(np.stack([each.ravel() for each in np.meshgrid(x, y)])).reshape(_GRID, _GRID)
    lines = contour_generator(x, y, grid).lines(float(np.quantile(density(draws.T), 1 - level)))
    return tuple(np.asarray(line, np.float64) for line in lines)


def _by_law(fit: Fit) -> ExponentsOfN | None:
    interval = fit.parametric.n_exponent
    if fit.parametric.status != "ok" or interval is None:
        return None
    law = get_loss_law(fit.parametric.law)
    draws = _sample(draws_of(fit.parametric))
    resampled = law.exponents(draws, fit.fitted_range.flops[1])[0] if len(draws) else np.zeros(0)
    return ExponentsOfN("parametric", "parametric", interval, *_density(resampled, interval))


def _by_lines(fit: Fit) -> ExponentsOfN | None:
    interval = fit.isoflop.n_exponent
    if fit.isoflop.status != "ok" or interval is None:
        return None
    resampled = _sample(np.array(fit.isoflop.draws, dtype=np.float64).reshape(-1, 2)[:, 1])
    return ExponentsOfN("isoflop", "iso-FLOP", interval, *_density(resampled, interval))


def _density(draws: Floats, interval: Interval) -> tuple[Floats, Floats]:
    from scipy.stats import gaussian_kde

    draws = draws[np.isfinite(draws)]
    if len(draws) < _FEWEST or float(np.ptp(draws)) < 1e-9:
        return np.zeros(0), np.zeros(0)
    low, high = _limits(np.append(draws, interval.estimate))
    x = np.linspace(low, high, 100)
    density = gaussian_kde(draws)(x)
    return x, density / density.max()
