"""The LSTM against a cell written out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from scaling.errors import UserError
from scaling.run_spec import OptimizerSpec
from scaling.shape import ModelShape
from trainer.loop.numerics import Numerics
from trainer.loop.optimizer import Optimizer
from trainer.loop.step import TrainingStep
from trainer.models.lstm import LSTM

SHAPE = ModelShape(
    architecture="lstm", layers=2, width=24, heads=1, kv_heads=1, ffn_width=24, vocabulary=40, context=10
)


def by_hand(model: LSTM, x_BT: Tensor) -> Tensor:
    """Logits, one token after another, from the equations of the paper."""
    sequence = [model.embed_tokens(x_B) for x_B in x_BT.T]
    for layer in model.layers:
        lstm: nn.LSTM = layer.lstm
        h_BD = c_BD = torch.zeros_like(sequence[0])
        out = []
        for x_BD in sequence:
            normed_BD = x_BD / (x_BD.square().mean(dim=1, keepdim=True) + 1e-5).sqrt() * layer.norm.weight
            gates = normed_BD @ lstm.weight_ih_l0.T + lstm.bias_ih_l0 + h_BD @ lstm.weight_hh_l0.T + lstm.bias_hh_l0
            let_in, keep, new, let_out = gates.chunk(4, dim=1)
            c_BD = keep.sigmoid() * c_BD + let_in.sigmoid() * new.tanh()
            h_BD = let_out.sigmoid() * c_BD.tanh()
            out.append(x_BD + h_BD)
        sequence = out
    x_BTD = torch.stack(sequence, dim=1)
    h_BTD = x_BTD / (x_BTD.square().mean(dim=2, keepdim=True) + 1e-5).sqrt() * model.norm.weight
    return h_BTD @ model.lm_head.weight.T


@pytest.fixture
def model() -> LSTM:
    made = LSTM(SHAPE)
    made.initialise(0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return made


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_the_cell_of_the_paper(model: LSTM, dtype: torch.dtype) -> None:
    model.to(dtype)
    x_BT = torch.randint(40, (3, 10), generator=torch.Generator().manual_seed(0))
    tolerance = 1e-5 if dtype is torch.float32 else 1e-12
    torch.testing.assert_close(model(x_BT), by_hand(model, x_BT), atol=tolerance, rtol=tolerance)
    for mine, theirs in zip(
        torch.autograd.grad(model(x_BT).square().mean(), list(model.parameters())),
        torch.autograd.grad(by_hand(model, x_BT).square().mean(), list(model.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, atol=tolerance, rtol=10 * tolerance)


def test_it_starts_with_open_forget_gates() -> None:
    model = LSTM(SHAPE)
    model.initialise(0)
    lstm = model.layers[0].lstm
    assert (lstm.bias_ih_l0 + lstm.bias_hh_l0).view(4, 24).tolist() == [[0] * 24, [1] * 24, [0] * 24, [0] * 24]


def test_compiling_it_is_refused(model: LSTM) -> None:
    optimizer = OptimizerSpec(learning_rate=1e-3)
    with pytest.raises(UserError, match="an lstm can't be compiled: run it eager"):
        TrainingStep(model, Optimizer(model, optimizer), Numerics(compiled=True), optimizer.gradient_clip)
