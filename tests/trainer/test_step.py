"""fp16's loss scale, recomputed activations and micro-batches change how a step is computed and not what it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scaling.run_spec import OptimizerSpec, RunSpec
from trainer.data.shards import Corpus
from trainer.loop.numerics import Numerics
from trainer.loop.optimizer import Optimizer
from trainer.loop.step import TrainingStep, rows_of_micro_batch
from trainer.loop.train import train
from trainer.models import build
from trainer.tracker import RecordingTracker

MakeSpec = Callable[..., RunSpec]


def test_fp16_ends_as_fp32_within_half_a_percent_and_resumes_to_the_bit(
    tiny_corpus: Corpus, tiny_spec: MakeSpec, tmp_path: Path
) -> None:
    spec = tiny_spec(steps=60)

    def run(folder: str, precision: str, stop_after: int = 1000):
        steps = iter(range(2000))
        return train(
            spec,
            tiny_corpus,
            Numerics.model_validate({"precision": precision}),
            directory=tmp_path / folder,
            tracker=RecordingTracker(),
            should_stop=lambda: next(steps) >= stop_after,
        )

    fp32, fp16 = run("fp32", "fp32"), run("fp16", "fp16")
    assert fp16.loss_nats == pytest.approx(fp32.loss_nats, rel=5e-3)
    assert fp16.numerics == "cpu fp16 eager t1"
    run("parts", "fp16", 17)
    assert run("parts", "fp16").weights_hash == fp16.weights_hash


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_an_overflow_leaves_the_weights_and_halves_the_scale(tiny_spec: MakeSpec, optimizer: str) -> None:
    spec = tiny_spec(optimizer={"name": optimizer, "learning_rate": 1e-2})
    model = build(spec.shape)
    model.initialise(0)
    step = TrainingStep(model, Optimizer(model, spec.optimizer), Numerics(precision="fp16"), 1.0)
    x_BT, y_BT = torch.randint(64, (2, 8, 16), generator=torch.Generator().manual_seed(0))
    step.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    loss, norm, _ = step(x_BT, y_BT, 1e-2)
    assert torch.isfinite(loss)
    assert not torch.isfinite(norm)
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    assert step.scaler.get_scale() == 2.0**59
    step.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    _, norm, _ = step(x_BT, y_BT, 1e-2)
    assert torch.isfinite(norm)
    assert not all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_recomputed_activations_give_the_same_bits_and_hold_less(tiny_spec: MakeSpec) -> None:
    shape = tiny_spec().shape.model_copy(update={"layers": 6})
    x_BT, y_BT = torch.randint(64, (2, 8, 16), generator=torch.Generator().manual_seed(0))
    weights, held = [], []
    for recompute in (False, True):
        model = build(shape)
        model.initialise(0)
        step = TrainingStep(
            model, Optimizer(model, OptimizerSpec(learning_rate=1e-2)), Numerics(recompute=recompute), 1
        )
        saved = 0

        def count(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal saved
            saved += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            model.loss(x_BT, y_BT)
        step(x_BT, y_BT, 1e-2)
        weights.append([parameter.detach().clone() for parameter in model.parameters()])
        held.append(saved)
    assert all(torch.equal(kept, again) for kept, again in zip(*weights, strict=True))
    assert held[1] < held[0] / 3


@given(st.integers(1, 500), st.one_of(st.none(), st.integers(1, 600)))
def test_micro_batches_are_equal_and_no_larger_than_wanted(sequences: int, wanted: int | None) -> None:
    rows = rows_of_micro_batch(sequences, wanted)
    assert sequences % rows == 0
    assert rows <= (wanted or sequences)
    assert rows == sequences or wanted is not None


@given(st.sampled_from(["adamw", "muon"]), st.integers(0, 5))
def test_muon_takes_each_matrix_of_a_stack_by_itself(name: str, seed: int) -> None:
    """The update of rows of a stacked matrix is that of a matrix of its own; a stacked one's would differ."""
    from scaling.shape import ModelShape

    shape = ModelShape(layers=1, width=16, heads=2, kv_heads=1, ffn_width=24, vocabulary=32, context=8)
    model = build(shape)
    model.initialise(seed)
    optimizer = Optimizer(
        model, OptimizerSpec.model_validate({"name": name, "learning_rate": 0.1, "weight_decay": 0.0})
    )
    generator = torch.Generator().manual_seed(seed)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    gradients = {n: torch.randn(p.shape, generator=generator) for n, p in model.named_parameters()}
    for n, p in model.named_parameters():
        p.grad = gradients[n].clone()
    optimizer.step(0.1)
    changed = {n: p.detach() - before[n] for n, p in model.named_parameters()}
    stacked = "layers.0.self_attn.qkv_proj.weight"
    for rows in torch.arange(32).split([16, 8, 8]):
        if name == "muon":
            alone = torch.nn.Parameter(before[stacked][rows].clone())
            alone.grad = gradients[stacked][rows].clone()
            torch.optim.Muon([alone], lr=0.1, weight_decay=0.0, adjust_lr_fn="match_rms_adamw").step()
            torch.testing.assert_close(changed[stacked][rows], alone.detach() - before[stacked][rows])
            rms = changed[stacked][rows].square().mean().sqrt().item()
            assert rms == pytest.approx(0.1 * 0.2, rel=0.35), "the root mean square of AdamW's update"
    assert changed["embed_tokens.weight"].abs().max().item() == pytest.approx(0.1, rel=1e-3), "AdamW's first step"
