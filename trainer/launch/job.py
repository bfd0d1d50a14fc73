"""What is launched: a run from the file that describes it, and where its corpus and its results lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from scaling.architectures import total_params
from scaling.cluster_wanted import DEFAULT_ACCELERATOR
from scaling.errors import UserError
from scaling.quantity import format_count
from scaling.recommendation import Recommendation
from scaling.run_spec import OptimizerSpec, RunSpec, ScheduleSpec
from trainer.data.shards import Corpus
from trainer.data.source import STARTER
from trainer.launch.placement import Placement
from trainer.run_file import RunFile
from trainer.settings_file import read_settings

__all__ = ["Exported", "Job", "Target", "read_job"]

_RECOMMEND = "`scaling recommend STUDY --out FILE.yaml`"


@dataclass(frozen=True)
class Job:
    """A run to be started. ``trainable`` is false of a recommendation without a corpus: its numbers alone go out."""

    name: str
    spec: RunSpec
    text: str
    """The file, word for word."""
    document: dict[str, Any]
    trainable: bool
    corpus: str | None
    """A tokenised corpus's folder or a source, absolute where it is a path; None where it isn't here."""
    workspace: Path
    placement: Placement
    out: Path
    """The folder that the files go to, absolute."""
    notes: tuple[str, ...] = ()

    @property
    def tokenised(self) -> Corpus | None:
        """The run's corpus where it lies here in tokens."""
        return Corpus(Path(self.corpus)) if self.corpus and (Path(self.corpus) / "manifest.json").is_file() else None

    @property
    def title(self) -> str:
        """For people: ``large: llama of 14.3B parameters, 178B tokens in 2,993,307 steps``."""
        spec = self.spec
        return (
            f"{self.name}: {spec.shape.architecture} of {format_count(total_params(spec.shape))} parameters, "
            f"{format_count(spec.tokens)} tokens in {spec.steps:,} steps"
        )


@dataclass(frozen=True)
class Exported:
    """Files by their names within the folder, those of them that are started, and what to know beforehand."""

    files: dict[str, str]
    start: str | None = None
    """The command."""
    programs: tuple[str, ...] = ()
    placement: Placement | None = None
    """What it is started on; None of what is only read."""
    notes: tuple[str, ...] = ()


class Target(Protocol):
    """A module of this function."""

    def export(self, job: Job) -> Exported:
        """The files; :class:`UserError` in one line where the target can't express the run."""


def read_job(
    path: Path,
    *,
    corpus: str | None,
    workspace: Path,
    corpora: Path,
    placement: Placement | None,
    out: Path,
    gpus: int | None = None,
    gpus_per_node: int | None = None,
    accelerator: str | None = None,
) -> Job:
    """The run in ``path``: a recommendation, or whatever ``scaling train`` reads.

    corpus: in place of the file's. corpora: where tokenised ones lie by their keys. Without a ``placement`` the fastest
    layout is worked out over ``gpus`` accelerators, or over the recommendation's; one process where neither is named.
    :class:`UserError` if the file can't be read, or the layout doesn't fit the run.
    """
    file = read_settings(path, _RECOMMEND)
    notes: tuple[str, ...] = ()
    trainable = True
    if "run" in file.data and file.data["run"] is None:
        spec, trainable, source = _without_corpus(file.check(Recommendation)), False, None
        notes = (
            "the recommendation comes from a fit without a corpus: decay 0.1, clipping at 1 and a cooldown of 1 - sqrt "
            "are the trainer's defaults, and nothing names the data",
        )
    else:
        run = RunFile(path)
        settings = run.corpus_settings(None)
        source = None if settings is None else settings.source
        assert run.exact is not None or run.settings is not None, "a run's file has one of its two forms"
        spec = run.exact or run.settings.run_spec(vocabulary=run.settings.corpus.vocabulary)  # type: ignore[union-attr]
    if placement is None:
        placement, said = _planned(spec, file.data, gpus, gpus_per_node, accelerator)
        notes += said
    placement.check(spec)
    given = corpus or source
    return Job(
        name=path.stem,
        spec=spec,
        text=path.read_text(encoding="utf-8"),
        document=file.data,
        trainable=trainable,
        corpus=_absolute(given) if given else _kept(spec, corpora),
        workspace=workspace,
        placement=placement,
        out=out.resolve(),
        notes=notes,
    )


def _planned(
    spec: RunSpec, data: dict[str, Any], gpus: int | None, gpus_per_node: int | None, accelerator: str | None
) -> tuple[Placement, tuple[str, ...]]:
    """The fastest layout over the cluster that is named, and what to know of it."""
    cluster = data.get("cluster")
    recommended = cluster if isinstance(cluster, dict) else {}
    many = gpus or recommended.get("gpus")
    if not many:
        return Placement(), ()
    name = accelerator or recommended.get("accelerator") or DEFAULT_ACCELERATOR
    try:
        placement = Placement.planned(spec, name, many, gpus_per_node)
    except UserError as error:
        if gpus:
            raise
        return Placement(), (f"laid out for one process, since of the recommended cluster {error}",)
    plan = placement.plan
    assert plan is not None
    said = [] if plan.fits else [f"the layout does not fit: {plan.why_not}"]
    shown = recommended.get("plan")
    if (
        isinstance(shown, dict)
        and shown.get("global_batch_sequences") != spec.sequences_per_step
        and many == recommended.get("gpus")
    ):
        said.append(
            f"the recommendation's page shows the layout of {shown.get('global_batch_sequences'):,} sequences a step; "
            f"this one keeps the run's {spec.sequences_per_step:,}"
        )
    return placement, tuple(said)


def _without_corpus(made: Recommendation) -> RunSpec:
    batch = made.global_batch_tokens
    tokens = max(1, round(made.tokens.estimate / batch)) * batch
    return RunSpec(
        shape=made.shape,
        tokens=tokens,
        global_batch_tokens=batch,
        optimizer=OptimizerSpec(learning_rate=float(f"{made.learning_rate.estimate:.6g}")),
        schedule=ScheduleSpec(warmup_tokens=made.warmup_tokens, cooldown_tokens=made.cooldown_tokens),
        seed=0,
        data_key="",
        tokenizer_key="",
        held_out_tokens=made.shape.context,
    )


def _absolute(source: str) -> str:
    """Scripts are started from anywhere; ``starter`` is no path, and a glob's folder is what is made absolute."""
    folder = Path(source.split("*", 1)[0])
    if source == STARTER:
        return source
    return str(Path.cwd() / source) if folder.exists() or folder.parent != Path() else source


def _kept(spec: RunSpec, corpora: Path) -> str | None:
    kept = corpora / spec.data_key[:16]
    return str(kept.resolve()) if spec.data_key and (kept / "manifest.json").is_file() else None
