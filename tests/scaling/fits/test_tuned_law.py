"""Laws through all cells at once: made-up valleys whose bottoms are known, and what can't be known."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from scaling.fits.tuned_law import TunedTrial, fit_tuned_law
from scaling.hyperparameters import tuned_rate

CELLS = [(n, n * ratio) for n in (1e5, 3e5, 9e5) for ratio in (10.0, 30.0)]
RATE, BATCH = "learning_rate", "global_batch_tokens"


def best(n: float, d: float) -> tuple[float, float]:
    return 0.01 * (n / 3e5) ** -0.4 * (d / 6e6) ** 0.1, 512 * (d / 6e6) ** 0.5


def trials(
    seed: int = 0, each: int = 20, noise: float = 0.0, cells: Sequence[tuple[float, float]] = CELLS, off: float = 1.0
) -> list[TunedTrial]:
    """Rates and batches within a factor of four and a half of ``off`` times the best, by chance."""
    rng, made = np.random.default_rng(seed), []
    for n, d in cells:
        for _ in range(each):
            u, v = rng.uniform(-1.5, 1.5, 2) + math.log(off)
            loss = 3.0 * math.exp(0.01 * u * u + 0.004 * v * v - 0.003 * u * v + 0.001 * u**3 + noise * rng.normal())
            rate, batch = best(n, d)
            values = {RATE: rate * math.exp(u), BATCH: batch * math.exp(v)}
            made.append(TunedTrial(params=n, tokens=d, values=values, loss=loss))
    return made


def test_the_true_law_comes_back_from_exact_losses() -> None:
    law = fit_tuned_law(trials())
    assert law.status == "ok"
    rate, batch = law.hyperparameters
    assert rate.params_exponent.estimate == pytest.approx(-0.4, abs=1e-6)
    assert rate.tokens_exponent.estimate == pytest.approx(0.1, abs=1e-6)
    assert batch.tokens_exponent.estimate == pytest.approx(0.5, abs=1e-6)
    assert law.at(1e8, 2e9) == pytest.approx(dict(zip((RATE, BATCH), best(1e8, 2e9), strict=True)), rel=1e-4)
    assert law.excess({RATE: 2.0}) == pytest.approx(math.expm1(0.01 * math.log(2) ** 2 + 0.001 * math.log(2) ** 3))
    assert rate.double_costs > rate.half_costs, "the valley is steeper above its bottom"
    assert all(cell.floor == pytest.approx(3.0) for cell in law.cells)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """90% intervals of the rate at a size ten times the largest, over noisy trials."""
    held = total = 0
    for seed in range(25):
        law = fit_tuned_law(trials(seed, noise=0.001))
        if law.status == "ok":
            interval, total = law.predict(9e6, 2e8)[RATE], total + 1
            held += (interval.low or 0) <= best(9e6, 2e8)[0] <= (interval.high or 0)
    assert total >= 20
    assert held / total >= 0.72


def test_what_diverged_or_was_pruned_is_no_part_of_it() -> None:
    known = trials()
    lost = [TunedTrial(params=1e5, tokens=1e6, values={RATE: 0.5, BATCH: 64}, loss=None, state="diverged")] * 5
    assert fit_tuned_law(known + lost).coefficients == fit_tuned_law(known).coefficients


@pytest.mark.parametrize(
    ("given", "status", "said"),
    [
        (trials(cells=CELLS[:3]), "too few", "3 sizes and lengths have finished trials and 4 are needed"),
        (trials(cells=[(n, 20 * n) for n in (1e5, 2e5, 4e5, 8e5)]), "together", "set tune.lengths"),
        (trials(off=8.0), "edge", "the best learning_rate lies below all that were tried at 6 of 6"),
        (trials(each=3), "curvature", "raise tune.trials"),
        ([], "too few", "0 sizes"),
    ],
)
def test_it_is_refused_with_the_reason(given: list[TunedTrial], status: str, said: str) -> None:
    law = fit_tuned_law(given)
    assert law.status == status
    assert said in (law.reason or "")


def test_a_hyperparameter_that_is_no_law_of_size_has_one_best_value() -> None:
    rng, made = np.random.default_rng(3), []
    for trial in trials(each=30):
        w = rng.uniform(-1, 1)
        values = {RATE: trial.values[RATE], "weight_decay": 0.1 * math.exp(w)}
        loss = 3.0 * math.exp(0.01 * math.log(values[RATE] / best(trial.params, trial.tokens)[0]) ** 2 + 0.005 * w * w)
        made.append(trial.model_copy(update={"values": values, "loss": loss}))
    law = fit_tuned_law(made)
    assert law.status == "ok"
    assert law.at(1e5, 1e6)["weight_decay"] == pytest.approx(law.at(1e9, 1e12)["weight_decay"]) == pytest.approx(0.1)


def test_the_rate_law_of_a_study_says_what_was_tuned() -> None:
    law = fit_tuned_law(trials(noise=0.0005))
    rates = tuned_rate(law)
    assert rates.rate(1e7, 2e8) == law.at(1e7, 2e8)[RATE]
    assert rates.rate_interval(1e7, 2e8) == law.predict(1e7, 2e8)[RATE]
    assert type(rates).model_validate_json(rates.model_dump_json()) == rates
