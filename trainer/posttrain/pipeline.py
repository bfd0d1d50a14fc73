"""What a post-training file says: sft, pairs, reward, ppo and its relatives, and all of them side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from scaling.record import Record
from trainer.posttrain.compare import CompareSettings
from trainer.posttrain.direct import DPOSettings, KTOSettings, SimPOSettings
from trainer.posttrain.examples import (
    Example,
    ExampleFile,
    read_examples,
)
from trainer.posttrain.online import OnlineSettings
from trainer.posttrain.policy_gradient import PPOStage
from trainer.posttrain.preferences import SampledPairs
from trainer.posttrain.reward_model import (
    RewardSettings,
)
from trainer.posttrain.sft import SFTSettings
from trainer.posttrain.stage import StageKind
from trainer.posttrain.tasks.answers import Answers
from trainer.posttrain.tasks.sentences import Sentences
from trainer.settings_file import read_settings

__all__ = ["Pipeline", "Rows", "load_pipeline"]

_POLICIES: tuple[StageKind, ...] = ("dpo", "kto", "simpo", "ppo", "grpo", "rloo")


class Rows(Record):
    """The examples of a file, without a score of their own."""

    kind: Literal["rows"] = "rows"
    data: ExampleFile

    def examples(self) -> list[Example]:
        return read_examples(self.data)


class BestOfNStage(Record):
    """The best of ``answers`` samples by the reward, on ``prompts`` held-out prompts, and of every smaller number."""

    answers: int = Field(default=64, ge=2)
    prompts: int = Field(default=100, ge=2)


class Track(Record):
    mlflow: str | None = "sqlite:///mlflow.db"
    """A store; a relative SQLite path lies in the workspace."""


class Pipeline(Record):
    """What the file says; a stage that it leaves out is not trained."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    base: str
    """A run, as `scaling generate` takes it, or a folder in the Hugging Face layout."""
    chat_template: str | None = None
    task: Annotated[Sentences | Answers | Rows, Field(discriminator="kind")]
    held_out: float = Field(default=0.05, gt=0, lt=0.5)
    """Share of the prompts that nothing is trained on."""
    max_new_tokens: int = Field(default=64, ge=1)
    seeds: tuple[int, ...] = (0,)
    threads: int | None = Field(default=None, ge=1)
    """Of the CPU, for sampling and for training; all by default."""
    sft: SFTSettings | None = SFTSettings()
    pairs: SampledPairs | ExampleFile | None = None
    reward: RewardSettings | None = None
    best_of_n: BestOfNStage | None = None
    dpo: DPOSettings | None = None
    kto: KTOSettings | None = None
    simpo: SimPOSettings | None = None
    ppo: PPOStage | None = None
    grpo: OnlineSettings | None = None
    rloo: OnlineSettings | None = None
    compare: CompareSettings = CompareSettings()
    track: Track = Track()

    @model_validator(mode="after")
    def _each_has_what_it_needs(self) -> Pipeline:
        for name in ("reward", "dpo", "kto", "simpo"):
            if getattr(self, name) is not None and self.pairs is None:
                raise ValueError(f"has {name} and no pairs to train it on: add pairs (sampled, or a file)")
        if isinstance(self.task, Rows):
            for name in ("ppo", "grpo", "rloo", "best_of_n"):
                if getattr(self, name) is not None and self.reward is None:
                    raise ValueError(f"has {name}, and neither a task with a score nor reward: add reward")
            if isinstance(self.pairs, SampledPairs):
                raise ValueError("has pairs sampled for a task without a score: give a file of pairs")
        for name, given in (("ppo", self.ppo), ("grpo", self.grpo), ("rloo", self.rloo)):
            if given is not None and (twice := given.model_fields_set & {"max_new_tokens", "seed", "method"}):
                raise ValueError(
                    f"{name} has {', '.join(sorted(twice))}, which the pipeline says: take it out of {name}"
                )
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds are {list(self.seeds)}: give one or more, each once")
        return self

    @property
    def stage_names(self) -> list[str]:
        first = [name for name in ("sft", "pairs", "reward", "best_of_n") if getattr(self, name) is not None]
        return [*first, *self.policies, "compare"]

    @property
    def policies(self) -> list[StageKind]:
        return [kind for kind in _POLICIES if getattr(self, kind) is not None]


def load_pipeline(path: Path) -> Pipeline:
    """:class:`UserError` with one line ``FILE:LINE  what is wrong. Remedy`` for the first mistake."""
    return read_settings(path, "`scaling posttrain --template`").check(Pipeline)
