"""Observational scaling: public models as points of one low-dimensional space of capability (Ruan et al. 2405.10938).

The benchmark scores of models of many families lie near a space of few dimensions, and the first principal components
of the scores measure a model where its compute, which means another thing in every family, does not. A further task's
score is then a sigmoid of these measures,

    score = h·σ(w·S + c)

with h the ceiling, at most 1, and S the measures, by least squares. A sigmoid through weak models is a poor judge of
strong ones, and resampling does not show it: the fit is repeated below several cuts of the first measure and judged on
the models above, and its drift widens the interval of whatever lies beyond the fitted models.

Shapes: m models, b benchmarks, k components, K draws.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import least_squares
from scipy.special import expit
from scipy.stats import t as student

from scaling.errors import UserError
from scaling.fits.bootstrap import residual_scale
from scaling.laws.law import FloatArray

__all__ = ["CapabilitySpace", "ObservationalFit", "ScorePrediction", "capability_space", "fit_observational"]

_IMPUTED_BY = 1
"""Components that fill in missing scores, as the authors do."""
_FEWEST_MODELS_A_CONSTANT = 4
_STEEPEST = 20.0
_DRAWS = 200
_CUTS = (0.5, 0.6, 0.7, 0.8)
"""Shares of the models, in the order of their first measure."""


@dataclass(frozen=True, eq=False)
class CapabilitySpace:
    """The principal components of benchmark scores, most telling first."""

    mean: FloatArray
    """(b,)"""
    scale: FloatArray
    """(b,): SD of each benchmark, for filling in."""
    filler: FloatArray
    """(b,): the first component of standardised scores, which fills in what is missing."""
    components: FloatArray
    """(k, b), each with scores that mostly rise along it."""
    explained: FloatArray
    """(k,): share of the variance of scores."""

    def filled(self, scores: ArrayLike) -> FloatArray:
        """``scores`` (m, b) with NaN replaced by what the first component makes of the model's other scores."""
        standard_mb = (np.asarray(scores, np.float64) - self.mean) / self.scale
        missing_mb = np.isnan(standard_mb)
        seen_mb = np.where(missing_mb, 0.0, standard_mb)
        along_m = seen_mb @ self.filler / np.maximum((~missing_mb) @ self.filler**2, 1e-12)
        filled_mb = np.where(missing_mb, along_m[:, None] * self.filler, standard_mb) * self.scale + self.mean
        return np.asarray(np.where(missing_mb, np.clip(filled_mb, 0.0, 1.0), filled_mb))

    def measures(self, scores: ArrayLike) -> FloatArray:
        """The models' places in the space, (m, k)."""
        return np.asarray((self.filled(scores) - self.mean) @ self.components.T)


@dataclass(frozen=True, eq=False)
class ScorePrediction:
    """Scores (m,) with their intervals."""

    score: FloatArray
    low: FloatArray
    high: FloatArray


@dataclass(frozen=True, eq=False)
class ObservationalFit:
    """score = h·σ(w·S + c) in the measures of ``space``; constants (h, c, w…) and their draws."""

    space: CapabilitySpace
    constants: FloatArray
    draws: FloatArray
    residual_sd: float
    drift: float
    """Error of the score for each unit of the first measure beyond the fitted models: root mean square over cuts."""
    strongest: float
    """First measure of the strongest fitted model."""
    level: float

    def predict(self, scores: ArrayLike) -> ScorePrediction:
        """The task's score for models of benchmark ``scores`` (m, b); the interval is of a new model's score."""
        measures_mk = self.space.measures(scores)
        score_m = _score(self.constants, measures_mk)
        draws_Km = np.stack([_score(row, measures_mk) for row in self.draws])
        low_m, high_m = np.quantile(draws_Km, (0.16, 0.84), axis=0)
        beyond_m = np.maximum(measures_mk[:, 0] - self.strongest, 0.0)
        sd_m = np.hypot(np.maximum((high_m - low_m) / 2, self.drift * beyond_m), self.residual_sd)
        half_m = float(student.ppf(0.5 + self.level / 2, len(_CUTS))) * sd_m
        return ScorePrediction(score_m, np.maximum(score_m - half_m, 0.0), np.minimum(score_m + half_m, 1.0))


def capability_space(scores: ArrayLike, components: int = 3) -> CapabilitySpace:
    """The space of the models' ``scores`` (m, b), shares from 0 to 1 with NaN where missing.

    Missing scores are filled in by the first principal component of the standardised scores, again and again until it
    no longer moves; the components are then those of the plain scores. Raises :class:`UserError` for too few models.
    """
    scores_mb = np.asarray(scores, np.float64)
    models, benchmarks = scores_mb.shape
    if not 1 <= components <= benchmarks or models < 2 * benchmarks:
        raise UserError(
            f"{models} models with {benchmarks} benchmarks give no {components} components: give at least twice as "
            "many models as benchmarks, and no more components than these"
        )
    if (np.isnan(scores_mb).mean(axis=0) > 0.5).any() or ((scores_mb < 0) | (scores_mb > 1)).any():
        raise UserError("scores must be shares from 0 to 1, each benchmark known of at least half of the models")
    missing_mb = np.isnan(scores_mb)
    mean, scale = np.nanmean(scores_mb, axis=0), np.maximum(np.nanstd(scores_mb, axis=0), 1e-9)
    standard_mb = np.where(missing_mb, 0.0, (scores_mb - mean) / scale)
    for _ in range(1000):
        _, _, rows = np.linalg.svd(standard_mb - standard_mb.mean(axis=0), full_matrices=False)
        filler = rows[:_IMPUTED_BY]
        rebuilt_mb = (standard_mb - standard_mb.mean(axis=0)) @ filler.T @ filler + standard_mb.mean(axis=0)
        if np.abs((rebuilt_mb - standard_mb)[missing_mb]).max(initial=0.0) < 1e-6:
            break
        standard_mb = np.where(missing_mb, rebuilt_mb, standard_mb)
    filled_mb = np.clip(standard_mb * scale + mean, 0.0, 1.0)
    centre = filled_mb.mean(axis=0)
    _, values, rows = np.linalg.svd(filled_mb - centre, full_matrices=False)
    signed = rows[:components] * np.sign(rows[:components].sum(axis=1))[:, None]
    return CapabilitySpace(centre, scale, filler[0], signed, (values**2 / (values**2).sum())[:components])


def fit_observational(
    space: CapabilitySpace,
    scores: ArrayLike,
    target: ArrayLike,
    *,
    families: NDArray[np.object_] | None = None,
    level: float = 0.9,
    seed: int = 0,
) -> ObservationalFit:
    """A sigmoid of the measures through ``target`` (m,), shares from 0 to 1, of models with ``scores`` (m, b).

    Intervals resample whole ``families`` (m,), since models of one family err alike; without them, models.
    """
    measures_mk, target_m = space.measures(scores), np.asarray(target, np.float64)
    if target_m.shape != (len(measures_mk),) or not ((target_m >= 0) & (target_m <= 1)).all():
        raise UserError(f"target must be a share from 0 to 1 for each of {len(measures_mk)} models; drop those without")
    unknowns = measures_mk.shape[1] + 2
    if len(target_m) < _FEWEST_MODELS_A_CONSTANT * unknowns:
        raise UserError(
            f"{len(target_m)} models can't carry {unknowns} constants: give {_FEWEST_MODELS_A_CONSTANT * unknowns}, or "
            "fewer components"
        )
    constants = _fitted(measures_mk, target_m)
    member_m = np.arange(len(target_m)) if families is None else np.unique(families, return_inverse=True)[1]
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(_DRAWS):
        counts = np.bincount(rng.integers(0, member_m.max() + 1, member_m.max() + 1), minlength=member_m.max() + 1)
        weight_m = np.sqrt(counts[member_m])
        draws.append(_least_squares(constants, measures_mk, target_m, weight_m)[0])
    residuals = target_m - _score(constants, measures_mk)
    return ObservationalFit(
        space=space,
        constants=constants,
        draws=np.stack(draws),
        residual_sd=residual_scale(residuals, unknowns),
        drift=_drift(measures_mk, target_m),
        strongest=float(measures_mk[:, 0].max()),
        level=level,
    )


def _drift(measures_mk: FloatArray, target_m: FloatArray) -> float:
    """Root mean square, over cuts of the first measure, of the slope of the errors above the cut in the distance."""
    first_m = measures_mk[:, 0]
    slopes = []
    for share in _CUTS:
        below = first_m <= np.quantile(first_m, share)
        beyond = first_m[~below] - first_m[below].max()
        error = _score(_fitted(measures_mk[below], target_m[below]), measures_mk[~below]) - target_m[~below]
        slopes.append(float(error @ beyond / (beyond @ beyond)))
    return math.sqrt(float(np.mean(np.square(slopes))))


def _fitted(measures_mk: FloatArray, target_m: FloatArray) -> FloatArray:
    """The constants of least squares, from several starts."""
    starts = [
        np.array([ceiling, shift, *np.full(measures_mk.shape[1], slope)])
        for ceiling, shift, slope in product((0.5, 0.95), (-2.0, 0.0), (0.5, 3.0))
    ]
    return min((_least_squares(start, measures_mk, target_m) for start in starts), key=lambda found: found[1])[0]


def _score(constants: FloatArray, measures_mk: FloatArray) -> FloatArray:
    return np.asarray(constants[0] * expit(measures_mk @ constants[2:] + constants[1]))


def _least_squares(
    start: FloatArray, measures_mk: FloatArray, target_m: FloatArray, weight_m: FloatArray | None = None
) -> tuple[FloatArray, float]:
    """The constants and their half sum of squares from one start."""
    weight = np.ones(len(target_m)) if weight_m is None else weight_m

    def residuals(constants: FloatArray) -> FloatArray:
        return np.asarray(weight * (_score(constants, measures_mk) - target_m))

    def jacobian(constants: FloatArray) -> FloatArray:
        share_m = expit(measures_mk @ constants[2:] + constants[1])
        slope_m = constants[0] * share_m * (1 - share_m)
        columns = (share_m, slope_m, *(slope_m * column for column in measures_mk.T))
        return np.asarray(np.column_stack(columns) * weight[:, None])

    reach = np.array([0.0, *[_STEEPEST] * (len(start) - 1)])
    high = np.where(reach == 0, 1.0, reach)
    inside = np.clip(start, 1e-3 - reach, high - 1e-3)
    found = least_squares(residuals, inside, jac=jacobian, bounds=(-reach, high))
    return np.asarray(found.x), float(found.cost)
