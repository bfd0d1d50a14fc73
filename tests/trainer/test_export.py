"""What transformers loads is the model that was trained, to its logits and tokens; an export is whole or absent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from scaling.errors import UserError
from scaling.run_spec import OptimizerSpec, Parametrisation, RunSpec, ScheduleSpec
from scaling.shape import ModelShape
from trainer.data.tokenizer import train_tokenizer
from trainer.export import hugging_face
from trainer.export.converter import converter
from trainer.loop.checkpoint import save
from trainer.loop.numerics import Numerics
from trainer.loop.state import TrainingState
from trainer.run_folder import TrainedRun

VOCABULARY = 280
COMPLETEP = Parametrisation(name="completep", base_width=16, base_layers=1, base_head_width=2)
LLAMA = ModelShape(layers=2, width=32, heads=4, kv_heads=2, ffn_width=48, vocabulary=VOCABULARY, context=24)
GPT2 = ModelShape(
    architecture="gpt2", layers=2, width=32, heads=4, kv_heads=4, ffn_width=80, vocabulary=VOCABULARY, context=24
)
MAMBA2 = ModelShape(
    architecture="mamba2", layers=2, width=32, heads=4, kv_heads=1, ffn_width=64, vocabulary=VOCABULARY, context=24,
    state_width=8,
)  # fmt: skip
MODELS = {
    "llama": (LLAMA, None),
    "llama, untied, equal heads": (LLAMA.model_copy(update={"tied": False, "kv_heads": 4}), None),
    "llama, completep": (LLAMA, COMPLETEP),
    "llama, completep, untied": (LLAMA.model_copy(update={"tied": False}), COMPLETEP),
    "gpt2": (GPT2, None),
    "mamba2": (MAMBA2, None),
    "mamba2, completep, untied, two groups": (
        MAMBA2.model_copy(update={"tied": False, "kv_heads": 2}),
        COMPLETEP,
    ),
    "gpt2, completep, untied": (GPT2.model_copy(update={"tied": False}), COMPLETEP),
}
TEXT = "The cat — naïve, 北京 🦜 — sat\n\n  on 12345 mats."


def trained(folder: Path, shape: ModelShape = LLAMA, parametrisation: Parametrisation | None = None) -> TrainedRun:
    """A run at its end whose weights are all unlike their initial ones."""
    spec = RunSpec(
        shape=shape,
        parametrisation=parametrisation or Parametrisation(),
        tokens=240,
        global_batch_tokens=48,
        optimizer=OptimizerSpec(learning_rate=1e-2),
        schedule=ScheduleSpec(warmup_tokens=0),
        data_key="d" * 64,
        tokenizer_key="t" * 64,
        held_out_tokens=100,
    )
    state = TrainingState(spec, Numerics())
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in state.model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    state.note(step=spec.steps)
    save(folder / "step-000000000005.checkpoint", state.dump())
    train_tokenizer(iter([TEXT] * 20), VOCABULARY).save(str(folder / "tokenizer.json"))
    return TrainedRun(spec, folder, folder / "tokenizer.json")


def silent(message: str) -> None:
    raise AssertionError(message)


@pytest.mark.parametrize("name", MODELS)
def test_transformers_loads_equal_logits(name: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    shape, parametrisation = MODELS[name]
    run = trained(tmp_path, shape, parametrisation)
    hugging_face.export(run, tmp_path / "out", force=False, note=silent)
    theirs, loading = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(loading.values()), loading
    assert theirs.dtype == torch.float32
    x_BT = torch.randint(VOCABULARY, (3, shape.context), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found_BTV, wanted_BTV = theirs(x_BT).logits, run.model(silent)(x_BT)
    assert wanted_BTV.std() > 0.1
    torch.testing.assert_close(found_BTV, wanted_BTV, atol=1e-4, rtol=0)
    assert torch.equal(found_BTV.argmax(-1), wanted_BTV.argmax(-1))


def test_transformers_tokenizes_and_continues_as_we_do(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from trainer.generate.decoding import generate
    from trainer.generate.sampling import Sampling

    run = trained(tmp_path)
    hugging_face.export(run, tmp_path / "out", force=False, note=silent)
    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    for text in (TEXT, "", " ", "\n", "it's 1234 ++ x", "ﬁ é e\u0301 \u200b", "🦜" * 3):
        ids = run.tokenizer.encode(text, add_special_tokens=False).ids
        assert theirs(text)["input_ids"] == ids
        assert theirs.decode(ids) == text
    assert (theirs.eos_token_id, theirs.bos_token_id, theirs.model_max_length) == (0, 0, LLAMA.context)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.generation_config.eos_token_id == 0
    prompt = run.tokenizer.encode("The cat").ids
    continued = model.generate(torch.tensor([prompt]), max_new_tokens=8, do_sample=False)[0, len(prompt) :].tolist()
    ours = generate(run.model(silent), prompt, Sampling(temperature=0), seed=0, most=8, stop=0, note=silent)
    assert [token for token in continued if token] == list(ours)


def test_a_failing_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    run, out = trained(tmp_path / "run"), tmp_path / "out"
    files = hugging_face.export(run, out, force=False, note=silent)
    before = {path: path.read_bytes() for path in files}
    real = hugging_face.write_whole
    for failing in range(len(files)):
        written = 0

        def write(path: Path, content: bytes, failing: int = failing) -> None:
            nonlocal written
            if written == failing:
                raise OSError(28, "No space left on device")
            written += 1
            real(path, content)

        monkeypatch.setattr(hugging_face, "write_whole", write)
        with pytest.raises(UserError, match="No space left"):
            hugging_face.export(run, out, force=True, note=silent)
        assert {path: path.read_bytes() for path in out.iterdir()} == before
        assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "run"]


def test_nothing_is_overwritten_but_an_export_by_force(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    run, out = trained(tmp_path / "run"), tmp_path / "out"
    hugging_face.export(run, out, force=False, note=silent)
    with pytest.raises(UserError, match="already exists"):
        hugging_face.export(run, out, force=False, note=silent)
    (out / "config.json").write_text("changed")
    hugging_face.export(run, out, force=True, note=silent)
    assert json.loads((out / "config.json").read_text())["model_type"] == "llama"
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("x")
    with pytest.raises(UserError, match="no export"):
        hugging_face.export(run, precious, force=True, note=silent)
    assert (precious / "thesis.txt").read_text() == "x"


def test_a_damaged_checkpoint_falls_back_and_anothers_is_refused(tmp_path: Path) -> None:
    run, notes = trained(tmp_path), list[str]()
    (tmp_path / "step-000000000009.checkpoint").write_bytes(b"lossfrontier checkpoint 1\n" + b"x" * 100)
    run.model(notes.append)
    assert len(notes) == 1 and "checksum" in notes[0]
    assert (tmp_path / "step-000000000009.checkpoint").exists(), "reading removes nothing"
    other = run.spec.model_copy(update={"seed": 5})
    with pytest.raises(UserError, match="is of run"):
        TrainedRun(RunSpec.model_validate(other.model_dump()), tmp_path, run.tokenizer_file).model(notes.append)


def test_an_architecture_without_a_class_is_refused_in_a_line() -> None:
    with pytest.raises(UserError, match="architecture lstm has no class in transformers"):
        converter("lstm")
