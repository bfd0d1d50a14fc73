"""The report and the page of curves: one file each, offline, escaped, complete."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import hashlib
import json
import re
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from analysis.description import description
from analysis.interactive import plots, write_page
from analysis.offline_page import packed
from analysis.report import report_html, write_report
from analysis.study_view import LargerRun, StudyView, empty_curves
from analysis.tables.forecasts import larger_runs
from analysis.verdict import forecast_sentence, larger_runs_sentence, verdict
from scaling.fit import RejectedRow
from scaling.fits.together import fit_table
from scaling.forecast import Forecast
from scaling.prediction import score

from .conftest import simulate, trained
from .test_figure_data import refused


def unpacked(text: str) -> str:
    return gzip.decompress(base64.b64decode(text)).decode()


class Page(HTMLParser):
    """Elements with their attributes, the text of each script, and the visible text."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.words: list[str] = []
        self._inside: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._inside.append(tag)
            if tag == "script":
                self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        if self._inside and self._inside[-1] == tag:
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if self._inside and self._inside[-1] == "script":
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        elif not self._inside:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def html(view: StudyView) -> str:
    return report_html(view)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_the_report_is_one_file_under_six_megabytes_that_loads_nothing(html: str, page: Page) -> None:
    assert len(html.encode()) < 6_000_000
    for tag, attributes in page.elements:
        assert tag not in ("iframe", "object", "embed", "base", "form"), tag
        for name in ("src", "href", "action", "srcset"):
            value = attributes.get(name)
            beside = tag == "a" and value == "explorer.html"
            assert value is None or beside or value.startswith(("data:", "#")), (tag, name, value)
    css = re.findall(r"<style>(.*?)</style>", html, re.S)
    assert css and not any("url(" in text or "@import" in text for text in css)


def test_the_policy_names_each_script_that_runs_and_allows_no_other_source(page: Page) -> None:
    policies = [
        a["content"] for t, a in page.elements if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    ]
    assert len(policies) == 1
    policy = str(policies[0])
    assert "default-src 'none'" in policy and "connect-src 'none'" in policy
    assert "http" not in policy and "*" not in policy and "unsafe-eval" not in policy
    kinds = {attributes.get("id"): text for attributes, text in page.scripts if "type" in attributes}
    assert kinds.keys() == {"plotly", "plots"}, "data that no browser runs as it stands"
    running = [text for attributes, text in page.scripts if "type" not in attributes]
    assert len(running) == 2
    for text in (*running, unpacked(kinds["plotly"])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


def test_the_sections_stand_in_order(page: Page) -> None:
    sections = [attributes.get("id") for tag, attributes in page.elements if tag == "section"]
    assert sections == ["forecast", "laws", "hyperparameters", "limits", "configuration", "runs", "reproduce"]


def test_the_verdict_and_the_forecasts_record_come_first(view: StudyView, page: Page) -> None:
    record = forecast_sentence(view)
    assert record is not None
    assert page.text.index(verdict(view)) < page.text.index(record) < page.text.index("Frontier, iso-FLOP lines")
    assert "Illustration, not advice." in page.text


def test_the_record_says_whether_the_interval_held(view: StudyView) -> None:
    assert view.outcome is not None
    for inside, word in ((True, "inside the 90%"), (False, "outside the 90%")):
        outcome = view.outcome.model_copy(update={"inside": inside})
        assert word in str(forecast_sentence(dataclasses.replace(view, outcome=outcome)))


def test_every_run_is_in_the_table_with_a_value_to_sort_by(view: StudyView, html: str) -> None:
    table = html[html.index("data-sortable") :]
    table = table[: table.index("</table>")]
    assert table.count("<tr") == len(view.observations) + 1
    for _, run in view.observations.iterrows():
        assert f'data-value="{run["loss_nats"]}"' in table


def test_names_cannot_become_markup(make_view: Callable[..., StudyView]) -> None:
    evil = "<script>alert(1)</script>"
    observations = make_view().observations.assign(status="finished")
    observations["run_key"] = [f"<i>{i}</i>" for i in range(len(observations))]
    known = make_view().fit.observations
    counts = known.model_copy(update={"rejected": (RejectedRow(row=1, reason=evil),)})
    view = make_view(
        name=evil, question=evil, corpus=evil, machine=evil, notes=(evil,), observations=observations,
        curves=empty_curves(), reproduce_command=evil, verdict=evil, fit=make_view().fit.model_copy(
            update={"observations": counts}
        ),
    )  # fmt: skip
    page = Page(report_html(view))
    assert "i" not in {tag for tag, _ in page.elements}
    assert not any("alert(1)" in text for _, text in page.scripts)
    assert page.text.count(evil) >= 7


def test_packed_text_has_nothing_that_could_close_its_element() -> None:
    given = json.dumps({"name": "</script><script>alert(1)</script><!-- &amp;"})
    assert not set("<>&") & set(packed(given))
    assert unpacked(packed(given)) == given


def test_refusals_and_rejected_rows_are_told(view: StudyView) -> None:
    counts = view.fit.observations.model_copy(update={"rejected": (RejectedRow(row=3, reason="loss is empty"),)})
    fit = refused(view.fit, "parametric", "isoflop").model_copy(update={"observations": counts})
    text = Page(report_html(dataclasses.replace(view, fit=fit, recommendation=None, forecast=None, outcome=None))).text
    assert "every run has 20 tokens a parameter" in text
    assert "no budget has four sizes" in text
    assert "loss is empty" in text
    assert "No forecast was registered" in text


def larger(forecast: Forecast, **changes: object) -> LargerRun:
    """A rung of the study's own forecast, which it misses by nothing; ``changes`` replace fields."""
    outcome = score(forecast, [forecast.loss.estimate], ["a" * 64])
    made = LargerRun("a" * 64, "rung llama 1M · 30M tokens", "rung", "finished", forecast, outcome)
    return dataclasses.replace(made, **changes)


def test_larger_runs_stand_beside_the_hold_out_with_what_came_of_them(
    make_view: Callable[..., StudyView], forecast: Forecast
) -> None:
    missed = score(forecast, [1.5 * forecast.loss.estimate], ["b" * 64])
    large = larger(forecast, run_key="b" * 64, stage="final", label="final llama 2M", outcome=missed)
    view = make_view(larger=(larger(forecast), large))
    text = Page(report_html(view)).text
    sentence = larger_runs_sentence(view)
    assert sentence is not None and sentence.startswith("The large run, at ") and sentence in text
    assert "outside the 90% interval" in sentence and "The run below it ended inside" in sentence
    assert sentence in description(view)
    rows = [[cell.text for cell in row] for row in larger_runs(view).rows]
    assert [row[-1] for row in rows] == ["inside", "outside"]
    assert rows[1][4:6] == [f"{missed.loss:.4f}", "−33.33%"]
    assert all(cell in text for row in rows for cell in row)


def test_a_larger_run_that_has_not_ended_or_whose_forecast_came_late_is_said_to(
    make_view: Callable[..., StudyView], forecast: Forecast
) -> None:
    waits = larger(forecast, stage="final", state="planned", outcome=None)
    view = make_view(larger=(waits,), forecast=None, outcome=None)
    assert str(larger_runs_sentence(view)).endswith("nats before it started; it has not ended.")
    assert "No forecast was registered" not in Page(report_html(view)).text
    late = make_view(larger=(dataclasses.replace(waits, problems=("its run had started before",)),))
    assert larger_runs_sentence(late) is None, "no record of what can't be believed"
    assert larger_runs(late).rows[0][-1].text == "not believed: its run had started before"


def test_without_larger_runs_nothing_is_said_of_them(view: StudyView, page: Page) -> None:
    assert larger_runs_sentence(view) is None
    assert "Larger runs" not in page.text


def _seconds_and_bytes_of_a_report(make_view: Callable[..., StudyView], budgets: int, sizes: int) -> tuple[float, int]:
    many = simulate(budgets=tuple(8e10 * 60 ** (i / budgets) for i in range(budgets)), sizes=sizes)
    times, expected = trained(many.observations, workers=8)
    view = make_view(
        observations=many.observations,
        curves=many.curves,
        fit=fit_table(many.observations, flops_convention="6nd", bootstrap=100),
        trained=times,
        expected_stage_seconds=expected,
    )
    start = time.process_time()
    html = report_html(view)
    return time.process_time() - start, len(html.encode())


def test_a_report_of_three_hundred_runs_stays_under_six_megabytes(make_view: Callable[..., StudyView]) -> None:
    _, size = _seconds_and_bytes_of_a_report(make_view, budgets=30, sizes=10)
    assert size < 6_000_000


@pytest.mark.slow
def test_three_thousand_runs_make_a_report_within_a_minute(make_view: Callable[..., StudyView]) -> None:
    seconds, _ = _seconds_and_bytes_of_a_report(make_view, budgets=60, sizes=50)
    assert seconds < 60


def test_the_page_of_curves_draws_the_same_figures_without_a_network(view: StudyView, tmp_path: Path) -> None:
    path = write_page(view, tmp_path / "curves.html")
    page = Page(path.read_text())
    assert not any(attributes.get("src") for tag, attributes in page.elements if tag in ("script", "link", "img"))
    wanted = [attributes["data-plot"] for _, attributes in page.elements if "data-plot" in attributes]
    data = json.loads(unpacked(next(text for attributes, text in page.scripts if attributes.get("id") == "plots")))
    assert sorted(wanted) == sorted(data) == sorted(plot.name for plot in plots(view))


def test_writing_the_report_leaves_one_whole_file(view: StudyView, tmp_path: Path) -> None:
    write_report(view, tmp_path / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text().rstrip().endswith("</html>")


def test_the_report_shows_how_forecasts_of_this_sweep_would_have_done(view: StudyView) -> None:
    page = report_html(view)
    assert "Back-test: the sweep’s own largest budgets" in page
    for cut in view.fit.drift.back_test or ():
        assert f"{cut.inside} of {cut.predicted}" in page
        assert f"{cut.rms_error:.2%}" in page
