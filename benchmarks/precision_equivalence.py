"""Do runs in bf16, and runs on our own kernels, end like those in fp32 on PyTorch's? Paired over seeds, on real text.

    OMP_NUM_THREADS=1 taskset -c 1 python benchmarks/precision_equivalence.py [--seeds 8] [--tokens 1e6]

A Llama of about 200k parameters is trained on the embedded corpus to its end in each way of computing, from the same
seeds: same initial weights and same data, so that the difference of two final held-out losses is of the way alone. Two
ways are equivalent where the whole 90% interval of the mean difference (Student's t over seeds) lies within the margin,
0.5% of the loss: two one-sided tests at 5% (Schuirmann 1987). Ways run turn by turn; each run is written down as it
finishes, and starting again goes on.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

from scaling.architectures.llama import count_parameters, shape_for
from scaling.run_spec import OptimizerSpec, RunSpec, ScheduleSpec
from trainer.data.prepare import prepare
from trainer.data.shards import Corpus
from trainer.loop.numerics import Numerics, processor_name
from trainer.loop.train import train
from trainer.tracker import NullTracker
from trainer.whole_file import write_whole

RESULTS = Path(__file__).resolve().parent / "results" / "precision_equivalence.json"
MARGIN = 0.005
LEVEL = 0.9
BATCH, CONTEXT, VOCABULARY, RATE = 2048, 128, 1024, 8e-3
WAYS = {
    "fp32": Numerics(),
    "fp32 kernels": Numerics(kernels=True),
    "bf16": Numerics(precision="bf16"),
    "bf16 kernels": Numerics(precision="bf16", kernels=True),
}
PAIRS = [("bf16", "fp32"), ("fp32 kernels", "fp32"), ("bf16 kernels", "fp32"), ("bf16 kernels", "fp32 kernels")]


def specification(seed: int, tokens: int, corpus: Corpus) -> RunSpec:
    steps = tokens // BATCH
    return RunSpec(
        shape=shape_for(2e5, vocabulary=VOCABULARY, context=CONTEXT),
        tokens=steps * BATCH,
        global_batch_tokens=BATCH,
        optimizer=OptimizerSpec(learning_rate=RATE),
        schedule=ScheduleSpec(warmup_tokens=steps // 10 * BATCH, cooldown_tokens=steps // 5 * BATCH),
        seed=seed,
        data_key=corpus.manifest.data_key,
        tokenizer_key=corpus.manifest.tokenizer_key,
        held_out_tokens=65_536,
    )


def equivalence(one: list[float], other: list[float]) -> dict[str, Any]:
    """Mean difference in per cent of the loss, its interval, and the larger p value of the two one-sided tests."""
    difference = 100 * (np.array(one) - np.array(other)) / np.mean(other)
    mean, error = difference.mean(), difference.std(ddof=1) / len(difference) ** 0.5
    half = student.ppf((1 + LEVEL) / 2, len(difference) - 1) * error
    outside = (100 * MARGIN - abs(mean)) / error
    return {
        "mean_difference_percent": mean,
        "interval_percent": [mean - half, mean + half],
        "spread_percent": difference.std(ddof=1),
        "p": float(student.sf(outside, len(difference) - 1)),
        "equivalent": bool(abs(mean) + half < 100 * MARGIN),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--tokens", type=float, default=1e6)
    parser.add_argument("--corpora", type=Path, default=Path(tempfile.gettempdir()) / "lossfrontier-corpora")
    arguments = parser.parse_args()
    corpus = prepare("starter", vocabulary=VOCABULARY, held_out=0.05, into=arguments.corpora)
    spec = specification(0, int(arguments.tokens), corpus)
    found: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if found.get("tokens") != spec.tokens:
        found = {"tokens": spec.tokens, "losses": {}}
    for seed in range(arguments.seeds):
        for way, numerics in WAYS.items():
            losses = found["losses"].setdefault(way, {})
            if str(seed) in losses:
                continue
            with tempfile.TemporaryDirectory() as folder:
                result = train(
                    specification(seed, int(arguments.tokens), corpus), corpus, numerics, directory=Path(folder),
                    tracker=NullTracker(), should_stop=lambda: False, evaluations=0, checkpoint_seconds=1e9,
                )  # fmt: skip
            losses[str(seed)] = result.loss_nats
            print(f"seed {seed} {way}: {result.loss_nats:.5f}", flush=True)
            write_whole(RESULTS, json.dumps(found, indent=1) + "\n")
    table = {way: [found["losses"][way][str(seed)] for seed in range(arguments.seeds)] for way in WAYS}
    found |= {
        "processor": processor_name(),
        "parameters": count_parameters(spec.shape).total,
        "margin_percent": 100 * MARGIN,
        "between_seeds_percent": float(100 * np.std(table["fp32"], ddof=1) / np.mean(table["fp32"])),
        "pairs": {f"{one} against {other}": equivalence(table[one], table[other]) for one, other in PAIRS},
    }
    write_whole(RESULTS, json.dumps(found, indent=1) + "\n")
    for name, result in found["pairs"].items():
        low, high = result["interval_percent"]
        verdict = "equivalent" if result["equivalent"] else "not shown to be equivalent"
        mean, p = result["mean_difference_percent"], result["p"]
        print(f"{name}: {mean:+.3f}% [{low:+.3f}, {high:+.3f}], p {p:.1g}: {verdict}")


if __name__ == "__main__":
    main()
