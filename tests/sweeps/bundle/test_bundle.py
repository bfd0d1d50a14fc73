"""A study is carried whole from one workspace to another; two halves become one; nothing hostile gets in."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from scaling.errors import UserError
from scaling.forecast import Outcome
from sweeps.bundle.export import export
from sweeps.bundle.merge import import_study
from sweeps.ledger.ledger import Ledger
from sweeps.tracking.run_facts import facts_of_study, record_facts
from sweeps.workspace import Workspace
from trainer.distributed.checkpoint import SharedCheckpointFolder
from trainer.distributed.world import World
from trainer.loop.checkpoint import load, remove
from trainer.run_folder import RunRecord

from ..ledger.test_ledger import forecast
from ..projected import FACTS, RESULT, STUDY, Projected

MEASURED = RESULT | {
    "run_key": "k", "numerics": "cpu fp32", "tokens": 5120, "held_out_tokens": 64, "weights_hash": "w", "system": None,
}  # fmt: skip


def train(projected: Projected, count: int, loss: float = 3.2) -> list[str]:
    keys = []
    for _ in range(count):
        key = projected.lease()
        record_facts(projected.ledger, [key], FACTS)
        projected.points(key, range(1, 41))
        projected.ledger.finish(key, projected.owner, "finished", MEASURED | {"loss_nats": loss})
        folder = projected.workspace.run_folder(key)
        folder.mkdir(parents=True)
        (folder / "step-000000000040.checkpoint").write_bytes(key.encode() * 100)
        keys.append(key)
    return keys


def state_of(ledger: Ledger) -> Any:
    """All that the ledger holds of the study, but for who holds runs and identifiers of its own."""
    rows = [row._replace(spec_json="") for row in ledger.runs(STUDY)]
    points = {
        row.key: [(p.step, p.name, p.tokens, p.flops, p.value, p.time) for p in ledger.points(row.key)] for row in rows
    }
    chain = [(link.hash, link.forecast, link.outcome, link.registered_at) for link in ledger.forecasts()]
    return rows, points, chain, facts_of_study(ledger, STUDY), ledger.plan_of(STUDY)


def fresh(tmp_path: Path, name: str = "laptop") -> tuple[Ledger, Workspace]:
    workspace = Workspace(tmp_path / name)
    return Ledger(workspace.ledger_url), workspace


def test_a_study_carried_to_another_workspace_is_the_same_there_and_twice_changes_nothing(
    projected: Projected, tmp_path: Path
) -> None:
    ours = forecast(3.0)
    waiting = projected.ledger.runs(STUDY)[0].key
    projected.ledger.register("another study", forecast(2.5), [])
    projected.ledger.register(STUDY, ours, [waiting])
    keys = train(projected, 3)
    projected.ledger.score(ours.key, Outcome(forecast_key=ours.key, loss=3.1, loss_spread=None, relative_error=0.01,
                                             inside=True, run_keys=(waiting,)))  # fmt: skip
    file = tmp_path / "study.tar.gz"
    wrote = export(projected.ledger, projected.workspace, STUDY, file, checkpoints=True)
    assert (wrote["runs"], wrote["points"], wrote["checkpoints"]) == (4, 3 * 40 * 3, 3)
    ledger, workspace = fresh(tmp_path)
    merged = import_study(ledger, workspace, file)
    assert sorted(merged.taken) == sorted(keys)
    assert (merged.conflicts, merged.forecasts, merged.checkpoints) == ([], 2, 3)
    assert state_of(ledger) == state_of(projected.ledger)
    assert ledger.broken_links() == []
    for key in keys:
        carried = workspace.run_folder(key) / "step-000000000040.checkpoint"
        assert carried.read_bytes() == key.encode() * 100
    assert import_study(ledger, workspace, file).taken == []
    assert state_of(ledger) == state_of(projected.ledger)


def test_two_halves_trained_apart_become_one_whole_in_which_nothing_is_left_to_train(
    projected: Projected, frozen: Any, tmp_path: Path
) -> None:
    other = Projected(*frozen, tmp_path / "other")
    first = train(projected, 2)
    while spec := other.ledger.lease(STUDY, "sweep", other.owner):
        if spec.key in first:  # stays under way here, far enough for its branch
            other.ledger.heartbeat(spec.key, other.owner, step=39, tokens_per_second=1.0, loss=4.0)
            continue
        other.points(spec.key, range(1, 41))
        other.ledger.finish(spec.key, other.owner, "finished", MEASURED)
    file = tmp_path / "half.tar.gz"
    export(other.ledger, other.workspace, STUDY, file)
    merged = import_study(projected.ledger, projected.workspace, file)
    assert len(merged.taken) == 2
    assert {row.state for row in projected.ledger.runs(STUDY)} == {"finished"}
    assert projected.ledger.lease(STUDY, "sweep", projected.owner) is None
    assert {len(projected.ledger.points(row.key)) for row in projected.ledger.runs(STUDY)} == {120}


def test_the_same_run_with_another_loss_under_the_same_numerics_is_reported_and_ours_kept(
    projected: Projected, frozen: Any, tmp_path: Path
) -> None:
    other = Projected(*frozen, tmp_path / "other")
    train(projected, 1, loss=3.2)
    train(other, 1, loss=3.4)
    export(other.ledger, other.workspace, STUDY, tmp_path / "f.tar.gz")
    before = state_of(projected.ledger)
    merged = import_study(projected.ledger, projected.workspace, tmp_path / "f.tar.gz")
    assert len(merged.conflicts) == 1
    assert "loss_nats is 3.2 here and 3.4 in the file" in merged.conflicts[0]
    assert state_of(projected.ledger) == before


def test_forecasts_of_two_histories_are_one_unbroken_chain_with_their_own_times(
    projected: Projected, frozen: Any, tmp_path: Path
) -> None:
    other = Projected(*frozen, tmp_path / "other")
    projected.ledger.register("ours", forecast(2.0), [])
    other.ledger.register(STUDY, forecast(3.0), [])
    export(other.ledger, other.workspace, STUDY, tmp_path / "f.tar.gz")
    assert import_study(projected.ledger, projected.workspace, tmp_path / "f.tar.gz").forecasts == 1
    assert projected.ledger.broken_links() == []
    assert projected.ledger.forecasts(STUDY)[0].registered_at == other.ledger.forecasts(STUDY)[0].registered_at


# Checkpoints that several processes wrote


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A single process that writes as one of several."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield World(saving=dist.group.WORLD)
    dist.destroy_process_group()


def save_shared(folder: Path, world: World, step: int = 40) -> dict[str, Any]:
    """A checkpoint in ``folder`` that is a folder itself; returns what it holds."""
    state = {"model": {"weight": torch.arange(6.0).view(3, 2) * step}, "unread": torch.zeros(0, 3), "progress": "{}"}
    checkpoints = SharedCheckpointFolder(folder, print, world)
    checkpoints.save(step, state)
    checkpoints.finish()
    return state


STEP_40 = "step-000000000040.checkpoint"


def test_a_checkpoint_of_several_processes_is_carried_whole(projected: Projected, world: World, tmp_path: Path) -> None:
    first, second = train(projected, 2)
    folder = projected.workspace.run_folder(first)
    (folder / STEP_40).unlink()
    state = save_shared(folder, world)
    file = tmp_path / "f.tar.gz"
    assert export(projected.ledger, projected.workspace, STUDY, file, checkpoints=True)["checkpoints"] == 2
    ledger, workspace = fresh(tmp_path)
    # One of another form that is there already makes room.
    workspace.run_folder(first).mkdir(parents=True)
    (workspace.run_folder(first) / STEP_40).write_bytes(b"older")
    (workspace.run_folder(second) / STEP_40).mkdir(parents=True)
    assert import_study(ledger, workspace, file).checkpoints == 2
    carried = load(workspace.run_folder(first) / STEP_40)
    assert torch.equal(carried["model"]["weight"], state["model"]["weight"])
    assert (workspace.run_folder(second) / STEP_40).read_bytes() == second.encode() * 100
    assert [path.name for path in workspace.run_folder(first).iterdir()] == [STEP_40]


def test_a_large_runs_checkpoints_are_carried_from_where_it_was_trained(
    projected: Projected, world: World, tmp_path: Path
) -> None:
    spec = projected.ledger.runs(STUDY)[0].spec
    own = projected.workspace.trained / f"large-{spec.key[:8]}"
    state = save_shared(own, world)
    record = RunRecord(spec=spec, numerics=projected.plan.numerics, corpus="somewhere")
    (own / "run.json").write_text(record.model_dump_json())
    projected.ledger.claim(spec.key, projected.owner)
    projected.ledger.finish(spec.key, projected.owner, "finished", MEASURED)
    wrote = export(projected.ledger, projected.workspace, STUDY, tmp_path / "f.tar.gz", checkpoints=True)
    assert wrote["checkpoints"] == 1
    ledger, workspace = fresh(tmp_path)
    assert import_study(ledger, workspace, tmp_path / "f.tar.gz").checkpoints == 1
    carried = load(workspace.run_folder(spec.key) / STEP_40)
    assert torch.equal(carried["model"]["weight"], state["model"]["weight"])


def test_a_checkpoint_that_goes_while_it_is_exported_is_left_out(
    projected: Projected, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (key,) = train(projected, 1)
    folder = projected.workspace.run_folder(key)
    save_shared(folder, world, 20)
    listed = Path.glob

    def then_gone(path: Path, pattern: str) -> list[Path]:
        found = list(listed(path, pattern))
        if path == folder:
            remove(folder / "step-000000000020.checkpoint")
        return found

    monkeypatch.setattr(Path, "glob", then_gone)
    assert export(projected.ledger, projected.workspace, STUDY, tmp_path / "f", checkpoints=True)["checkpoints"] == 1


def _in_folder(change: Callable[[dict[str, bytes], str], None]) -> Change:
    """Of members that hold a checkpoint which is a folder, changed by their common beginning."""

    def apply(members: dict[str, bytes]) -> None:
        change(members, next(name for name in members if name.endswith("whole.json")).removesuffix("whole.json"))

    return apply


def _move_to_end(members: dict[str, bytes], name: str) -> None:
    members[name] = members.pop(name)


def _add_before(members: dict[str, bytes], later: str, name: str) -> None:
    after = list(members)[list(members).index(later) :]
    members[name] = b"x"
    for each in after:
        _move_to_end(members, each)


Change = Callable[[dict[str, bytes]], None]
HOSTILE_FOLDERS: dict[str, Change] = {
    "a file more": _in_folder(lambda m, at: _add_before(m, f"{at}whole.json", f"{at}tt.safetensors")),
    "a file less": _in_folder(lambda m, at: m.pop(f"{at}skeleton") and None),
    "a changed file": _in_folder(lambda m, at: m.update({f"{at}skeleton": m[f"{at}skeleton"] + b"x"})),
    "no marker": _in_folder(lambda m, at: m.pop(f"{at}whole.json") and None),
    "another marker": _in_folder(lambda m, at: m.update({f"{at}whole.json": b'{"sha256": {}}'})),
    "a marker that is no text": _in_folder(lambda m, at: m.update({f"{at}whole.json": b"\xff"})),
    "a marker that is a list": _in_folder(lambda m, at: m.update({f"{at}whole.json": b"[1]"})),
    "a file after the marker": _in_folder(lambda m, at: m.update({f"{at}zz.safetensors": b"x"})),
    "in two pieces": _in_folder(lambda m, at: _move_to_end(m, f"{at}whole.json")),
    "a file upwards": _in_folder(lambda m, at: _add_before(m, f"{at}whole.json", f"{at}../../x")),
    "a hidden file": _in_folder(lambda m, at: _add_before(m, f"{at}whole.json", f"{at}.metadata")),
    "a folder in it": _in_folder(lambda m, at: _add_before(m, f"{at}whole.json", f"{at}a/b")),
    "a file of its name": _in_folder(lambda m, at: m.update({at.rstrip("/"): b"x"})),
}  # fmt: skip


@pytest.mark.parametrize("attack", ["none", *HOSTILE_FOLDERS])
def test_a_checkpoint_folder_that_is_not_as_it_was_saved_is_refused_and_leaves_nothing(
    projected: Projected, world: World, tmp_path: Path, attack: str
) -> None:
    first, second = train(projected, 2)
    for key in (first, second):
        (projected.workspace.run_folder(key) / STEP_40).unlink()
    save_shared(projected.workspace.run_folder(min(first, second)), world)
    save_shared(projected.workspace.run_folder(max(first, second)), world, 30)
    whole = tmp_path / "whole.tar.gz"
    export(projected.ledger, projected.workspace, STUDY, whole, checkpoints=True)
    with tarfile.open(whole) as archive:
        members = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    HOSTILE_FOLDERS.get(attack, lambda _: None)(members)
    file = _pack(tmp_path / "evil.tar.gz", members)
    ledger, workspace = fresh(tmp_path)
    if attack == "none":
        assert import_study(ledger, workspace, file).checkpoints == 2
        return
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="not imported"):
        import_study(ledger, workspace, file)
    assert ledger.study_names() == []
    assert sorted(tmp_path.rglob("*")) == before


def _json(name: str, change: Callable[[Any], None]) -> Change:
    def apply(members: dict[str, bytes]) -> None:
        rows = [json.loads(line) for line in members[name].splitlines()]
        change(rows[0])
        members[name] = "".join(json.dumps(row) + "\n" for row in rows).encode()

    return apply


HOSTILE: dict[str, Change] = {
    "path upwards": lambda m: m.update({"../evil": b"x"}),
    "absolute path": lambda m: m.update({"/tmp/evil": b"x"}),
    "checkpoint upwards": lambda m: m.update({"checkpoints/../../x/step-000000000040.checkpoint": b"x"}),
    "checkpoint of nobody": lambda m: m.update({f"checkpoints/{'0' * 16}/step-000000000040.checkpoint": b"x"}),
    "another file": lambda m: m.update({"evil.pkl": b"x"}),
    "no runs": lambda m: m.pop("runs.jsonl") and None,
    "not text": lambda m: m.update({"points.jsonl": b"\xff\xfe"}),
    "not JSON": lambda m: m.update({"points.jsonl": b"{"}),
    "name upwards": _json("study.json", lambda row: row.update(name="../up")),
    "name with escape": _json("study.json", lambda row: row.update(name="a\x1b[2J")),
    "later format": _json("study.json", lambda row: row.update(format=2)),
    "changed specification": _json("runs.jsonl", lambda row: row["spec"].update(seed=99)),
    "key upwards": _json("runs.jsonl", lambda row: row.update(key="../../x")),
    "unknown state": _json("runs.jsonl", lambda row: row.update(state="won")),
    "finished without a result": _json("runs.jsonl", lambda row: row.update(state="finished", result={})),
    "changed forecast": _json("forecasts.jsonl", lambda row: row["forecast"].update(flops=1.0)),
    "changed time": _json("forecasts.jsonl", lambda row: row.update(registered_at=1.0)),
    "bomb": lambda m: m.update({"points.jsonl": b" " * (1 << 28)}),
}


@pytest.fixture
def members(projected: Projected, tmp_path: Path) -> dict[str, bytes]:
    projected.ledger.register(STUDY, forecast(3.0), [])
    file = tmp_path / "whole.tar.gz"
    export(projected.ledger, projected.workspace, STUDY, file)
    with tarfile.open(file) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]


def _pack(path: Path, members: dict[str, bytes], special: tarfile.TarInfo | None = None) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        if special:
            archive.addfile(special)
    return path


@pytest.mark.parametrize("attack", HOSTILE)
def test_a_hostile_file_is_refused_in_a_line_and_leaves_nothing(
    members: dict[str, bytes], tmp_path: Path, attack: str
) -> None:
    HOSTILE[attack](members)
    file = _pack(tmp_path / "evil.tar.gz", members)
    ledger, workspace = fresh(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError):
        import_study(ledger, workspace, file)
    assert ledger.study_names() == []
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE])
def test_links_devices_and_folders_are_refused(members: dict[str, bytes], tmp_path: Path, kind: bytes) -> None:
    special = tarfile.TarInfo("study.json")
    special.type, special.linkname = kind, "/etc/passwd"
    del members["study.json"]
    ledger, workspace = fresh(tmp_path)
    with pytest.raises(UserError, match="no plain file"):
        import_study(ledger, workspace, _pack(tmp_path / "evil.tar.gz", members, special))


def test_a_file_cut_short_anywhere_is_refused(members: dict[str, bytes], tmp_path: Path) -> None:
    whole = _pack(tmp_path / "whole.tar.gz", members).read_bytes()
    ledger, workspace = fresh(tmp_path)
    for share in (0.0, 0.1, 0.5, 0.9):
        (tmp_path / "cut").write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(UserError):
            import_study(ledger, workspace, tmp_path / "cut")
    (tmp_path / "cut").write_bytes(gzip.compress(b"no archive"))
    with pytest.raises(UserError):
        import_study(ledger, workspace, tmp_path / "cut")
    assert ledger.study_names() == []


def test_a_run_folder_that_is_a_link_out_of_the_workspace_is_not_followed(projected: Projected, tmp_path: Path) -> None:
    (key,) = train(projected, 1)
    export(projected.ledger, projected.workspace, STUDY, tmp_path / "f.tar.gz", checkpoints=True)
    ledger, workspace = fresh(tmp_path)
    outside = tmp_path / "outside"
    outside.mkdir()
    workspace.runs.mkdir()
    workspace.run_folder(key).symlink_to(outside)
    with pytest.raises(UserError, match="leads out of the workspace"):
        import_study(ledger, workspace, tmp_path / "f.tar.gz")
    assert list(outside.iterdir()) == []
