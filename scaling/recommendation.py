"""The answer people come for: the large run's configuration, what it rests on, and what follows it."""

from __future__ import annotations

from typing import Literal

from scaling.forecast import Forecast
from scaling.loss_band import LossBand
from scaling.record import Interval, Record
from scaling.run_spec import RunSpec
from scaling.shape import ModelShape

__all__ = ["Alternative", "ClusterEstimate", "PostTrainingStage", "Recommendation"]


class ClusterEstimate(Record):
    """What the run costs on a named accelerator; energy and carbon come with the cost issue."""

    accelerator: str
    gpus: int
    mfu: Interval
    """Achieved share of the dense bf16 peak; the interval is the range that practice shows at this scale."""
    days: Interval
    gpu_hours: Interval
    usd: Interval
    price_usd_per_gpu_hour: Interval
    source: str


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


class Recommendation(Record):
    """Where to put ``flops``. ``illustration`` is true beyond three orders of magnitude of extrapolation."""

    schema_version: int = 1
    study: str | None
    fit_key: str
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
