"""Rewards and advantages against their definitions in plain Python, and against torchrl's."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.posttrain.advantages import generalised_advantages, token_rewards, whiten

NUMBER = st.floats(-3, 3, width=32)
SHARE = st.sampled_from([0.0, 0.5, 0.95, 1.0])


@st.composite
def answers(draw: st.DrawFn) -> tuple[list[list[float]], list[list[float]]]:
    """Rewards and values of one to five answers of one to six tokens."""
    lengths = draw(st.lists(st.integers(1, 6), min_size=1, max_size=5))
    return tuple([[draw(NUMBER) for _ in range(length)] for length in lengths] for _ in range(2))  # type: ignore[return-value]


def padded(rows: list[list[float]], filler: float) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [filler] * (width - len(row)) for row in rows])


def by_definition(rewards: list[float], values: list[float], discount: float, gae_lambda: float) -> list[float]:
    """A_t = Σ_k (γλ)^k δ_t+k, one sum a token."""
    following = [*values[1:], 0.0]
    delta = [r + discount * after - v for r, v, after in zip(rewards, values, following, strict=True)]
    return [
        math.fsum((discount * gae_lambda) ** (k - t) * delta[k] for k in range(t, len(delta)))
        for t in range(len(delta))
    ]


@given(answers(), SHARE.filter(bool), SHARE)
@settings(max_examples=60)
def test_advantages_are_the_discounted_sums_of_surprises(
    rows: tuple[list[list[float]], list[list[float]]], discount: float, gae_lambda: float
) -> None:
    rewards, values = rows
    mask_BT = padded([[1.0] * len(row) for row in rewards], 0.0).bool()
    # What stands in the padding is garbage, and is not looked at.
    found_BT, returns_BT = generalised_advantages(
        padded(rewards, 77.0), padded(values, math.nan), mask_BT, discount=discount, gae_lambda=gae_lambda
    )
    for at, (reward, value) in enumerate(zip(rewards, values, strict=True)):
        wanted = by_definition(reward, value, discount, gae_lambda)
        assert found_BT[at, : len(reward)].tolist() == pytest.approx(wanted, abs=1e-4)
        expected = [advantage + v for advantage, v in zip(wanted, value, strict=True)]
        assert returns_BT[at, : len(reward)].tolist() == pytest.approx(expected, abs=1e-4)
    assert not found_BT[~mask_BT].any() and not returns_BT[~mask_BT].any()


def test_answers_of_one_length_have_the_advantages_of_torchrl() -> None:
    from torchrl.objectives.value.functional import generalized_advantage_estimate

    generator = torch.Generator().manual_seed(0)
    rewards_BT, values_BT = torch.randn(2, 5, 7, generator=generator)
    done_BT = torch.zeros(5, 7, dtype=torch.bool)
    done_BT[:, -1] = True
    following_BT = torch.cat([values_BT[:, 1:], torch.zeros(5, 1)], 1)
    theirs = generalized_advantage_estimate(
        0.97, 0.9, *(x.unsqueeze(-1) for x in (values_BT, following_BT, rewards_BT, done_BT))
    )
    ours = generalised_advantages(rewards_BT, values_BT, ~torch.zeros_like(done_BT), discount=0.97, gae_lambda=0.9)
    for found, wanted in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, wanted.squeeze(-1))


def test_the_score_comes_last_and_the_divergence_token_by_token() -> None:
    mask_BT = torch.tensor([[True, True, True], [True, False, False]])
    log_ratios_BT = torch.tensor([[0.5, -1.0, 2.0], [1.0, 9.0, 9.0]])
    rewards_BT = token_rewards(torch.tensor([10.0, -4.0]), log_ratios_BT, mask_BT, kl_coefficient=0.1)
    torch.testing.assert_close(rewards_BT, torch.tensor([[-0.05, 0.1, 9.8], [-4.1, 0.0, 0.0]]))


def test_whitened_tokens_have_mean_0_and_deviation_1_whatever_the_padding_holds() -> None:
    mask_BT = torch.tensor([[True, True, True], [True, False, False]])
    white_BT = whiten(torch.tensor([[1.0, 2.0, 3.0], [6.0, 1e9, 1e9]]), mask_BT)
    assert white_BT[mask_BT].mean().abs() < 1e-6
    assert white_BT[mask_BT].std(correction=0) == pytest.approx(1)
    assert not white_BT[~mask_BT].any()
    assert not whiten(torch.ones(2, 3), mask_BT).any(), "equal advantages teach nothing"
