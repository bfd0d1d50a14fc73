"""Our kernels do what PyTorch's operations do, to the rounding of the last bits, and keep what is not a number."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from scaling.errors import UserError
from scaling.run_spec import RunSpec
from scaling.shape import ModelShape
from trainer.data.shards import Corpus
from trainer.loop.numerics import Numerics
from trainer.loop.train import train
from trainer.models import build, kernels
from trainer.models.kernels import library
from trainer.models.kernels.attention import attention
from trainer.models.kernels.norm import RMSNorm, add_rms_norm
from trainer.models.kernels.swiglu import swiglu
from trainer.models.linear_cross_entropy import linear_cross_entropy
from trainer.models.llama import attend, rotary_tables, rotate
from trainer.tracker import NullTracker

pytestmark = pytest.mark.skipif(not kernels.available(), reason="the kernels need a C++ compiler and there is none")

PRECISIONS = [torch.float32, torch.bfloat16]
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2e-2}


def drawn(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype).requires_grad_()


def assert_alike(mine: Callable[..., Tensor], plain: Callable[..., Tensor], *inputs: Tensor) -> None:
    """Value and gradients are those of ``plain`` in fp64, to the rounding of the inputs' precision."""
    tolerance = max(TOLERANCE[x.dtype] for x in inputs)
    exact = [x.detach().double().requires_grad_() for x in inputs]
    wanted, found = plain(*exact), mine(*inputs)
    towards = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(9)).to(found.dtype)
    gradients = torch.autograd.grad(found, inputs, towards), torch.autograd.grad(wanted, exact, towards.double())
    for one, other in [(found.detach(), wanted.detach()), *zip(*gradients, strict=True)]:
        rounding = tolerance * float(other.abs().max()) + 1e-6
        torch.testing.assert_close(one.double(), other, atol=rounding, rtol=tolerance)


@given(
    batch=st.integers(1, 2), positions=st.integers(1, 70), kv_heads=st.integers(1, 2), group=st.integers(1, 3),
    half=st.integers(1, 40), rotated=st.booleans(), precision=st.sampled_from(PRECISIONS),
)  # fmt: skip
@settings(max_examples=40)
def test_attention(
    batch: int, positions: int, kv_heads: int, group: int, half: int, rotated: bool, precision: torch.dtype
) -> None:
    heads, width = kv_heads * group, 2 * half
    scale = 0.7 * width**-0.5
    tables = rotary_tables(positions, width) if rotated else (None, None)

    def plain(qkv: Tensor) -> Tensor:
        x = qkv.view(batch, positions, heads + 2 * kv_heads, width).transpose(1, 2)
        qk, v = x.split([heads + kv_heads, kv_heads], dim=1)
        if rotated:
            qk = rotate(qk, *(table.double() for table in rotary_tables(positions, width)))
        q, k = qk.split([heads, kv_heads], dim=1)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=group > 1)
        return mixed.transpose(1, 2).reshape(batch, positions, heads * width)

    qkv = drawn(batch, positions, (heads + 2 * kv_heads) * width, dtype=precision)
    assert_alike(lambda x: attention(x, heads, kv_heads, *tables, scale), plain, qkv)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("width", [8, 16, 33, 96])
def test_norm_with_and_without_an_addition_before_it(width: int, precision: torch.dtype) -> None:
    norm = RMSNorm(width, eps=1e-5)
    x, block, weight = drawn(3, 5, width), drawn(3, 5, width, dtype=precision, seed=1), drawn(width, seed=2)

    def plain(x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, (width,), weight, 1e-5)

    def mine(x: Tensor, weight: Tensor) -> Tensor:
        norm.weight = nn.Parameter(weight)
        norm._parameters["weight"] = weight  # so that the gradient reaches it
        with kernels.used(True), torch.autocast("cpu", precision, enabled=precision != torch.float32):
            return norm(x)

    def both(x: Tensor, block: Tensor, weight: Tensor) -> Tensor:
        norm._parameters["weight"] = weight
        summed, normed = add_rms_norm(x, block, 0.5, norm)
        return summed + 2 * normed

    def plain_both(x: Tensor, block: Tensor, weight: Tensor) -> Tensor:
        return x + 0.5 * block + 2 * plain(x + 0.5 * block, weight)

    assert mine(x, weight).dtype == precision
    if precision == torch.float32:
        assert_alike(mine, plain, x, weight)
    assert_alike(both, plain_both, x, block, weight)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("width", [1, 16, 40])
def test_swiglu(width: int, precision: torch.dtype) -> None:
    def plain(gate_up: Tensor) -> Tensor:
        gate, up = gate_up.chunk(2, dim=-1)
        return F.silu(gate) * up

    for size in (1.0, 30.0, 1e3):
        assert_alike(swiglu, plain, (size * drawn(4, 7, 2 * width, dtype=precision)).detach().requires_grad_())


@given(st.integers(1, 90), st.integers(2, 40), st.integers(2, 3000), st.sampled_from([0.1, 1.0, 30.0]))
@settings(max_examples=25)
def test_cross_entropy(tokens: int, width: int, vocabulary: int, size: float) -> None:
    h_ND, w_VD = drawn(tokens, width), (size * drawn(vocabulary, width, seed=1)).detach().requires_grad_()
    y_N = torch.randint(vocabulary, (tokens,), generator=torch.Generator().manual_seed(2))

    def mine(h: Tensor, w: Tensor) -> Tensor:
        with kernels.used(True):
            return linear_cross_entropy(h, w, y_N)

    assert_alike(mine, lambda h, w: F.cross_entropy(h @ w.T, y_N), h_ND, w_VD)


def test_what_is_not_a_number_stays_so() -> None:
    """A run's divergence is told by its loss and its gradient's norm: no kernel may hide it."""
    for bad in (math.nan, math.inf):
        for precision in PRECISIONS:
            x = drawn(1, 8, 6 * 16, dtype=precision).detach()
            x[0, 3, 5] = bad
            assert not attention(x, 2, 2, None, None, 0.25).isfinite().all()
            assert not swiglu(x).isfinite().all()
            logits = x[0].clone()
            nats, gradient = kernels.cross_entropy(logits, torch.zeros(8, dtype=torch.int64), 1.0)
            assert not math.isfinite(float(nats))
            assert not gradient.isfinite().all()
        stream = drawn(1, 8, 16).detach()
        stream[0, 3, 5] = bad
        with kernels.used(True):
            assert not RMSNorm(16, eps=1e-5)(stream).isfinite().all()


def model_and_batch(**changes: object) -> tuple[nn.Module, Tensor, Tensor]:
    shape = ModelShape(layers=2, width=48, heads=3, kv_heads=1, ffn_width=88, vocabulary=500, context=40)
    model = build(shape.model_copy(update=changes))
    model.initialise(0)
    x_BT, y_BT = torch.randint(500, (2, 3, 40), generator=torch.Generator().manual_seed(1))
    return model, x_BT, y_BT


@pytest.mark.parametrize("tied", [True, False])
def test_a_model_has_the_same_loss_and_gradients(tied: bool) -> None:
    model, x_BT, y_BT = model_and_batch(tied=tied)
    found = []
    for use in (False, True):
        with kernels.used(use):
            loss = model.loss(x_BT, y_BT)
            found.append([loss, *torch.autograd.grad(loss, list(model.parameters()))])
    for plain, mine in zip(*found, strict=True):
        torch.testing.assert_close(mine, plain, atol=1e-6, rtol=1e-4)


def test_no_position_sees_what_follows_it() -> None:
    model, x_BT, _ = model_and_batch()
    changed_BT = x_BT.clone()
    changed_BT[:, 27:] = (changed_BT[:, 27:] + 1) % 500
    with kernels.used(True), torch.no_grad():
        assert torch.equal(model(x_BT)[:, :27], model(changed_BT)[:, :27])
        assert not torch.allclose(model(x_BT)[:, 27:], model(changed_BT)[:, 27:])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_runs_repeat_to_the_bit_and_end_like_those_on_pytorchs_kernels(
    precision: str, tiny_corpus: Corpus, tiny_spec: Callable[..., RunSpec], tmp_path: Path
) -> None:
    def run(name: str, on_ours: bool, stop_after: int = 10**9) -> object:
        steps = iter(range(10**9))
        numerics = Numerics(precision=precision, kernels=on_ours)  # type: ignore[arg-type]
        return train(
            tiny_spec(steps=40), tiny_corpus, numerics, directory=tmp_path / name, tracker=NullTracker(),
            should_stop=lambda: next(steps) >= stop_after,
        )  # fmt: skip

    plain, one = run("plain", False), run("one", True)
    run("parts", True, stop_after=17)
    again = run("parts", True)
    assert one.numerics == f"cpu {precision} kernels t1"
    assert one.weights_hash == again.weights_hash != plain.weights_hash
    assert one.loss_nats == again.loss_nats
    assert one.loss_nats == pytest.approx(plain.loss_nats, rel=1e-4 if precision == "fp32" else 5e-3)


def test_half_precisions_without_a_kernel_run_on_pytorchs() -> None:
    model, x_BT, y_BT = model_and_batch()
    losses = []
    for use in (False, True):
        with kernels.used(use), torch.autocast("cpu", torch.float16):
            losses.append(model.loss(x_BT, y_BT).item())
    assert losses[0] == losses[1]


def test_what_kernels_cannot_do_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("compiled", True), ("threads", 2), ("together", 2), ("device", "cuda")):
        with pytest.raises(ValueError, match=f"kernels are on, and {name} is {value}"):
            Numerics.model_validate({"kernels": True, name: value})
    monkeypatch.setattr(kernels, "available", lambda: False)
    with pytest.raises(UserError, match="run eager"):
        Numerics(kernels=True).check_available()


def test_without_a_compiler_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    library._built.cache_clear()
    try:
        with pytest.raises(FileNotFoundError):
            library._built()
    finally:
        library._built.cache_clear()


def test_a_cpu_without_them_attends_as_before() -> None:
    q, k, v = (drawn(1, 2, 5, 8, seed=seed) for seed in range(3))
    torch.testing.assert_close(attend(q, k, v), F.scaled_dot_product_attention(q, k, v, is_causal=True))
