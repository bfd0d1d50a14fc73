"""Best-of-n against its exact expectation on a policy whose every answer is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from scaling.errors import UserError
from trainer.generate.sampling import Sampling
from trainer.posttrain.best_of_n import BestOfN, BestOfNSettings, best_of_n_rows, sample_answers, score_answers
from trainer.posttrain.log_probs import answer_log_probs

from .conftest import WORDS

SETTINGS = BestOfNSettings(answers=16, max_new_tokens=2, seed=1)
ANSWERS = [[0], *([a, 0] for a in range(1, 6)), *([a, b] for a in range(1, 6) for b in range(1, 6))]
SCORES = np.random.default_rng(3).permutation(len(ANSWERS)).astype(float)
"""No two alike."""


def proxy(*, prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float]:
    known = {" ".join(WORDS[token] for token in ids if token): SCORES[at] for at, ids in enumerate(ANSWERS)}
    return [known[text] for text in completions]


def gold(*, prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float]:
    return [float(text.count("a")) for text in completions]


def test_every_n_is_estimated_as_the_policy_would_do(tiny_llama: Callable[..., Any], word_tokenizer: Any) -> None:
    model = tiny_llama()
    with torch.no_grad():
        p_Y = answer_log_probs(model, [[1]] * len(ANSWERS), ANSWERS).double().exp().numpy()
    golds_Y = np.array([" ".join(WORDS[token] for token in ids).count("a") for ids in ANSWERS], dtype=float)
    lengths_Y = np.array([len(ids) for ids in ANSWERS])
    answers = sample_answers(model, word_tokenizer, ["ask"] * 150, SETTINGS)
    rows = best_of_n_rows(answers, score_answers(answers, proxy), score_answers(answers, gold), level=0.999)
    assert [row.n for row in rows] == list(range(1, 17))
    order_Y = np.argsort(SCORES)
    below_Y = np.concatenate(([0.0], p_Y[order_Y].cumsum()))
    for row in rows:
        best_Y = np.diff(below_Y**row.n)
        assert row.gold is not None
        for found, values_Y in ((row.proxy, SCORES), (row.gold, golds_Y), (row.answer_tokens, lengths_Y)):
            assert found.low is not None and found.high is not None
            assert found.low <= float(best_Y @ values_Y[order_Y]) <= found.high
            assert found.low < found.estimate < found.high
        # The formula is a bound where there are few answers to choose among.
        kl = float((best_Y * np.log(best_Y / p_Y[order_Y])).sum())
        assert 0.5 * row.kl_nats - 1e-9 <= kl <= row.kl_nats + 1e-9
    assert rows[0].kl_nats == 0 and rows[15].kl_nats == pytest.approx(np.log(16) - 15 / 16)
    assert 0 < rows[0].truncated_share.estimate < 1
    assert best_of_n_rows(answers, score_answers(answers, proxy), ns=[1, 4])[1].gold is None


def test_answers_do_not_depend_on_how_many_are_decoded_together(
    tiny_llama: Callable[..., Any], word_tokenizer: Any
) -> None:
    model, prompts, told = tiny_llama(), ["ask", "ask a b", "c"], list[tuple[int, int]]()
    few = SETTINGS.model_copy(update={"answers": 5, "max_new_tokens": 6, "sampling": Sampling(temperature=0.8)})
    whole = sample_answers(model, word_tokenizer, prompts, few)
    parts = sample_answers(
        model, word_tokenizer, prompts, few.model_copy(update={"rows_at_once": 5}),
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert parts.completion_ids == whole.completion_ids and told == [(1, 3), (2, 3), (3, 3)]
    assert whole.tokens_pm.shape == (3, 5)
    assert whole.tokens_pm.tolist() == [[len(ids) for ids in row] for row in whole.completion_ids]
    assert whole.truncated_pm.tolist() == [[ids[-1] != 0 for ids in row] for row in whole.completion_ids]


def test_the_policy_gives_the_best_of_its_answers(tiny_llama: Callable[..., Any], word_tokenizer: Any) -> None:
    model, prompts = tiny_llama(), ["ask", "ask"] * 10
    wishes = [float(at % 3) for at in range(20)]

    def wished(*, completions: Sequence[str], wish: Sequence[float], **columns: Any) -> list[float]:
        return [-abs(len(text.split()) - wanted) for text, wanted in zip(completions, wish, strict=True)]

    given = BestOfN(model, word_tokenizer, wished, SETTINGS)(prompts, {"wish": wishes})
    answers = sample_answers(model, word_tokenizer, prompts, SETTINGS)
    for text, row, wish in zip(given, answers.completions, wishes, strict=True):
        assert text in row
        assert abs(len(text.split()) - wish) == min(abs(len(other.split()) - wish) for other in row)
    with pytest.raises(UserError, match="1 scores for 320"):
        score_answers(answers, lambda **_: [1.0])
