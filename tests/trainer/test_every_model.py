"""Every architecture's two sides against each other, and what any model must be: causal, seeded, uniform, trainable."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DataObject
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from scaling import architectures
from scaling.run_spec import OptimizerSpec, RunSpec
from scaling.shape import ModelShape
from trainer import models
from trainer.data.shards import Corpus
from trainer.loop import calibrate
from trainer.loop.memory import estimate_memory
from trainer.loop.numerics import Numerics
from trainer.loop.result import RunResult
from trainer.loop.together import StackedModels
from trainer.loop.train import train
from trainer.models import kernels
from trainer.models.model import LanguageModel
from trainer.tracker import RecordingTracker

from .shapes import SHAPES, shapes

every_architecture = pytest.mark.parametrize("architecture", SHAPES)


def fresh(shape: ModelShape, seed: int = 0) -> LanguageModel:
    model = models.build(shape)
    model.initialise(seed)
    return model


def spared_flops(shape: ModelShape) -> int:
    """What autograd leaves out of a sequence because nobody asks: the gradient of an LSTM's zero state."""
    return 2 * 4 * shape.width**2 * shape.layers if shape.architecture == "lstm" else 0


def countable(shape: ModelShape) -> LanguageModel:
    """PyTorch has no formula for oneDNN's fused LSTM, which is a sequence of plain products in float64."""
    model = fresh(shape)
    return model.double() if shape.architecture == "lstm" else model


@contextmanager
def counted_flops() -> Iterator[FlopCounterMode]:
    """Attention as plain products: PyTorch has no formula for the CPU's fused one."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        yield counter


def test_each_architecture_has_both_sides() -> None:
    assert set(SHAPES) == set(architectures._BUILT_IN) == set(models._BUILT_IN)
    for name, shape in SHAPES.items():
        assert shape.architecture == name


@every_architecture
@given(data=st.data())
@settings(max_examples=40)
def test_parameters_are_those_that_scaling_counts(architecture: str, data: DataObject) -> None:
    shape = data.draw(shapes(architecture))
    with torch.device("meta"):
        model = models.build(shape)
    counted = architectures.get(architecture).count_parameters(shape)
    assert sum(p.numel() for p in model.parameters()) == counted.total
    outside = sum(p.numel() for n, p in model.named_parameters() if not n.startswith(("embed_", "lm_head")))
    assert outside == counted.nonembedding
    assert outside + model.lm_head.weight.numel() == counted.with_head


@every_architecture
@given(data=st.data(), sequences=st.integers(1, 3))
@settings(max_examples=15)
def test_training_flops_are_those_that_pytorch_counts(architecture: str, data: DataObject, sequences: int) -> None:
    shape = data.draw(shapes(architecture))
    model = countable(shape)
    x_BT = torch.zeros(sequences, shape.context, dtype=torch.int64)
    with counted_flops() as forward:
        model(x_BT)
    with counted_flops() as training:
        model.loss(x_BT, x_BT).backward()
    expected = architectures.get(architecture).training_flops_per_token(shape) * x_BT.numel()
    assert training.get_total_flops() == expected - spared_flops(shape) * sequences
    assert 3 * forward.get_total_flops() == expected


@every_architecture
@given(data=st.data(), batch=st.integers(1, 3))
@settings(max_examples=15)
def test_decoding_flops_are_those_that_pytorch_counts(architecture: str, data: DataObject, batch: int) -> None:
    shape = data.draw(shapes(architecture))
    model = countable(shape)
    state, scaling_side = model.start_state(batch), architectures.get(architecture)
    x_B1 = torch.zeros(batch, 1, dtype=torch.int64)
    for position in range(1, shape.context + 1):
        with counted_flops() as counter:
            _, state = model.decode(x_B1, state)
        assert counter.get_total_flops() == batch * scaling_side.forward_flops(shape, position).total
    assert scaling_side.inference_flops_per_token(shape) == scaling_side.forward_flops(shape, shape.context).total


@every_architecture
@given(data=st.data())
@settings(max_examples=15)
def test_no_position_sees_what_follows_it(architecture: str, data: DataObject) -> None:
    shape = data.draw(shapes(architecture))
    model, V, T = fresh(shape), shape.vocabulary, shape.context
    changed_from = data.draw(st.integers(1, T - 1))
    x_BT = torch.randint(V, (2, T), generator=torch.Generator().manual_seed(0))
    changed_BT = x_BT.clone()
    changed_BT[:, changed_from:] = (changed_BT[:, changed_from:] + 1) % V
    logits_BTV, other_BTV = model(x_BT), model(changed_BT)
    torch.testing.assert_close(logits_BTV[:, :changed_from], other_BTV[:, :changed_from])
    assert not torch.allclose(logits_BTV[:, changed_from:], other_BTV[:, changed_from:])


@every_architecture
def test_every_position_hears_what_came_before_it(architecture: str) -> None:
    shape = SHAPES[architecture]
    model = fresh(shape)
    x_BT = torch.randint(50, (1, 12), generator=torch.Generator().manual_seed(0))
    changed_BT = x_BT.clone()
    changed_BT[:, 0] = (changed_BT[:, 0] + 1) % 50
    difference_T = (model(x_BT) - model(changed_BT)).abs().amax(dim=(0, 2))
    assert difference_T.min() > 1e-6


@every_architecture
def test_a_seed_fixes_the_weights_and_a_fresh_model_is_near_uniform(architecture: str) -> None:
    shape = architectures.get(architecture).shape_for(3e5, vocabulary=1000, context=32)
    one, same, other = (fresh(shape, seed) for seed in (5, 5, 6))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.embed_tokens.weight, other.embed_tokens.weight)
    generator = torch.Generator().manual_seed(0)
    x_BT, y_BT = torch.randint(1000, (2, 16, 32), generator=generator)
    assert math.log(1000) < one.loss(x_BT, y_BT).item() < math.log(1000) + 1.0


@every_architecture
def test_every_weight_is_drawn_and_learns(architecture: str) -> None:
    model = models.build(SHAPES[architecture])
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, math.nan)
    model.initialise(0)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    x_BT, y_BT = torch.randint(50, (2, 4, 12), generator=torch.Generator().manual_seed(0))
    model.loss(x_BT, y_BT).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


@every_architecture
def test_stacked_matrices_are_whole_and_known_by_name(architecture: str) -> None:
    model = models.build(SHAPES[architecture])
    named = dict(model.named_parameters())
    for name, rows in model.row_blocks().items():
        assert sum(rows) == len(named[name]), name
    assert any(model.role(name, parameter) == "matrix" for name, parameter in named.items())


@every_architecture
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_gives_nearly_the_loss_and_gradient_of_fp32(
    architecture: str, half: torch.dtype, recompute: bool
) -> None:
    model = fresh(SHAPES[architecture])
    model.recompute = recompute
    x_BT, y_BT = torch.randint(50, (2, 16, 12), generator=torch.Generator().manual_seed(0))
    losses, gradients = [], []
    for enabled in (False, True):
        with torch.autocast("cpu", half, enabled=enabled):
            loss = model.loss(x_BT, y_BT)
        loss.backward()
        losses.append(loss.item())
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
        model.zero_grad()
    assert losses[1] == pytest.approx(losses[0], rel=2e-3)
    assert losses[1] != losses[0]
    assert torch.linalg.vector_norm(gradients[1] - gradients[0]) < 0.05 * torch.linalg.vector_norm(gradients[0])


@every_architecture
@pytest.mark.skipif(not kernels.available(), reason="our kernels need a C++ compiler and there is none")
def test_our_kernels_change_only_the_last_digits(architecture: str) -> None:
    model = fresh(SHAPES[architecture])
    x_BT, y_BT = torch.randint(50, (2, 16, 12), generator=torch.Generator().manual_seed(0))
    gradients = []
    for use in (False, True):
        with kernels.used(use):
            gradients.append(torch.autograd.grad(model.loss(x_BT, y_BT), list(model.parameters())))
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "mamba2"])
def test_stacked_models_have_the_gradients_of_each(architecture: str) -> None:
    each = [fresh(SHAPES[architecture], seed) for seed in range(3)]
    x_KBT, y_KBT = torch.randint(50, (2, 3, 4, 12), generator=torch.Generator().manual_seed(0))
    expected = [
        torch.autograd.grad(model.loss(x_BT, y_BT), list(model.parameters()))
        for model, x_BT, y_BT in zip(each, x_KBT, y_KBT, strict=True)
    ]
    StackedModels(each, Numerics(together=3)).accumulate(x_KBT, y_KBT)
    for model, gradients in zip(each, expected, strict=True):
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            torch.testing.assert_close(parameter.grad, gradient, atol=1e-6, rtol=1e-4)


@every_architecture
def test_its_speed_can_be_measured_and_its_memory_foretold(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "WINDOW_SECONDS", 0.001)
    shape = SHAPES[architecture]
    measured = calibrate.calibrate([shape], 4)
    assert {speed.shape for speed in measured.speeds} == {shape}
    assert 0 < measured.seconds(shape, 1000, measured.choose()) < 60
    one, two = (estimate_memory(shape, rows, Numerics(), OptimizerSpec(learning_rate=1e-3)) for rows in (1, 2))
    assert 0 < one.activations < two.activations < 3 * one.activations


def run(spec: RunSpec, corpus: Corpus, folder: Path, numerics: Numerics, stop_after: float) -> RunResult:
    calls = itertools.count()
    return train(
        spec,
        corpus,
        numerics,
        directory=folder,
        tracker=RecordingTracker(),
        should_stop=lambda: next(calls) >= stop_after,
    )


@every_architecture
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_learns_and_an_interrupted_one_ends_as_if_it_never_was(
    tiny_corpus: Corpus, tiny_spec: Callable[..., RunSpec], tmp_path: Path, architecture: str, precision: str,
    optimizer: str,
) -> None:  # fmt: skip
    shape = SHAPES[architecture].model_copy(update={"vocabulary": 64, "context": 16})
    spec = tiny_spec(steps=40, shape=shape)
    spec = spec.model_copy(update={"optimizer": spec.optimizer.model_copy(update={"name": optimizer})})
    spec = RunSpec.model_validate(spec.model_dump())
    numerics = Numerics(precision=precision)
    whole = run(spec, tiny_corpus, tmp_path / "whole", numerics, math.inf)
    assert whole.status == "finished"
    assert whole.loss_nats is not None and whole.loss_nats < 0.85 * math.log(64)
    for stop_after in (0, 7, 1):
        assert run(spec, tiny_corpus, tmp_path / "parts", numerics, stop_after).status == "interrupted"
    resumed = run(spec, tiny_corpus, tmp_path / "parts", numerics, math.inf)
    assert resumed.resumed == 3
    assert (resumed.weights_hash, resumed.loss_nats) == (whole.weights_hash, whole.loss_nats)
