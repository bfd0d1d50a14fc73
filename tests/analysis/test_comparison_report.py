"""Studies side by side in one page: who is better, what that is worth, and nothing that a name could do."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable

import pytest

from analysis.comparison_report import comparison_html
from analysis.study_view import StudyView
from scaling.errors import UserError
from scaling.fits.together import fit_table

from .conftest import HOLD_OUT_FLOPS
from .test_report import Page


@pytest.fixture(scope="module")
def better(make_view: Callable[..., StudyView]) -> StudyView:
    """The same runs with losses a twentieth lower."""
    rows = make_view().observations.copy()
    rows["loss_nats"] *= 0.95
    rows["bits_per_byte"] *= 0.95
    return make_view(name="better", observations=rows, fit=fit_table(rows, flops_convention="6nd", bootstrap=200))


def test_the_page_says_first_who_is_better_and_what_compute_that_is_worth(view: StudyView, better: StudyView) -> None:
    page = Page(comparison_html([view, better], HOLD_OUT_FLOPS))
    assert "better is better than simulated" in page.text
    assert page.text.index("better is better") < page.text.index("What each is worth")
    sections = [attributes.get("id") for tag, attributes in page.elements if tag == "section"]
    assert sections == ["comparison", "laws", "runs"]
    packed = next(text for attributes, text in page.scripts if attributes.get("id") == "plots")
    assert json.loads(gzip.decompress(base64.b64decode(packed))).keys() == {"comparison_arms", "comparison_multiplier"}


def test_a_study_beside_itself_is_not_decided(view: StudyView, make_view: Callable[..., StudyView]) -> None:
    page = Page(comparison_html([view, make_view(name="twin")], HOLD_OUT_FLOPS))
    assert "the runs do not decide between simulated and twin" in page.text


def test_two_of_one_name_are_refused_and_names_cannot_become_markup(
    view: StudyView, make_view: Callable[..., StudyView]
) -> None:
    with pytest.raises(UserError, match="two studies are called simulated"):
        comparison_html([view, view])
    evil = "<script>alert(1)</script>"
    page = Page(comparison_html([view, make_view(name=evil, corpus=evil)], HOLD_OUT_FLOPS))
    assert not any("alert(1)" in text for _, text in page.scripts)
    assert page.text.count(evil) > 3
