"""One shape's books: parameters under the three conventions, active and total, exact FLOPs by part, and 6ND beside.

Which convention is meant moves the exponents of N* from 0.37 to 0.70 on the same runs (``scaling.conventions``), so a
table of runs should say.
"""

from __future__ import annotations

from scaling import architectures
from scaling.architectures import llama_moe
from scaling.quantity import format_count, format_flops
from scaling.record import Record
from scaling.serving import forward_flops, kv_cache_bytes
from scaling.shape import ForwardFlops, ModelShape, ParameterCounts

__all__ = ["ShapeAccount", "account"]


class ShapeAccount(Record):
    """What a shape stores, multiplies and costs."""

    total: ParameterCounts
    active: ParameterCounts
    """The same as ``total`` in a dense model."""
    sparsity: float
    forward: ForwardFlops
    """Of one token over the whole context, the PaLM convention."""
    training_flops_per_token: int
    six_n: dict[str, int]
    """6·N under each convention, N active."""
    exact_over_six_n: dict[str, float]
    kv_cache_bytes_per_token: float
    """In 16 bits."""

    def summary(self) -> str:
        """A table of conventions, then where the FLOPs go."""
        lines = [f"{'':<14}{'parameters':>11}{'active':>9}{'6N a token':>14}{'exact/6N':>10}"]
        for name, counts, active in (
            ("total", self.total.total, self.active.total),
            ("nonembedding", self.total.nonembedding, self.active.nonembedding),
            ("with-head", self.total.with_head, self.active.with_head),
        ):
            lines.append(
                f"{name:<14}{format_count(counts):>11}{format_count(active):>9}{format_flops(self.six_n[name]):>14}"
                f"{self.exact_over_six_n[name]:>10.3f}"
            )
        parts = {name: getattr(self.forward, name) for name in ForwardFlops.model_fields}
        shares = ", ".join(
            f"{name.replace('_', '-')} {value / self.forward.total:.1%}" for name, value in parts.items() if value
        )
        lines.append(f"training {format_flops(self.training_flops_per_token)} a token; of a forward pass: {shares}")
        kept = f"{format_count(self.kv_cache_bytes_per_token)} bytes of keys and values a token"
        lines.append(f"serving keeps {kept if self.kv_cache_bytes_per_token else 'a state, however many tokens'}")
        return "\n".join(lines)


def account(shape: ModelShape) -> ShapeAccount:
    """The books of a dense shape or a mixture of experts."""
    if isinstance(shape, llama_moe.MoeShape):
        total, active = llama_moe.count_parameters(shape), llama_moe.count_active_parameters(shape)
        training = llama_moe.training_flops_per_token(shape)
    else:
        model = architectures.get(shape.architecture)
        total = active = model.count_parameters(shape)
        training = model.training_flops_per_token(shape)
    six_n = {"total": 6 * active.total, "nonembedding": 6 * active.nonembedding, "with-head": 6 * active.with_head}
    return ShapeAccount(
        total=total,
        active=active,
        sparsity=1 - active.total / total.total,
        forward=forward_flops(shape, shape.context),
        training_flops_per_token=training,
        six_n=six_n,
        exact_over_six_n={name: training / value for name, value in six_n.items()},
        kv_cache_bytes_per_token=kv_cache_bytes(shape, 1),
    )
