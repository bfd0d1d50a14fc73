"""Numerics of a single run: what was asked for is done, the rest is measured, and what can't be is said at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from scaling.errors import UserError
from scaling.run_spec import RunSpec
from trainer import numerics_choice
from trainer.loop.memory import USABLE_SHARE, estimate_memory
from trainer.loop.numerics import Numerics
from trainer.numerics_choice import NumericsWish

MakeSpec = Callable[..., RunSpec]


def silent(what: str, share: float) -> None: ...


def test_what_was_asked_for_needs_no_calibration(tiny_spec: MakeSpec, tmp_path: Path) -> None:
    wish = NumericsWish(device="cpu", precision="bf16", compiled=False, threads=2, micro_batch_sequences=3)
    chosen, peak = wish.choose(tiny_spec(), tmp_path, pytest.fail)
    assert peak is None
    assert chosen == Numerics(precision="bf16", threads=2, micro_batch_sequences=3)
    assert wish.granted_by(chosen) and NumericsWish().granted_by(chosen)
    assert not NumericsWish(precision="fp32").granted_by(chosen)
    assert not NumericsWish().granted_by(chosen.model_copy(update={"processor": "another machine's"}))


def test_a_calibration_is_kept_for_the_next_time(tiny_spec: MakeSpec, tmp_path: Path) -> None:
    wish = NumericsWish(device="cpu", compiled=False)
    chosen, peak = wish.choose(tiny_spec(), tmp_path, silent)
    assert chosen.precision in ("fp32", "bf16") and not chosen.compiled
    assert peak is not None and peak > 1e8
    assert wish.choose(tiny_spec(), tmp_path, pytest.fail) == (chosen, peak)


def test_a_micro_batch_follows_the_memory_and_too_large_a_run_is_refused_before_anything_runs(
    tiny_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wish, spec = NumericsWish(device="cpu", precision="fp32", compiled=False), tiny_spec()
    half = estimate_memory(spec.shape, spec.sequences_per_step // 2, Numerics(), spec.optimizer).total
    for available, rows in ((10**12, None), (int(1.01 * half / USABLE_SHARE), spec.sequences_per_step // 2)):
        monkeypatch.setattr(numerics_choice, "device_memory", lambda device, size=available: size)
        assert wish.choose(spec, tmp_path, silent)[0].micro_batch_sequences == rows
    monkeypatch.setattr(numerics_choice, "device_memory", lambda device: 1000)
    with pytest.raises(UserError, match="smaller model"):
        wish.choose(spec, tmp_path, silent)
