"""The forecast explorer: its arithmetic is ``scaling.allocation``'s, its controls move the recommended point."""

from __future__ import annotations

import dataclasses
import math
import random
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from analysis.explorer import explorer_data, refusal, write_explorer
from analysis.study_view import StudyView
from scaling.allocation import allocate, flat_region, inference_optimum, limited_data_optimum, repetition_constants
from scaling.allocation.answer import answer
from scaling.fit import Fit
from scaling.hardware import cluster_estimate
from scaling.quantity import format_count, format_interval
from scaling.record import Interval

from .test_figure_data import refused

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def explorer(view: StudyView, tmp_path: Path, open_page: Callable[..., Page]) -> Page:
    path = write_explorer(view, tmp_path / "explorer.html")
    assert path is not None
    page = open_page(path.as_uri())
    page.wait_for_selector(".plot .main-svg")
    return page


def same(told: Mapping[str, Any], meant: Interval, within: float = 1e-9) -> None:
    for name in ("estimate", "low", "high"):
        value, wanted = told[name], getattr(meant, name)
        assert (value is None) == (wanted is None), name
        assert value is None or value == pytest.approx(wanted, rel=within), name


def test_its_answers_are_those_of_allocate_at_any_budget_service_and_text(explorer: Page, fit: Fit) -> None:
    draw = random.Random(0)
    for _ in range(12):
        flops = 10 ** draw.uniform(11, 23)
        tokens = allocate(fit, flops).tokens.estimate
        serve, unique = tokens * 10 ** draw.uniform(-2, 3), tokens * 10 ** draw.uniform(-3, 1)
        told = explorer.evaluate(
            "([c, t, u, rs]) => ({best: explorer.allocate(c), flat: explorer.flatRegion(c), "
            "served: explorer.inferenceOptimum(c, t), limited: rs.map((r) => explorer.limitedDataOptimum(c, u, r))})",
            [flops, serve, unique, [repetition_constants(key).model_dump() for key in KEYS]],
        )
        best = allocate(fit, flops)
        for name in ("params", "tokens", "tokens_per_param"):
            same(told["best"][name], getattr(best, name))
        # The loss is read between computes at which it was worked out; four digits are shown.
        assert best.loss is not None
        same(told["best"]["loss"], best.loss, 1e-4)
        assert told["flat"] == pytest.approx(flat_region(fit, flops))
        served = inference_optimum(fit, serve_tokens=serve, flops=flops)
        for name in told["served"]:
            same(told["served"][name], getattr(served, name), 1e-6)
        for key, limited in zip(KEYS, told["limited"], strict=True):
            meant = limited_data_optimum(fit, flops, unique, repetition_constants(key))
            assert limited.pop("repeats") == (meant.caveat is not None)
            for name in limited:
                if name != "loss_excess":  # a difference that may be rounding alone
                    same(limited[name], getattr(meant, name), 1e-6)


KEYS = ("muennighoff", "datablations-minimum")


def test_costs_are_those_of_the_recommendation_at_a_given_price(explorer: Page, view: StudyView) -> None:
    assert view.recommendation is not None and view.recommendation.cluster is not None
    cluster = view.recommendation.cluster
    for price in (0.5, 2.0, 11.0):
        meant = cluster_estimate(3e22, cluster.gpus, cluster.accelerator, price=price)
        told = explorer.evaluate("(p) => explorer.cost(3e22, p)", price)
        same(told["usd"], meant.usd)
        same(told["gpu_hours"], meant.gpu_hours)
        bought = explorer.evaluate("([usd, p]) => explorer.flopsFor(usd, p)", [meant.usd.estimate, price])
        assert bought == pytest.approx(3e22)


def move(page: Page, name: str, share: float) -> None:
    page.locator(f"#{name}").evaluate(
        "(slider, at) => { slider.value = at; slider.dispatchEvent(new Event('input', {bubbles: true})); }",
        round(1200 * share),
    )


def marks(page: Page) -> dict[str, tuple[float, float, float]]:
    """Where the drawn answers lie: N, D and the upper arm of N."""
    found = page.evaluate(
        "document.querySelector('.plot').data.filter((t) => t.mode === 'markers' && t.x.length)"
        ".map((t) => [t.name, t.x[0], t.y[0], t.error_x.array[0]])"
    )
    return {name: (x, y, arm) for name, x, y, arm in found}


def test_sliders_move_the_point_and_its_interval_and_the_words_say_what_python_says(explorer: Page, fit: Fit) -> None:
    before = marks(explorer)
    move(explorer, "budget", 0.5)
    after = marks(explorer)
    assert after["compute-optimal"] != before["compute-optimal"]
    move(explorer, "serve", 0.6)
    move(explorer, "unique", 0.3)
    shown = marks(explorer)
    assert {"if served", "with scarce text"} <= set(shown)
    assert shown["if served"][0] < shown["compute-optimal"][0], "a served model is smaller"

    words = shlex.split(explorer.locator("#command").inner_text())
    given = {words[at]: float(words[at + 1]) for at in range(3, len(words), 2)}
    meant = answer(fit, given["--flops"], serve_tokens=given["--serve-tokens"], unique_tokens=given["--unique-tokens"])
    assert meant.serving is not None
    said, table = explorer.locator("#said").inner_text(), explorer.locator("#answers").inner_text()
    for part in (meant.optimum.params, meant.optimum.tokens, meant.serving.params, meant.limited[0].params):
        assert format_interval(part) in said
    for other in (meant.limited[1].params, meant.serving.tokens, meant.serving.loss):
        assert format_interval(other, 4 if other is meant.serving.loss else 3) in table
    assert format_count(meant.serving.compute_optimal_params.estimate) in explorer.locator("#remarks").inner_text()


def test_with_a_budget_in_dollars_the_price_moves_the_point(explorer: Page) -> None:
    explorer.get_by_label("dollars").check()
    before = marks(explorer)["compute-optimal"]
    move(explorer, "price", 0.9)
    after = marks(explorer)["compute-optimal"]
    assert after[0] < before[0] and after[1] < before[1], "dearer hours buy a smaller model on fewer tokens"
    explorer.get_by_label("FLOPs", exact=True).check()
    move(explorer, "price", 0.1)
    assert marks(explorer)["compute-optimal"] == after, "a budget of FLOPs is the same at any price"


def test_a_number_can_be_typed_and_what_is_none_is_marked(explorer: Page, fit: Fit) -> None:
    box = explorer.locator("#budget-value")
    box.fill("2.5e20")
    box.press("Enter")
    assert format_interval(allocate(fit, 2.5e20).params) in explorer.locator("#said").inner_text()
    box.fill("a lot")
    box.press("Enter")
    assert box.get_attribute("aria-invalid") == "true"
    assert format_interval(allocate(fit, 2.5e20).params) in explorer.locator("#said").inner_text()
    serve = explorer.locator("#serve-value")
    serve.fill("5T")
    serve.press("Enter")
    assert "To serve 5T tokens" in explorer.locator("#said").inner_text()


def test_a_law_that_levels_off_too_early_leaves_the_budget_by_the_lines_alone(
    view: StudyView, tmp_path: Path, open_page: Callable[..., Page]
) -> None:
    # What text admits ends below this law's E, so that compute is placed by the iso-FLOP lines.
    e = view.fit.parametric.parameters["E"].estimate
    drift = view.fit.drift.model_copy(update={"irreducible": (0.1, 0.5 * e)})
    bound = dataclasses.replace(view, fit=view.fit.model_copy(update={"drift": drift}))
    assert explorer_data(bound)["estimator"] == "isoflop"
    path = write_explorer(bound, tmp_path / "explorer.html")
    assert path is not None
    page = open_page(path.as_uri())
    page.wait_for_selector("#answers tbody tr")
    assert page.locator("#serve").is_disabled() and page.locator("#unique").is_disabled()
    assert "levels off at E" in page.locator(".controls").inner_text()
    told, meant = page.evaluate("explorer.allocate(1e15)"), allocate(bound.fit, 1e15)
    assert meant.estimator == "isoflop"
    for name in ("params", "tokens"):
        same(told[name], getattr(meant, name))
    assert meant.loss is not None
    same(told["loss"], meant.loss, 1e-4)


def test_without_a_recommendation_there_is_nothing_to_explore(view: StudyView, tmp_path: Path) -> None:
    without = dataclasses.replace(view, fit=refused(view.fit, "parametric", "isoflop"), recommendation=None)
    assert refusal(without) is not None
    assert write_explorer(without, tmp_path / "explorer.html") is None
    assert not list(tmp_path.iterdir())


def test_the_losses_it_reads_between_are_the_forecasts(view: StudyView) -> None:
    table = explorer_data(view)["loss"]
    assert table is not None
    for at in range(0, len(table["ln_flops"]), 37):
        loss = allocate(view.fit, math.exp(table["ln_flops"][at])).loss
        assert loss is not None
        assert math.exp(table["estimate"][at]) == pytest.approx(loss.estimate, rel=2e-5)
