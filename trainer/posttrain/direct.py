"""Preferences learned directly, without a reward model, through TRL.

DPO (Rafailov et al. 2305.18290) and its length-normalised form, IPO (Azar et al. 2310.12036), KTO (Ethayarajh et al.
2402.01306: single answers, wanted or not) and SimPO (Meng et al. 2405.14734: no reference, mean log-probabilities).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from trainer.posttrain.chat_template import Chat
from trainer.posttrain.examples import Pair
from trainer.posttrain.policy import load_policy
from trainer.posttrain.stage import StageRun
from trainer.posttrain.trl_training import TrainingSettings, arguments, merged, train

__all__ = ["DPOSettings", "DirectSettings", "KTOSettings", "SimPOSettings", "train_directly"]

_DPO_LOSSES = {"dpo": "sigmoid", "dpo_norm": "sigmoid_norm", "ipo": "ipo"}


class DirectSettings(TrainingSettings):
    learning_rate: float = Field(default=1e-6, gt=0, lt=1)
    max_tokens: int | None = Field(default=None, ge=8)
    """Of prompt and answer; the model's context by default."""


class DPOSettings(DirectSettings):
    """``batch`` counts pairs."""

    loss: Literal["dpo", "dpo_norm", "ipo"] = "dpo"
    beta: float = Field(default=0.1, gt=0)


class KTOSettings(DirectSettings):
    """``batch`` counts answers; each pair gives a wanted and an unwanted one."""

    beta: float = Field(default=0.1, gt=0)


class SimPOSettings(DirectSettings):
    """``batch`` counts pairs; ``margin`` is gamma."""

    beta: float = Field(default=2.0, gt=0)
    margin: float = Field(default=1.0, ge=0)


def train_directly(folder: Path, chat: Chat, pairs: Sequence[Pair], settings: DirectSettings, run: StageRun) -> Any:
    """The policy in ``folder`` trained on ``pairs``, which all fit ``max_tokens``."""
    from datasets import Dataset

    model = load_policy(folder)
    # TRL loads the reference by this name.
    model.config._name_or_path = str(folder)
    length = settings.max_tokens or model.config.max_position_embeddings
    rows = [
        {
            "prompt": chat.unstarted(chat.prompt(pair.prompt)),
            "chosen": chat.completion(pair.chosen),
            "rejected": chat.completion(pair.rejected),
        }
        for pair in pairs
    ]
    common = {"processing_class": chat.tokenizer, "peft_config": settings.lora and settings.lora.config()}
    trainer: Any
    match settings:
        case DPOSettings():
            from trl import DPOConfig, DPOTrainer

            trainer = DPOTrainer(
                model,
                args=arguments(
                    DPOConfig,
                    settings,
                    run,
                    max_length=length,
                    beta=settings.beta,
                    loss_type=[_DPO_LOSSES[settings.loss]],
                    # Read once a pair either way; a pass of its own is what later epochs are spared.
                    precompute_ref_log_probs=settings.epochs > 1,
                ),
                train_dataset=Dataset.from_list(rows),
                **common,
            )
        case KTOSettings():
            from trl import KTOConfig, KTOTrainer

            answers = [
                {"prompt": row["prompt"], "completion": row[name], "label": name == "chosen"}
                for row in rows
                for name in ("chosen", "rejected")
            ]
            trainer = KTOTrainer(
                model,
                args=arguments(KTOConfig, settings, run, max_length=length, beta=settings.beta),
                train_dataset=Dataset.from_list(answers),
                **common,
            )
        case SimPOSettings():
            from trl.experimental.cpo import CPOConfig, CPOTrainer

            trainer = CPOTrainer(
                model,
                args=arguments(
                    CPOConfig,
                    settings,
                    run,
                    max_length=length,
                    beta=settings.beta,
                    loss_type="simpo",
                    simpo_gamma=settings.margin,
                    cpo_alpha=0.0,
                ),
                train_dataset=Dataset.from_list(rows),
                **common,
            )
        case _:
            raise TypeError(type(settings).__name__)
    return merged(train(trainer, run))
