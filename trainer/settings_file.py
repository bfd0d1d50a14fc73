"""A file that a person writes: YAML, checked against a ``Record``, its errors naming file, line, value and remedy."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from scaling.errors import UserError
from scaling.record import Record

__all__ = ["SettingsFile", "read_settings"]

Field = tuple[str, ...]
Settings = TypeVar("Settings", bound=Record)


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


@dataclass(frozen=True)
class SettingsFile:
    """What stands in the file at ``path``, and on which line each key does; ``example`` writes a complete one."""

    path: Path
    data: dict[str, Any]
    lines: dict[Field, int]
    example: str

    def check(self, kind: type[Settings], at: Field = ()) -> Settings:
        """The settings under the keys ``at``, or :class:`UserError` for the first mistake in them."""
        data: Any = self.data
        for key in at:
            data = data[key]
        try:
            return kind.model_validate(data)
        except ValidationError as error:
            first = error.errors()[0]
            # A union reports each branch under a location of its own; only what stands in the file counts.
            reported = tuple(str(part) for part in first["loc"])
            location: Field = ()
            for part in reported:
                if (*at, *location, part) in self.lines:
                    location = (*location, part)
            if first["type"] == "missing":
                location = (*location, reported[-1])
            elif first["type"] == "union_tag_invalid":
                location = (*location, first["ctx"]["discriminator"].strip("'"))
            beside = first["type"] == "extra_forbidden"
            problem = _complaint(first, location, _keys_at(reported[:-1] if beside else reported, kind), self.example)
            raise self.mistake((*at, *location), problem) from None

    def mistake(self, field: Field, problem: str) -> UserError:
        """The error that says ``problem`` of ``field`` on its line, or on that of the section that lacks it."""
        cuts = (field[:cut] for cut in range(len(field), 0, -1))
        line = next((self.lines[cut] for cut in cuts if cut in self.lines), 1)
        return UserError(f"{self.path}:{line}  {problem}")


def read_settings(path: Path, example: str) -> SettingsFile:
    """Read the YAML file at ``path``; ``example`` is the command that writes one, in backquotes.

    Raises :class:`UserError` with one line ``FILE:LINE  what is wrong. Remedy`` if it can't be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; {example} writes one") from None
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
        raise UserError(f"{path}  can't be read as settings: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise UserError(f"{path}:1  holds no settings; {example} writes a complete example")
    lines = _lines(node)
    repeated = lines.pop(("repeated key",), None)
    if repeated is not None:
        raise UserError(f"{path}:{repeated}  this key stands twice; keep one")
    return SettingsFile(path, data, lines, example)


def _lines(node: yaml.Node | None, prefix: Field = ()) -> dict[Field, int]:
    """The line of each key, by its path; a repeated key is reported under ``("repeated key",)``."""
    found: dict[Field, int] = {}
    if not isinstance(node, yaml.MappingNode):
        return found
    for key_node, value_node in node.value:
        here = (*prefix, str(key_node.value))
        if here in found:
            found[("repeated key",)] = key_node.start_mark.line + 1
        found[here] = key_node.start_mark.line + 1
        found.update(_lines(value_node, here))
    return found


def _complaint(first: Any, location: Field, keys: list[str], example: str) -> str:
    """``keys``: what may stand there."""
    field = ".".join(location)
    kind, given, context = first["type"], first["input"], first.get("ctx", {})
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(location[-1], keys, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        return f"{field} is not a key here.{hint} ({', '.join(keys)})"
    if kind == "missing":
        return f"{field} is missing; add it ({example} shows every key)"
    if kind in ("float_parsing", "float_type", "int_parsing", "int_type", "int_from_float"):
        whole = "a whole number" if kind.startswith("int") else "a number"
        return f"{field} is {given!r}: write {whole} without a unit (the key says the unit)"
    if kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        relation = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"}
        (name, limit), *_ = context.items()
        return f"{field} is {given}: it must be {relation[name]} {limit}"
    if kind == "literal_error":
        return f"{field} is {given!r}: choose {context.get('expected')}"
    if kind == "union_tag_invalid":
        return f"{field} is {context['tag']!r}: choose {context['expected_tags']}"
    if kind == "value_error":
        problem = str(context["error"])
        return problem if not field or problem.startswith(f"{field} ") else f"{field} {problem}"
    if kind == "string_pattern_mismatch":
        return f"{field} is {given!r}: use letters, digits, '.', '_' and '-', 64 at most, a letter or digit first"
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        return f"{field} is {given!r}: it holds keys of its own ({', '.join(keys)})"
    return f"{field} is {given!r}: {first['msg'][0].lower()}{first['msg'][1:]}"


def _keys_at(location: Field, kind: type[BaseModel]) -> list[str]:
    """The keys of the record at ``location``, where pydantic names an alternative of a union by its tag."""
    alternatives: list[type[BaseModel]] = []
    for part in location:
        if part in kind.model_fields:
            found = _records_in(kind.model_fields[part].annotation)
            alternatives = found or [kind]
            kind = alternatives[0]
        else:
            kind = next((each for each in alternatives if _tag(each) == part), kind)
    return list(kind.model_fields)


def _records_in(annotation: Any) -> list[type[BaseModel]]:
    """The record that ``annotation`` is, or all among its alternatives."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in get_args(annotation) for found in _records_in(part)]


def _tag(kind: type[BaseModel]) -> str | None:
    return next((kind.model_fields[name].default for name in ("kind", "on") if name in kind.model_fields), None)
