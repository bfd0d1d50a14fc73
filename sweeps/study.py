"""The study file: what it may say, and errors that name the file, the line, the value and the remedy."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from scaling import architectures
from scaling.cost.energy import region
from scaling.errors import UserError
from scaling.hardware import accelerator
from scaling.laws.power_lines import BATCH_EXPONENT, WeightDecay
from scaling.limits import Limits
from scaling.record import Record
from scaling.run_spec import Parametrisation
from scaling.shape import ModelShape
from sweeps.design_settings import DesignSettings, InformationDesign
from sweeps.execute_settings import Execute, LocalExecute
from sweeps.planning.budget import Budget
from sweeps.tuning.settings import TuneSettings
from trainer.data.corpus_settings import CorpusSettings
from trainer.settings_file import SettingsFile, read_settings

__all__ = ["Study", "load_study", "study_template"]

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
StudyName = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]


class Question(Record):
    """The large run to size: ``flops``; ``gpus`` (or what ``power_cap_kw`` feeds) x ``days`` of an ``accelerator``;
    ``usd`` for them; ``kwh`` at the site's meter; or ``tco2e``, tonnes of CO2e by the grid of ``region``."""

    flops: float | None = Field(default=None, gt=0)
    gpus: int | None = Field(default=None, ge=1)
    days: float | None = Field(default=None, gt=0)
    usd: float | None = Field(default=None, gt=0)
    kwh: float | None = Field(default=None, gt=0)
    tco2e: float | None = Field(default=None, gt=0)
    accelerator: str | None = None
    region: str | None = None
    power_cap_kw: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _one_target(self) -> Question:
        named = [name for name in _TARGETS if getattr(self, name) is not None]
        if len(named) != 1:
            raise ValueError(
                "needs one of flops, gpus and days, usd, kwh, tco2e (and an accelerator)"
                + (f", not {' and '.join(named)}" if named else "")
            )
        if self.days is not None and self.gpus is None and self.power_cap_kw is None:
            raise ValueError("has days: needs gpus beside them (and an accelerator), or power_cap_kw")
        if self.gpus is not None and self.flops is not None:
            raise ValueError("takes flops, or gpus and days, not both")
        return self

    def target(self, limits: Limits | None = None) -> dict[str, Any]:
        """As :func:`scaling.recommend.recommend` takes it, with further ``limits``."""
        limits = limits or Limits()
        if limits.power_cap_kw is None:
            limits = limits.model_copy(update={"power_cap_kw": self.power_cap_kw})
        return self.model_dump(exclude_none=True, exclude={"power_cap_kw"}) | {"limits": limits}


_TARGETS = ("flops", "days", "usd", "kwh", "tco2e")
_LATER = ("usd", "kwh", "tco2e", "region", "power_cap_kw")


class ModelSettings(Record):
    architecture: str = "llama"
    context: int = Field(default=128, ge=16)
    tied: bool = True


class ParametrisationSettings(Record):
    """A name, or a name and the base; without one the probed shape is the base (:class:`Parametrisation`)."""

    name: Literal["standard", "mup", "completep"] = "standard"
    base_width: int | None = Field(default=None, ge=8)
    base_layers: int | None = Field(default=None, ge=1)
    base_head_width: int | None = Field(default=None, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _word(cls, data: Any) -> Any:
        return data if isinstance(data, dict | ParametrisationSettings) else {"name": data}

    @model_validator(mode="after")
    def _whole_base_or_none(self) -> ParametrisationSettings:
        if self.has_base or self.name == "standard":
            self.of(None)
        return self

    @property
    def has_base(self) -> bool:
        return any(base is not None for base in (self.base_width, self.base_layers, self.base_head_width))

    def of(self, probed: ModelShape | None) -> Parametrisation:
        """What a run is given; ``probed`` is the base where none stands in the study."""
        fields = self.model_dump()
        if self.name != "standard" and not self.has_base and probed is not None:
            fields |= {"base_width": probed.width, "base_head_width": probed.head_width}
            fields |= {"base_layers": probed.layers} if self.name == "completep" else {}
        return Parametrisation.model_validate(fields)


class Hyperparameters(Record):
    learning_rate: Literal["probe"] | Annotated[float, Field(gt=0, lt=1)] = "probe"
    parametrisation: ParametrisationSettings = ParametrisationSettings()
    global_batch_tokens: int = Field(default=512, ge=16)
    """Of a run of the design's middle length."""
    batch_exponent: float = Field(default=BATCH_EXPONENT, ge=0, le=1)
    """Of the batch in a run's tokens, in the sweep as in the large run; 0 is one batch for all of the sweep."""
    weight_decay: WeightDecay = WeightDecay(absolute=0.1)
    warmup: float = Field(default=0.1, ge=0, le=0.5)
    cooldown: float = Field(default=0.2, ge=0, le=0.5)
    tune: TuneSettings | None = None
    """Trials in place of the probe."""

    @model_validator(mode="after")
    def _one_way_to_the_rate(self) -> Hyperparameters:
        if self.tune and self.learning_rate != "probe":
            raise ValueError("has a number as learning_rate and tune, which looks for it: leave one of them out")
        if self.tune and self.parametrisation.name != "standard" and not self.parametrisation.has_base:
            raise ValueError(
                f"has tune and parametrisation {self.parametrisation.name} without its base_width: give it"
            )
        return self

    @model_validator(mode="after")
    def _rate_of_a_base(self) -> Hyperparameters:
        wanted = self.parametrisation
        if wanted.name != "standard" and not wanted.has_base and self.learning_rate != "probe":
            layers = ", base_layers: 2" if wanted.name == "completep" else ""
            raise ValueError(
                f"has parametrisation {wanted.name} and one number as learning_rate: give the base that it is the rate "
                f"of, for instance {{name: {wanted.name}, base_width: 64{layers}}}, or set learning_rate to probe"
            )
        return self


class Track(Record):
    mlflow: str | None = "sqlite:///mlflow.db"


class Study(Record):
    """A whole study; every key has a default but ``name``, ``question`` and ``budget``."""

    name: StudyName
    question: Question
    corpus: CorpusSettings = CorpusSettings()
    model: ModelSettings = ModelSettings()
    budget: Budget
    design: DesignSettings = InformationDesign()
    hyperparameters: Hyperparameters = Hyperparameters()
    seed: int = Field(default=0, ge=0)
    execute: Execute = LocalExecute()
    track: Track = Track()

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if ".." in name:
            raise ValueError("must not contain '..'")
        return name

    @model_validator(mode="after")
    def _batch_holds_whole_sequences(self) -> Study:
        batch, context = self.hyperparameters.global_batch_tokens, self.model.context
        if batch % context:
            raise ValueError(
                f"hyperparameters.global_batch_tokens is {batch}: not a multiple of model.context {context}"
            )
        return self

    def settings_that_plan(self) -> dict[str, Any]:
        """What the plan depends on: everything but where it runs and where it is tracked."""
        settings = self.model_dump(mode="json", exclude={"execute", "track"})
        # Studies that were planned before a question could be asked in these are continued.
        for name in _LATER:
            if settings["question"][name] is None:
                del settings["question"][name]
        return settings


def study_template(name: str) -> str:
    """The commented study file that ``scaling study new NAME`` writes."""
    text = resources.files("sweeps").joinpath("template.yaml").read_text(encoding="utf-8")
    return text.replace("{name}", name)


def load_study(path: Path) -> Study:
    """Read and check the study file at ``path``.

    Raises :class:`UserError` with one line ``FILE:LINE  field is value: what is wrong. Remedy`` for the first mistake.
    """
    file = read_settings(path, f"`scaling study new {path.stem or 'quickstart'}`")
    study = file.check(Study)
    _check_names(study, file)
    return study


def _large_shape(study: Study) -> None:
    """:class:`UserError` if the architecture has no shape of the study's context however large."""
    model = study.model
    try:
        architectures.get(model.architecture).shape_for(
            1e12, vocabulary=study.corpus.vocabulary, context=model.context, tied=model.tied
        )
    except ValueError as error:
        raise UserError(str(error)) from None


def _check_names(study: Study, file: SettingsFile) -> None:
    """What the study names must exist before anything runs: a wrong accelerator would else show after the last run.

    A relative corpus is looked for from the current folder, as every command-line argument is.
    """
    from trainer.data.source import open_source

    device, grid = study.question.accelerator, study.question.region
    named: dict[tuple[str, str], Callable[[], object]] = {
        ("question", "accelerator"): lambda: device and accelerator(device),
        ("question", "region"): lambda: grid and region(grid),
        ("corpus", "source"): lambda: open_source(study.corpus.source, study.corpus.text_key),
        ("model", "architecture"): lambda: architectures.get(study.model.architecture),
        ("model", "context"): lambda: _large_shape(study),
    }
    for field, look_up in named.items():
        try:
            look_up()
        except UserError as error:
            raise file.mistake(field, f"{'.'.join(field)}: {error}") from None
