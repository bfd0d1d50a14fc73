"""Tokens a second of our training step against nanoGPT's model and transformers' Llama of the same shape, in one run.

    taskset -c 1 python benchmarks/train_speed.py [--sizes 1e5,3e5,1e6,3e6,5e6,1e7] [--windows 8]

Needs ``pip install transformers``. Every way of computing is a process of its own on one thread; all of one size wait
while one takes a window of steps, turn by turn, and the best window of each counts, so that whatever else the machine
does disturbs all alike. Seconds are the process's CPU seconds, which on one thread are those of the clock when nothing
else runs. A step is 16 sequences of 256 tokens: forward, backward, gradients clipped to 1.0, AdamW, with
fp32 master weights. Vocabulary 1,024 below 1M parameters and 4,096 from there on.

- ours: ``trainer.loop.step`` as ``trainer.loop.train`` runs it, deterministic; "best" is the fastest way that
  ``trainer.loop.calibration`` may choose among.
- nanoGPT (``reference_nanogpt.py``) as its README runs it on a CPU (fp32, eager, AdamW not fused), and its best flags:
  the best of eager and compiled, fp32 and bf16 autocast.
- transformers' ``LlamaForCausalLM`` with SDPA attention and ``torch.optim.AdamW``: eager fp32, and its best of those.

Then: our fp32 share of the best square fp32 matrix product, FLOPs as ``scaling.architectures`` counts them, and seconds
from process start to the end of the first step, by the clock and of CPU time (compilers that it started included).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch

from scaling.architectures.llama import count_parameters, shape_for, training_flops_per_token
from scaling.run_spec import OptimizerSpec
from scaling.shape import ModelShape

SEQUENCES, CONTEXT = 16, 256
SIZES = (1e5, 3e5, 1e6, 3e6, 5e6, 1e7)
WINDOW_SECONDS = 0.25
OUR_MODES, THEIR_MODES = ("eager", "compiled", "kernels"), ("eager", "compiled")
OUT = Path(__file__).parent / "results" / "train_speed.json"

Step = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def shape_of(size: float) -> ModelShape:
    return shape_for(size, vocabulary=1024 if size < 1e6 else 4096, context=CONTEXT)


# One way of computing, in a process of its own


def our_step(
    shape: ModelShape, precision: Any, mode: str, micro_batch: int | None, stack: contextlib.ExitStack
) -> Step:
    from trainer.loop.numerics import Numerics
    from trainer.loop.optimizer import Optimizer
    from trainer.loop.step import TrainingStep
    from trainer.loop.train import applied
    from trainer.models import build

    numerics = Numerics(
        precision=precision, compiled=mode == "compiled", kernels=mode == "kernels", micro_batch_sequences=micro_batch
    )
    stack.enter_context(applied(numerics))
    model = build(shape)
    model.initialise(0)
    optimizer = OptimizerSpec(learning_rate=1e-3)
    step = TrainingStep(model, Optimizer(model, optimizer), numerics, optimizer.gradient_clip)
    return lambda x_BT, y_BT: step(x_BT, y_BT, 1e-3)[0]


def their_step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, loss: Step, precision: str) -> Step:
    def step(x_BT: torch.Tensor, y_BT: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            nats = loss(x_BT, y_BT)
        nats.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return nats.detach()

    return step


def nanogpt_step(shape: ModelShape, precision: str, mode: str) -> Step:
    from reference_nanogpt import NanoGPT, configure_optimizer

    model = NanoGPT(shape)
    called = torch.compile(model) if mode == "compiled" else model
    return their_step(model, configure_optimizer(model), called, precision)


def transformers_step(shape: ModelShape, precision: str, mode: str) -> Step:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.ffn_width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=shape.context,
        tie_word_embeddings=shape.tied,
        attn_implementation="sdpa",
        use_cache=False,
    )
    model = LlamaForCausalLM(config)
    called = torch.compile(model) if mode == "compiled" else model
    # It shifts labels itself; one position less in 256 is left out of its loss, which costs or saves nothing.
    return their_step(
        model, torch.optim.AdamW(model.parameters(), 1e-3), lambda x, _: called(input_ids=x, labels=x).loss, precision
    )


def serve(way: dict[str, Any], stack: contextlib.ExitStack) -> None:
    """Take one step, say when; then a window of steps for every line read, until there are no more lines."""
    torch.set_num_threads(1)
    shape = ModelShape.model_validate(way["shape"])
    arguments = shape, way["precision"], way["mode"]
    if way["who"] == "ours":
        step = our_step(*arguments, way.get("micro_batch"), stack)
    else:
        step = {"nanogpt": nanogpt_step, "transformers": transformers_step}[way["who"]](*arguments)
    generator = torch.Generator().manual_seed(0)
    x_BT, y_BT = torch.randint(shape.vocabulary, (2, SEQUENCES, shape.context), generator=generator)

    def seconds(steps: int) -> float:
        began = time.process_time()
        for _ in range(steps):
            loss = step(x_BT, y_BT)
        float(loss)
        return (time.process_time() - began) / steps

    seconds(1)
    me = psutil.Process()
    spent = [me.cpu_times(), *(child.cpu_times() for child in me.children(recursive=True))]
    print(json.dumps([time.time() - me.create_time(), sum(sum(times[:4]) for times in spent)]), flush=True)
    steps = max(1, round(WINDOW_SECONDS / min(seconds(1), seconds(1))))
    for _ in sys.stdin:
        print(json.dumps(seconds(steps)), flush=True)


class Contender:
    """The process that computes one way, and the best of its windows so far."""

    def __init__(self, way: dict[str, Any]) -> None:
        self.way = way
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", __file__, "--serve", json.dumps(way)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.first_step_seconds, self.first_step_cpu_seconds = self._read()
        self.best = float("inf")

    def _read(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def window(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.best = min(self.best, self._read())

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    @property
    def tokens_per_second(self) -> float:
        return SEQUENCES * CONTEXT / self.best

    @property
    def name(self) -> str:
        micro = self.way.get("micro_batch")
        return f"{self.way['precision']} {self.way['mode']}" + (f" m{micro}" if micro else "")


# All of them, turn by turn


def matmul_gflops(dtype: torch.dtype) -> float:
    """The best of square products of several sizes."""
    best = 0.0
    for size in (256, 384, 512, 768, 1024):
        a, b = torch.randn(2, size, size).to(dtype)
        deadline = time.perf_counter() + 0.3
        while (began := time.perf_counter()) < deadline:
            a @ b
            best = max(best, 2 * size**3 / (time.perf_counter() - began) / 1e9)
    return best


def measure(size: float, windows: int, micro_batches: list[int | None]) -> dict[str, Any]:
    shape = shape_of(size)
    ways = [
        {"who": who, "shape": shape.model_dump(), "precision": precision, "mode": mode, "micro_batch": micro}
        for who in ("ours", "nanogpt", "transformers")
        for precision in ("fp32", "bf16")
        for mode in (OUR_MODES if who == "ours" else THEIR_MODES)
        for micro in (micro_batches if who == "ours" else [None])
    ]
    contenders = [Contender(way) for way in ways]
    peak = {"fp32": 0.0, "bf16": 0.0}
    for _ in range(windows):
        for contender in contenders:
            contender.window()
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
            peak[name] = max(peak[name], matmul_gflops(dtype))
    for contender in contenders:
        contender.close()
    result: dict[str, Any] = {
        "parameters": count_parameters(shape).total,
        "shape": shape.model_dump(),
        "training_flops_per_token": training_flops_per_token(shape),
        "matmul_gflops": peak,
        "tokens_per_second": {
            who: {c.name: round(c.tokens_per_second, 1) for c in contenders if c.way["who"] == who}
            for who in ("ours", "nanogpt", "transformers")
        },
    }
    speeds = result["tokens_per_second"]
    ours, ours_fp32 = max(speeds["ours"].values()), best_of(speeds["ours"], "fp32")
    result["ours_best"] = max(speeds["ours"], key=speeds["ours"].get)
    for who in ("nanogpt", "transformers"):
        result[f"times_{who}_as_documented"] = ours / speeds[who]["fp32 eager"]
        result[f"times_{who}_best_flags"] = ours / max(speeds[who].values())
        result[f"times_{who}_as_documented_fp32"] = ours_fp32 / speeds[who]["fp32 eager"]
        result[f"times_{who}_best_flags_fp32"] = ours_fp32 / best_of(speeds[who], "fp32")
    result["share_of_fp32_peak"] = ours_fp32 * training_flops_per_token(shape) / peak["fp32"] / 1e9
    result["first_step_seconds"] = first_steps(contenders)
    return result


def best_of(speeds: dict[str, float], precision: str) -> float:
    return max(speed for name, speed in speeds.items() if name.startswith(precision))


def first_steps(contenders: list[Contender]) -> dict[str, float]:
    """Of the fastest precision of each mode of ours: the best of three processes; compiled, the first one too."""
    found: dict[str, float] = {}
    for mode in OUR_MODES:
        fastest = min((c for c in contenders if c.way["who"] == "ours" and c.way["mode"] == mode), key=lambda c: c.best)
        again = [Contender(fastest.way) for _ in range(3)]
        for one in again:
            one.close()
        named = [(mode, again)] if mode != "compiled" else [("compiled, cold", [fastest]), ("compiled, warm", again)]
        for name, several in named:
            found[name] = min(one.first_step_seconds for one in several)
            found[f"{name}, CPU"] = min(one.first_step_cpu_seconds for one in several)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--serve")
    parser.add_argument("--sizes", default=",".join(f"{size:g}" for size in SIZES))
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--micro-batches", default="0", help="sequences; 0 is the whole batch")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    if arguments.serve:
        with contextlib.ExitStack() as stack:
            serve(json.loads(arguments.serve), stack)
        return
    from trainer.loop.numerics import processor_name

    torch.set_num_threads(1)
    micro_batches = [int(each) or None for each in arguments.micro_batches.split(",")]
    results = []
    with tempfile.TemporaryDirectory() as cache:
        # Everything is compiled anew once, so that a cold first step is one.
        os.environ |= {"TORCHINDUCTOR_CACHE_DIR": cache, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        for size in map(float, arguments.sizes.split(",")):
            results.append(measure(size, arguments.windows, micro_batches))
            print(json.dumps(results[-1], indent=1), flush=True)
            facts = {"processor": processor_name(), "torch": str(torch.__version__), "sizes": results}
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            arguments.out.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
