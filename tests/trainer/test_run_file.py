"""The file of one run: its errors name file, line, field, value and remedy; an exact one is that very run."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from scaling.errors import UserError
from scaling.run_spec import RunSpec
from trainer.run_file import RunFile, RunSettings, run_template

MakeSpec = Callable[..., RunSpec]


def written(folder: Path, old: str = "", new: str = "") -> Path:
    text = re.sub(r"^#.*\n", "", run_template(), flags=re.MULTILINE)
    assert old in text
    path = folder / "mine.yaml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path


def spec_of(path: Path) -> RunSpec:
    settings = RunFile(path).settings
    assert settings is not None
    return settings.run_spec(vocabulary=1024, data_key="d", tokenizer_key="t", held_out_available=50_000)


def test_the_template_loads_and_names_every_key(tmp_path: Path) -> None:
    spec = spec_of(written(tmp_path))
    assert abs(spec.tokens - 2e6) <= spec.global_batch_tokens / 2
    assert spec.held_out_tokens == 50_000 // 128 * 128
    text = run_template()
    for section, field in RunSettings.model_fields.items():
        assert re.search(rf"^#?{section}:", text, re.MULTILINE), section
        for key in getattr(field.annotation, "model_fields", {}):
            if key not in ("state_width",):
                assert re.search(rf"\b{key}\b", text), f"{section}.{key}"


def test_the_dial_and_the_shape_it_gives_are_the_same_run(tmp_path: Path) -> None:
    dialled = spec_of(written(tmp_path))
    shape = dialled.shape
    fields = "\n".join(f"  {name}: {getattr(shape, name)}" for name in ("layers", "width", "heads", "ffn_width"))
    explicit = spec_of(written(tmp_path, "  params: 3e5", fields))
    assert explicit == dialled


@pytest.mark.parametrize(("given", "tokens"), [("0.25", 0.25 * 2e6), ("3e5", 3e5), ("0", 0)])
def test_warmup_is_a_share_up_to_one_and_tokens_above(tmp_path: Path, given: str, tokens: float) -> None:
    spec = spec_of(written(tmp_path, "warmup: 0.1", f"warmup: {given}"))
    assert abs(spec.schedule.warmup_tokens - tokens) <= spec.global_batch_tokens


def test_annealing_starts_at_its_share(tmp_path: Path) -> None:
    spec = spec_of(written(tmp_path, "seed: 0", "seed: 0\nanneal:\n  source: starter\n  start: 0.75"))
    assert spec.anneal is not None
    assert abs(spec.anneal.from_tokens - 0.75 * spec.tokens) <= spec.global_batch_tokens


@pytest.mark.parametrize(
    ("old", "new", "line_of", "parts"),
    [
        ("params: 3e5", "parms: 3e5", "parms", ["model.parms is not a key here", "Did you mean params?"]),
        ("params: 3e5", "params: 300k", "300k", ["model.params is '300k'", "without a unit"]),
        ("params: 3e5", "params: 3", "params: 3", ["model", "vocabulary of 1024", "smaller vocabulary"]),
        ("params: 3e5", "params: 3e5\n  width: 64", "model:", ["model takes params, or width"]),
        ("params: 3e5", "layers: 2", "model:", ["model lacks width, heads, ffn_width"]),
        ("architecture: llama", "architecture: lama", "lama", ["model.architecture", "'lama'", "llama"]),
        ("tokens: 2e6", "tokens: 0", "tokens: 0", ["tokens is 0", "at least 1"]),
        ("kind: wsd", "kind: step", "kind: step", ["schedule.kind is 'step'", "cosine"]),
        ("kind: wsd", "kind: cosine", "schedule:", ["cooldown_tokens", "cosine", "use kind wsd"]),
        ("warmup: 0.1", "warmup: 0.9", "schedule:", ["warmup_tokens and cooldown_tokens together exceed tokens"]),
        ("name: standard", "name: mup", "parametrisation:", ["parametrisation mup needs base_width"]),
        ("action: continue", "action: jump", "action: jump", ["spikes.action is 'jump'", "rewind"]),
        ("seed: 0", "seed: 0\nanneal:\n  source: /no/such", "/no/such", ["anneal.source", "does not exist"]),
        ("tokens: 2e6", "tokns: 2e6", "tokns", ["tokens is missing"]),
    ],
)
def test_a_mistake_is_one_line_with_file_line_field_and_remedy(
    tmp_path: Path, old: str, new: str, line_of: str, parts: list[str]
) -> None:
    path = written(tmp_path, old, new)
    lines = path.read_text(encoding="utf-8").splitlines()
    number = next(i for i, line in enumerate(lines, 1) if line_of in line)
    with pytest.raises(UserError) as caught:
        RunFile(path)
    message = str(caught.value)
    # What is missing has no line of its own.
    assert message.startswith(f"{path}:{1 if 'missing' in parts[0] else number}"), message
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize("dump", ["json", "yaml"])
@pytest.mark.parametrize("nested", [False, True], ids=["alone", "in a recommendation"])
def test_a_dumped_specification_is_that_very_run(tmp_path: Path, tiny_spec: MakeSpec, dump: str, nested: bool) -> None:
    spec = tiny_spec()
    content: object = spec.model_dump(mode="json")
    if nested:
        content = {"study": "quickstart", "params": {"estimate": 1.0}, "run": content, "warnings": []}
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(content) if dump == "yaml" else json.dumps(content, indent=2), encoding="utf-8")
    read = RunFile(path).exact
    assert read == spec
    assert read.key == spec.key


def test_a_specification_of_another_version_or_of_none_is_refused(tmp_path: Path, tiny_spec: MakeSpec) -> None:
    path = tmp_path / "run.yaml"
    for content, part in (
        ({"run": tiny_spec().model_dump(mode="json") | {"schema_version": 1}}, "run.schema_version is 1"),
        ({"run": None}, "run is None"),
        ({"run": tiny_spec().model_dump(mode="json") | {"tokens": 1000}}, "not a multiple of global_batch_tokens"),
    ):
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        with pytest.raises(UserError, match=re.escape(part)):
            RunFile(path)


@given(content=st.one_of(st.text(max_size=200), st.binary(max_size=200)))
def test_no_file_content_raises_anything_but_a_user_error(
    tmp_path_factory: pytest.TempPathFactory, content: str | bytes
) -> None:
    path = tmp_path_factory.mktemp("run") / "s.yaml"
    path.write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
    with pytest.raises(UserError) as caught:
        RunFile(path)
    assert "\n" not in str(caught.value)
