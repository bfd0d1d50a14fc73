from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling import architectures
from scaling.accounting import Accounting, counted
from scaling.allocation import allocate, flat_region
from scaling.architectures import llama
from scaling.errors import UserError
from scaling.fit import Fit, IsoflopFit, ParametricFit
from scaling.laws.chinchilla import CHINCHILLA
from scaling.shape import ModelShape

from .conftest import counted_as


def _without(fit: Fit, *parts: str) -> Fit:
    refused = {
        "parametric": ParametricFit(status="refused", reason="every run has 20 tokens a parameter"),
        "isoflop": IsoflopFit(status="refused", reason="no budget has four sizes"),
    }
    return fit.model_copy(update={part: refused[part] for part in parts})


@pytest.mark.parametrize("decades", [0.0, 1.0, 2.0, 3.0])
def test_the_interval_of_the_optimum_holds_the_truth(lab_fit: Fit, lab_truth: np.ndarray, decades: float) -> None:
    flops = lab_fit.fitted_range.flops[1] * 10**decades
    found = allocate(lab_fit, flops)
    params, tokens = (float(value) for value in CHINCHILLA.optimum(lab_truth, flops))
    assert found.estimator == "parametric"
    for interval, truth in ((found.params, params), (found.tokens, tokens), (found.tokens_per_param, tokens / params)):
        assert interval.low is not None and interval.high is not None
        assert interval.low <= truth <= interval.high
        assert interval.low <= interval.estimate <= interval.high


@settings(deadline=None, max_examples=20)
@given(log_flops=st.floats(min_value=17.5, max_value=26))
@pytest.mark.parametrize("estimator", ["parametric", "isoflop"])
def test_the_optimum_spends_the_whole_compute(lab_fit: Fit, estimator: str, log_flops: float) -> None:
    flops = 10**log_flops
    found = allocate(lab_fit, flops, "parametric" if estimator == "parametric" else "isoflop")
    assert 6 * found.params.estimate * found.tokens.estimate == pytest.approx(flops)
    assert found.tokens_per_param.estimate == pytest.approx(found.tokens.estimate / found.params.estimate)
    assert found.params.high is not None and found.tokens.low is not None
    assert 6 * found.params.high * found.tokens.low == pytest.approx(flops)


def test_intervals_widen_with_the_distance_from_the_runs(lab_fit: Fit) -> None:
    def width(flops: float) -> float:
        params = allocate(lab_fit, flops).params
        assert params.low is not None and params.high is not None
        return params.high / params.low

    largest = lab_fit.fitted_range.flops[1]
    assert width(largest) < width(1e2 * largest) < width(1e4 * largest)


def test_the_iso_flop_lines_answer_where_there_is_no_law(lab_fit: Fit) -> None:
    found = allocate(_without(lab_fit, "parametric"), 1e21)
    assert found.estimator == "isoflop"
    assert found.loss is None
    assert found.params.estimate == pytest.approx(allocate(lab_fit, 1e21).params.estimate, rel=0.3)


def test_a_fit_refused_twice_gives_both_reasons(lab_fit: Fit) -> None:
    with pytest.raises(UserError, match=r"20 tokens a parameter.*four sizes"):
        allocate(_without(lab_fit, "parametric", "isoflop"), 1e21)
    with pytest.raises(UserError, match="four sizes"):
        allocate(_without(lab_fit, "isoflop"), 1e21, "isoflop")


def test_a_fit_without_draws_has_an_open_interval_not_a_closed_one(lab_fit: Fit) -> None:
    blunt = lab_fit.model_copy(
        update={
            "parametric": lab_fit.parametric.model_copy(update={"draws": ()}),
            "isoflop": lab_fit.isoflop.model_copy(update={"draws": ()}),
        }
    )
    for found in (allocate(blunt, 1e21), allocate(blunt, 1e21, "isoflop")):
        assert (found.params.low, found.params.high, found.tokens.low) == (None, None, None)


def test_the_flat_region_is_where_loss_is_within_its_share(lab_fit: Fit) -> None:
    flops, share = 1e21, 0.003
    region = flat_region(lab_fit, flops, share)
    assert region is not None
    theta = [lab_fit.parametric.parameters[name].estimate for name in CHINCHILLA.NAMES]
    best, tokens = CHINCHILLA.optimum(theta, flops)
    lowest = float(CHINCHILLA.predict(theta, best, tokens))
    for edge in region:
        assert float(CHINCHILLA.predict(theta, edge, flops / 6 / edge)) / lowest - 1 == pytest.approx(share, rel=0.05)
    assert region[0] < float(best) < region[1]
    assert flat_region(_without(lab_fit, "parametric"), flops) is None


# Accounting


def _family(vocabulary: int = 1024, context: int = 128, tied: bool = True) -> object:
    def shape_of(total: float) -> ModelShape:
        return llama.shape_for(total, vocabulary=vocabulary, context=context, tied=tied)

    return shape_of


@pytest.mark.parametrize(("around", "context"), [(1e5, 128), (1e8, 2048), (7e10, 8192)])
def test_exact_accounting_is_the_shapes_own_cost(lab_fit: Fit, around: float, context: int) -> None:
    fit = counted_as(lab_fit, flops_convention="exact")
    accounting = Accounting(fit, _family(context=context), around)  # type: ignore[arg-type]
    for total in np.geomspace(around / 100, around * 100, 30):
        try:
            shape = llama.shape_for(float(total), vocabulary=1024, context=context)
        except ValueError:
            continue
        counts = llama.count_parameters(shape)
        exact = llama.training_flops_per_token(shape)
        assert accounting.flops_per_token_of(shape) == exact
        # Between the sampled sizes the dial jumps from shape to shape; attention and embeddings follow it.
        assert accounting.flops_per_token(counts.total) == pytest.approx(exact, rel=0.25)


def test_under_6nd_a_token_costs_six_n_whatever_the_shape(lab_fit: Fit) -> None:
    accounting = Accounting(lab_fit, _family(), 1e6)  # type: ignore[arg-type]
    shape = llama.shape_for(1e6, vocabulary=1024, context=128)
    assert accounting.flops_per_token_of(shape) == 6 * llama.count_parameters(shape).total
    assert accounting.flops_per_token(123_456) == 6 * 123_456


@pytest.mark.parametrize("convention", ["nonembedding", "with-head", "total"])
def test_a_size_counted_one_way_is_found_again_as_a_total(lab_fit: Fit, convention: str) -> None:
    fit = counted_as(lab_fit, params_convention=convention)
    accounting = Accounting(fit, _family(vocabulary=32_000, tied=False), 1e9)  # type: ignore[arg-type]
    shape = llama.shape_for(5e8, vocabulary=32_000, context=128, tied=False)
    counts = architectures.get("llama").count_parameters(shape)
    assert accounting.total(counted(counts, fit.params_convention)) == pytest.approx(counts.total, rel=0.05)


def test_beyond_the_sampled_sizes_cost_grows_with_n(lab_fit: Fit) -> None:
    fit = counted_as(lab_fit, flops_convention="exact")
    accounting = Accounting(fit, _family(), 1e6)  # type: ignore[arg-type]
    assert accounting.flops_per_token(1e13) == pytest.approx(100 * accounting.flops_per_token(1e11))


def test_a_family_that_is_too_large_is_refused(lab_fit: Fit) -> None:
    def none_of_that_size(total: float) -> ModelShape:
        raise ValueError(f"no shape of {total}")

    with pytest.raises(UserError, match="no shape of this family"):
        Accounting(lab_fit, none_of_that_size, 1e6)


def test_attention_makes_a_large_models_token_dearer_than_six_n(lab_fit: Fit) -> None:
    """The figure in scaling/accounting.py: 12% at 70B parameters over a context of 8,192."""
    shape = llama.shape_for(70e9, vocabulary=128_256, context=8192, tied=False)
    share = llama.training_flops_per_token(shape) / (6 * llama.count_parameters(shape).total) - 1
    assert share == pytest.approx(0.12, abs=0.01)
    fit = counted_as(lab_fit, flops_convention="exact")
    accounting = Accounting(fit, _family(128_256, 8192, False), 7e10)  # type: ignore[arg-type]
    dear = allocate(fit, 1e24, flops_per_token=accounting.flops_per_token)
    plain = allocate(lab_fit, 1e24)
    assert dear.tokens.estimate * dear.params.estimate < 0.95 * plain.tokens.estimate * plain.params.estimate
    assert math.isclose(dear.tokens.estimate * accounting.flops_per_token(dear.params.estimate), 1e24, rel_tol=1e-9)
