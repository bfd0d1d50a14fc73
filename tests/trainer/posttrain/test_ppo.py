"""PPO reaches the optimum that is known, by gradients that are known, and holds the KL where it is told."""

from __future__ import annotations

import copy
import itertools
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from scaling.errors import UserError
from trainer.posttrain.kl import AdaptiveCoefficient
from trainer.posttrain.log_probs import answer_log_probs
from trainer.posttrain.ppo import PPOResult, PPORun, PPOSettings, train_ppo

from .conftest import WORDS

ASK = WORDS.index("ask")
PEFT = "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"
"""peft asks transformers by a name that is going."""
SETTINGS = PPOSettings(
    steps=3,
    answers_per_step=16,
    minibatch_answers=8,
    epochs=2,
    max_new_tokens=3,
    learning_rate=3e-3,
    kl_coefficient=0.2,
)


class Table:
    """A reward that knows every answer of at most ``longest`` tokens, and which one of them is best for a policy."""

    def __init__(self, longest: int, tokenizer: Any) -> None:
        words = range(1, len(WORDS))
        self.answers = [[*y, 0] for n in range(longest) for y in itertools.product(words, repeat=n)]
        self.answers += [list(y) for y in itertools.product(words, repeat=longest)]
        texts = tokenizer.batch_decode(self.answers, skip_special_tokens=True)
        scores = torch.randn(len(texts), generator=torch.Generator().manual_seed(5), dtype=torch.float64)
        self.scores_Y = scores
        self._score = dict(zip(texts, scores.tolist(), strict=True))
        assert len(self._score) == len(self.answers)

    def __call__(self, *, prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float]:
        return [self._score[completion] for completion in completions]

    def log_policy(self, model: Any) -> Tensor:
        """log π of each answer to ``ask``."""
        with torch.no_grad():
            log_p_Y = answer_log_probs(model, [[ASK]] * len(self.answers), self.answers).double()
        assert float(log_p_Y.exp().sum()) == pytest.approx(1, abs=1e-4)
        return log_p_Y


def train(policy: Any, tokenizer: Any, reward: Any, settings: PPOSettings, folder: Path, **changes: Any) -> PPOResult:
    given: dict[str, Any] = {"log": lambda step, row: None, "note": pytest.fail} | changes
    return train_ppo(policy, tokenizer, given.pop("prompts", ["ask"]), reward, settings, folder, **given)


def letters(*, prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float]:
    """Likes an "a", and dislikes length."""
    return [text.count("a") - 0.3 * len(text.split()) for text in completions]


# The optimum


@pytest.mark.parametrize(
    ("longest", "changes", "distance", "missing"),
    [
        pytest.param(
            2, {"steps": 30, "answers_per_step": 128, "minibatch_answers": 64, "epochs": 4}, 0.06, 0.04, id="2 tokens"
        ),
        pytest.param(3, {}, 0.05, 0.035, id="3 tokens", marks=pytest.mark.slow),
        pytest.param(3, {"whiten_advantages": False}, 0.05, 0.04, id="3 tokens, unwhitened", marks=pytest.mark.slow),
    ],
)
def test_the_policy_becomes_the_optimum_of_reward_less_divergence(
    longest: int,
    changes: dict[str, Any],
    distance: float,
    missing: float,
    tiny_llama: Callable[..., Any],
    word_tokenizer: Any,
    tmp_path: Path,
) -> None:
    """π*(y) ∝ π_ref(y) exp(r(y)/β), whose objective is β ln Σ π_ref exp(r/β)."""
    table, beta, policy = Table(longest, word_tokenizer), 0.5, tiny_llama(layers=longest - 1)
    reference_Y, r_Y = table.log_policy(policy), table.scores_Y
    best_Y = torch.log_softmax(reference_Y + r_Y / beta, 0)
    best = beta * torch.logsumexp(reference_Y + r_Y / beta, 0)
    settings = {
        "steps": 150, "answers_per_step": 256, "minibatch_answers": 128, "epochs": 2, "max_new_tokens": longest,
        "learning_rate": 4e-3 if longest == 2 else 3e-3, "kl_coefficient": beta,
    } | changes  # fmt: skip
    train(policy, word_tokenizer, table, PPOSettings.model_validate(settings), tmp_path)
    found_Y = table.log_policy(policy)

    def total_variation(log_p_Y: Tensor) -> float:
        return float((log_p_Y.exp() - best_Y.exp()).abs().sum() / 2)

    objective = (found_Y.exp() * (r_Y - beta * (found_Y - reference_Y))).sum()
    start = (reference_Y.exp() * r_Y).sum()
    assert total_variation(reference_Y) > 0.4, "there is a way to go"
    assert total_variation(found_Y) < distance
    assert 0 <= float((best - objective) / (best - start)) < missing


@pytest.mark.parametrize(
    ("first", "target", "steps", "tolerance"),
    [
        pytest.param(1.5, 0.4, 50, 0.25, id="from above"),
        pytest.param(0.3, 0.4, 120, 0.15, id="from below", marks=pytest.mark.slow),
        pytest.param(2.0, 0.8, 120, 0.15, id="to another target", marks=pytest.mark.slow),
    ],
)
def test_the_controller_holds_the_divergence_where_it_is_told(
    first: float,
    target: float,
    steps: int,
    tolerance: float,
    tiny_llama: Callable[..., Any],
    word_tokenizer: Any,
    tmp_path: Path,
) -> None:
    settings = PPOSettings(
        steps=steps, answers_per_step=128, minibatch_answers=64, epochs=2, max_new_tokens=2, learning_rate=2e-3,
        schedule="constant", kl_coefficient=first, kl_estimator="exact",
        kl_control=AdaptiveCoefficient(target_nats=target, horizon_answers=400),
    )  # fmt: skip
    rows = train(tiny_llama(layers=1), word_tokenizer, Table(2, word_tokenizer), settings, tmp_path).rows
    held = [row["kl"] for row in rows[-(steps // 2) :]]
    assert np.mean(held) == pytest.approx(target, rel=tolerance)
    assert abs(math.log(rows[-1]["kl_coefficient"] / first)) > 0.3, "it had to move"


# The gradient


def plain_gradient(run: PPORun, old: Any, reference: Any, rollout: Any, chosen: Sequence[int]) -> dict[str, Tensor]:
    """The gradient of a minibatch's loss from the formulas: answer by answer, token by token, each pass unpadded.

    ``old`` is the policy that sampled, with the value head as it was then.
    """
    settings, table = run.settings, []
    for at in range(len(rollout.batch)):
        real = rollout.batch.mask_BS[at]
        prompt_length = int(real[: rollout.batch.prompt_columns].sum())
        ids = rollout.batch.tokens_BS[at][real].tolist()
        prompt, completion = ids[:prompt_length], ids[prompt_length:]
        text = run.tokenizer.decode(completion, skip_special_tokens=True)
        truncated = completion[-1] != 0
        score = run.settings.truncated_reward if truncated else letters(prompts=[""], completions=[text])[0]
        contexts = [torch.tensor([prompt + completion[:t]]) for t in range(len(completion))]

        def log_prob(model: Any, context: Tensor, token: int) -> Tensor:
            return torch.log_softmax(model(context).logits[0, -1], -1)[token]

        with torch.no_grad():
            old_logs = [float(log_prob(old[0], c, y)) for c, y in zip(contexts, completion, strict=True)]
            reference_logs = [float(log_prob(reference, c, y)) for c, y in zip(contexts, completion, strict=True)]
            old_values = [float(old[1].linear(old[0].model(c).last_hidden_state[0, -1])) for c in contexts]
        rewards = [-settings.kl_coefficient * (p - q) for p, q in zip(old_logs, reference_logs, strict=True)]
        rewards[-1] += score
        advantages, advantage = [], 0.0
        for t in reversed(range(len(completion))):
            following = old_values[t + 1] if t + 1 < len(completion) else 0.0
            delta = rewards[t] + settings.discount * following - old_values[t]
            advantage = delta + settings.discount * settings.gae_lambda * advantage
            advantages.insert(0, advantage)
        table.append((contexts, completion, old_logs, old_values, advantages))

    everything = [advantage for row in table for advantage in row[4]]
    mean, sd = np.mean(everything), np.std(everything)
    losses, run_policy = [], run.policy
    for at in chosen:
        for context, token, old_log, old_value, advantage in zip(*table[at], strict=True):
            output = run_policy(context, output_hidden_states=True)
            log_p_V = torch.log_softmax(output.logits[0, -1], -1)
            ratio = (log_p_V[token] - old_log).exp()
            white = (advantage - mean) / sd
            gain = min(ratio * white, ratio.clamp(1 - settings.clip_ratio, 1 + settings.clip_ratio) * white)
            value = run.value.linear(output.hidden_states[-1][0, -1])[0]
            target, clip = advantage + old_value, settings.clip_value
            clipped = old_value + (value - old_value).clamp(-clip, clip)
            of_value = max((value - target) ** 2, (clipped - target) ** 2) / 2
            entropy = -(log_p_V.exp() * log_p_V).sum()
            losses.append(-gain + settings.value_coefficient * of_value - settings.entropy_coefficient * entropy)
    run.optimizer.zero_grad()
    torch.stack(losses).mean().backward()
    return gradients(run)


def gradients(run: PPORun) -> dict[str, Tensor]:
    both = itertools.chain(run.policy.named_parameters(), run.value.named_parameters())
    return {name: weight.grad.clone() for name, weight in both}


@pytest.mark.parametrize("forward_answers", [None, 3])
def test_gradients_are_those_of_the_formulas_token_by_token(
    forward_answers: int | None, tiny_llama: Callable[..., Any], word_tokenizer: Any
) -> None:
    settings = SETTINGS.model_copy(
        update={
            "max_new_tokens": 5, "entropy_coefficient": 0.05, "truncated_reward": -0.7, "discount": 0.97,
            "clip_value": 0.1, "forward_answers": forward_answers, "value_coefficient": 0.5,
        }
    )  # fmt: skip
    policy, reference = tiny_llama(), tiny_llama(seed=1)
    prompts = ["ask", "ask a b", "c ask"]
    run = PPORun(policy, word_tokenizer, prompts, letters, settings, reference, None, {})
    generator = torch.Generator().manual_seed(0)

    def move(by: float) -> None:
        with torch.no_grad():
            for weight in itertools.chain(policy.parameters(), run.value.parameters()):
                weight += by * torch.randn(weight.shape, generator=generator)

    move(0.05)
    rollout = run.roll_out()
    old = (copy.deepcopy(policy), copy.deepcopy(run.value))
    # So that some ratios and values are beyond their clips.
    move(0.03)
    chosen = torch.tensor([3, 0, 9, 14, 7, 12, 1, 5])
    facts = run.accumulate(rollout, chosen)
    found = gradients(run)
    wanted = plain_gradient(run, old, reference, rollout, chosen.tolist())
    assert 0.1 < facts["clip_share"] < 0.9 and 0.1 < rollout.facts["truncated_share"] < 0.9
    assert len(set(rollout.mask_BT.sum(1).tolist())) > 2
    for name, gradient in wanted.items():
        assert gradient.abs().max() > 1e-3, name
        torch.testing.assert_close(found[name], gradient, atol=2e-5, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}")


def test_the_first_update_sees_a_ratio_of_1(tiny_llama: Callable[..., Any], word_tokenizer: Any) -> None:
    run = PPORun(tiny_llama(), word_tokenizer, ["ask", "ask a b"], letters, SETTINGS, None, None, {})
    facts = run.accumulate(run.roll_out(), torch.arange(8))
    assert facts["approx_kl"] < 1e-9 and facts["clip_share"] == 0


# What a step is


def test_a_row_says_what_the_answers_were(tiny_llama: Callable[..., Any], word_tokenizer: Any, tmp_path: Path) -> None:
    seen: list[tuple[str, list[int], float, str]] = []

    def reward(
        *, prompts: Sequence[str], completions: Sequence[str], completion_ids: list[list[int]], **columns: Any
    ) -> list[float]:
        scores = letters(prompts=prompts, completions=completions)
        assert columns["twice"] == [prompt * 2 for prompt in prompts]
        seen.extend(zip(completions, completion_ids, scores, prompts, strict=True))
        return scores

    logged: list[tuple[int, Mapping[str, float]]] = []
    prompts = ["ask", "ask a", "ask b c", "b"]
    settings = SETTINGS.model_copy(update={"steps": 2, "truncated_reward": -5.0})
    result = train(
        tiny_llama(), word_tokenizer, reward, settings, tmp_path, prompts=prompts,
        columns={"twice": [prompt * 2 for prompt in prompts]}, log=lambda step, row: logged.append((step, row)),
    )  # fmt: skip
    assert [step for step, _ in logged] == [1, 2] and [row for _, row in logged] == list(result.rows)
    assert all(math.isfinite(value) for row in result.rows for value in row.values())
    first, row = seen[:16], result.rows[0]
    assert sorted(prompt for *_, prompt in first) == sorted(prompts * 4), "each prompt as often as the others"
    truncated = [ids[-1] != 0 for _, ids, _, _ in first]
    assert row["score"] == pytest.approx(np.mean([score for _, _, score, _ in first]), abs=1e-6)
    assert row["truncated_share"] == pytest.approx(np.mean(truncated)) and 0 < np.mean(truncated) < 1
    assert row["answer_tokens"] == pytest.approx(np.mean([len(ids) for _, ids, _, _ in first]))
    # At the first step nothing has moved: the reward is the score, but for truncated answers.
    assert row["kl"] == pytest.approx(0, abs=1e-5)
    paid = [-5.0 if cut else score for cut, (_, _, score, _) in zip(truncated, first, strict=True)]
    assert row["reward"] == pytest.approx(np.mean(paid), abs=1e-5)
    assert (row["updates"], row["learning_rate"], result.rows[1]["learning_rate"]) == (4, 3e-3, 1.5e-3)


def test_an_update_ends_early_when_the_policy_has_moved_too_far(
    tiny_llama: Callable[..., Any], word_tokenizer: Any, tmp_path: Path
) -> None:
    settings = SETTINGS.model_copy(update={"learning_rate": 0.05, "approx_kl_limit": 0.02, "epochs": 6})
    rows = train(tiny_llama(), word_tokenizer, letters, settings, tmp_path).rows
    assert all(1 <= row["updates"] < 12 for row in rows)
    assert all(row["approx_kl"] <= 0.02 for row in rows)


def test_a_value_model_begins_as_the_reward_model_and_leaves_the_policy_alone(
    tiny_llama: Callable[..., Any], word_tokenizer: Any, tmp_path: Path
) -> None:
    from transformers import LlamaForSequenceClassification

    policy = tiny_llama()
    torch.manual_seed(1)
    config = copy.deepcopy(policy.config)
    config.num_labels = 1
    reward_model = LlamaForSequenceClassification(config)
    run = PPORun(policy, word_tokenizer, ["ask", "ask a b"], letters, SETTINGS, None, copy.deepcopy(reward_model), {})
    rollout = run.roll_out()
    for at in range(4):
        real = rollout.batch.mask_BS[at]
        ids = rollout.batch.tokens_BS[at][real]
        start = int(real[: rollout.batch.prompt_columns].sum())
        with torch.no_grad():
            wanted = [float(reward_model(ids[None, :end]).logits) for end in range(start, len(ids))]
        assert rollout.values_BT[at, : len(wanted)].tolist() == pytest.approx(wanted, abs=1e-5)
    run.settings = SETTINGS.model_copy(update={"value_coefficient": 1.0})
    run.accumulate(rollout, torch.arange(8))
    with_value = {name: weight.grad.clone() for name, weight in policy.named_parameters()}
    run.settings = SETTINGS.model_copy(update={"value_coefficient": 0.0})
    run.accumulate(rollout, torch.arange(8))
    assert all(torch.equal(weight.grad, with_value[name]) for name, weight in policy.named_parameters())
    with pytest.raises(UserError, match="no sequence classifier of one label"):
        train(policy, word_tokenizer, letters, SETTINGS, tmp_path, value_model=tiny_llama())


def adapted(policy: Any) -> Any:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(2)
    return get_peft_model(policy, LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], lora_dropout=0.1))


@pytest.mark.filterwarnings(PEFT)
def test_a_lora_policy_learns_with_its_adapters_off_as_reference(
    tiny_llama: Callable[..., Any], word_tokenizer: Any, tmp_path: Path
) -> None:
    base = tiny_llama()
    before = {name: weight.clone() for name, weight in base.state_dict().items()}
    table, policy = Table(2, word_tokenizer), adapted(base)
    settings = SETTINGS.model_copy(
        update={
            "steps": 12,
            "answers_per_step": 64,
            "minibatch_answers": 32,
            "max_new_tokens": 2,
            "learning_rate": 2e-2,
        }
    )
    rows = train(policy, word_tokenizer, table, settings, tmp_path).rows
    assert rows[0]["kl"] == pytest.approx(0, abs=1e-6), "adapters begin at 0"
    assert rows[-1]["score"] > rows[0]["score"] + 0.3 and rows[-1]["kl"] > 0.05
    with policy.disable_adapter():
        after = table.log_policy(policy)
    torch.testing.assert_close(after, table.log_policy(tiny_llama()))
    kept = {name.replace(".base_layer", ""): weight for name, weight in base.state_dict().items() if "lora" not in name}
    assert all(torch.equal(kept[name], weight) for name, weight in before.items())


# Stopping and going on


class Killed(Exception):
    pass


@pytest.mark.filterwarnings(PEFT)
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_a_run_that_was_stopped_or_killed_ends_as_one_that_was_not_to_the_bit(
    lora: bool, tiny_llama: Callable[..., Any], word_tokenizer: Any, tmp_path: Path
) -> None:
    settings = SETTINGS.model_copy(
        update={"steps": 5, "kl_control": AdaptiveCoefficient(target_nats=0.1, horizon_answers=100)}
    )
    prompts = ["ask", "ask a b", "c", "a a", "d c ask"]

    def start() -> Any:
        return adapted(tiny_llama()) if lora else tiny_llama()

    def go(policy: Any, folder: str, reward: Any = letters, **changes: Any) -> PPOResult:
        return train(policy, word_tokenizer, reward, settings, tmp_path / folder, prompts=prompts, **changes)

    whole = start()
    wanted = go(whole, "whole")
    assert wanted.status == "finished" and len(wanted.rows) == 5

    steps: list[int] = []
    stopped = go(start(), "stopped", log=lambda step, row: steps.append(step), should_stop=lambda: len(steps) == 2)
    assert stopped.status == "interrupted" and stopped.rows == wanted.rows[:2]

    calls = 0

    def deadly(**given: Any) -> list[float]:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise Killed
        return letters(**given)

    with pytest.raises(Killed):
        go(start(), "killed", deadly, checkpoint_seconds=0.0)
    for folder in ("stopped", "killed"):
        resumed, logged = start(), list[int]()
        found = go(resumed, folder, log=lambda step, row, seen=logged: seen.append(step))
        assert logged == ([3, 4, 5] if folder == "stopped" else [4, 5])
        assert found == wanted
        for (name, weight), other in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
            assert torch.equal(weight, other), name
    # A finished run is read, not trained again.
    again = start()
    assert go(again, "whole", deadly) == wanted
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), whole.parameters(), strict=True))


@pytest.mark.slow
def test_a_process_killed_at_any_moment_ends_as_one_that_was_not_to_the_bit(tmp_path: Path) -> None:
    def start(folder: str) -> subprocess.Popen[str]:
        script = Path(__file__).with_name("train_by_ppo.py")
        return subprocess.Popen(
            [sys.executable, str(script), str(tmp_path / folder)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3],
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
        )  # fmt: skip

    wanted, errors = start("whole").communicate(timeout=200)
    assert len(wanted.strip()) == 64, errors
    for moment in (2, 11):
        process = start("killed")
        assert process.stderr is not None
        for line in process.stderr:
            if line.strip().isdigit() and int(line) >= moment:
                break
        process.kill()
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
    found, errors = start("killed").communicate(timeout=200)
    assert found == wanted
    first = next(int(line) for line in errors.splitlines() if line.strip().isdigit())
    assert first >= 11, "it went on, and did not begin again"


def test_what_cannot_be_right_is_refused_in_a_line(
    tiny_llama: Callable[..., Any], word_tokenizer: Any, tmp_path: Path
) -> None:
    policy = tiny_llama()
    train(policy, word_tokenizer, letters, SETTINGS.model_copy(update={"steps": 1}), tmp_path / "run")
    with pytest.raises(UserError, match="other weights, prompts or settings"):
        train(policy, word_tokenizer, letters, SETTINGS, tmp_path / "run")
    with pytest.raises(UserError, match="gave nan for the answer"):
        train(policy, word_tokenizer, lambda prompts, **_: [math.nan] * len(prompts), SETTINGS, tmp_path / "nan")
    with pytest.raises(UserError, match="2 scores for 16 answers"):
        train(policy, word_tokenizer, lambda **_: [1.0, 2.0], SETTINGS, tmp_path / "few")
    with pytest.raises(UserError, match="column gold has 2 rows for 1 prompts"):
        train(policy, word_tokenizer, letters, SETTINGS, tmp_path / "columns", columns={"gold": [1, 2]})
    with pytest.raises(UserError, match="no weight that requires a gradient"):
        train(tiny_llama().requires_grad_(False), word_tokenizer, letters, SETTINGS, tmp_path / "frozen")
    for wrong, words in (
        ({"minibatch_answers": 5}, "no multiple"),
        ({"kl_coefficient": 0.0, "kl_control": {"target_nats": 1.0}}, "can't be adapted"),
        ({"clip_ratio": 1.5}, "clip_ratio"),
    ):
        with pytest.raises(ValidationError, match=words):
            PPOSettings.model_validate(json.loads(SETTINGS.model_dump_json()) | wrong)
