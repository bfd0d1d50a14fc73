"""The pages on which people decide, in Chromium: blind, by keyboard, continued, escaped, and deaf to other sites."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from analysis.loopback import LoopbackServer
from analysis.people.preference_page import PreferenceServer
from analysis.people.review_page import ReviewServer
from scaling.errors import UserError
from trainer.posttrain.blind_choice import BlindChoice
from trainer.posttrain.json_lines import as_lines, read_json_lines
from trainer.posttrain.synthesis.review import Review
from trainer.posttrain.synthesis.synthesise import SynthesisFolder, synthesise
from trainer.posttrain.votes import Comparison, Votes, read_comparisons

from ...trainer.posttrain.test_synthesis import SEEDS, Scripted, asked_settings

if TYPE_CHECKING:
    from playwright.sync_api import Page

EVIL = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">&amp; \u202e"
PAIRS = [
    Comparison(prompt=f"question {n} {EVIL}", first=f"good {n} {EVIL}", second=f"bad {n}\n\n  two") for n in range(6)
]


def preferences(out: Path, annotator: str = "ada", seed: int = 0) -> BlindChoice:
    return BlindChoice(Votes(PAIRS, out), annotator, seed)


@pytest.fixture
def folder(tmp_path: Path) -> SynthesisFolder:
    made = SynthesisFolder(tmp_path / "tasks")
    synthesise(Scripted(), SEEDS, made, asked_settings(), wanted=6)
    return made


@pytest.fixture
def prefer(tmp_path: Path) -> Iterator[PreferenceServer]:
    with PreferenceServer(preferences(tmp_path / "pairs.jsonl"), 0) as server:
        assert isinstance(server, PreferenceServer)
        yield server


def ask(server: LoopbackServer, path: str, sent: Any = None, **headers: str) -> tuple[int, Any]:
    address = urlsplit(server.address)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=10)
    body = None if sent is None else sent if isinstance(sent, bytes) else json.dumps(sent).encode()
    kind = {} if body is None else {"Content-Type": "application/json"}
    connection.request(
        "GET" if body is None else "POST", path, body, kind | {n.replace("_", "-"): v for n, v in headers.items()}
    )
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, json.loads(content) if answer.headers[
        "Content-Type"
    ] == "application/json" else content.decode()


def test_sides_are_drawn_by_the_seed_and_every_choice_is_written_at_once(
    prefer: PreferenceServer, tmp_path: Path
) -> None:
    out, sides = tmp_path / "pairs.jsonl", []
    for number in range(6):
        _, state = ask(prefer, "/state.json")
        assert state["voted"] == number
        shown = state["shown"]
        side = "left" if shown["left"].startswith("good") else "right"
        sides.append(side)
        assert ask(prefer, "/choose", {"pair": shown["pair"], "side": side})[0] == 200
        assert len(read_json_lines(out)) == number + 1
    assert set(sides) == {"left", "right"}
    for row in read_json_lines(out):
        assert row["chosen"].startswith("good") and row["rejected"].startswith("bad") and row["annotator"] == "ada"
        assert row["chosen_label"] == "first" and sorted(row["order"]) == ["first", "second"]
    assert ask(prefer, "/state.json")[1]["shown"] is None
    again = preferences(tmp_path / "other.jsonl")
    other = preferences(tmp_path / "another.jsonl", seed=1)
    for made in (again, other):
        found = []
        while (shown := made.next()) is not None:
            found.append("left" if shown.left.startswith("good") else "right")
            made.choose(shown.pair, "skip")
        assert (found == sides) == (made is again), "the seed decides, and it alone"


def test_ties_and_skips_are_no_pairs_and_are_not_asked_again(tmp_path: Path) -> None:
    made = preferences(tmp_path / "pairs.jsonl")
    for side in ("tie", "skip", "left"):
        shown = made.next()
        assert shown is not None
        made.choose(shown.pair, side)  # type: ignore[arg-type]
    assert len(read_json_lines(tmp_path / "pairs.jsonl")) == 1
    again = preferences(tmp_path / "pairs.jsonl")
    counts = again.votes.counts("ada")
    assert (counts["voted"], counts["preferred"], counts["ties"], counts["skipped"]) == (3, 1, 1, 1)
    last = again.undo()
    assert last == shown.pair and again.next() == shown
    assert read_json_lines(tmp_path / "pairs.jsonl") == []
    assert (again.undo(), again.undo(), again.undo()) != (None, None, None)
    assert again.undo() is None


def test_annotators_share_a_file_and_not_their_votes(tmp_path: Path) -> None:
    out = tmp_path / "pairs.jsonl"
    ada, bob = preferences(out, "ada"), preferences(out, "bob")
    for made in (ada, bob, ada, bob):
        shown = made.next()
        assert shown is not None
        made.choose(shown.pair, "left")
    assert [row["annotator"] for row in read_json_lines(out)] == ["ada", "bob", "ada", "bob"]
    assert bob.votes.counts("bob")["voted"] == 2 and ada.undo() is not None
    assert [row["annotator"] for row in read_json_lines(out)] == ["ada", "bob", "bob"]


def test_a_choice_that_comes_twice_counts_once(prefer: PreferenceServer, tmp_path: Path) -> None:
    pair = ask(prefer, "/state.json")[1]["shown"]["pair"]
    for side in ("left", "right"):
        assert ask(prefer, "/choose", {"pair": pair, "side": side})[1]["voted"] == 1
    assert len(read_json_lines(tmp_path / "pairs.votes.jsonl")) == 1


def test_other_sites_can_neither_read_nor_vote(prefer: PreferenceServer) -> None:
    pair = ask(prefer, "/state.json")[1]["shown"]["pair"]
    vote = {"pair": pair, "side": "left"}
    assert ask(prefer, "/state.json", Host="evil.example")[0] == 403
    assert ask(prefer, "/choose", vote, Host="evil.example")[0] == 403
    assert ask(prefer, "/choose", vote, Origin="http://evil.example")[0] == 403
    assert ask(prefer, "/choose", vote, Origin="null")[0] == 403
    assert ask(prefer, "/choose", vote, Content_Type="text/plain")[0] == 403, "what a form could send"
    assert ask(prefer, "/state.json")[1]["voted"] == 0
    assert ask(prefer, "/choose", vote, Origin=prefer.address.rstrip("/"))[0] == 200


@pytest.mark.parametrize(
    ("path", "sent", "status"),
    [
        ("/choose", b"nonsense", 400),
        ("/choose", [1], 400),
        ("/choose", {"pair": "nonsense", "side": "left"}, 400),
        ("/choose", {"pair": 5, "side": "left"}, 400),
        ("/choose", {"pair": "x", "side": "up"}, 400),
        ("/nowhere", {}, 404),
        ("/choose", b"x" * (2**20 + 1), 413),
    ],
)
def test_what_makes_no_sense_changes_nothing(prefer: PreferenceServer, path: str, sent: Any, status: int) -> None:
    try:
        assert ask(prefer, path, sent)[0] == status
    except (BrokenPipeError, ConnectionResetError):
        assert status == 413, "it hangs up on what is too long"
    assert ask(prefer, "/state.json")[1]["voted"] == 0


def test_a_killed_page_left_half_a_line_and_no_pairs_file(tmp_path: Path) -> None:
    made = preferences(tmp_path / "pairs.jsonl")
    shown = made.next()
    assert shown is not None
    made.choose(shown.pair, "left")
    (tmp_path / "pairs.jsonl").unlink()
    with (tmp_path / "pairs.votes.jsonl").open("ab") as file:
        file.write(b'{"pair": "half')
    again = preferences(tmp_path / "pairs.jsonl")
    assert again.votes.counts("ada")["voted"] == 1 == len(read_json_lines(tmp_path / "pairs.jsonl"))


def test_pairs_are_read_in_their_forms_and_a_mistake_is_a_line(tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    rows = [
        {"prompt": "p", "first": "a", "second": "b"},
        {"prompt": "p", "chosen": "a", "rejected": "b", "score": 1},
        {"prompt": [{"role": "user", "content": "p"}], "a": [{"role": "assistant", "content": "a"}], "b": "b"},
        {"prompt": "other", "answer_a": "a", "answer_b": "b"},
    ]
    file.write_text(as_lines(rows))
    assert [(c.prompt, c.first, c.second) for c in read_comparisons(file)] == [("p", "a", "b"), ("other", "a", "b")]
    file.write_text(as_lines([*rows, {"prompt": "p", "first": "a"}]))
    with pytest.raises(UserError, match="pair 5: a pair has the texts prompt, first and second"):
        read_comparisons(file)
    precious = tmp_path / "precious.jsonl"
    precious.write_text("{}\n")
    with pytest.raises(UserError, match="was not made here"):
        Votes(PAIRS, precious)
    assert precious.read_text() == "{}\n"


def test_people_choose_by_keyboard_blind_and_can_take_it_back(
    prefer: PreferenceServer, open_page: Callable[..., Page], tmp_path: Path
) -> None:
    page = open_page(prefer.address, offline=False)
    where = page.locator("#where")

    def done(number: int) -> None:
        page.wait_for_selector(f"#where:text-is('{number} of 6 done')")

    done(0)
    assert page.title() == "Which answer is better?", "nothing of a text runs"
    assert page.locator("main img").count() == 0
    left = page.locator("#left").inner_text()
    assert EVIL.split(" ")[0] in page.locator("#prompt").inner_text()
    page.keyboard.press("ArrowLeft")
    done(1)
    assert read_json_lines(tmp_path / "pairs.jsonl")[0]["chosen"] == left
    page.keyboard.press("t")
    done(2)
    page.keyboard.press("S")
    done(3)
    page.keyboard.press("Control+ArrowRight")  # the browser's own
    page.get_by_role("button", name="A ←").press("ArrowRight")
    done(4)
    page.keyboard.press("u")
    done(3)
    page.locator("#choose-right").click()
    done(4)
    page.keyboard.press("2")
    done(5)
    page.keyboard.press("a")
    done(6)
    page.wait_for_selector("#done:not([hidden])")
    assert page.locator("#choose-left").is_disabled() and "pairs.jsonl" in page.locator("#done").inner_text()
    assert where.inner_text() == "6 of 6 done"
    assert len(read_json_lines(tmp_path / "pairs.jsonl")) == 4


def test_people_keep_drop_and_edit_tasks(folder: SynthesisFolder, open_page: Callable[..., Page]) -> None:
    review = Review(folder, "ada")
    with ReviewServer(review, 0) as server:
        page = open_page(server.address, offline=False)

        def told(words: str) -> None:
            page.wait_for_selector(f"#where:has-text('{words}')")

        told("0 kept, 0 edited, 0 dropped")
        page.keyboard.press("k")
        told("1 kept, 0 edited, 0 dropped")
        page.keyboard.press("d")
        told("1 kept, 0 edited, 1 dropped")
        page.keyboard.press("e")
        page.locator("#edit-output").fill("")
        page.locator("#edit-output").press("Control+Enter")
        page.wait_for_selector("#away:has-text('An example has an instruction and an output')")
        page.locator("#edit-output").fill("a kinder answer, with d and k in it")
        page.locator("#edit-instruction").press("Escape")
        page.keyboard.press("e")
        page.locator("#edit-output").fill("a better answer")
        page.locator("#edit-output").press("Control+Enter")
        told("1 kept, 1 edited, 1 dropped")
        page.keyboard.press("u")
        told("1 kept, 0 edited, 1 dropped")
    assert [row["decision"] for row in read_json_lines(folder.path / "decisions.jsonl")] == [
        "keep",
        "drop",
        "edit",
        "undo",
    ]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing_serious(
    prefer: PreferenceServer, folder: SynthesisFolder, open_page: Callable[..., Page], width: int, dark: bool
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed (the dev extra)")
    with ReviewServer(Review(folder, "ada"), 0) as review:
        for address in (prefer.address, review.address):
            page = open_page(address, width=width, dark=dark, offline=False)
            page.wait_for_selector("main > div:not([hidden])")
            grave = [
                (each["id"], [node["target"] for node in each["nodes"][:3]])
                for each in axe.Axe().run(page).response["violations"]
                if each["impact"] in ("serious", "critical")
            ]
            assert grave == []
            assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing is wider than the screen"
