"""What a fit is: every estimator's answer side by side, with intervals, conventions and what the data can't say.

Results live here, apart from the algorithms in ``scaling.fits``, so that a saved fit can be read without refitting.
"""

from __future__ import annotations

import json
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from scaling.observation import FlopsConvention, ParamsConvention
from scaling.record import Interval, Record, content_hash

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from scaling.fits.averaged import Averaged
    from scaling.fits.curve import Band
    from scaling.laws.law import Law

__all__ = [
    "BackTestCut",
    "Cure",
    "Diagnostic",
    "DriftFit",
    "EnvelopeFit",
    "EnvelopeOptimum",
    "Fit",
    "FittedRange",
    "IsoflopFit",
    "IsoflopOptimum",
    "LawFit",
    "ObservationCounts",
    "ParametricFit",
    "ProposedRun",
    "RejectedRow",
]


class RejectedRow(Record):
    """A row of the table that could not be used; rows count from 1, the header not counted."""

    row: int
    reason: str


class ObservationCounts(Record):
    """How many rows there were, which could not be used, and how parameters and FLOPs were counted in the others."""

    rows: int
    used: int
    rejected: tuple[RejectedRow, ...] = ()
    params_convention: ParamsConvention
    flops_convention: FlopsConvention


class ParametricFit(Record):
    """Approach 3 of Hoffmann et al. (2203.15556): one formula through all points."""

    status: Literal["ok", "refused"]
    reason: str | None = None
    law: str = "chinchilla"
    parameters: dict[str, Interval] = Field(default_factory=dict)
    objective: float | None = Field(default=None, description="sum of Huber terms on log loss")
    n_exponent: Interval | None = Field(default=None, description="a in N* ~ C^a")
    d_exponent: Interval | None = Field(default=None, description="b in D* ~ C^b")
    huber_delta: float = 1e-3
    residual_sd: float | None = Field(default=None, description="robust SD of log loss around the law")
    draws: tuple[tuple[float, ...], ...] = Field(
        default=(), description="bootstrap draws of the parameters, in the order of ``parameters``"
    )


class IsoflopOptimum(Record):
    """The minimum of loss along one budget's line; ``params`` and ``loss`` carry intervals where the status is ok."""

    flops: float
    runs: int
    status: Literal["ok", "edge", "curvature", "too few"]
    params: Interval | None = None
    tokens: Interval | None = None
    loss: Interval | None = None
    polynomial: tuple[float, ...] | None = Field(
        default=None, description="loss = p0 + p1 x + p2 x^2 + ... with x = ln(params)"
    )


class IsoflopFit(Record):
    """Approach 2: the optimum of each budget's line, then N* and D* as power laws of compute."""

    status: Literal["ok", "refused"]
    reason: str | None = None
    interpolator: Literal["parabola", "cubic", "akima"] = "parabola"
    n_exponent: Interval | None = None
    d_exponent: Interval | None = None
    n_coefficient: Interval | None = Field(default=None, description="k in N* = k * C^a")
    d_coefficient: Interval | None = None
    optima: tuple[IsoflopOptimum, ...] = ()
    draws: tuple[tuple[float, float], ...] = Field(
        default=(), description="bootstrap draws of (ln k, a) of N* = k * C^a"
    )


class EnvelopeOptimum(Record):
    """The lowest loss at one compute; the numbers carry intervals where the status is ok."""

    flops: float
    status: Literal["ok", "edge", "too few"]
    params: Interval | None = None
    tokens: Interval | None = None
    loss: Interval | None = None


class EnvelopeFit(Record):
    """Approach 1: the size with the lowest loss at each compute, then N* and D* as power laws of compute."""

    status: Literal["ok", "refused"]
    reason: str | None = None
    source: Literal["curves", "budgets", "runs"] | None = Field(
        default=None, description="compared: training curves at common FLOPs, runs of one budget, or runs of like FLOPs"
    )
    n_exponent: Interval | None = None
    d_exponent: Interval | None = None
    n_coefficient: Interval | None = Field(default=None, description="k in N* = k * C^a")
    d_coefficient: Interval | None = None
    optima: tuple[EnvelopeOptimum, ...] = ()
    draws: tuple[tuple[float, float], ...] = Field(default=(), description="draws of (ln k, a) of N* = k * C^a")


class BackTestCut(Record):
    """The largest budgets left out and predicted from those below; errors are of log loss, predicted less actual."""

    largest_fitted_flops: float
    fitted: int
    predicted: int
    extrapolation_orders: float
    rms_error: float
    rms_error_plain_law: float
    mean_error: float
    inside: int = Field(description="of the predicted, how many lay in their interval at the fit's level")
    median_half_width: float


class DriftFit(Record):
    """What forecasts rest on: the law and its drift (``scaling.fits.drift``), and how it did on this table before.

    The model itself is not kept but refitted from ``runs`` when it is first asked, in a tenth of a second.
    """

    status: Literal["ok", "refused"]
    reason: str | None = None
    laws: tuple[str, ...] = Field(default=("chinchilla",), description="averaged by evidence where there are several")
    irreducible: tuple[float, float] | None = Field(
        default=None, description="range of E in nats a token that the text admits, known from its bits per byte"
    )
    huber_delta: float = 1e-3
    runs: tuple[tuple[float, float, float], ...] = Field(default=(), description="params, tokens, loss")
    trunks: tuple[int, ...] = Field(default=(), description="number of each run's trunk; none where no two share one")
    back_test: tuple[BackTestCut, ...] | None = Field(default=None, description="none asked for, or one row a cut")

    @cached_property
    def model(self) -> Averaged:
        from scaling.fits.averaged import fit_averaged
        from scaling.laws import get_loss_law

        params, tokens, loss = np.array(self.runs, dtype=np.float64).reshape(-1, 3).T
        return fit_averaged(
            [get_loss_law(name) for name in self.laws],
            params,
            tokens,
            loss,
            irreducible=self.irreducible,
            huber_delta=self.huber_delta,
            trunks=np.array(self.trunks, dtype=np.int64) if self.trunks else None,
        )


class ProposedRun(Record):
    """A run that would tell what the fitted ones do not: its size and training tokens, counted as the fit counts."""

    params: float
    tokens: float


class Cure(Record):
    """The runs that would settle a diagnostic, to be planned as they stand."""

    runs: tuple[ProposedRun, ...]
    flops: float
    """Of all of them together, under the fit's convention (c·N·D)."""


class Diagnostic(Record):
    """Something the reader should know before trusting the fit, and what would cure it."""

    severity: Literal["note", "warning", "refusal"]
    code: str
    message: str
    cure: Cure | None = None


class FittedRange(Record):
    """Where the runs lie, so that a forecast can say how far outside it goes."""

    params: tuple[float, float]
    tokens: tuple[float, float]
    flops: tuple[float, float]
    tokens_per_param: tuple[float, float]


class Fit(Record):
    """The answer of ``scaling fit``; its JSON is a contract."""

    schema_version: int = 2
    observations: ObservationCounts
    flops_per_param_token: float = Field(
        default=6.0, description="c of C = c N D: 6 under 6nd, else the median of flops / (N D) over the fitted runs"
    )
    fitted_range: FittedRange
    parametric: ParametricFit
    isoflop: IsoflopFit
    envelope: EnvelopeFit = EnvelopeFit(status="refused", reason="not asked for")
    drift: DriftFit = DriftFit(status="refused", reason="not asked for")
    diagnostics: tuple[Diagnostic, ...] = ()
    level: float = 0.9
    bootstrap: int = 0
    seconds: float = 0.0

    @property
    def params_convention(self) -> ParamsConvention:
        return self.observations.params_convention

    @property
    def flops_convention(self) -> FlopsConvention:
        return self.observations.flops_convention

    @cached_property
    def key(self) -> str:
        """SHA-256 of everything but how long it took."""
        return content_hash(self.model_dump(mode="json", exclude={"seconds"}))

    def answer(self) -> dict[str, Any]:
        """What ``scaling fit --json`` prints: everything but the draws and the runs, as JSON values; never NaN."""
        bulk: dict[str, set[str]] = {
            name: {"draws"} for name, part in self if isinstance(part, Record) and hasattr(part, "draws")
        }
        answer: dict[str, Any] = json.loads(self.model_dump_json(exclude=bulk | {"drift": {"runs"}}))
        return answer

    def summary(self) -> str:
        """The fit as a page of text: what was fitted, both approaches with their intervals, and what to know."""
        from scaling.fits.summary import summarise

        return summarise(self)


class LawFit(Record):
    """One law through columns of any kind: the answer of ``fit_law``."""

    schema_version: int = 1
    law: str
    value: str = Field(description="the column fitted")
    residuals: Literal["log", "value"] = Field(description="whether residuals are of ln y or of y")
    parameters: dict[str, Interval]
    fixed: tuple[str, ...] = Field(default=(), description="constants that were held")
    objective: float = Field(description="sum of Huber terms, or half the sum of squares")
    huber_delta: float | None = Field(description="None: least squares")
    residual_sd: float = Field(description="robust SD of residuals, in their units")
    rows: int
    fitted_range: dict[str, tuple[float, float]]
    draws: tuple[tuple[float, ...], ...] = Field(
        default=(), description="bootstrap draws of the parameters, in the order of ``parameters``"
    )
    level: float = 0.9
    bootstrap: int = 0
    diagnostics: tuple[Diagnostic, ...] = ()

    def answer(self) -> dict[str, Any]:
        """What ``scaling fit --json`` prints: everything but the draws, as JSON values; never NaN."""
        answer: dict[str, Any] = json.loads(self.model_dump_json(exclude={"draws"}))
        return answer

    def predict(self, *inputs: ArrayLike, law: Law | None = None, scatter: bool = True) -> Band:
        """The law's value at ``inputs``, in the order of its inputs, of one shape S; with its interval at ``level``.

        The interval holds what one new measurement will show, or without ``scatter`` the law's own curve. It holds
        inside the assumed law: nothing is added for what the law itself misses beyond ``fitted_range``. ``law`` is
        needed only for one that is not registered. Unpacks as ``estimate, low, high``, each (*S).
        """
        from scaling.fits.curve import predict_law

        return predict_law(self, *inputs, law=law, scatter=scatter)

    def summary(self) -> str:
        """The law, its constants with their intervals, how well it fits and what to know."""
        from scaling.fits.summary import summarise_law

        return summarise_law(self)
