"""The design by information: the runs that, for their cost, tell most about the loss and the optimal size at a target.

Sizes and token counts are chosen from a grid over the architecture's real shapes, each as a run of its own or as a
branch of its size's trunk, so that the variances of ln L and ln N* at the target are least: in the mean of their
logarithms over plausible truths, each as it stands and with a drift (``linear_study``). Runs are added greedily, at
three degrees of thrift, and then exchanged one by one (``choice``): Fedorov's algorithm (1972) with costs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from scaling.design.choice import Candidates, Choice
from scaling.design.design import Design, DesignPoint
from scaling.design.family import FEWEST_STEPS, Family
from scaling.design.law_prior import LawPrior
from scaling.design.linear_study import LinearStudy, linear_study
from scaling.design.trunks import priced
from scaling.errors import UserError
from scaling.fits.bootstrap import SHARED_VARIANCE
from scaling.fits.drift import DriftPrior
from scaling.laws.law import FloatArray
from scaling.shape import ModelShape

__all__ = ["Cost", "Limits", "information_design"]

Cost = Callable[[ModelShape, int], float]
"""What training a shape on so many tokens costs, from start to end: FLOPs, or seconds."""

_THRIFTS = (0.2, 0.5, 1.0)
_PASSES = 6
_SIZE_STEP = 1.35
_TOKEN_STEP = 1.25
_DRIFT_WEIGHT = 0.5
_REPLICATE_SHARE = 0.05


@dataclass(frozen=True)
class Limits:
    """What a run may be, and how many of them."""

    most_runs: int = 40
    largest_share: float = 0.2
    """Of the budget, what one run may cost."""
    smallest_share: float = 3e-4
    """Of the budget, what one run costs at least: one law is not trusted further down."""
    ratio_reach: float = 14.0
    """Runs have at most this factor more or fewer tokens a parameter than is expected to be optimal."""
    smallest_params: float = 0.0
    """Total parameters of the smallest model that is believed to follow the law of the larger ones."""
    fewest_steps: int = FEWEST_STEPS
    admissible: Callable[[ModelShape, int], bool] | None = None
    """Whether a machine can train the shape on so many tokens: its memory, its minutes."""


def _drift_to_bear(prior: DriftPrior) -> tuple[float, float]:
    """Root mean squares of τ_C and τ_R: a design should serve the sweeps that drift, not the typical one alone."""
    return tuple(math.exp(mean + sd * sd) for mean, sd in (prior.ln_tau_c, prior.ln_tau_r))  # type: ignore[return-value]


def information_design(
    family: Family,
    budget: float,
    *,
    target_flops: float,
    prior: LawPrior,
    noise: float,
    weights: tuple[float, float] = (1.0, 1.0),
    cost: Cost | None = None,
    cooldown: float | None = None,
    limits: Limits | None = None,
    drift: DriftPrior | None = DriftPrior(),  # noqa: B008  # frozen
    replicates: int = 3,
    trained: Sequence[DesignPoint] = (),
    trunks_open: bool = False,
) -> Design:
    """The runs for ``budget`` that tell most about ln L and ln N* at ``target_flops``, weighed by ``weights``.

    noise: SD of log loss from one seed to another. cost: what a shape costs on so many tokens, in the budget's unit:
    FLOPs by default, or seconds. cooldown: share of a run's tokens, where runs may branch from trunks; None for
    separate runs alone. drift: what the law may miss; None to trust it. replicates: the fewest runs that repeat
    another with a new seed, so that noise can be told from misfit. trained: runs that are there already: they tell
    what they tell, cost nothing, and are not in the design. trunks_open: whether their trunks can still be carried on
    or branched from.

    The run that is kept back to test the forecast (``hold_out_point``) is beyond the budget, as of every design.

    Raises :class:`UserError` where the budget holds too few runs to fit a law.
    """
    limits = limits or Limits()
    price = cost or (lambda shape, tokens: float(family.flops_per_token(shape)) * tokens)
    if not (math.isfinite(budget) and budget > 0):
        raise UserError(f"budget is {budget:g}: a design needs a finite number above 0, for example 1e13")
    if not (math.isfinite(noise) and noise > 0):
        raise UserError(f"noise is {noise:g}: it is the SD of log loss from one seed to another, for example 0.004")
    centre = prior.tokens_per_param(target_flops)
    fresh = list(_candidates(family, budget, price, centre, limits))
    fewest = len(prior.loss_law.NAMES) + 2
    if len({point.shape for point in fresh}) < 3 and not trained:
        raise UserError(
            f"a budget of {budget:.3g} holds runs of fewer than 3 sizes of {family.architecture} with a vocabulary "
            f"of {family.vocabulary}: use more, smaller batches or a smaller vocabulary"
        )
    points = [*trained, *fresh]
    study = _study(points, prior, target_flops, noise, drift, centre)
    table = _table(points, len(trained), price, cooldown, trunks_open)
    choice = _best(study, table, np.array(weights), points, len(trained), budget, limits.most_runs, replicates)
    picked = choice.chosen[choice.given :]
    if len(picked) + len(trained) < fewest:
        raise UserError(
            f"a budget of {budget:.3g} holds {len(picked)} runs; a law of {fewest - 2} constants needs at least "
            f"{fewest}: use more, smaller batches or a smaller vocabulary"
        )
    runs, branched = [points[candidate % len(points)] for candidate in picked], [c >= len(points) for c in picked]
    laid = _numbered(runs, branched, trained, trunks_open)
    return Design(
        kind="information",
        points=priced(laid, 1.0 if cooldown is None else cooldown, trained),
        tokens_per_param_centre=centre,
        global_batch_tokens=family.global_batch_tokens,
    )


def _candidates(family: Family, budget: float, price: Cost, centre: float, limits: Limits) -> Iterator[DesignPoint]:
    """Sizes of the dial, and for each token counts of whole batches, a factor of 1.25 apart."""
    batch, largest = family.global_batch_tokens, limits.largest_share * budget
    size = max(limits.smallest_params, float(family.count(family.least()).total))
    seen: set[ModelShape] = set()
    while True:
        shape = family.shape(size)
        params = family.count(shape).total
        enough = limits.smallest_share * budget / price(shape, batch) * batch
        shortest = max(limits.fewest_steps * batch, centre / limits.ratio_reach * params, enough)
        fewest = math.ceil(shortest / batch) * batch
        if price(shape, fewest) > largest:
            return
        size *= _SIZE_STEP
        if shape in seen or params < limits.smallest_params:
            continue
        seen.add(shape)
        # The longest that may be is a candidate itself; the others are laid out downwards from it.
        longest = min(fewest * largest / price(shape, fewest), centre * limits.ratio_reach * params)
        steps_before = math.inf
        for power in range(200):
            steps = math.floor(longest / _TOKEN_STEP**power / batch)
            if steps * batch < fewest:
                break
            if steps < steps_before and price(shape, steps * batch) <= largest:
                steps_before = steps
                if limits.admissible is None or limits.admissible(shape, steps * batch):
                    yield family.run(shape, steps * batch)


def _study(
    points: Sequence[DesignPoint],
    prior: LawPrior,
    target_flops: float,
    noise: float,
    drift: DriftPrior | None,
    centre: float,
) -> LinearStudy:
    taus: list[tuple[float, float, float]] = [(0.0, 0.0, 1.0 if drift is None else 1 - _DRIFT_WEIGHT)]
    if drift is not None:
        taus.append((*_drift_to_bear(drift), _DRIFT_WEIGHT))
    return linear_study(
        prior,
        points,
        target_flops=target_flops,
        noise=noise,
        taus=tuple(taus),
        excess_share=0.0 if drift is None else drift.excess_share,
        origin_ratio=centre,
    )


def _table(
    points: Sequence[DesignPoint], given: int, price: Cost, cooldown: float | None, trunks_open: bool
) -> Candidates:
    cost_C = np.array([price(point.shape, point.tokens) for point in points])
    # A trunk that is there already is carried on; a size without one would begin its first.
    trunks: dict[tuple[ModelShape, int | None], int] = {}
    existing = {point.shape: point.replicate for point in points[:given] if point.branched and trunks_open}
    numbers = [
        trunks.setdefault((p.shape, p.replicate if place < given else existing.get(p.shape)), len(trunks))
        for place, p in enumerate(points)
    ]
    fresh_C = np.arange(len(points)) >= given
    return Candidates(
        cost_C=cost_C,
        cooldown_cost_C=cost_C * (1.0 if cooldown is None else cooldown),
        trunk_C=np.array(numbers),
        usable_2C=np.concatenate((fresh_C, fresh_C & (cooldown is not None))),
        trunk_share=SHARED_VARIANCE,
    )


def _best(
    study: LinearStudy,
    table: Candidates,
    weight_Q: FloatArray,
    points: Sequence[DesignPoint],
    given: int,
    budget: float,
    most_runs: int,
    replicates: int,
) -> Choice:
    """The best of three greedy choices, its runs exchanged; with as many replicates as were asked for."""
    there = [place + len(points) * points[place].branched for place in range(given)]

    def best(budget: float, most: int) -> Choice:
        tried = []
        for thrift in _THRIFTS:
            choice = Choice(study, table, weight_Q, list(there))
            choice.fill(budget, most, thrift)
            choice.exchange(budget, most, thrift, _PASSES)
            tried.append(choice)
        return min(tried, key=Choice.criterion)

    choice = best(budget, most_runs)
    if _repeats(choice) >= replicates or most_runs <= replicates:
        return choice
    # Too few came of themselves: a share of the budget is set aside for them.
    choice = best(budget * (1 - _REPLICATE_SHARE), most_runs - replicates)
    while _repeats(choice) < replicates:
        left = (budget - choice.cost()) / (replicates - _repeats(choice))
        alone = sorted({candidate % len(points) for candidate in choice.chosen[choice.given :]})
        cost_A, gain_A = table.cost_C[alone], choice.gains()[alone]
        fits_A = cost_A <= left
        if not fits_A.any():
            break
        choice.add(alone[int(np.argmax(np.where(fits_A, gain_A, -math.inf)))])
    return choice


def _repeats(choice: Choice) -> int:
    """Chosen runs that have the size and the tokens of another."""
    runs = [candidate % choice.study.noise_KC.shape[1] for candidate in choice.chosen]
    return len(runs) - len(set(runs))


def _numbered(
    chosen: Sequence[DesignPoint], branched: Sequence[bool], trained: Sequence[DesignPoint], trunks_open: bool
) -> list[DesignPoint]:
    """Each run with its replicate: a trunk's branches share one, every other run of a size has a seed of its own."""
    next_seed = {
        shape: max(p.replicate for p in trained if p.shape == shape) + 1 for shape in {p.shape for p in trained}
    }
    trunk_seed = {point.shape: point.replicate for point in trained if point.branched and trunks_open}

    def seed(shape: ModelShape) -> int:
        next_seed[shape] = next_seed.get(shape, 0) + 1
        return next_seed[shape] - 1

    numbered = []
    for point, branch in zip(chosen, branched, strict=True):
        if branch and point.shape not in trunk_seed:
            trunk_seed[point.shape] = seed(point.shape)
        replicate = trunk_seed[point.shape] if branch else seed(point.shape)
        numbered.append(point.model_copy(update={"branched": branch, "replicate": replicate}))
    return sorted(numbered, key=lambda p: (p.params.total, p.replicate, p.tokens))
