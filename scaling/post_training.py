"""What follows pretraining: SFT, reward model, then DPO or PPO, sized by what published pipelines used.

No law stands behind these sizes yet (``basis`` says so); they are there so that the plan and its price are whole.
"""

from __future__ import annotations

from typing import Literal

from scaling.cluster import ClusterEstimate
from scaling.recommendation import PostTrainingStage
from scaling.record import Record

__all__ = ["post_training_stages"]


class _Recipe(Record):
    """One stage: examples, tokens an example, passes over them, and FLOPs a parameter and token."""

    stage: Literal["sft", "reward_model", "dpo", "ppo"]
    examples: int
    tokens_per_example: int
    epochs: int
    flops_per_param_token: float
    rate_share: float
    basis: str


# Training costs 6 N a token and a forward pass 2 N. DPO trains the policy and reads a frozen reference: 8 N. PPO
# generates each answer (2 N), reads it with a frozen reference and the reward model (2 N each), and trains the policy
# and a value model of the same size (6 N each): 18 N.
_RECIPES = (
    _Recipe(
        stage="sft",
        examples=10_000,
        tokens_per_example=512,
        epochs=2,
        flops_per_param_token=6,
        rate_share=0.1,
        basis="rule of thumb: 1k curated examples sufficed for LIMA (2305.11206), Llama 2 used 27.5k (2307.09288)",
    ),
    _Recipe(
        stage="reward_model",
        examples=60_000,
        tokens_per_example=1024,
        epochs=1,
        flops_per_param_token=6,
        rate_share=0.03,
        basis="rule of thumb: InstructGPT ranked answers to 33k prompts (2203.02155); an example is a pair",
    ),
    _Recipe(
        stage="dpo",
        examples=60_000,
        tokens_per_example=1024,
        epochs=1,
        flops_per_param_token=8,
        rate_share=0.003,
        basis="rule of thumb: about 60k pairs, as in Zephyr's UltraFeedback (2310.16944); an example is a pair",
    ),
    _Recipe(
        stage="ppo",
        examples=31_000,
        tokens_per_example=512,
        epochs=8,
        flops_per_param_token=18,
        rate_share=0.01,
        basis="rule of thumb: InstructGPT's 31k prompts and 256k episodes, eight answers a prompt (2203.02155)",
    ),
)
_MFU_SHARE = 0.25
_ASSUMED = "learning rate {share:g} of pretraining's peak, priced at a quarter of its MFU (assumptions)"


def post_training_stages(
    params: float, learning_rate: float, cluster: ClusterEstimate | None, peak_flops: float | None
) -> tuple[PostTrainingStage, ...]:
    """The stages for a model of ``params`` total parameters, pretrained at ``learning_rate``.

    DPO and PPO are alternatives. Hours and dollars assume a quarter of pretraining's MFU, for ragged batches and
    generation. ``peak_flops`` is the accelerator's dense bf16 peak a second.
    """
    stages = []
    for recipe in _RECIPES:
        tokens = recipe.examples * recipe.tokens_per_example * recipe.epochs
        flops = recipe.flops_per_param_token * params * tokens
        hours = None
        if cluster is not None and peak_flops is not None:
            hours = flops / (peak_flops * cluster.mfu.estimate * _MFU_SHARE) / 3600
        stages.append(
            PostTrainingStage(
                stage=recipe.stage,
                examples=recipe.examples,
                tokens=tokens,
                learning_rate=float(f"{learning_rate * recipe.rate_share:.2g}"),
                flops=flops,
                gpu_hours=hours,
                usd=None if hours is None or cluster is None else hours * cluster.price_usd_per_gpu_hour.estimate,
                basis=f"{recipe.basis}; {_ASSUMED.format(share=recipe.rate_share)}",
            )
        )
    return tuple(stages)
