"""The next token's distribution against its definition, and text against what the tokenizer decodes all at once."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from scaling.shape import ModelShape
from trainer.data.tokenizer import train_tokenizer
from trainer.generate.decoding import generate
from trainer.generate.sampling import Sampling
from trainer.generate.text_stream import TextStream
from trainer.models.llama import Llama

LOGITS = st.lists(st.integers(-8, 8).map(float), min_size=1, max_size=12)
"""Whole numbers, so that ties happen."""


def brute_force(logits: list[float], sampling: Sampling) -> list[float]:
    """The definition, token by token, with the standard library alone."""
    ranked = sorted(range(len(logits)), key=lambda token: (-logits[token], token))
    weights = [math.exp((value - max(logits)) / sampling.temperature) for value in logits]
    kept = ranked[: sampling.top_k]
    if sampling.top_p is not None:
        total, made_up, nucleus = sum(weights[token] for token in kept), 0.0, []
        for token in kept:
            if made_up >= sampling.top_p:
                break
            nucleus.append(token)
            made_up += weights[token] / total
        kept = nucleus
    total = sum(weights[token] for token in kept)
    return [weights[token] / total if token in kept else 0.0 for token in range(len(logits))]


@given(
    LOGITS,
    st.floats(0.1, 10),
    st.none() | st.integers(1, 15),
    # Not a sum of a few equal shares, at which the last bit decides.
    st.none() | st.floats(0.01, 1).map(lambda p: p * 0.999 + 1e-5),
)
def test_probabilities_are_those_of_the_definition(
    logits: list[float], temperature: float, top_k: int | None, top_p: float | None
) -> None:
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    found = sampling.probabilities(torch.tensor(logits))
    assert found.tolist() == pytest.approx(brute_force(logits, sampling), abs=1e-9)


@given(LOGITS)
def test_greedy_is_the_limit_of_cold_sampling_and_of_the_smallest_nucleus(logits: list[float]) -> None:
    p_V = Sampling(temperature=0).probabilities(torch.tensor(logits))
    assert p_V.argmax() == logits.index(max(logits)) and p_V.sum() == 1
    for sampling in (Sampling(temperature=1e-320), Sampling(top_k=1), Sampling(top_p=1e-9)):
        chosen = sampling.probabilities(torch.tensor(logits))
        assert logits[int(chosen.argmax())] == max(logits)
        assert torch.isfinite(chosen).all()


def test_draws_follow_the_probabilities_and_the_seed() -> None:
    logits_V = torch.tensor([0.0, 1.0, 2.0, -1.0])
    sampling = Sampling(top_k=3)
    draws = [[sampling.draw(logits_V, g) for _ in range(4000)] for g in map(torch.Generator().manual_seed, (1, 1, 2))]
    assert draws[0] == draws[1] != draws[2]
    expected = sampling.probabilities(logits_V)
    counts = torch.bincount(torch.tensor(draws[0]), minlength=4)
    assert counts[3] == 0
    # Five standard deviations.
    assert ((counts - 4000 * expected).abs() <= 5 * (4000 * expected * (1 - expected)).sqrt()).all()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    texts = ["the cat sat — on the mat, 北京 naïve café 🦜🦜 "] * 20
    return train_tokenizer(iter(texts), 275)


@given(st.lists(st.integers(0, 280), max_size=40))
def test_streamed_pieces_are_the_text_decoded_at_once(tokenizer: Tokenizer, tokens: list[int]) -> None:
    stream = TextStream(tokenizer)
    pieces = [stream.add(token) for token in tokens]
    assert "".join(pieces) + stream.end() == tokenizer.decode(tokens)


@given(st.text(max_size=20))
def test_no_character_of_whole_text_is_shown_in_parts(tokenizer: Tokenizer, text: str) -> None:
    stream = TextStream(tokenizer)
    shown = [stream.add(token) for token in tokenizer.encode(text).ids]
    assert "".join(shown) == text
    assert stream.end() == ""
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in shown)


def test_a_character_that_never_becomes_whole_is_one_replacement(tokenizer: Tokenizer) -> None:
    parrot = [tokenizer.token_to_id(mark) for mark in "ðŁ"]  # the first two of its four bytes
    stream = TextStream(tokenizer)
    assert [stream.add(token) for token in parrot] == ["", ""]
    assert stream.end() == "\ufffd"


SHAPE = ModelShape(layers=2, width=32, heads=4, kv_heads=2, ffn_width=48, vocabulary=40, context=16)


@pytest.fixture
def model() -> Llama:
    made = Llama(SHAPE)
    made.initialise(0)
    return made


def uncached(model: Llama, prompt: list[int], sampling: Sampling, seed: int, most: int) -> list[int]:
    """The same by a whole forward pass a token; the window grows to the context and falls back to half of it."""
    generator, tokens, start = torch.Generator().manual_seed(seed), list(prompt), 0
    for _ in range(most):
        if len(tokens) - start > SHAPE.context:
            start = len(tokens) - SHAPE.context // 2
        with torch.no_grad():
            logits_V = model(torch.tensor([tokens[start:]]))[0, -1]
        tokens.append(sampling.draw(logits_V, generator))
    return tokens[len(prompt) :]


@pytest.mark.parametrize(("prompt_length", "most"), [(1, 10), (16, 1), (5, 60), (40, 20)])
def test_cached_decoding_draws_what_whole_passes_draw_and_tells_once(
    model: Llama, prompt_length: int, most: int
) -> None:
    prompt, notes, sampling = list(range(prompt_length)), list[str](), Sampling(temperature=0.8, top_p=0.95)
    prompt = [token % 40 for token in prompt]
    found = list(generate(model, prompt, sampling, seed=3, most=most, note=notes.append))
    assert found == uncached(model, prompt, sampling, 3, most)
    # The last token is drawn and not read.
    assert len(notes) == (prompt_length + most - 1 > SHAPE.context)


def test_the_separator_ends_the_text_and_is_not_part_of_it(model: Llama) -> None:
    def draw(stop: int | None) -> list[int]:
        return list(generate(model, [1], Sampling(), seed=0, most=30, stop=stop, note=lambda _: None))

    whole = draw(None)
    first = {token: whole.index(token) for token in whole}
    for token, at in first.items():
        assert draw(token) == whole[:at]
