"""AdamW (Loshchilov & Hutter 1711.05101), or Muon (Jordan et al. 2024) for the layers' matrices and AdamW for the rest.

Decay is decoupled and on matrices and an untied head only. Norm scales are not decayed, being one-dimensional; nor is
the embedding, tied or not: a row is touched only when its token occurs, so decay would shrink the rare ones fastest (as
in OLMo 2, 2501.00656). Learning rate, decay and eps of each group carry the factors of the model's parametrisation.

Muon orthogonalises a matrix of the network, and several lie one above another in one parameter: it gets views of its
rows, which share the parameter's memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from scaling.run_spec import OptimizerSpec
from trainer.distributed.world import whole
from trainer.models.model import LanguageModel
from trainer.models.parametrisation import Role

__all__ = ["Optimizer", "clip_gradients"]

# Kept out of division by zero; the same guard as torch.nn.utils.clip_grad_norm_.
_NORM_EPS = 1e-6
# Where Muon divides by a gradient's norm: torch's own default.
_MUON_EPS = 1e-7
_DECAYED: tuple[Role, ...] = ("matrix", "residual", "head")
_MATRICES: tuple[Role, ...] = ("matrix", "residual")


class Optimizer:
    """One torch optimizer over the model's parameters, or two of them that step as one.

    It has what ``torch.amp.GradScaler`` asks of an optimizer: ``param_groups``, and leaving out an update when told by
    ``found_inf``.
    """

    _step_supports_amp_scaling = True
    found_inf: Tensor | None = None
    """Set by GradScaler for one step: more than 0 where a gradient overflowed."""
    skip: Tensor | None = None
    """A boolean scalar, set for one step: true leaves the update out."""

    def __init__(self, model: LanguageModel, spec: OptimizerSpec) -> None:
        self.param_groups = [{"params": list(model.parameters())}]
        self._views: list[tuple[nn.Parameter, slice, Tensor]] = []
        # One group for all that are treated alike: each costs a call of its own, a fiftieth of a small model's step.
        groups: dict[bool, dict[tuple[float, float, float], list[Tensor]]] = {False: {}, True: {}}
        blocks = model.row_blocks()
        for name, parameter in model.named_parameters():
            role = model.role(name, parameter)
            on_muon = spec.name == "muon" and role in _MATRICES
            decay = spec.weight_decay * model.scaling.decay(role, muon=on_muon) * (role in _DECAYED)
            eps = _MUON_EPS if on_muon else spec.eps * model.scaling.eps(role)
            treatment = model.scaling.rate(role, muon=on_muon), decay, eps
            alike = groups[on_muon].setdefault(treatment, [])
            alike += self._rows(parameter, blocks.get(name)) if on_muon else [parameter]
        adamw, muon = (
            [
                {"params": alike, "lr": spec.learning_rate, "rate_factor": rate, "weight_decay": decay, "eps": eps}
                for (rate, decay, eps), alike in groups[on_muon].items()
            ]
            for on_muon in (False, True)
        )
        # The fused kernel: CPU and CUDA have one.
        self.parts: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(adamw, lr=spec.learning_rate, betas=(spec.beta1, spec.beta2), eps=spec.eps, fused=True)
        ]
        if muon:
            self.parts.append(
                torch.optim.Muon(
                    muon, lr=spec.learning_rate, momentum=spec.muon_momentum or 0.0, adjust_lr_fn="match_rms_adamw"
                )
            )

    def _rows(self, parameter: nn.Parameter, blocks: tuple[int, ...] | None) -> list[Tensor]:
        """The parameter's matrices: itself, or views of its rows, which are handed their gradients in :meth:`step`."""
        if blocks is None:
            return [parameter]
        views = []
        start = 0
        for rows in blocks:
            view = parameter.detach()[start : start + rows]
            self._views.append((parameter, slice(start, start + rows), view))
            views.append(view)
            start += rows
        return views

    def follow_parameters(self) -> None:
        """Take new views after the parameters' memory was replaced."""
        for parameter, rows, view in self._views:
            view.data = parameter.detach()[rows]

    def start_moments(self) -> None:
        """Have moments before the first step, for a checkpoint to be read into; the weights stay as they are."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.zeros_like(parameter)
        self.step(0.0)

    def step(self, rate: float) -> None:
        """Change the weights with the learning rate ``rate``, unless told to leave it out, and forget the gradients."""
        left_out = self._left_out()
        for parameter, rows, view in self._views:
            view.grad = None if parameter.grad is None else parameter.grad[rows]
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = rate * group["rate_factor"]
            if isinstance(part, torch.optim.AdamW) and left_out is not None:
                part.found_inf = left_out  # type: ignore[attr-defined]
                part.step()
                del part.found_inf  # type: ignore[attr-defined]
            elif left_out is None or not bool(left_out):  # Muon can only be told by the host
                part.step()
            part.zero_grad(set_to_none=True)
        for parameter, _, _ in self._views:
            parameter.grad = None
        self.skip = None

    def _left_out(self) -> Tensor | None:
        """1.0 on the device if the update is to be left out, 0.0 if not; None if nobody asks for it."""
        if self.skip is None:
            return self.found_inf
        return self.skip.float() if self.found_inf is None else torch.maximum(self.skip.float(), self.found_inf)

    def state_dict(self) -> list[dict[str, Any]]:
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, saved: list[dict[str, Any]]) -> None:
        for part, state in zip(self.parts, saved, strict=True):
            part.load_state_dict(state)


def clip_gradients(parameters: Iterable[nn.Parameter], largest_norm: float) -> Tensor:
    """Scale all gradients to a global norm of at most ``largest_norm``; returns the norm before, a scalar tensor.

    A norm that is not finite is returned as it is; the caller stops the run. Of gradients in shards it is the norm of
    the whole, the same on every rank.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    torch._foreach_mul_(gradients, (largest_norm / (norm + _NORM_EPS)).clamp(max=1.0))
    return whole(norm)
