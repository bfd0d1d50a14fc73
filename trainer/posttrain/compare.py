"""Policies side by side on held-out prompts: score, divergence from the first of them, length, and who wins.

Every policy answers the same prompts with the same random numbers. Length stands beside every preference, since longer
answers are preferred for being long (Singhal et al. 2310.03716; Dubois et al. 2404.04475).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from scaling.preference.intervals import bootstrap_interval
from scaling.preference.win_rate import length_controlled_win_rate, win_rate
from scaling.record import Interval, Record
from trainer.generate.sampling import Sampling
from trainer.posttrain.chat_template import Chat
from trainer.posttrain.examples import Example
from trainer.posttrain.policy import load_policy
from trainer.posttrain.preferences import columns_of
from trainer.posttrain.reward import Reward
from trainer.posttrain.tasks.task import Task
from trainer.whole_file import write_whole

__all__ = ["Answers", "CompareSettings", "answers_of", "compare", "mean_interval"]

_RESAMPLES = 2000


class CompareSettings(Record):
    prompts: int = Field(default=400, ge=10)
    """Held-out ones."""
    temperature: float = Field(default=1.0, ge=0)
    level: float = Field(default=0.9, gt=0, lt=1)


class Answers(Record):
    """One policy's answers, and what they are worth."""

    texts: tuple[str, ...]
    tokens: tuple[int, ...]
    truncated: tuple[bool, ...]
    kl_nats: tuple[float, ...]
    """ln π(answer) − ln π_ref(answer): its mean is an unbiased estimate of KL(π‖π_ref) an answer, at temperature 1."""
    gold: tuple[float, ...] | None
    checks: dict[str, tuple[float, ...]]
    proxy: tuple[float, ...] | None


def answers_of(
    folder: Path,
    reference: Any,
    chat: Chat,
    rows: Sequence[Example],
    settings: CompareSettings,
    *,
    max_new_tokens: int,
    seed: int,
    task: Task | None,
    proxy: Reward | None,
    progress: Callable[[float], None] = lambda share: None,
) -> Answers:
    """What the policy in ``folder`` answers to ``rows``; ``reference`` is a model."""
    import torch

    from trainer.posttrain.log_probs import answer_log_probs
    from trainer.posttrain.sampling import sample, stop_tokens

    policy = load_policy(folder).eval()
    prompts = [chat.prompt(row.prompt) for row in rows]
    ids = [chat.ids(prompt) for prompt in prompts]
    found = sample(
        policy,
        ids,
        Sampling(temperature=settings.temperature),
        max_new_tokens=max_new_tokens,
        stop=stop_tokens(policy, chat.tokenizer),
        generator=torch.Generator().manual_seed(seed),
        progress=progress,
    )
    completions = found.completions()
    with torch.no_grad():
        of_reference = answer_log_probs(reference, ids, completions)
    texts = [chat.text(each) for each in completions]
    columns = columns_of(rows)
    checks: dict[str, list[float]] = {}
    if task is not None:
        for text, row in zip(texts, rows, strict=True):
            for name, value in task.checks(text, row.columns).items():
                checks.setdefault(name, []).append(value)
    return Answers(
        texts=tuple(texts),
        tokens=tuple(found.lengths_B.tolist()),
        truncated=tuple(found.truncated_B.tolist()),
        kl_nats=tuple((found.log_probs_BT.sum(1) - of_reference).tolist()),
        gold=None if task is None else tuple(task.score(t, r.columns) for t, r in zip(texts, rows, strict=True)),
        checks={name: tuple(values) for name, values in checks.items()},
        proxy=None if proxy is None else tuple(proxy(prompts=prompts, completions=texts, **columns)),
    )


def compare(
    policies: Mapping[str, Answers], baseline: str, rows: Sequence[Example], settings: CompareSettings, out: Path
) -> dict[str, float | Interval]:
    """Metrics named ``POLICY/WHAT``; ``gold_gain`` and the win rates are against ``baseline``, prompt by prompt.

    ``out`` becomes a file of all answers, a row a prompt.
    """
    level = settings.level
    metrics: dict[str, float | Interval] = {}
    base = policies[baseline]
    for name, each in policies.items():
        series = {"kl_nats": each.kl_nats, "answer_tokens": each.tokens, "truncated_share": each.truncated}
        series |= {f"check_{check}": values for check, values in each.checks.items()}
        for what, scores in (("gold", each.gold), ("proxy", each.proxy)):
            if scores is not None:
                series[what] = scores
        metrics |= {f"{name}/{what}": mean_interval(values, level) for what, values in series.items()}
        if name == baseline:
            continue
        for what, scores, other in (("gold", each.gold, base.gold), ("proxy", each.proxy, base.proxy)):
            if scores is None or other is None:
                continue
            difference = np.subtract(scores, other)
            metrics[f"{name}/{what}_gain"] = mean_interval(difference, level)
            wins = (np.sign(difference) + 1) / 2
            metrics[f"{name}/{what}_win_rate"] = win_rate(wins, level=level).rate
            if len(set(np.subtract(each.tokens, base.tokens))) > 1:
                controlled = length_controlled_win_rate(wins, each.tokens, base.tokens, level=level)
                metrics[f"{name}/{what}_win_rate_length_controlled"] = controlled.rate
    lines = []
    for i, row in enumerate(rows):
        said = {
            name: {
                "text": each.texts[i],
                "tokens": each.tokens[i],
                **({} if each.gold is None else {"gold": each.gold[i]}),
                **({} if each.proxy is None else {"proxy": each.proxy[i]}),
            }
            for name, each in policies.items()
        }
        prompt = [message.model_dump() for message in row.prompt]
        lines.append(json.dumps({"prompt": prompt, "wanted": row.completion, "answers": said}, ensure_ascii=False))
    write_whole(out, "".join(f"{line}\n" for line in lines))
    return metrics


def mean_interval(values: Any, level: float) -> Interval:
    """The mean and its percentile interval over resampled prompts."""
    array = np.asarray(values, dtype=np.float64)
    return bootstrap_interval(
        len(array), lambda count_Kn: count_Kn @ array / len(array), bootstrap=_RESAMPLES, level=level, seed=0
    )
