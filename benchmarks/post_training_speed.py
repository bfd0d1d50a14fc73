"""SFT and DPO as `scaling posttrain` does them, beside TRL's own scripts on the same model, rows and rates.

    python benchmarks/post_training_speed.py BASE [--examples 3000] [--pairs 600] [--repeats 3] [--threads 2]

BASE is a small model in the Hugging Face layout (`scaling export`). Both are processes started from nothing, one after
the other, `repeats` times in turn; the wall clock of each counts, start-up and all, and its held-out loss or margin
stands beside. TRL's scripts (`trl.scripts.sft`, `trl.scripts.dpo`) run with their defaults but for what must be
equal: rows, epochs, learning rate, schedule, examples a step. SFT packs here and pads there, so that ours takes rows
that hold on average as many examples a step.

Reference: not slower than TRL's scripts.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from trainer.posttrain.chat_template import Chat
from trainer.posttrain.examples import Example, Pair, split, write_rows
from trainer.posttrain.log_probs import answer_log_probs
from trainer.posttrain.policy import libraries, load_policy, load_tokenizer, quietly
from trainer.posttrain.sft import answer_loss, tokenise
from trainer.posttrain.tasks.sentences import Sentences
from trainer.system_facts import system_facts

TEMPLATE, RATE, ROWS_A_STEP, PAIRS_A_STEP, HELD_OUT = "plain", 1e-3, 16, 32, 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", type=Path)
    parser.add_argument("--examples", type=int, default=3000)
    parser.add_argument("--pairs", type=int, default=600)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "post_training_speed.json")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, quietly():
        found = measure(asked, Path(folder))
    asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


def measure(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    train, held_out = split(Sentences(count=asked.examples).examples(), HELD_OUT)
    pairs = [shuffled(row, i) for i, row in enumerate(train[: asked.pairs])]
    chat = Chat(load_tokenizer(asked.base), TEMPLATE)
    length = load_policy(asked.base).config.max_position_embeddings
    rows = tokenise(train, chat, length, print)
    packed = sum(len(row.prompt) + len(row.completion) for row in rows) / length
    examples_a_step = round(len(rows) / packed * ROWS_A_STEP)
    plain_rows(folder / "sft", [{"prompt": chat.prompt(r.prompt), "completion": r.completion} for r in train])
    plain_rows(
        folder / "dpo",
        [{"prompt": chat.prompt(p.prompt), "chosen": p.chosen, "rejected": p.rejected} for p in pairs],
    )
    write_rows([*train, *held_out], folder / "rows.jsonl")
    write_rows(pairs, folder / "pairs.jsonl")
    seconds: dict[str, list[float]] = {}
    quality: dict[str, float] = {}
    for repeat in range(asked.repeats):
        for kind in ("sft", "dpo"):
            for who in ("ours", "trl"):
                out = folder / f"{kind}-{who}-{repeat}"
                if who == "ours":
                    command = ours(kind, asked.base, folder, out)
                else:
                    batch = examples_a_step if kind == "sft" else PAIRS_A_STEP
                    command = theirs(kind, asked.base, folder, out, batch)
                began = time.monotonic()
                run(command, asked.threads, folder / f"{kind}-{who}-{repeat}.log")
                seconds.setdefault(f"{kind}_{who}", []).append(time.monotonic() - began)
                made = next(out.glob(f"posttrain/{kind}-*/model")) if who == "ours" else out
                quality[f"{kind}_{who}"] = (
                    answer_loss(
                        load_policy(made), tokenise(held_out, chat, length, print), chat.tokenizer.pad_token_id
                    )["loss_nats"]
                    if kind == "sft"
                    else margin(made, chat, [shuffled(row, i) for i, row in enumerate(held_out)][:200])
                )
                print(kind, who, f"{seconds[f'{kind}_{who}'][-1]:.1f} s", quality[f"{kind}_{who}"], flush=True)
    return {
        "machine": system_facts().model_dump(mode="json"),
        "libraries": libraries(),
        "examples": len(rows),
        "examples_a_step": examples_a_step,
        "pairs": len(pairs),
        "threads": asked.threads,
        "seconds": seconds,
        "held_out_loss_or_margin": quality,
        "trl_over_ours": {
            kind: statistics.median(t / o for t, o in zip(seconds[f"{kind}_trl"], seconds[f"{kind}_ours"], strict=True))
            for kind in ("sft", "dpo")
        },
    }


def shuffled(row: Example, seed: int) -> Pair:
    """The sentence against its words in disorder."""
    words = row.completion.split()
    random.Random(seed).shuffle(words)
    return Pair(prompt=row.prompt, chosen=row.completion, rejected=" ".join(words))


def margin(folder: Path, chat: Chat, pairs: list[Pair]) -> float:
    """Mean of ln π(chosen) − ln π(rejected), nats."""
    import torch

    model = load_policy(folder).eval()
    prompts = [chat.prompt_ids(pair.prompt) for pair in pairs]
    with torch.no_grad():
        chosen, rejected = (
            answer_log_probs(model, prompts, [chat.completion_ids(getattr(p, side)) for p in pairs])
            for side in ("chosen", "rejected")
        )
    return float((chosen - rejected).mean())


def plain_rows(folder: Path, rows: list[dict[str, str]]) -> None:
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def ours(kind: str, base: Path, folder: Path, out: Path) -> list[str]:
    common = {"learning_rate": RATE, "epochs": 1, "schedule": "cosine", "warmup": 0.1}
    asked: dict[str, Any] = {
        "name": kind,
        "base": str(base.resolve()),
        "chat_template": TEMPLATE,
        "task": {"kind": "rows", "data": {"file": str(folder / "rows.jsonl")}},
        # As main() splits them; ours looks at those held out before and after, which is in its time.
        "held_out": HELD_OUT,
        "sft": None,
        "track": {"mlflow": None},
    }
    if kind == "sft":
        asked["sft"] = common | {"batch": ROWS_A_STEP}
    else:
        asked |= {"pairs": {"file": str(folder / "pairs.jsonl")}, "dpo": common | {"batch": PAIRS_A_STEP, "beta": 0.1}}
    file = folder / f"{kind}.yaml"
    file.write_text(yaml.safe_dump(asked), encoding="utf-8")
    return [sys.executable, "-m", "scaling.cli.main", "posttrain", str(file), "-w", str(out), "--only", kind]


def theirs(kind: str, base: Path, folder: Path, out: Path, batch: int) -> list[str]:
    options = {
        "model_name_or_path": str(base),
        "dataset_name": str(folder / kind),
        "output_dir": str(out),
        "learning_rate": str(RATE),
        "num_train_epochs": "1",
        "per_device_train_batch_size": str(batch),
        "gradient_accumulation_steps": "1",
        "lr_scheduler_type": "cosine",
        "warmup_steps": "0.1",
        "report_to": "none",
        "use_cpu": "True",
        "bf16": "False",
        "max_length": "128",
        "gradient_checkpointing": "False",
    }
    if kind == "dpo":
        options["beta"] = "0.1"
    return [sys.executable, "-m", f"trl.scripts.{kind}", *(f"--{name}={value}" for name, value in options.items())]


def run(command: list[str], threads: int, log: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    with log.open("w") as file:
        done = subprocess.run(command, env=environment, stdout=file, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{log.read_text()[-3000:]}")


if __name__ == "__main__":
    main()
