"""The pages in Chromium with axe-core: nothing of serious or critical kind, light and dark, wide and narrow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from analysis.explorer import write_explorer
from analysis.interactive import write_page
from analysis.report import write_report
from analysis.study_view import StudyView

if TYPE_CHECKING:
    from playwright.sync_api import Page


@pytest.fixture(scope="module")
def pages(view: StudyView, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    explorer = write_explorer(view, folder / "explorer.html")
    assert explorer is not None
    return {
        "report": write_report(view, folder / "report.html"),
        "curves": write_page(view, folder / "curves.html"),
        "explorer": explorer,
    }


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["report", "curves", "explorer"])
def test_axe_finds_nothing_serious(
    pages: dict[str, Path], open_page: Callable[..., Page], name: str, width: int, dark: bool
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed (the dev extra)")
    page = open_page(pages[name].as_uri(), width=width, dark=dark)
    page.wait_for_selector(".main-svg")
    found = axe.Axe().run(page).response["violations"]
    grave = [
        (each["id"], each["impact"], [node["target"] for node in each["nodes"][:3]])
        for each in found
        if each["impact"] in ("serious", "critical")
    ]
    assert grave == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing is wider than the screen"


@pytest.mark.slow
def test_the_runs_are_sorted_by_a_heading_also_from_the_keyboard_and_the_configuration_is_copied(
    pages: dict[str, Path], open_page: Callable[..., Page], view: StudyView
) -> None:
    page = open_page(pages["report"].as_uri())
    page.wait_for_selector(".main-svg")
    heading = page.locator("table[data-sortable] th", has_text="Loss")
    heading.locator("button").focus()
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending"
    column = heading.evaluate("cell => cell.cellIndex + 1")
    losses = page.locator(f"table[data-sortable] tbody td:nth-child({column})").all_inner_texts()
    assert [float(loss) for loss in losses] == sorted(view.observations["loss_nats"].round(4))
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "descending"
    copy = page.locator("button.copy[data-copies=yaml]")
    copy.click()
    copy.filter(has_text="Copied").wait_for()
