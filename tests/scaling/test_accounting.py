from __future__ import annotations

import math

import numpy as np
import pytest

from scaling import architectures
from scaling.accounting import Accounting, counted
from scaling.allocation import allocate
from scaling.architectures import llama
from scaling.errors import UserError
from scaling.fit import Fit
from scaling.shape import ModelShape

from .conftest import counted_as


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
