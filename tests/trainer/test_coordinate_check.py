"""Coordinate checks: activations move alike, whatever the width or depth, under the parametrisations that say so.

These are claims about exponents, with one tolerance for all. Each factor of the table is also taken out in turn: a
check that did not see it gone would tell nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from scaling.run_spec import OptimizerSpec, Parametrisation
from scaling.shape import ModelShape
from trainer.evaluate.coordinate_check import coordinate_slopes
from trainer.models.parametrisation import Scaling

STANDARD = Parametrisation()
MUP = Parametrisation(name="mup", base_width=32)
WIDTHS = (32, 128, 512)
LAYERS = (4, 8, 16)
FLAT = 0.1
"""Largest exponent in the size that still counts as none."""
MOVING = ("layers.*.self_attn", "layers.*.mlp", "stream", "answers")


def shape(width: int = 32, layers: int = 2, *, tied: bool = True, architecture: str = "llama") -> ModelShape:
    heads, kv_heads, ffn_width, state_width = {
        "lstm": (1, 1, width, None),
        "mamba2": (width // 8, 1, 2 * width, 16),
    }.get(architecture, (width // 8, width // 8, width * 5 // 2, None))
    return ModelShape(
        architecture=architecture, layers=layers, width=width, heads=heads, kv_heads=kv_heads, ffn_width=ffn_width,
        vocabulary=64, context=16, tied=tied, state_width=state_width,
    )  # fmt: skip


def adamw(rate: float = 1e-2, **fields: float) -> OptimizerSpec:
    return OptimizerSpec(learning_rate=rate, **fields)


def over_width(
    parametrisation: Parametrisation,
    optimizer: OptimizerSpec,
    *,
    tied: bool = True,
    widths: tuple[int, ...] = WIDTHS,
    architecture: str = "llama",
) -> dict[str, float]:
    shapes = [shape(width, tied=tied, architecture=architecture) for width in widths]
    return coordinate_slopes(shapes, parametrisation, optimizer)


def over_depth(parametrisation: Parametrisation, optimizer: OptimizerSpec) -> dict[str, float]:
    shapes = [shape(64, layers) for layers in LAYERS]
    return coordinate_slopes(shapes, parametrisation, optimizer, along="layers", seeds=1)


# Over width


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "lstm", "mamba2"])
@pytest.mark.parametrize("tied", [True, False])
def test_under_mup_activations_move_alike_at_every_width_and_under_standard_they_do_not(
    tied: bool, architecture: str
) -> None:
    mup, standard = (
        over_width(each, adamw(3e-3), tied=tied, architecture=architecture) for each in (MUP, STANDARD)
    )  # fmt: skip
    assert all(abs(mup[name]) < FLAT for name in mup if name != "initial logits"), mup
    assert all(standard[name] > 0.2 for name in ("layers.*", "stream", "answers")), standard
    # At the start the logits are those of a random head: they die out with width (2203.03466, appendix D.1).
    assert -0.6 < mup["initial logits"] < -0.25 and abs(standard["initial logits"]) < FLAT


def test_muon_moves_activations_alike_at_every_width_under_mup_alone() -> None:
    muon = OptimizerSpec(name="muon", learning_rate=3e-3)
    shapes = [shape(width) for width in (16, 64, 256)]
    mup = coordinate_slopes(shapes, Parametrisation(name="mup", base_width=16), muon, steps=2)
    standard = coordinate_slopes(shapes, STANDARD, muon, steps=2)
    assert all(abs(mup[name]) < FLAT for name in mup if name != "initial logits"), mup
    assert all(standard[name] > 0.3 for name in MOVING), standard


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
