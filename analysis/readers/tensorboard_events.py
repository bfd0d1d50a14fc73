"""Runs in a folder of TensorBoard logs: hyperparameters, and each scalar's last and least value.

Every folder with event files is a run, as TensorBoard itself has it. PyTorch's ``add_hparams`` writes into a folder
below the run's own; such a folder belongs to the run above. Files are read by TensorBoard's own loader, which knows
both generations of scalars and stops at a record that was cut off.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.readers.logged import MINIMUM, Asked, LoggedRuns, frame_of
from scaling.errors import UserError

if TYPE_CHECKING:
    from google.protobuf.struct_pb2 import Value
    from tensorboard.compat.proto.summary_pb2 import Summary

__all__ = ["read_events"]

_FILES = "*tfevents*"
_STEP = "metrics.step"


def read_events(folder: Path, asked: Asked) -> LoggedRuns:
    """The runs at and below ``folder``. Raises ``UserError`` where there are none, or TensorBoard isn't installed."""
    try:
        from tensorboard.backend.event_processing import event_file_loader
    except ImportError:
        raise UserError(
            "reading TensorBoard logs needs the package tensorboard: pip install 'lossfrontier[tensorboard]'"
        ) from None
    if not folder.is_dir():
        raise UserError(f"tensorboard:{folder} is not a folder: give the folder that TensorBoard's --logdir is given")
    files = sorted(folder.rglob(_FILES), key=lambda path: (path.parent, path.name))
    if not files:
        raise UserError(f"tensorboard:{folder} has no event files (*tfevents*), at no depth")
    runs: dict[Path, dict[str, object]] = {}
    for done, path in enumerate(files):
        name = path.parent.relative_to(folder).as_posix()
        row = runs.setdefault(path.parent, {"name": folder.resolve().name if name == "." else name})
        for step, value in _values(event_file_loader.EventFileLoader(str(path))):
            _take(row, step, value)
        asked.progress(done + 1, len(files))
    rows = [row for path, row in runs.items() if not _belongs_above(path, runs)]
    return LoggedRuns(frame_of(rows), f"TensorBoard folder {folder}", folder.resolve().name)


def _values(loader: object) -> Iterator[tuple[int, Summary.Value]]:
    for event in loader.Load():  # type: ignore[attr-defined]
        for value in event.summary.value:
            yield event.step, value


def _take(row: dict[str, object], step: int, value: Summary.Value) -> None:
    from tensorboard.plugins.hparams import metadata
    from tensorboard.util import tensor_util

    if value.tag == metadata.SESSION_START_INFO_TAG:
        session = metadata.parse_session_start_info_plugin_data(value.metadata.plugin_data.content)
        row |= {f"params.{name}": _plain(given) for name, given in session.hparams.items()}
    elif value.HasField("tensor") and value.metadata.plugin_data.plugin_name in ("scalars", ""):
        numbers = tensor_util.make_ndarray(value.tensor)
        if numbers.size != 1 or numbers.dtype.kind not in "fiu":
            return
        number, column = float(numbers.item()), f"metrics.{value.tag}"
        row[column] = number
        least = row.get(f"{column}{MINIMUM}", math.inf)
        assert isinstance(least, float)
        row[f"{column}{MINIMUM}"] = least if math.isnan(number) else min(least, number)
        row[_STEP] = max(step, int(str(row.get(_STEP, 0))))


def _plain(given: Value) -> object:
    kind = given.WhichOneof("kind")
    return getattr(given, kind) if kind in ("number_value", "string_value", "bool_value") else None


def _belongs_above(path: Path, runs: dict[Path, dict[str, object]]) -> bool:
    """Give the hyperparameters of a folder that ``add_hparams`` made to the run above it, which has none."""
    row, above = runs[path], runs.get(path.parent)
    if above is None or not any(name.startswith("params.") for name in row):
        return False
    if any(name.startswith("params.") for name in above):
        return False
    for name, value in row.items():
        above.setdefault(name, value)
    return True
