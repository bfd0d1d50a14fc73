"""The live page: what a study's ledger says, before there is a plan, while workers write it, and after the end."""

from __future__ import annotations

import html
import http.client
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import yaml

from analysis.live.look import LiveStudy
from analysis.live.server import LiveServer
from scaling import architectures
from scaling.errors import UserError
from scaling.laws.chinchilla import CHINCHILLA
from sweeps.conduct import Conductor
from sweeps.ledger.ledger import Ledger, PlannedRun
from sweeps.ledger.owner import Owner
from sweeps.planning.plan import run_spec
from sweeps.standing import standing
from sweeps.study import Study
from sweeps.workspace import Workspace

from ..sweeps.conftest import Silent, write_text
from ..sweeps.studies import small_study

if TYPE_CHECKING:
    from playwright.sync_api import Page


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return small_study(write_text(tmp_path_factory.mktemp("text")), track={"mlflow": None})


class Hand:
    """A study whose plan is frozen and whose runs are moved by hand; their losses follow a law."""

    def __init__(self, study: Study, root: Path) -> None:
        self.study, self.root = study, root
        self.conductor = Conductor(study, Workspace(root), Silent())
        self.ledger = self.conductor.ledger
        self.plan = self.conductor.plan()
        rates = self.conductor.learning_rates(self.plan)
        self.ledger.add(study.name, self.conductor.sweep_runs(self.plan, rates))
        self.owner = Owner.me()

    def start(self, steps: int = 5) -> str:
        spec = self.ledger.lease(self.study.name, "sweep", self.owner)
        assert spec is not None
        row = next(row for row in self.ledger.runs(self.study.name) if row.key == spec.key)
        self.ledger.add_points(
            spec.key,
            [
                {
                    "step": s,
                    "tokens": 128 * s,
                    "flops": row.flops * s / spec.steps,
                    "name": name,
                    "value": 6.0 - s / 100,
                }
                for s in range(1, steps + 1)
                for name in ("train_loss", "held_out_loss")
            ],
        )
        self.ledger.heartbeat(spec.key, self.owner, step=steps, loss=5.0, tokens_per_second=1e4)
        return spec.key

    def finish(self, key: str) -> None:
        row = next(row for row in self.ledger.runs(self.study.name) if row.key == key)
        params = architectures.get("llama").count_parameters(row.spec.shape).total
        loss = float(CHINCHILLA.predict((60.0, 90.0, 1.5, 0.35, 0.35), params, row.spec.tokens))
        self.ledger.finish(
            key,
            self.owner,
            "finished",
            {"status": "finished", "loss_nats": loss, "loss_sem": 0.01, "bits_per_byte": loss / 3,
             "numerics": "by hand", "wall_seconds": 1.0, "steps": row.spec.steps},
        )  # fmt: skip


@pytest.fixture
def hand(study: Study, tmp_path: Path) -> Hand:
    return Hand(study, tmp_path / "workspace")


def test_before_there_is_a_plan_the_page_waits_and_makes_nothing(tmp_path: Path) -> None:
    root = tmp_path / "workspace"
    look = LiveStudy("tiny", root)
    assert look.state()["phase"] == "waiting"
    assert not root.exists(), "a ledger made by whoever looks would bind the workspace to it"
    Ledger(Workspace(root).ledger_url).close()
    assert look.state()["phase"] == "waiting"


def test_it_says_what_status_says(hand: Hand) -> None:
    look = LiveStudy(hand.study.name, hand.root)
    first = hand.start()
    told, now = look.state(), standing(hand.ledger, Workspace(hand.root), hand.study.name)
    assert told["phase"] == "running"
    assert (told["share"], told["states"], told["to_come"]) == (now.share, now.states, now.coming)
    assert told["seconds_left"] == pytest.approx(now.seconds_left)
    assert [run["key"] for run in told["running"]] == [first[:8]]
    hand.finish(first)
    assert look.state()["states"]["finished"] == 1


def test_curves_grow_by_what_is_new_and_a_figure_is_drawn_before_any_run_has_ended(hand: Hand) -> None:
    look = LiveStudy(hand.study.name, hand.root)
    assert json.loads(look.figures()) == {}
    key = hand.start(steps=4)
    before = look.state()["figures"]
    assert set(json.loads(look.figures())) == {"loss_against_compute"}
    assert look.state()["figures"] == before, "nothing new, nothing to draw"
    row = [{"step": 5, "tokens": 640, "flops": 1e9, "name": "held_out_loss", "value": 5.9}]
    hand.ledger.add_points(key, row)
    assert look.state()["figures"] != before
    assert len(look._curves.table()) == 5


def test_the_interim_fit_is_refused_in_words_until_the_runs_bear_it(hand: Hand) -> None:
    look = LiveStudy(hand.study.name, hand.root)
    hand.finish(hand.start())
    look.state()
    look._fit.wait()
    fit = look.state()["fit"]
    assert fit["runs"] == 1 and fit["refusal"]
    for _ in range(11):
        hand.finish(hand.start())
    look.state()
    look._fit.wait()
    fit = look.state()["fit"]
    assert fit["runs"] == 12 and fit["refusal"] is None
    assert any(line["label"].startswith("N* exponent") for line in fit["lines"])
    assert {"loss_against_compute", "allocation_params"} <= set(json.loads(look.figures()))


def test_a_registered_large_run_does_not_keep_the_study_from_its_end(hand: Hand) -> None:
    for _ in range(len(hand.plan.sweep)):
        hand.finish(hand.start())
    point = hand.plan.hold_out.point
    specs = [run_spec(hand.study, hand.plan, point.shape, point.tokens, 0.01, seed) for seed in range(3)]
    hand.ledger.add(hand.study.name, [PlannedRun(spec=specs[0], stage="hold-out", label="hold-out")])
    held = hand.ledger.lease(hand.study.name, "hold-out", hand.owner)
    assert held is not None
    hand.finish(held.key)
    look = LiveStudy(hand.study.name, hand.root)
    assert look.state()["phase"] == "ended" and "larger" not in look.state()["words"]
    look._fit.wait()
    hand.ledger.add(hand.study.name, [PlannedRun(spec=spec, stage="final", label="large") for spec in specs[1:]])
    told = look.state()
    assert (told["phase"], told["share"]) == ("ended", 1.0)
    assert "2 registered larger runs wait for `scaling train`" in told["words"]


def test_failures_are_told_with_their_reason(hand: Hand) -> None:
    key = hand.start()
    evil = "<img src=x onerror=alert(1)>"
    hand.ledger.fail(key, hand.owner, evil)
    (told,) = LiveStudy(hand.study.name, hand.root).state()["troubles"]
    assert told["reason"] == evil and told["run"].startswith(key[:8])


def answered(address: str, path: str, *, host: str | None = None, method: str = "GET") -> tuple[int, bytes, Any]:
    where = urlsplit(address)
    connection = http.client.HTTPConnection(where.netloc, timeout=20)
    connection.request(method, path, headers={"Host": host or where.netloc})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body, answer.headers


@pytest.fixture
def served(tmp_path: Path) -> Iterator[LiveServer]:
    with LiveServer(LiveStudy("tiny", tmp_path / "workspace"), 0) as server:
        yield server


def test_only_the_loopback_address_may_ask_and_only_to_read(served: LiveServer) -> None:
    port = urlsplit(served.address).port
    assert served.address.startswith("http://127.0.0.1:")
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1.evil.example:{port}", "127.0.0.1:80"):
        assert answered(served.address, "/state.json", host=host)[0] == 403
    assert answered(served.address, "/state.json", host=f"localhost:{port}")[0] == 200
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert answered(served.address, "/state.json", method=method)[0] == 501
    status, body, headers = answered(served.address, "/")
    assert status == 200 and headers["X-Frame-Options"] == "DENY" and headers["X-Content-Type-Options"] == "nosniff"
    policy = html.unescape(body.decode())
    assert "connect-src 'self'" in policy and "default-src 'none'" in policy


def test_no_path_reaches_another_file(served: LiveServer, tmp_path: Path) -> None:
    folder = tmp_path / "workspace" / "studies" / "tiny"
    folder.mkdir(parents=True)
    (folder / "secret.txt").write_text("secret")
    assert answered(served.address, "/report.html")[0] == 404, "not written yet"
    (folder / "report.html").write_text("<p>report</p>")
    assert answered(served.address, "/report.html")[:2] == (200, b"<p>report</p>")
    for path in (
        "/secret.txt",
        "/../secret.txt",
        "/report.html/../secret.txt",
        "//etc/passwd",
        "/%2e%2e/secret.txt",
        "/studies",
    ):
        assert answered(served.address, path)[0] == 404


def test_a_port_that_is_taken_is_a_mistake_with_a_remedy(served: LiveServer, tmp_path: Path) -> None:
    port = urlsplit(served.address).port
    assert port is not None
    with pytest.raises(UserError, match=rf"--port {port} can't be used.*or 0 for any that is free"):
        LiveServer(LiveStudy("tiny", tmp_path), port)


@pytest.fixture
def watched(study: Study, tmp_path: Path) -> Iterator[tuple[Path, str, subprocess.Popen[str]]]:
    """``scaling watch`` as a process, started before the study: its file, its address and the process."""
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(study.model_dump(mode="json", exclude_none=True)))
    arguments = [sys.executable, "-m", "scaling.cli.main", "watch", str(file), "-w", str(tmp_path / "workspace")]
    with subprocess.Popen(
        [*arguments, "--port", "0", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield file, json.loads(process.stdout.readline())["address"], process
        if process.poll() is None:
            process.kill()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_study_is_watched_from_before_its_plan_to_its_report(
    watched: tuple[Path, str, subprocess.Popen[str]], open_page: Callable[..., Page]
) -> None:
    file, address, process = watched
    page = open_page(address, offline=False)
    words = page.locator("#words")
    page.wait_for_selector("html[data-phase=waiting]")
    assert "no plan yet" in words.inner_text()
    command = [
        sys.executable,
        "-m",
        "scaling.cli.main",
        "run",
        str(file),
        "-w",
        str(file.parent / "workspace"),
        "--json",
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        page.wait_for_selector("html[data-phase=running]", timeout=240_000)
        page.wait_for_selector("[data-plot=loss_against_compute] .main-svg", timeout=60_000)
        assert page.locator("#running tbody tr").count() >= 1
        assert "Time left" in page.locator("#facts").inner_text()
        run.wait(400)
    page.wait_for_selector("html[data-phase=ended]", timeout=60_000)
    report = page.get_by_role("link", name="the report")
    report.wait_for(timeout=60_000)
    ledger = Ledger(Workspace(file.parent / "workspace").ledger_url)
    now = standing(ledger, Workspace(file.parent / "workspace"), "tiny")
    assert f"{len(now.rows)} of {len(now.rows)}" in page.locator("#facts").inner_text()
    page.wait_for_selector("#fit-words:has-text('own fit')", timeout=30_000)
    report.click()
    page.wait_for_selector("text=Forecast against outcome")
    page.get_by_role("link", name="the forecast explorer").click()
    page.wait_for_selector("#answers tbody tr")
    page.goto(address)

    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 0 and "Traceback" not in said
    assert "no longer served" in said
    page.wait_for_selector("#away:not([hidden])", timeout=20_000)
