"""Answers in a batch are those of each prompt alone, and are drawn from the distribution that was asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from scaling.errors import UserError
from trainer.export import hugging_face
from trainer.generate.sampling import Sampling
from trainer.posttrain.sampling import SampledAnswers, sample, stop_tokens

from ..test_export import silent, trained

VOCABULARY = 24
PROMPTS = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10], [11, 12]] * 4
STOP = {0, 7}


def tiny_gpt2() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=48, initializer_range=0.2,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return GPT2LMHeadModel(config).eval()


PLAIN = Sampling()


def draw(model: Any, prompts: list[list[int]], sampling: Sampling = PLAIN, **changes: Any) -> SampledAnswers:
    settings: dict[str, Any] = {"max_new_tokens": 16, "stop": STOP, "rows_at_once": 256} | changes
    return sample(model, prompts, sampling, generator=torch.Generator().manual_seed(3), **settings)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=0.7, top_p=0.8)], ids=["plain", "nucleus"])
def test_an_answer_does_not_depend_on_what_else_is_in_the_batch(
    architecture: str, sampling: Sampling, tiny_llama: Callable[..., Any]
) -> None:
    model = tiny_llama(VOCABULARY) if architecture == "llama" else tiny_gpt2()
    together = draw(model, PROMPTS, sampling)
    assert len(set(together.lengths_B.tolist())) > 3, "rows end at different times"
    for cut in (draw(model, PROMPTS, sampling, rows_at_once=1), draw(model, PROMPTS, sampling, rows_at_once=5)):
        assert torch.equal(cut.tokens_BT, together.tokens_BT)
        assert torch.equal(cut.truncated_B, together.truncated_B)
        torch.testing.assert_close(cut.log_probs_BT, together.log_probs_BT, atol=2e-5, rtol=0)
        torch.testing.assert_close(cut.sampling_log_probs_BT, together.sampling_log_probs_BT, atol=2e-5, rtol=0)
    # Other neighbours, of other lengths.
    fewer = draw(model, PROMPTS[:2], sampling)
    assert fewer.completions() == together.completions()[:2]


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=0.6, top_k=9, top_p=0.9)], ids=["plain", "cut"])
def test_log_probabilities_are_those_of_the_row_alone(sampling: Sampling, tiny_llama: Callable[..., Any]) -> None:
    model = tiny_llama(VOCABULARY)
    answers = draw(model, PROMPTS, sampling)
    for at, (prompt, completion) in enumerate(zip(PROMPTS, answers.completions(), strict=True)):
        with torch.no_grad():
            logits_TV = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
        token_T1 = torch.tensor(completion).unsqueeze(1)
        of_model = torch.log_softmax(logits_TV, -1).gather(1, token_T1)[:, 0]
        drawn_from = sampling.probabilities(logits_TV).gather(1, token_T1)[:, 0].log().float()
        length = len(completion)
        torch.testing.assert_close(answers.log_probs_BT[at, :length], of_model, atol=2e-5, rtol=0)
        torch.testing.assert_close(answers.sampling_log_probs_BT[at, :length], drawn_from, atol=2e-5, rtol=0)
        assert not answers.log_probs_BT[at, length:].any()


def test_an_answer_ends_at_its_first_stop_token_or_is_truncated(tiny_llama: Callable[..., Any]) -> None:
    answers = draw(tiny_llama(VOCABULARY), PROMPTS)
    assert 0 < int(answers.truncated_B.sum()) < len(PROMPTS)
    for completion, truncated in zip(answers.completions(), answers.truncated_B.tolist(), strict=True):
        assert not STOP & set(completion[:-1])
        assert (completion[-1] in STOP) != truncated
        assert len(completion) == 16 or not truncated


def test_tokens_are_drawn_as_often_as_they_are_likely(tiny_llama: Callable[..., Any]) -> None:
    model, rows = tiny_llama(VOCABULARY), 6000
    answers = draw(model, [[1, 2]] * rows, max_new_tokens=1, rows_at_once=rows)
    with torch.no_grad():
        wanted_V = torch.softmax(model(torch.tensor([[1, 2]])).logits[0, -1], -1)
    found_V = torch.bincount(answers.tokens_BT[:, 0], minlength=VOCABULARY)
    chi_square = ((found_V - rows * wanted_V).square() / (rows * wanted_V)).sum()
    assert chi_square < 49.7, "the 99.9th percentile at 23 degrees of freedom"


def test_greedy_answers_are_those_of_transformers(tiny_llama: Callable[..., Any]) -> None:
    model = tiny_llama(VOCABULARY)
    found = draw(model, PROMPTS[:4], Sampling(temperature=0), stop={0}).completions()
    for prompt, completion in zip(PROMPTS, found, strict=False):
        theirs = model.generate(torch.tensor([prompt]), max_new_tokens=16, do_sample=False, pad_token_id=0)
        assert theirs[0, len(prompt) :].tolist() == completion


def test_an_exported_run_is_sampled_to_its_own_stop_token(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    hugging_face.export(trained(tmp_path), tmp_path / "out", force=False, note=silent)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", local_files_only=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out", local_files_only=True)
    assert stop_tokens(model, tokenizer) == {0}
    prompts = tokenizer(["The cat", "mats sat on the"], add_special_tokens=False)["input_ids"]
    answers = draw(model, prompts, max_new_tokens=8, stop=stop_tokens(model, tokenizer))
    assert answers.tokens_BT.shape[0] == 2 and torch.isfinite(answers.log_probs_BT).all()


@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_sampled_is_refused_in_a_line(tiny_llama: Callable[..., Any]) -> None:
    from transformers import Mamba2Config, Mamba2ForCausalLM

    model = tiny_llama(VOCABULARY)
    with pytest.raises(UserError, match="context of 48"):
        draw(model, [[1] * 40], max_new_tokens=9)
    with pytest.raises(UserError, match="no token"):
        draw(model, [[1], []])
    config = Mamba2Config(
        vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=1, num_heads=4, head_dim=16, state_size=8, n_groups=1,
        bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    with pytest.raises(UserError, match="mamba2 has none"):
        draw(Mamba2ForCausalLM(config), [[1, 2]])
