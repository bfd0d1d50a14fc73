"""Parametrisations: nothing at the base, and away from it activations that move alike, whatever the width or depth.

The coordinate checks are claims about exponents, with one tolerance for all. Each factor of the table is also taken out
in turn: a check that did not see it gone would tell nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from scaling.run_spec import OptimizerSpec, Parametrisation
from scaling.shape import ModelShape
from trainer.evaluate.coordinate_check import coordinate_slopes
from trainer.loop.optimizer import Optimizer
from trainer.models import build
from trainer.models.llama import Llama
from trainer.models.model import LanguageModel
from trainer.models.parametrisation import Scaling

STANDARD = Parametrisation()
MUP = Parametrisation(name="mup", base_width=32)
WIDTHS = (32, 64, 128, 256, 512)
LAYERS = (4, 8, 16)
FLAT = 0.1
"""Largest exponent in the size that still counts as none."""
MOVING = ("layers.*.self_attn", "layers.*.mlp", "stream", "answers")


def shape(width: int = 32, layers: int = 2, *, head_width: int = 8, tied: bool = True) -> ModelShape:
    return ModelShape(
        layers=layers, width=width, heads=width // head_width, kv_heads=width // head_width, ffn_width=width * 5 // 2,
        vocabulary=64, context=16, tied=tied,
    )  # fmt: skip


def adamw(rate: float = 1e-2, **fields: float) -> OptimizerSpec:
    return OptimizerSpec(learning_rate=rate, **fields)


def over_width(
    parametrisation: Parametrisation, optimizer: OptimizerSpec, *, tied: bool = True, widths: tuple[int, ...] = WIDTHS
) -> dict[str, float]:
    return coordinate_slopes([shape(width, tied=tied) for width in widths], parametrisation, optimizer)


def over_depth(parametrisation: Parametrisation, optimizer: OptimizerSpec) -> dict[str, float]:
    shapes = [shape(64, layers) for layers in LAYERS]
    return coordinate_slopes(shapes, parametrisation, optimizer, along="layers", seeds=1)


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


# Over width


@pytest.mark.parametrize("tied", [True, False])
def test_under_mup_activations_move_alike_at_every_width_and_under_standard_they_do_not(tied: bool) -> None:
    mup, standard = over_width(MUP, adamw(), tied=tied), over_width(STANDARD, adamw(), tied=tied)
    assert all(abs(mup[name]) < FLAT for name in mup if name != "initial logits"), mup
    assert all(standard[name] > 0.2 for name in MOVING), standard
    # At the start the logits are those of a random head: they die out with width (2203.03466, appendix D.1).
    assert -0.6 < mup["initial logits"] < -0.3 and abs(standard["initial logits"]) < FLAT


def test_muon_moves_activations_alike_at_every_width_under_mup_alone() -> None:
    muon = OptimizerSpec(name="muon", learning_rate=3e-3)
    shapes = [shape(width) for width in (16, 64, 256)]
    mup = coordinate_slopes(shapes, Parametrisation(name="mup", base_width=16), muon, steps=2)
    standard = coordinate_slopes(shapes, STANDARD, muon, steps=2)
    assert all(abs(mup[name]) < FLAT for name in mup if name != "initial logits"), mup
    assert all(standard[name] > 0.3 for name in MOVING), standard


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


def _no_rate(self: Scaling, role: str, *, muon: bool = False) -> float:
    return 1.0


def _standard_deviation(self: Scaling, role: str, fan_in: int) -> float:
    return Scaling(self.shape, STANDARD)._deviation_before(role, fan_in)  # type: ignore[attr-defined, no-any-return]


def _matrices_as_the_embedding(self: Scaling, role: str, fan_in: int) -> float:
    return 32**-0.5


@pytest.mark.parametrize(
    ("method", "without", "optimizer", "tied"),
    [
        ("rate", _no_rate, adamw(), True),
        ("logits", property(lambda self: 1.0), adamw(), True),
        ("logits", property(lambda self: 1.0), adamw(), False),
        ("deviation", _standard_deviation, adamw(), True),
        ("deviation", _matrices_as_the_embedding, adamw(), True),
        ("eps", lambda self, role: 1.0, adamw(eps=1e-2), True),
    ],
    ids=[
        "matrices' rate", "logits", "logits of an untied head", "embedding's deviation",
        "matrices' deviation", "eps",
    ],
)  # fmt: skip
def test_each_factor_over_width_is_missed_when_it_is_gone(
    monkeypatch: pytest.MonkeyPatch, method: str, without: object, optimizer: OptimizerSpec, tied: bool
) -> None:
    widths = (16, 64, 256)
    whole = over_width(MUP, optimizer, tied=tied, widths=widths)
    assert all(abs(whole[name]) < 1.5 * FLAT for name in MOVING), whole
    monkeypatch.setattr(Scaling, "_deviation_before", Scaling.deviation, raising=False)
    monkeypatch.setattr(Scaling, method, without)
    gone = over_width(MUP, optimizer, tied=tied, widths=widths)
    assert any(abs(gone[name]) > 2 * FLAT for name in [*MOVING, "embed_tokens"]), gone


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


# Over depth


@pytest.mark.parametrize(
    "optimizer", [adamw(3e-3), OptimizerSpec(name="muon", learning_rate=1e-2)], ids=["adamw", "muon"]
)
def test_under_completep_blocks_move_alike_at_every_depth_and_under_mup_they_do_not(optimizer: OptimizerSpec) -> None:
    completep = over_depth(Parametrisation(name="completep", base_width=64, base_layers=4), optimizer)
    mup = over_depth(Parametrisation(name="mup", base_width=64), optimizer)
    assert all(abs(completep[name]) < FLAT for name in ("layers.*.self_attn", "layers.*.mlp", "answers")), completep
    # What the layers change without a common direction adds up as the root of their number, over their number.
    assert -0.5 < completep["stream"] < FLAT
    assert mup["stream"] > 0.25 and mup["layers.*.mlp"] < -0.25, mup


@pytest.mark.parametrize(
    ("method", "without"),
    [
        ("residual", property(lambda self: 1.0)),
        (
            "deviation",
            lambda self, role, fan_in: (fan_in * (2 * self.shape.layers if role == "residual" else 1)) ** -0.5,
        ),
    ],
    ids=["what a block adds", "deviation of what writes into the stream"],
)
def test_each_factor_over_depth_is_missed_when_it_is_gone(
    monkeypatch: pytest.MonkeyPatch, method: str, without: Callable[..., float]
) -> None:
    completep = Parametrisation(name="completep", base_width=64, base_layers=4)
    optimizer = adamw(3e-3)
    whole = over_depth(completep, optimizer)
    assert abs(whole["layers.*.mlp"]) < FLAT and whole["stream"] < FLAT, whole
    monkeypatch.setattr(Scaling, method, without)
    gone = over_depth(completep, optimizer)
    assert abs(gone["layers.*.mlp"]) > 2 * FLAT or gone["stream"] > 2 * FLAT, gone


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
