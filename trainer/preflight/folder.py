"""What lies in the run's folder already: nothing, this run up to some step, or another's."""

from __future__ import annotations

from scaling.errors import UserError
from scaling.run_spec import RunSpec
from trainer.loop.checkpoint import DamagedCheckpoint, load
from trainer.loop.state import Progress
from trainer.preflight.check import Check
from trainer.run_folder import RunFolder

__all__ = ["check_folder"]


def check_folder(folder: RunFolder, spec: RunSpec) -> tuple[Check, int]:
    """The check, and the step that the run would go on from. Reads alone; a damaged checkpoint stays where it is."""
    place = folder.path
    try:
        record, result = folder.record(), folder.result()
    except UserError as error:
        return Check(name="folder", status="fail", said=str(error), remedy="give another folder by --out"), 0
    if record is not None and record.spec != spec:
        said = f"{place} holds the run {record.spec.key[:16]}, and this one is {spec.key[:16]}"
        return Check(name="folder", status="fail", said=said, remedy="give another folder by --out"), 0
    if result is not None and result.status == "finished":
        said = f"{place} holds this run, finished: there is nothing to train"
        return Check(name="folder", status="warn", said=said), spec.steps
    damaged = []
    for path in sorted(place.glob("step-*.checkpoint"), reverse=True) if place.is_dir() else ():
        try:
            step = Progress.model_validate_json(load(path)["progress"]).step
        except DamagedCheckpoint as error:
            damaged.append(str(error))
            continue
        if damaged:
            said = f"{damaged[0]}; the run goes on from step {step:,}"
            remedy = "see to the disk before more is written to it"
            return Check(name="folder", status="warn", said=said, remedy=remedy), step
        return Check(name="folder", status="ok", said=f"{place} holds this run up to step {step:,}, whole"), step
    if damaged:
        remedy = "put a copy in its place, or the run begins anew"
        return Check(name="folder", status="fail", said=f"{damaged[0]}, and there is no other", remedy=remedy), 0
    return Check(name="folder", status="ok", said=f"{place} is new"), 0
