"""The study file: what it may say, and errors that name the file, the line, the value and the remedy."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, StringConstraints, ValidationError, field_validator, model_validator

from scaling import architectures
from scaling.errors import UserError
from scaling.hardware import accelerator
from scaling.record import Record

__all__ = ["Study", "load_study", "study_template"]

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
StudyName = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]


class Question(Record):
    """The large run to size: ``flops``, or ``gpus`` x ``days`` of an ``accelerator``."""

    flops: float | None = Field(default=None, gt=0)
    gpus: int | None = Field(default=None, ge=1)
    days: float | None = Field(default=None, gt=0)
    accelerator: str | None = None

    @model_validator(mode="after")
    def _one_target(self) -> Question:
        cluster = (self.gpus, self.days)
        if (self.flops is None) == (None in cluster) and self.flops is None:
            raise ValueError("needs flops, or gpus and days (and an accelerator)")
        if self.flops is not None and cluster != (None, None):
            raise ValueError("takes flops, or gpus and days, not both")
        return self


class CorpusSettings(Record):
    source: str = "starter"
    vocabulary: int = Field(default=1024, ge=257, le=1_000_000)
    held_out: float = Field(default=0.05, gt=0, lt=0.5)
    text_key: str = "text"
    cut_bytes: int = Field(default=4096, ge=256)


class ModelSettings(Record):
    architecture: str = "llama"
    context: int = Field(default=128, ge=16)
    tied: bool = True


class Budget(Record):
    """What the fitted runs may cost together."""

    flops: float | None = Field(default=None, gt=0)
    minutes: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _exactly_one(self) -> Budget:
        if (self.flops is None) == (self.minutes is None):
            raise ValueError("needs exactly one of flops and minutes")
        return self


class Design(Record):
    kind: Literal["isoflop"] = "isoflop"
    budgets: int = Field(default=4, ge=3, le=20)
    ratio: float = Field(default=2.2, gt=1.2, le=100)
    sizes: int = Field(default=5, ge=4, le=20)
    size_step: float = Field(default=1.7, gt=1.1, le=10)
    tokens_per_param: float = Field(default=9, gt=0)
    hold_out: float = Field(default=4.2, ge=4, le=1000)
    replicates: int = Field(default=2, ge=1, le=10)


class Hyperparameters(Record):
    learning_rate: Literal["probe"] | Annotated[float, Field(gt=0, lt=1)] = "probe"
    global_batch_tokens: int = Field(default=512, ge=16)
    weight_decay: float = Field(default=0.1, ge=0, lt=10)
    warmup: float = Field(default=0.1, ge=0, le=0.5)
    cooldown: float = Field(default=0.2, ge=0, le=0.5)


class Execute(Record):
    on: Literal["local"] = "local"
    workers: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)] = "auto"


class Track(Record):
    mlflow: str | None = "sqlite:///mlflow.db"


class Study(Record):
    """A whole study; every key has a default but ``name``, ``question`` and ``budget``."""

    name: StudyName
    question: Question
    corpus: CorpusSettings = CorpusSettings()
    model: ModelSettings = ModelSettings()
    budget: Budget
    design: Design = Design()
    hyperparameters: Hyperparameters = Hyperparameters()
    seed: int = Field(default=0, ge=0)
    execute: Execute = Execute()
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
        return self.model_dump(mode="json", exclude={"execute", "track"})


class _Loader(yaml.SafeLoader):
    """Safe YAML by the rules of version 1.2 where those of 1.1 surprise: ``on`` is a word, ``1e12`` is a number."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (a class's own table, as in the base)
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":bool", ":float"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


def study_template(name: str) -> str:
    """The commented study file that ``scaling study new NAME`` writes."""
    text = resources.files("sweeps").joinpath("template.yaml").read_text(encoding="utf-8")
    return text.replace("{name}", name)


def load_study(path: Path) -> Study:
    """Read and check the study file at ``path``.

    Raises :class:`UserError` with one line ``FILE:LINE  field is value: what is wrong. Remedy`` for the first mistake.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; `scaling study new {path.stem or 'quickstart'}` writes one") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} can't be read as text: {error}") from None
    try:
        node = yaml.compose(text, Loader=_Loader)
        data = yaml.load(text, Loader=_Loader)  # noqa: S506 (_Loader is a SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise UserError(f"{where}  is not YAML: {problem}") from None
    except (RecursionError, ValueError) as error:
        raise UserError(f"{path}  is not a study file: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise UserError(f"{path}:1  holds no settings; `scaling study new quickstart` writes a complete example")
    lines = _lines(node)
    repeated = lines.pop(("repeated key",), None)
    if repeated is not None:
        raise UserError(f"{path}:{repeated}  this key stands twice; keep one")
    try:
        study = Study.model_validate(data)
    except ValidationError as error:
        raise UserError(_explain(error, path, lines)) from None
    _check_names(study, path, lines)
    return study


def _check_names(study: Study, path: Path, lines: dict[tuple[str, ...], int]) -> None:
    """What the study names must exist before anything runs: a wrong accelerator would else show after the last run.

    A relative corpus is looked for from the current folder, as every command-line argument is.
    """
    from trainer.data.source import open_source

    device = study.question.accelerator
    named: dict[tuple[str, str], Callable[[], object]] = {
        ("question", "accelerator"): lambda: device and accelerator(device),
        ("corpus", "source"): lambda: open_source(study.corpus.source, study.corpus.text_key),
        ("model", "architecture"): lambda: architectures.get(study.model.architecture),
    }
    for field, look_up in named.items():
        try:
            look_up()
        except UserError as error:
            line = lines.get(field, lines.get(field[:1], 1))
            raise UserError(f"{path}:{line}  {'.'.join(field)}: {error}") from None


def _lines(node: yaml.Node | None, prefix: tuple[str, ...] = ()) -> dict[tuple[str, ...], int]:
    """The line of each key, by its path; a repeated key is reported under ``("repeated key",)``."""
    found: dict[tuple[str, ...], int] = {}
    if not isinstance(node, yaml.MappingNode):
        return found
    for key_node, value_node in node.value:
        here = (*prefix, str(key_node.value))
        if here in found:
            found[("repeated key",)] = key_node.start_mark.line + 1
        found[here] = key_node.start_mark.line + 1
        found.update(_lines(value_node, here))
    return found


def _explain(error: ValidationError, path: Path, lines: dict[tuple[str, ...], int]) -> str:
    first = error.errors()[0]
    # A union reports each branch under a location of its own; only what stands in the file counts.
    location = tuple(str(part) for part in first["loc"])
    while location and location not in lines and location[:-1] in lines and first["type"] != "missing":
        location = location[:-1]
    field = ".".join(location) or "study"
    line = next((lines[location[:cut]] for cut in range(len(location), 0, -1) if location[:cut] in lines), 1)
    return f"{path}:{line}  {_complaint(first, field, location)}"


def _complaint(first: Any, field: str, location: tuple[str, ...]) -> str:
    kind, given, context = first["type"], first["input"], first.get("ctx", {})
    if kind == "extra_forbidden":
        keys = _keys_at(location[:-1])
        near = difflib.get_close_matches(location[-1], keys, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        return f"{field} is not a key here.{hint} ({', '.join(keys)})"
    if kind == "missing":
        return f"{field} is missing; add it (`scaling study new quickstart` shows every key)"
    if kind in ("float_parsing", "float_type", "int_parsing", "int_type", "int_from_float"):
        whole = "a whole number" if kind.startswith("int") else "a number"
        return f"{field} is {given!r}: write {whole} without a unit (the key says the unit)"
    if kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        relation = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"}
        (name, limit), *_ = context.items()
        return f"{field} is {given}: it must be {relation[name]} {limit}"
    if kind == "literal_error":
        return f"{field} is {given!r}: choose {context.get('expected')}"
    if kind == "value_error":
        return f"{field} {context['error']}"
    if kind == "string_pattern_mismatch":
        return f"{field} is {given!r}: use letters, digits, '.', '_' and '-', 64 at most, a letter or digit first"
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        return f"{field} is {given!r}: it holds keys of its own ({', '.join(_keys_at(location))})"
    return f"{field} is {given!r}: {first['msg'][0].lower()}{first['msg'][1:]}"


def _keys_at(location: tuple[str, ...]) -> list[str]:
    model: Any = Study
    for part in location:
        model = model.model_fields[part].annotation if part in model.model_fields else Study
    return list(model.model_fields)
