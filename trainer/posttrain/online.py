"""Policies trained on rewards of their own samples, through TRL: GRPO (2402.03300) and RLOO (2402.14740).

PPO, which TRL no longer has, is ``ppo.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from trainer.posttrain.chat_template import Chat
from trainer.posttrain.examples import Example
from trainer.posttrain.policy import load_policy
from trainer.posttrain.reward import Reward
from trainer.posttrain.stage import StageRun
from trainer.posttrain.trl_training import TrainingSettings, arguments, merged, train

__all__ = ["OnlineSettings", "train_online"]


class OnlineSettings(TrainingSettings):
    """``batch`` counts answers a step: ``answers`` to each of batch / answers prompts."""

    method: Literal["grpo", "rloo"] = "grpo"
    learning_rate: float = Field(default=1e-6, gt=0, lt=1)
    batch: int = Field(default=64, ge=2)
    answers: int = Field(default=8, ge=2)
    steps: int = Field(default=200, ge=1)
    beta: float = Field(default=0.05, ge=0)
    """Of the KL to the starting policy."""
    clip: float = Field(default=0.2, gt=0, lt=1)
    temperature: float = Field(default=1.0, gt=0)
    max_new_tokens: int = Field(default=64, ge=1)


def train_online(
    folder: Path, chat: Chat, prompts: Sequence[Example], reward: Reward, settings: OnlineSettings, run: StageRun
) -> Any:
    """The policy in ``folder`` after ``steps`` of samples scored by ``reward``, which gets the prompts' columns."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

    model = load_policy(folder)
    # TRL loads the reference by this name.
    model.config._name_or_path = str(folder)
    kind, trainer_kind = (GRPOConfig, GRPOTrainer) if settings.method == "grpo" else (RLOOConfig, RLOOTrainer)
    data = Dataset.from_list([{"prompt": chat.unstarted(chat.prompt(row.prompt)), **row.columns} for row in prompts])

    def scored(prompts: list[str], completions: list[str], **others: Any) -> list[float]:
        columns = {name: others[name] for name in data.column_names if name != "prompt"}
        return reward(prompts=prompts, completions=completions, **columns)

    trainer = trainer_kind(
        model,
        reward_funcs=scored,
        args=arguments(
            kind,
            settings,
            run,
            max_steps=settings.steps,
            num_generations=settings.answers,
            beta=settings.beta,
            epsilon=settings.clip,
            temperature=settings.temperature,
            max_completion_length=settings.max_new_tokens,
        ),
        train_dataset=data,
        processing_class=chat.tokenizer,
        peft_config=settings.lora and settings.lora.config(),
    )
    return merged(train(trainer, run))
