"""The study file: its errors name file, line, field, value and remedy; the written example is complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.errors import UserError
from scaling.limits import Limits
from sweeps.planning.expectation import question_target
from sweeps.study import Study, load_study, study_template

ROOT = Path(__file__).resolve().parents[2]


def written(folder: Path, old: str = "", new: str = "") -> Path:
    text = study_template("quickstart")
    assert old in text
    path = folder / "quickstart.yaml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path


def complaint(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_study(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_written_study_loads_and_names_every_key(tmp_path: Path) -> None:
    study = load_study(written(tmp_path))
    assert study.name == "quickstart"
    text = study_template("quickstart")
    for section, field in Study.model_fields.items():
        assert re.search(rf"^{section}:", text, re.MULTILINE), section
        for key in getattr(field.annotation, "model_fields", {}):
            explained = re.search(rf"\b{key}\b", text)
            assert explained, f"{section}.{key}"


def test_example_in_the_repository_is_what_study_new_writes() -> None:
    assert (ROOT / "examples" / "quickstart.yaml").read_text(encoding="utf-8") == study_template("quickstart")


@pytest.mark.parametrize(
    ("old", "new", "line_of", "parts"),
    [
        ("  flops: 1.0e+13", "  minuts: 4", "minuts", ["budget.minuts is not a key here", "Did you mean minutes?"]),
        ("  flops: 1.0e+13", "  minutes: 4h", "4h", ["budget.minutes is '4h'", "without a unit"]),
        ("  flops: 1.0e+13", "  flops: -1", "flops: -1", ["budget.flops is -1", "more than 0"]),
        (
            "  flops: 1.0e+13",
            "  flops: 1e12\n  minutes: 4",
            "budget:",
            ["budget needs exactly one of flops, minutes, hours, gpu_hours, usd"],
        ),
        ("  source: starter", "  source: /no/such/folder", "/no/such", ["corpus.source", "/no/such/folder"]),
        ("accelerator: h100", "accelerator: h1000", "h1000", ["question.accelerator", "'h1000'", "Did you mean H100?"]),
        ("architecture: llama", "architecture: lama", "lama", ["model.architecture", "'lama'", "choose one of: gpt2"]),
        ("vocabulary: 1024", "vocabulary: 12", "vocabulary: 12", ["corpus.vocabulary is 12", "at least 257"]),
        ("kind: isoflop", "kind: magic", "kind: magic", ["design.kind is 'magic'", "'information'", "'isoflop'"]),
        ("kind: isoflop", "kind: information", "budgets:", ["design.budgets is not a key here", "most_runs"]),
        ("  ratio: 2.2", "  ratoi: 2.2", "ratoi", ["design.ratoi is not a key here", "Did you mean ratio?"]),
        ("  ratio: 2.2", "  ratio: 1", "ratio: 1", ["design.ratio is 1", "more than 1.2"]),
        ("name: quickstart", "name: ../evil", "name: ../evil", ["name is '../evil'", "letters"]),
        ("seed: 0", "seed: 0\nseed: 1", "seed: 1", ["stands twice"]),
        ("design:\n", "design: 7\nignored:\n", "design: 7", ["design is 7", "keys of its own"]),
        (
            "\n  parametrisation: standard",
            "\n  parametrisation: mupp",
            "mupp",
            ["hyperparameters.parametrisation is 'mupp'", "'standard', 'mup' or 'completep'"],
        ),
        (
            "\n  parametrisation: standard",
            "\n  parametrisation: {name: completep, base_width: 48}",
            "base_width: 48",
            ["hyperparameters.parametrisation", "completep needs base_layers"],
        ),
        (
            "\n  parametrisation: standard",
            "\n  parametrisation: {name: mup, base_widht: 64}",
            "base_widht",
            ["base_widht is not a key here", "Did you mean base_width?"],
        ),
        (
            "learning_rate: probe\n  parametrisation: standard",
            "learning_rate: 0.01\n  parametrisation: mup",
            "hyperparameters:",
            ["one number as learning_rate", "{name: mup, base_width: 64}", "set learning_rate to probe"],
        ),
        ("decay: 0.1", "decay: -1", "decay: -1", ["hyperparameters.weight_decay is -1", "at least 0"]),
        ("decay: 0.1", "decay: {timescale: 0}", "timescale: 0}", ["weight_decay.timescale is 0", "more than 0"]),
        ("decay: 0.1", "decay: {timescail: 1}", "timescail", ["is not a key here", "Did you mean timescale?"]),
        ("decay: 0.1", "decay: {}", "decay: {}", ["hyperparameters.weight_decay is a number, or timescale alone"]),
    ],
)
def test_a_mistake_is_one_line_with_file_line_field_and_remedy(
    tmp_path: Path, old: str, new: str, line_of: str, parts: list[str]
) -> None:
    path = written(tmp_path, old, new)
    lines = path.read_text(encoding="utf-8").splitlines()
    number = next(i for i, line in enumerate(lines, 1) if line_of in line)
    message = complaint(path)
    assert message.startswith(f"{path}:{number}"), message
    for part in parts:
        assert part in message


def test_a_tag_that_would_run_code_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "seed: 0", f"seed: !!python/object/apply:os.system ['touch {tmp_path}/owned']")
    assert "seed" in complaint(path) or "tag" in complaint(path)
    assert not (tmp_path / "owned").exists()


@given(content=st.one_of(st.text(max_size=200), st.binary(max_size=200)))
def test_no_file_content_raises_anything_but_a_user_error(
    tmp_path_factory: pytest.TempPathFactory, content: str | bytes
) -> None:
    path = tmp_path_factory.mktemp("study") / "s.yaml"
    path.write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
    try:
        load_study(path)
    except UserError as error:
        assert "\n" not in str(error)


def test_words_and_numbers_of_yaml_1_2_mean_what_they_look_like(tmp_path: Path) -> None:
    study = load_study(written(tmp_path, "flops: 1.0e+13", "flops: 1e13"))
    assert study.budget.flops == 1e13
    assert study.execute.on == "local"


def test_batch_that_is_not_whole_sequences_names_both_numbers(tmp_path: Path) -> None:
    message = complaint(written(tmp_path, "global_batch_tokens: 512", "global_batch_tokens: 500"))
    assert "500" in message and "128" in message


def test_a_context_that_the_architecture_can_not_have_is_told_before_anything_runs(tmp_path: Path) -> None:
    path = written(tmp_path, "global_batch_tokens: 512", "global_batch_tokens: 536")
    text = path.read_text(encoding="utf-8").replace("architecture: llama", "architecture: mamba2")
    path.write_text(text.replace("context: 128", "context: 134"), encoding="utf-8")
    assert re.search(
        r":\d+  model\.context: context 134 can't be cut into equal chunks .* multiple of 64", complaint(path)
    )


QUESTION = "  gpus: 64\n  days: 7\n  accelerator: h100\n"


@pytest.mark.parametrize(
    ("question", "asked"),
    [
        ("  usd: 2e6\n", "$2M of H100 hours"),
        ("  kwh: 5e5\n  accelerator: a100\n", "500 MWh at the meter for A100"),
        ("  tco2e: 100\n  region: france\n", "100 t of CO2e by the grid of france"),
        ("  power_cap_kw: 2000\n  days: 7\n", "1,304 x H100, as 2,000 kW feed, for 7 days"),
    ],
)
def test_a_question_in_money_energy_carbon_or_power_is_planned_for(tmp_path: Path, question: str, asked: str) -> None:
    study = load_study(written(tmp_path, QUESTION, question))
    target = question_target(study)
    assert asked in target.asked and 1e22 < target.flops < 1e25
    given = study.question.target(Limits(max_params=1e9))
    assert given["limits"].max_params == 1e9 and given["limits"].power_cap_kw == study.question.power_cap_kw


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("  usd: 2e6\n  kwh: 5e5\n", "needs one of flops, gpus and days, usd, kwh, tco2e"),
        ("  days: 7\n", "needs gpus beside them (and an accelerator), or power_cap_kw"),
        ("  gpus: 8\n  flops: 1e21\n", "takes flops, or gpus and days, not both"),
        ("  tco2e: 100\n  region: frannce\n", "Did you mean france"),
        ("  kwh: -1\n", "question.kwh is -1"),
    ],
)
def test_a_question_that_cannot_be_is_one_line(tmp_path: Path, question: str, said: str) -> None:
    assert said in complaint(written(tmp_path, QUESTION, question))


def test_a_study_planned_before_such_questions_is_the_same_study(tmp_path: Path) -> None:
    planned = load_study(written(tmp_path)).settings_that_plan()
    assert planned["question"] == {"flops": None, "gpus": 64, "days": 7, "accelerator": "h100"}
