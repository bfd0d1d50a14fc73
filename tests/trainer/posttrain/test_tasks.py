from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer.posttrain.base_models import write_corpus
from trainer.posttrain.examples import ExampleFile
from trainer.posttrain.tasks.answers import Answers
from trainer.posttrain.tasks.sentences import Sentences
from trainer.posttrain.tasks.task import GoldReward


def test_the_embedded_corpus_gives_sentences_that_score_as_they_should() -> None:
    task = Sentences(count=500)
    examples = task.examples()
    assert len(examples) == 500 == len({row.completion for row in examples})
    scores = [task.score(row.completion, row.columns) for row in examples]
    assert min(scores) >= 0.75 and sum(scores) / 500 > 0.99
    # The word of another's answer is seldom in it.
    crossed = [task.checks(a.completion, b.columns)["word"] for a, b in itertools.pairwise(examples)]
    assert sum(crossed) / len(crossed) < 0.02


def test_examples_follow_from_the_settings_alone(tmp_path: Path) -> None:
    task = Sentences(source=str(write_corpus(tmp_path / "a.txt")), count=100)
    assert task.examples() == task.examples()
    assert all(row.columns["word"] in row.completion.lower() for row in task.examples())


@pytest.mark.parametrize(
    ("answer", "missing"),
    [
        ("The sailor came home before winter.", set()),
        ("the sailor came home before the winter!”", set()),
        ("The soldier came home before winter.", {"word"}),
        ("The sailors came home before winter.", {"word"}),
        ("The sailor came home before the winter", {"one_sentence"}),
        ("The sailor came home. It was winter then.", {"one_sentence"}),
        ("A sailor.", {"length"}),
        ("The sailor saw a sailor who saw a sailor.", {"varied"}),
        ("", {"word", "one_sentence", "length", "varied"}),
    ],
)
def test_each_check_fails_for_what_it_is_for(answer: str, missing: set[str]) -> None:
    found = Sentences().checks(answer, {"word": "sailor"})
    assert {name for name, value in found.items() if value == 0} == missing
    assert Sentences().score(answer, {"word": "sailor"}) == 1 - len(missing) / 4


@given(st.text())
def test_any_text_can_be_scored(answer: str) -> None:
    assert 0 <= Sentences().score(answer, {"word": "x"}) <= 1
    task = Answers(data=ExampleFile(file="-"))
    assert 0 <= task.score(answer, {"answer": "ls -l"}) <= 1


def test_an_answer_scores_by_equality_and_shared_words() -> None:
    task, columns = Answers(data=ExampleFile(file="-")), {"answer": "tar -xf a.tar"}
    assert task.score(" tar  -xf a.tar\n", columns) == 1
    assert task.score("tar -cf a.tar", columns) == pytest.approx(0.5 * 2 / 3)
    assert task.score("", columns) == 0
    assert task.checks("tar -cf b.tar", columns) == {
        "exact": 0.0, "first_word": 1.0, "shared_words": pytest.approx(1 / 3),
    }  # fmt: skip


def test_the_gold_reward_takes_columns_as_trl_gives_them() -> None:
    reward = GoldReward(Answers(data=ExampleFile(file="-")))
    assert reward(prompts=["p", "p"], completions=["a", "b"], answer=["a", "a"], completion_ids=[[1], [2]]) == [1.0, 0]
