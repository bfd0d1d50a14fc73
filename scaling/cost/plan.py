"""The fastest layout of a run that fits its devices, or why none does."""

from __future__ import annotations

import math
from collections.abc import Iterator

from scaling import architectures
from scaling.cost.memory import rank_memory, stage_layers
from scaling.cost.parallel_plan import Layout, ParallelPlan, Recompute
from scaling.cost.step_time import step_time
from scaling.errors import UserError
from scaling.hardware import Accelerator, accelerator
from scaling.shape import ModelShape

__all__ = ["USABLE_SHARE", "evaluate", "fastest_plan"]

USABLE_SHARE = 0.92
"""Of the device's memory: the rest goes to fragments, messages under way and kernels' workspaces (outside estimate)."""
MOST_PIPELINE = 64
MOST_CONTEXT = 32
LONG_CONTEXT = 16_384
"""From here on sequences are cut into parts; below, heads and layers are."""
MOST_ROUNDING = 0.2
"""By how much the batch may move so that it divides among replicas and stages: loss is flat over such differences."""


def evaluate(shape: ModelShape, layout: Layout, name: str, global_batch_sequences: int) -> ParallelPlan:
    """What ``layout`` needs and reaches on the accelerator called ``name``.

    Raises :class:`UserError` where degrees do not divide what they cut, naming the two numbers.
    """
    device = accelerator(name)
    refused = _cannot(shape, layout, device, global_batch_sequences)
    if refused is not None:
        raise UserError(refused)
    return _evaluated(shape, layout, device, global_batch_sequences)


def fastest_plan(
    shape: ModelShape,
    name: str,
    gpus: int,
    global_batch_tokens: int,
    *,
    rounding: float = MOST_ROUNDING,
    most_tensor: int | None = None,
) -> ParallelPlan:
    """The layout over ``gpus`` with the highest expected MFU among those that fit, its batch within the share
    ``rounding`` of the one asked for, its tensor degree ``most_tensor`` at most.

    Where none fits, the one that needs least memory, with ``why_not``. Raises :class:`UserError` for an architecture
    that is not accounted for, and where the batch can't be dealt out to so many devices in any way.
    """
    device = accelerator(name)
    if architectures.family_of(shape.architecture) != "transformer":
        raise UserError(f"architecture {shape.architecture!r} has no parallelism plan: only transformers are cut up")
    asked = max(1, round(global_batch_tokens / shape.context))
    best: tuple[float, Layout, int] | None = None
    least: tuple[float, Layout, int] | None = None
    usable = USABLE_SHARE * device.memory_gib * 2**30
    for degrees, batch in _degrees(shape, device, gpus, asked, rounding, most_tensor or shape.heads):
        for layout, micro_batches in _variants(shape, degrees, batch):
            mfu = step_time(shape, layout, device, micro_batches).mfu
            if best is not None and mfu <= best[0]:
                continue
            needs = rank_memory(shape, layout, micro_batches).total
            if needs <= usable:
                best = mfu, layout, batch
            elif least is None or needs < least[0]:
                least = needs, layout, batch
    chosen = best or least
    if chosen is not None:
        return _evaluated(shape, chosen[1], device, chosen[2])
    raise UserError(
        f"no layout puts {asked:,} sequences a step on {gpus:,} x {device.name}: the batch must divide among the "
        f"replicas, {shape.heads} heads and {shape.layers} layers among the rest; take a power of two of devices, "
        "fewer of them, or a larger batch"
    )


def _degrees(
    shape: ModelShape, device: Accelerator, gpus: int, asked: int, rounding: float, most_tensor: int
) -> Iterator[tuple[Layout, int]]:
    """Degrees that multiply to ``gpus`` and cut evenly, each with the batch nearest to ``asked`` that divides among the
    replicas, and the nearest that gives each of them a multiple of the stages too."""
    most_parts = MOST_CONTEXT if shape.context >= LONG_CONTEXT else 1
    contexts = [c for c in _powers(most_parts) if shape.context % c == 0]
    for t in _powers(min(device.scale_up_domain, shape.heads, most_tensor)):
        for p in (p for p in range(1, min(MOST_PIPELINE, shape.layers, gpus) + 1) if gpus % p == 0):
            for c in contexts:
                if gpus % (t * p * c):
                    continue
                layout = Layout(tensor=t, pipeline=p, context=c, data=gpus // (t * p * c))
                steps = {layout.data, layout.data * p}
                for batch in sorted({max(1, round(asked / step)) * step for step in steps}):
                    near = abs(batch - asked) <= rounding * asked
                    if near and _cannot(shape, layout, device, batch) is None:
                        yield layout, batch


def _variants(shape: ModelShape, degrees: Layout, batch: int) -> Iterator[tuple[Layout, int]]:
    """Micro-batches (and how many a step), sharding, recomputation and interleaving that these degrees leave open."""
    of_replica = batch // degrees.data
    recompute: tuple[Recompute, ...] = ("none", "full")
    zero = (1, 2, 3) if degrees.data * degrees.context > 1 else (0,)
    dealt = stage_layers(shape.layers, degrees.pipeline)
    for rows in (rows for rows in _powers(min(64, of_replica)) if of_replica % rows == 0):
        micro_batches = of_replica // rows
        pieces, rounds = [1], micro_batches // degrees.pipeline
        # An interleaved schedule takes micro-batches in equal rounds, each of as many as there are stages or more.
        if degrees.pipeline > 1 and rounds and micro_batches % rounds == 0:
            pieces += [v for v in (2, 3, 4, 6, 8) if v <= max(dealt)]
        for z in zero:
            if z == 3 and degrees.pipeline > 1:
                continue  # every micro-batch would gather the stage's weights again
            for again in recompute:
                for v in pieces:
                    chosen = {
                        "micro_batch_sequences": rows,
                        "zero_stage": z,
                        "recompute": again,
                        "virtual_stages": v,
                    }
                    yield degrees.model_copy(update=chosen), micro_batches


def _cannot(shape: ModelShape, layout: Layout, device: Accelerator, batch: int) -> str | None:
    t, p = layout.tensor, layout.pipeline
    if t > device.scale_up_domain:
        return f"tensor is {t}: {device.name} has {device.scale_up_domain} devices on one fast link"
    for what, size in (("heads", shape.heads), ("ffn_width", shape.ffn_width)):
        if size % t:
            return f"tensor is {t}: it does not divide {what} {size:,}"
    if shape.kv_heads % t and t % shape.kv_heads:
        return f"tensor is {t}: key-value heads {shape.kv_heads} can't be dealt out or repeated evenly"
    if p > shape.layers:
        return f"pipeline is {p}: the shape has {shape.layers} layers, and a stage holds one or more"
    if shape.context % layout.context:
        return f"context is {layout.context}: it does not divide sequences of {shape.context:,}"
    if batch % (layout.data * layout.micro_batch_sequences):
        return (
            f"data is {layout.data} with micro-batches of {layout.micro_batch_sequences}: they do not divide a batch "
            f"of {batch:,} sequences"
        )
    return None


def _evaluated(shape: ModelShape, layout: Layout, device: Accelerator, batch: int) -> ParallelPlan:
    micro_batches = batch // (layout.data * layout.micro_batch_sequences)
    memory = rank_memory(shape, layout, micro_batches)
    timed = step_time(shape, layout, device, micro_batches)
    has = device.memory_gib * 2**30
    fits = memory.total <= USABLE_SHARE * has
    return ParallelPlan(
        **layout.model_dump(include=set(Layout.model_fields)),
        accelerator=device.name,
        global_batch_sequences=batch,
        micro_batches=micro_batches,
        memory=memory,
        device_bytes=has,
        fits=fits,
        why_not=None if fits else _why_not(memory.total, has, device.name),
        bubble=timed.bubble,
        communication=timed.communication,
        step_seconds=timed.seconds,
        mfu=timed.mfu,
    )


def _why_not(needs: float, has: float, name: str) -> str:
    return (
        f"a rank needs {needs / 2**30:.3g} GiB and {USABLE_SHARE:.0%} of the {has / 2**30:.3g} GiB of a {name} can be "
        "used: take more devices, or ones with more memory"
    )


def _powers(most: int) -> list[int]:
    return [2**i for i in range(int(math.log2(most)) + 1)] if most >= 1 else []
