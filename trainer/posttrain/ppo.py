"""Proximal policy optimisation of a language model against a reward, held near a reference (Ziegler et al. 1909.08593).

A step samples an answer to each of its prompts, scores them, and takes several epochs of clipped minibatch updates on
them. What is maximised is the mean over prompts of E[score] − β KL(π‖π_ref): the divergence is paid token by token
inside the reward (``advantages.py``), by a coefficient that is fixed, or held so that the KL stays where it is told
(``kl.py``).

The policy is sampled as it is, at temperature 1 with every token allowed, since importance ratios are of what was
sampled from. Dropout is off throughout, so that a ratio is 1 until a weight has moved.

Shapes: B answers of a step, T tokens of them, V vocabulary, N real tokens.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from scaling.errors import UserError
from scaling.record import Record, content_hash
from trainer.generate.sampling import Sampling
from trainer.loop.checkpoint import CheckpointFolder
from trainer.posttrain.advantages import generalised_advantages, token_rewards, whiten
from trainer.posttrain.answer_batch import AnswerBatch
from trainer.posttrain.kl import AdaptiveCoefficient, Estimator, exact_kl, k1, k3
from trainer.posttrain.log_probs import predict, token_entropy, token_log_probs
from trainer.posttrain.ppo_loss import clipped_share, policy_loss, value_loss
from trainer.posttrain.reward import Reward
from trainer.posttrain.sampling import check_context, sample, stop_tokens
from trainer.posttrain.value import ValueHead, ValueModel, explained_variance

__all__ = ["PPOResult", "PPORun", "PPOSettings", "train_ppo"]


class PPOSettings(Record):
    """Defaults are those that the field starts from; steps, tokens and learning rate depend on model and task."""

    steps: int = Field(ge=1, description="times that answers are sampled")
    answers_per_step: int = Field(default=64, ge=1)
    minibatch_answers: int = Field(default=16, ge=1, description="answers of one update of the weights")
    epochs: int = Field(default=4, ge=1, description="times that each answer is used")
    forward_answers: int | None = Field(
        default=None, ge=1, description="answers in one forward pass, for memory; None is a whole minibatch"
    )
    max_new_tokens: int = Field(ge=1, description="an answer without a stop token by then is truncated")
    truncated_reward: float | None = Field(
        default=None, allow_inf_nan=False, description="score of a truncated answer; None leaves it its own"
    )
    learning_rate: float = Field(gt=0, allow_inf_nan=False)
    value_learning_rate: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="of the value head or model; None is the policy's"
    )
    schedule: Literal["constant", "linear"] = Field(default="linear", description="linear falls to 0 over the steps")
    clip_ratio: float = Field(default=0.2, gt=0, lt=1)
    clip_value: float | None = Field(default=0.2, gt=0, description="in units of the score; None does not clip")
    value_coefficient: float = Field(default=0.1, ge=0)
    entropy_coefficient: float = Field(default=0.0, ge=0, description="reward of a nat of a token's entropy")
    discount: float = Field(default=1.0, gt=0, le=1)
    gae_lambda: float = Field(default=0.95, ge=0, le=1)
    whiten_advantages: bool = True
    kl_coefficient: float = Field(ge=0, allow_inf_nan=False, description="at first; β, units of the score a nat")
    kl_control: AdaptiveCoefficient | None = Field(default=None, description="None keeps the coefficient as it is")
    kl_estimator: Estimator = Field(default="k1", description="of the KL that is reported and controlled")
    approx_kl_limit: float | None = Field(
        default=None, gt=0, description="nats a token from the old policy at which a step's updates end early"
    )
    gradient_clip: float = Field(default=1.0, gt=0, description="largest norm of all gradients together")
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _minibatches_fit(self) -> PPOSettings:
        if self.answers_per_step % self.minibatch_answers:
            raise ValueError(
                f"answers_per_step {self.answers_per_step} is no multiple of minibatch_answers {self.minibatch_answers}"
            )
        if self.kl_control is not None and self.kl_coefficient == 0:
            raise ValueError("kl_coefficient 0 can't be adapted, since it is changed by factors: give one above 0")
        return self

    def learning_rate_share(self, step: int) -> float:
        return 1.0 if self.schedule == "constant" else 1 - step / self.steps


class PPOResult(Record):
    status: Literal["finished", "interrupted"]
    rows: tuple[dict[str, float], ...]
    """Of each step so far, ``step`` from 1 and the means over its answers, before the weights moved: ``score`` of the
    reward; ``reward`` that was optimised (``truncated_reward`` in its place, the KL paid); ``kl`` in nats of an answer
    and the ``kl_coefficient`` it was paid at; ``entropy`` in nats of a token; ``answer_tokens``; ``truncated_share``;
    ``value_explained_variance``. Over its updates: ``policy_loss``, ``value_loss``, ``clip_share`` of tokens,
    ``approx_kl`` in nats of a token, ``gradient_norm`` before clipping, ``updates`` taken, ``learning_rate``."""


@dataclass(frozen=True)
class _Rollout:
    """A step's answers and all that is known of them before the weights move. Padding is 0."""

    batch: AnswerBatch
    mask_BT: Tensor
    log_probs_BT: Tensor
    values_BT: Tensor
    advantages_BT: Tensor
    returns_BT: Tensor
    facts: dict[str, float]


def train_ppo(
    policy: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    reward: Reward,
    settings: PPOSettings,
    folder: Path,
    *,
    reference: nn.Module | None = None,
    value_model: Any = None,
    columns: Mapping[str, Sequence[Any]] | None = None,
    log: Callable[[int, Mapping[str, float]], None],
    note: Callable[[str], None],
    should_stop: Callable[[], bool] = lambda: False,
    checkpoint_seconds: float = 60.0,
) -> PPOResult:
    """Train ``policy``, in place, to its end or until ``should_stop`` is true between two steps.

    Checkpoints go to ``folder``. With what stood at the beginning (policy, reward, settings) a later call goes on from
    the last one, and whether it was stopped, killed or neither, the end is the same to the bit on one machine.

    policy: a transformers causal model or a peft model around one; what requires a gradient is trained.
    prompts: as the policy is to read them, special tokens and all; each step takes the next of them, shuffled anew
    every time through. columns: what else the reward is given of each prompt.
    reference: None is the policy as it comes, or for a peft model the one below its adapters.
    value_model: a sequence classifier of one label that is trained beside the policy, such as a copy of the reward
    model; None is a head on the policy's last hidden state.
    log: told of each step, from 1. note: told in a line of a damaged checkpoint.

    Raises :class:`UserError` for prompts that don't fit, rewards that are not finite, and a folder of another run.
    """
    run = PPORun(policy, tokenizer, prompts, reward, settings, reference, value_model, columns or {})
    checkpoints = CheckpointFolder(folder, note)
    if (saved := checkpoints.newest(str(run.device))) is not None:
        run.restore(saved, folder)
    last_saved = time.monotonic()
    while run.step < settings.steps:
        if should_stop():
            checkpoints.save(run.step, run.dump())
            return PPOResult(status="interrupted", rows=tuple(run.rows))
        row = run.take_step()
        log(run.step, row)
        if time.monotonic() - last_saved >= checkpoint_seconds and run.step < settings.steps:
            checkpoints.save(run.step, run.dump())
            last_saved = time.monotonic()
    if checkpoints.newest_step() < run.step:
        checkpoints.save(run.step, run.dump())
    return PPOResult(status="finished", rows=tuple(run.rows))


class PPORun:
    """What is carried from one step to the next, and the step itself; :func:`train_ppo` takes it to its end."""

    def __init__(
        self,
        policy: Any,
        tokenizer: Any,
        prompts: Sequence[str],
        reward: Reward,
        settings: PPOSettings,
        reference: nn.Module | None,
        value_model: Any,
        columns: Mapping[str, Sequence[Any]],
    ) -> None:
        _check_columns(prompts, columns)
        self.policy, self.tokenizer, self.reward, self.settings = policy, tokenizer, reward, settings
        self.prompts, self.columns = prompts, columns
        self.prompt_ids: list[list[int]] = tokenizer(list(prompts), add_special_tokens=False)["input_ids"]
        check_context(policy, self.prompt_ids, settings.max_new_tokens)
        self.stop = stop_tokens(policy, tokenizer)
        self.device = next(policy.parameters()).device
        policy.eval()
        self.reference = reference
        if reference is None and not _has_adapters(policy):
            self.reference = copy.deepcopy(policy)
        if self.reference is not None:
            self.reference.requires_grad_(False).eval()
        self.value: ValueHead | ValueModel
        if value_model is None:
            self.value = ValueHead(policy.config.get_text_config().hidden_size).to(self.device)
        else:
            self.value = ValueModel(value_model).to(self.device).eval()
        self.trained = {name: weight for name, weight in policy.named_parameters() if weight.requires_grad}
        if not self.trained:
            raise UserError("the policy has no weight that requires a gradient: give one that can be trained")
        value_rate = settings.value_learning_rate or settings.learning_rate
        self.optimizer = torch.optim.AdamW(
            [
                {"params": list(self.trained.values()), "peak": settings.learning_rate},
                {"params": [p for p in self.value.parameters() if p.requires_grad], "peak": value_rate},
            ],
            betas=(0.9, 0.95),
            weight_decay=0.0,
            fused=True,
        )
        self.step, self.kl_coefficient = 0, settings.kl_coefficient
        self.rows: list[dict[str, float]] = []
        self.key = content_hash(
            {
                "settings": settings.model_dump(mode="json"),
                "prompts": self.prompt_ids,
                "weights": _fingerprint(policy, self.reference, self.value),
            }
        )

    # Checkpoints

    def dump(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "step": self.step,
            "kl_coefficient": self.kl_coefficient,
            "policy": {name: weight.detach() for name, weight in self.trained.items()},
            "value": self.value.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rows": json.dumps(self.rows),
        }

    def restore(self, saved: dict[str, Any], folder: Path) -> None:
        if saved["key"] != self.key:
            raise UserError(
                f"{folder} holds PPO from other weights, prompts or settings: give another folder, or remove this one"
            )
        with torch.no_grad():
            for name, weight in self.trained.items():
                weight.copy_(saved["policy"][name])
        self.value.load_state_dict(saved["value"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.step, self.kl_coefficient = saved["step"], saved["kl_coefficient"]
        self.rows = json.loads(saved["rows"])

    # A step

    def take_step(self) -> dict[str, float]:
        rollout = self.roll_out()
        row = {"step": float(self.step + 1)} | rollout.facts | self.update(rollout)
        if (control := self.settings.kl_control) is not None:
            self.kl_coefficient = control.next(self.kl_coefficient, row["kl"], self.settings.answers_per_step)
        self.step += 1
        self.rows.append(row)
        return row

    def generator(self, purpose: int) -> torch.Generator:
        """Random numbers of this step alone, so that none need to be carried on."""
        state = np.random.SeedSequence([self.settings.seed, self.step, purpose]).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(state[0]))

    def prompt_rows(self) -> list[int]:
        """Of this step: the next in a sequence of shuffles of all prompts."""
        count, wanted = len(self.prompts), self.settings.answers_per_step
        first = self.step * wanted
        found: list[int] = []
        for epoch in range(first // count, (first + wanted - 1) // count + 1):
            shuffled = np.random.default_rng([self.settings.seed, epoch]).permutation(count)
            found += shuffled[max(0, first - epoch * count) : first + wanted - epoch * count].tolist()
        return found

    @torch.no_grad()
    def roll_out(self) -> _Rollout:
        """Answers, their scores and advantages."""
        settings = self.settings
        rows = self.prompt_rows()
        prompt_ids = [self.prompt_ids[row] for row in rows]
        answers = sample(
            self.policy,
            prompt_ids,
            Sampling(),
            max_new_tokens=settings.max_new_tokens,
            stop=self.stop,
            generator=self.generator(0),
        )
        completions = answers.completions()
        scores_B = self.scores(rows, completions)
        batch = AnswerBatch.of(prompt_ids, completions).to(self.device)
        mask_BT = batch.completion_mask_BT
        log_probs_BT, values_BT, log_ratios_BT, kl_BT, entropy_BT = (
            torch.zeros(mask_BT.shape, device=self.device) for _ in range(5)
        )
        for index_R in self.passes(torch.arange(len(batch))):
            part = batch.rows(index_R.to(self.device))
            at = (index_R, slice(0, part.completion_tokens_BT.shape[1]))
            real = part.completion_mask_BT
            predictions = predict(self.policy, part, hidden=isinstance(self.value, ValueHead))
            with self.as_reference() as model:
                reference_BTV = predict(model, part).logits_BTV
            log_probs = token_log_probs(predictions.logits_BTV, part.completion_tokens_BT)
            log_ratios = log_probs - token_log_probs(reference_BTV, part.completion_tokens_BT)
            kl = {"k1": k1, "k3": k3}.get(settings.kl_estimator)
            log_probs_BT[at] = log_probs.where(real, 0)
            log_ratios_BT[at] = log_ratios.where(real, 0)
            kl_BT[at] = (kl(log_ratios) if kl else exact_kl(predictions.logits_BTV, reference_BTV)).where(real, 0)
            entropy_BT[at] = token_entropy(predictions.logits_BTV).where(real, 0)
            values_BT[at] = self.value.values(part, predictions.hidden_BTW).where(real, 0)

        truncated_B = answers.truncated_B.to(self.device)
        paid_B = scores_B
        if settings.truncated_reward is not None:
            paid_B = scores_B.masked_fill(truncated_B, settings.truncated_reward)
        rewards_BT = token_rewards(paid_B, log_ratios_BT, mask_BT, self.kl_coefficient)
        advantages_BT, returns_BT = generalised_advantages(
            rewards_BT, values_BT, mask_BT, discount=settings.discount, gae_lambda=settings.gae_lambda
        )
        facts: dict[str, Any] = {
            "score": scores_B.mean(),
            "reward": rewards_BT.sum(1).mean(),
            "kl": kl_BT.sum(1).mean(),
            "kl_coefficient": self.kl_coefficient,
            "entropy": entropy_BT[mask_BT].mean(),
            "answer_tokens": mask_BT.sum(1).float().mean(),
            "truncated_share": truncated_B.float().mean(),
            "value_explained_variance": explained_variance(returns_BT[mask_BT], values_BT[mask_BT]),
        }
        return _Rollout(
            batch=batch,
            mask_BT=mask_BT,
            log_probs_BT=log_probs_BT,
            values_BT=values_BT,
            advantages_BT=whiten(advantages_BT, mask_BT) if settings.whiten_advantages else advantages_BT,
            returns_BT=returns_BT,
            facts={name: float(value) for name, value in facts.items()},
        )

    def scores(self, rows: Sequence[int], completions: Sequence[list[int]]) -> Tensor:
        texts = self.tokenizer.batch_decode(completions, skip_special_tokens=True)
        scores = self.reward(
            prompts=[self.prompts[row] for row in rows],
            completions=texts,
            completion_ids=completions,
            **{name: [column[row] for row in rows] for name, column in self.columns.items()},
        )
        if len(scores) != len(texts):
            raise UserError(
                f"the reward gave {len(scores)} scores for {len(texts)} answers: it is to give one for each"
            )
        for score, text in zip(scores, texts, strict=True):
            if not math.isfinite(score):
                raise UserError(f"the reward gave {score} for the answer {text[:80]!r}: scores are to be finite")
        return torch.tensor(scores, dtype=torch.float32, device=self.device)

    def update(self, rollout: _Rollout) -> dict[str, float]:
        """Epochs of minibatches; means over the updates."""
        settings = self.settings
        share = settings.learning_rate_share(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * share
        parameters = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        generator, updates = self.generator(1), list[dict[str, float]]()
        for index_R in self.minibatches(generator):
            found = self.accumulate(rollout, index_R)
            if settings.approx_kl_limit is not None and found["approx_kl"] > settings.approx_kl_limit and updates:
                break
            norm = nn.utils.clip_grad_norm_(parameters, settings.gradient_clip)
            if not torch.isfinite(norm):
                raise FloatingPointError(f"step {self.step + 1}: the gradient's norm is {float(norm)}")
            self.optimizer.step()
            updates.append(found | {"gradient_norm": float(norm)})
        self.optimizer.zero_grad(set_to_none=True)
        means = {name: float(np.mean([update[name] for update in updates])) for name in updates[0]}
        return means | {"updates": float(len(updates)), "learning_rate": settings.learning_rate * share}

    def minibatches(self, generator: torch.Generator) -> Iterator[Tensor]:
        for _ in range(self.settings.epochs):
            shuffled_B = torch.randperm(self.settings.answers_per_step, generator=generator)
            yield from torch.split(shuffled_B, self.settings.minibatch_answers)

    def passes(self, index_R: Tensor) -> tuple[Tensor, ...]:
        return torch.split(index_R, self.settings.forward_answers or self.settings.minibatch_answers)

    def accumulate(self, rollout: _Rollout, minibatch_R: Tensor) -> dict[str, float]:
        """The gradient of a minibatch's loss, the mean over its tokens."""
        settings = self.settings
        tokens = rollout.mask_BT[minibatch_R.to(self.device)].sum()
        self.optimizer.zero_grad(set_to_none=True)
        totals = dict.fromkeys(("policy_loss", "value_loss", "clip_share", "approx_kl"), 0.0)
        for index in self.passes(minibatch_R):
            index_R = index.to(self.device)
            part = rollout.batch.rows(index_R)
            mask_RT = part.completion_mask_BT
            old, old_values, advantages, returns = (
                x_BT[index_R, : mask_RT.shape[1]]
                for x_BT in (rollout.log_probs_BT, rollout.values_BT, rollout.advantages_BT, rollout.returns_BT)
            )
            predictions = predict(self.policy, part, hidden=isinstance(self.value, ValueHead))
            values = self.value.values(part, predictions.hidden_BTW)
            log_ratios = (token_log_probs(predictions.logits_BTV, part.completion_tokens_BT) - old).where(mask_RT, 0)
            of_policy = policy_loss(log_ratios, advantages, mask_RT, settings.clip_ratio)
            of_value = value_loss(values, old_values, returns, mask_RT, settings.clip_value)
            loss = of_policy + settings.value_coefficient * of_value
            if settings.entropy_coefficient:
                loss = loss - settings.entropy_coefficient * token_entropy(predictions.logits_BTV)[mask_RT].sum()
            torch.autograd.backward(loss / tokens)
            with torch.no_grad():
                cut = clipped_share(log_ratios, advantages, mask_RT, settings.clip_ratio) * mask_RT.sum()
                # The samples are the old policy's, so its ratio to the new one is the one that k3 takes.
                moved = k3(-log_ratios)[mask_RT].sum()
                for name, total in zip(totals, (of_policy, of_value, cut, moved), strict=True):
                    totals[name] += float(total / tokens)
        return totals

    @contextlib.contextmanager
    def as_reference(self) -> Iterator[nn.Module]:
        if self.reference is not None:
            yield self.reference
        else:
            with self.policy.disable_adapter():
                yield self.policy


def _has_adapters(policy: Any) -> bool:
    return hasattr(policy, "disable_adapter")


def _check_columns(prompts: Sequence[str], columns: Mapping[str, Sequence[Any]]) -> None:
    if not prompts:
        raise UserError("there are no prompts: give one or more")
    for name, column in columns.items():
        if len(column) != len(prompts):
            raise UserError(f"column {name} has {len(column)} rows for {len(prompts)} prompts: give one for each")


def _fingerprint(*modules: nn.Module | None) -> str:
    """SHA-256 of all weights, those that are not trained too."""
    digest = hashlib.sha256()
    for module in modules:
        for name, weight in module.named_parameters() if module is not None else ():
            digest.update(name.encode())
            digest.update(weight.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
