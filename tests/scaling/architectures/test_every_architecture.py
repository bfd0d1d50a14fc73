"""What the planner relies on in each architecture: a dial that hits its size, counts of published models, refusals."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling import architectures
from scaling.architectures.mamba2 import chunk_length
from scaling.architectures.size_dial import transformer_aspect
from scaling.design.family import Family
from scaling.design.isoflop import isoflop_design
from scaling.serving import decode_flops, kv_cache_bytes, prefill_flops
from scaling.shape import ModelShape

NAMES = sorted(architectures._BUILT_IN)
every_architecture = pytest.mark.parametrize("name", NAMES)

GPT2 = ModelShape(
    architecture="gpt2", layers=12, width=768, heads=12, kv_heads=12, ffn_width=3072, vocabulary=50257, context=1024
)


def tolerance(params: float) -> float:
    """How far the dial may miss: a small model has few widths and depths to choose among."""
    return 0.20 if params < 1e6 else 0.15 if params < 1e7 else 0.10


@every_architecture
@given(log_params=st.floats(5, 10), vocabulary=st.sampled_from([257, 1024]), context=st.sampled_from([64, 256]))
def test_the_dial_hits_its_size(name: str, log_params: float, vocabulary: int, context: int) -> None:
    params = 10**log_params
    shape = architectures.get(name).shape_for(params, vocabulary=vocabulary, context=context)
    assert architectures.total_params(shape) == pytest.approx(params, rel=tolerance(params))
    assert (shape.architecture, shape.vocabulary, shape.context, shape.tied) == (name, vocabulary, context, True)


@every_architecture
def test_a_vocabulary_that_is_larger_than_the_model_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no shape with a vocabulary of 50000 comes near 1e\\+05 parameters"):
        architectures.get(name).shape_for(1e5, vocabulary=50_000, context=128)


@every_architecture
@pytest.mark.parametrize("tied", [True, False])
def test_conventions_differ_by_embedding_and_head_alone(name: str, tied: bool) -> None:
    model = architectures.get(name)
    counts = model.count_parameters(model.shape_for(1e6, vocabulary=1024, context=128, tied=tied))
    shape = model.shape_for(1e6, vocabulary=1024, context=128, tied=tied)
    embedding = shape.vocabulary * shape.width
    positions = shape.context * shape.width if name == "gpt2" else 0
    assert counts.with_head == counts.nonembedding + embedding
    assert counts.total == counts.nonembedding + positions + embedding * (1 if tied else 2)


@every_architecture
def test_a_token_costs_two_flops_a_parameter_it_meets_and_three_times_that_in_training(name: str) -> None:
    model = architectures.get(name)
    shape = model.shape_for(3e7, vocabulary=1024, context=128)
    forward = model.forward_flops(shape, 1)
    # Scores and a state-space model's state are products of activations.
    of_matrices = forward.total - forward.scores - (forward.recurrence if shape.state_width else 0)
    assert of_matrices / 2 == pytest.approx(model.count_parameters(shape).with_head, rel=0.03)
    assert model.training_flops_per_token(shape) >= 3 * forward.total


@every_architecture
def test_a_prompt_costs_what_its_tokens_would_one_by_one(name: str) -> None:
    shape = architectures.get(name).shape_for(1e6, vocabulary=1024, context=128)
    head = architectures.get(name).forward_flops(shape, 1).head
    assert prefill_flops(shape, 100) == sum(decode_flops(shape, at) for at in range(1, 101)) - 99 * head
    assert (kv_cache_bytes(shape, 1) > 0) == (decode_flops(shape, 100) > decode_flops(shape, 1))


@every_architecture
def test_iso_flop_lines_spend_their_budget_on_sizes_that_grow(name: str) -> None:
    design = isoflop_design(
        Family(name, vocabulary=1024, context=128, tied=True, global_batch_tokens=512),
        budgets=[1e12, 3e12, 1e13], sizes_per_budget=5, tokens_per_param_centre=9, size_step=1.7,
    )  # fmt: skip
    assert len(design.points) == 15
    for point in design.points:
        assert point.flops == pytest.approx(point.budget, rel=0.02)
        assert point.shape.architecture == name
    sizes = [architectures.total_params(shape) for shape in design.shapes]
    assert all(math.log(b / a) > 0.2 for a, b in itertools.pairwise(sizes))


@pytest.mark.parametrize(
    ("changes", "total"),
    [
        ({}, 124_439_808),
        ({"layers": 24, "width": 1024, "heads": 16, "kv_heads": 16, "ffn_width": 4096}, 354_823_168),
        ({"layers": 48, "width": 1600, "heads": 25, "kv_heads": 25, "ffn_width": 6400}, 1_557_611_200),
    ],
)
def test_the_released_gpt2_models_are_counted_to_the_parameter(changes: dict[str, int], total: int) -> None:
    assert architectures.total_params(ModelShape(**(GPT2.model_dump() | changes))) == total


def test_the_released_mamba2_is_counted_to_the_parameter() -> None:
    """mamba2-130m: a vocabulary of 50,277 padded to 50,288."""
    shape = ModelShape(
        architecture="mamba2", layers=24, width=768, heads=24, kv_heads=1, ffn_width=1536, vocabulary=50288,
        context=2048, state_width=128,
    )  # fmt: skip
    assert architectures.total_params(shape) == 128_989_632


@given(st.integers(2, 5000))
def test_a_chunk_is_the_longest_that_cuts_the_context_into_equal_parts(context: int) -> None:
    chunk = chunk_length(context)
    assert context % chunk == 0
    assert all(context % longer for longer in range(chunk + 1, min(context, 64) + 1))


@pytest.mark.parametrize(
    ("architecture", "changes", "message"),
    [
        ("llama", {"state_width": 16}, "state_width 16 is given, but llama has no state"),
        ("llama", {"width": 36, "heads": 4, "kv_heads": 4}, "width 36 over heads 4 is odd"),
        ("gpt2", {"state_width": 16}, "state_width 16 is given, but gpt2 has no state"),
        ("gpt2", {"kv_heads": 2}, "kv_heads 2 is not heads 4"),
        ("mamba2", {"state_width": None}, "state_width is missing"),
        ("mamba2", {"ffn_width": 320}, "ffn_width 320 is not 2 times width"),
        ("mamba2", {"context": 134}, "context 134 can't be cut into equal chunks of 16 to 64 tokens"),
        ("lstm", {"heads": 2}, "heads is 2, but an lstm has no heads: use 1"),
        ("lstm", {"ffn_width": 40}, "ffn_width 40 is not width"),
        ("lstm", {"state_width": 16}, "state_width 16 is given, but an lstm's is ffn_width"),
    ],
)
def test_a_shape_that_its_architecture_can_not_have_is_refused(
    architecture: str, changes: dict[str, int], message: str
) -> None:
    fine = architectures.get(architecture).shape_for(1e6, vocabulary=1024, context=128)
    with pytest.raises(ValueError, match=message):
        ModelShape(**(fine.model_dump() | changes))


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_shapes_around_one_are_of_the_sizes_and_ratios_asked_for_and_the_dials_is_among_them(name: str) -> None:
    dial = architectures.get(name).shape_for(1e9, vocabulary=32_000, context=2048)
    size = architectures.total_params(dial)
    found = list(architectures.shapes_around(dial, 0.8 * size, 1.25 * size, 2.0))
    assert dial in found and len(found) == len(set(found)) > 10
    for shape in found:
        total = architectures.total_params(shape)
        assert 0.8 * size <= total <= 1.25 * size
        assert 0.5 <= shape.width / shape.layers / transformer_aspect(total) <= 2
        assert shape.width % 128 == 0 and (shape.vocabulary, shape.context) == (32_000, 2048)


def test_an_architecture_without_such_a_dial_has_no_shapes_around() -> None:
    dial = architectures.get("mamba2").shape_for(1e8, vocabulary=32_000, context=2048)
    assert list(architectures.shapes_around(dial, 1e7, 1e9, 2.0)) == []
