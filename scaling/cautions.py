"""What a recommendation does not know, said before anything is spent on it."""

from __future__ import annotations

from collections.abc import Sequence

from scaling.accounting import Accounting
from scaling.allocation import ESTIMATORS, Allocation, allocate
from scaling.cluster import ClusterEstimate
from scaling.fit import Fit
from scaling.fits.irreducible import levels_off_too_early
from scaling.limits import Limits
from scaling.model_scale import LARGE_MODEL, SMALL_VOCABULARY
from scaling.quantity import format_count, format_energy, format_mass
from scaling.recommendation import Alternative
from scaling.record import Interval
from scaling.study_context import StudyContext

__all__ = ["ILLUSTRATION_ORDERS", "cautions", "drift_disagrees", "over_limits"]

ILLUSTRATION_ORDERS = 3.0
"""Beyond this many orders of magnitude the answer is an illustration, not advice."""
MOST_DISAGREEMENT = 1.5
"""Factor between the two estimators' N* up to which they count as agreeing: well inside the flat region."""


MUCH_LARGER_BATCH = 1.5
"""A factor between the run's batch and the fitted runs' from which the recipe is another."""
_OVER = 0.02
"""Over a limit by less than this is rounding: shapes and steps come in whole numbers."""
_LOWER = 1e-3
"""Share of the loss by which another run's forecast must be lower to be named."""


def drift_disagrees(ours: Interval | None, alternatives: Sequence[Alternative]) -> tuple[str, ...]:
    """Where the forecast, which drifts from the law, expects less loss of another size than of the law's optimum."""
    if ours is None:
        return ()
    lower = [
        other
        for other in alternatives
        if other.expected_loss is not None and other.expected_loss.estimate < ours.estimate * (1 - _LOWER)
    ]
    if not lower:
        return ()
    best = min(lower, key=lambda other: other.expected_loss.estimate if other.expected_loss else 0.0)
    assert best.expected_loss is not None
    return (
        f"The law puts the optimum here, but the forecast, which follows how the runs drift from the law, expects "
        f"{best.expected_loss.estimate:.3f} of {best.name} ({format_count(best.params)} parameters) and "
        f"{ours.estimate:.3f} of this run: the runs do not settle the size to better than that. Choose within the flat "
        "region by what else matters, or measure both sides of it.",
    )


def over_limits(limits: Limits, cluster: ClusterEstimate) -> tuple[str, ...]:
    """Where a size chosen to be served takes more energy or carbon than the compute that the limits held."""
    said = []
    for most, found, written in (
        (limits.max_kwh, cluster.energy_kwh, format_energy),
        (limits.max_tco2e, cluster.tco2e, format_mass),
    ):
        if most is not None and found is not None and found.estimate > most * (1 + _OVER):
            said.append(
                f"This run takes {written(found.estimate)}, more than the {written(most)} that were set: the size was "
                "picked for what it costs over its life. Take the compute optimum, or a smaller target."
            )
    return tuple(said)


def cautions(
    fit: Fit,
    allocation: Allocation,
    orders: float,
    context: StudyContext | None,
    accounting: Accounting,
    batch_tokens: int,
) -> tuple[str, ...]:
    """One sentence or two each, for a run ``orders`` of magnitude beyond the fitted ones."""
    said = [*_distance(fit, allocation, orders), *_estimators(fit, allocation, accounting)]
    if context is not None:
        said += _recipe_carried_over(allocation, context, batch_tokens)
    return tuple(said)


def _distance(fit: Fit, allocation: Allocation, orders: float) -> list[str]:
    """How far from the fitted runs the answer lies."""
    said = []
    if orders > ILLUSTRATION_ORDERS:
        said.append(
            f"This extrapolates {orders:.1f} orders of magnitude beyond the fitted runs: an illustration of the method,"
            " not advice. Train rungs in between before you spend anything on it."
        )
    elif orders > 0:
        said.append(
            f"This extrapolates {orders:.1f} orders of magnitude beyond the fitted runs. The interval is honest about "
            "the law, not about a recipe that may stop working."
        )
    low, high = fit.fitted_range.tokens_per_param
    ratio = allocation.tokens_per_param.estimate
    if not low <= ratio <= high:
        said.append(
            f"{ratio:.3g} tokens a parameter lie outside the fitted runs' {low:.3g} to {high:.3g}: the law is not "
            "measured there."
        )
    return said


def _estimators(fit: Fit, allocation: Allocation, accounting: Accounting) -> list[str]:
    """Which estimator had to do without the other, and where the two do not agree."""
    said = []
    for name, part in (("parametric", fit.parametric), ("iso-FLOP", fit.isoflop)):
        if part.status == "refused":
            said.append(f"This rests on one estimator; the {name} one was refused: {part.reason}")
    if fit.parametric.status == fit.isoflop.status == "ok":
        by_law, by_lines = (
            allocate(fit, allocation.flops, estimator, flops_per_token=accounting.flops_per_token).params.estimate
            for estimator in ESTIMATORS
        )
        if not 1 / MOST_DISAGREEMENT <= by_lines / by_law <= MOST_DISAGREEMENT:
            said.append(
                f"The two estimators disagree: the law puts the optimum at {format_count(by_law)} parameters, the "
                f"iso-FLOP lines at {format_count(by_lines)}, {by_lines / by_law:.2g} times as many."
            )
    if levels_off_too_early(fit.parametric, fit.drift):
        said.append(
            "The parametric law levels off above what larger models reach on text, so N and D come from the iso-FLOP "
            "lines, and the forecast of the loss holds E to what text admits."
        )
    return said


def _recipe_carried_over(allocation: Allocation, context: StudyContext, batch_tokens: int) -> list[str]:
    """What of the study's corpus and recipe does not fit a run of this size."""
    said = []
    tokens, params = allocation.tokens.estimate, allocation.params.estimate
    if tokens > context.unique_tokens:
        said.append(
            f"{format_count(tokens)} tokens are {tokens / context.unique_tokens:.3g} passes over the corpus's "
            f"{format_count(context.unique_tokens)}: find more text, for repeated tokens teach less (2305.16264)."
        )
    if params >= LARGE_MODEL and context.vocabulary < SMALL_VOCABULARY:
        said.append(
            f"The shape keeps the study's vocabulary of {context.vocabulary:,} and context of {context.context:,}, on "
            "which its loss was measured. A model of this size would be given larger ones, and its loss a token would "
            "then be another: compare by bits per byte."
        )
    one_batch = context.learning_rate_law.tuned is None and context.batch.exponent == 0
    if one_batch and batch_tokens > MUCH_LARGER_BATCH * context.batch.batch_tokens:
        said.append(
            f"The batch grows to {format_count(batch_tokens)} tokens, and every fitted run had "
            f"{format_count(context.batch.batch_tokens)}: the forecast is of their recipe. In small batches a rate "
            "that is too high for long runs hides loss until the cooldown, and a larger batch finds it. Leave "
            "hyperparameters.batch_exponent at its default, and the sweep's batches grow as the large run's does."
        )
    if context.learning_rate_law.exponent.estimate == 0 and context.parametrisation.name == "standard":
        said.append(
            "The learning rate was given as one number for all sizes, and larger models need smaller ones: set "
            "hyperparameters.learning_rate to probe, so that its change with size is measured."
        )
    return said
