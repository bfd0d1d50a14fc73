"""What a post-training found, from its stages' folders: who wins by how much, at what divergence and length."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.over_optimisation_data import OverOptimisation, over_optimisation
from analysis.win_rate_data import WinRates, win_rates
from scaling.preference.win_rate import length_controlled_win_rate
from trainer.posttrain.stage import StageFolder, StageResult

__all__ = ["PolicyRow", "PostTrainingView", "Sample", "post_training_view"]

_SAMPLES = 4
_METHODS = {"best_of_n": "best-of-n", "ppo": "PPO"}
_SCORE = {"best_of_n": "proxy", "ppo": "score"}


@dataclass(frozen=True)
class PolicyRow:
    """One policy of one seed; ``metrics`` are those of the comparison."""

    seed: int
    policy: str
    result: StageResult

    def value(self, what: str) -> float | None:
        return self.result.metrics.get(f"{self.policy}/{what}")

    def bounds(self, what: str) -> tuple[float | None, float | None]:
        found = self.result.intervals.get(f"{self.policy}/{what}")
        return (None, None) if found is None else (found.low, found.high)


@dataclass(frozen=True)
class Sample:
    """Answers to one held-out prompt; ``gain`` is the policy's gold score (or reward) over the baseline's."""

    policy: str
    prompt: str
    answer: str
    before: str
    gain: float


@dataclass(frozen=True)
class PostTrainingView:
    name: str
    stages: tuple[tuple[int, str, StageFolder, StageResult], ...]
    baseline: str
    policies: tuple[PolicyRow, ...]
    samples: tuple[Sample, ...]
    """The best and the worst of each policy against the baseline, of the first seed."""
    over_optimised: OverOptimisation | None
    wins: WinRates | None
    level: float


def post_training_view(name: str, stages: Sequence[tuple[int, str, StageFolder]]) -> PostTrainingView:
    """``stages``: seed, name and folder of each that has ended, in their order."""
    ended = [(seed, stage, folder, result) for seed, stage, folder in stages if (result := folder.result()) is not None]
    compared = [(seed, folder, result) for seed, stage, folder, result in ended if stage == "compare"]
    rows = [
        PolicyRow(seed, policy, result)
        for seed, _, result in compared
        for policy in dict.fromkeys(key.partition("/")[0] for key in result.metrics if "/" in key)
    ]
    answers = [(seed, _answers(folder)) for seed, folder, _ in compared]
    baseline = "sft" if any(row.policy == "sft" for row in rows) else "base"
    return PostTrainingView(
        name=name,
        stages=tuple(ended),
        baseline=baseline,
        policies=tuple(rows),
        samples=tuple(_samples(answers[0][1], baseline)) if answers else (),
        over_optimised=_over_optimised(ended),
        wins=_wins(answers, baseline),
        level=ended[0][3].level if ended else 0.9,
    )


def _answers(folder: StageFolder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in folder.rows.read_text(encoding="utf-8").splitlines()]


def _score(answer: dict[str, Any]) -> float | None:
    """Gold where there is a rule, else the reward model's."""
    return answer.get("gold", answer.get("proxy"))


def _samples(rows: list[dict[str, Any]], baseline: str) -> list[Sample]:
    found = []
    for policy in rows[0]["answers"] if rows else ():
        if policy in ("base", baseline):
            continue
        gains = []
        for row in rows:
            mine, other = (_score(row["answers"][each]) for each in (policy, baseline))
            if mine is not None and other is not None:
                gains.append((mine - other, row))
        gains.sort(key=lambda each: -each[0])
        for gain, row in [*gains[:_SAMPLES], *gains[-_SAMPLES:]]:
            said = row["answers"]
            prompt = "\n".join(message["content"] for message in row["prompt"])
            found.append(Sample(policy, prompt, said[policy]["text"], said[baseline]["text"], gain))
    return found


def _over_optimised(ended: Sequence[tuple[int, str, StageFolder, StageResult]]) -> OverOptimisation | None:
    """Gold and proxy on the way of every method that was led by a reward; None where there is no gold score."""
    rows = [
        {
            "method": _METHODS[stage],
            "seed": seed,
            # Sampled, a small divergence can come out below none.
            "kl_nats": max(row["kl"], 0.0),
            "gold": row["gold"],
            "proxy": row[_SCORE[stage]],
        }
        for seed, stage, folder, _ in ended
        if stage in _SCORE
        for row in folder.curve()
        if "gold" in row
    ]
    return over_optimisation(pd.DataFrame(rows)) if rows else None


def _wins(answers: Sequence[tuple[int, list[dict[str, Any]]]], baseline: str) -> WinRates | None:
    """Of each policy over the baseline, all seeds together; the prompts are the units."""
    told = {}
    for policy in dict.fromkeys(policy for _, rows in answers for row in rows for policy in row["answers"]):
        if policy == baseline:
            continue
        preference, mine, theirs, prompts = [], [], [], []
        for _, rows in answers:
            for i, row in enumerate(rows):
                first, second = (_score(row["answers"][each]) for each in (policy, baseline))
                if first is None or second is None:
                    continue
                preference.append((np.sign(first - second) + 1) / 2)
                mine.append(row["answers"][policy]["tokens"])
                theirs.append(row["answers"][baseline]["tokens"])
                prompts.append(i)
        if len(set(np.subtract(mine, theirs))) > 1:
            told[policy] = length_controlled_win_rate(preference, mine, theirs, prompt=prompts)
    return win_rates(told, baseline=baseline) if told else None
