"""Parametrisations: nothing at the base; away from it, steps, gradients and decay as the table's factors take them.

What the factors do together is in ``test_coordinate_check.py``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from scaling.run_spec import OptimizerSpec, Parametrisation
from scaling.shape import ModelShape
from trainer.loop.optimizer import Optimizer
from trainer.models import build
from trainer.models.llama import Llama
from trainer.models.model import LanguageModel
from trainer.models.parametrisation import Scaling

STANDARD = Parametrisation()
MUP = Parametrisation(name="mup", base_width=32)


def shape(width: int = 32, layers: int = 2, *, head_width: int = 8, tied: bool = True) -> ModelShape:
    return ModelShape(
        layers=layers, width=width, heads=width // head_width, kv_heads=width // head_width, ffn_width=width * 5 // 2,
        vocabulary=64, context=16, tied=tied,
    )  # fmt: skip


def slope(sizes: Sequence[float], values: Sequence[float]) -> float:
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


# At the base


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", ["adamw", "muon"])
@pytest.mark.parametrize(
    "parametrisation",
    [
        Parametrisation(name="mup", base_width=32, base_head_width=8),
        Parametrisation(name="completep", base_width=32, base_layers=3),
    ],
    ids=["mup", "completep"],
)
def test_at_the_base_shape_weights_losses_and_updates_are_the_standard_ones_to_the_bit(
    parametrisation: Parametrisation, name: str, tied: bool
) -> None:
    spec = OptimizerSpec.model_validate({"name": name, "learning_rate": 1e-2})
    x_BT, y_BT = torch.randint(64, (2, 4, 16), generator=torch.Generator().manual_seed(0))
    trained = []
    for each in (STANDARD, parametrisation):
        model = build(shape(layers=3, tied=tied), each)
        model.initialise(0)
        optimizer = Optimizer(model, spec)
        losses = []
        for _ in range(3):
            loss = model.loss(x_BT, y_BT)
            torch.autograd.backward(loss)
            optimizer.step(spec.learning_rate)
            losses.append(loss.item())
        trained.append((losses, model.state_dict()))
    (losses, weights), (other_losses, other_weights) = trained
    assert losses == other_losses
    assert all(torch.equal(weights[name], other_weights[name]) for name in weights)


def test_a_parametrisation_has_the_base_it_needs_and_no_other() -> None:
    for fields in (
        {"name": "mup"},
        {"name": "mup", "base_width": 32, "base_layers": 2},
        {"name": "completep", "base_width": 32},
        {"name": "standard", "base_width": 32},
        {"name": "standard", "base_head_width": 16},
    ):
        with pytest.raises(ValidationError, match="base_"):
            Parametrisation.model_validate(fields)


def _step_norms(parametrisation: Parametrisation, name: str, width: int) -> float:
    """Mean spectral norm of what one step changes in the layers' matrices."""
    model = build(shape(width), parametrisation)
    model.initialise(0)
    matrices = [p for n, p in model.named_parameters() if model.role(n, p) in ("matrix", "residual")]
    before = [matrix.detach().clone() for matrix in matrices]
    x_BT, y_BT = torch.randint(64, (2, 8, 16), generator=torch.Generator().manual_seed(0))
    torch.autograd.backward(model.loss(x_BT, y_BT))
    Optimizer(model, OptimizerSpec.model_validate({"name": name, "learning_rate": 0.01, "weight_decay": 0})).step(0.01)
    changes = (after.detach() - old for after, old in zip(matrices, before, strict=True))
    return float(np.mean([torch.linalg.matrix_norm(change, 2).item() for change in changes]))


@pytest.mark.parametrize(("name", "standard_exponent", "tolerance"), [("adamw", 1.0, 0.2), ("muon", 0.5, 0.05)])
def test_a_step_changes_matrices_by_a_spectral_norm_that_stays_with_width_under_mup(
    name: str, standard_exponent: float, tolerance: float
) -> None:
    """The spectral condition for features that are learned (Yang, Simon & Bernstein 2310.17813), which is why Muon's
    rate falls with the root of the width and AdamW's with the width. The random part of AdamW's update, whose norm
    grows with the root alone, is not quite gone at these widths."""
    widths = (16, 64, 256)

    def exponent(parametrisation: Parametrisation) -> float:
        return slope(widths, [_step_norms(parametrisation, name, width) for width in widths])

    assert abs(exponent(MUP)) < tolerance
    assert exponent(STANDARD) == pytest.approx(standard_exponent, abs=tolerance)


def _gradients(shape: ModelShape, parametrisation: Parametrisation) -> dict[str, float]:
    """Root mean square of the gradient at the start, by role."""
    squares: dict[str, list[float]] = {}
    for seed in range(3):
        model = build(shape, parametrisation)
        model.initialise(seed)
        x_BT, y_BT = torch.randint(64, (2, 8, 16), generator=torch.Generator().manual_seed(seed))
        torch.autograd.backward(model.loss(x_BT, y_BT))
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            squares.setdefault(model.role(name, parameter), []).append(parameter.grad.square().mean().item())
    return {role: float(np.mean(each)) ** 0.5 for role, each in squares.items()}


@pytest.mark.parametrize("along", ["width", "layers"])
def test_eps_follows_the_gradients_size_over_width_and_depth(along: str) -> None:
    completep = Parametrisation(name="completep", base_width=32, base_layers=2)
    sizes = (32, 128, 512) if along == "width" else (2, 8, 32)
    shapes = [shape(size, tied=False) if along == "width" else shape(32, size, tied=False) for size in sizes]
    gradients = [_gradients(each, completep) for each in shapes]
    for role in ("embedding", "matrix", "residual", "head", "vector", "layer vector"):
        eps = [Scaling(each, completep).eps(role) for each in shapes]  # type: ignore[arg-type]
        gradient = [each[role] for each in gradients]
        assert slope(sizes, gradient) == pytest.approx(slope(sizes, eps), abs=0.35), role


def test_attention_scores_of_wider_heads_grow_no_more_than_a_base_head_width_allows() -> None:
    """Where queries and keys agree, as training makes them, their products grow with the head's width."""

    def spread(head_width: int, base_head_width: int | None) -> float:
        wide = shape(4 * head_width, head_width=head_width)
        model = Llama(wide, Parametrisation(name="mup", base_width=32, base_head_width=base_head_width))
        model.initialise(0)
        attention = model.layers[0].self_attn
        seen: list[torch.Tensor] = []

        def attend(q_BHTE: torch.Tensor, k_BKTE: torch.Tensor, v_BKTE: torch.Tensor) -> torch.Tensor:
            seen.append((q_BHTE * q_BHTE / attention.scores).sum(dim=-1) / head_width**0.5)
            return v_BKTE

        x_BTD = torch.randn(1, 16, wide.width, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            attention(x_BTD, model.cos_TE, model.sin_TE, attend)
        return float(seen[0].mean())

    assert spread(128, 8) == pytest.approx(spread(8, 8), rel=0.15)
    assert spread(128, None) == pytest.approx(4 * spread(8, None), rel=0.15)


# Weight decay


def _kept(parametrisation: Parametrisation, name: str, width: int, layers: int) -> dict[str, float]:
    """What is left of each parameter's weights after a step whose gradients are zero."""
    model: LanguageModel = build(shape(width, layers, tied=False), parametrisation)
    model.initialise(0)
    optimizer = Optimizer(
        model, OptimizerSpec.model_validate({"name": name, "learning_rate": 0.1, "weight_decay": 0.5})
    )
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step(0.1)
    return {
        model.role(name, parameter): float((parameter.detach() / before[name]).mean())
        for name, parameter in model.named_parameters()
    }


@pytest.mark.parametrize("name", ["adamw", "muon"])
@pytest.mark.parametrize(
    "parametrisation",
    [STANDARD, MUP, Parametrisation(name="completep", base_width=32, base_layers=2)],
    ids=["standard", "mup", "completep"],
)
def test_weights_are_forgotten_equally_fast_at_every_width_and_depth(
    parametrisation: Parametrisation, name: str
) -> None:
    for width, layers in ((32, 2), (128, 2), (64, 5)):
        kept = _kept(parametrisation, name, width, layers)
        for role in ("matrix", "residual", "head"):
            assert kept[role] == pytest.approx(1 - 0.1 * 0.5, rel=1e-5), (role, width, layers)
        for role in ("embedding", "vector", "layer vector"):
            assert kept[role] == 1.0, (role, width, layers)
