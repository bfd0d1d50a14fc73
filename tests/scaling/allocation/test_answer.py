from __future__ import annotations

import json

import pytest

from scaling.allocation import allocate, answer
from scaling.errors import UserError
from scaling.fit import Fit, IsoflopFit, ParametricFit


def test_the_whole_answer_is_one_record_that_reads_back_and_prints(lab_fit: Fit) -> None:
    made = answer(
        lab_fit, 1e23, serve_tokens=1e13, unique_tokens=5e10, shrink_by=4, curve=True, sweep_flops=1.5e21, beside={}
    )
    assert made.optimum == allocate(lab_fit, 1e23)
    assert (made.refusal, len(made.limited)) == (None, 2)
    assert all(part is not None for part in (made.serving, made.shrunk, made.iso_loss, made.sweep, made.beside))
    text = json.dumps(made.model_dump(mode="json"), allow_nan=False)
    assert type(made).model_validate_json(text) == made
    page = made.summary()
    for part in ("To serve 10T tokens", "With 50B unique tokens", "4 times smaller", "Not knowing N*", "! R_D*"):
        assert part in page


def test_only_what_is_asked_for_is_answered(lab_fit: Fit) -> None:
    made = answer(lab_fit, 1e23)
    assert (made.serving, made.limited, made.shrunk, made.iso_loss, made.sweep, made.beside) == (None, (), *[None] * 4)
    assert len(made.summary().splitlines()) < 5


def test_how_far_outside_the_fitted_runs_an_answer_lies_is_said(lab_fit: Fit) -> None:
    inside = answer(lab_fit, lab_fit.fitted_range.flops[1] / 2)
    assert inside.warnings == ()
    far, ratio = answer(lab_fit, lab_fit.fitted_range.flops[1] * 1e3, shrink_by=6).warnings
    assert far.startswith("3.0 orders of magnitude")
    assert "the smaller model" in ratio and "the optimum" not in ratio


def test_with_text_enough_one_pair_of_constants_is_enough(lab_fit: Fit) -> None:
    assert len(answer(lab_fit, 1e21, unique_tokens=1e14).limited) == 1


def test_a_law_that_levels_off_too_early_leaves_the_optimum_and_refuses_the_rest(lab_fit: Fit) -> None:
    doubtful = lab_fit.model_copy(update={"drift": lab_fit.drift.model_copy(update={"irreducible": (0.5, 1.2)})})
    made = answer(doubtful, 1e20, shrink_by=4)
    assert made.optimum.estimator == "isoflop"
    assert made.shrunk is None
    assert made.refusal is not None and "levels off" in made.summary()
    assert answer(doubtful, 1e20).refusal is None


def test_a_fit_that_supports_nothing_raises_its_reasons(lab_fit: Fit) -> None:
    nothing = lab_fit.model_copy(
        update={
            "parametric": ParametricFit(status="refused", reason="one horizon"),
            "isoflop": IsoflopFit(status="refused", reason="no budget has four sizes"),
        }
    )
    with pytest.raises(UserError, match=r"one horizon.*four sizes"):
        answer(nothing, 1e21)
