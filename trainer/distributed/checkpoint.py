"""Checkpoints of several processes: a folder with the shards of each, written while training goes on.

A folder ``step-N.checkpoint`` holds what the file of that name holds for a single process: tensors as
torch.distributed.checkpoint writes them to safetensors files, and ``skeleton``, the state with tensors that have no
content in their places. ``whole.json`` comes last, with the SHA-256 of every file, and then the folder gets its name:
it is whole or absent. Shards are put together anew for as many processes as read them, one included, and several read a
single one's file. Nothing of it is unpickled but the skeleton, with ``weights_only=True`` and after its checksum.

All ranks see one file system.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load as load_tensors
from torch.distributed.checkpoint.state_dict_saver import async_save
from torch.distributed.tensor import DTensor, distribute_tensor

from trainer.distributed.marker import MARKER, marker, promised_sums
from trainer.distributed.world import World
from trainer.loop.checkpoint import KEPT, TEMPORARY, CheckpointFolder, DamagedCheckpoint, load, remove
from trainer.whole_file import sync_folder, write_whole

__all__ = ["SharedCheckpointFolder", "load_folder"]

State = dict[str, Any]

_SKELETON = "skeleton"


class SharedCheckpointFolder(CheckpointFolder):
    """The checkpoints of one run that several processes train; each calls every method, in the same order."""

    def __init__(self, folder: Path, note: Callable[[str], None], world: World) -> None:
        self._world = world
        self._saving: Future[Any] | None = None
        if world.rank == 0:
            super().__init__(folder, note)
        world.wait()
        if world.rank > 0:
            self.folder, self._note = folder, note

    def _write(self, path: Path, state: State, kept: int | None = None) -> None:
        """Copy ``state`` and let a thread write it, once the one before is written."""
        self.finish()
        temporary, skeleton = path.with_name(path.name + TEMPORARY), _skeleton(state)

        def committed() -> None:
            """On rank 0, when all ranks' files are written."""
            write_whole(temporary / _SKELETON, skeleton)
            sums = {file.name: _sha256(file) for file in sorted(temporary.iterdir())}
            write_whole(temporary / MARKER, marker(sums))
            sync_folder(temporary)
            remove(path)
            temporary.rename(path)
            sync_folder(path.parent)
            if kept is not None:
                super(SharedCheckpointFolder, self).keep(kept)

        saving = async_save(
            {name: tensor for name, tensor in _tensors(state).items() if tensor.numel()},
            storage_writer=_Writer(temporary, committed),
            process_group=self._world.saving,
        )
        assert isinstance(saving, Future)
        self._saving = saving

    def save(self, step: int, state: State) -> None:
        self._write(self._path(step), state, KEPT)

    def save_for_branches(self, step: int, state: State) -> None:
        self._write(self._branch_path(step), state)

    def finish(self) -> None:
        """Wait until the last checkpoint is whole; ``OSError`` if it could not be written."""
        saving, self._saving = self._saving, None
        if saving is not None:
            try:
                saving.result()
            except CheckpointException as error:
                reasons = "; ".join(f"rank {rank}: {wrapped[0]!r}" for rank, wrapped in error.failures.items())
                raise OSError(f"a checkpoint could not be written to {self.folder}: {reasons}") from error

    def keep(self, count: int) -> None:
        self.finish()
        if self._world.rank == 0:
            super().keep(count)

    def _remove(self, path: Path) -> None:
        if self._world.rank == 0:
            super()._remove(path)

    def _load(self, path: Path, device: str, form: Callable[[], State]) -> State:
        """Raises on all ranks if one of them finds damage; each looks at its part of the files."""
        problem, found_here, one_file = "another process of the run found so", False, None
        try:
            if path.is_dir():
                _check(path, self._world.rank, self._world.ranks)
            else:
                one_file = load(path)
        except DamagedCheckpoint as error:
            problem, found_here = str(error), True
        if self._world.any(found_here):
            raise DamagedCheckpoint(problem)
        live = _tensors(form())
        if one_file is not None:
            placed: State = _map(one_file, lambda name, tensor: _placed(tensor, _like(name, live), device))
            return placed
        return _read(path, device, live, self._world)


def load_folder(path: Path, device: str = "cpu") -> State:
    """The whole state in the folder ``path``, as a single process would have saved it; :class:`DamagedCheckpoint` if
    it is not what was saved."""
    _check(path)
    return _read(path, device, {}, None)


class _Writer(HuggingFaceStorageWriter):
    """Safetensors, whose headers say which part of a tensor a file holds: torch's own format has that in a pickle."""

    def __init__(self, path: Path, committed: Callable[[], None]) -> None:
        super().__init__(str(path), save_distributed=True)
        self._committed = committed

    def finish(self, metadata: Any, results: Any) -> None:
        self._committed()


def _check(path: Path, first: int = 0, every: int = 1) -> None:
    """:class:`DamagedCheckpoint` unless the folder holds what its marker says; of the files only each ``every``-th
    is read."""
    try:
        sums = promised_sums((path / MARKER).read_bytes())
    except (OSError, ValueError):
        raise DamagedCheckpoint(f"{path} has no {MARKER} that can be read") from None
    there = {file.name for file in path.iterdir()} - {MARKER}
    if there != sums.keys():
        raise DamagedCheckpoint(f"{path} holds other files than were saved: {', '.join(sorted(there ^ sums.keys()))}")
    for name in sorted(sums)[first::every]:
        if _sha256(path / name) != sums[name]:
            raise DamagedCheckpoint(f"{path / name} does not match its checksum")


def _read(path: Path, device: str, live: Mapping[str, Tensor], world: World | None) -> State:
    """The state in a folder that was checked; tensors are cut as those of ``live`` are."""
    skeleton = torch.load(io.BytesIO((path / _SKELETON).read_bytes()), weights_only=True)
    room = {}
    for name, empty in _tensors(skeleton).items():
        like = _like(name, live)
        room[name] = (
            torch.zeros_like(like)
            if isinstance(like, DTensor)
            else torch.empty(empty.shape, dtype=empty.dtype, device=device)
        )
    with warnings.catch_warnings():
        # It remarks on a single process.
        warnings.filterwarnings("ignore", category=UserWarning, module="torch.distributed.checkpoint")
        load_tensors(
            {name: tensor for name, tensor in room.items() if tensor.numel()},
            storage_reader=HuggingFaceStorageReader(str(path)),
            process_group=world.saving if world else None,
            no_dist=world is None,
        )
    state: State = _map(skeleton, lambda name, _: room[name])
    return state


# A state: dicts, lists and tuples of tensors, numbers and words. A tensor's name is its path.


def _map(state: Any, change: Callable[[str, Tensor], Any], path: tuple[str, ...] = ()) -> Any:
    """``state`` with each tensor changed."""
    if isinstance(state, Tensor):
        return change("/".join(path), state)
    if isinstance(state, Mapping):
        return {key: _map(value, change, (*path, str(key))) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(_map(value, change, (*path, str(at))) for at, value in enumerate(state))
    return state


def _tensors(state: State) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    _map(state, found.__setitem__)
    return found


def _skeleton(state: State) -> bytes:
    buffer = io.BytesIO()
    torch.save(_map(state, lambda _, tensor: torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")), buffer)
    return buffer.getvalue()


def _like(name: str, live: Mapping[str, Tensor]) -> Tensor | None:
    """What ``name`` is in a run that goes on; a snapshot is cut as the weights are that it was taken of."""
    return live.get(name.removeprefix("snapshot/"))


def _placed(tensor: Tensor, like: Tensor | None, device: str) -> Tensor:
    if isinstance(like, DTensor):
        placed: Tensor = distribute_tensor(tensor.to(device), like.device_mesh, like.placements, src_data_rank=None)
        return placed
    return tensor.to(device)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
