"""The model's shape as a Hugging Face ``config.json``, with the tokenizer beside it where the corpus is here.

No weights: ``AutoModelForCausalLM.from_config`` draws its own. Factors of a parametrisation are no part of a shape;
they are worked into the weights when the trained run is exported (``scaling export``).
"""

from __future__ import annotations

import torch

from trainer.data.tokenizer import load_tokenizer
from trainer.export.converter import converter
from trainer.export.hugging_face import configuration_files
from trainer.launch.job import Exported, Job
from trainer.models import build

__all__ = ["export"]


def export(job: Job) -> Exported:
    spec = job.spec
    convert = converter(spec.shape.architecture)
    with torch.device("meta"):
        model = build(spec.shape, spec.parametrisation)
    tokenised = job.tokenised
    file = None if tokenised is None else tokenised.directory / "tokenizer.json"
    files = configuration_files(
        convert.config(model), None if file is None else load_tokenizer(file), file, spec.shape.context
    )
    notes = list(job.notes)
    if tokenised is None:
        notes.append(
            "the corpus's tokens are not here: config.json has no ids of special tokens, and no tokenizer is beside it"
        )
    if spec.parametrisation.name != "standard":
        notes.append(
            f"config.json holds the shape alone: a model drawn from it is not in {spec.parametrisation.label}; "
            "export the trained run instead"
        )
    return Exported(files={name: content.decode() for name, content in files.items()}, notes=tuple(notes))
