"""What MLflow's search box answers over a study's runs: the strings that docs/reading-results.md lists, each tried."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run

from scaling import architectures
from scaling.run_spec import OptimizerSpec, RunSpec, ScheduleSpec
from sweeps.ledger.ledger import PlannedRun
from sweeps.tracking.projection import MlflowProjection

from ..projected import FACTS, RESULT, STUDY, Projected

# MLflow 3.17's own use of SQLAlchemy 2.1, and nothing of ours.
pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")

BUDGETS = (1e10, 4e10)
ARCHITECTURES = ("llama", "gpt2", "lstm", "mamba2")
Search = Callable[..., list[Run]]


def planned(architecture: str, budget: float, size: float) -> PlannedRun:
    shape = architectures.get(architecture).shape_for(size, vocabulary=300, context=32)
    tokens = round(budget / 6 / architectures.total_params(shape) / 128) * 128
    spec = RunSpec(
        shape=shape, tokens=tokens, global_batch_tokens=128, optimizer=OptimizerSpec(learning_rate=0.01),
        schedule=ScheduleSpec(warmup_tokens=128), data_key="d", tokenizer_key="t", held_out_tokens=128,
    )  # fmt: skip
    return PlannedRun(spec=spec, stage="sweep", label=f"{architecture} {size:g}", budget_flops=budget)


@pytest.fixture(scope="module")
def projected(frozen: Any, tmp_path_factory: pytest.TempPathFactory) -> Projected:
    return Projected(*frozen, tmp_path_factory.mktemp("found"))


@pytest.fixture(scope="module")
def search(projected: Projected) -> Search:
    """Sixteen finished runs of four architectures beside a failed one, in a store of MLflow's."""
    ledger = projected.ledger
    runs = [planned(name, budget, size) for name in ARCHITECTURES for budget in BUDGETS for size in (2e4, 5e4)]
    ledger.add(STUDY, runs)
    while leased := ledger.lease(STUDY, "sweep", projected.owner):
        loss = 6.0 - leased.tokens / 1e6
        ledger.add_points(
            leased.key, [{"step": 1, "tokens": leased.tokens, "flops": 1.0, "name": "held_out_loss", "value": loss}]
        )
        if leased.data_key == "d":
            ledger.finish(leased.key, projected.owner, "finished", RESULT | {"loss_nats": loss})
        else:
            ledger.finish(leased.key, projected.owner, "diverged", {"status": "diverged", "steps": 7, "system": FACTS})
    artifacts = projected.workspace.artifacts_uri(projected.uri)
    folder_of = projected.workspace.run_folder
    MlflowProjection(ledger.url, projected.uri, artifacts, STUDY, projected.plan, folder_of).sync()
    experiment = projected.client.get_experiment_by_name(f"scaling/{STUDY}")
    assert experiment is not None

    def found(where: str, order_by: str | None = None) -> list[Run]:
        order = [order_by] if order_by else None
        return list(projected.client.search_runs([experiment.experiment_id], where, order_by=order))

    return found


def test_the_search_strings_of_the_docs_find_what_they_say(search: Search) -> None:
    one_budget = "tags.scaling.budget = '4.00e+10' and tags.scaling.run_key LIKE '%'"
    assert {run.data.tags["scaling.architecture"] for run in search(one_budget)} == set(ARCHITECTURES)
    assert len(search(one_budget)) == len(ARCHITECTURES) * 2
    best = search(f"{one_budget} and attributes.status = 'FINISHED'", "metrics.final_loss_nats ASC")
    losses = [run.data.metrics["final_loss_nats"] for run in best]
    assert losses == sorted(losses)

    transformers = search("tags.scaling.family = 'transformer' and attributes.status = 'FINISHED'")
    assert {run.data.tags["scaling.architecture"] for run in transformers} == {"llama", "gpt2"}
    assert {run.data.tags["scaling.family"] for run in search("tags.scaling.architecture = 'mamba2'")} == {
        "state-space"
    }

    ended = [run for run in search("tags.scaling.kind = 'run'") if run.info.status != "RUNNING"]
    for name, string, limit in (
        ("params_total", "metrics.params_total > 30000", 30000),
        ("tokens_per_param", "metrics.tokens_per_param > 20", 20),
    ):
        beyond = {run.info.run_id for run in ended if float(run.data.params[name]) > limit}
        assert beyond and {run.info.run_id for run in search(f"{string} and tags.scaling.kind = 'run'")} == beyond
    assert search("attributes.run_name LIKE 'lstm%'")

    assert [run.data.tags["scaling.study"] for run in search("tags.scaling.kind = 'study'")] == [STUDY]
    assert {run.info.status for run in search("attributes.status = 'FAILED'")} == {"FAILED"}
    assert search("tags.scaling.stage = 'sweep'") and not search("tags.scaling.stage = 'hold-out'")
    assert search("tags.mlflow.source.git.commit = 'abc'")


def test_the_corpus_is_the_study_s_data_set_by_its_fingerprint(search: Search, projected: Projected) -> None:
    (study,) = search("tags.scaling.kind = 'study'")
    (used,) = study.inputs.dataset_inputs
    assert projected.plan.corpus.data_key.startswith(used.dataset.digest)
    assert f'"data_key": "{projected.plan.corpus.data_key}"' in used.dataset.source
    assert [tag.value for tag in used.tags] == ["training"]
    assert len(search(f"dataset.digest = '{used.dataset.digest}'")) == 1
    projected.projection()  # as the next start of the study does
    (study,) = search("tags.scaling.kind = 'study'")
    assert len(study.inputs.dataset_inputs) == 1, "opening the study again adds none"


def test_checkpoints_are_named_and_not_copied(search: Search, projected: Projected) -> None:
    run = search("tags.scaling.architecture = 'lstm'")[0]
    folder = projected.workspace.run_folder(run.data.tags["scaling.run_key"])
    assert run.data.tags["scaling.checkpoints"] == folder.as_uri()
    assert not list(Path(str(run.info.artifact_uri).removeprefix("file://")).rglob("*.checkpoint"))
