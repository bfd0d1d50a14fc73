"""Tasks made by a model behind a real server: parsed, sifted, new by ROUGE-L, and the same after a stop."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling.errors import UserError
from scaling.record import content_hash
from trainer.posttrain.endpoint import Endpoint, EndpointSettings
from trainer.posttrain.json_lines import JsonLines, read_json_lines
from trainer.posttrain.synthesis.diversity import diversity
from trainer.posttrain.synthesis.filters import fault
from trainer.posttrain.synthesis.prompt import choose_examples, parse, prompt
from trainer.posttrain.synthesis.review import Review
from trainer.posttrain.synthesis.rouge import RougeIndex, words_of
from trainer.posttrain.synthesis.synthesise import Settings, SynthesisFolder, synthesise
from trainer.posttrain.synthesis.task import Task, read_seed_tasks
from trainer.posttrain.text_model import Answer, Asked, Message

from .endpoint_server import ChatServer, status

VERBS = ["Describe", "Explain", "Compare", "List", "Rewrite", "Summarise", "Translate", "Classify", "Invent", "Improve"]
THINGS = [
    "bridge",
    "river",
    "tax",
    "poem",
    "engine",
    "garden",
    "storm",
    "letter",
    "clock",
    "harbour",
    "theorem",
    "recipe",
    "glacier",
    "violin",
    "market",
]
SEEDS = [
    Task(instruction=f"{verb} the meaning of number {n} for a child", output=f"It is {n}.")
    for n, verb in enumerate(VERBS)
]


def written(number: int, count: int, draw: random.Random) -> str:
    """What a model would write: ``count`` tasks, the first without its head, some of them of no use."""
    pieces = []
    for place in range(count):
        n = number + place
        words = " ".join(draw.choice(THINGS) for _ in range(draw.randrange(3, 8)))
        instruction = f"{draw.choice(VERBS)} {words} {draw.randrange(10**9)}"
        if place == 1:
            instruction = "Draw a picture of " + instruction
        given_input = "<noinput>" if place % 2 else f"text {draw.random()}"
        head = "" if place == 0 else f"{n}. Instruction: "
        pieces.append(f"{head}{instruction}\n{n}. Input:\n{given_input}\n{n}. Output:\nanswer {draw.random()}\n")
    return "###\n".join(pieces)


class Scripted:
    """A model of this process whose answer follows from its seed and the prompt alone."""

    name, concurrency = "scripted", 1

    def __init__(self, fail_at: int | None = None) -> None:
        self.asked, self.fail_at = 0, fail_at

    def answer(self, messages: Sequence[Message], asked: Asked, *, seed: int) -> Answer:
        self.asked += 1
        if self.asked == self.fail_at:
            raise UserError("the server is gone")
        draw = random.Random(f"{seed}{messages[0].content}")
        return Answer(text=written(9, 4, draw), ended="stop", prompt_tokens=100, completion_tokens=50)


def asked_settings(**changes: Any) -> Settings:
    fields = {"model": "scripted", "seeds_hash": content_hash([task.model_dump() for task in SEEDS])}
    return Settings.model_validate({**fields, "tasks_per_request": 4, **changes})


@st.composite
def texts(draw: Callable[..., Any]) -> list[list[str]]:
    words = st.lists(st.sampled_from("abcdefg"), max_size=draw(st.sampled_from([6, 30, 150])))
    return draw(st.lists(words, min_size=1, max_size=8))


def _lcs(a: Sequence[str], b: Sequence[str]) -> int:
    row = [0] * (len(b) + 1)
    for x in a:
        before = 0
        for j, y in enumerate(b, start=1):
            before, row[j] = row[j], (before + 1 if x == y else max(row[j], row[j - 1]))
    return row[-1]


@given(kept=texts(), query=st.lists(st.sampled_from("abcdefgh"), max_size=200))
@settings(max_examples=60)
def test_rouge_of_all_at_once_is_that_of_the_textbook(kept: list[list[str]], query: list[str]) -> None:
    index = RougeIndex()
    for words in kept:
        index.add(words)
    for words, score in zip(kept, index.similarities(query), strict=True):
        wanted = 2 * _lcs(query, words) / (len(query) + len(words)) if query and words else 0.0
        assert score == pytest.approx(wanted)


def test_words_are_cut_as_rouge_score_cuts_them() -> None:
    assert words_of("It's A-1, naïve  ok?") == ["it", "s", "a", "1", "na", "ve", "ok"]
    assert words_of("北京") == ["北", "京"]


def test_a_prompt_has_six_examples_of_people_and_two_of_the_model() -> None:
    made = [Task(instruction=f"made {n}", output="x") for n in range(9)]
    for seed in range(20):
        examples = choose_examples(SEEDS, made, random.Random(seed))
        assert sum(task in SEEDS for task in examples) == 6 and sum(task in made for task in examples) == 2
        text = prompt(examples, 5)
        assert text.endswith("###\n9. Instruction:") and "task number 13" in text
        body = text[text.index("###") :].removesuffix("###\n9. Instruction:")
        tasks, unread = parse(body, cut=False)
        assert unread == 0 and tasks == examples, "what it writes it can read"
    assert len(choose_examples(SEEDS, [], random.Random(0))) == 8


@pytest.mark.parametrize(
    "answer",
    [
        " Name it.\n9. Input:\n<noinput>\n9. Output:\nA.\n\n###\n10. Instruction: Say so.\n10. Input: x\n10. Output: B",
        "###\n9. Instruction: Name it.\n9. Input:\n<noinput>\n9. Output:\nA.\n###\n10. Instruction: Say so.\n"
        "10. Input:\nx\n10. Output:\nB\n###",
        "9. Instruction: Name it.\n9. Input: <noinput>\n9. Output: A.\n###\nInstruction: Say so.\nInput: x\nOutput: B",
        "**9. Instruction:** Name it.\n**9. Input:**\nNone\n**9. Output:**\nA.\n\n####\n\n"
        "**10. Instruction:** Say so.\n**10. Input:**\nx\n**10. Output:**\nB",
    ],
)
def test_answers_are_read_in_the_forms_that_models_give_them(answer: str) -> None:
    wanted = [Task(instruction="Name it.", output="A."), Task(instruction="Say so.", input="x", output="B")]
    assert parse(answer, cut=False) == (wanted, 0)
    assert parse(answer.rstrip("#\n "), cut=True) == (wanted[:1], 1), "the last one was cut"


@given(st.text(max_size=300))
@settings(max_examples=100)
def test_any_answer_is_read_without_a_fault(answer: str) -> None:
    tasks, unread = parse(answer, cut=False)
    assert len(tasks) + unread <= 1 + answer.count("#") // 3
    for task in tasks:
        fault(task)


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        (Task(instruction="Say it now", output="x"), "instruction too short"),
        (Task(instruction="word " * 151, output="x"), "instruction too long"),
        (Task(instruction="- Say this to me", output="x"), "starts with punctuation"),
        (Task(instruction="Übersetze diesen Satz ins Englische", output="x"), "starts with a letter that is not ASCII"),
        (Task(instruction="Describe what the image shows", output="x"), "needs more than text"),
        (Task(instruction="Write a program that adds numbers", output="x"), "asks for a program"),
        (Task(instruction="Name the largest sea animal", output=""), "no output"),
        (Task(instruction="Repeat the text that follows", input="abc", output="abc"), "output repeats the task"),
        (Task(instruction="Name the largest sea animals", output="They are:"), "output breaks off"),
        (Task(instruction="Imagine a map-less profile of a user", output="x"), "needs more than text"),
        (Task(instruction="Explain how mapping of users works", output="x"), None),
    ],
)
def test_a_task_is_dropped_for_a_reason(task: Task, reason: str | None) -> None:
    assert fault(task) == reason


def test_seed_tasks_in_both_forms(tmp_path: Path, shared_data: Path) -> None:
    found = read_seed_tasks(shared_data / "corpora/sft/self_instruct_seed_tasks_175.jsonl.xz")
    assert len(found) == 175 and all(task.output for task in found)
    (tmp_path / "own.jsonl").write_text('{"instruction": " a ", "output": "b", "note": 1}\n\n')
    assert read_seed_tasks(tmp_path / "own.jsonl") == [Task(instruction="a", output="b")]
    (tmp_path / "own.jsonl").write_text('{"instruction": "a"}\n')
    with pytest.raises(UserError, match="task 1"):
        read_seed_tasks(tmp_path / "own.jsonl")
    (tmp_path / "own.jsonl").write_text('{"instruction": "a", "output": "b"}\nnonsense\n')
    with pytest.raises(UserError, match=r"own\.jsonl:2 is no JSON object"):
        read_seed_tasks(tmp_path / "own.jsonl")


def test_kept_tasks_are_new_and_every_dropped_one_has_its_reason(tmp_path: Path) -> None:
    folder = SynthesisFolder(tmp_path)
    told: list[Any] = []
    end = synthesise(Scripted(), SEEDS, folder, asked_settings(), wanted=40, tell=told.append)
    tasks = folder.tasks()
    assert end.kept == len(tasks) >= 40 and end.requests == len(folder.rows())
    assert end.kept + sum(end.dropped.values()) == 4 * end.requests
    assert end.dropped["needs more than text"] == end.requests
    assert (end.prompt_tokens, end.completion_tokens) == (100 * end.requests, 50 * end.requests)
    assert told[0].kept == 0 and told[0].seconds_left is None and told[-1].seconds_left is not None
    before = [task.instruction for task in SEEDS]
    for task in tasks:
        a = words_of(task.instruction)
        scores = [2 * _lcs(a, b) / (len(a) + len(b)) for b in map(words_of, before)]
        assert max(scores) < 0.7 and max(scores) == pytest.approx(task.nearest, abs=1e-4)
        assert task.nearest_to in before
        before.append(task.instruction)
    assert [row["id"] for row in read_json_lines(tmp_path / "tasks.jsonl")] == [task.id for task in tasks]


def test_stopped_at_any_request_it_goes_on_to_the_same_tasks(tmp_path: Path) -> None:
    whole = SynthesisFolder(tmp_path / "whole")
    synthesise(Scripted(), SEEDS, whole, asked_settings(), wanted=25)
    wanted = [task.model_dump() for task in whole.tasks()]
    parts = SynthesisFolder(tmp_path / "parts")
    for _ in range(50):
        try:
            synthesise(Scripted(fail_at=3), SEEDS, parts, asked_settings(), wanted=25)
            break
        except UserError as error:
            assert str(error) == "the server is gone"
            # What a killed process leaves: the beginning of a line.
            with (parts.path / "requests.jsonl").open("ab") as file:
                file.write(b'{"request": 99, "kep')
    assert [task.model_dump() for task in parts.tasks()] == wanted
    assert (parts.path / "tasks.jsonl").read_text() == (whole.path / "tasks.jsonl").read_text()


def test_a_model_that_writes_nothing_new_is_not_asked_for_ever(tmp_path: Path) -> None:
    class Parrot(Scripted):
        def answer(self, messages: Sequence[Message], asked: Asked, *, seed: int) -> Answer:
            self.asked += 1
            return Answer(text=" Name the largest sea\n9. Input:\n<noinput>\n9. Output:\nIt is one.", ended="stop")

    parrot, told = Parrot(), list[Any]()
    with pytest.raises(UserError, match=r"last 100 answers held no new task .*ROUGE-L"):
        synthesise(parrot, SEEDS, SynthesisFolder(tmp_path), asked_settings(), wanted=5, tell=told.append)
    assert parrot.asked == 101 and told[-1].kept == 1


def test_a_folder_begun_otherwise_is_refused_in_a_line(tmp_path: Path) -> None:
    synthesise(Scripted(), SEEDS, SynthesisFolder(tmp_path), asked_settings(), wanted=1)
    with pytest.raises(UserError, match=r"was begun with temperature 1\.0, and now it is 0\.5"):
        synthesise(Scripted(), SEEDS, SynthesisFolder(tmp_path), asked_settings(temperature=0.5), wanted=1)
    with pytest.raises(UserError, match="holds no synthesis"):
        _ = SynthesisFolder(tmp_path / "other").settings


def test_through_a_server_with_faults_several_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.posttrain.endpoint.random.uniform", lambda low, high: 0.01)

    def reply(body: dict[str, Any]) -> str:
        assert body["messages"][0]["content"].endswith("9. Instruction:")
        return written(9, 4, random.Random(body["seed"]))

    with ChatServer(reply, status(500), status(429, Retry_After="0"), wait=0.02) as server:
        model = Endpoint(EndpointSettings(base_url=server.base_url, model="m", concurrency=4), lambda note: None)
        end = synthesise(model, SEEDS, SynthesisFolder(tmp_path), asked_settings(model="m"), wanted=30)
        assert 2 <= server.most_at_once <= 4
        assert len(server.bodies) == end.requests + 2
    assert 30 <= end.kept <= 30 + 4 * 4
    assert len({task.id for task in SynthesisFolder(tmp_path).tasks()}) == end.kept


def test_the_report_counts_what_is_there(tmp_path: Path) -> None:
    folder = SynthesisFolder(tmp_path)
    synthesise(Scripted(), SEEDS, folder, asked_settings(), wanted=20)
    tasks = folder.tasks()
    found = diversity(tasks)
    assert found.tasks == len(tasks) == sum(found.nearest_by_tenth) == sum(found.first_words.values())
    assert found.with_input == sum(bool(task.input) for task in tasks)
    assert found.instruction_words is not None and found.instruction_words.least <= found.instruction_words.median
    assert diversity([tasks[0], tasks[0]]).repeated_outputs == 1
    assert diversity([]).tasks == 0


def test_a_review_is_continued_undone_and_seen_by_others(tmp_path: Path) -> None:
    folder = SynthesisFolder(tmp_path)
    synthesise(Scripted(), SEEDS, folder, asked_settings(), wanted=10)
    first = Review(folder, "ada")
    order = []
    for decision in ("keep", "drop"):
        task = first.next()
        assert task is not None
        order.append(task)
        first.decide(task.id, decision)  # type: ignore[arg-type]
    edited = first.next()
    assert edited is not None
    first.decide(edited.id, "edit", Task(instruction="Edited to be better", input="i", output="o"))
    again = Review(folder, "ada")
    assert again.counts() == {"tasks": len(again.tasks), "keep": 1, "drop": 1, "edit": 1}
    other = Review(folder, "bob")
    assert other.next() == again.next(), "what another decided needs no second look"
    assert other.undo() is None, "nor is it another's to take back"
    again.write_examples()
    rows = read_json_lines(again.examples_file)
    assert len(rows) == len(again.tasks) - 1
    assert {"prompt": "Edited to be better\n\ni", "completion": "o"} in rows
    assert order[1].prompt not in [row["prompt"] for row in rows]
    assert again.undo() == edited.id and again.undo() == order[1].id
    assert again.next() == order[1]
    assert other.next() == order[1]
    with pytest.raises(UserError, match="no task"):
        again.decide("nonsense", "keep")


def test_rows_of_several_writers_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"n": 0}\n{"n": ')
    one, two = JsonLines(path), JsonLines(path)
    one.add({"n": 1, "text": "a\nb\u2028c"})
    two.add({"n": 2})
    assert [row["n"] for row in one.news()] == [0, 1, 2]
    assert one.news() == []
    assert [row["n"] for row in two.news()] == [0, 1, 2]
    assert [json.loads(line)["n"] for line in path.read_bytes().split(b"\n") if line] == [0, 1, 2]
