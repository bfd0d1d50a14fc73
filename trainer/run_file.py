"""The file that ``scaling train`` reads: one run as a person writes it, or exactly as ``RunSpec`` is dumped.

The first form leaves open what follows from the corpus and the size dial. The second stands at the top of the file, or
under ``run`` as ``scaling recommend`` writes it, and trains that very run.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from scaling import architectures
from scaling.errors import UserError
from scaling.record import Record
from scaling.run_spec import (
    SCHEMA_VERSION,
    AnnealSpec,
    OptimizerSpec,
    Parametrisation,
    RunSpec,
    ScheduleSpec,
    SpikePolicy,
)
from scaling.shape import ModelShape
from trainer.data.corpus_settings import CorpusSettings
from trainer.data.shards import Corpus
from trainer.data.source import check_source
from trainer.models import model_class
from trainer.settings_file import SettingsFile, read_settings

__all__ = ["RunFile", "RunSettings", "run_template"]

MAX_HELD_OUT_TOKENS = 65_536
_TEMPLATE = "`scaling train --template`"
_DIAL = ("architecture", "params", "context", "tied")


class ModelSettings(Record):
    """``params`` is the size dial; without it the shape's own fields are given."""

    architecture: str = "llama"
    params: float | None = Field(default=None, gt=0)
    layers: int | None = Field(default=None, ge=1)
    width: int | None = Field(default=None, ge=8)
    heads: int | None = Field(default=None, ge=1)
    kv_heads: int | None = Field(default=None, ge=1)
    ffn_width: int | None = Field(default=None, ge=8)
    state_width: int | None = Field(default=None, ge=1)
    context: int = Field(default=128, ge=2)
    tied: bool = True

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> ModelSettings:
        given = [name for name in type(self).model_fields if name not in _DIAL and getattr(self, name) is not None]
        if self.params is not None and given:
            raise ValueError(f"takes params, or {' and '.join(given)}: leave one out")
        missing = [name for name in ("layers", "width", "heads", "ffn_width") if getattr(self, name) is None]
        if self.params is None and missing:
            raise ValueError(f"lacks {', '.join(missing)}: give params, or the whole shape")
        return self

    def shape(self, vocabulary: int) -> ModelShape:
        """``ValueError`` if there is no such shape, :class:`UserError` if there is no such architecture."""
        if self.params is not None:
            dial = architectures.get(self.architecture)
            return dial.shape_for(self.params, vocabulary=vocabulary, context=self.context, tied=self.tied)
        fields = self.model_dump(exclude={"params"}) | {"kv_heads": self.kv_heads or self.heads}
        return ModelShape(vocabulary=vocabulary, **fields)


class ScheduleSettings(Record):
    """``warmup`` and ``cooldown`` are shares of the run up to 1, and tokens above."""

    kind: Literal["wsd", "cosine", "constant"] = "wsd"
    warmup: float = Field(default=0.1, ge=0)
    cooldown: float | None = Field(default=None, ge=0, description="0.2 of a wsd run unless given")
    cooldown_shape: Literal["linear", "1-sqrt"] = "1-sqrt"
    floor: float = Field(default=0.0, ge=0, le=1)

    def schedule(self, tokens: int, batch: int) -> ScheduleSpec:
        cooldown = (0.2 if self.kind == "wsd" else 0.0) if self.cooldown is None else self.cooldown
        return ScheduleSpec.model_validate(
            self.model_dump(exclude={"warmup", "cooldown"})
            | {
                "warmup_tokens": _tokens(self.warmup, tokens, batch),
                "cooldown_tokens": _tokens(cooldown, tokens, batch),
            }
        )


class AnnealSettings(Record):
    """From ``start`` on the data is that of ``source``, tokenised alike; a share of the run up to 1, tokens above."""

    source: str
    start: float = Field(default=0.8, ge=0)
    text_key: str = "text"


class RunSettings(Record):
    """One run as a person writes it."""

    model: ModelSettings
    tokens: int = Field(ge=1, description="rounded to whole batches")
    global_batch_tokens: int = Field(ge=2)
    optimizer: OptimizerSpec
    schedule: ScheduleSettings = ScheduleSettings()
    parametrisation: Parametrisation = Parametrisation()
    spikes: SpikePolicy = SpikePolicy()
    seed: int = Field(default=0, ge=0)
    corpus: CorpusSettings = CorpusSettings()
    anneal: AnnealSettings | None = None
    held_out_tokens: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _whole_sequences(self) -> RunSettings:
        if self.global_batch_tokens % self.model.context:
            raise ValueError(
                f"global_batch_tokens is {self.global_batch_tokens}: not a multiple of model.context "
                f"{self.model.context}"
            )
        return self

    def run_spec(
        self,
        *,
        vocabulary: int,
        data_key: str = "",
        tokenizer_key: str = "",
        annealing_data_key: str = "",
        held_out_available: int = 2**62,
    ) -> RunSpec:
        """The run on a corpus of these facts. ``ValueError`` as :meth:`ModelSettings.shape`."""
        batch, context = self.global_batch_tokens, self.model.context
        tokens = max(1, round(self.tokens / batch)) * batch
        return RunSpec(
            shape=self.model.shape(vocabulary),
            parametrisation=self.parametrisation,
            tokens=tokens,
            global_batch_tokens=batch,
            optimizer=self.optimizer,
            schedule=self.schedule.schedule(tokens, batch),
            spikes=self.spikes,
            anneal=self.anneal
            and AnnealSpec(data_key=annealing_data_key, from_tokens=_tokens(self.anneal.start, tokens, batch)),
            seed=self.seed,
            data_key=data_key,
            tokenizer_key=tokenizer_key,
            held_out_tokens=self.held_out_tokens or min(held_out_available // context * context, MAX_HELD_OUT_TOKENS),
        )


def _tokens(given: float, tokens: int, batch: int) -> int:
    """``given`` is a share of ``tokens`` up to 1, and tokens above; in whole batches."""
    return round(given * (tokens if given <= 1 else 1) / batch) * batch


class RunFile:
    """A run's file, checked as far as it can be without a corpus."""

    def __init__(self, path: Path) -> None:
        """:class:`UserError` with file, line, field, value and remedy for the first mistake."""
        self._file = read_settings(path, _TEMPLATE)
        self.name = path.stem
        self.exact = _exact(self._file)
        self.settings: RunSettings | None = None
        if self.exact is None:
            self.settings = self._file.check(RunSettings)
            self._derived(self.settings, vocabulary=self.settings.corpus.vocabulary)
            if self.settings.anneal:
                self._check_source("anneal", self.settings.anneal)
        else:
            model_class(self.exact.shape.architecture)

    def corpus_settings(self, source: str | None) -> CorpusSettings | None:
        """What to tokenise, ``source`` in place of the file's if it is given; None where the file can't say.

        :class:`UserError` with its line if the file's source is not there.
        """
        if self.settings is not None:
            found = self.settings.corpus
            if source is None:
                self._check_source("corpus", found)
        elif source is not None:
            assert self.exact is not None
            found = CorpusSettings(vocabulary=self.exact.shape.vocabulary)
        else:
            return None
        return found if source is None else found.model_copy(update={"source": source})

    def annealing_settings(self) -> AnnealSettings | None:
        return self.settings.anneal if self.settings else None

    def spec(self, corpus: Corpus, annealing_corpus: Corpus | None = None) -> RunSpec:
        """The run to train on ``corpus``."""
        if self.settings is None:
            assert self.exact is not None
            return self.exact
        manifest = corpus.manifest
        return self._derived(
            self.settings,
            vocabulary=manifest.vocabulary,
            data_key=manifest.data_key,
            tokenizer_key=manifest.tokenizer_key,
            annealing_data_key=annealing_corpus.manifest.data_key if annealing_corpus else "",
            held_out_available=manifest.held_out.tokens,
        )

    def _check_source(self, section: str, settings: CorpusSettings | AnnealSettings) -> None:
        try:
            check_source(settings.source, settings.text_key)
        except UserError as error:
            raise self._file.mistake((section, "source"), f"{section}.source: {error}") from None

    def _derived(self, settings: RunSettings, **corpus: Any) -> RunSpec:
        try:
            model_class(settings.model.architecture)
        except UserError as error:
            raise self._file.mistake(("model", "architecture"), f"model.architecture: {error}") from None
        for section, derive in (
            ("model", lambda: settings.model.shape(corpus["vocabulary"])),
            ("schedule", lambda: settings.run_spec(**corpus)),
        ):
            try:
                derive()
            except ValidationError as error:
                first = error.errors()[0]
                problem = str(first.get("ctx", {}).get("error", first["msg"]))
                raise self._file.mistake((section,), f"{section}: {problem}") from None
            except ValueError as error:
                raise self._file.mistake((section, "params"), f"{section}: {error}") from None
        return settings.run_spec(**corpus)


def _exact(file: SettingsFile) -> RunSpec | None:
    """The specification that the file is, or holds under ``run``; None if it is in the other form."""
    if "data_key" in file.data:
        at: tuple[str, ...] = ()
    elif "run" in file.data:
        at = ("run",)
    else:
        return None
    found = file.data["run"] if at else file.data
    if not isinstance(found, dict):
        raise file.mistake(
            ("run",), f"run is {found!r}: it holds the keys of a run; a recommendation has it where a study was fitted"
        )
    version = found.get("schema_version", SCHEMA_VERSION)
    if version != SCHEMA_VERSION:
        field = (*at, "schema_version")
        raise file.mistake(
            field,
            f"{'.'.join(field)} is {version!r}, and runs of version {SCHEMA_VERSION} are trained here: write the file "
            "again with this release (`scaling recommend STUDY --out FILE.yaml`)",
        )
    return file.check(RunSpec, at)


def run_template() -> str:
    """The commented file that ``scaling train --template`` writes."""
    return resources.files("trainer").joinpath("run_template.yaml").read_text(encoding="utf-8")
