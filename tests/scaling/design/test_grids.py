"""Designs laid out by hand cost what they may, on real shapes and whole batches."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling.design.design import Design
from scaling.design.family import Family
from scaling.design.grids import csv_design, curves_design, grid_design, ratio_design
from scaling.errors import UserError

FAMILY = Family("llama", vocabulary=1024, context=128, tied=True, global_batch_tokens=512)


def sound(design: Design) -> None:
    for point in design.points:
        assert point.tokens % 512 == 0
        assert point.params == FAMILY.count(point.shape)
        assert point.flops == point.tokens * FAMILY.flops_per_token(point.shape)
    keys = [(point.shape, point.tokens, point.replicate) for point in design.points]
    assert len(set(keys)) == len(keys)


@settings(max_examples=10)
@given(total=st.floats(1e14, 1e18), sizes=st.integers(3, 6))
def test_lines_of_one_ratio_cost_the_total_and_keep_their_ratios(total: float, sizes: int) -> None:
    design = ratio_design(FAMILY, total, sizes=sizes, size_step=1.7, tokens_per_param=(5, 20, 80))
    sound(design)
    assert 0.98 * total <= design.flops <= total
    assert len(design.shapes) == sizes and len(design.points) == 3 * sizes
    for shape in design.shapes:
        short, middle, long = (p.tokens / p.params.total for p in design.points if p.shape == shape)
        assert middle / short == pytest.approx(4, rel=0.05)
        assert long / short == pytest.approx(16, rel=0.05)


@settings(max_examples=10)
@given(total=st.floats(1e13, 1e18), points=st.integers(2, 8), cooldown=st.floats(0.05, 0.5))
def test_curves_are_one_trunk_a_size_whose_branches_cost_their_cooldown(
    total: float, points: int, cooldown: float
) -> None:
    design = curves_design(
        FAMILY, total, sizes=4, size_step=1.7, tokens_per_param=(5, 40), points=points, cooldown=cooldown
    )
    sound(design)
    assert 0.97 * total <= design.flops <= total
    for shape in design.shapes:
        *branches, carrier = [point for point in design.points if point.shape == shape]
        assert len(branches) == points - 1 and all(point.branched for point in (*branches, carrier))
        assert carrier.cost_flops == carrier.flops
        for branch in branches:
            assert branch.cost_flops == pytest.approx(cooldown * branch.flops)


def test_a_grid_is_every_size_on_every_number_of_tokens() -> None:
    design = grid_design(FAMILY, params=(3e5, 1e5), tokens=(1e6, 4e6, 2e6))
    sound(design)
    assert len(design.points) == 6 and len(design.shapes) == 2
    assert sorted({point.tokens for point in design.points}) == [999_936, 1_999_872, 3_999_744]


def test_a_table_gives_its_runs_and_repeats_are_replicates(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_text("params,tokens\n1e5,1e6\n3e5,2e6\n1e5,1e6\n")
    design = csv_design(FAMILY, path)
    sound(design)
    assert [point.replicate for point in design.points] == [0, 1, 0]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("params,tokens\n1e5,1e6\n1e5,-3\n", "row 2: tokens is -3"),
        ("params,tokens\n1e5,1e6\n,1e6\n", "row 2: params is nan"),
        ("params,tokens\n1e5,one\n", "row 1: tokens is 'one'"),
        ("params,tokens\n1e5,600\n", "row 1: a run of"),
        ("params,tokens\n10,1e6\n", "row 1: "),
        ("params,tokens\n", "no rows"),
        ("size,tokens\n1,2\n", "no column params"),
    ],
)
def test_a_table_that_can_not_be_trained_names_its_row(tmp_path: Path, text: str, part: str) -> None:
    path = tmp_path / "runs.csv"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        csv_design(FAMILY, path)
    assert part in str(caught.value) and "\n" not in str(caught.value)


def test_too_little_compute_for_the_smallest_shape_is_one_line_of_advice() -> None:
    with pytest.raises(UserError, match=r"design\.sizes, now 5"):
        ratio_design(FAMILY, 1e9, sizes=5, size_step=1.7, tokens_per_param=(5, 20))
