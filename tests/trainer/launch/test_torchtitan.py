"""The export for torchtitan, as torchtitan itself loads it; and what it refuses."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from scaling.architectures import total_params
from scaling.cost.parallel_plan import Layout
from scaling.cost.plan import evaluate
from scaling.errors import UserError
from scaling.run_spec import OptimizerSpec, Parametrisation, ScheduleSpec, SpikePolicy
from trainer.data.order import BatchOrder
from trainer.data.shards import Corpus
from trainer.export import llama as converter
from trainer.launch.job import Job
from trainer.launch.placement import Placement
from trainer.launch.torchtitan import VERSION, export
from trainer.launch.write import write
from trainer.loop.schedule import learning_rate
from trainer.models import build

from .conftest import SHAPE, MakeJob

# torchtitan 0.3.0 wants datasets<4.8 and this project's lock has 5: it lies in an environment of its own.
PYTHON = os.environ.get("TORCHTITAN_PYTHON", sys.executable)
LOADER = Path(__file__).with_name("load_torchtitan.py")


@pytest.fixture(scope="session")
def torchtitan() -> str:
    """An interpreter that imports the version that is exported to."""
    code = "import torchtitan, torchtitan.trainer; print(torchtitan.__version__)"
    found = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, timeout=120)
    if found.returncode:
        reason = found.stderr.strip().splitlines()[-1]
        pytest.skip(f"torchtitan can't be imported by {PYTHON} ({reason}): name an interpreter by TORCHTITAN_PYTHON")
    assert found.stdout.strip() == VERSION
    return PYTHON


def _loaded(torchtitan: str, job: Job, tmp_path: Path) -> tuple[dict[str, Any], float]:
    """What torchtitan made of it, and how far its logits are from ours under equal weights."""
    write(job, ["torchtitan"], force=True)
    model = build(job.spec.shape).eval()
    model.initialise(5)
    tokens_BT = torch.randint(job.spec.shape.vocabulary, (2, job.spec.shape.context))
    weights, logits = tmp_path / "weights", tmp_path / "logits"
    tensors = {name: weight.detach().contiguous() for name, weight in converter.tensors(model).items()}
    save_file(tensors | {"tokens": tokens_BT}, str(weights))
    command = [torchtitan, str(LOADER), str(job.out / "torchtitan"), str(weights), str(logits)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=280, env=os.environ | {"PYTHONPATH": str(Path.cwd())}
    )
    assert done.returncode == 0, done.stderr[-4000:]
    head = model.embed_tokens.weight if job.spec.shape.tied else model.lm_head.weight
    with torch.no_grad():
        ours_BTV = model.hidden(tokens_BT) @ head.T
    theirs_BTV = load_file(logits)["logits"]
    return json.loads(done.stdout.splitlines()[-1]), float((ours_BTV - theirs_BTV).abs().max() / ours_BTV.std())


@pytest.mark.slow
@pytest.mark.parametrize("tied", [True, False])
def test_torchtitan_builds_our_model_and_our_schedule_of_our_tokens(
    torchtitan: str, make_job: MakeJob, words: Corpus, tmp_path: Path, tied: bool
) -> None:
    shape = SHAPE.model_copy(update={"tied": tied})
    job = make_job(shape=shape, placement=Placement.by_degrees(gpus_per_node=2, micro_batch=2))
    spec = job.spec
    found, distance = _loaded(torchtitan, job, tmp_path)

    assert found["params"] == total_params(shape)
    assert found["missing"] == []
    assert distance < 1e-5
    assert found["batch"] == [2, 8, 25, 1.0] and found["degrees"] == [1, 1, 1] and found["seed"] == 3
    assert found["tokenizer"] == 260

    decayed = {name for name, decay in found["decays"].items() if decay}
    assert all(decay in (0, 0.1) for decay in found["decays"].values())
    assert decayed == {name for name in found["decays"] if "norm" not in name and "tok_embeddings" not in name}
    assert ("lm_head.weight" in decayed) == (not tied)

    # Half a step later than ours in the warm-up, half a step later in the cooldown.
    ours = [learning_rate(spec, step) for step in range(spec.steps)]
    halves = [learning_rate(spec, step + 0.5) for step in range(2)]  # type: ignore[arg-type]
    assert found["rates"][:2] == pytest.approx(halves)
    assert found["rates"][2:20] == pytest.approx(ours[2:20])
    earlier = [learning_rate(spec, step + 0.5) for step in range(20, 25)]  # type: ignore[arg-type]
    assert found["rates"][20:] == pytest.approx([1e-2, *earlier[:-1]])

    order = BatchOrder(words.manifest.train.tokens, 32, 8, 3)
    tokens = words.tokens("train")
    for rank, batches in enumerate(found["batches"]):
        # Two micro-batches of two a step; the last is read by a loader that took up the state of the one before.
        for number, (x_bT, y_bT) in enumerate(batches):
            step, part = divmod(number, 2)
            rows = slice(4 * rank + 2 * part, 4 * rank + 2 * part + 2)
            expected = [a[rows].tolist() for a in order.batch(tokens, step)]
            assert [x_bT, y_bT] == expected


@pytest.mark.slow
def test_initial_weights_are_of_our_deviations(torchtitan: str, make_job: MakeJob, tmp_path: Path) -> None:
    shape = SHAPE.model_copy(update={"width": 128, "ffn_width": 320, "tied": False})
    found, _ = _loaded(torchtitan, make_job(shape=shape), tmp_path)
    residual = 1 / math.sqrt(2 * shape.layers)
    wanted = {"tok_embeddings": 128**-0.5, "lm_head": 128**-0.5, "wqkv": 128**-0.5, "w1": 128**-0.5, "w3": 128**-0.5}
    wanted |= {"wo": residual * 128**-0.5, "w2": residual * 320**-0.5}
    assert len(found["deviations"]) == 2 + 2 * 5
    for name, deviation in found["deviations"].items():
        assert deviation == pytest.approx(wanted[name.split(".")[-2]], rel=0.03), name


@pytest.mark.slow
def test_a_cosine_and_every_degree_are_taken(torchtitan: str, make_job: MakeJob, tmp_path: Path) -> None:
    shape = SHAPE.model_copy(update={"tied": False})
    schedule = ScheduleSpec(kind="cosine", warmup_tokens=512, floor=0.1)
    placement = Placement.by_degrees(nodes=2, gpus_per_node=8, tensor=2, pipeline=2, context=2, micro_batch=1)
    job = make_job(shape=shape, schedule=schedule, placement=placement)
    found, _ = _loaded(torchtitan, job, tmp_path)
    assert found["degrees"] == [2, 2, 2]
    assert found["pipeline"] == ["1F1B", None] and found["recompute"] == "SelectiveAC.Config"
    assert found["reshard"] == "default"
    # All of a rank's four sequences go through the pipeline, one at a time.
    assert found["batch"][:2] == [4, 8]
    ours = [learning_rate(job.spec, step - 0.5) for step in range(2, 25)]  # type: ignore[arg-type]
    assert found["rates"][2:] == pytest.approx(ours, rel=1e-6)


@pytest.mark.slow
def test_a_layout_that_was_worked_out_is_taken_with_its_pieces_and_recomputation(
    torchtitan: str, make_job: MakeJob, tmp_path: Path
) -> None:
    shape = SHAPE.model_copy(update={"tied": False, "layers": 6})
    layout = Layout(tensor=2, pipeline=2, data=2, virtual_stages=2, micro_batch_sequences=1, recompute="full")
    plan = evaluate(shape, layout, "h100", 8)
    job = make_job(shape=shape, placement=Placement(gpus_per_node=8, layout=layout, plan=plan))
    found, _ = _loaded(torchtitan, job, tmp_path)
    # Six layers, embedding and head in four pieces of two.
    assert found["pipeline"] == ["Interleaved1F1B", 2] and found["recompute"] == "FullAC.Config"
    assert found["reshard"] == "never"
    assert found["degrees"] == [2, 2, 1] and found["batch"][:2] == [4, 8]


def test_pieces_that_torchtitan_cannot_make_are_said(make_job: MakeJob) -> None:
    shape = SHAPE.model_copy(update={"tied": False, "layers": 10})
    layout = Layout(pipeline=2, virtual_stages=5, micro_batch_sequences=1)
    job = make_job(
        shape=shape, placement=Placement(gpus_per_node=2, layout=layout, plan=evaluate(shape, layout, "h100", 8))
    )
    made = export(job)
    assert "LAYERS_A_PIECE, RECOMPUTE, RESHARD = '1F1B', None, 'none', 'never'" in made.files["torchtitan_run.py"]
    assert any("can't cut 10 layers into 5 pieces for each of 2 stages" in note for note in made.notes)


@pytest.mark.parametrize(
    ("run", "layout", "said"),
    [
        ({"parametrisation": Parametrisation(name="mup", base_width=16)}, {}, "parametrisation mup"),
        ({"optimizer": OptimizerSpec(name="muon", learning_rate=1e-2)}, {}, "DistMuon"),
        ({"spikes": SpikePolicy(action="skip")}, {}, "spikes.action skip"),
        ({"schedule": ScheduleSpec(warmup_tokens=100)}, {}, "warmup_tokens 100"),
        ({}, {"gpus_per_node": 4, "tensor": 4}, "--tensor 4 does not divide kv_heads 2"),
        ({}, {"gpus_per_node": 2, "pipeline": 2}, "can't tie the head"),
        ({"shape": SHAPE.model_copy(update={"tied": False})}, {"gpus_per_node": 4, "pipeline": 4}, "2 layers"),
        ({"shape": SHAPE.model_copy(update={"architecture": "gpt2", "kv_heads": 4})}, {}, "architecture gpt2"),
    ],
)
def test_what_torchtitan_cannot_express_is_refused(
    make_job: MakeJob, run: dict[str, Any], layout: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError) as refused:
        export(make_job(placement=Placement.by_degrees(**layout), **run))
    assert said in str(refused.value) and "\n" not in str(refused.value)
