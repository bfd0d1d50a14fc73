"""The clipped losses against torchrl's on the same numbers: values and gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainer.posttrain.ppo_loss import clipped_share, policy_loss, value_loss

TOKENS, VOCABULARY, CLIP = 60, 12, 0.2


class Leaf(nn.Module):
    """A network that says one thing, whose gradient is looked at."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = nn.Parameter(output.clone())

    def forward(self, _: Tensor) -> Tensor:
        return self.output


@pytest.mark.parametrize("clip_value", [0.3, None])
def test_losses_and_gradients_are_those_of_torchrl(clip_value: float | None) -> None:
    from tensordict import TensorDict
    from tensordict.nn import ProbabilisticTensorDictModule, ProbabilisticTensorDictSequential, TensorDictModule
    from torchrl.objectives import ClipPPOLoss

    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    logits_NV, values_N, advantages_N, returns_N = (
        normal(TOKENS, VOCABULARY),
        normal(TOKENS),
        normal(TOKENS),
        normal(TOKENS),
    )
    tokens_N = torch.randint(VOCABULARY, (TOKENS,), generator=generator)
    old_N = torch.log_softmax(logits_NV, -1).gather(1, tokens_N[:, None])[:, 0] + 0.3 * normal(TOKENS)
    old_values_N = values_N + 0.5 * normal(TOKENS)

    actor, critic = Leaf(logits_NV), Leaf(values_N.unsqueeze(1))
    theirs = ClipPPOLoss(
        ProbabilisticTensorDictSequential(
            TensorDictModule(actor, in_keys=["seen"], out_keys=["logits"]),
            ProbabilisticTensorDictModule(
                in_keys=["logits"], out_keys=["action"], distribution_class=torch.distributions.Categorical
            ),
        ),
        TensorDictModule(critic, in_keys=["seen"], out_keys=["state_value"]),
        clip_epsilon=CLIP,
        entropy_bonus=False,
        # Theirs is the square, ours its half.
        critic_coeff=0.5,
        loss_critic_type="l2",
        clip_value=clip_value,
        functional=False,
    )(
        TensorDict(
            {
                "seen": torch.zeros(TOKENS, 1),
                "action": tokens_N,
                "action_log_prob": old_N,
                "advantage": advantages_N.unsqueeze(1),
                "value_target": returns_N.unsqueeze(1),
                "state_value": old_values_N.unsqueeze(1),
            },
            batch_size=[TOKENS],
        )
    )
    (theirs["loss_objective"] + theirs["loss_critic"]).backward()

    # Ours in two answers, the second one shorter, its padding garbage.
    def answers(x_N: Tensor) -> Tensor:
        garbage = torch.full((8, *x_N.shape[1:]), 1e4, dtype=x_N.dtype)
        return torch.cat([x_N, garbage]).reshape(2, 34, *x_N.shape[1:])

    mask_BT = answers(torch.ones(TOKENS)) == 1
    ours_NV, our_values_N = logits_NV.requires_grad_(), values_N.requires_grad_()
    log_probs_N = torch.log_softmax(ours_NV, -1).gather(1, tokens_N[:, None])[:, 0]
    ratios_BT = answers(log_probs_N - old_N)
    of_policy = policy_loss(ratios_BT, answers(advantages_N), mask_BT, CLIP) / TOKENS
    of_value = (
        value_loss(answers(our_values_N), answers(old_values_N), answers(returns_N), mask_BT, clip_value) / TOKENS
    )
    (of_policy + of_value).backward()

    assert of_policy.item() == pytest.approx(theirs["loss_objective"].item(), rel=1e-5)
    assert of_value.item() == pytest.approx(theirs["loss_critic"].item(), rel=1e-5)
    torch.testing.assert_close(ours_NV.grad, actor.output.grad, atol=1e-7, rtol=1e-4)
    torch.testing.assert_close(our_values_N.grad, _grad(critic)[:, 0], atol=1e-7, rtol=1e-4)
    without = (ours_NV.grad == 0).all(1).float().mean()
    assert 0.1 < float(without) < 0.9, "some ratios are cut, and some are not"
    share = clipped_share(ratios_BT.detach(), answers(advantages_N), mask_BT, CLIP)
    assert float(share) == pytest.approx(float(without))


def _grad(module: Any) -> Tensor:
    gradient: Tensor = module.output.grad
    return gradient
