from __future__ import annotations

import re

import pytest

from scaling.cost.run import cost_of_run
from scaling.fit import Fit, ParametricFit
from scaling.hyperparameters import fixed_rate
from scaling.recommend import recommend
from scaling.recommendation import Recommendation
from scaling.recommendation_page import page
from scaling.study_context import StudyContext

from .conftest import counted_as


@pytest.fixture(scope="module")
def pages(lab_fit: Fit, laptop_fit: Fit, study_context: StudyContext) -> dict[str, tuple[Recommendation, str]]:
    """The page in every situation that changes what stands on it."""
    refused = ParametricFit(status="refused", reason="every run has 20 tokens a parameter")
    made = {
        "inside": recommend(lab_fit, flops=1e19),
        "advice": recommend(lab_fit, gpus=64, days=7, accelerator="h100", study="web-ladder"),
        "illustration": recommend(
            counted_as(laptop_fit, flops_convention="exact"),
            gpus=1024,
            days=27,
            study="quickstart",
            context=study_context.model_copy(update={"learning_rate_law": fixed_rate(4e-3)}),
        ),
        "lines only": recommend(lab_fit.model_copy(update={"parametric": refused}), flops=1e22),
        "the largest cluster": recommend(lab_fit, flops=1e28),
    }
    return {name: (one, page(one)) for name, one in made.items()}


CASES = ("inside", "advice", "illustration", "lines only", "the largest cluster")


@pytest.mark.parametrize("case", CASES)
def test_a_page_fits_a_hundred_columns(pages: dict[str, tuple[Recommendation, str]], case: str) -> None:
    assert max(len(line) for line in pages[case][1].splitlines()) <= 100


@pytest.mark.parametrize("case", CASES)
def test_a_page_shows_no_placeholder_and_no_raw_float(pages: dict[str, tuple[Recommendation, str]], case: str) -> None:
    text = pages[case][1]
    assert not re.search(r"None|\bnan\b|\binf\b|\?,|\[\?", text)
    assert not re.search(r"\d\.\d{6,}", text)


@pytest.mark.parametrize("case", CASES)
def test_a_page_answers_size_tokens_cost_and_what_follows(
    pages: dict[str, tuple[Recommendation, str]], case: str
) -> None:
    _, text = pages[case]
    for part in ("Train ", "parameters on", "tokens a", "peak learning rate", "batch", "GPU-hours", "SFT", "or PPO"):
        assert part in text
    assert "Besiroglu" in text and "Kaplan" in text


def test_only_far_extrapolation_is_headed_as_an_illustration(pages: dict[str, tuple[Recommendation, str]]) -> None:
    for case in CASES:
        made, text = pages[case]
        assert text.startswith("ILLUSTRATION, NOT ADVICE") == made.illustration
    assert pages["illustration"][0].illustration and not pages["advice"][0].illustration


def test_the_heading_says_where_the_runs_end(pages: dict[str, tuple[Recommendation, str]], lab_fit: Fit) -> None:
    assert "inside the fitted runs" in pages["inside"][1].splitlines()[0]
    largest = f"{lab_fit.fitted_range.flops[1]:.1e}".replace("e+", "e")
    assert f"largest fitted run {largest} FLOPs" in pages["advice"][1].splitlines()[0]
    assert pages["advice"][1].startswith("web-ladder: ")


def test_every_warning_is_marked_and_none_is_lost(pages: dict[str, tuple[Recommendation, str]]) -> None:
    for case in CASES:
        made, text = pages[case]
        flat = " ".join(text.split())
        assert flat.count(" ! ") == len(made.warnings)
        for warning in made.warnings:
            assert " ".join(warning.split()) in flat
    assert len(pages["illustration"][0].warnings) >= 4


def test_without_a_law_there_is_no_loss_to_expect(pages: dict[str, tuple[Recommendation, str]]) -> None:
    text = pages["lines only"][1]
    assert "Expected loss" not in text
    assert "by the iso-FLOP lines" in text
    assert "Expected loss" in pages["advice"][1] and "by the parametric law" in pages["advice"][1]


def test_a_studys_loss_is_in_bits_per_byte_too(pages: dict[str, tuple[Recommendation, str]]) -> None:
    assert "bits per byte" in pages["illustration"][1]
    assert "bits per byte" not in pages["advice"][1]


def test_a_page_says_what_failures_energy_and_laws_add_and_how_the_run_is_laid_out(
    pages: dict[str, tuple[Recommendation, str]],
) -> None:
    made, plain = pages["the largest cluster"]
    assert made.cluster is not None
    for part in ("GWh", "of CO2e by the grid of us", "California: frontier model"):
        assert part in " ".join(plain.split())
    cluster = cost_of_run(
        made.shape, made.tokens.estimate, made.global_batch_tokens, made.flops, made.cluster, region="norway"
    ).cluster
    full = page(made.model_copy(update={"cluster": cluster}))
    assert max(len(line) for line in full.splitlines()) <= 100
    for part in ("failures and checkpoints take", "by the clock", "grid of norway", "layout:", "GiB a GPU"):
        assert part in " ".join(full.split())
