from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling import architectures
from scaling.errors import UserError
from scaling.fit import Fit, IsoflopFit, ParametricFit
from scaling.hyperparameters import fixed_rate
from scaling.laws.chinchilla import CHINCHILLA
from scaling.laws.power_lines import WeightDecay, adamw_timescale
from scaling.published import optimum
from scaling.recommend import recommend
from scaling.recommendation import Recommendation
from scaling.record import Interval
from scaling.run_spec import Parametrisation
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


@settings(deadline=None, max_examples=12)
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
        "Chinchilla", "Chinchilla refitted", "Kaplan", "20 tokens a parameter",
    ]  # fmt: skip
    assert made.loss is not None
    for other in made.alternatives:
        assert other.expected_loss is not None
        assert other.expected_loss.estimate > made.loss.estimate - 1e-3
    assert made.alternatives[1].params == pytest.approx(optimum("besiroglu", 1e22).params)
    # The runs were simulated from Besiroglu's law, which therefore costs least; Kaplan's allocation most.
    losses = [other.expected_loss.estimate for other in made.alternatives if other.expected_loss is not None]
    assert losses[1] == min(losses) and losses[2] == max(losses)


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
        ({"days": 7.0}, "exactly one"),
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
