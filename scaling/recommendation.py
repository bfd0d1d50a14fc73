"""The answer people come for: the large run's configuration, what it rests on, and what follows it."""

from __future__ import annotations

from typing import Literal

from scaling.allocation.inference_aware import InferenceOptimum
from scaling.allocation.limited_data import LimitedOptimum
from scaling.allocation.sweep_worth import CandidateWorth, SweepWorth
from scaling.cluster import ClusterEstimate
from scaling.forecast import Forecast
from scaling.limits import Limits
from scaling.loss_band import LossBand
from scaling.record import Interval, Record
from scaling.risk import Risk
from scaling.run_spec import RunSpec
from scaling.rungs import Rung
from scaling.shape import ModelShape
from scaling.shape_by_dollars import ShapesByDollars
from scaling.target import Target

__all__ = ["Alternative", "PostTrainingStage", "Recommendation"]


class PostTrainingStage(Record):
    """One stage after pretraining. ``basis`` says whether a law or a rule of thumb stands behind the sizes."""

    stage: Literal["sft", "reward_model", "dpo", "ppo"]
    examples: int
    tokens: int
    learning_rate: float
    flops: float
    gpu_hours: float | None
    usd: float | None
    basis: str


class Alternative(Record):
    """What another law would do with the same compute."""

    name: str
    citation: str
    params: float
    tokens: float
    tokens_per_param: float
    expected_loss: Interval | None
    """Under this study's fit; None where it has no parametric law."""
    risk: Risk | None = None
    """Of the recommended run's ending worse than this one; None where the law can't be used away from its runs."""


class Recommendation(Record):
    """Where to put ``flops``. ``illustration`` is true beyond three orders of magnitude of extrapolation."""

    schema_version: int = 1
    study: str | None
    fit_key: str
    fitted_to: str | None = None
    """Which of a study's runs the fit is of, where it is of more than the sweep's."""
    flops: float
    level: float
    illustration: bool
    extrapolation_orders: float
    params: Interval
    tokens: Interval
    tokens_per_param: Interval
    loss: Interval | None
    bits_per_byte: Interval | None
    flat_region: tuple[float, float] | None
    """Sizes whose expected loss at the same compute is within 0.3% of the best."""
    estimator: Literal["parametric", "isoflop"]
    shape: ModelShape
    learning_rate: Interval
    global_batch_tokens: int
    warmup_tokens: int
    cooldown_tokens: int
    hyperparameter_basis: str
    stage: Literal["rung", "final"] = "final"
    run: RunSpec | None
    """What ``scaling train`` reads; None where the fit came without a corpus."""
    run_key: str | None = None
    """Of ``run`` as it was recommended: a run changed since then is another, and the forecast is not of it."""
    forecast: Forecast | None = None
    """Of ``run``'s very size and tokens, as it is registered; None where the fit has no law."""
    band: LossBand | None = None
    """Where the run's held-out loss should be on its way; None without a study's curves."""
    cluster: ClusterEstimate | None
    post_training: tuple[PostTrainingStage, ...]
    alternatives: tuple[Alternative, ...]
    warnings: tuple[str, ...]
    target: Target | None = None
    """What was asked for; ``flops`` differ from it for a model chosen to be served."""
    limits: Limits = Limits()
    reasons: tuple[str, ...] = ()
    """Why the size is not the compute optimum; empty where it is."""
    serving: InferenceOptimum | None = None
    """The model that is cheapest over training and serving; None unless ``limits.serve_tokens`` was given."""
    by_dollars: ShapesByDollars | None = None
    """The shape of least dollars for the loss beside that of least compute; None where the law can't be used away from
    its runs."""
    limited: LimitedOptimum | None = None
    """What scarce text makes of the target; None where it does not bind."""
    rungs: tuple[Rung, ...] = ()
    sweep: SweepWorth | None = None
    """What more of the sweep would be worth; None where the law can't be used away from its runs."""
    measure_next: tuple[CandidateWorth, ...] = ()
    """Runs that would tell most of N* for their compute, where the interval is wide."""
    decisions: tuple[str, ...] = ()
    """Vocabulary and context: what they are, and what that rests on."""
