"""Best-of-n: answers sampled once, what the best of each smaller n scores, and best-of-n as a policy.

The statistics are those of ``scaling.preference.best_of_n``: every n up to the number sampled is estimated from the
same answers, without bias.

Shapes: p prompts, m answers sampled for each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from scaling.errors import UserError
from scaling.fits.bootstrap import interval_of
from scaling.preference.best_of_n import expected_best, kl_best_of_n
from scaling.record import Interval, Record
from trainer.generate.sampling import Sampling
from trainer.posttrain.reward import Reward
from trainer.posttrain.sampling import check_context, sample, stop_tokens

__all__ = ["Answers", "BestOfN", "BestOfNRow", "BestOfNSettings", "best_of_n_rows", "sample_answers", "score_answers"]


class BestOfNSettings(Record):
    answers: int = Field(ge=1, description="answers sampled for each prompt, m")
    max_new_tokens: int = Field(ge=1)
    sampling: Sampling = Sampling()
    rows_at_once: int = Field(
        default=256, ge=1, description="answers decoded together; the result does not depend on it"
    )
    seed: int = Field(default=0, ge=0)


class BestOfNRow(Record):
    """Of the best of n by the proxy: means over prompts with their bootstrap over prompts."""

    n: int
    kl_nats: float
    """From the distribution that was sampled: ln n − (n − 1)/n."""
    proxy: Interval
    gold: Interval | None
    answer_tokens: Interval
    truncated_share: Interval


@dataclass(frozen=True)
class Answers:
    prompts: tuple[str, ...]
    completions: tuple[tuple[str, ...], ...]
    """m of each prompt, without special tokens."""
    completion_ids: tuple[tuple[list[int], ...], ...]
    tokens_pm: NDArray[np.int64]
    """Tokens of each answer, the stop token included."""
    truncated_pm: NDArray[np.bool_]
    """True where no stop token came within ``max_new_tokens``."""


def sample_answers(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    settings: BestOfNSettings,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Answers:
    """``settings.answers`` of each prompt. ``progress`` is told how many of how many prompts have theirs."""
    if not prompts:
        raise UserError("there are no prompts: give one or more")
    ids = tokenizer(list(prompts), add_special_tokens=False)["input_ids"]
    check_context(model, ids, settings.max_new_tokens)
    stop = stop_tokens(model, tokenizer)
    generator = torch.Generator().manual_seed(settings.seed)
    m = settings.answers
    at_once = max(1, settings.rows_at_once // m)
    completions: list[list[int]] = []
    truncated: list[bool] = []
    for start in range(0, len(ids), at_once):
        part = ids[start : start + at_once]
        found = sample(
            model,
            [row for row in part for _ in range(m)],
            settings.sampling,
            max_new_tokens=settings.max_new_tokens,
            stop=stop,
            # Drawn from row by row, so that where the parts are cut makes no difference.
            generator=generator,
            rows_at_once=settings.rows_at_once,
        )
        completions += found.completions()
        truncated += found.truncated_B.tolist()
        progress(start + len(part), len(ids))
    texts = tokenizer.batch_decode(completions, skip_special_tokens=True)
    return Answers(
        prompts=tuple(prompts),
        completions=_by_prompt(texts, m),
        completion_ids=_by_prompt(completions, m),
        tokens_pm=np.array([len(row) for row in completions]).reshape(-1, m),
        truncated_pm=np.array(truncated).reshape(-1, m),
    )


def _by_prompt(rows: Sequence[Any], m: int) -> tuple[tuple[Any, ...], ...]:
    return tuple(tuple(rows[start : start + m]) for start in range(0, len(rows), m))


def score_answers(
    answers: Answers, reward: Reward, columns: Mapping[str, Sequence[Any]] | None = None
) -> NDArray[np.float64]:
    """The score of each answer (p, m). ``columns`` are what else the reward is given, a value a prompt."""
    m = answers.tokens_pm.shape[1]
    scores = reward(
        prompts=[prompt for prompt in answers.prompts for _ in range(m)],
        completions=[text for row in answers.completions for text in row],
        completion_ids=[ids for row in answers.completion_ids for ids in row],
        **{name: [value for value in column for _ in range(m)] for name, column in (columns or {}).items()},
    )
    if len(scores) != answers.tokens_pm.size:
        raise UserError(
            f"the reward gave {len(scores)} scores for {answers.tokens_pm.size} answers: it is to give one for each"
        )
    return np.array(scores, dtype=np.float64).reshape(-1, m)


def best_of_n_rows(
    answers: Answers,
    proxy_pm: NDArray[np.float64],
    gold_pm: NDArray[np.float64] | None = None,
    *,
    ns: Sequence[int] | None = None,
    resamples: int = 1000,
    level: float = 0.9,
    seed: int = 0,
) -> list[BestOfNRow]:
    """A row for each of ``ns``, or for every n from 1 to m. All rows are of the same resamples of the prompts."""
    prompts, m = answers.tokens_pm.shape
    count_Kp = np.random.default_rng(seed).multinomial(prompts, np.full(prompts, 1 / prompts), size=resamples)

    def mean(values_pm: NDArray[Any], n: int) -> Interval:
        values_p = expected_best(proxy_pm, values_pm, n)
        return interval_of(float(values_p.mean()), count_Kp @ values_p / prompts, level)

    return [
        BestOfNRow(
            n=n,
            kl_nats=float(kl_best_of_n(n)),
            proxy=mean(proxy_pm, n),
            gold=None if gold_pm is None else mean(gold_pm, n),
            answer_tokens=mean(answers.tokens_pm, n),
            truncated_share=mean(answers.truncated_pm, n),
        )
        for n in (ns or range(1, m + 1))
    ]


@dataclass(frozen=True)
class BestOfN:
    """The policy that answers with the best of ``settings.answers`` by ``reward``; of equal ones, the first sampled."""

    model: Any
    tokenizer: Any
    reward: Reward
    settings: BestOfNSettings

    def __call__(self, prompts: Sequence[str], columns: Mapping[str, Sequence[Any]] | None = None) -> list[str]:
        """One answer to each prompt, without special tokens."""
        answers = sample_answers(self.model, self.tokenizer, prompts, self.settings)
        best_p = score_answers(answers, self.reward, columns).argmax(axis=1)
        return [row[best] for row, best in zip(answers.completions, best_p.tolist(), strict=True)]
