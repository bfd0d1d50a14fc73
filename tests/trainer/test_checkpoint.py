"""Checkpoints that are whole or absent, whatever happens while they are written or afterwards."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.loop import checkpoint
from trainer.loop.checkpoint import CheckpointFolder, DamagedCheckpoint, load, save


def state(step: int) -> dict[str, Any]:
    return {"step": step, "weights": torch.arange(100.0) + step, "nested": [{"rate": 0.1}, None, "text"]}


def test_comes_back_equal(tmp_path: Path) -> None:
    save(tmp_path / "one", state(7))
    back = load(tmp_path / "one")
    assert torch.equal(back.pop("weights"), state(7)["weights"])
    assert back == {"step": 7, "nested": [{"rate": 0.1}, None, "text"]}


@given(st.data())
@settings(max_examples=60)
def test_any_flipped_bit_and_any_cut_is_noticed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("damage") / "one"
    save(path, state(7))
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[at] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del content[at:]
    path.write_bytes(content)
    with pytest.raises(DamagedCheckpoint):
        load(path)


def test_keeps_two_and_falls_back_to_the_one_before_saying_so(tmp_path: Path) -> None:
    notes: list[str] = []
    folder = CheckpointFolder(tmp_path / "run", notes.append)
    for step in (5, 10, 15):
        folder.save(step, state(step))
    files = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert files == ["step-000000000010.checkpoint", "step-000000000015.checkpoint"]
    newest = tmp_path / "run" / files[1]
    newest.write_bytes(newest.read_bytes()[:-1])
    found = folder.newest()
    assert found is not None
    assert found["step"] == 10
    assert len(notes) == 1
    assert "step 15 is damaged" in notes[0]
    assert CheckpointFolder(tmp_path / "run", notes.append).newest() is not None


def test_none_where_there_is_none_and_leftovers_are_cleared(tmp_path: Path) -> None:
    (tmp_path / "step-000000000003.checkpoint.99.tmp").write_bytes(b"half")
    folder = CheckpointFolder(tmp_path, lambda note: None)
    assert folder.newest() is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failing_disk_leaves_the_previous_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    folder = CheckpointFolder(tmp_path, lambda note: None)
    folder.save(5, state(5))

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os if failing == "fsync" else Path, failing, fail)
        with pytest.raises(OSError, match="No space left"):
            folder.save(10, state(10))
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000000005.checkpoint"]
    found = folder.newest()
    assert found is not None
    assert found["step"] == 5


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("marker-of-an-evil-pickle",)


def test_a_foreign_pickle_is_never_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "one"
    save(path, state(1))
    # The attacker even has the checksum right.
    monkeypatch.setattr(checkpoint.torch, "save", lambda value, buffer: buffer.write(pickle.dumps(Evil(), protocol=2)))
    save(path, {})
    with pytest.raises(pickle.UnpicklingError):
        load(path)
    assert not (tmp_path / "marker-of-an-evil-pickle").exists()
