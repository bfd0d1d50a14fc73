"""A padded batch says of each row what the model says of that row alone, to its gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from trainer.posttrain.answer_batch import AnswerBatch
from trainer.posttrain.log_probs import answer_log_probs, predict, token_entropy

PROMPTS = [[1, 2, 3], [4], [2, 2, 5, 1]]
COMPLETIONS = [[3, 0], [5, 4, 3, 2, 0], [1]]


def alone(model: Any, prompt: list[int], completion: list[int]) -> Tensor:
    """log π of each token, from a pass of its own."""
    values = []
    for at, token in enumerate(completion):
        logits_V = model(torch.tensor([prompt + completion[:at]])).logits[0, -1]
        values.append(torch.log_softmax(logits_V, -1)[token])
    return torch.stack(values)


@pytest.mark.parametrize("average", ["sum", "mean"])
@pytest.mark.parametrize("rows_at_once", [2, 64])
def test_a_batch_is_its_rows_to_the_gradient(average: Any, rows_at_once: int, tiny_llama: Callable[..., Any]) -> None:
    model, weights_B = tiny_llama(), torch.tensor([1.0, -2.0, 0.5])
    found_B = answer_log_probs(model, PROMPTS, COMPLETIONS, average=average, rows_at_once=rows_at_once)
    (found_B * weights_B).sum().backward()
    gradients = [weight.grad.clone() for weight in model.parameters()]
    model.zero_grad()
    rows = [alone(model, prompt, completion) for prompt, completion in zip(PROMPTS, COMPLETIONS, strict=True)]
    wanted_B = torch.stack([row.sum() if average == "sum" else row.mean() for row in rows])
    (wanted_B * weights_B).sum().backward()
    torch.testing.assert_close(found_B, wanted_B, atol=1e-5, rtol=1e-5)
    for found, weight in zip(gradients, model.parameters(), strict=True):
        torch.testing.assert_close(found, weight.grad, atol=2e-5, rtol=1e-4)


def test_hidden_states_are_those_that_the_logits_are_made_from(tiny_llama: Callable[..., Any]) -> None:
    model = tiny_llama()
    predictions = predict(model, AnswerBatch.of(PROMPTS, COMPLETIONS), hidden=True)
    torch.testing.assert_close(model.lm_head(predictions.hidden_BTW), predictions.logits_BTV)
    assert predictions.logits_BTV.shape == (3, 5, 6)


def test_rows_of_a_batch_lose_the_columns_that_are_padding_in_all() -> None:
    batch = AnswerBatch.of(PROMPTS, COMPLETIONS)
    assert batch.tokens_BS.shape == (3, 9)
    part = batch.rows(torch.tensor([0, 1]))
    assert (part.tokens_BS.shape, part.prompt_columns) == ((2, 8), 3)
    assert part.tokens_BS[0].tolist() == [1, 2, 3, 3, 0, 0, 0, 0]
    assert part.mask_BS[1].tolist() == [False, False, True, True, True, True, True, True]
    assert part.positions_BS[1].tolist() == [0, 0, 0, 1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="a token of prompt"):
        AnswerBatch.of([[1]], [[]])


def test_entropy_is_that_of_the_distribution() -> None:
    logits_BTV = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(token_entropy(logits_BTV), torch.distributions.Categorical(logits=logits_BTV).entropy())
