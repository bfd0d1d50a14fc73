"""GPT-2 is transformers' GPT-2 under other names, to the logit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from scaling.run_spec import Parametrisation
from scaling.shape import ModelShape
from trainer.models.gpt2 import GPT2

transformers = pytest.importorskip("transformers")


@pytest.mark.parametrize("tied", [True, False])
def test_logits_are_those_of_transformers(tied: bool) -> None:
    shape = ModelShape(
        architecture="gpt2",
        layers=3,
        width=48,
        heads=4,
        kv_heads=4,
        ffn_width=144,
        vocabulary=90,
        context=24,
        tied=tied,
    )
    model = GPT2(shape, Parametrisation(name="mup", base_width=16))
    model.initialise(0)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(1))
    theirs = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=90, n_positions=24, n_embd=48, n_layer=3, n_head=4, n_inner=144, tie_word_embeddings=tied
        )
    ).eval()
    theirs.load_state_dict(_under_their_names(model))
    x_BT = torch.randint(90, (3, 24), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(x_BT), theirs(x_BT).logits, atol=1e-5, rtol=1e-4)


def _under_their_names(model: GPT2) -> dict[str, Tensor]:
    """Their matrices are (in, out); muP's factor of the logits goes into the last norm."""
    state: dict[str, Tensor] = {}
    for name, weight in model.state_dict().items():
        top = {"embed_tokens": "transformer.wte", "embed_positions": "transformer.wpe", "norm": "transformer.ln_f"}
        first, _, rest = name.partition(".")
        theirs = f"transformer.h.{rest}" if first == "layers" else f"{top.get(first, first)}.{rest}"
        state[theirs] = weight.T if first == "layers" and weight.ndim == 2 else weight
        if first == "norm":
            state[theirs] = weight * model.scaling.logits
    return state
