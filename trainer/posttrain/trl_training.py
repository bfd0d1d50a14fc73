"""What stages that stand on TRL share: its arguments from our settings, its steps in our curve, stopping, resuming."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from scaling.record import Record
from trainer.posttrain.policy import Lora
from trainer.posttrain.stage import Interrupted, StageRun

__all__ = ["TrainingSettings", "arguments", "merged", "train"]


# Counted by TRL over the first row of a batch, or known from the step.
_UNKEPT = ("num_tokens", "epoch")


class TrainingSettings(Record):
    """How a stage is trained; ``lora`` instead of all weights if it is given."""

    learning_rate: float = Field(gt=0, lt=1)
    epochs: float = Field(default=1, gt=0)
    batch: int = Field(default=32, ge=1)
    """Rows a step."""
    micro_batch: int | None = Field(default=None, ge=1)
    """Rows in memory at once; all of a step by default."""
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps."""
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = "cosine"
    weight_decay: float = Field(default=0.0, ge=0)
    gradient_clip: float = Field(default=1.0, gt=0)
    lora: Lora | None = None
    checkpoint_steps: int = Field(default=200, ge=1)


def arguments(kind: type[Any], settings: TrainingSettings, run: StageRun, **others: Any) -> Any:
    """TRL's configuration ``kind``, which reports to nobody but us and computes in bf16 where there is a GPU."""
    import torch

    gpu = torch.cuda.is_available()
    micro = min(settings.micro_batch or settings.batch, settings.batch)
    return kind(
        output_dir=str(run.folder.checkpoints),
        learning_rate=settings.learning_rate,
        **({"num_train_epochs": settings.epochs} if "max_steps" not in others else {}),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=-(-settings.batch // micro),
        warmup_steps=settings.warmup,
        lr_scheduler_type=settings.schedule,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.gradient_clip,
        seed=run.seed,
        data_seed=run.seed,
        logging_steps=1,
        save_steps=settings.checkpoint_steps,
        save_total_limit=1,
        save_strategy="steps",
        report_to=[],
        disable_tqdm=True,
        bf16=gpu,
        use_cpu=not gpu,
        # TRL asks for it by default under its old name, which transformers warns of.
        gradient_checkpointing=None,
        dataloader_pin_memory=gpu,
        **others,
    )


def train(trainer: Any, run: StageRun) -> Any:
    """The trained model. :class:`Interrupted` if the run was asked to stop: what was done is saved."""
    from transformers import PrinterCallback

    reporter = _reporter(run)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(reporter)
    newest = _newest_whole(run.folder.checkpoints)
    run.continue_from(0 if newest is None else int(newest.name.partition("-")[2]))
    trainer.train(resume_from_checkpoint=None if newest is None else str(newest))
    if reporter.stopped:
        raise Interrupted
    return trainer.model


def merged(model: Any) -> Any:
    """The model with its adapters merged, if it has any."""
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model


def _newest_whole(folder: Path) -> Path | None:
    """The newest checkpoint whose last file is there and can be read; what a kill cut short is removed."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]), reverse=True)
    for path in found:
        try:
            json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            shutil.rmtree(path)
            continue
        return path
    return None


def _reporter(run: StageRun) -> Any:
    from transformers import TrainerCallback

    class Reporter(TrainerCallback):
        """The trainer's rows in the run's curve; and the run's wish to stop, told to the trainer."""

        stopped = False

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            numbers = {name: _number(value) for name, value in (logs or {}).items() if name not in _UNKEPT}
            row = {name: value for name, value in numbers.items() if value is not None}
            if "train_runtime" not in (logs or {}):
                run.log(state.global_step, row, of=state.max_steps)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if run.should_stop() and state.global_step < state.max_steps:
                self.stopped = control.should_training_stop = control.should_save = True

    return Reporter()


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
