"""The run for torchtitan 0.3.0, whose configurations are Python functions: a module with ours, and how it is started.

``torchtitan_run.py`` is that module with another run's numbers; they are replaced. What torchtitan's Llama or its
optimizers can't express is refused.
"""

from __future__ import annotations

import re
from importlib import resources

from scaling.cost.parallel_plan import Layout, layout_line
from scaling.errors import UserError
from scaling.run_spec import RunSpec
from scaling.shape import ModelShape
from trainer.launch import hugging_face
from trainer.launch.job import Exported, Job
from trainer.launch.placement import Placement
from trainer.models.llama import NORM_EPS, ROTARY_BASE

__all__ = ["VERSION", "export"]

VERSION = "0.3.0"
_RUN = re.compile(r"^# The run\n.*?^# End of the run\n", re.DOTALL | re.MULTILINE)
_DECAY = {"linear": "linear", "1-sqrt": "sqrt"}


def export(job: Job) -> Exported:
    _expressible(job.spec)
    try:
        _laid_out(job.spec.shape, job.placement.layout)
    except UserError as error:
        if job.placement.plan is None:
            raise
        raise UserError(f"the fastest layout is {layout_line(job.placement.layout)}. {error}; or say one") from None
    template = resources.files("trainer.launch").joinpath("torchtitan_run.py").read_text(encoding="utf-8")
    tokenised = job.tokenised
    assets = hugging_face.export(job)
    files = {"torchtitan_run.py": _RUN.sub(lambda _: _numbers(job), template)}
    files |= {f"assets/{name}": text for name, text in assets.files.items()}
    files["launch.sh"] = _script(job)
    said = list(job.notes)
    layout = job.placement.layout
    if layout.virtual_stages > 1 and _schedule(job.spec.shape.layers, layout)[1] is None:
        said.append(
            f"torchtitan can't cut {job.spec.shape.layers} layers into {layout.virtual_stages} pieces for each of "
            f"{layout.pipeline} stages: its pipeline waits longer (1F1B) than the account says"
        )
    if tokenised is None:
        said.append(
            "the corpus's tokens are not here: torchtitan would train on its own c4; put a tokenizer of "
            f"{job.spec.shape.vocabulary:,} tokens into assets/ and set CORPUS in torchtitan_run.py"
        )
    else:
        said.append("torchtitan's environment needs this package for the corpus: pip install --no-deps lossfrontier")
    return Exported(
        files=files,
        start=str(job.out / "torchtitan" / "launch.sh"),
        programs=("launch.sh",),
        placement=job.placement,
        notes=tuple(said),
    )


def _expressible(spec: RunSpec) -> None:
    shape = spec.shape
    if shape.architecture != "llama":
        raise UserError(
            f"architecture {shape.architecture} is none that torchtitan {VERSION} has as ours: llama alone is"
        )
    if spec.parametrisation.name != "standard":
        raise UserError(
            f"parametrisation {spec.parametrisation.name} multiplies logits and blocks, which torchtitan {VERSION} "
            "can't express: export --to torchrun"
        )
    if spec.optimizer.name != "adamw":
        raise UserError(
            f"optimizer {spec.optimizer.name}: torchtitan {VERSION} has a Muon of its own (DistMuon) with other "
            "scales; export --to torchrun"
        )
    if spec.spikes.action != "continue":
        raise UserError(
            f"spikes.action {spec.spikes.action}: torchtitan {VERSION} knows no such policy; export --to torchrun"
        )
    if spec.anneal is not None:
        raise UserError(
            f"anneal: torchtitan {VERSION} can't change the data in the middle of a run; export --to torchrun"
        )
    for name in ("warmup_tokens", "cooldown_tokens"):
        if (tokens := getattr(spec.schedule, name)) % spec.global_batch_tokens:
            raise UserError(
                f"schedule.{name} {tokens:,} is no multiple of global_batch_tokens {spec.global_batch_tokens:,}, and "
                "torchtitan counts steps: round it, or export --to torchrun"
            )


def _laid_out(shape: ModelShape, layout: Layout) -> None:
    for name, heads in (("heads", shape.heads), ("kv_heads", shape.kv_heads)):
        if heads % layout.tensor:
            raise UserError(f"--tensor {layout.tensor} does not divide {name} {heads}: take a divisor")
    divisor = layout.tensor * (2 * layout.context if layout.context > 1 else 1)
    if shape.context % divisor:
        raise UserError(
            f"--tensor {layout.tensor} and --context {layout.context} need a context that {divisor} divides, and it is "
            f"{shape.context:,}"
        )
    if layout.pipeline > 1 and shape.tied:
        raise UserError(
            f"--pipeline {layout.pipeline}: torchtitan {VERSION} can't tie the head to the embedding across stages; "
            "leave it out, or recommend an untied shape"
        )
    if layout.pipeline > shape.layers:
        raise UserError(f"--pipeline {layout.pipeline} is more than the {shape.layers} layers: take fewer stages")


def _numbers(job: Job) -> str:
    """The constants of this run in the place of the template's, by the same names."""
    spec, shape, layout = job.spec, job.spec.shape, job.placement.layout
    optimizer, schedule, batch = spec.optimizer, spec.schedule, spec.global_batch_tokens
    micro = job.placement.micro_batch_of(spec)
    # A pipeline is filled by all micro-batches of a rank's step; otherwise torchtitan adds up their gradients.
    local = spec.sequences_per_step // layout.data if layout.pipeline > 1 else micro
    cosine = schedule.kind == "cosine"
    rows = (
        (("NAME",), (job.name,)),
        (
            ("LAYERS", "WIDTH", "HEADS", "KV_HEADS", "FFN_WIDTH"),
            (shape.layers, shape.width, shape.heads, shape.kv_heads, shape.ffn_width),
        ),
        (("VOCABULARY", "CONTEXT", "TIED"), (shape.vocabulary, shape.context, shape.tied)),
        (("ROTARY_BASE", "NORM_EPS"), (ROTARY_BASE, NORM_EPS)),
        (("STEPS", "SEQUENCES"), (spec.steps, spec.sequences_per_step)),
        (
            ("LEARNING_RATE", "BETAS", "EPS", "WEIGHT_DECAY", "GRADIENT_CLIP"),
            (
                optimizer.learning_rate,
                (optimizer.beta1, optimizer.beta2),
                optimizer.eps,
                optimizer.weight_decay,
                optimizer.gradient_clip,
            ),
        ),
        (
            ("WARMUP_STEPS", "COOLDOWN_STEPS", "COOLDOWN_SHAPE", "FLOOR"),
            (
                schedule.warmup_tokens // batch,
                schedule.cooldown_tokens // batch,
                "cosine" if cosine else _DECAY[schedule.cooldown_shape],
                schedule.floor,
            ),
        ),
        (("SEED",), (spec.seed,)),
        (
            ("TENSOR", "PIPELINE", "CONTEXT_PARALLEL", "MICRO_BATCH", "LOCAL_BATCH"),
            (layout.tensor, layout.pipeline, layout.context, micro, local),
        ),
        (
            ("PIPELINE_SCHEDULE", "LAYERS_A_PIECE", "RECOMPUTE", "RESHARD"),
            (*_schedule(shape.layers, layout), *_kept(job.placement)),
        ),
    )
    lines = [f"{', '.join(names)} = {', '.join(map(repr, values))}" for names, values in rows]
    corpus = None if job.tokenised is None else str(job.tokenised.directory)
    return "\n".join(
        [f"# {job.title}", "# The run", *lines, f"CORPUS: str | None = {corpus!r}", "# End of the run", ""]
    )


def _kept(placement: Placement) -> tuple[str, str]:
    """What is computed again, and whether weights are gathered again for the backward pass (ZeRO-3) or kept (as near as
    torchtitan has ZeRO-1 and 2); what a person's degrees leave open is torchtitan's default."""
    if placement.plan is None:
        return "selective", "default"
    return placement.layout.recompute, "always" if placement.layout.zero_stage == 3 else "never"


def _schedule(layers: int, layout: Layout) -> tuple[str, int | None]:
    """The pipeline's schedule and the layers of each of its pieces; plain 1F1B where no number of them makes as many
    pieces. torchtitan counts embedding and head as a layer each."""
    pieces = layout.pipeline * layout.virtual_stages
    for each in range(1, layers + 3):
        if layout.virtual_stages > 1 and -(-(layers + 2) // each) == pieces:
            return "Interleaved1F1B", each
    return "1F1B", None


def _script(job: Job) -> str:
    placement = job.placement
    if placement.nodes == 1:
        meeting = "--standalone"
    else:
        meeting = (
            f'--nnodes {placement.nodes} --rdzv-backend c10d --rdzv-id {job.spec.key[:8]} --rdzv-endpoint "$FIRST"'
        )
    first = [] if placement.nodes == 1 else ["FIRST=${FIRST:?host:port of the first machine, the same on all}"]
    return "\n".join(
        [
            "#!/usr/bin/env bash",
            f"# {job.title}.",
            f"# Written by `scaling launch` for torchtitan {VERSION}. Further arguments are torchtitan's.",
            "set -euo pipefail",
            "PYTHON=${PYTHON:-python3}",
            *first,
            'HERE=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)',
            'export PYTHONPATH="$HERE${PYTHONPATH:+:$PYTHONPATH}"',
            f'exec "$PYTHON" -m torch.distributed.run {meeting} --nproc-per-node {placement.gpus_per_node} \\',
            '  -m torchtitan.train --module torchtitan_run --config recommended --dump_folder "$HERE/outputs" "$@"',
            "",
        ]
    )
