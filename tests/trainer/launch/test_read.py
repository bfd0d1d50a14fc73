"""Exports that are read: transformers' configuration and the table; and what a job is read from."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from scaling.architectures import total_params
from scaling.cost.plan import fastest_plan
from scaling.errors import UserError
from scaling.run_spec import OptimizerSpec, Parametrisation
from scaling.shape import ModelShape
from trainer.data.shards import Corpus
from trainer.launch import hugging_face, ray, slurm, table, torchrun, torchtitan
from trainer.launch.job import Job, read_job
from trainer.launch.placement import Placement
from trainer.launch.write import TARGETS, write

from .conftest import SHAPE, MakeJob

SHAPES = {
    "llama": SHAPE,
    "llama untied": SHAPE.model_copy(update={"tied": False}),
    "gpt2": ModelShape(
        architecture="gpt2", layers=2, width=32, heads=4, kv_heads=4, ffn_width=128, vocabulary=260, context=32
    ),
    "mamba2": ModelShape(
        architecture="mamba2", layers=2, width=32, heads=4, kv_heads=1, ffn_width=64, vocabulary=260, context=32,
        state_width=16,
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
def test_transformers_builds_a_model_of_as_many_parameters(make_job: MakeJob, name: str) -> None:
    transformers = pytest.importorskip("transformers")
    job = make_job(shape=SHAPES[name])
    write(job, ["hf"], force=False)
    config = transformers.AutoConfig.from_pretrained(job.out / "hf")
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == total_params(job.spec.shape)
    tokenizer = transformers.AutoTokenizer.from_pretrained(job.out / "hf")
    assert len(tokenizer) == 260 and config.eos_token_id == tokenizer.eos_token_id


def test_a_shape_in_another_parametrisation_is_said_to_be_the_shape_alone(make_job: MakeJob) -> None:
    made = hugging_face.export(make_job(parametrisation=Parametrisation(name="mup", base_width=16)))
    assert any("holds the shape alone" in note for note in made.notes)


def test_an_architecture_that_transformers_lacks_is_refused(make_job: MakeJob) -> None:
    lstm = ModelShape(
        architecture="lstm", layers=1, width=32, heads=1, kv_heads=1, ffn_width=32, vocabulary=260, context=32
    )
    with pytest.raises(UserError, match="lstm has no class in transformers"):
        hugging_face.export(make_job(shape=lstm))


def test_the_table_holds_every_number_of_the_recommendation(tmp_path: Path) -> None:
    source = Path("results/quickstart/recommendation.yaml")
    document = yaml.safe_load(source.read_text())
    job = read_job(source, corpus=None, workspace=tmp_path, corpora=tmp_path, placement=Placement(), out=tmp_path)
    files = table.export(job).files
    rows = {row["name"]: row for row in csv.DictReader(io.StringIO(files["table.csv"]))}
    assert float(rows["params"]["value"]) == document["params"]["estimate"]
    assert float(rows["params"]["high"]) == document["params"]["high"]
    assert int(rows["params_total"]["value"]) == total_params(job.spec.shape)
    assert rows["run_key"]["value"] == job.spec.key

    def numbers(value: Any) -> int:
        if isinstance(value, dict):
            return sum(map(numbers, value.values()))
        if isinstance(value, list):
            return sum(map(numbers, value))
        return isinstance(value, (int, float)) and not isinstance(value, bool)

    cells = [row[column] for row in rows.values() for column in ("value", "low", "high")]
    found = sum(_is_number(cell) for cell in cells)
    assert found >= numbers(document) + 10
    assert files["table.md"].count("\n") == len(rows) + 4


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


# What a job is read from


def test_a_recommendation_without_a_corpus_goes_where_no_corpus_is_needed(tmp_path: Path) -> None:
    document = yaml.safe_load(Path("results/quickstart/recommendation.yaml").read_text()) | {"run": None}
    source = tmp_path / "outside.yaml"
    source.write_text(yaml.safe_dump(document))
    job = read_job(
        source, corpus=None, workspace=tmp_path, corpora=tmp_path, placement=Placement(), out=tmp_path / "out"
    )
    config = json.loads(hugging_face.export(job).files["config.json"])
    assert (config["num_hidden_layers"], config["hidden_size"]) == (42, 5120)
    for module in (torchrun, slurm, ray):
        with pytest.raises(UserError, match="has no run"):
            module.export(job)
    assert {one.target for one in write(job, ["torchtitan", "hf", "table"], force=False)} == {
        "torchtitan",
        "hf",
        "table",
    }


def test_a_run_as_people_write_it_is_launched_too(words: Corpus, tmp_path: Path) -> None:
    source = tmp_path / "mine.yaml"
    source.write_text(
        "model: {params: 50_000, context: 64}\ntokens: 64000\nglobal_batch_tokens: 640\n"
        "optimizer: {learning_rate: 1e-2}\ncorpus: {source: starter, vocabulary: 512}\n"
    )
    job = read_job(
        source, corpus=None, workspace=tmp_path, corpora=tmp_path, placement=Placement(), out=tmp_path / "out"
    )
    assert job.corpus == "starter" and job.spec.shape.vocabulary == 512
    assert "CORPUS=${CORPUS:-starter}" in torchrun.export(job).files["launch.sh"]


def test_the_workspaces_corpus_is_found_by_the_runs_key(make_job: MakeJob, words: Corpus) -> None:
    assert make_job().corpus == str(words.directory.resolve())


@pytest.mark.parametrize(
    ("layout", "said"),
    [
        ({"gpus_per_node": 3}, "take 2 or 4"),
        ({"gpus_per_node": 2, "tensor": 4}, "does not divide the 2 processes"),
        ({"gpus_per_node": 2, "micro_batch": 3}, "--micro-batch 3 does not divide the 4 sequences"),
    ],
)
def test_a_layout_that_does_not_fit_is_refused(make_job: MakeJob, layout: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as refused:
        make_job(placement=Placement.by_degrees(**layout))
    assert said in str(refused.value)


def test_our_trainer_refuses_degrees_it_has_not_and_many_machines_by_hand(make_job: MakeJob) -> None:
    for module in (torchrun, slurm, ray):
        with pytest.raises(UserError, match="export --to torchtitan"):
            module.export(make_job(placement=Placement.by_degrees(gpus_per_node=2, tensor=2)))
    with pytest.raises(UserError, match="--to slurm"):
        torchrun.export(make_job(placement=Placement.by_degrees(nodes=2)))


def test_muon_is_launched_whole_on_every_process(make_job: MakeJob) -> None:
    job = make_job(
        placement=Placement.by_degrees(gpus_per_node=2), optimizer=OptimizerSpec(name="muon", learning_rate=1e-2)
    )
    assert "--parallel ddp" in torchrun.export(job).files["launch.sh"]


def test_all_files_are_written_or_none_and_none_is_replaced_unasked(make_job: MakeJob) -> None:
    job = make_job(parametrisation=Parametrisation(name="mup", base_width=16))
    with pytest.raises(UserError, match="parametrisation mup"):
        write(job, ["torchrun", "torchtitan"], force=False)
    assert not job.out.exists()
    job = make_job()
    write(job, list(TARGETS), force=False)
    write(job, list(TARGETS), force=False)
    other = make_job(steps=30)
    with pytest.raises(UserError, match="already exists and says something else"):
        write(other, ["torchrun"], force=False)
    write(other, ["torchrun"], force=True)
    assert (other.out / "run.yaml").read_text() == other.text


# Layouts that are worked out


def _recommended(write_run: Callable[..., Path], gpus: int, **run: Any) -> Path:
    """A recommendation's file whose cluster is so many H100."""
    path = write_run(**run)
    document = yaml.safe_load(path.read_text()) | {"cluster": {"accelerator": "H100", "gpus": gpus, "plan": None}}
    path.write_text(yaml.safe_dump(document))
    return path


def _read(path: Path, words: Corpus, **more: Any) -> Job:
    corpora = words.directory.parent
    return read_job(
        path, corpus=None, workspace=corpora.parent, corpora=corpora, placement=None, out=path.parent / "out", **more
    )


def test_without_a_layout_the_plan_of_the_recommended_cluster_is_launched(
    write_run: Callable[..., Path], words: Corpus
) -> None:
    job = _read(_recommended(write_run, 16, shape=SHAPES["llama untied"], sequences=4), words)
    plan, spec = job.placement.plan, job.spec
    assert plan is not None
    asked = fastest_plan(spec.shape, "h100", 16, spec.global_batch_tokens, rounding=0, most_tensor=2)
    assert plan == asked and plan.devices == 16 and plan.global_batch_sequences == 4
    assert (job.placement.nodes, job.placement.gpus_per_node) == (2, 8)
    written = torchtitan.export(job)
    degrees = (plan.tensor, plan.pipeline, plan.context, job.placement.micro_batch_of(spec))
    said = f"CONTEXT_PARALLEL, MICRO_BATCH, LOCAL_BATCH = {', '.join(map(str, degrees))}, "
    assert said in written.files["torchtitan_run.py"] and plan.tensor * plan.pipeline > 1
    assert "--nnodes 2" in written.files["launch.sh"]


def test_our_trainer_takes_the_nearest_layout_that_it_has_and_says_so(
    write_run: Callable[..., Path], words: Corpus
) -> None:
    job = _read(_recommended(write_run, 16, sequences=8), words)
    assert job.placement.plan is not None
    for module, nodes, many in ((slurm, 1, 8), (ray, 1, 8), (torchrun, 1, 8)):
        made = module.export(job)
        assert made.placement is not None and made.placement.layout.data == many
        assert (made.placement.nodes, made.placement.processes) == (nodes, many)
        [said] = [note for note in made.notes if "fastest layout of 16 x H100" in note]
        assert "data-parallel alone" in said and "one machine x 8: 8 data, ZeRO-3" in said
        assert ("torchrun by hand is for one machine" in said) == (module is torchrun)
        assert not any("--micro-batch" in text for text in made.files.values())


def test_gpus_name_a_cluster_for_any_runs_file_and_machines_may_be_smaller(
    write_run: Callable[..., Path], words: Corpus
) -> None:
    path = write_run(sequences=8)
    assert _read(path, words).placement == Placement()
    job = _read(path, words, gpus=8, gpus_per_node=4, accelerator="a100")
    assert job.placement.plan is not None and job.placement.plan.accelerator == "A100"
    assert (job.placement.nodes, job.placement.gpus_per_node) == (2, 4)
    with pytest.raises(UserError, match="no layout puts 8 sequences"):
        _read(path, words, gpus=1024)


def test_a_recommended_cluster_that_the_batch_cannot_use_is_one_process_and_said(
    write_run: Callable[..., Path], words: Corpus
) -> None:
    job = _read(_recommended(write_run, 1024, sequences=8), words)
    assert job.placement == Placement()
    assert any("laid out for one process" in note and "no layout puts" in note for note in job.notes)


def test_a_planned_layout_that_torchtitan_has_not_is_named(write_run: Callable[..., Path], words: Corpus) -> None:
    job = _read(_recommended(write_run, 16, sequences=4), words)
    with pytest.raises(UserError, match=r"the fastest layout is 2 tensor x 2 pipeline x 4 data.*can't tie the head"):
        torchtitan.export(job)
