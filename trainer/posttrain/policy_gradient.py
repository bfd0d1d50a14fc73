"""The PPO stage: a policy's folder, a reward and prompts to a trained policy, with the gold score beside the reward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from trainer.posttrain.chat_template import Chat
from trainer.posttrain.examples import Example
from trainer.posttrain.policy import Lora, load_policy
from trainer.posttrain.ppo import PPOSettings, train_ppo
from trainer.posttrain.preferences import columns_of
from trainer.posttrain.reward import Reward
from trainer.posttrain.reward_model import load_head
from trainer.posttrain.stage import Interrupted, StageRun
from trainer.posttrain.trl_training import merged

__all__ = ["PPOStage", "train_by_ppo"]


class PPOStage(PPOSettings):
    """PPO's settings, without those that the pipeline gives to all its stages."""

    max_new_tokens: int = Field(default=0, exclude=True)
    """The pipeline's."""
    seed: int = Field(default=0, exclude=True)
    """The pipeline's."""
    values: Literal["head", "reward"] = "head"
    """Answers' values by a head on the policy, or by a model of their own that begins as the reward model."""
    lora: Lora | None = None


def train_by_ppo(
    folder: Path,
    chat: Chat,
    rows: Sequence[Example],
    reward: Reward,
    gold: Reward | None,
    settings: PPOStage,
    max_new_tokens: int,
    reward_folder: Path | None,
    run: StageRun,
) -> Any:
    """The trained policy. Rows of the curve have ``gold`` beside the ``score`` that was optimised, if there is one."""
    policy = load_policy(folder)
    if settings.lora is not None:
        import torch
        from peft import get_peft_model

        torch.manual_seed(run.seed)
        policy = get_peft_model(policy, settings.lora.config())
    values = load_head(reward_folder, chat.tokenizer) if settings.values == "reward" and reward_folder else None
    given = settings.model_dump(exclude={"values", "lora"})
    beside = _GoldBeside(reward, gold)

    def log(step: int, metrics: Mapping[str, float]) -> None:
        run.log(step, {**metrics, **beside.newest}, of=settings.steps)

    run.continue_from(_newest_step(run.folder.checkpoints))
    result = train_ppo(
        policy,
        chat.tokenizer,
        [chat.prompt(row.prompt) for row in rows],
        beside,
        PPOSettings(**given, max_new_tokens=max_new_tokens, seed=run.seed),
        run.folder.checkpoints,
        value_model=values,
        columns=columns_of(rows),
        log=log,
        note=run.note,
        should_stop=run.should_stop,
    )
    if result.status == "interrupted":
        raise Interrupted
    return merged(policy)


def _newest_step(folder: Path) -> int:
    from trainer.loop.checkpoint import CheckpointFolder

    return max(CheckpointFolder(folder, lambda _: None).newest_step(), 0)


class _GoldBeside:
    """The reward, which also remembers what the same answers score by the rule."""

    def __init__(self, reward: Reward, gold: Reward | None) -> None:
        self._reward, self._gold = reward, gold
        self.newest: dict[str, float] = {}

    def __call__(self, *, prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float]:
        if self._gold is not None:
            scores = self._gold(prompts=prompts, completions=completions, **columns)
            self.newest = {"gold": sum(scores) / len(scores)}
        return self._reward(prompts=prompts, completions=completions, **columns)
