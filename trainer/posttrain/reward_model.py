"""A reward model: a policy with one number for a head (Bradley and Terry 1952; Ouyang et al. 2203.02155), through TRL.

The loss of a pair is −ln σ(r_chosen − r_rejected − margin), and ``centre`` times (r_chosen + r_rejected)², which holds
the rewards around zero (Eisenstein et al. 2312.09244). Several models of different seeds are an ensemble: its reward is
their mean, or their mean less a multiple of their standard deviation, which trusts answers that they disagree on less
(Coste et al. 2310.02743).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from scaling.errors import UserError
from scaling.preference.calibration import calibration, pair_accuracy
from scaling.record import Interval, Record
from trainer.posttrain.chat_template import Chat
from trainer.posttrain.examples import Message, Pair
from trainer.posttrain.stage import StageRun
from trainer.posttrain.trl_training import TrainingSettings, arguments, merged, train

__all__ = [
    "RewardModel",
    "RewardSettings",
    "TokenisedPair",
    "load_head",
    "pair_metrics",
    "tokenise_pairs",
    "train_reward",
]


class RewardSettings(TrainingSettings):
    learning_rate: float = Field(default=1e-5, gt=0, lt=1)
    batch: int = Field(default=32, ge=1)
    """Pairs a step."""
    max_tokens: int | None = Field(default=None, ge=8)
    """Of prompt and answer; the model's context by default."""
    centre: float = Field(default=0.01, ge=0)
    members: int = Field(default=1, ge=1)
    """Models of the ensemble, which differ by their seeds."""
    caution: float = Field(default=0.0, ge=0)
    """Standard deviations between the members that are taken off the reward."""


class TokenisedPair(Record):
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]


def tokenise_pairs(
    pairs: Sequence[Pair], chat: Chat, max_tokens: int, note: Any
) -> tuple[list[TokenisedPair], list[Pair]]:
    """The pairs of which both answers fit ``max_tokens`` and imitate no special token, as ids and as they were."""
    ids, kept = [], []
    for pair in pairs:
        if chat.imitates(pair.chosen, pair.rejected, *(message.content for message in pair.prompt)):
            continue
        prompt = chat.prompt_ids(pair.prompt)
        chosen, rejected = (tuple(prompt + chat.completion_ids(text)) for text in (pair.chosen, pair.rejected))
        if max(len(chosen), len(rejected)) <= max_tokens:
            ids.append(TokenisedPair(chosen=chosen, rejected=rejected))
            kept.append(pair)
    if len(kept) < len(pairs):
        note(
            f"{len(pairs) - len(kept):,} of {len(pairs):,} pairs are longer than {max_tokens} tokens or spell a "
            "special token: left out"
        )
    return ids, kept


def load_head(folder: Path, tokenizer: Any) -> Any:
    """The model in ``folder`` with one number for a head: its own, or a new one on a language model."""
    import torch
    from transformers import AutoModelForSequenceClassification

    try:
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, num_labels=1, local_files_only=True, dtype=torch.float32, pad_token_id=tokenizer.pad_token_id
        )
    except (OSError, ValueError) as error:
        problem = str(error).strip().splitlines()[0]
        raise UserError(f"{folder} can't be given a reward head: {problem}") from None
    return model


def train_reward(
    folder: Path, chat: Chat, pairs: Sequence[TokenisedPair], settings: RewardSettings, run: StageRun
) -> Any:
    """The model in ``folder`` trained to tell the chosen from the rejected; the new head starts at zero.

    From zero, so that the first reward is the same for every answer, whatever the seed.
    """
    import torch
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    torch.manual_seed(run.seed)
    model = load_head(folder, chat.tokenizer)
    head = model.score
    if "score.weight" not in _names(folder):
        torch.nn.init.zeros_(head.weight)
    data = Dataset.from_dict(
        {"chosen_ids": [list(pair.chosen) for pair in pairs], "rejected_ids": [list(pair.rejected) for pair in pairs]}
    )
    trainer = RewardTrainer(
        model,
        arguments(RewardConfig, settings, run, max_length=None, center_rewards_coefficient=settings.centre or None),
        train_dataset=data,
        processing_class=chat.tokenizer,
        peft_config=settings.lora and settings.lora.config("SEQ_CLS"),
    )
    return merged(train(trainer, run))


class RewardModel:
    """The rewards of one model or of an ensemble (:class:`trainer.posttrain.reward.Reward`)."""

    def __init__(self, folders: Sequence[Path], chat: Chat, *, caution: float = 0.0, batch: int = 64) -> None:
        self.models = [load_head(folder, chat.tokenizer).eval() for folder in folders]
        self._chat, self._caution, self._batch = chat, caution, batch

    def __call__(self, *, prompts: Sequence[str], completions: Sequence[str], **_: Any) -> list[float]:
        """``prompts`` as :meth:`Chat.prompt` writes them, ``completions`` as text: read as answers that have ended."""
        return self.of_tokens(
            [
                [*self._chat.ids(prompt), *self._chat.completion_ids(text)]
                for prompt, text in zip(prompts, completions, strict=True)
            ]
        )

    def of_messages(self, prompts: Sequence[Sequence[Message]], answers: Sequence[str]) -> list[float]:
        return self(prompts=[self._chat.prompt(each) for each in prompts], completions=answers)

    def of_tokens(self, rows: Sequence[Sequence[int]]) -> list[float]:
        """The reward of each row of prompt and answer, read at its last token."""
        import torch

        pad = self._chat.tokenizer.pad_token_id
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        rewards = torch.empty(len(self.models), len(rows))
        for start in range(0, len(rows), self._batch):
            part = order[start : start + self._batch]
            longest = max(len(rows[i]) for i in part)
            ids_BT = torch.tensor([[*rows[i], *[pad] * (longest - len(rows[i]))] for i in part])
            mask_BT = torch.tensor([[1] * len(rows[i]) + [0] * (longest - len(rows[i])) for i in part])
            for member, model in enumerate(self.models):
                with torch.no_grad():
                    read = model(input_ids=ids_BT.to(model.device), attention_mask=mask_BT.to(model.device))
                rewards[member, part] = read.logits[:, 0].float().cpu()
        spread = rewards.std(dim=0) if len(self.models) > 1 else torch.zeros(len(rows))
        return [float(value) for value in rewards.mean(dim=0) - self._caution * spread]


def _names(folder: Path) -> set[str]:
    """The names of the weights in ``folder``."""
    from safetensors import safe_open

    found: set[str] = set()
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            found.update(file.keys())
    return found


def pair_metrics(
    chosen: Sequence[float], rejected: Sequence[float], lengths: Sequence[tuple[int, int]]
) -> dict[str, float | Interval]:
    """How far the rewards of held-out pairs can be believed; ``lengths`` of chosen and rejected, in tokens."""
    margins = np.subtract(chosen, rejected)
    found = pair_accuracy(margins, [a for a, _ in lengths], [b for _, b in lengths])
    held = calibration(margins, bins=min(10, len(margins)))
    rewards, tokens = [*chosen, *rejected], [n for side in (0, 1) for n in (pair[side] for pair in lengths)]
    metrics: dict[str, float | Interval] = {
        "accuracy": found.accuracy,
        "calibration_error": held.expected_calibration_error,
        "calibration_error_if_calibrated": held.expected_error_if_calibrated,
        "brier": held.brier,
    }
    if found.longer_accuracy is not None and found.p_value is not None:
        metrics |= {"length_accuracy": found.longer_accuracy, "p_value_of_length_as_good": found.p_value}
    if np.std(rewards) > 0 and np.std(tokens) > 0:
        metrics["reward_length_correlation"] = float(np.corrcoef(rewards, tokens)[0, 1])
    return metrics
