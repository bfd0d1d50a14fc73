"""Mamba-2: its chunked form is the plain recurrence and costs what is counted."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from scaling.architectures.mamba2 import inference_flops_per_token, training_flops_per_token
from scaling.shape import ModelShape
from trainer.loop.numerics import cxx_compiler_available
from trainer.models.mamba2 import Mamba2
from trainer.models.state_space_scan import doubling_sum, scan


def shape(context: int, groups: int = 1, **changes: Any) -> ModelShape:
    fields = {"layers": 2, "width": 32, "heads": 4, "ffn_width": 64, "state_width": 8, "vocabulary": 50} | changes
    return ModelShape(architecture="mamba2", context=context, kv_heads=groups, **fields)


def fresh(wanted: ModelShape) -> Mamba2:
    model = Mamba2(wanted)
    model.initialise(0)
    return model


def recurrence(x_BTHP: Tensor, log_decay_BTH: Tensor, b_BTGN: Tensor, c_BTGN: Tensor, state_BHNP: Tensor) -> Any:
    """Token by token, head by head."""
    R, y = x_BTHP.shape[2] // b_BTGN.shape[2], []
    for t in range(x_BTHP.shape[1]):
        b_BHN, c_BHN = (each[:, t].repeat_interleave(R, dim=1) for each in (b_BTGN, c_BTGN))
        left_BH11 = log_decay_BTH[:, t].exp()[..., None, None]
        state_BHNP = left_BH11 * state_BHNP + b_BHN[..., :, None] * x_BTHP[:, t, :, None, :]
        y.append((c_BHN[..., :, None] * state_BHNP).sum(dim=2))
    return torch.stack(y, dim=1), state_BHNP


@st.composite
def inputs(draw: Callable[..., int]) -> tuple[list[Tensor], Tensor]:
    B, T, G, R, P, N = (draw(st.integers(1, most)) for most in (2, 40, 2, 3, 4, 5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    sizes = [(B, T, G * R, P), (B, T, G * R), (B, T, G, N), (B, T, G, N), (B, G, N, R, P)]
    x, decay, b, c, state = (torch.randn(size, generator=generator, dtype=torch.float64) for size in sizes)
    return [x, -decay.abs() * draw(st.sampled_from([0.01, 1.0, 30.0])), b, c], state


@given(inputs(), st.integers(1, 45), st.booleans())
@settings(max_examples=60)
def test_chunks_of_any_length_are_the_plain_recurrence(
    given_inputs: tuple[list[Tensor], Tensor], chunk: int, from_state: bool
) -> None:
    tensors, state_BGNRP = given_inputs
    tensors = [each.requires_grad_() for each in tensors]
    B, G, N, R, P = state_BGNRP.shape
    if not from_state:
        state_BGNRP = torch.zeros_like(state_BGNRP)
    y, end = scan(*tensors, chunk, state_BGNRP if from_state else None)
    expected, expected_end = recurrence(*tensors, state_BGNRP.transpose(2, 3).reshape(B, G * R, N, P))
    torch.testing.assert_close(y, expected, atol=1e-10, rtol=1e-10)
    if end is not None:
        assert from_state or tensors[0].shape[1] > chunk
        torch.testing.assert_close(end.transpose(2, 3).reshape(B, G * R, N, P), expected_end, atol=1e-10, rtol=1e-10)
    gradients = (torch.autograd.grad(each.square().sum(), tensors) for each in (y, expected))
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-8, rtol=1e-8)


@given(st.integers(1, 70))
def test_sums_by_doubling_are_running_sums(length: int) -> None:
    a_xQ = torch.randn(3, length, dtype=torch.float64, generator=torch.Generator().manual_seed(length))
    torch.testing.assert_close(doubling_sum(a_xQ), a_xQ.cumsum(dim=-1), atol=1e-12, rtol=1e-12)


def test_states_that_decay_at_once_overflow_nowhere() -> None:
    x, b, c = (torch.randn(1, 32, 2, 4, generator=torch.Generator().manual_seed(seed)) for seed in range(3))
    decay = torch.full((1, 32, 2), -1e5, requires_grad=True)
    y, _ = scan(x, decay, b, c, 8)
    y.sum().backward()
    assert torch.isfinite(y).all() and torch.isfinite(decay.grad).all()
    torch.testing.assert_close(y, (b * c).sum(dim=-1, keepdim=True) * x)


@pytest.mark.parametrize(("context", "groups"), [(64, 1), (80, 1), (128, 1), (128, 2), (192, 4)])
def test_flops_of_any_number_of_chunks_are_those_that_pytorch_counts(context: int, groups: int) -> None:
    wanted = shape(context, groups)
    model = fresh(wanted)
    x_BT = torch.zeros(2, context, dtype=torch.int64)
    with FlopCounterMode(display=False) as training:
        model.loss(x_BT, x_BT).backward()
    assert training.get_total_flops() == training_flops_per_token(wanted) * x_BT.numel()
    with FlopCounterMode(display=False) as decoding:
        model.decode(x_BT[:, :1], model.start_state(2))
    assert decoding.get_total_flops() == 2 * inference_flops_per_token(wanted)


@pytest.mark.parametrize("context", [80, 128])
def test_a_sequence_of_several_chunks_is_causal_and_decodes_in_any_parts(context: int) -> None:
    model = fresh(shape(context)).double()
    x_BT = torch.randint(50, (2, context), generator=torch.Generator().manual_seed(0))
    whole_BTV = model(x_BT)
    shorter_BTV = model(x_BT[:, :71])
    torch.testing.assert_close(shorter_BTV, whole_BTV[:, :71], atol=1e-10, rtol=1e-10)
    state, end = model.start_state(2), 0
    for part_BT in x_BT.split([1, 2, 66, 1, 1, context - 71], dim=1):
        logits_BV, state = model.decode(part_BT, state)
        end += part_BT.shape[1]
        torch.testing.assert_close(logits_BV, whole_BTV[:, end - 1], atol=1e-10, rtol=1e-10)


def test_it_starts_with_the_papers_decays_and_step_sizes() -> None:
    model = fresh(shape(16, heads=32))
    mixer = model.layers[0].mixer
    assert 1 <= mixer.A_log.exp().min() < 4 < 12 < mixer.A_log.exp().max() <= 16
    dt_H = torch.nn.functional.softplus(mixer.dt_bias)
    assert 1e-3 <= dt_H.min() < 4e-3 < 2e-2 < dt_H.max() <= 0.1 + 1e-6
    assert mixer.D.tolist() == [1] * 32
    assert mixer.conv1d.weight.abs().max() <= 0.5


@pytest.mark.slow
@pytest.mark.skipif(not cxx_compiler_available(), reason="compiling needs a C++ compiler and there is none")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_as_one_graph_it_is_the_same() -> None:
    model = fresh(shape(128))
    x_BT, y_BT = torch.randint(50, (2, 2, 128), generator=torch.Generator().manual_seed(0))
    hidden = torch.compile(model.hidden, fullgraph=True, dynamic=False)
    eager, compiled = (
        torch.autograd.grad(model.loss(x_BT, y_BT, hidden=each), list(model.parameters())) for each in (None, hidden)
    )
    for mine, theirs in zip(eager, compiled, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-3)
    assert math.isfinite(sum(float(each.sum()) for each in compiled))
