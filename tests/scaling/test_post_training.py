from __future__ import annotations

import pytest

from scaling.hardware import accelerator, cluster_estimate
from scaling.post_training import post_training_stages

CLUSTER = cluster_estimate(1e24, 1024, "h100", mfu=0.4, price=2.0)
STAGES = {stage.stage: stage for stage in post_training_stages(70e9, 1.5e-4, CLUSTER, accelerator("h100").bf16_flops)}


def test_the_pipeline_is_sft_reward_model_then_dpo_or_ppo() -> None:
    assert list(STAGES) == ["sft", "reward_model", "dpo", "ppo"]


@pytest.mark.parametrize(("stage", "per_token"), [("sft", 6), ("reward_model", 6), ("dpo", 8), ("ppo", 18)])
def test_flops_count_every_model_that_a_stage_trains_or_reads(stage: str, per_token: int) -> None:
    """Training 6 N, a forward pass 2 N; PPO trains two models, reads two and generates."""
    assert STAGES[stage].flops == pytest.approx(per_token * 70e9 * STAGES[stage].tokens)


def test_ppo_takes_the_256k_episodes_of_instructgpt() -> None:
    """2203.02155, appendix C.4: 256k episodes over 31k prompts."""
    episodes = STAGES["ppo"].tokens / 512
    assert episodes == pytest.approx(256_000, rel=0.05)
    assert STAGES["ppo"].examples == 31_000


def test_hours_are_at_a_quarter_of_pretrainings_mfu_and_dollars_at_its_price() -> None:
    for stage in STAGES.values():
        assert stage.gpu_hours == pytest.approx(stage.flops / (989e12 * 0.1) / 3600)
        assert stage.usd == pytest.approx(2.0 * (stage.gpu_hours or 0))


def test_no_stage_claims_a_law() -> None:
    for stage in STAGES.values():
        assert stage.basis.startswith("rule of thumb") and "assumption" in stage.basis


def test_rates_fall_from_stage_to_stage() -> None:
    rates = [STAGES[name].learning_rate for name in ("sft", "reward_model", "ppo", "dpo")]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] < 1.5e-4
    # Zephyr's and TRL's DPO at 7B to 70B: 1e-7 to 1e-6 (2310.16944).
    assert 1e-7 < STAGES["dpo"].learning_rate < 1e-6


def test_without_a_cluster_there_are_flops_but_no_hours_and_no_dollars() -> None:
    for stage in post_training_stages(70e9, 1.5e-4, None, None):
        assert stage.flops > 0
        assert (stage.gpu_hours, stage.usd) == (None, None)
