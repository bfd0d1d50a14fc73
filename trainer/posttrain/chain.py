"""A post-training at work: each stage of a pipeline from what it needs, to a folder, once.

Stages know nothing of each other but folders of models and rows: what goes into one is in its key (``stage.py``).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from scaling.errors import UserError
from scaling.record import Interval, Record, content_hash
from trainer.posttrain.best_of_n import BestOfNSettings, best_of_n_rows, sample_answers, score_answers
from trainer.posttrain.chat_template import Chat
from trainer.posttrain.compare import answers_of, compare
from trainer.posttrain.direct import DirectSettings, train_directly
from trainer.posttrain.examples import (
    Example,
    ExampleFile,
    Pair,
    fingerprint,
    read_pairs,
    split,
    write_rows,
)
from trainer.posttrain.online import OnlineSettings, train_online
from trainer.posttrain.pipeline import Pipeline, Rows
from trainer.posttrain.policy import (
    folder_fingerprint,
    libraries,
    load_policy,
    load_tokenizer,
    quietly,
    save_model,
)
from trainer.posttrain.policy_gradient import PPOStage, train_by_ppo
from trainer.posttrain.preferences import columns_of, sample_pairs
from trainer.posttrain.reward import Reward
from trainer.posttrain.reward_model import (
    RewardModel,
    pair_metrics,
    tokenise_pairs,
    train_reward,
)
from trainer.posttrain.sft import answer_loss, fine_tune, tokenise
from trainer.posttrain.stage import StageFolder, StageKind, StageRun, StageSpec, run_stage
from trainer.posttrain.tasks.task import GoldReward, Task

__all__ = ["PostTraining"]

Progress = Callable[[str, str, float | None, Mapping[str, float]], None]
"""Told the stage's title, what it does, the share that is done if known, and the newest metrics."""
_HELD_OUT_PAIRS = 0.1
"""Share of the prompts whose pairs the reward model is tried on."""


class PostTraining:
    """A pipeline at work in a folder of stages."""

    def __init__(
        self, pipeline: Pipeline, base: Path, root: Path, *, progress: Progress, should_stop: Callable[[], bool]
    ) -> None:
        """base: the base model in the Hugging Face layout. root: the folder of all stages."""
        self.pipeline, self.base, self.root = pipeline, base, root
        self._progress, self._should_stop = progress, should_stop
        self._libraries = libraries()
        self._keys: dict[Path, str] = {}

    def stages(self, until: str | None = None) -> Iterator[tuple[int, str, StageFolder]]:
        """Train what is missing, of each seed to the stage ``until``; each stage as it ends, with its seed and name.

        :class:`trainer.posttrain.stage.Interrupted` if it was asked to stop.
        """
        if self.pipeline.threads is not None:
            import torch

            torch.set_num_threads(self.pipeline.threads)
        with quietly():
            members = self.pipeline.reward.members if self.pipeline.reward else 1
            last = f"reward {members}" if until == "reward" and members > 1 else until
            for seed in self.pipeline.seeds:
                for name, folder in self._chain(seed):
                    yield seed, name, folder
                    if name == last:
                        break

    def _chain(self, seed: int) -> Iterator[tuple[str, StageFolder]]:
        pipeline = self.pipeline
        train, held_out = self._examples
        policy = self.base
        if pipeline.sft is not None:
            sft = self._sft(seed, train, held_out)
            yield "sft", sft
            policy = sft.model
        pairs: tuple[list[Pair], list[Pair]] = ([], [])
        pairs_key = ""
        if pipeline.pairs is not None:
            pairs_stage = self._pairs(seed, policy, train)
            yield "pairs", pairs_stage
            all_pairs = read_pairs(ExampleFile(file=str(pairs_stage.rows)))
            pairs_key = fingerprint(all_pairs)
            pairs = split(all_pairs, _HELD_OUT_PAIRS, salt="pairs/1")
        members: list[StageFolder] = []
        if pipeline.reward is not None:
            for member in range(pipeline.reward.members):
                members.append(self._reward(seed + 1000 * member, policy, pairs, pairs_key))
                yield "reward" if pipeline.reward.members == 1 else f"reward {member + 1}", members[-1]
        if pipeline.best_of_n is not None:
            yield "best_of_n", self._best_of_n(seed, policy, held_out, members)
        trained: dict[str, Path] = {}
        for kind in pipeline.policies:
            settings = getattr(pipeline, kind)
            if isinstance(settings, DirectSettings):
                folder = self._direct(kind, seed, policy, settings, pairs[0], pairs_key)
            else:
                folder = self._online(kind, seed, policy, settings, train, members)
            yield kind, folder
            trained[kind] = folder.model
        yield "compare", self._compare(seed, policy, trained, held_out, members)

    # The stages

    def _sft(self, seed: int, train: list[Example], held_out: list[Example]) -> StageFolder:
        settings = self.pipeline.sft
        assert settings is not None

        def work(run: StageRun) -> Mapping[str, float | Interval]:
            chat, model = self._chat(self.base), load_policy(self.base)
            length = settings.max_tokens or model.config.max_position_embeddings
            rows = tokenise(train, chat, length, run.note)
            looked_at = tokenise(held_out, chat, length, lambda _: None)
            for name, found in (("to train on", rows), ("held out", looked_at)):
                if not found:
                    raise UserError(
                        f"task has no example {name} of at most {length} tokens: give more, or shorter ones"
                    )
            pad = chat.tokenizer.pad_token_id
            before = answer_loss(model, looked_at, pad)
            model = fine_tune(model, chat, rows, settings, run)
            save_model(model, chat.tokenizer, run.folder.model)
            after = answer_loss(model, looked_at, pad)
            return {
                "examples": len(rows),
                "tokens": sum(len(row.prompt) + len(row.completion) for row in rows),
                **{f"held_out_{name}": value for name, value in after.items()},
                **{f"held_out_{name}_before": value for name, value in before.items()},
            }

        return self._stage("sft", settings, {"policy": self._key(self.base), "rows": self._train_key}, seed, work)

    def _pairs(self, seed: int, policy: Path, train: list[Example]) -> StageFolder:
        settings = self.pipeline.pairs
        assert settings is not None

        def work(run: StageRun) -> Mapping[str, float | Interval]:
            if isinstance(settings, ExampleFile):
                pairs = read_pairs(settings)
            else:
                assert self._scored is not None, "a pipeline samples pairs only for a task with a score"
                pairs = sample_pairs(
                    load_policy(policy),
                    self._chat(policy),
                    train,
                    GoldReward(self._scored),
                    settings,
                    max_new_tokens=self.pipeline.max_new_tokens,
                    seed=seed,
                    progress=run.sampling,
                )
            if not pairs:
                raise UserError("pairs: no two answers differ in their score; sample more prompts, or train sft longer")
            write_rows(pairs, run.folder.rows)
            longer = sum(len(pair.chosen) > len(pair.rejected) for pair in pairs)
            return {"pairs": len(pairs), "chosen_longer_share": longer / len(pairs)}

        if isinstance(settings, ExampleFile):
            inputs = {"rows": fingerprint(read_pairs(settings))}
        else:
            inputs = {"policy": self._key(policy), "rows": self._train_key}
        return self._stage("pairs", settings, inputs, seed, work)

    def _reward(self, seed: int, policy: Path, pairs: tuple[list[Pair], list[Pair]], pairs_key: str) -> StageFolder:
        settings = self.pipeline.reward
        assert settings is not None

        def work(run: StageRun) -> Mapping[str, float | Interval]:
            chat = self._chat(policy)
            length = settings.max_tokens or self._context(policy)
            ids, _ = tokenise_pairs(pairs[0], chat, length, run.note)
            held_out, kept = tokenise_pairs(pairs[1], chat, length, lambda _: None)
            if not ids or not held_out:
                raise UserError("pairs: too few to train a reward model and hold some out; give more")
            model = train_reward(policy, chat, ids, settings, run)
            save_model(model, chat.tokenizer, run.folder.model)
            reward = RewardModel([run.folder.model], chat)
            chosen, rejected = (
                reward.of_tokens([getattr(pair, side) for pair in held_out]) for side in ("chosen", "rejected")
            )
            lengths = [(len(pair.chosen), len(pair.rejected)) for pair in held_out]
            return {"pairs": len(ids), "held_out_pairs": len(kept), **pair_metrics(chosen, rejected, lengths)}

        inputs = {"policy": self._key(policy), "pairs": pairs_key}
        # The ensemble is made of several such stages: how many and how they vote changes none of them.
        alone = settings.model_copy(update={"members": 1, "caution": 0.0})
        return self._stage("reward", alone, inputs, seed, work)

    def _best_of_n(self, seed: int, policy: Path, held_out: list[Example], members: list[StageFolder]) -> StageFolder:
        settings = self.pipeline.best_of_n
        assert settings is not None
        gold = None if self._scored is None else GoldReward(self._scored)

        def work(run: StageRun) -> Mapping[str, float | Interval]:
            chat = self._chat(policy)
            rows = self._that_fit(held_out, chat, policy, run.note)[: settings.prompts]
            how = BestOfNSettings(answers=settings.answers, max_new_tokens=self.pipeline.max_new_tokens, seed=seed)
            answers = sample_answers(
                load_policy(policy).eval(),
                chat.tokenizer,
                [chat.prompt(row.prompt) for row in rows],
                how,
                progress=lambda done, of: run.sampling(done / of),
            )
            columns = columns_of(rows)
            proxy = self._proxy(members, chat) or gold
            assert proxy is not None
            powers = (2**power for power in range(settings.answers.bit_length()))
            found = best_of_n_rows(
                answers,
                score_answers(answers, proxy, columns),
                None if gold is None else score_answers(answers, gold, columns),
                ns=sorted({*powers, settings.answers}),
            )
            for row in found:
                each = {"kl": row.kl_nats, "proxy": row.proxy.estimate, "answer_tokens": row.answer_tokens.estimate}
                run.log(row.n, each if row.gold is None else {**each, "gold": row.gold.estimate})
            last = found[-1]
            metrics: dict[str, float | Interval] = {"prompts": len(rows), "kl_nats": last.kl_nats}
            metrics |= {"proxy": last.proxy, "answer_tokens": last.answer_tokens}
            return metrics if last.gold is None else metrics | {"gold": last.gold}

        inputs = {"policy": self._key(policy), "rows": self._held_out_key}
        inputs |= self._judged_by(members)
        return self._stage("best_of_n", settings, inputs, seed, work, **self._how_answered)

    def _direct(
        self, kind: StageKind, seed: int, policy: Path, settings: DirectSettings, pairs: list[Pair], pairs_key: str
    ) -> StageFolder:
        def work(run: StageRun) -> Mapping[str, float | Interval]:
            chat = self._chat(policy)
            length = settings.max_tokens or self._context(policy)
            _, kept = tokenise_pairs(pairs, chat, length, run.note)
            save_model(train_directly(policy, chat, kept, settings, run), chat.tokenizer, run.folder.model)
            return {"pairs": len(kept)}

        return self._stage(kind, settings, {"policy": self._key(policy), "pairs": pairs_key}, seed, work)

    def _online(
        self,
        kind: StageKind,
        seed: int,
        policy: Path,
        settings: PPOStage | OnlineSettings,
        train: list[Example],
        members: list[StageFolder],
    ) -> StageFolder:
        gold = None if self._scored is None else GoldReward(self._scored)

        def work(run: StageRun) -> Mapping[str, float | Interval]:
            chat = self._chat(policy)
            reward = self._proxy(members, chat) or gold
            assert reward is not None
            rows = self._that_fit(train, chat, policy, run.note)
            if isinstance(settings, PPOStage):
                values = members[0].model if members else None
                model = train_by_ppo(
                    policy, chat, rows, reward, gold, settings, self.pipeline.max_new_tokens, values, run
                )
            else:
                limits = settings.model_copy(update={"method": kind, "max_new_tokens": self.pipeline.max_new_tokens})
                model = train_online(policy, chat, rows, reward, limits, run)
            save_model(model, chat.tokenizer, run.folder.model)
            return {"prompts": len(rows)}

        inputs = {
            "policy": self._key(policy),
            "rows": self._train_key,
            "reward": content_hash([self._key(each.model) for each in members]) if members else "gold",
        }
        return self._stage(kind, settings, inputs, seed, work, **self._how_answered)

    def _compare(
        self,
        seed: int,
        policy: Path,
        trained: dict[str, Path],
        held_out: list[Example],
        members: list[StageFolder],
    ) -> StageFolder:
        settings = self.pipeline.compare
        baseline = "base" if policy == self.base else "sft"
        folders = {"base": self.base, baseline: policy, **trained}

        def work(run: StageRun) -> Mapping[str, float | Interval]:
            chat = self._chat(policy)
            rows = self._that_fit(held_out, chat, policy, run.note)[: settings.prompts]
            reference = load_policy(policy).eval()
            proxy = self._proxy(members, chat)
            found = {}
            for i, (name, folder) in enumerate(folders.items()):
                found[name] = answers_of(
                    folder,
                    reference,
                    chat,
                    rows,
                    settings,
                    max_new_tokens=self.pipeline.max_new_tokens,
                    seed=seed,
                    task=self._scored,
                    proxy=proxy,
                    progress=partial(_answers_so_far, run, name, i, len(folders)),
                )
            return {"prompts": len(rows), **compare(found, baseline, rows, settings, run.folder.rows)}

        inputs = {name: self._key(folder) for name, folder in folders.items()} | {"rows": self._held_out_key}
        inputs |= self._judged_by(members)
        return self._stage("compare", settings, inputs, seed, work, **self._how_answered)

    # What they share

    def _stage(
        self,
        kind: StageKind,
        settings: Record,
        inputs: dict[str, str],
        seed: int,
        work: Callable[[StageRun], Mapping[str, float | Interval]],
        **extra: Any,
    ) -> StageFolder:
        # What changes no result is no part of what a stage is.
        said = settings.model_dump(mode="json", exclude={"micro_batch", "checkpoint_steps"})
        # Of the task, how it scores: what it has for examples is among the inputs.
        rule = self.pipeline.task.model_dump(mode="json", exclude={"source", "text_key", "count", "data"})
        about = {"chat_template": self._template, "task": rule}
        spec = StageSpec(kind=kind, settings={**said, **extra, **about}, inputs=inputs, seed=seed)
        title = f"{kind} (seed {seed})"
        return run_stage(
            spec,
            self.root,
            work,
            progress=lambda what, share, metrics: self._progress(title, what, share, metrics),
            should_stop=self._should_stop,
            libraries=self._libraries,
        )

    @cached_property
    def _examples(self) -> tuple[list[Example], list[Example]]:
        self._progress("examples", "reading", None, {})
        return split(self.pipeline.task.examples(), self.pipeline.held_out)

    # Of tens of thousands of rows, for every stage of every seed.
    @cached_property
    def _train_key(self) -> str:
        return fingerprint(self._examples[0])

    @cached_property
    def _held_out_key(self) -> str:
        return fingerprint(self._examples[1])

    @cached_property
    def _template(self) -> str:
        return self._chat(self.base).template

    @property
    def _scored(self) -> Task | None:
        """The task, if it scores answers."""
        return None if isinstance(self.pipeline.task, Rows) else self.pipeline.task

    def _judged_by(self, members: list[StageFolder]) -> dict[str, str]:
        """The reward models among a stage's inputs."""
        return {f"reward {i + 1}": self._key(each.model) for i, each in enumerate(members)}

    @property
    def _how_answered(self) -> dict[str, Any]:
        """What a stage that samples and scores answers depends on beside its own settings."""
        caution = self.pipeline.reward.caution if self.pipeline.reward else 0.0
        return {"max_new_tokens": self.pipeline.max_new_tokens, "caution": caution}

    def _chat(self, folder: Path) -> Chat:
        return Chat(load_tokenizer(folder), self.pipeline.chat_template)

    def _context(self, folder: Path) -> int:
        """Tokens that the model in ``folder`` can read."""
        return int(json.loads((folder / "config.json").read_text(encoding="utf-8"))["max_position_embeddings"])

    def _proxy(self, members: list[StageFolder], chat: Chat) -> Reward | None:
        if self.pipeline.reward is None:
            return None
        return RewardModel([each.model for each in members], chat, caution=self.pipeline.reward.caution)

    def _key(self, folder: Path) -> str:
        """Of a model that stays as it is."""
        if folder not in self._keys:
            self._keys[folder] = folder_fingerprint(folder)
        return self._keys[folder]

    def _that_fit(self, rows: list[Example], chat: Chat, policy: Path, note: Callable[[str], None]) -> list[Example]:
        """The rows whose prompt leaves room for an answer."""
        most = self.pipeline.max_new_tokens
        room = self._context(policy) - most
        kept = [
            row
            for row in rows
            if not chat.imitates(*(message.content for message in row.prompt))
            and len(chat.prompt_ids(row.prompt)) <= room
        ]
        if len(kept) < len(rows):
            note(f"{len(rows) - len(kept):,} of {len(rows):,} prompts leave no room for {most} tokens")
        if not kept:
            raise UserError(
                f"max_new_tokens is {most}: no prompt leaves so much room in the model's context; allow fewer"
            )
        return kept


def _answers_so_far(run: StageRun, policy: str, before: int, policies: int, share: float) -> None:
    run.sampling((before + share) / policies, f"answers of {policy}")
