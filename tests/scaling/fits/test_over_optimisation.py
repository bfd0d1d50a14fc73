"""Over-optimisation: known truth comes back, intervals over seeds hold it, and what cannot be seen is refused."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling import fit_law
from scaling.errors import UserError
from scaling.fits.bootstrap import draw_jackknife
from scaling.fits.over_optimisation import (
    OverOptimisationFit,
    fit_coefficient_scaling,
    fit_over_optimisation,
    law_of_method,
)
from scaling.laws.over_optimisation import OVER_OPTIMISATION_BEST_OF_N, OVER_OPTIMISATION_RL, OverOptimisation

TRUTH = np.array([0.2, 0.6, 0.35])
KL = np.append(0.0, np.geomspace(0.05, 60, 14))
FORMS = [OVER_OPTIMISATION_BEST_OF_N, OVER_OPTIMISATION_RL]


def curves(
    law: OverOptimisation, *, seeds: int = 3, noise: float = 0.01, between: float = 0.04, rng: int = 0,
    kl: np.ndarray = KL, truth: np.ndarray = TRUTH,
) -> pd.DataFrame:  # fmt: skip
    """Gold by the law, with constants that differ between seeds; the proxy a line in √KL."""
    random, rows = np.random.default_rng(rng), []
    for seed in range(seeds):
        own = truth + between * np.array([0.0, 1.0, 0.5]) * random.standard_normal(3)
        gold = law.predict(own, np.maximum(kl, 1e-12)) + noise * random.standard_normal(len(kl))
        proxy = truth[0] + 0.7 * np.sqrt(kl) + noise * random.standard_normal(len(kl))
        rows.append(pd.DataFrame({"kl_nats": kl, "gold": gold, "proxy": proxy, "seed": seed}))
    return pd.concat(rows, ignore_index=True)


@pytest.mark.parametrize("law", FORMS)
def test_noiseless_curves_give_the_truth_and_its_peak(law: OverOptimisation) -> None:
    found = fit_over_optimisation(curves(law, noise=0, between=0), law, bootstrap=50)
    assert found.gold is not None and found.proxy is not None
    assert [interval.estimate for interval in found.gold.parameters.values()] == pytest.approx(list(TRUTH), abs=1e-8)
    peak = {"over-optimisation-best-of-n": 0.6 / 0.7, "over-optimisation-rl": math.exp(0.6 / 0.35 - 1)}[law.name]
    assert found.peak_sqrt_kl.value is not None and found.peak_gold.value is not None
    assert found.peak_sqrt_kl.value.estimate == pytest.approx(peak, rel=1e-6)
    top = {"over-optimisation-best-of-n": 0.6**2 / (4 * 0.35), "over-optimisation-rl": 0.35 * peak}[law.name]
    assert found.gain_at_peak.value is not None
    assert found.gain_at_peak.value.estimate == pytest.approx(top, rel=1e-6)
    assert found.peak_gold.value.estimate == pytest.approx(0.2 + top, rel=1e-6)
    back = {"over-optimisation-best-of-n": 0.6 / 0.35, "over-optimisation-rl": math.exp(0.6 / 0.35)}[law.name]
    assert found.return_kl_nats.value is not None
    assert found.return_kl_nats.value.estimate == pytest.approx(back**2, rel=1e-6)
    assert found.gap_at_peak.value is not None
    if law is OVER_OPTIMISATION_BEST_OF_N:  # in which the proxy's line is exact
        assert found.gap_at_peak.value.estimate == pytest.approx(0.7 * peak - top, rel=1e-6)


@given(alpha=st.floats(0.05, 3), beta=st.floats(0.05, 2), form=st.sampled_from(FORMS))
@settings(max_examples=60)
def test_no_distance_scores_above_the_peak_and_the_start_is_where_it_returns(
    alpha: float, beta: float, form: OverOptimisation
) -> None:
    theta = np.array([0.4, alpha, beta])
    peak, back = float(form.peak(theta)), float(form.returns(theta))
    assert peak < back
    if back > 1e6:
        return
    best = float(form.predict(theta, peak**2))
    around = form.predict(theta, (peak * np.geomspace(0.2, 5, 41)) ** 2)
    assert (around <= best + 1e-9 * max(1, abs(best))).all()
    assert float(form.predict(theta, back**2)) == pytest.approx(0.4, abs=1e-6 * max(1.0, alpha * back))


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5])
def test_intervals_over_seeds_hold_the_truth_as_often_as_they_say(seeds: int) -> None:
    """90% nominal over 200 studies of reinforcement learning whose constants differ between seeds."""
    law, hits = OVER_OPTIMISATION_RL, []
    truths = (float(law.peak(TRUTH)) ** 2, float(law.predict(TRUTH, law.peak(TRUTH) ** 2)))
    for study in range(200):
        found = fit_over_optimisation(
            curves(law, seeds=seeds, rng=study).drop(columns="proxy"), law, bootstrap=400, seed=study
        )
        told = [found.peak_kl_nats.value, found.peak_gold.value]
        assert found.gold is not None
        told += [found.gold.parameters["alpha"], found.gold.parameters["beta"]]
        inside = [
            value is not None and (value.low or 0) <= truth <= (math.inf if value.high is None else value.high)
            for value, truth in zip(told, (*truths, TRUTH[1], TRUTH[2]), strict=True)
        ]
        hits.append(inside)
    assert np.mean(hits, axis=0) == pytest.approx(0.9, abs=0.06)


def test_leaving_out_clusters_of_one_design_is_the_t_interval_of_their_own_estimates() -> None:
    data = curves(OVER_OPTIMISATION_RL, seeds=4, rng=5)
    found = fit_over_optimisation(data, OVER_OPTIMISATION_RL, bootstrap=50_000)
    assert found.gold is not None
    own = [
        fit_law(OVER_OPTIMISATION_RL, one.assign(kl_nats=np.maximum(one["kl_nats"], 1e-12)), value="gold",
                huber_delta=math.inf, bootstrap=0).parameters["alpha"].estimate
        for _, one in data.groupby("seed")
    ]  # fmt: skip
    half = 2.3534 * np.std(own, ddof=1) / 2  # t of 3 degrees of freedom at 0.95, over the root of 4 seeds
    alpha = found.gold.parameters["alpha"]
    assert alpha.estimate == pytest.approx(np.mean(own), abs=1e-6)
    assert alpha.low is not None and alpha.high is not None
    assert alpha.high - alpha.low == pytest.approx(2 * half, rel=0.05)


def test_draws_of_the_jackknife_have_its_covariance() -> None:
    rng = np.random.default_rng(0)
    left_out = rng.standard_normal((30, 2)) @ np.array([[1.0, 0.5], [0.0, 0.3]])
    draws = draw_jackknife(np.array([3.0, -1.0]), left_out, 200_000, rng)
    wanted = 29 / 30 * (left_out - left_out.mean(0)).T @ (left_out - left_out.mean(0))
    assert np.cov(draws.T) == pytest.approx(wanted * 29 / 27, rel=0.03)  # the variance of t with 29 degrees
    assert draws.mean(axis=0) == pytest.approx([3, -1], abs=0.05)


def test_one_cluster_can_not_be_left_out() -> None:
    data = curves(OVER_OPTIMISATION_RL, seeds=1, kl=KL[1:])
    with pytest.raises(UserError, match="'jackknife' was given one cluster"):
        fit_law("over-optimisation-rl", data, value="gold", resample="jackknife", clusters=data["seed"])


def refusal(found: OverOptimisationFit) -> str:
    assert found.peak_kl_nats.status == "refused" and found.peak_kl_nats.value is None
    return found.peak_kl_nats.reason or ""


def test_a_peak_beyond_the_measurements_is_refused_with_where_the_law_has_it() -> None:
    short = curves(OVER_OPTIMISATION_RL, kl=np.append(0.0, np.geomspace(0.05, 2, 8)))
    found = fit_over_optimisation(short, "over-optimisation-rl", bootstrap=50)
    assert found.status == "ok"
    assert "still rising at the largest KL measured, 2 nats" in refusal(found)
    assert found.gap_at_end.value is not None
    assert "refused: gold was still rising" in found.summary()


@pytest.mark.parametrize(
    ("truth", "says"),
    [
        ((0.2, 0.5, -0.05), "gold does not bend down up to 60 nats"),
        ((0.2, -0.5, 0.05), "gold falls from the first KL measured, 0.05 nats"),
    ],
)
def test_without_a_peak_the_reason_says_which_way_gold_goes(truth: tuple[float, ...], says: str) -> None:
    law = OVER_OPTIMISATION_BEST_OF_N
    data = curves(law, truth=np.array(truth), between=0)
    assert says in refusal(fit_over_optimisation(data, law, bootstrap=50))


def test_a_return_beyond_the_measurements_is_refused_alone() -> None:
    found = fit_over_optimisation(
        curves(OVER_OPTIMISATION_RL, kl=np.append(0.0, np.geomspace(0.05, 12, 10)), between=0.01),
        "over-optimisation-rl",
    )
    assert found.peak_kl_nats.status == "ok"
    assert "by the law it returns at" in (found.return_kl_nats.reason or "")


def test_too_few_or_too_close_divergences_are_refused() -> None:
    few = fit_over_optimisation(curves(OVER_OPTIMISATION_RL, kl=KL[:3]), "over-optimisation-rl")
    assert few.status == "refused" and "3 distinct divergences" in (few.reason or "")
    close = fit_over_optimisation(curves(OVER_OPTIMISATION_RL, kl=np.linspace(1, 2, 9)), "over-optimisation-rl")
    assert close.status == "refused" and "KL spans only 1 to 2 nats" in (close.reason or "")


def test_one_seed_is_told_and_a_form_that_fits_better_is_named() -> None:
    one = curves(OVER_OPTIMISATION_RL, seeds=1)
    found = fit_over_optimisation(one, "over-optimisation-best-of-n", bootstrap=50)
    assert {note.code for note in found.diagnostics} >= {"one-seed", "other-form"}
    right = fit_over_optimisation(one, "over-optimisation-rl", bootstrap=50)
    assert "other-form" not in {note.code for note in right.diagnostics}


def test_a_gap_needs_a_proxy_and_columns_may_have_other_names() -> None:
    data = curves(OVER_OPTIMISATION_RL).rename(columns={"kl_nats": "kl", "gold": "score"}).drop(columns="proxy")
    found = fit_over_optimisation(
        data, "over-optimisation-rl", columns={"kl_nats": "kl", "gold": "score"}, bootstrap=50
    )
    assert found.seeds == 3 and found.proxy is None
    assert found.gap_at_peak.reason == "no proxy scores were given"
    assert OverOptimisationFit.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"kl_nats": -0.1}, "row 1: kl_nats is -0.1; it must be zero or more"),
        ({"gold": math.nan}, "row 1: gold is nan"),
        ({"gold": "high"}, "column 'gold' holds something that is not a number"),
    ],
)
def test_a_wrong_value_is_one_line(change: dict[str, object], says: str) -> None:
    with pytest.raises(UserError, match=says):
        fit_over_optimisation(curves(OVER_OPTIMISATION_RL).assign(**change), "over-optimisation-rl")


def test_another_law_or_column_is_one_line() -> None:
    data = curves(OVER_OPTIMISATION_RL)
    with pytest.raises(UserError, match="law 'kaplan' is not of over-optimisation: choose over-optimisation-best-of-n"):
        fit_over_optimisation(data, "kaplan")
    with pytest.raises(UserError, match="data has no column 'gold'"):
        fit_over_optimisation(data.drop(columns="gold"), "over-optimisation-rl")
    assert law_of_method("best-of-n") is OVER_OPTIMISATION_BEST_OF_N
    assert law_of_method("ppo") is OVER_OPTIMISATION_RL


def test_coefficients_along_the_size_of_the_reward_model() -> None:
    """Alpha rises and beta falls by a known step for each e-fold."""
    sizes = (1e5, 1e6, 1e7, 1e8)
    law, fits = OVER_OPTIMISATION_BEST_OF_N, {}
    for index, size in enumerate(sizes):
        truth = np.array([0.0, 0.5 + 0.04 * math.log(size / 1e5), 0.2 - 0.01 * math.log(size / 1e5)])
        fits[size] = fit_over_optimisation(curves(law, truth=truth, between=0.005, rng=index), law, bootstrap=300)
    line = fit_coefficient_scaling(fits)
    for name, truth in (("alpha", 0.04), ("beta", -0.01)):
        slope = line.slope[name]
        assert slope.low is not None and slope.high is not None
        assert slope.low <= truth <= slope.high
        assert slope.estimate == pytest.approx(truth, abs=0.004)
    assert line.predict(1e9)["alpha"] == pytest.approx(0.5 + 0.04 * math.log(1e4), abs=0.03)
    with pytest.raises(UserError, match="2 sizes of reward model"):
        fit_coefficient_scaling({size: fits[size] for size in sizes[:2]})
