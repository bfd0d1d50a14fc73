"""A study is carried whole from one workspace to another; two halves become one; nothing hostile gets in."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scaling.errors import UserError
from scaling.forecast import Outcome
from sweeps.bundle.export import export
from sweeps.bundle.merge import import_study
from sweeps.ledger.ledger import Ledger
from sweeps.tracking.run_facts import facts_of_study, record_facts
from sweeps.workspace import Workspace

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


Change = Callable[[dict[str, bytes]], None]


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
