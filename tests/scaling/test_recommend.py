from __future__ import annotations

import math
from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling import architectures
from scaling.allocation.surface import LossSurface
from scaling.errors import UserError
from scaling.fit import Fit, IsoflopFit, ParametricFit
from scaling.hyperparameters import fixed_rate
from scaling.laws.chinchilla import CHINCHILLA
from scaling.laws.power_lines import WeightDecay, adamw_timescale
from scaling.limits import Limits
from scaling.published import optimum
from scaling.recommend import recommend
from scaling.recommendation import Recommendation
from scaling.record import Interval
from scaling.risk import risk_of_being_worse
from scaling.run_spec import Parametrisation
from scaling.rungs import rung_budgets
from scaling.study_context import StudyContext

from .conftest import counted_as


def _exact(fit: Fit) -> Fit:
    return counted_as(fit, flops_convention="exact")


def test_the_recommended_run_recovers_the_truth_at_a_hundred_times_the_sweep(
    lab_fit: Fit, lab_truth: np.ndarray
) -> None:
    flops = 100 * lab_fit.fitted_range.flops[1]
    made = recommend(lab_fit, flops=flops)
    params, tokens = (float(value) for value in CHINCHILLA.optimum(lab_truth, flops))
    loss = float(CHINCHILLA.predict(lab_truth, params, tokens))
    assert made.loss is not None
    for interval, truth in ((made.params, params), (made.tokens, tokens), (made.loss, loss)):
        assert interval.low is not None and interval.high is not None
        assert interval.low <= truth <= interval.high
    assert made.loss.estimate == pytest.approx(loss, rel=0.02)
    assert made.extrapolation_orders == pytest.approx(2)
    assert not made.illustration


@settings(max_examples=12)
@given(log_flops=st.floats(min_value=18, max_value=26), exact=st.booleans())
def test_the_chosen_shape_and_tokens_cost_the_target(lab_fit: Fit, log_flops: float, exact: bool) -> None:
    made = recommend(_exact(lab_fit) if exact else lab_fit, flops=10**log_flops)
    model = architectures.get(made.shape.architecture)
    total = model.count_parameters(made.shape).total
    assert total == pytest.approx(made.params.estimate, rel=0.2)
    per_token = model.training_flops_per_token(made.shape) if exact else 6 * total
    assert per_token * made.tokens.estimate == pytest.approx(made.flops, rel=0.2)
    assert made.global_batch_tokens % made.shape.context == 0


@pytest.mark.parametrize("flops", [1e14, 1e18, 1e22])
def test_a_studys_run_is_ready_to_train_and_costs_the_target_exactly(
    laptop_fit: Fit, study_context: StudyContext, flops: float
) -> None:
    made = recommend(_exact(laptop_fit), flops=flops, study="quickstart", context=study_context)
    assert made.run is not None
    assert (made.run.shape, made.run.data_key, made.run.held_out_tokens) == (made.shape, "d" * 64, 65_536)
    cost = made.run.tokens * architectures.get("llama").training_flops_per_token(made.run.shape)
    assert cost == pytest.approx(flops, rel=0.01)
    assert made.run.schedule.warmup_tokens == made.warmup_tokens
    assert made.run.schedule.cooldown_tokens == pytest.approx(0.2 * made.run.tokens, rel=0.01)
    assert made.run.optimizer.learning_rate == pytest.approx(made.learning_rate.estimate, rel=1e-4)


def test_bits_per_byte_are_nats_over_bytes_and_ln_2(laptop_fit: Fit, study_context: StudyContext) -> None:
    made = recommend(laptop_fit, flops=1e14, context=study_context)
    assert made.loss is not None and made.bits_per_byte is not None
    assert made.bits_per_byte.estimate == pytest.approx(made.loss.estimate / 2.9 / math.log(2))
    assert recommend(laptop_fit, flops=1e14).bits_per_byte is None


def test_a_target_in_gpus_and_days_is_the_compute_they_deliver(lab_fit: Fit) -> None:
    made = recommend(lab_fit, gpus=64, days=7, accelerator="h100", mfu=0.4, price=2.5)
    assert made.flops == pytest.approx(64 * 7 * 86_400 * 989e12 * 0.4)
    assert made.cluster is not None
    assert made.cluster.days.estimate == pytest.approx(7)
    assert made.cluster.usd.estimate == pytest.approx(64 * 7 * 24 * 2.5)
    assert made.post_training[0].usd is not None


def test_without_gpus_as_many_as_finish_in_a_month_are_quoted_and_said(lab_fit: Fit) -> None:
    made = recommend(lab_fit, flops=1e24)
    assert made.cluster is not None
    assert 15 < made.cluster.days.estimate <= 30
    assert "power of two" in made.cluster.source
    given_gpus = recommend(lab_fit, flops=1e24, gpus=512).cluster
    assert given_gpus is not None
    assert given_gpus.gpus == 512 and "power of two" not in given_gpus.source


def test_beyond_three_orders_of_magnitude_it_is_an_illustration(lab_fit: Fit) -> None:
    largest = lab_fit.fitted_range.flops[1]
    assert not recommend(lab_fit, flops=999 * largest).illustration
    made = recommend(lab_fit, flops=1001 * largest)
    assert made.illustration
    assert any("not advice" in warning for warning in made.warnings)


def test_inside_the_runs_nothing_is_extrapolated(lab_fit: Fit) -> None:
    made = recommend(lab_fit, flops=lab_fit.fitted_range.flops[1] / 3)
    assert made.extrapolation_orders == 0
    assert made.warnings == ()


def test_the_literature_stands_beside_with_the_loss_that_this_fit_expects_of_it(lab_fit: Fit) -> None:
    made = recommend(lab_fit, flops=1e22)
    assert [other.name.split(" (")[0] for other in made.alternatives] == [
        "Chinchilla", "Chinchilla refitted", "Kaplan", "20 tokens a parameter", "Llama 3's recipe",
    ]  # fmt: skip
    assert made.loss is not None
    for other in made.alternatives:
        assert other.expected_loss is not None
        assert other.expected_loss.estimate > made.loss.estimate - 1e-3
    assert made.alternatives[1].params == pytest.approx(optimum("besiroglu", 1e22).params)
    # The runs were simulated from Besiroglu's law, which therefore costs least; Kaplan's allocation most.
    losses = [other.expected_loss.estimate for other in made.alternatives if other.expected_loss is not None]
    assert losses[1] == min(losses[:4]) and losses[2] == max(losses)


def test_a_corpus_too_small_for_the_run_is_said_in_passes(laptop_fit: Fit, study_context: StudyContext) -> None:
    made = recommend(laptop_fit, flops=1e16, context=study_context)
    passes = made.tokens.estimate / 5_000_000
    assert any(f"{passes:.3g} passes" in warning for warning in made.warnings)
    roomy = recommend(laptop_fit, flops=1e16, context=study_context.model_copy(update={"unique_tokens": 10**15}))
    assert not any("passes" in warning for warning in roomy.warnings)


def test_a_toy_vocabulary_on_a_large_model_and_an_unprobed_rate_are_warned_of(
    laptop_fit: Fit, study_context: StudyContext
) -> None:
    large = recommend(
        laptop_fit, flops=1e23, context=study_context.model_copy(update={"learning_rate_law": fixed_rate(4e-3)})
    )
    assert any("vocabulary of 1,024" in warning for warning in large.warnings)
    assert any("one number for all sizes" in warning for warning in large.warnings)
    assert large.learning_rate.low is not None and large.learning_rate.low < 4e-4
    small = recommend(laptop_fit, flops=1e14, context=study_context)
    assert not any("vocabulary" in warning or "one number" in warning for warning in small.warnings)


def test_under_mup_the_run_carries_the_base_and_later_stages_the_rate_of_its_matrices(
    laptop_fit: Fit, study_context: StudyContext
) -> None:
    mup = Parametrisation(name="mup", base_width=32)
    timescale = WeightDecay(timescale=0.2)
    carried = {
        "parametrisation": mup,
        "learning_rate_law": fixed_rate(1e-2, mup),
        "weight_decay": timescale,
    }
    made = recommend(laptop_fit, flops=1e16, context=study_context.model_copy(update=carried))
    assert made.run is not None
    assert made.run.parametrisation == mup
    assert made.run.optimizer.learning_rate == 1e-2
    tau = adamw_timescale(
        made.run.global_batch_tokens, 1e-2, made.run.optimizer.weight_decay, made.run.tokens
    )  # fmt: skip
    assert tau == pytest.approx(0.2, rel=1e-5)
    assert not any("one number for all sizes" in warning for warning in made.warnings)
    assert f"matrices of this run learn at {1e-2 * 32 / made.shape.width:.2g}" in made.hyperparameter_basis
    plain = recommend(
        laptop_fit, flops=1e16, context=study_context.model_copy(update={"learning_rate_law": fixed_rate(1e-2)})
    )
    ratio = made.post_training[0].learning_rate / plain.post_training[0].learning_rate
    assert ratio == pytest.approx(32 / made.shape.width, rel=0.1)


def test_tokens_a_parameter_outside_the_fitted_ones_are_warned_of(lab_fit: Fit) -> None:
    narrow = lab_fit.fitted_range.model_copy(update={"tokens_per_param": (90.0, 110.0)})
    made = recommend(lab_fit.model_copy(update={"fitted_range": narrow}), flops=1e20)
    assert any("outside the fitted runs' 90 to 110" in warning for warning in made.warnings)


def test_a_refused_law_leaves_the_answer_to_the_lines_and_says_so(lab_fit: Fit) -> None:
    refused = ParametricFit(status="refused", reason="every run has 20 tokens a parameter")
    made = recommend(lab_fit.model_copy(update={"parametric": refused}), flops=1e22)
    assert made.estimator == "isoflop"
    assert (made.loss, made.flat_region) == (None, None)
    assert all(other.expected_loss is None for other in made.alternatives)
    assert any("20 tokens a parameter" in warning for warning in made.warnings)


def test_estimators_that_disagree_are_warned_of(lab_fit: Fit) -> None:
    isoflop = lab_fit.isoflop
    assert isoflop.n_coefficient is not None
    moved = Interval(estimate=isoflop.n_coefficient.estimate * 5, low=None, high=None)
    made = recommend(
        lab_fit.model_copy(update={"isoflop": isoflop.model_copy(update={"n_coefficient": moved})}), flops=1e20
    )
    assert any("estimators disagree" in warning for warning in made.warnings)
    assert not any("estimators disagree" in warning for warning in recommend(lab_fit, flops=1e20).warnings)


def test_a_fit_that_supports_nothing_gives_its_reasons(lab_fit: Fit) -> None:
    nothing = lab_fit.model_copy(
        update={
            "parametric": ParametricFit(status="refused", reason="too few runs"),
            "isoflop": IsoflopFit(status="refused", reason="one budget"),
        }
    )
    with pytest.raises(UserError, match=r"too few runs.*one budget"):
        recommend(nothing, flops=1e21)


@pytest.mark.parametrize(
    ("target", "named"),
    [
        ({}, "exactly one"),
        ({"flops": 1e21, "days": 7.0, "gpus": 8}, "exactly one"),
        ({"gpus": 8}, "exactly one"),
        ({"days": 7.0}, "days needs gpus"),
        ({"loss": 2.0, "usd": 1e6}, "exactly one"),
        ({"by": date(2026, 12, 1)}, "by needs gpus"),
        ({"by": date(2001, 1, 1), "gpus": 8}, "give a later date"),
        ({"usd": -5.0}, "usd is -5"),
        ({"usd": 1e6, "price": 0.0}, "price is 0"),
        ({"loss": 0.5}, "no run within"),
        ({"loss": -1.0}, "loss is -1"),
        ({"flops": 1e21, "pick": "serving"}, "needs serve_tokens"),
        ({"flops": -1.0}, "flops is -1"),
        ({"flops": math.nan}, "flops is nan"),
        ({"flops": math.inf}, "flops is inf"),
        ({"gpus": 0, "days": 7.0}, "gpus is 0"),
        ({"flops": 1e21, "gpus": 0}, "gpus is 0"),
        ({"flops": 1e21, "accelerator": "abacus"}, "abacus"),
        ({"flops": 1e21, "mfu": 2.0}, "mfu is 2"),
        ({"flops": 1e21, "price": -2.0}, "price is -2"),
    ],
)
def test_a_wrong_target_is_one_line_of_advice(lab_fit: Fit, target: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named) as caught:
        recommend(lab_fit, **target)
    assert "\n" not in str(caught.value)


def test_a_target_smaller_than_the_family_is_refused(laptop_fit: Fit, study_context: StudyContext) -> None:
    with pytest.raises(UserError, match="vocabulary"):
        recommend(laptop_fit, flops=1e9, context=study_context.model_copy(update={"vocabulary": 128_256}))


@pytest.mark.parametrize("convention", ["nonembedding", "with-head"])
def test_a_fit_in_other_parameters_still_gives_a_shape_of_that_size(lab_fit: Fit, convention: str) -> None:
    made = recommend(counted_as(lab_fit, params_convention=convention), flops=1e20)
    counts = architectures.get("llama").count_parameters(made.shape)
    by_name = {"nonembedding": counts.nonembedding, "with-head": counts.with_head}
    assert by_name[convention] == pytest.approx(made.params.estimate, rel=0.15)


def test_the_answer_is_the_same_every_time_and_survives_its_json(laptop_fit: Fit, study_context: StudyContext) -> None:
    first, second = (recommend(laptop_fit, flops=1e16, context=study_context) for _ in range(2))
    assert first == second
    assert Recommendation.model_validate_json(first.model_dump_json()) == first


def test_dollars_a_date_and_a_loss_come_to_the_same_run_as_their_flops(lab_fit: Fit, lab_truth: np.ndarray) -> None:
    by_usd = recommend(lab_fit, usd=1e6, price=2.0, mfu=0.4)
    assert by_usd.flops == pytest.approx(1e6 / 2 * 3600 * 989e12 * 0.4)
    assert by_usd.cluster is not None and by_usd.cluster.usd.estimate == pytest.approx(1e6)
    until = recommend(lab_fit, gpus=64, by=date.today() + timedelta(days=7))
    assert until.flops == pytest.approx(recommend(lab_fit, gpus=64, days=7).flops)
    assert until.target is not None and "until" in until.target.asked
    flops = 50 * lab_fit.fitted_range.flops[1]
    wanted = float(CHINCHILLA.predict(lab_truth, *(float(v) for v in CHINCHILLA.optimum(lab_truth, flops))))
    reached = recommend(lab_fit, loss=wanted)
    assert reached.target is not None and reached.target.interval is not None
    low, high = reached.target.interval.low, reached.target.interval.high
    assert low is not None and high is not None and low <= flops <= high
    assert reached.loss is not None and reached.loss.estimate == pytest.approx(wanted, rel=0.01)


@pytest.mark.parametrize(
    ("limits", "most"),
    [
        ({"max_params": 3e9}, 3e9),
        ({"serve_memory_gib": 24.0}, 24 * 2**30 / 2),
        ({"serve_memory_gib": 24.0, "serve_bits": 4.0}, 24 * 2**30 * 2),
        ({"max_ms_per_token": 5.0}, 5e-3 * 3.35e12 * 0.6 / 2),
        ({"max_usd_per_million": 0.02}, 0.02 / 2.0 * 3600 * 989e12 * 0.2 / 2e6),
        ({"max_params": 5e9, "serve_memory_gib": 6.0}, 6 * 2**30 / 2),
    ],
)
def test_a_limit_on_size_holds_and_the_rest_of_the_compute_goes_into_tokens(
    lab_fit: Fit, limits: dict[str, float], most: float
) -> None:
    free = recommend(lab_fit, flops=1e24, price=2.0)
    held = recommend(lab_fit, flops=1e24, price=2.0, limits=Limits(**limits))
    if most >= free.params.estimate:
        assert (held.params, held.reasons) == (free.params, ())
        return
    assert held.params.estimate == pytest.approx(most, rel=0.01)
    assert held.flops == free.flops and held.tokens.estimate > free.tokens.estimate
    assert held.loss is not None and free.loss is not None and held.loss.estimate > free.loss.estimate
    assert len(held.reasons) == 1 and "is held to" in held.reasons[0]


def test_scarce_text_is_repeated_by_a_smaller_model_and_costs_loss(lab_fit: Fit) -> None:
    free = recommend(lab_fit, flops=1e23)
    unique = free.tokens.estimate / 8
    scarce = recommend(lab_fit, flops=1e23, limits=Limits(unique_tokens=unique))
    assert scarce.limited is not None and scarce.limited.epochs.estimate > 2
    assert scarce.loss is not None and free.loss is not None
    # The loss is forecast by the law and its drift at the tokens' worth; the optimum by the law alone.
    assert scarce.loss.estimate == pytest.approx(scarce.limited.loss.estimate, rel=0.04)
    assert scarce.loss.estimate > free.loss.estimate
    plenty = recommend(lab_fit, flops=1e23, limits=Limits(unique_tokens=100 * free.tokens.estimate))
    assert (plenty.params, plenty.limited) == (free.params, None)


def test_a_served_model_stands_beside_and_is_the_run_where_it_is_picked(lab_fit: Fit) -> None:
    limits = Limits(serve_tokens=1e13)
    beside = recommend(lab_fit, flops=1e23, limits=limits)
    plain = recommend(lab_fit, flops=1e23)
    assert beside.serving is not None and beside.params == plain.params
    picked = recommend(lab_fit, flops=1e23, limits=limits, pick="serving")
    assert picked.params == beside.serving.params and picked.params.estimate < plain.params.estimate
    assert picked.flops > plain.flops
    assert picked.loss is not None and plain.loss is not None
    assert picked.loss.estimate == pytest.approx(plain.loss.estimate, rel=0.01)


def test_the_risk_of_being_worse_is_small_against_a_bad_law_and_even_against_oneself(lab_fit: Fit) -> None:
    made = recommend(lab_fit, flops=1e22)
    by_name = {other.name.split(" (")[0]: other.risk for other in made.alternatives}
    kaplan = by_name["Kaplan"]
    assert kaplan is not None and kaplan.worse < 0.1 and kaplan.saved.estimate > 0
    assert all(risk is not None and 0 <= risk.worse <= 1 for risk in by_name.values())
    surface = LossSurface.of(lab_fit)
    own = risk_of_being_worse(surface, (1e9, 2e10), (1e9, 2e10))
    assert (own.worse, own.saved.estimate) == (0.0, 0.0)
    assert risk_of_being_worse(surface, (1e9, 1e10), (1e9, 2e10)).worse == 1.0


@given(largest=st.floats(1e12, 1e22), ratio=st.floats(1e-2, 1e6))
def test_rungs_climb_evenly_to_the_middle_and_cost_a_part(largest: float, ratio: float) -> None:
    budgets = rung_budgets(largest, ratio * largest)
    if ratio <= 10:
        assert budgets == ()
        return
    assert len(budgets) == 3
    steps = np.diff(np.log([largest, *budgets]))
    assert steps == pytest.approx(np.full(3, math.log(ratio) / 6))
    assert budgets[-1] == pytest.approx(largest * math.sqrt(ratio))
    assert sum(budgets) / (ratio * largest) < 1


def test_a_rung_has_none_of_its_own_and_the_final_run_has_three_with_their_losses(lab_fit: Fit) -> None:
    flops = 300 * lab_fit.fitted_range.flops[1]
    final = recommend(lab_fit, flops=flops)
    assert [rung.share for rung in final.rungs] == sorted(rung.share for rung in final.rungs)
    assert all(rung.loss is not None and rung.loss.low is not None for rung in final.rungs)
    rung = recommend(lab_fit, flops=final.rungs[0].flops, stage="rung")
    assert (rung.stage, rung.rungs) == ("rung", ())
    assert rung.params.estimate == pytest.approx(final.rungs[0].params, rel=0.01)


def test_the_sweep_is_weighed_and_a_wide_answer_names_runs_that_would_narrow_it(lab_fit: Fit) -> None:
    near = recommend(lab_fit, flops=2 * lab_fit.fitted_range.flops[1])
    assert near.sweep is not None and near.sweep.stop_at_flops > 0
    far = recommend(lab_fit, flops=1e7 * lab_fit.fitted_range.flops[1])
    assert far.params.low is not None and far.params.high is not None
    if far.params.high / far.params.low > 4:
        assert len(far.measure_next) == 3
        worths = [run.flop_worth for run in far.measure_next]
        assert worths == sorted(worths, reverse=True)
    assert near.measure_next == () or (near.params.high or 0) / (near.params.low or 1) > 4
