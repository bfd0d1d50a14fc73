"""Do activations move alike at every size? The check of a parametrisation that needs no training to an end.

A few steps are taken on one batch. Under a parametrisation that transfers, what every block computes, and the logits,
change by as much in a wide (or deep) model as in a small one; where they change by a power of the size, the best
learning rate must move too (Yang et al. 2203.03466, appendix D.1).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from scaling.run_spec import OptimizerSpec, Parametrisation
from scaling.shape import ModelShape
from trainer.loop.optimizer import Optimizer
from trainer.models import build
from trainer.models.model import LanguageModel

__all__ = ["coordinate_changes", "coordinate_slopes"]


def coordinate_changes(
    shape: ModelShape,
    parametrisation: Parametrisation,
    optimizer: OptimizerSpec,
    *,
    steps: int = 4,
    sequences: int = 4,
    seed: int = 0,
) -> dict[str, float]:
    """Root mean square, over its coordinates, of how far each activation moves within ``steps`` steps.

    Activations are those of the embedding, of each layer and of each part of a layer, averaged over layers
    (``layers.*.mlp``), and of the last layer (``stream``). ``answers`` is how far the right token's logit moves away
    from the others' mean. ``initial logits`` are those before the first step, not a change.
    """
    model = build(shape, parametrisation)
    model.initialise(seed)
    generator = torch.Generator().manual_seed(seed)
    x_BT = torch.randint(shape.vocabulary, (sequences, shape.context), generator=generator)
    # Each token has one successor: there is something to learn, and the same at every size.
    y_BT = torch.randperm(shape.vocabulary, generator=generator)[x_BT]
    before = _activations(model, x_BT)
    update = Optimizer(model, optimizer)
    for _ in range(steps):
        torch.autograd.backward(model.loss(x_BT, y_BT))
        update.step(optimizer.learning_rate)
    moved: dict[str, list[float]] = {}
    for name, after in _activations(model, x_BT).items():
        change = after - before[name]
        if name == "logits":
            # Of its root mean square a part is what the random head makes of moved features: it dies out with width.
            answers_BT = change.gather(-1, y_BT[..., None]).squeeze(-1)
            moved["answers"] = [float((answers_BT - change.mean(dim=-1)).mean())]
        else:
            moved.setdefault(re.sub(r"\.\d+", ".*", name), []).append(_rms(change))
    return {name: float(np.mean(each)) for name, each in moved.items()} | {"initial logits": _rms(before["logits"])}


def coordinate_slopes(
    shapes: Sequence[ModelShape],
    parametrisation: Parametrisation,
    optimizer: OptimizerSpec,
    *,
    along: str = "width",
    steps: int = 4,
    seeds: int = 2,
) -> dict[str, float]:
    """Exponent of each of :func:`coordinate_changes` in the shapes' ``along`` (width or layers), over all seeds.

    0 means that it does not depend on the size.
    """
    runs = [
        (float(getattr(shape, along)), coordinate_changes(shape, parametrisation, optimizer, steps=steps, seed=seed))
        for shape in shapes
        for seed in range(seeds)
    ]
    ln_size = np.log([size for size, _ in runs])
    return {
        name: float(np.polyfit(ln_size, np.log([changes[name] for _, changes in runs]), 1)[0]) for name in runs[0][1]
    }


@torch.no_grad()
def _activations(model: LanguageModel, x_BT: Tensor) -> dict[str, Tensor]:
    """Outputs of the embedding, of the layers and of their parts, and the logits."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            if isinstance(output, Tensor):
                found[name] = output

        return hook

    watched = re.compile(r"embed_tokens|layers\.\d+(\.\w+)?")
    hooks = [
        module.register_forward_hook(keep(name)) for name, module in model.named_modules() if watched.fullmatch(name)
    ]
    try:
        logits_BTV = model(x_BT)
    finally:
        for hook in hooks:
            hook.remove()
    last = max((name for name in found if re.fullmatch(r"layers\.\d+", name)), key=lambda name: int(name[7:]))
    return found | {"stream": found[last], "logits": logits_BTV}


def _rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())
