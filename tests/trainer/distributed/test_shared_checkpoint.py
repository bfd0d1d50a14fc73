"""A shared checkpoint is whole or absent, is what was there when it was asked for, and is never unpickled."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainer.distributed.checkpoint import SharedCheckpointFolder
from trainer.distributed.world import World
from trainer.loop.checkpoint import CheckpointFolder, DamagedCheckpoint, load


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A single process that writes as one of several."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield World(saving=dist.group.WORLD)
    dist.destroy_process_group()


def state(step: int) -> dict[str, Any]:
    """Everything that a run's state has: nothing in a tensor, a number in one, tensors by number, and words."""
    moments = {0: {"step": torch.tensor(float(step)), "exp_avg": torch.ones(3, 2) * step}}
    return {
        "model": {"weight": torch.arange(6.0).view(3, 2) + step, "half": torch.ones(4, dtype=torch.bfloat16)},
        "optimizer": [{"state": moments, "param_groups": [{"lr": 0.1, "betas": (0.9, 0.95), "params": [0]}]}],
        "unread": torch.zeros(0, 3),
        "flags": torch.tensor([True, False]),
        "progress": '{"step": 1}',
        "snapshot": None,
    }


def saved(folder: Path, world: World, *steps: int) -> SharedCheckpointFolder:
    checkpoints = SharedCheckpointFolder(folder, lambda note: None, world)
    for step in steps:
        checkpoints.save(step, state(step))
    checkpoints.finish()
    return checkpoints


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def test_comes_back_equal_to_several_and_to_one(world: World, tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, world, 7)
    assert same(checkpoints.newest(form=lambda: state(1)), state(7))
    assert same(CheckpointFolder(tmp_path, print).newest(), state(7))
    assert same(load(tmp_path / "step-000000000007.checkpoint"), state(7))


def test_what_one_wrote_several_read(world: World, tmp_path: Path) -> None:
    CheckpointFolder(tmp_path, print).save(7, state(7))
    assert same(SharedCheckpointFolder(tmp_path, print, world).newest(form=lambda: state(1)), state(7))


def test_it_is_what_was_there_when_it_was_asked_for(world: World, tmp_path: Path) -> None:
    checkpoints = SharedCheckpointFolder(tmp_path, print, world)
    changing = state(7)
    checkpoints.save(7, changing)
    changing["model"]["weight"].zero_()
    changing["optimizer"][0]["state"][0]["exp_avg"].zero_()
    assert same(load(tmp_path / "step-000000000007.checkpoint") if not checkpoints.finish() else None, state(7))


def test_two_are_kept_and_those_for_branches_beside_them(world: World, tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, world, 5, 10)
    checkpoints.save_for_branches(10, state(10))
    checkpoints.save(15, state(15))
    checkpoints.finish()
    names = ["branch-000000000010.checkpoint", "step-000000000010.checkpoint", "step-000000000015.checkpoint"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert same(checkpoints.for_branch(12), state(10))
    checkpoints.keep(1)
    assert checkpoints.newest_step() == 15 and len(list(tmp_path.iterdir())) == 2


def test_a_step_that_is_taken_again_replaces_its_checkpoint(world: World, tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, world, 5)
    checkpoints.save(5, state(6))
    checkpoints.finish()
    assert same(checkpoints.newest(), state(6))


@given(st.data())
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_flipped_bit_cut_or_missing_file_is_noticed(
    world: World, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("damage")
    checkpoints = saved(folder, world, 5, 7)
    path = folder / "step-000000000007.checkpoint"
    file = data.draw(st.sampled_from(sorted(path.iterdir())))
    content = bytearray(file.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    how = data.draw(st.sampled_from(["flip", "cut", "gone", "more"]))
    if how == "flip":
        content[at] ^= 1 << data.draw(st.integers(0, 7))
    elif how == "cut":
        del content[at:]
    if how == "gone":
        file.unlink()
    elif how == "more":
        (path / "more.safetensors").write_bytes(b"")
    else:
        file.write_bytes(content)
    with pytest.raises(DamagedCheckpoint):
        load(path)
    assert same(checkpoints.newest(), state(5))
    assert not path.exists()


def test_a_failing_disk_leaves_the_previous_checkpoint_and_is_said(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = saved(tmp_path, world, 5)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        checkpoints.save(10, state(10))
        with pytest.raises(OSError, match=r"could not be written .*No space left"):
            checkpoints.finish()
    assert same(checkpoints.newest(), state(5))
    SharedCheckpointFolder(tmp_path, print, world)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000000005.checkpoint"]


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("marker-of-an-evil-pickle",)


def test_a_foreign_pickle_is_never_executed(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoints = saved(tmp_path / "run", world, 5)
    path = tmp_path / "run" / "step-000000000005.checkpoint"
    assert not list(path.glob("*.metadata")) and not list(path.glob(".metadata"))
    # The attacker even has the checksum right.
    (path / "skeleton").write_bytes(pickle.dumps(Evil(), protocol=2))
    marker = json.loads((path / "whole.json").read_text())
    marker["sha256"]["skeleton"] = hashlib.sha256((path / "skeleton").read_bytes()).hexdigest()
    (path / "whole.json").write_text(json.dumps(marker, indent=2) + "\n")
    for read in (lambda: load(path), checkpoints.newest):
        with pytest.raises(pickle.UnpicklingError):
            read()
    assert not (tmp_path / "marker-of-an-evil-pickle").exists()
