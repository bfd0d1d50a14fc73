"""Decoding token by token knows what the whole forward pass knows, for every architecture that can be trained."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling.run_spec import Parametrisation
from trainer.models import build

from .shapes import SHAPES


@st.composite
def parts(draw: Callable[..., int]) -> list[int]:
    """Lengths of parts that fill the context or less."""
    lengths = [draw(st.integers(1, 12))]
    while sum(lengths) < 12 and draw(st.booleans()):
        lengths.append(draw(st.integers(1, 12 - sum(lengths))))
    return lengths


@pytest.mark.parametrize("architecture", SHAPES)
@given(lengths=parts(), scaled=st.booleans(), batch=st.integers(1, 3))
@settings(max_examples=25)
def test_logits_in_any_parts_are_those_of_the_whole(
    architecture: str, lengths: list[int], scaled: bool, batch: int
) -> None:
    parametrisation = Parametrisation(name="completep", base_width=16, base_layers=1) if scaled else None
    model = build(SHAPES[architecture], parametrisation)
    model.initialise(0)
    x_BT = torch.randint(50, (batch, sum(lengths)), generator=torch.Generator().manual_seed(len(lengths)))
    whole_BTV, state, end = model(x_BT), model.start_state(batch), 0
    for part_BT in x_BT.split(lengths, dim=1):
        logits_BV, state = model.decode(part_BT, state)
        end += part_BT.shape[1]
        torch.testing.assert_close(logits_BV, whole_BTV[:, end - 1], atol=1e-5, rtol=1e-4)
