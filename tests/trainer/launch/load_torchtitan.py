"""Run where torchtitan is importable: load an export as torchtitan does, and print what came of it as JSON.

Arguments: the export's folder, weights in Hugging Face's layout and tokens (safetensors), where the logits go.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torchtitan.config import ConfigManager


def main(folder: Path, weights: Path, logits: Path) -> dict[str, Any]:
    sys.path.insert(0, str(folder))
    config = ConfigManager().parse_args(["--module", "torchtitan_run", "--config", "recommended"])
    spec, training = config.model_spec, config.training
    spec.model.update_from_config(config=config)
    with torch.device("meta"):
        model = spec.model.build()
    model.verify_module_protocol()
    params = sum(parameter.numel() for parameter in model.parameters())

    model.to_empty(device="cpu")
    with torch.no_grad():
        model.init_weights(buffer_device=None)
    deviations = {name: float(parameter.std()) for name, parameter in model.named_parameters() if parameter.ndim > 1}

    optimizers = config.optimizer.build(model_parts=[model])
    schedulers = config.lr_scheduler.build(optimizers=optimizers, training_steps=training.steps)
    groups = optimizers.optimizers[0].param_groups
    decays = {name: group["weight_decay"] for group in groups for name in group["param_names"]}
    rates = []
    for _ in range(training.steps):
        rates.append(groups[0]["lr"])
        optimizers.step()
        schedulers.step()

    given = load_file(weights)
    tokens_BT = given.pop("tokens")
    adapter = spec.state_dict_adapter(spec.model, config.hf_assets_path)
    missing = model.load_state_dict(adapter.from_hf(given), strict=False)
    positions_BT = torch.arange(tokens_BT.shape[1]).expand_as(tokens_BT).contiguous()
    # Flex attention has no backward pass on a CPU.
    with torch.no_grad():
        masks = model.get_attention_masks(positions_BT)
        save_file({"logits": model(tokens_BT, positions=positions_BT, attention_masks=masks).contiguous()}, str(logits))

    batches = []
    for rank in range(2):
        loader = config.dataloader.build(
            dp_world_size=2, dp_rank=rank, tokenizer=None, seq_len=training.seq_len, local_batch_size=2
        )
        rows = iter(loader)
        first = [next(rows) for _ in range(3)]
        later = config.dataloader.build(
            dp_world_size=2, dp_rank=rank, tokenizer=None, seq_len=training.seq_len, local_batch_size=2
        )
        later.load_state_dict(loader.state_dict())
        batches.append([[x["input"].tolist(), y.tolist()] for x, y in [*first, next(iter(later))]])
    tokenizer = config.tokenizer.build(tokenizer_path=config.hf_assets_path)
    parallelism = config.parallelism
    return {
        "params": params,
        "counted": spec.model.get_nparams_and_flops(model, training.seq_len)[0],
        "deviations": deviations,
        "decays": decays,
        "rates": rates,
        "missing": [*missing.missing_keys, *missing.unexpected_keys],
        "batches": batches,
        "tokenizer": tokenizer.get_vocab_size(),
        "batch": [training.local_batch_size, training.global_batch_size, training.steps, training.max_norm],
        "degrees": [
            parallelism.tensor_parallel_degree,
            parallelism.pipeline_parallel_degree,
            parallelism.context_parallel_degree,
        ],
        "seed": config.debug.seed,
        "pipeline": [parallelism.pipeline_parallel_schedule, parallelism.pipeline_parallel_layers_per_stage],
        "reshard": parallelism.fsdp_reshard_after_forward,
        "recompute": config.activation_checkpoint and type(config.activation_checkpoint).__qualname__,
    }


if __name__ == "__main__":
    print(json.dumps(main(*map(Path, sys.argv[1:]))))
