"""A run as torchtitan 0.3.0 trains it: ``--module torchtitan_run --config recommended``.

torchtitan's Llama is ours: RMSNorm, rotary positions (pairs of neighbours in place of halves, which only orders the
rows of queries and keys otherwise), SwiGLU, no biases. Initial weights, decay by role and the learning rate are those
of our trainer, and so are the tokens and their order where CORPUS is given. What differs:

- a step's rate is that of its batch's end in the warm-up and of its beginning in the cooldown, ours that of its middle;
- weights are drawn by torchtitan, so the same seed gives other numbers of the same distribution;
- matrix products are rounded to bf16 as FSDP casts them, and attention is flex attention's;
- the held-out loss is not measured: convert the last checkpoint to Hugging Face's layout, or validate by torchtitan.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchtitan.components.checkpoint import CheckpointManager
from torchtitan.components.dataloader import BaseDataLoader
from torchtitan.components.loss import ChunkedLossWrapper, CrossEntropyLoss
from torchtitan.components.optimizer import LRSchedulersContainer, OptimizersContainer, ParamGroupConfig
from torchtitan.config import ParallelismConfig, TrainingConfig
from torchtitan.config.configs import DebugConfig
from torchtitan.distributed.activation_checkpoint import ActivationCheckpointing, FullAC, SelectiveAC
from torchtitan.distributed.pipeline_parallel import pipeline_llm
from torchtitan.hf_datasets.text_datasets import HuggingFaceTextDataLoader
from torchtitan.models.common import ComplexRoPE, Embedding, Linear, RMSNorm
from torchtitan.models.common.config_utils import get_attention_config, make_gqa_config
from torchtitan.models.common.feed_forward import FeedForward
from torchtitan.models.common.param_init import skip_param_init
from torchtitan.models.llama3.model import Llama3Model, Llama3TransformerBlock
from torchtitan.models.llama3.parallelize import parallelize_llama
from torchtitan.models.llama3.state_dict_adapter import Llama3StateDictAdapter
from torchtitan.protocols.model_spec import ModelSpec
from torchtitan.trainer import Trainer

# The run
NAME = "example"
LAYERS, WIDTH, HEADS, KV_HEADS, FFN_WIDTH = 2, 64, 4, 2, 128
VOCABULARY, CONTEXT, TIED = 256, 64, True
ROTARY_BASE, NORM_EPS = 10000.0, 1e-05
STEPS, SEQUENCES = 100, 8
LEARNING_RATE, BETAS, EPS, WEIGHT_DECAY, GRADIENT_CLIP = 0.001, (0.9, 0.95), 1e-08, 0.1, 1.0
WARMUP_STEPS, COOLDOWN_STEPS, COOLDOWN_SHAPE, FLOOR = 10, 20, "sqrt", 0.0
SEED = 0
TENSOR, PIPELINE, CONTEXT_PARALLEL, MICRO_BATCH, LOCAL_BATCH = 1, 1, 1, 8, 8
PIPELINE_SCHEDULE, LAYERS_A_PIECE, RECOMPUTE, RESHARD = "1F1B", None, "selective", "default"
CORPUS: str | None = None
# End of the run

ASSETS = str(Path(__file__).with_name("assets"))
CHECKPOINT_STEPS = 500
LOSS_CHUNKS = 8


class CorpusWindows(BaseDataLoader):  # type: ignore[misc]
    """The windows of each step that our trainer would see, a micro-batch at a time; plain causal attention over each.

    Needs the package ``trainer`` in torchtitan's environment (``pip install --no-deps lossfrontier``).
    """

    @dataclass(kw_only=True, slots=True)
    class Config(BaseDataLoader.Config):  # type: ignore[misc]
        pass

    def __init__(
        self,
        config: Config,
        *,
        dp_world_size: int,
        dp_rank: int,
        seq_len: int,
        local_batch_size: int,
        **_: Any,
    ) -> None:
        from trainer.data.order import BatchOrder
        from trainer.data.shards import Corpus

        assert config.dataset_path is not None, "recommended() sets it to the corpus"
        self._tokens = Corpus(Path(config.dataset_path)).tokens("train")
        self._order = BatchOrder(len(self._tokens), seq_len, SEQUENCES, SEED)
        self._rows = SEQUENCES // dp_world_size
        self._first, self._at_once = dp_rank * self._rows, local_batch_size
        self._step = self._done = 0

    def __iter__(self) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        while True:
            x_BT, y_BT = (torch.from_numpy(a) for a in self._order.batch(self._tokens, self._step))
            rows = slice(self._first + self._done, self._first + self._done + self._at_once)
            # Counted before it is handed over: torchtitan saves between two batches.
            self._done += self._at_once
            if self._done == self._rows:
                self._step, self._done = self._step + 1, 0
            x_bT = x_BT[rows]
            positions_bT = torch.arange(x_bT.shape[1]).expand_as(x_bT).contiguous()
            yield {"input": x_bT, "positions": positions_bT}, y_BT[rows]

    def state_dict(self) -> dict[str, Any]:
        return {"step": self._step, "done": self._done}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict:
            self._step, self._done = state_dict["step"], state_dict["done"]


def _normal(deviation: float) -> dict[str, Callable[..., Any]]:
    return {"weight": partial(nn.init.normal_, std=deviation)}


def _linear(fan_in: int, out: int, deviation: float) -> Linear.Config:
    return Linear.Config(in_features=fan_in, out_features=out, param_init=_normal(deviation))


def _norm() -> RMSNorm.Config:
    return RMSNorm.Config(normalized_shape=WIDTH, eps=NORM_EPS, param_init={"weight": nn.init.ones_})


def _layer() -> Llama3TransformerBlock.Config:
    """Deviations are 1/sqrt(fan-in), and smaller by sqrt(2 layers) in what writes into the residual stream."""
    residual = 1 / math.sqrt(2 * LAYERS)
    return Llama3TransformerBlock.Config(
        attention_norm=_norm(),
        ffn_norm=_norm(),
        attention=make_gqa_config(
            dim=WIDTH,
            n_heads=HEADS,
            n_kv_heads=KV_HEADS,
            wqkv_param_init=_normal(WIDTH**-0.5),
            wo_param_init=_normal(residual * WIDTH**-0.5),
            inner_attention=get_attention_config("flex"),
            fuse_qkv=True,
            rope=ComplexRoPE.Config(dim=WIDTH // HEADS, max_seq_len=CONTEXT, theta=ROTARY_BASE, scaling="none"),
        ),
        feed_forward=FeedForward.Config(
            w1=_linear(WIDTH, FFN_WIDTH, WIDTH**-0.5),
            w2=_linear(FFN_WIDTH, WIDTH, residual * FFN_WIDTH**-0.5),
            w3=_linear(WIDTH, FFN_WIDTH, WIDTH**-0.5),
        ),
    )


def _model() -> ModelSpec:
    embedding: dict[str, Callable[..., Any]] = {"weight": skip_param_init} if TIED else _normal(WIDTH**-0.5)
    return ModelSpec(
        name="llama3",
        flavor=NAME,
        model=Llama3Model.Config(
            dim=WIDTH,
            vocab_size=VOCABULARY,
            enable_weight_tying=TIED,
            tok_embeddings=Embedding.Config(num_embeddings=VOCABULARY, embedding_dim=WIDTH, param_init=embedding),
            norm=_norm(),
            lm_head=_linear(WIDTH, VOCABULARY, WIDTH**-0.5),
            layers=[_layer() for _ in range(LAYERS)],
        ),
        parallelize_fn=parallelize_llama,
        pipelining_fn=pipeline_llm,
        post_optimizer_build_fn=None,
        state_dict_adapter=Llama3StateDictAdapter,
    )


def _optimizer() -> OptimizersContainer.Config:
    """Embedding and norms are not decayed; the embedding is the head too where they are tied."""
    adamw = {"lr": LEARNING_RATE, "betas": BETAS, "eps": EPS}
    return OptimizersContainer.Config(
        param_groups=[
            ParamGroupConfig(pattern=pattern, optimizer_name="AdamW", optimizer_kwargs={**adamw, "weight_decay": decay})
            for pattern, decay in ((r"tok_embeddings|norm", 0.0), (r".*", WEIGHT_DECAY))
        ]
    )


def _recomputed() -> ActivationCheckpointing.Config | None:
    """What the backward pass computes again: nothing, each layer, or what torchtitan selects."""
    return {"none": None, "full": FullAC.Config(), "selective": SelectiveAC.Config()}[RECOMPUTE]


def recommended() -> Trainer.Config:
    return Trainer.Config(
        model_spec=_model(),
        hf_assets_path=ASSETS,
        loss=ChunkedLossWrapper.Config(
            # The part of a sequence that a rank holds is cut into as many chunks as divide it.
            num_chunks=math.gcd(LOSS_CHUNKS, CONTEXT // CONTEXT_PARALLEL),
            loss_fn=CrossEntropyLoss.Config(global_vocab_size=VOCABULARY),
        ),
        optimizer=_optimizer(),
        lr_scheduler=LRSchedulersContainer.Config(
            warmup_steps=WARMUP_STEPS,
            decay_ratio=None if COOLDOWN_SHAPE == "cosine" else COOLDOWN_STEPS / STEPS,
            decay_type=COOLDOWN_SHAPE,
            min_lr_factor=FLOOR,
        ),
        training=TrainingConfig(
            local_batch_size=LOCAL_BATCH,
            global_batch_size=SEQUENCES,
            seq_len=CONTEXT,
            max_norm=GRADIENT_CLIP,
            steps=STEPS,
            disable_cuda_graphs=PIPELINE > 1,  # torchtitan has no graphs of a pipeline yet
        ),
        parallelism=ParallelismConfig(
            data_parallel_shard_degree=-1,  # all ranks that the others leave
            fsdp_reshard_after_forward=RESHARD,
            tensor_parallel_degree=TENSOR,
            pipeline_parallel_degree=PIPELINE,
            pipeline_parallel_microbatch_size=MICRO_BATCH,
            pipeline_parallel_schedule=PIPELINE_SCHEDULE,
            pipeline_parallel_layers_per_stage=LAYERS_A_PIECE,
            context_parallel_degree=CONTEXT_PARALLEL,
        ),
        dataloader=CorpusWindows.Config(dataset="corpus", dataset_path=CORPUS)
        if CORPUS
        else HuggingFaceTextDataLoader.Config(dataset="c4"),
        checkpoint=CheckpointManager.Config(
            enable=True, interval=CHECKPOINT_STEPS, keep_latest_k=2, last_save_model_only=False
        ),
        activation_checkpoint=_recomputed(),
        debug=DebugConfig(seed=SEED),
    )
