"""A law and its drift: how a forecast is made where nothing was measured.

    L_i = (E + R(θ; N_i, D_i) · exp(δ_C(log10 C_i) + δ_R(log10 D_i/N_i))) · exp(ε_i)

R is the law's reducible loss. No law of two power terms is true of a real sweep to a tenth of a per cent, and what it
misses is systematic: residuals bend along compute and along tokens a parameter. Each δ is an integrated Wiener process,
a function whose slope wanders by τ a square root of a decade; δ_C starts at the smallest budget, δ_R to both sides of
the median D/N. This is Kennedy & O'Hagan's discrepancy (2001, doi 10.1111/1467-9868.00294). Runs near the target count
more because the drift has had less room to wander between them and the target, the recent slope of the residuals is
carried on, and the interval widens with the distance: as its power 1.5, where it is the drift's alone.

ε_i has the variance (s² + (κ·x_i)²) / w_i: x_i is how far, in log loss, the run lies from the best of its compute, for
runs far from the frontier follow no law well; w_i < 1 marks an outlier. Branches of one trunk share a part of their
noise: that of two of them has the correlation ρ. s, τ_C and τ_R are not chosen but integrated over a grid, each
combination weighted by its evidence (Laplace's) times a prior.

Shapes: n points, P constants of the law, H hinges, M = P + H coefficients, K combinations on the grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.special import ndtr

from scaling.fits.bootstrap import SHARED_VARIANCE
from scaling.fits.estimate import Estimate, estimate
from scaling.fits.hinges import Axis, axis_through
from scaling.laws.law import FloatArray, IntArray, LossLaw

__all__ = ["Drift", "DriftPrior", "Predictive", "fit_drift"]

_ITERATIONS = 6
_REWEIGHTINGS = 8
_LARGEST_STEP = 0.5
_SMALLEST_NOISE = 5e-4
_NEGLIGIBLE = 1e-3
"""Combinations of the grid with less than this share of the weight are left out."""


@dataclass(frozen=True)
class DriftPrior:
    """What is believed before the data, learned from published tables (``benchmarks/extrapolation``).

    ``ln_tau_c`` and ``ln_tau_r`` are (mean, SD) of the logarithms of τ in units of log reducible loss a decade^1.5.
    """

    ln_tau_c: tuple[float, float] = (math.log(0.04), 1.0)
    ln_tau_r: tuple[float, float] = (math.log(0.06), 0.8)
    ln_noise_sd: float = 0.5
    """SD of ln(s / the robust SD of the plain fit's residuals)."""
    excess_share: float = 0.25
    """κ."""
    trunk_share: float = SHARED_VARIANCE
    """ρ: of the noise's variance, what branches of one trunk share; not learned, no published table tells it."""
    outlier: float = 2.5
    """Residuals beyond this many SD count as if they were this many: their own noise is taken to be larger."""
    tau_grid: tuple[float, ...] = tuple(np.geomspace(0.004, 0.5, 7).tolist())
    noise_grid: tuple[float, ...] = (0.4, 0.7, 1.0, 1.5, 2.2, 3.0)


@dataclass(frozen=True)
class Predictive:
    """The distribution of ln L at one target, a mixture of normals: one for each combination of the grid (K,)."""

    weight_K: FloatArray
    mean_K: FloatArray
    variance_K: FloatArray

    @property
    def mean(self) -> float:
        return float(self.weight_K @ self.mean_K)

    @property
    def sd(self) -> float:
        return math.sqrt(float(self.weight_K @ (self.variance_K + self.mean_K**2)) - self.mean**2)

    def probability_below(self, ln_loss: float) -> float:
        """The probability that the run's ln L lies below ``ln_loss``."""
        return float(self.weight_K @ ndtr((ln_loss - self.mean_K) / np.sqrt(self.variance_K)))

    def quantile(self, probability: float) -> float:
        """ln L below which the run's lies with ``probability``, by bisection to a billionth."""
        sd_K = np.sqrt(self.variance_K)
        low, high = float((self.mean_K - 9 * sd_K).min()), float((self.mean_K + 9 * sd_K).max())
        while high - low > 1e-9:
            middle = 0.5 * (low + high)
            if self.probability_below(middle) < probability:
                low = middle
            else:
                high = middle
        return 0.5 * (low + high)


@dataclass(frozen=True)
class _Grid:
    """Each combination's noise and taus (K,), mode of constants and hinges (K, M), and weight (K,)."""

    noise_K: FloatArray
    tau_c_K: FloatArray
    tau_r_K: FloatArray
    mode_KM: FloatArray
    weight_K: FloatArray


@dataclass(frozen=True)
class _Hinges:
    """The hinges' features of the fitted runs."""

    features_nH: FloatArray

    @cached_property
    def products(self) -> tuple[FloatArray, IntArray]:
        """Products (n, J) of every two features of each run, and which of the J each pair (H·H,) is."""
        hinges = self.features_nH.shape[1]
        one, other = np.triu_indices(hinges)
        place_HH = np.empty((hinges, hinges), dtype=np.int64)
        place_HH[one, other] = place_HH[other, one] = np.arange(len(one))
        return self.features_nH[:, one] * self.features_nH[:, other], place_HH.ravel()


@dataclass(frozen=True)
class Drift:
    """The fitted model; ``predictive`` says what it expects anywhere."""

    law: LossLaw
    plain: Estimate
    """The law alone, by the sum of Huber terms: where the search starts, and the centre of its coordinates."""
    prior: DriftPrior
    params_n: FloatArray
    tokens_n: FloatArray
    ln_loss_n: FloatArray
    excess_n: FloatArray
    """How far each run lies from the best of its compute, in log loss."""
    weight_n: FloatArray
    trunk_n: IntArray | None
    """Runs of one number share a trunk; None if no two do."""
    mean_P: FloatArray
    sd_P: FloatArray
    """The prior of the searched coordinates."""
    axis_c: Axis
    axis_r: Axis
    hinges: _Hinges
    noise: float
    """Robust SD of log loss around the law alone: what the grid's noise is in units of."""
    grid: _Grid
    log_evidence: float = 0.0

    @property
    def tau(self) -> tuple[float, float]:
        """Posterior geometric means of τ_C and τ_R."""
        weights = self.grid.weight_K
        return (
            math.exp(float(weights @ np.log(self.grid.tau_c_K))),
            math.exp(float(weights @ np.log(self.grid.tau_r_K))),
        )

    @cached_property
    def _trunks(self) -> tuple[FloatArray, list[tuple[float, IntArray]]]:
        return _inverse_correlation(self.trunk_n, len(self.ln_loss_n), self.prior.trunk_share)

    def _linearised(
        self, modes_KM: FloatArray, params_n: FloatArray, tokens_n: FloatArray, features_nH: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """ln L (K, n) at each mode, its gradient (K, n, P) in the constants, and what (K, n) the features are to be
        multiplied with for that in the hinges."""
        constants = len(self.mean_P)
        free_KP = modes_KM[:, :constants]
        ln_law_Kn, jacobian_KnP = self.law.response_and_gradient(free_KP, self.plain.centred(params_n, tokens_n))
        drift_Kn = np.exp(modes_KM[:, constants:] @ features_nH.T)
        law_Kn = np.exp(ln_law_Kn)
        gradient_KnP = (drift_Kn * law_Kn)[..., None] * jacobian_KnP
        irreducible_K1 = np.zeros((len(modes_KM), 1))
        if "E" in self.law.NAMES:
            e = self.law.NAMES.index("E")
            irreducible_K1 = np.exp(free_KP[:, e : e + 1])
            gradient_KnP[..., e] += (1 - drift_Kn) * irreducible_K1
        reducible_Kn = (law_Kn - irreducible_K1) * drift_Kn
        loss_Kn = irreducible_K1 + reducible_Kn
        return np.log(loss_Kn), gradient_KnP / loss_Kn[..., None], reducible_Kn / loss_Kn

    @cached_property
    def _factor(self) -> FloatArray:
        """Cholesky factors (K, M, M) of the posterior covariance of constants and hinges."""
        normal_KMM = _normal_equations(self, self.grid)[0]
        return np.asarray(np.linalg.inv(np.swapaxes(np.linalg.cholesky(normal_KMM), 1, 2)))

    def predictive(self, params: float, tokens: float, *, noise: bool = True) -> Predictive:
        """What ln L of one new run of ``params`` and ``tokens`` is expected to be; without its ``noise``, what the mean
        of many replicates of it would be."""
        point_n, point_d = np.array([params]), np.array([tokens])
        grid = self.grid
        # Linear in constants and hinges: their joint posterior is a narrow, curved ridge, of which draws of a normal
        # leave the ground.
        features_1H = _features(self.axis_c, self.axis_r, point_n, point_d)
        mean_K1, gradient_K1P, hinge_K1 = self._linearised(grid.mode_KM, point_n, point_d, features_1H)
        gradient_KM = np.concatenate((gradient_K1P[:, 0], hinge_K1 * features_1H), axis=1)
        variance_K = (np.einsum("kij,ki->kj", self._factor, gradient_KM) ** 2).sum(axis=1)
        beyond_K = grid.tau_c_K**2 * self.axis_c.beyond(math.log10(params) + math.log10(tokens))
        beyond_K += grid.tau_r_K**2 * self.axis_r.beyond(math.log10(tokens) - math.log10(params))
        variance_K += beyond_K * self._reducible_share(mean_K1[:, 0]) ** 2
        if noise:
            excess = float(_excess(self.law, self.plain.theta, point_n, point_d)[0])
            variance_K += grid.noise_K**2 + (self.prior.excess_share * excess) ** 2
        return Predictive(grid.weight_K, mean_K1[:, 0], variance_K)

    def _reducible_share(self, ln_loss_K: FloatArray) -> FloatArray:
        if "E" not in self.law.NAMES:
            return np.ones(len(ln_loss_K))
        return np.asarray(1 - np.exp(self.grid.mode_KM[:, self.law.NAMES.index("E")] - ln_loss_K))


def _features(axis_c: Axis, axis_r: Axis, params_n: FloatArray, tokens_n: FloatArray) -> FloatArray:
    """(n, H)"""
    log_n, log_d = np.log10(params_n), np.log10(tokens_n)
    return np.concatenate((axis_c.features(log_n + log_d), axis_r.features(log_d - log_n)), axis=1)


def _inverse_correlation(
    trunk_n: IntArray | None, runs: int, share: float
) -> tuple[FloatArray, list[tuple[float, IntArray]]]:
    """R^-1 of the correlation R of runs of which branches of one trunk share ``share``: what each run's square counts,
    (n,), and for every trunk of several branches what the square of their sum counts, with their rows.

    In a trunk of m branches R has the eigenvalue 1 - ρ + ρm for their mean and 1 - ρ for differences between them.
    """
    count_n, shared = np.ones(runs), []
    for trunk in () if trunk_n is None else np.unique(trunk_n):
        rows = np.flatnonzero(trunk_n == trunk)
        m = len(rows)
        if m > 1:
            count_n[rows] = 1 / (1 - share)
            shared.append(((1 / (1 - share + share * m) - 1 / (1 - share)) / m, rows))
    return count_n, shared


def _exponent_bounds(plain: Estimate) -> tuple[FloatArray, FloatArray]:
    """Exponents are kept where a law is one, within the bounds of its own search; other coordinates are free."""
    exponents = np.array([not parameter.log for parameter in plain.law.parameters])
    return np.where(exponents, plain.box.low, -np.inf), np.where(exponents, plain.box.high, np.inf)


def _excess(law: LossLaw, theta: FloatArray, params_n: FloatArray, tokens_n: FloatArray) -> FloatArray:
    best_n, best_d = law.optimum(theta, params_n * tokens_n, 1.0)
    ratio = law.predict(theta, params_n, tokens_n) / law.predict(theta, best_n, best_d)
    return np.asarray(np.log(np.maximum(ratio, 1.0)))


def _precision(model: Drift, grid: _Grid) -> FloatArray:
    """Of the prior of constants and hinges, (K, M)."""
    knots_c, knots_r = (axis.features(np.zeros(1)).shape[1] for axis in (model.axis_c, model.axis_r))
    count = len(grid.noise_K)
    parts = (
        np.broadcast_to(1 / model.sd_P**2, (count, len(model.sd_P))),
        np.broadcast_to(1 / (grid.tau_c_K[:, None] ** 2 * model.axis_c.step), (count, knots_c)),
        np.broadcast_to(1 / (grid.tau_r_K[:, None] ** 2 * model.axis_r.step), (count, knots_r)),
    )
    return np.concatenate(parts, axis=1)


def _noise_variance(model: Drift, grid: _Grid) -> FloatArray:
    """(K, n)"""
    return (grid.noise_K[:, None] ** 2 + (model.prior.excess_share * model.excess_n) ** 2) / model.weight_n


def _normal_equations(model: Drift, grid: _Grid) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Normal matrices (K, M, M) and right sides (K, M) of a Gauss–Newton step from the modes, and residuals (K, n)."""
    features_nH, (count_n, shared) = model.hinges.features_nH, model._trunks
    fitted_Kn, gradient_KnP, hinge_Kn = model._linearised(grid.mode_KM, model.params_n, model.tokens_n, features_nH)
    residual_Kn = model.ln_loss_n - fitted_Kn
    sd_Kn = np.sqrt(_noise_variance(model, grid))
    # In units of the noise. A run's gradient in the hinges is its features times a number, (K, n, H) altogether: their
    # products are the same at every mode, and are summed as they are.
    gradient_KnP /= sd_Kn[..., None]
    hinge_Kn, scaled_Kn = hinge_Kn / sd_Kn, residual_Kn / sd_Kn
    count, (constants, hinges) = len(grid.noise_K), (len(model.mean_P), features_nH.shape[1])
    weighted_KPn = np.swapaxes(gradient_KnP, 1, 2) * count_n
    normal_KMM = np.empty((count, constants + hinges, constants + hinges))
    normal_KMM[:, :constants, :constants] = np.matmul(weighted_KPn, gradient_KnP)
    products_nJ, place = model.hinges.products
    summed_KJ = (count_n * hinge_Kn**2) @ products_nJ
    normal_KMM[:, constants:, constants:] = summed_KJ[:, place].reshape(count, hinges, hinges)
    between_KPH = np.matmul(weighted_KPn * hinge_Kn[:, None], features_nH)
    normal_KMM[:, :constants, constants:] = between_KPH
    normal_KMM[:, constants:, :constants] = np.swapaxes(between_KPH, 1, 2)
    slope_KM = np.concatenate(
        (
            np.matmul(weighted_KPn, scaled_Kn[..., None])[..., 0],
            (count_n * hinge_Kn * scaled_Kn) @ features_nH,
        ),
        axis=1,
    )
    if shared:
        sums_KTM, sums_KT = np.empty((count, len(shared), constants + hinges)), np.empty((count, len(shared)))
        for trunk, (_, rows) in enumerate(shared):
            sums_KTM[:, trunk, :constants] = gradient_KnP[:, rows].sum(axis=1)
            sums_KTM[:, trunk, constants:] = hinge_Kn[:, rows] @ features_nH[rows]
            sums_KT[:, trunk] = scaled_Kn[:, rows].sum(axis=1)
        counted_KMT = np.swapaxes(sums_KTM, 1, 2) * np.array([factor for factor, _ in shared])
        normal_KMM += np.matmul(counted_KMT, sums_KTM)
        slope_KM += np.matmul(counted_KMT, sums_KT[..., None])[..., 0]
    precision_KM = _precision(model, grid)
    diagonal = np.arange(constants + hinges)
    normal_KMM[:, diagonal, diagonal] += precision_KM
    slope_KM -= precision_KM * (grid.mode_KM - _prior_mean(model))
    return normal_KMM, slope_KM, residual_Kn


def _squares(model: Drift, scaled_Kn: FloatArray) -> FloatArray:
    """eᵀR⁻¹e of residuals (K, n) in units of their noise, (K,)."""
    count_n, shared = model._trunks
    alone_K = scaled_Kn**2 @ count_n
    return np.asarray(alone_K + sum(factor * scaled_Kn[:, rows].sum(axis=1) ** 2 for factor, rows in shared))


def _prior_mean(model: Drift) -> FloatArray:
    """(M,): hinges are expected to be nothing."""
    knots = model.grid.mode_KM.shape[1] - len(model.mean_P)
    return np.concatenate((model.mean_P, np.zeros(knots)))


def _improve(model: Drift, grid: _Grid, iterations: int) -> _Grid:
    """Gauss–Newton steps of every combination's mode; constants move by at most ``_LARGEST_STEP`` at a time."""
    low, high = _exponent_bounds(model.plain)
    constants = len(model.mean_P)
    for _ in range(iterations):
        normal_KMM, slope_KM, _ = _normal_equations(model, grid)
        step_KM = np.linalg.solve(normal_KMM, slope_KM[..., None])[..., 0]
        largest_K = np.abs(step_KM[:, :constants]).max(axis=1)
        mode_KM = grid.mode_KM + step_KM * np.minimum(1.0, _LARGEST_STEP / np.maximum(largest_K, 1e-12))[:, None]
        mode_KM[:, :constants] = np.clip(mode_KM[:, :constants], low, high)
        grid = replace(grid, mode_KM=mode_KM)
    return grid


def _log_evidence(model: Drift, grid: _Grid) -> FloatArray:
    """Laplace's approximation of the log of each combination's evidence, (K,), up to a constant."""
    normal_KMM, _, residual_Kn = _normal_equations(model, grid)
    variance_Kn, precision_KM = _noise_variance(model, grid), _precision(model, grid)
    squares = _squares(model, residual_Kn / np.sqrt(variance_Kn))
    penalties = (precision_KM * (grid.mode_KM - _prior_mean(model)) ** 2).sum(axis=1)
    determinants = np.log(variance_Kn).sum(axis=1) + np.linalg.slogdet(normal_KMM)[1] - np.log(precision_KM).sum(axis=1)
    return np.asarray(-0.5 * (squares + penalties + determinants))


def _outlier_weights(model: Drift, noise: float) -> FloatArray:
    """Outliers' weights (n,) by reweighting: first around the law alone, lest the drift bend to them, then around a
    model of moderate drift, from ``model.grid``, one combination."""
    grid = replace(model.grid, noise_K=np.array([noise]))
    sd_n = np.sqrt(_noise_variance(model, grid)[0])
    residual_n = model.plain.residuals
    for _ in range(_REWEIGHTINGS):
        size_n = np.abs(residual_n) / sd_n
        typical = max(1.0, 1.482602 * float(np.median(size_n)))
        allowed_n = model.prior.outlier * typical / np.maximum(size_n, 1e-9)
        model = replace(model, weight_n=np.minimum(1.0, allowed_n**2))
        grid = _improve(model, grid, 1)
        residual_n = _normal_equations(model, grid)[2][0]
    return model.weight_n


def fit_drift(
    law: LossLaw,
    params: FloatArray,
    tokens: FloatArray,
    loss: FloatArray,
    *,
    prior: DriftPrior | None = None,
    irreducible: tuple[float, float] | None = None,
    huber_delta: float = 1e-3,
    trunks: IntArray | None = None,
    noise_of: Drift | None = None,
) -> Drift:
    """The law and its drift through n runs; arrays are (n,), losses in nats a token.

    ``trunks`` numbers the trunk of each run (n,), where several may be branches of one.

    ``irreducible`` is the range of E that the text admits, where it is known; it replaces the law's own prior of E.
    ``noise_of`` is another law's model of the same runs, whose outliers and noise this one takes over, so that the two
    can be compared by evidence.
    """
    prior = prior or DriftPrior()
    plain = estimate(law, (params, tokens), loss, huber_delta)
    inputs = plain.centred(params, tokens)
    mean_P, sd_P = law.prior(inputs, loss, irreducible)
    noise = max(_SMALLEST_NOISE, 1.482602 * float(np.median(np.abs(plain.residuals))))
    if noise_of is not None:
        noise = noise_of.noise
    compute_n = np.log10(params) + np.log10(tokens)
    ratio_n = np.log10(tokens) - np.log10(params)
    axis_c = axis_through(compute_n, float(compute_n.min()), two_sided=False)
    axis_r = axis_through(ratio_n, float(np.median(ratio_n)), two_sided=True)
    hinges = _Hinges(_features(axis_c, axis_r, params, tokens))
    knots = hinges.features_nH.shape[1]
    start_M = np.concatenate((np.clip(plain.free, mean_P - 2 * sd_P, mean_P + 2 * sd_P), np.zeros(knots)))
    one = np.ones(1)
    model = Drift(
        law=law,
        plain=plain,
        prior=prior,
        params_n=params,
        tokens_n=tokens,
        ln_loss_n=np.log(loss),
        excess_n=_excess(law, plain.theta, params, tokens),
        weight_n=np.ones(len(loss)),
        trunk_n=trunks if trunks is not None and len(np.unique(trunks)) < len(trunks) else None,
        mean_P=mean_P,
        sd_P=sd_P,
        axis_c=axis_c,
        axis_r=axis_r,
        hinges=hinges,
        noise=noise,
        grid=_Grid(one, one * math.exp(prior.ln_tau_c[0]), one * math.exp(prior.ln_tau_r[0]), start_M[None], one),
    )
    if noise_of is None:
        model = replace(model, weight_n=_outlier_weights(model, noise))
    else:
        model = replace(model, weight_n=noise_of.weight_n, excess_n=noise_of.excess_n)
    combinations = np.array(
        [(s, c, r) for s in prior.noise_grid for c in prior.tau_grid for r in prior.tau_grid], dtype=np.float64
    )
    grid = _Grid(
        noise_K=np.maximum(noise * combinations[:, 0], _SMALLEST_NOISE),
        tau_c_K=combinations[:, 1],
        tau_r_K=combinations[:, 2],
        mode_KM=np.repeat(start_M[None], len(combinations), axis=0),
        weight_K=np.ones(len(combinations)),
    )
    grid = _improve(model, grid, _ITERATIONS)
    log_weight_K = _log_evidence(model, grid)
    for values, (mean, sd) in (
        (np.log(combinations[:, 0]), (0.0, prior.ln_noise_sd)),
        (np.log(grid.tau_c_K), prior.ln_tau_c),
        (np.log(grid.tau_r_K), prior.ln_tau_r),
    ):
        log_weight_K = log_weight_K - 0.5 * ((values - mean) / sd) ** 2
    weight_K = np.exp(log_weight_K - log_weight_K.max())
    keep = weight_K > _NEGLIGIBLE * weight_K.sum()
    kept = _Grid(
        grid.noise_K[keep],
        grid.tau_c_K[keep],
        grid.tau_r_K[keep],
        grid.mode_KM[keep],
        weight_K[keep] / weight_K[keep].sum(),
    )
    return replace(model, grid=kept, log_evidence=float(log_weight_K.max() + np.log(weight_K.sum())))
